"""The sweep on the random model: all reports, then nothing to do, then one more rank, then a failure that stays alone."""

import json

import nbformat
import pytest

from lora_mbpp.cli import main
from lora_mbpp.core.files import read_json, write_json


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    return tmp_path_factory.mktemp('sweep')


def run(place, *extra):
    return main(
        [
            'sweep',
            '--preset',
            'test',
            '--data-dir',
            str(place / 'data'),
            '--artifacts-dir',
            str(place / 'artifacts'),
            '--reports-dir',
            str(place / 'reports'),
            *extra,
        ]
    )


def stamps(place):
    return {p.name: p.stat().st_mtime_ns for p in (place / 'reports').glob('*.ipynb')}


def test_everything_is_made(place, capsys, monkeypatch):
    monkeypatch.delenv('IN_TEST', raising=False)
    assert run(place, '--ranks', '2') == 0
    names = {'00_data', '01_baseline', '02_train_r2_s0', '03_eval_r2_s0', '04_analysis'}
    assert {p.stem for p in (place / 'reports').glob('*.ipynb')} == names
    page = (place / 'reports' / 'index.html').read_text()
    assert all(
        f'{name}.html' in page and (place / 'reports' / f'{name}.html').stat().st_size > 10_000 for name in names
    )
    said = capsys.readouterr().out
    assert '[5/5] 04_analysis: finished' in said and 'test-r2-s0' in said
    for name in names:
        text = json.dumps(nbformat.read(place / 'reports' / f'{name}.ipynb', 4))
        assert '\\r' not in text.replace('\\\\r', '') or name == '00_data'
        assert 'Traceback' not in text
        assert ('answers are there already' in text) == name.startswith(('01', '03'))  # made in one pass before
    assert read_json(place / 'artifacts' / 'metrics' / 'test-r2-s0.json')['run_info']['test_run'] is False


def test_second_start_has_nothing_to_do(place, capsys, monkeypatch):
    monkeypatch.delenv('IN_TEST', raising=False)
    before = stamps(place)
    assert run(place, '--ranks', '2') == 0
    assert stamps(place) == before and capsys.readouterr().out.count('done already') == 5


def test_one_more_rank_pays_for_itself_alone_and_a_failure_stays_alone(place, capsys, monkeypatch):
    """Rank 3 cannot train (its folder holds another run); rank 4 goes on, the exit status says so."""
    monkeypatch.delenv('IN_TEST', raising=False)
    taken = place / 'artifacts' / 'checkpoints' / 'test-r3-s0'
    write_json(taken / 'run.json', {'rank': 99})
    for name in ('adapter_config.json', 'adapter_model.safetensors'):
        (taken / name).touch()
    before = stamps(place)
    assert run(place, '--ranks', '2,3,4') == 1
    said, after = capsys.readouterr().out, stamps(place)
    assert 'FAILED' in said and 'exists with other parameters' in said and '03_eval_r3_s0: left out' in said
    assert all(after[name] == before[name] for name in before if not name.startswith('04'))
    assert (place / 'reports' / '02_train_r3_s0.html').exists() and '03_eval_r3_s0.ipynb' not in after
    page = (place / 'reports' / 'index.html').read_text()
    assert 'test-r4-s0' in page and 'exists with other parameters' in page


def test_a_search_over_learning_rates_two_at_a_time(place, tmp_path, capsys, monkeypatch):
    """Two rates are tried with the first seed; the better one's run is kept and evaluated, the base is measured twice.
    Two jobs make the numbers that one after the other makes, in the order the steps allow, the analysis last."""
    monkeypatch.delenv('IN_TEST', raising=False)
    usual = read_json(place / 'artifacts' / 'metrics' / 'test-r2-s0.json')
    lr = usual['run_info']['parameters']['lr']
    assert run(tmp_path, '--ranks', '2', '--lrs', f'{lr},1e-2', '--again', 'true', '--jobs', '2') == 0
    out = capsys.readouterr().out
    assert 'searching learning rates: 1 ranks x 2' in out and 'at the end of the grid' in out
    said = [line for line in out.splitlines() if line.startswith('[')]
    started = [line.split(' ')[1].rstrip(':') for line in said if line.endswith('running')]
    assert (
        started[0] == '00_data'
        and started[-1] == '04_analysis'
        and said[-1].startswith(said[-2].split(': ')[0] + ': finished')
    )
    first_finish = next(i for i, line in enumerate(said) if 'finished' in line and '00_data' not in line)
    assert sum(line.endswith('running') for line in said[:first_finish]) == 3  # the data alone, then two at once
    names = {p.stem for p in (tmp_path / 'reports').glob('*.ipynb')}
    trained, scored = ({n for n in names if n.startswith(stage)} for stage in ('02', '03'))
    assert (
        trained == {f'02_train_r2_s0_lr{lr:g}', '02_train_r2_s0_lr0.01'}
        and len(scored) == 1
        and scored.pop().replace('03_eval', '02_train') in trained
    )
    metrics = {p.stem: read_json(p) for p in (tmp_path / 'artifacts' / 'metrics').glob('*.json')}
    assert (
        metrics['test-base-again']['run_info']['kind'] == 'again'
        and sum('eval_info' in m for m in metrics.values()) == 3
    )
    assert metrics[f'test-r2-s0-lr{lr:g}']['train_info']['losses'] == usual['train_info']['losses']
    best = min((m['train_info']['val_nll'][-1]['nll'], name) for name, m in metrics.items() if 'train_info' in m)[1]
    assert 'eval_info' in metrics[best] and metrics[best]['eval_info']['plan']


