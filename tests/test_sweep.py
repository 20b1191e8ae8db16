"""The sweep on the random model: all reports, nothing left to do, one more rank, a failure that stays alone."""

import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import nbformat
import pytest

from lora_mbpp.cli import main
from lora_mbpp.core.config import resolve
from lora_mbpp.core.errors import UserError
from lora_mbpp.core.files import PROGRESS, read_json, write_json
from lora_mbpp.core.runs import run_name
from lora_mbpp.experiments import scheduling, sweep, together
from lora_mbpp.experiments.reports import ReportFolders, ReportStep
from lora_mbpp.experiments.scheduling import ReportScheduler, process_pool
from lora_mbpp.experiments.study import Study, best_rates, search_steps, study_steps
from lora_mbpp.experiments.warm_kernels import copies_are_safe

TOGETHER = '--together', 'true'

# the tests of one sweep build on each other, in order, in one process
in_order = pytest.mark.xdist_group('sweep')


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    return tmp_path_factory.mktemp('sweep')


@pytest.fixture(autouse=True)
def ordinary_shell(monkeypatch):
    """A sweep refuses to run where IN_TEST is set."""
    monkeypatch.delenv('IN_TEST', raising=False)


def folders_of(place, *names):
    """Options that name the folders of a sweep."""
    return [part for name in names for part in (f'--{name}-dir', str(place / name))]


def run(place, *extra):
    """Exit status of a sweep on the random model."""
    return main(['sweep', '--preset', 'test', *folders_of(place, 'data', 'artifacts', 'reports'), *extra])


def modification_times(place):
    return {p.name: p.stat().st_mtime_ns for p in (place / 'reports').glob('*.ipynb')}


def test_workers_are_told_where_to_leave_how_far_they_are(tmp_path, monkeypatch, capsys):
    """They get the environment of the moment at which the pool is made."""

    def told(options, gpus):
        with process_pool(2) as pool:
            seen = pool.submit(os.getenv, PROGRESS).result()
        raise UserError(f'a folder: {os.path.isdir(seen)}')

    monkeypatch.setattr(sweep, 'scheduler_for', told)
    assert run(tmp_path, '--ranks', '2', '--jobs', '2') == 2
    assert 'a folder: True' in capsys.readouterr().err and PROGRESS not in os.environ


@in_order
def test_everything_is_made(place, capsys):
    assert run(place, '--ranks', '2') == 0
    names = {'00_data', '01_baseline', '02_train_r2_s0', '03_eval_r2_s0', '04_analysis'}
    assert {p.stem for p in (place / 'reports').glob('*.ipynb')} == names
    page = (place / 'reports' / 'index.html').read_text()
    for name in names:
        assert f'{name}.html' in page
        assert (place / 'reports' / f'{name}.html').stat().st_size > 10_000
    out, err = capsys.readouterr()
    said = out
    assert '[5/5] 04_analysis: finished' in said and 'test-r2-s0' in said
    # one line a step, one for the common pass, the finding; no parameter table, no warning about a kernel's connection
    steps, finding = said.split('04_analysis: finished')
    assert len(steps.splitlines()) <= 7 and len(finding.splitlines()) <= 15, said
    assert 'effective_batch' not in said and 'running over TCP' not in err
    for name in names:
        text = json.dumps(nbformat.read(place / 'reports' / f'{name}.ipynb', 4))
        assert '\\r' not in text.replace('\\\\r', '') or name == '00_data'
        assert 'Traceback' not in text
        assert 'image/png' in text, f'{name} holds no figure'
        made_in_one_pass_before = 'completed and scored in a pass' in text
        assert made_in_one_pass_before == name.startswith(('01', '03'))
    assert read_json(place / 'artifacts' / 'metrics' / 'test-r2-s0.json')['run_info']['test_run'] is False


