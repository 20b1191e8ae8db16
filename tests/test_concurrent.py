"""Verdicts and scores that are made while, or where, other runs' answers are made: the same as those made alone."""

import os
import subprocess
import sys
import time
from dataclasses import replace

import peft
import psutil
import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file, save_file

import lora_mbpp.evaluation.concurrent_judging as beside
import lora_mbpp.evaluation.judging as judging
import lora_mbpp.evaluation.loading as loading
import lora_mbpp.evaluation.references as references
from lora_mbpp.core.config import resolve
from lora_mbpp.core.files import read_jsonl
from lora_mbpp.core.runs import metrics_file
from lora_mbpp.evaluate import evaluate, generate_for_runs
from lora_mbpp.models.tiny import tiny_model
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
    with beside.judged_beside(cfg, [TASK], 'cuda') as judge:
        judge.told('one', records[:2])
        judge.told('two', records)
        judge.told('one', records[2:])
    afterwards = judging.judge_records(records, [TASK], tmp_path / 'results.jsonl', judges.limits, judges.layers)
    told_of = [
        {(r['sample_idx'], r['verdict'], r['message'], r['code']) for r in made}
        for made in (read_jsonl(files.whole), read_jsonl(beside.result_files(cfg, 'two').whole), afterwards)
    ]
    assert told_of[0] == told_of[1] == told_of[2] and len(told_of[0]) == 6
    assert [r['verdict'] for r in read_jsonl(files.definitions)] == ['passed']
    before = files.whole.read_bytes()
    with beside.judged_beside(cfg, [TASK], 'cuda') as judge:
        judge.told('one', records)  # a second start has nothing to judge
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


@pytest.mark.parametrize('when', ['while the model generates', 'while the last verdict is waited for'])
def test_it_ends_with_what_interrupts_the_model(cfg, monkeypatch, when):
    "And leaves the results file to whoever comes next, although it had much to do"
    files = beside.result_files(cfg, 'one')

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), beside.ConcurrentJudge(beside.judges_of(cfg, [TASK])) as judge:
        judge.take(files, [record(f'{SLOW}\n# {n} {"x" * 3000}', n) for n in range(200)])
        if when.startswith('while the model'):
            interrupt()
        monkeypatch.setattr(judge, 'follow', interrupt)
    assert not judge.process.is_alive()
    written = files.whole.read_bytes() if files.whole.exists() else b''
    time.sleep(1.5)
    assert (files.whole.read_bytes() if files.whole.exists() else b'') == written


def test_it_ends_with_its_starter(tmp_path):
    "Killed at once, while the other process still imports"
    (tmp_path / 'mine.py').write_text("""
import os, signal
import lora_mbpp.evaluation.concurrent_judging as beside
from lora_mbpp.core.config import resolve
from lora_mbpp.tasks.loading import literal_tasks
judge = beside.ConcurrentJudge(beside.judges_of(resolve('test'), literal_tasks()[:1]))
print(judge.process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
""")
    asked = [sys.executable, 'mine.py']
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    done = subprocess.run(asked, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, timeout=60, check=False)
    other = int(done.stdout)
    for _ in range(100):
        if not psutil.pid_exists(other) or psutil.Process(other).status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.1)
    else:
        pytest.fail('the judging process lives on')


def test_verdicts_are_on_file_while_others_are_long_in_coming(cfg):
    "Copies of a known program too"
    files, judges, seen = beside.result_files(cfg, 'one'), beside.judges_of(cfg, [TASK]), []

    def arriving():
        yield files, record(GOOD)
        for n in range(1, 40):
            time.sleep(0.05)
            yield (files, record(GOOD, n)) if n % 10 == 0 else None
            seen.append(len(read_jsonl(files.whole)) if files.whole.exists() else 0)

    judges.judge(arriving(), lambda what: None)
    assert seen[-1] >= 3 and len(read_jsonl(files.whole)) == 4


