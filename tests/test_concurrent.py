"""Verdicts and scores that are made while, or where, other runs' answers are made: the same as those made alone."""

import os
import subprocess
import sys
import time

import pytest
from conftest import ROOT

import lora_mbpp.evaluation.concurrent_judging as beside
import lora_mbpp.evaluation.judging as judging
import lora_mbpp.evaluation.loading as loading
from lora_mbpp.core.config import resolve
from lora_mbpp.core.files import read_jsonl
from lora_mbpp.core.runs import metrics_file
from lora_mbpp.evaluate import evaluate, generate_for_runs
from lora_mbpp.sandbox.verdicts import Verdict
from lora_mbpp.tasks.loading import literal_tasks

TASK = literal_tasks()[0]
GOOD, BAD = 'def double(x):\n    return 2 * x', 'def double(x):\n    return x'
SLOW = 'def double(x):\n    while True: pass'


@pytest.fixture
def cfg(tmp_path):
    return resolve('test', artifacts_dir=str(tmp_path / 'artifacts'), data_dir=str(tmp_path / 'data'), cpu_s=1.0)


def record(code: str, sample: int = 0) -> dict:
    return {'task_id': TASK['task_id'], 'sample_idx': sample, 'text': f'```python\n{code}\n```'}


def test_the_same_program_runs_once(tmp_path, monkeypatch):
    "Copies that come later, while it runs, and after it, share its verdict; one that could not be judged is no verdict"
    asked, verdicts = [], iter(['harness_error', 'passed', 'wrong_answer'])

    def judge_many(jobs, limits, engine):
        for n, job in enumerate(jobs):
            asked.append(job['code'])
            yield n, Verdict(next(verdicts))

    monkeypatch.setattr(judging, 'judge_many', judge_many)
    limits, layers = judging.Limits(), {'engine': 'fork'}
    codes = [GOOD, GOOD, BAD, GOOD]
    candidates = [judging.candidate_of(record(code, n), TASK, limits, layers) for n, code in enumerate(codes)]
    found = [(c.record['sample_idx'], v.verdict) for c, v in judging.verdicts_once(iter(candidates), limits, layers)]
    assert asked == [GOOD, GOOD, BAD]  # drawn one at a time: the first was not judged
    assert found == [(0, 'harness_error'), (1, 'passed'), (2, 'wrong_answer'), (3, 'passed')]


def test_verdicts_beside_are_those_of_judging_afterwards(cfg, tmp_path):
    tail = f'{GOOD}\nprint(double(int(input())))'
    records = [record(code, n) for n, code in enumerate([GOOD, BAD, tail, GOOD, SLOW, 'def ('])]
    files, judges = beside.result_files(cfg, 'one'), beside.judges_of(cfg, [TASK])
    with beside.judged_beside(cfg, [TASK], 'cuda') as told:
        told('one', records[:2])
        told('two', records)
        told('one', records[2:])
    afterwards = judging.judge_records(records, [TASK], tmp_path / 'results.jsonl', judges.limits, judges.layers)
    told_of = [
        {(r['sample_idx'], r['verdict'], r['message'], r['code']) for r in made}
        for made in (read_jsonl(files.whole), read_jsonl(beside.result_files(cfg, 'two').whole), afterwards)
    ]
    assert told_of[0] == told_of[1] == told_of[2] and len(told_of[0]) == 6
    assert [r['verdict'] for r in read_jsonl(files.definitions)] == ['passed']
    before = files.whole.read_bytes()
    with beside.judged_beside(cfg, [TASK], 'cuda') as told:
        told('one', records)  # a second start has nothing to judge
    assert files.whole.read_bytes() == before


def test_a_judging_process_that_dies_costs_nothing(cfg, capsys):
    files, judges = beside.result_files(cfg, 'one'), beside.judges_of(cfg, [TASK])
    records = [record(code, n) for n, code in enumerate([GOOD, BAD, SLOW])]
    with beside.ConcurrentJudge(judges) as judge:
        judge.take(files, records)
        judge.process.kill()
    assert 'judged afterwards' in capsys.readouterr().out
    found = judging.judge_records(records, [TASK], files.whole, judges.limits, judges.layers)
    assert [result['verdict'] for result in found] == ['passed', 'wrong_answer', 'timeout']


def test_programs_begin_before_the_next_ones_come(cfg):
    "Whoever waits for the last of a few answers must not find the first ones still to be judged"
    files, judges = beside.result_files(cfg, 'one'), beside.judges_of(cfg, [TASK])

    def arriving():
        yield files, record(SLOW)
        time.sleep(4)  # it takes a second

    started = time.monotonic()
    judges.judge(arriving(), lambda what: None)
    assert time.monotonic() - started < 4.9 and read_jsonl(files.whole)[0]['verdict'] == 'timeout'