def test_wrong_options_are_sentences(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv('IN_TEST', raising=False)
    assert (
        run(tmp_path, '--ranks', '2', '--lrs', '1e-3', '--again', 'true') == 2
        and 'two or more' in capsys.readouterr().err
    )
    assert run(tmp_path, '--jobs', '0') == 2


def test_report_is_rebuilt(place, capsys):
    (place / 'reports' / 'index.html').unlink()
    assert (
        main(
            [
                'report',
                '--preset',
                'test',
                '--artifacts-dir',
                str(place / 'artifacts'),
                '--reports-dir',
                str(place / 'reports'),
            ]
        )
        == 0
    )
    assert 'test-r4-s0' in (place / 'reports' / 'index.html').read_text()


def test_refuses_to_run_under_in_test(place, capsys, monkeypatch):
    monkeypatch.setenv('IN_TEST', '1')
    assert run(place, '--ranks', '2') == 2
    assert 'IN_TEST is set' in capsys.readouterr().err


def test_no_room_beside_others_is_tried_again(tmp_path, capsys, monkeypatch):
    """Three at a time are too many: steps come back until two run beside each other; alone and still too large is a failure."""
    import threading
    import time
    from concurrent.futures import ThreadPoolExecutor

    from lora_mbpp.experiments.sweep import sweep

    running, seen, guard = [], [], threading.Lock()

    def fake(step, nbs, reports, aloud):
        with guard:
            running.append(step.name)
            crowded = len(running) > 2
        try:
            if step.name == 'huge' or crowded:
                raise RuntimeError('OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB')
            time.sleep(0.3)
            seen.append(step.name)
        finally:
            with guard:
                running.remove(step.name)

    monkeypatch.setattr(sweep, 'run_step', fake)
    monkeypatch.setattr(sweep, 'is_done', lambda *args: False)
    steps, failed = [sweep.Step(name, '02_train.ipynb', {}) for name in ('a', 'b', 'c', 'd', 'e', 'huge')], {}
    with ThreadPoolExecutor(3) as workers:
        sweep.ReportScheduler(workers, room=3, crowded=True).carry_out(steps, tmp_path, tmp_path, failed)
    said = capsys.readouterr().out
    assert sorted(seen) == ['a', 'b', 'c', 'd', 'e'] and list(failed) == ['huge'] and 'out of memory' in failed['huge']
    assert 'no more than 2 at a time from here on' in said


def test_two_that_starve_each_other_are_both_tried_again(tmp_path, capsys, monkeypatch):
    """The second to fail has no company left, and had it all the same; where cards are not shared, out of memory is a failure at once."""
    import threading
    from concurrent.futures import ThreadPoolExecutor

    from lora_mbpp.experiments.sweep import sweep

    tries, both = [], threading.Barrier(2)

    def fake(step, nbs, reports, aloud):
        tries.append(step.name)
        if tries.count(step.name) > 1:
            return
        both.wait(10)
        if step.name == 'b':
            import time

            time.sleep(0.5)
            raise RuntimeError('UserError: rank 8 needs 9.1 GiB at least (...), and 5.0 are there')
        raise RuntimeError('OutOfMemoryError: CUDA out of memory')

    monkeypatch.setattr(sweep, 'run_step', fake)
    monkeypatch.setattr(sweep, 'is_done', lambda *args: False)
    steps, failed = [sweep.Step(name, '02_train.ipynb', {}) for name in ('a', 'b')], {}
    with ThreadPoolExecutor(2) as workers:
        sweep.ReportScheduler(workers, room=2, crowded=True).carry_out(steps, tmp_path, tmp_path, failed)
    assert sorted(tries) == ['a', 'a', 'b', 'b'] and not failed
    tries.clear()
    with ThreadPoolExecutor(2) as workers:
        sweep.ReportScheduler(workers, room=2).carry_out(steps, tmp_path, tmp_path, failed)
    assert sorted(tries) == ['a', 'b'] and sorted(failed) == ['a', 'b'] and 'FAILED' in capsys.readouterr().out