@pytest.fixture
def adapters(tmp_path):
    "Two adapters of the random model, of different ranks, that change what it says."
    folders = []
    for rank in (2, 8):
        torch.manual_seed(rank)
        settings = dict(target_modules='all-linear', init_lora_weights=False, task_type='CAUSAL_LM')
        adapted = peft.get_peft_model(tiny_model(), peft.LoraConfig(r=rank, lora_alpha=2 * rank, **settings))
        adapted.save_pretrained(folders.append(tmp_path / f'r{rank}') or folders[-1])
    return folders


def test_a_run_of_a_pass_has_the_numbers_of_a_run_alone(cfg, adapters, monkeypatch, capsys):
    "Completions, scores and verdicts of the pass are on file, so that the evaluation loads no model and judges nothing"
    runs = {'large': adapters[1], 'base': None, 'small': adapters[0]}
    alone = {name: evaluate(cfg, f'{name}-alone', folder) for name, folder in runs.items()}
    assert len({one['eval_info']['reference_nll'] for one in alone.values()}) == 3
    monkeypatch.setattr(loading, 'judged_beside', lambda cfg, tasks, device: beside.judged_beside(cfg, tasks, 'cuda'))
    assert generate_for_runs(cfg, runs) == 3
    monkeypatch.setattr('lora_mbpp.evaluate.load_for', None)
    monkeypatch.setattr(judging, 'judge_many', lambda jobs, **_: iter(() if not jobs else 1 / 0))
    for name, folder in runs.items():
        n_tasks = alone[name]['eval_info']['n_tasks']
        assert len(read_jsonl(metrics_file(cfg, name, '.results.jsonl'))) == n_tasks
        capsys.readouterr()
        found = evaluate(cfg, name, folder)
        assert 'completed and scored in a pass' in capsys.readouterr().out
        for what in ('per_task', 'reference_nll', 'settings', 'parameters', 'verdicts', 'definitions_only', 'adapter'):
            left, right = found['eval_info'][what], alone[name]['eval_info'][what]
            if what == 'per_task':
                left, right = ([{**row, 'cpu_seconds': None, 'nll': None} for row in rows] for rows in (left, right))
            assert left == (pytest.approx(right, abs=1e-5) if what == 'reference_nll' else right), (name, what)


def test_only_what_the_same_model_and_texts_gave_is_taken_over(cfg, adapters, monkeypatch, capsys):
    "Other weights or another scale under the same name, other references, other texts, --overwrite: made again"
    scores = []
    monkeypatch.setattr(
        'lora_mbpp.evaluate.score_with', lambda *a, **k: scores.append(1) or references.score_with(*a, **k)
    )

    def made_again(change=lambda: None, **more) -> bool:
        generate_for_runs(cfg, {'one': adapters[0], 'two': None})
        change()
        metrics_file(cfg, 'one').unlink(missing_ok=True)
        before = len(scores)
        evaluate(replace(cfg, **more), 'one', adapters[0])
        return len(scores) > before

    weights, settings = (adapters[0] / f'adapter_{name}' for name in ('model.safetensors', 'config.json'))
    halved = {name: tensor / 2 for name, tensor in load_file(weights).items()}
    assert not made_again()
    assert made_again(overwrite=True)
    assert made_again(forgetting=not cfg.forgetting)
    assert made_again(lambda: settings.write_text(settings.read_text().replace('"lora_alpha": 4', '"lora_alpha": 8')))
    texts = [{**task, 'code': task['code'] + '\n'} for task in literal_tasks()]
    assert references.scores_id(cfg, texts, {}, None) != references.scores_id(cfg, literal_tasks(), {}, None)
    assert made_again(lambda: save_file(halved, weights))


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
    capsys.readouterr()
    evaluate(cfg, 'one')
    said = capsys.readouterr().out
    assert 'completed and scored in a pass' not in said and 'scoring references' in said


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