def test_it_ends_with_what_interrupts_the_model(cfg):
    with pytest.raises(KeyboardInterrupt), beside.ConcurrentJudge(beside.judges_of(cfg, [TASK])) as judge:
        judge.take(beside.result_files(cfg, 'one'), [record(SLOW)])
        raise KeyboardInterrupt
    assert not judge.process.is_alive()


def test_a_run_of_a_pass_has_the_numbers_of_a_run_alone(cfg, monkeypatch, capsys):
    "Completions, scores and verdicts of the pass are on file, so that the evaluation loads no model and judges nothing"
    alone = evaluate(cfg, 'alone')
    monkeypatch.setattr(loading, 'judged_beside', lambda cfg, tasks, device: beside.judged_beside(cfg, tasks, 'cuda'))
    assert generate_for_runs(cfg, {'one': None, 'two': None}) == 2
    assert len(read_jsonl(metrics_file(cfg, 'one', '.results.jsonl'))) == alone['eval_info']['n_tasks']
    monkeypatch.setattr('lora_mbpp.evaluate.load_for', None)
    monkeypatch.setattr(judging, 'judge_many', lambda jobs, **_: iter(() if not jobs else 1 / 0))
    capsys.readouterr()
    found = evaluate(cfg, 'one')
    assert 'completed and scored in a pass' in capsys.readouterr().out
    for name in ('per_task', 'reference_nll', 'settings', 'computed', 'parameters', 'verdicts', 'definitions_only'):
        left, right = found['eval_info'][name], alone['eval_info'][name]
        if name == 'per_task':
            left, right = ([{**row, 'cpu_seconds': None} for row in rows] for rows in (left, right))
        assert left == right, name


@pytest.mark.parametrize('spoilt', ['scores', 'generations'])
def test_what_a_pass_left_incomplete_is_made_again(cfg, spoilt, capsys):
    "Half a file, or one of other settings, is no reason to believe the rest"
    generate_for_runs(cfg, {'one': None, 'two': None})
    path = metrics_file(cfg, 'one', f'.{spoilt}.jsonl')
    lines = path.read_text(encoding='utf-8').splitlines(keepends=True)
    path.write_text(
        ''.join(lines[:-1]) if spoilt == 'generations' else lines[0].replace('"settings": "', '"settings": "x')
    )
    capsys.readouterr()
    found = evaluate(cfg, 'one')
    assert 'completed and scored in a pass' not in capsys.readouterr().out
    assert found['eval_info']['reference_nll'] == evaluate(cfg, 'two')['eval_info']['reference_nll']


@pytest.mark.parametrize('damage', [lambda text: text[:-20], lambda text: text + text, lambda text: '{"settings": 1}'])
def test_scores_of_a_damaged_file_are_no_scores(cfg, damage, capsys):
    generate_for_runs(cfg, {'one': None, 'two': None})
    path = metrics_file(cfg, 'one', '.scores.jsonl')
    path.write_text(damage(path.read_text()))
    assert evaluate(cfg, 'one')['eval_info']['reference_nll'] == evaluate(cfg, 'two')['eval_info']['reference_nll']


SCRIPT = """
print('begins', flush=True)
import lora_mbpp.evaluation.concurrent_judging as beside, lora_mbpp.evaluation.loading as loading
from lora_mbpp.core.config import resolve
from lora_mbpp.evaluate import evaluate
import lora_mbpp.evaluate as stage
stage.judged_beside = lambda cfg, tasks, device: beside.judged_beside(cfg, tasks, 'cuda')
evaluate(resolve('test', artifacts_dir='artifacts', data_dir='data'), 'one')
from lora_mbpp.experiments.scheduling import process_pool
with process_pool(1) as pool:
    print(pool.submit(abs, -3).result())
"""


@pytest.mark.parametrize('copies', ['true', 'false'])
def test_a_script_that_asks_nobody_whether_it_is_main_runs_once(tmp_path, copies):
    "A new process that ran it again would wait for the lock of the evaluation that waits for that process"
    (tmp_path / 'mine.py').write_text(SCRIPT)
    environment = {**os.environ, 'LORA_MBPP_COPIES': copies, 'PYTHONPATH': str(ROOT)}
    asked = [sys.executable, 'mine.py']
    done = subprocess.run(asked, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count('begins') == 1 and done.stdout.rstrip().endswith('3')