@in_order
def test_second_start_has_nothing_to_do(place, capsys):
    before = modification_times(place)
    assert run(place, '--ranks', '2') == 0
    assert modification_times(place) == before
    assert capsys.readouterr().out.count('done already') == 5


@in_order
@pytest.mark.slow
def test_one_more_rank_pays_for_itself_alone_and_a_failure_stays_alone(place, capsys):
    """Rank 3 cannot train (its folder holds another run); rank 4 goes on, the exit status says so."""
    taken = place / 'artifacts' / 'checkpoints' / 'test-r3-s0'
    write_json(taken / 'run.json', {'rank': 99})
    for name in ('adapter_config.json', 'adapter_model.safetensors'):
        (taken / name).touch()
    before = modification_times(place)
    assert run(place, '--ranks', '2,3,4') == 1
    said, after = capsys.readouterr().out, modification_times(place)
    assert 'FAILED' in said and 'exists with other parameters' in said and '03_eval_r3_s0: left out' in said
    assert all(after[name] == before[name] for name in before if not name.startswith('04'))
    assert (place / 'reports' / '02_train_r3_s0.html').exists() and '03_eval_r3_s0.ipynb' not in after
    page = (place / 'reports' / 'index.html').read_text()
    assert 'test-r4-s0' in page and 'exists with other parameters' in page


@in_order
def test_report_is_rebuilt(place):
    (place / 'reports' / 'index.html').unlink()
    assert main(['report', '--preset', 'test', *folders_of(place, 'artifacts', 'reports')]) == 0
    assert 'test-r2-s0' in (place / 'reports' / 'index.html').read_text()


@in_order
@pytest.mark.slow
def test_a_base_that_defines_nothing_fails_alone(place, capsys):
    """The random model answers itself: the format control says why it cannot be, the ranks are compared."""
    assert run(place, '--ranks', '2', '--controls', 'format') == 1
    said = capsys.readouterr().out
    assert 'no form to learn' in said and 'NLL, r=2 against base' in said
    assert 'of controls are missing: format r=2 s0' in said
    assert (place / 'artifacts' / 'metrics' / 'test-r2-s0.json').exists()


@in_order
@pytest.mark.slow
def test_a_search_over_learning_rates_two_at_a_time(place, tmp_path, capsys):
    """Two rates are tried with the first seed; the better one's run is kept and evaluated, the base is measured twice.
    Two jobs make the numbers that one after the other makes, in the order the steps allow, the analysis last."""
    usual = read_json(place / 'artifacts' / 'metrics' / 'test-r2-s0.json')
    lr = usual['run_info']['parameters']['lr']
    assert (
        run(tmp_path, '--ranks', '2', '--lrs', f'{lr},1e-2', '--again', 'true', '--jobs', '2', '--verbose', *TOGETHER)
        == 0
    )
    out = capsys.readouterr().out
    assert 'searching learning rates: 1 ranks x 2' in out and 'at the end of the grid' in out
    check_order(line for line in out.splitlines() if line.startswith('['))

    names = {p.stem for p in (tmp_path / 'reports').glob('*.ipynb')}
    trained, scored = ({n for n in names if n.startswith(stage)} for stage in ('02', '03'))
    assert trained == {f'02_train_r2_s0_lr{lr:g}', '02_train_r2_s0_lr0.01'}
    assert len(scored) == 1 and scored.pop().replace('03_eval', '02_train') in trained

    metrics = {p.stem: read_json(p) for p in (tmp_path / 'artifacts' / 'metrics').glob('*.json')}
    assert metrics['test-base-again']['run_info']['kind'] == 'again'
    assert sum('eval_info' in m for m in metrics.values()) == 3
    one, other = metrics[f'test-r2-s0-lr{lr:g}']['train_info'], usual['train_info']
    assert [e['loss'] for e in one['losses']] == pytest.approx([e['loss'] for e in other['losses']], abs=1e-5)
    assert 'training 2 runs together' in out and '2 runs are trained' in out
    assert one['together'] == {'others': ['test-r2-s0-lr0.01']} and 'together' not in other
    report = (tmp_path / 'reports' / f'02_train_r2_s0_lr{lr:g}.html').read_text()
    assert 'trained in one process together with test-r2-s0-lr0.01' in report
    best = min((m['train_info']['val_nll'][-1]['nll'], name) for name, m in metrics.items() if 'train_info' in m)[1]
    assert 'eval_info' in metrics[best] and metrics[best]['eval_info']['plan']


