"""One command in two terminals: the second waits, and finds the work of the first."""

import json
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from beside import started, typed, until
from filelock import FileLock

from lora_mbpp.cli import main
from lora_mbpp.core import files
from lora_mbpp.core.config import resolve
from lora_mbpp.core.files import InUse, lock_file, one_process, read_json, read_jsonl
from lora_mbpp.core.runs import adapter_dir, data_folder, metrics_file
from lora_mbpp.data import ensure_data, prepare
from lora_mbpp.evaluate import generate_for_runs
from lora_mbpp.experiments import reports
from lora_mbpp.experiments.together import train_together
from lora_mbpp.train import train


def two_at_once(place, held, command, parameters):
    """What two processes print that are given the same words while another holds `held`, then free; both end well."""
    said = [place / f'{i}.said' for i in range(2)]
    with one_process(held, 'waits for both'):
        processes = [started(file, main, [command, *typed(parameters)]) for file in said]
        until(lambda: all(file.exists() and 'waiting' in file.read_text() for file in said))
    for one in processes:
        one.join(300)
    texts = [file.read_text(encoding='utf-8') for file in said]
    assert [one.exitcode for one in processes] == [0, 0], '\n'.join(texts)[-4000:]
    return texts


@pytest.fixture
def waiting(monkeypatch):
    """An event: somebody waits."""
    event = threading.Event()
    monkeypatch.setattr(files, 'leave_state', lambda number, state: event.set() if state else None)
    return event


def test_the_second_waits_its_own_thread_does_not(tmp_path, capsys, waiting):
    inside, order, run = threading.Event(), [], tmp_path / 'run'

    def first():
        with one_process(run, 'trains it'), one_process(run, 'trains it') as waited:
            inside.set()
            assert not waited
            waiting.wait(60)
            order.append('first')

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(60)
    with pytest.raises(InUse, match='another process trains it'), one_process(run, 'trains it', wait=False):
        pass
    with one_process(run, 'trains it') as waited:
        order.append('second')
        assert waited
    thread.join()
    assert order == ['first', 'second'] and 'another process trains it: waiting for its end' in capsys.readouterr().out


def test_no_lock_file_stays_and_none_lets_two_in(tmp_path):
    """Whoever leaves takes the file away, under the hands of those that wait."""
    run, inside, most = tmp_path / 'run', [], []

    def work():
        for _ in range(20):
            with one_process(run, 'trains it'), one_process(run, 'trains it'):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.001)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(most) == 80 and set(most) == {1} and not list(tmp_path.iterdir())


def test_where_nothing_can_be_locked_it_is_said(tmp_path, capsys, monkeypatch):
    def without(self, **given):
        raise NotImplementedError('no flock')

    monkeypatch.setattr(FileLock, 'acquire', without)
    with one_process(tmp_path / 'run', 'trains it'):
        pass
    assert 'nothing can be locked in' in (said := capsys.readouterr().out)
    assert 'no flock' in said and 'no other process trains it' in said


@pytest.mark.slow
def test_one_run_trained_by_two_commands(tiny, tmp_path):
    numbers = {'max_steps': 40, 'checkpoint_every': 1, 'rank': 2}
    alone = train(resolve(**{**tiny, 'artifacts_dir': str(tmp_path / 'alone')}, **numbers))['train_info']['losses']
    said = two_at_once(tmp_path, adapter_dir(resolve(**tiny, rank=2)), 'train', {**tiny, **numbers})
    assert all('another process trains test-r2-s0: waiting for its end' in text for text in said)
    assert ''.join(said).count('test-r2-s0 is trained already') == 1
    found = read_json(metrics_file(resolve(**tiny), 'test-r2-s0'))['train_info']['losses']
    assert [entry['loss'] for entry in found] == [entry['loss'] for entry in alone]


@pytest.mark.slow
def test_one_run_evaluated_by_two_commands(tiny, tmp_path):
    cfg = resolve(**tiny)
    prepare(cfg)
    sampled = {**tiny, 'n_samples': 3, 'temperature': 0.5}
    said = two_at_once(tmp_path, metrics_file(cfg, 'test-base'), 'baseline', sampled)
    assert all('another process evaluates test-base: waiting for its end' in text for text in said)
    assert ''.join(said).count('test-base is evaluated already') == 1
    records = read_jsonl(metrics_file(cfg, 'test-base', '.generations.jsonl'))
    keys = [json.dumps([record['task_id'], record['sample_idx']]) for record in records]
    assert len(keys) == len(set(keys)) == 6


