"""One command in two terminals: the second waits, and finds the work of the first."""

import json
import threading
import time

import pytest
from beside import started
from filelock import FileLock

from lora_mbpp.cli import main
from lora_mbpp.core.config import resolve
from lora_mbpp.core.files import InUse, lock_file, one_process, read_json, read_jsonl
from lora_mbpp.core.runs import adapter_dir, metrics_file
from lora_mbpp.data import prepare
from lora_mbpp.experiments.together import train_together
from lora_mbpp.train import train


def two_at_once(place, held, command, parameters):
    """What two processes print that are given the same words while another holds `held`, then free; both end well."""
    options = [part for name, value in parameters.items() for part in ('--' + name.replace('_', '-'), str(value))]
    said = [place / f'{i}.said' for i in range(2)]
    with one_process(held, 'waits for both'):
        processes = [started(file, main, [command, *options]) for file in said]
        deadline = time.time() + 300
        while time.time() < deadline and not all(file.exists() and 'waiting' in file.read_text() for file in said):
            time.sleep(0.05)
    for one in processes:
        one.join(300)
    texts = [file.read_text(encoding='utf-8') for file in said]
    assert [one.exitcode for one in processes] == [0, 0], '\n'.join(texts)[-4000:]
    return texts


def test_the_second_waits_its_own_thread_does_not(tmp_path, capsys):
    inside, order, run = threading.Event(), [], tmp_path / 'run'

    def first():
        with one_process(run, 'trains it'), one_process(run, 'trains it') as waited:
            inside.set()
            assert not waited
            time.sleep(0.3)
            order.append('first')

    thread = threading.Thread(target=first)
    thread.start()
    inside.wait(10)
    with pytest.raises(InUse, match='another process trains it'), one_process(run, 'trains it', wait=False):
        pass
    with one_process(run, 'trains it') as waited:
        order.append('second')
        assert waited
    thread.join()
    assert order == ['first', 'second'] and 'another process trains it: waiting for its end' in capsys.readouterr().out


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


def test_a_run_that_another_process_trains_is_not_trained_together(tiny):
    cfgs = [resolve(**tiny, rank=rank, max_steps=2) for rank in (2, 4, 8)]
    place = lock_file(adapter_dir(cfgs[1]))
    place.parent.mkdir(parents=True)
    with FileLock(place):
        outcome = train_together(cfgs)
    assert outcome.alone == {'test-r4-s0': 'another process trains test-r4-s0'}
    assert sorted(outcome.trained) == ['test-r2-s0', 'test-r8-s0']
    assert not adapter_dir(cfgs[1]).exists()