def check_order(lines):
    """The data alone, then two trainings side by side, the analysis last and alone."""
    said = list(lines)
    started = [line.split(' ')[1].rstrip(':') for line in said if line.endswith('running')]
    assert started[0] == '00_data' and started[-1] == '04_analysis'
    assert said[-1].startswith(said[-2].split(': ')[0] + ': finished')
    first_finish = next(i for i, line in enumerate(said) if 'finished' in line and '00_data' not in line)
    assert sum(line.endswith('running') for line in said[:first_finish]) == 3


def test_a_search_with_seeds_of_its_own(tmp_path):
    """Every rank at every rate with every seed of the search; the best mean wins, and its seeds are not measured."""
    cfg = resolve('test', artifacts_dir=str(tmp_path))
    study = Study(cfg, [2, 3], [0, 1], lrs=[1e-3, 1e-2], search_seeds=[100, 101])
    steps = search_steps(study)
    assert [step.name for step in steps[1:5]] == [
        f'02_train_r2_s{s}_lr{lr}' for lr in ('0.001', '0.01') for s in (100, 101)
    ]
    assert len(steps) == 9
    for step, nll in zip(steps[1:], (1.2, 1.0, 1.0, 1.1, 0.5, float('nan'), 1.3, 1.4)):
        write_json(step.products[0], {'train_info': {'val_nll': [{'nll': nll}]}})
    assert best_rates(steps) == {2: 1e-2, 3: 1e-2}
    names = [step.name for step in study_steps(study, best_rates(steps))]
    assert '02_train_r2_s0_lr0.01' in names and not any('_s10' in name for name in names)


def test_wrong_options_are_sentences(tmp_path, capsys):
    assert run(tmp_path, '--ranks', '2', '--lrs', '1e-3', '--again', 'true') == 2
    assert 'two or more' in capsys.readouterr().err
    assert run(tmp_path, '--search-seeds', '100') == 2
    assert 'give --lrs, too' in capsys.readouterr().err
    assert run(tmp_path, '--lrs', '1e-3,1e-2', '--search-seeds', '100,100') == 2
    assert '--search-seeds 100,100 should be different whole numbers' in capsys.readouterr().err
    assert run(tmp_path, '--jobs', '0') == 2
    assert '--jobs 0 should be 1 or more' in capsys.readouterr().err