def test_a_run_that_another_process_evaluates_is_left_to_it(tiny, capsys):
    cfg = resolve(**tiny)
    prepare(cfg)
    place = lock_file(metrics_file(cfg, 'two'))
    place.parent.mkdir(parents=True)
    with FileLock(place):
        assert generate_for_runs(cfg, {'one': None, 'two': None, 'three': None}) == 2
    assert 'two is left to its report: another process evaluates two' in capsys.readouterr().out
    assert not metrics_file(cfg, 'two', '.generations.jsonl').exists()


def test_data_are_prepared_by_one_process_at_a_time(tiny, tmp_path):
    cfg = resolve(**tiny)
    with one_process(data_folder(cfg) / 'manifest.json', 'prepares them') as waited:
        assert not waited and prepare(cfg)['files'] and ensure_data(cfg)  # its own thread may
        words = typed({name: tiny[name] for name in ('preset', 'data_dir')})
        other = started(tmp_path / 'said', main, ['data', *words])
        until(lambda: 'waiting' in (tmp_path / 'said').read_text() if (tmp_path / 'said').exists() else False)
        assert other.is_alive()
    other.join(300)
    assert other.exitcode == 0


def test_a_report_that_another_process_has_made_is_not_made_again(tmp_path, monkeypatch, waiting):
    """Whoever has waited looks again; the analysis is made, since what it read may be out of date."""
    made, done = [], []
    monkeypatch.setattr(reports, 'execute', lambda step, folders, aloud: made.append(step.name))
    monkeypatch.setattr(reports, 'is_done', lambda step, folders: step.name in done)
    monkeypatch.setattr(reports, 'kernel_source', lambda: None)
    folders = reports.ReportFolders(tmp_path, tmp_path / 'reports')
    for name in ('02_train_r8_s0', '04_analysis'):
        step = reports.ReportStep(name, name[:2], {})
        with one_process(folders.report_of(step), 'makes it'):
            thread = threading.Thread(target=reports.run_step, args=(step, folders, False))
            thread.start()
            assert waiting.wait(60)
            waiting.clear()
            done.append(name)
        thread.join(60)
    assert made == ['04_analysis']


def test_a_folder_that_is_only_read_is_not_called_unlockable(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(os, 'access', lambda path, mode: False)  # as for a folder of somebody else
    (tmp_path / 'file').touch()
    with one_process(tmp_path / 'file' / 'run', 'trains it'):
        pass
    assert not capsys.readouterr().out


def test_the_folder_of_locks_may_go_while_somebody_waits(tmp_path, capsys):
    run, entered = tmp_path / 'place' / 'run', threading.Event()

    def second():
        with one_process(run, 'trains it'):
            entered.set()

    with one_process(run, 'trains it'):
        thread = threading.Thread(target=second)
        thread.start()
        until(lambda: 'waiting' in capsys.readouterr().out)
        shutil.rmtree(tmp_path / 'place')
    assert entered.wait(30)
    thread.join()


def test_a_name_as_long_as_a_file_system_takes(tmp_path, capsys):
    with one_process(tmp_path / ('x' * 255), 'trains it'), pytest.raises(InUse):
        with ThreadPoolExecutor(1) as other:
            other.submit(lambda: one_process(tmp_path / ('x' * 255), 'trains it', wait=False).__enter__()).result()
    assert not capsys.readouterr().out


def test_a_run_that_another_process_trains_is_not_trained_together(tiny):
    cfgs = [resolve(**tiny, rank=rank, max_steps=2) for rank in (2, 4, 8)]
    place = lock_file(adapter_dir(cfgs[1]))
    place.parent.mkdir(parents=True)
    with FileLock(place):
        outcome = train_together(cfgs)
    assert outcome.alone == {'test-r4-s0': 'another process trains test-r4-s0'}
    assert sorted(outcome.trained) == ['test-r2-s0', 'test-r8-s0']
    assert not adapter_dir(cfgs[1]).exists()