def test_refuses_to_run_under_in_test(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('IN_TEST', '1')
    assert run(tmp_path, '--ranks', '2') == 2
    assert 'IN_TEST is set' in capsys.readouterr().err


@pytest.mark.slow
def test_workers_of_all_pools_are_copies_with_the_environment_of_today(monkeypatch):
    found = []
    for said in ('first', 'second'):
        monkeypatch.setenv('SAID_LATER', said)
        with process_pool(1) as pool:
            assert pool.submit(os.getenv, 'SAID_LATER').result() == said
            found.append(pool.submit(os.getppid).result())
    assert found[0] == found[1] and (found[0] == os.getpid()) != copies_are_safe()


def run_fakes(monkeypatch, tmp_path, fake, names, **options):
    """Failures of a scheduler over steps that run as `fake(name)`, as many at a time as `options['limit']`."""
    monkeypatch.setattr(scheduling, 'run_step', lambda step, folders, aloud: fake(step.name))
    monkeypatch.setattr(scheduling, 'is_done', lambda *args: False)
    steps, failed = [ReportStep(name, '02_train.ipynb', {}) for name in names], {}
    with ThreadPoolExecutor(options['limit']) as executor:
        ReportScheduler(executor, **options).run(steps, ReportFolders(tmp_path, tmp_path), failed)
    return failed


def test_no_room_beside_others_is_tried_again(tmp_path, capsys, monkeypatch):
    """Three at a time are too many: steps come back until two run side by side; too large when alone is a failure."""
    running, seen, guard = [], [], threading.Lock()

    def fake(name):
        with guard:
            running.append(name)
            crowded = len(running) > 2
        try:
            if name == 'huge' or crowded:
                raise RuntimeError('OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB')
            time.sleep(0.3)
            seen.append(name)
        finally:
            with guard:
                running.remove(name)

    failed = run_fakes(monkeypatch, tmp_path, fake, ('a', 'b', 'c', 'd', 'e', 'huge'), limit=3, shares_gpus=True)
    said = capsys.readouterr().out
    assert sorted(seen) == ['a', 'b', 'c', 'd', 'e'] and list(failed) == ['huge'] and 'out of memory' in failed['huge']
    assert 'no more than 2 at a time from here on' in said


def test_two_that_starve_each_other_are_both_tried_again(tmp_path, capsys, monkeypatch):
    """The second to fail runs alone by then, but had company; where no GPU is shared, it is a failure at once."""
    tries, both = [], threading.Barrier(2)

    def fake(name):
        tries.append(name)
        if tries.count(name) > 1:
            return
        both.wait(10)
        if name == 'b':
            time.sleep(0.5)
            raise RuntimeError('UserError: rank 8 needs 9.1 GiB at least (...), and 5.0 are there')
        raise RuntimeError('OutOfMemoryError: CUDA out of memory')

    failed = run_fakes(monkeypatch, tmp_path, fake, ('a', 'b'), limit=2, shares_gpus=True)
    assert sorted(tries) == ['a', 'a', 'b', 'b'] and not failed
    tries.clear()
    failed = run_fakes(monkeypatch, tmp_path, fake, ('a', 'b'), limit=2)
    assert sorted(tries) == ['a', 'b'] and sorted(failed) == ['a', 'b'] and 'FAILED' in capsys.readouterr().out


def test_a_study_with_a_name_of_its_own_has_it_in_all_of_its_parts(tmp_path):
    """Plan, analysis and the pass over all runs had it once, and the runs of the reports the preset's."""
    given = {'group': 'second-try'}
    study = Study(resolve('starter', artifacts_dir=str(tmp_path), **given), [8, 32], [0], given)
    steps = study_steps(study)
    by_stage = {name: [step for step in steps if step.name.startswith(name)] for name in ('01', '02', '03', '04')}
    found = {run_name(resolve(**step.parameters)) for step in by_stage['02'] + by_stage['03']}
    assert found == {'second-try-r8-s0', 'second-try-r32-s0'}
    assert run_name(resolve(**by_stage['01'][0].parameters), base=True) == 'second-try-base'
    assert found | {'second-try-base'} == set(sweep.generation_runs(study.cfg, by_stage['01'] + by_stage['03']))
    assert by_stage['04'][0].parameters['group'] == 'second-try'


def test_a_small_base_is_trained_together_on_a_card_and_a_large_one_is_left_to_its_reports(
    tmp_path, monkeypatch, capsys
):
    scheduler = ReportScheduler(None)
    cfgs = [resolve('test', rank=rank, artifacts_dir=str(tmp_path), data_dir=str(tmp_path / 'data')) for rank in (1, 2)]
    assert 'no faster' in sweep.untogether_reason(scheduler, cfgs)
    monkeypatch.setattr(sweep, 'card_count', lambda: 1)
    assert sweep.untogether_reason(scheduler, cfgs) is None
    monkeypatch.setattr(together, 'SMALL', 1000)
    outcome = together.train_together(cfgs, only_small=True)
    assert outcome.alone.keys() == {'test-r1-s0', 'test-r2-s0'} and not outcome.trained
    assert 'keeps a card busy' in capsys.readouterr().out
    assert not (tmp_path / 'checkpoints').exists()
    assert len(together.train_together(cfgs).trained) == 2


class Told:
    """A scheduler that notes what it is asked for; the reports of trainings wait for `until`."""

    def __init__(self, events, executor=None, until=None):
        self.events, self.executor, self.until = events, executor, until

    def run(self, steps, folders, failed, study):
        stage = steps[0].name[:2] if steps else ''
        if stage == '02' and self.until is not None and not self.until.wait(30):
            raise TimeoutError('nothing is done beside the reports')
        self.events.append(f'reports {stage}')


@pytest.fixture
def passes(monkeypatch):
    """What a study does, as it is done; `trained`: what the joint training says."""
    events, answering = [], threading.Event()

    def train(steps, folders, scheduler, ending):
        ending.callback(events.append, 'memory is free')
        return events[0] == 'together'

    def answer(cfg, steps, scheduler):
        events.append('answers')
        answering.set()

    monkeypatch.setattr(sweep, 'train_missing_together', train)
    monkeypatch.setattr(sweep, 'generate_together', answer)
    monkeypatch.setattr(sweep, 'is_done', lambda step, folders: False)
    return events, answering


def study_of(place):
    return Study(resolve('test', artifacts_dir=str(place)), [1, 2], [0])


def test_answers_are_made_beside_reports_that_only_tell_of_trained_runs(tmp_path, passes):
    events, answering = passes
    events.append('together')
    sweep.run_study(study_of(tmp_path), Told(events, until=answering), None, {})
    assert events == ['together', 'reports 00', 'memory is free', 'answers', 'reports 02', 'reports 01']


@pytest.mark.parametrize('said, executor', [('alone', None), ('together', scheduling.InlineExecutor())])
def test_answers_wait_for_runs_that_their_reports_train_and_these_for_memory(tmp_path, passes, said, executor):
    events, _ = passes
    events.append(said)
    sweep.run_study(study_of(tmp_path), Told(events, executor), None, {})
    assert events == [said, 'reports 00', 'memory is free', 'reports 02', 'answers', 'reports 01']


def test_an_interrupt_of_the_reports_calls_the_answers_off(tmp_path, passes, monkeypatch):
    events, _ = passes
    interrupted, told = threading.Event(), Told(events)

    def train(steps, folders, scheduler, ending):
        ending.callback(interrupted.wait, 30)
        return True

    monkeypatch.setattr(sweep, 'train_missing_together', train)

    def run(steps, *given):
        if steps[0].name.startswith('02'):
            threading.Timer(0.2, interrupted.set).start()
            raise KeyboardInterrupt

    monkeypatch.setattr(told, 'run', run)
    with pytest.raises(KeyboardInterrupt):
        sweep.run_study(study_of(tmp_path), told, None, {})
    assert interrupted.is_set() and events == []


def test_processes_of_a_pass_end_where_they_are_waited_for(monkeypatch):
    """The memory of a card that a training held is given back while reports are made."""
    ended, pools = threading.Event(), []

    class Pool(ThreadPoolExecutor):
        def shutdown(self, *given, **named):
            assert ended.wait(30)
            pools.append('ended')

    monkeypatch.setattr(sweep, 'process_pool', Pool)
    scheduler = ReportScheduler(scheduling.InlineExecutor())
    with ExitStack() as ending:
        assert sweep.in_passes(scheduler, 'a pass', 'builtins:abs', [(-1,), (2,)], ending) == [1, 2]
        assert pools == []
        ended.set()
    assert pools == ['ended']
    assert sweep.in_passes(scheduler, 'a pass', 'builtins:abs', [(-1,)]) == [1] and pools == ['ended', 'ended']
