"""What numbers belong to: samples to a whole set, metrics to one adapter, verdicts to a program, data to a source."""

import json
import shutil
from pathlib import Path

import pytest
from beside import typed

from lora_mbpp.cli import main
from lora_mbpp.core.config import resolve
from lora_mbpp.core.errors import complaint
from lora_mbpp.core.files import read_json, read_jsonl, write_json, write_jsonl
from lora_mbpp.core.runs import check_origin, check_own_output, forget_evaluation, run_origin
from lora_mbpp.testing import simulated_study


def refused(capsys, *argv):
    capsys.readouterr()
    assert main(list(argv)) == 2
    said = capsys.readouterr().err.strip()
    assert '\n' not in said
    return said


# ---- samples


def task(task_id, split=None):
    row = {'task_id': task_id, 'text': 'Add.', 'code': 'def add(a, b):\n    return a + b'}
    row['test_list'] = ['assert add(1, 2) == 3', 'assert add(0, 0) == 0']
    return {**row, 'split': split} if split else row


GOOD, BAD = 'def add(a, b):\n    return a + b', 'def add(a, b):\n    return 3'


@pytest.fixture
def ten(tmp_path, monkeypatch):
    """Ten tasks of one's own, and a function that scores samples: `(task id, program)` each."""
    monkeypatch.setenv('LORA_MBPP_HOME', str(tmp_path))
    tasks = write_jsonl(tmp_path / 'ten.jsonl', [task(f'own/{i}') for i in range(10)])

    def score(*rows, more=(), name='mine.jsonl'):
        known = [
            {'task_id': f'own/{i}', 'solution': code, **extra} for i, code, extra in ((*row, {})[:3] for row in rows)
        ]
        samples = write_jsonl(tmp_path / name, known)
        return main(['eval', '--samples', str(samples), '--mbpp-file', str(tasks), '--cpu-s', '5', *more])

    return score


def test_samples_of_one_task_in_ten_are_no_hundred_percent(ten, tmp_path, capsys):
    assert ten((3, GOOD)) == 2
    said = capsys.readouterr().err
    assert 'mine.jsonl covers 1 of 10 tasks (not own/0, own/1, own/2, own/4, own/5, ...)' in said
    assert '--allow-missing' in said
    out = tmp_path / 'out.json'
    assert ten((3, GOOD), more=['--allow-missing', '--out-file', str(out)]) == 0
    said = capsys.readouterr().out
    assert 'on 1 of 10 tasks' in said
    info = read_json(out)['eval_info']
    assert (info['n_tasks'], info['tasks_in_set'], len(info['tasks_missing'])) == (1, 10, 9)


def test_samples_of_all_tasks(ten, capsys):
    assert ten(*[(i, GOOD) for i in range(10)]) == 0
    assert 'on 10 tasks' in capsys.readouterr().out


def test_a_task_more_often_than_the_others(ten, capsys):
    rows = [(i, GOOD) for i in range(10)]
    assert ten(*rows, (4, BAD)) == 2
    assert 'has 1 samples of some tasks and 2 of others' in capsys.readouterr().err
    assert ten(*rows, (4, BAD), more=['--allow-missing']) == 0
    assert ten(*rows, *rows) == 0
    assert '10 samples have the text of another sample of their task' in capsys.readouterr().out


def test_a_numbered_sample_twice(ten, capsys):
    rows = [(i, GOOD, {'sample_idx': 0}) for i in range(10)]
    assert ten(*rows, *rows, more=['--allow-missing']) == 2
    assert 'line 11: sample 0 of task own/0 stands there twice' in capsys.readouterr().err


@pytest.mark.parametrize('name', ['own/77', 'Mbpp/3', 5, None, True, 'own/'])
def test_an_id_that_is_not_in_the_set(ten, capsys, name):
    rows = [(i, GOOD) for i in range(10)]
    assert ten(*rows, (0, GOOD, {'task_id': name}), more=['--allow-missing']) == 2
    assert f'line 11: task_id {name!r} is not among the 10 tasks' in capsys.readouterr().err


def test_no_samples_at_all(tmp_path, ten, capsys):
    (tmp_path / 'none.json').write_text('[]')
    argv = ['eval', '--samples', str(tmp_path / 'none.json'), '--mbpp-file', str(tmp_path / 'ten.jsonl')]
    write_jsonl(tmp_path / 'ten.jsonl', [task(f'own/{i}') for i in range(10)])
    assert 'none.json is empty' in refused(capsys, *argv, '--allow-missing')


def test_only_the_splits_that_samples_touch_have_to_be_covered(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('LORA_MBPP_HOME', str(tmp_path))
    tasks = write_jsonl(tmp_path / 't.jsonl', [task('a', 'test'), task('b', 'test'), task('c', 'train')])
    samples = write_jsonl(tmp_path / 's.jsonl', [{'task_id': i, 'solution': GOOD} for i in 'ab'])
    assert main(['eval', '--samples', str(samples), '--mbpp-file', str(tasks)]) == 0
    assert 'on 2 tasks' in capsys.readouterr().out


def test_ids_of_mbpp_may_be_texts(tmp_path, monkeypatch):
    monkeypatch.setenv('LORA_MBPP_HOME', str(tmp_path))
    tasks = write_jsonl(tmp_path / 't.jsonl', [task(11), task(12)])
    samples = write_jsonl(tmp_path / 's.jsonl', [{'task_id': i, 'solution': GOOD} for i in ('11', 'Mbpp/12')])
    assert main(['eval', '--samples', str(samples), '--mbpp-file', str(tasks)]) == 0


def test_samples_of_the_same_name_keep_their_results_apart(ten, tmp_path):
    rows = [(i, GOOD) for i in range(10)]
    for folder in ('a', 'b'):
        (tmp_path / folder).mkdir()
        assert ten(*rows, name=f'{folder}/mine.jsonl') == 0
    assert len(list((tmp_path / 'artifacts' / 'samples').glob('mine-*.results.jsonl'))) == 2


def test_the_output_never_replaces_something_else(ten, tmp_path, capsys):
    rows = [(i, GOOD) for i in range(10)]
    for name in ('ten.jsonl', 'mine.jsonl'):
        ten(*rows)
        before = (tmp_path / name).read_bytes()
        assert ten(*rows, more=['--out-file', str(tmp_path / name)]) == 2
        assert 'is no result of lora-mbpp' in capsys.readouterr().err
        assert (tmp_path / name).read_bytes() == before
    out = ['--out-file', str(tmp_path / 'out.json')]
    assert ten(*rows, more=out) == 0 and ten(*rows, more=out) == 0
    assert ten(*rows, more=out, name='others.jsonl') == 2


# ---- verdicts


def test_a_verdict_belongs_to_program_tests_limits_and_engine(tmp_path, monkeypatch):
    from lora_mbpp.evaluation import judging
    from lora_mbpp.sandbox.engine import Limits
    from lora_mbpp.sandbox.verdicts import Verdict
    from lora_mbpp.tasks.schema import as_task

    judged = []

    def judge_many(jobs, **how):
        judged.append(len(jobs))
        return [(i, Verdict('passed')) for i, _ in enumerate(jobs)]

    monkeypatch.setattr(judging, 'judge_many', judge_many)
    record = {'task_id': 1, 'sample_idx': 0, 'text': 'same text', 'code': GOOD, 'extraction': 'given'}
    known = as_task({**task(1), 'test_setup_code': ''}, 'test')

    def score(record=record, tasks=known, limits=None, engine='fork'):
        judging.score([record], [tasks], tmp_path / 'r.jsonl', limits or Limits(), {'engine': engine})
        return judged[-1]

    assert (score(), score()) == (1, 0)
    for change in (
        {'record': {**record, 'code': BAD}},
        {'tasks': {**known, 'tests': ['assert add(2, 2) == 4']}},
        {'tasks': {**known, 'setup': 'import math'}},
        {'tasks': {**known, 'entry_point': 'plus'}},
        {'tasks': {**known, 'preamble': 'import math'}},
        {'limits': Limits(cpu_s=3)},
        {'engine': 'process'},
    ):
        assert score(**change) == 1 and score(**change) == 0 and score() == 1, change


# ---- prepared data


@pytest.fixture
def own(tmp_path):
    """Options of a data folder that was prepared from one's own problems."""
    problems = [{**task(f'own/{i}'), 'split': split} for i, split in enumerate(['test', 'train', 'validation'])]
    mine = write_jsonl(tmp_path / 'a' / 'mine.jsonl', problems)
    place = ['--data-dir', str(tmp_path / 'data')]
    assert main(['data', *place, '--mbpp-file', str(mine)]) == 0
    return place


def contents(tmp_path):
    return {path.name: path.read_bytes() for path in (tmp_path / 'data').iterdir()}


@pytest.mark.parametrize(
    'argv',
    [
        ['baseline', '--preset', 'test', '--artifacts-dir', 'ARTIFACTS'],
        ['train', '--preset', 'test', '--artifacts-dir', 'ARTIFACTS'],
        ['train', '--preset', 'test', '--artifacts-dir', 'ARTIFACTS', '--overwrite', 'true'],
        ['sweep', '--preset', 'test', '--artifacts-dir', 'ARTIFACTS', '--reports-dir', 'REPORTS'],
        ['data', '--source', 'starter'],
        ['data', '--mbpp-file', 'OTHER'],
        ['train', '--preset', 'test', '--mbpp-file', 'OTHER', '--artifacts-dir', 'ARTIFACTS'],
    ],
)
def test_data_of_another_source_stay(own, tmp_path, capsys, monkeypatch, argv):
    """Whatever asks for other data is refused, a file of the same name in another folder included."""
    monkeypatch.delenv('IN_TEST', raising=False)
    other = write_jsonl(tmp_path / 'b' / 'mine.jsonl', [task(f'b/{i}') for i in range(3)])
    places = {'ARTIFACTS': tmp_path / 'artifacts', 'REPORTS': tmp_path / 'reports', 'OTHER': other}
    before = contents(tmp_path)
    said = refused(capsys, *[str(places.get(word, word)) for word in argv], *own)
    assert 'holds data of source files (mine.jsonl), and this run asks for source' in said and '--data-dir' in said
    assert contents(tmp_path) == before


def test_data_are_used_by_who_asks_for_them(own, tmp_path, capsys):
    artifacts = ['--artifacts-dir', str(tmp_path / 'artifacts')]
    before = contents(tmp_path)
    assert main(['baseline', '--preset', 'test', '--source', 'files', *artifacts, *own]) == 0
    assert 'source files' in capsys.readouterr().out and contents(tmp_path) == before


def test_data_of_a_file_that_was_moved_or_renamed_are_used(own, tmp_path, capsys):
    """What decides is what a file holds; where it differs under one name, that is said."""
    artifacts = ['--artifacts-dir', str(tmp_path / 'artifacts')]
    renamed, before = tmp_path / 'theirs.jsonl', contents(tmp_path)
    shutil.move(tmp_path / 'a' / 'mine.jsonl', renamed)
    assert main(['baseline', '--preset', 'test', '--mbpp-file', str(renamed), *artifacts, *own]) == 0
    assert contents(tmp_path) == before
    other = write_jsonl(tmp_path / 'b' / 'mine.jsonl', [task(f'b/{i}') for i in range(3)])
    said = refused(capsys, 'train', '--preset', 'test', '--mbpp-file', str(other), *artifacts, *own)
    assert 'source files (mine.jsonl), other files of these names' in said


def test_data_are_replaced_when_told(own, tmp_path):
    assert main(['data', '--preset', 'test', '--overwrite', 'true', *own]) == 0
    assert read_json(tmp_path / 'data' / 'manifest.json')['parameters']['source'] == 'literal'


def test_shipped_data_give_way_to_a_command_that_prepares(tmp_path):
    place = ['--data-dir', str(tmp_path / 'data')]
    assert main(['data', *place]) == 0
    mine = write_jsonl(tmp_path / 'mine.jsonl', [task(f'own/{i}') for i in range(3)])
    assert main(['data', '--mbpp-file', str(mine), *place]) == 0
    write_jsonl(mine, [task(f'own/{i}') for i in range(4)])  # the same file, corrected
    assert main(['data', '--mbpp-file', str(mine), *place]) == 0
    assert len(read_jsonl(tmp_path / 'data' / 'mbpp_test.jsonl')) == 4


@pytest.mark.parametrize(
    'name, text, words',
    [
        ('train.jsonl', '{"prompt": 1}', 'train.jsonl without a manifest.json'),
        ('manifest.json', '{"name": "a web page"}', 'a manifest.json that is not of prepared data'),
        ('manifest.json', '[]', 'a manifest.json that is not of prepared data'),
        ('manifest.json', '{"parameters": {', 'not valid JSON'),
    ],
)
def test_files_of_somebody_else_stay(tmp_path, capsys, name, text, words):
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / name).write_text(text)
    for argv in (['data'], ['baseline', '--preset', 'test', '--artifacts-dir', str(tmp_path / 'artifacts')]):
        assert words in refused(capsys, *argv, '--data-dir', str(tmp_path / 'data'))
    assert (tmp_path / 'data' / name).read_text() == text


def test_a_preparation_that_was_killed_goes_on(tmp_path, monkeypatch):
    from lora_mbpp import data

    cfg = resolve('test', data_dir=str(tmp_path / 'data'))
    real = data.write_jsonl

    def killed(path, rows):
        real(path, rows)
        raise KeyboardInterrupt

    monkeypatch.setattr(data, 'write_jsonl', killed)
    with pytest.raises(KeyboardInterrupt):
        data.ensure_data(cfg)
    monkeypatch.undo()
    data.ensure_data(cfg)
    assert len(read_json(tmp_path / 'data' / 'manifest.json')['files']) == 3


# ---- adapters and bases


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    """Folders of three models of one shape: one, the same saved again, and one with other weights."""
    from lora_mbpp.models.tiny import tiny_model, tiny_tokenizer

    place = tmp_path_factory.mktemp('models')
    for name, seed in (('one', 0), ('same', 0), ('other', 1)):
        tiny_model(seed).save_pretrained(place / name)
        tiny_tokenizer().save_pretrained(place / name)
    return place


@pytest.fixture(scope='module')
def trained(models, tmp_path_factory):
    """Options and folder of an adapter of model `one`."""
    place = tmp_path_factory.mktemp('trained')
    given = ['--preset', 'test', '--data-dir', str(place / 'data'), '--artifacts-dir', str(place / 'artifacts')]
    adapter = place / 'a' / 'final'
    argv = ['train', *given, '--rank', '2', '--model', str(models / 'one'), '--output-dir', str(adapter)]
    assert main(argv) == 0
    return given, adapter


def test_the_base_is_written_down(trained, models):
    from lora_mbpp.models.base_identity import base_identity

    given, adapter = trained
    recorded = read_json(adapter / 'base.json')
    assert recorded == base_identity(str(models / 'one')) and len(recorded['weights']) == 16
    metrics = read_json(Path(given[-1]) / 'metrics' / 'final.json')
    assert metrics['run_info']['base']['weights'] == recorded['weights']


@pytest.mark.parametrize('argv', [['eval'], ['truncate'], ['snapshots']])
def test_an_adapter_is_not_scored_on_another_base(trained, models, capsys, argv):
    given, adapter = trained
    if argv == ['snapshots']:
        shutil.copytree(adapter, adapter / 'snapshots' / 'step-00001', ignore=shutil.ignore_patterns('snapshots'))
        write_json(adapter / 'snapshots' / 'step-00001' / 'snapshot.json', {'step': 1, 'of': 3, 'target_tokens': 9})
    said = refused(capsys, *argv, *given, '--model', str(models / 'other'), '--lora-dir', str(adapter))
    assert 'was trained on' in said and 'the weights are not the same' in said and '--model' in said


def test_an_adapter_is_scored_on_its_base_wherever_that_lies(trained, models, capsys):
    given, adapter = trained
    assert main(['eval', *given, '--model', str(models / 'same'), '--lora-dir', str(adapter)]) == 0
    assert 'were not compared' not in capsys.readouterr().out


def test_differences_of_bases(models, tmp_path):
    from lora_mbpp.models.base_identity import base_difference, base_identity, check_base

    one, other = base_identity(str(models / 'one')), base_identity(str(models / 'other'))
    assert base_difference(one, base_identity(str(models / 'same'))) is None
    assert base_difference(one, other) == 'the weights are not the same'
    changed = {**one, 'config': {**one['config'], 'hidden_size': 7}}
    assert base_difference(one, changed) == 'hidden_size 16 and 7'
    more = {**one, 'config': {**one['config'], 'a_new_field': 7}}
    assert base_difference(one, more) is None
    for name, same in (('owner/One', True), ('/models/one', True), ('owner/Two', False)):
        assert (base_difference({'model': name}, one) is None) == same
    write_json(tmp_path / 'adapter_config.json', {'base_model_name_or_path': 'owner/Two', 'r': 2})
    assert 'the names are not the same' in complaint(check_base, tmp_path, str(models / 'one'))
    write_json(tmp_path / 'adapter_config.json', {'base_model_name_or_path': None, 'r': 2})
    assert 'unknown' in check_base(tmp_path, str(models / 'one'))


def test_weights_are_told_apart_wherever_they_differ(models, tmp_path):
    """Another division into files is the same model; one changed tensor is not."""
    from safetensors.torch import load_file, save_file

    from lora_mbpp.models.base_identity import weights_fingerprint

    tensors = load_file(models / 'one' / 'model.safetensors')
    names = sorted(tensors)
    parts = {'model-1.safetensors': names[:5], 'model-2.safetensors': names[5:]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, tmp_path / file)
    index = {'weight_map': {name: file for file, part in parts.items() for name in part}}
    (tmp_path / 'model.safetensors.index.json').write_text(json.dumps(index))
    same = weights_fingerprint(models / 'one')
    assert weights_fingerprint(tmp_path) == same
    for name in names:
        (tmp_path / name).mkdir()
        save_file({**tensors, name: tensors[name] + 1}, tmp_path / name / 'model.safetensors')
        assert weights_fingerprint(tmp_path / name) != same, name
    assert weights_fingerprint(tmp_path / 'nothing') is None


def test_training_does_not_go_on_when_the_base_was_replaced(trained, models, tmp_path, capsys):
    given, adapter = trained
    folder = shutil.copytree(models / 'one', tmp_path / 'one')
    argv = [*given[:4], '--artifacts-dir', str(tmp_path / 'artifacts'), '--rank', '2', '--model', str(folder)]
    assert main(['train', *argv]) == 0
    shutil.copy(models / 'other' / 'model.safetensors', folder / 'model.safetensors')
    assert 'the weights are not the same' in refused(capsys, 'train', *argv)


def test_a_baseline_is_measured_again_when_its_model_was_replaced(models, tmp_path, capsys):
    folder = shutil.copytree(models / 'one', tmp_path / 'one')
    given = ['--preset', 'test', '--data-dir', str(tmp_path / 'data'), '--artifacts-dir', str(tmp_path / 'artifacts')]
    argv = ['baseline', *given, '--model', str(folder)]
    assert main(argv) == 0 and main(argv) == 0
    assert 'is evaluated already' in capsys.readouterr().out
    shutil.copy(models / 'other' / 'model.safetensors', folder / 'model.safetensors')
    before = read_json(tmp_path / 'artifacts' / 'metrics' / 'one-base.json')
    assert 'weights ' + before['eval_info']['base']['weights'] in refused(capsys, *argv)
    assert main([*argv, '--overwrite', 'true']) == 0
    after = read_json(tmp_path / 'artifacts' / 'metrics' / 'one-base.json')
    assert after['eval_info']['base']['weights'] != before['eval_info']['base']['weights']


@pytest.mark.parametrize('command', ['train', 'eval'])
def test_two_adapters_of_one_name_do_not_share_a_file(trained, models, tmp_path, capsys, command):
    given, adapter = trained
    metrics = Path(given[-1]) / 'metrics' / 'final.json'
    before = metrics.read_bytes()
    second = tmp_path / 'b' / 'final'
    folder = '--output-dir' if command == 'train' else '--lora-dir'
    if command == 'eval':
        shutil.copytree(adapter, second)
    argv = [command, *given, '--model', str(models / 'one'), '--rank', '2', folder, str(second)]
    said = refused(capsys, *argv)
    assert 'metrics/final.json holds the numbers of' in said and '--run' in said and metrics.read_bytes() == before
    assert main([*argv, '--run', f'second-{command}']) == 0 and metrics.read_bytes() == before


def test_two_bases_of_one_name_do_not_share_a_file(models, tmp_path, capsys):
    given = ['--preset', 'test', '--data-dir', str(tmp_path / 'data'), '--artifacts-dir', str(tmp_path / 'artifacts')]
    for name, source in (('x', 'one'), ('y', 'other')):
        shutil.copytree(models / source, tmp_path / name / 'model')
    assert main(['baseline', *given, '--model', str(tmp_path / 'x' / 'model')]) == 0
    assert 'holds the numbers of' in refused(capsys, 'baseline', *given, '--model', str(tmp_path / 'y' / 'model'))


def test_origins(tmp_path):
    path = tmp_path / 'final.json'
    cfg = resolve(artifacts_dir=str(tmp_path))
    inside = run_origin(cfg, tmp_path / 'checkpoints' / 'x')
    assert inside['adapter'] == 'checkpoints/x'  # the folder may be moved
    check_origin(path, inside)
    write_json(path, {'run_info': {'kind': 'lora'}})  # from before origins were recorded
    check_origin(path, inside)
    write_json(path, {'run_info': {'origin': inside}})
    check_origin(path, inside)
    other = run_origin(cfg, tmp_path / 'y')
    assert '--run' in complaint(check_origin, path, other)
    check_origin(path, other, overwrite=True)
    base = run_origin(cfg)
    assert 'the base' in complaint(check_origin, path, base)
    write_json(path, {'run_info': {'kind': 'base', 'model': 'another/model'}})
    assert 'another/model' in complaint(check_origin, path, base)


def test_a_new_training_forgets_the_old_evaluation(tmp_path):
    (tmp_path / 'adapter_model.safetensors').write_bytes(b'new')
    path = write_json(tmp_path / 'm.json', {'train_info': {}, 'eval_info': {'adapter': 'old'}})
    forget_evaluation(path, tmp_path)
    assert read_json(path) == {'train_info': {}}


def test_out_files_that_are_not_ours(tmp_path, capsys, tiny):
    mine = write_jsonl(tmp_path / 'mine.jsonl', [{'a': 1}])
    before = mine.read_bytes()
    for more in ([], ['--overwrite', 'true']):
        assert 'holds no completions' in refused(capsys, 'baseline', *typed(tiny), '--out-file', str(mine), *more)
        assert mine.read_bytes() == before
    assert 'is no result' in complaint(check_own_output, mine, {'adapter': 'x'})


# ---- the same refusal everywhere


def study_in(folder, change=None):
    """A made-up study on disk, with one report; `change` is done to its last run."""
    runs = simulated_study({8: (0.35, 0.85), 32: (0.36, 0.848)}, n=30)
    for run in runs:
        run['run_info']['test_run'] = False
    names = [run['run_info']['run'] for run in runs]
    if change:
        change(runs[-1])
    for name, run in zip(names, runs):
        write_json(folder / 'artifacts' / 'metrics' / f'{name}.json', run)
    import nbformat

    report = nbformat.v4.new_notebook(metadata={'lora_mbpp': {'key': 'x', 'seconds': 1}})
    (folder / 'reports').mkdir(exist_ok=True)
    nbformat.write(report, folder / 'reports' / '04_analysis.ipynb')
    return ['--artifacts-dir', str(folder / 'artifacts'), '--reports-dir', str(folder / 'reports')]


CONFOUNDS = {
    'steps': lambda run: run['run_info']['parameters'].update(max_steps=2),
    'data': lambda run: run['run_info']['parameters'].update(train_data='other'),
    'package': lambda run: run['meta_info']['packages'].update(torch='1.0'),
    'device': lambda run: run['meta_info']['device'].update(dtype='float16'),
    'order': lambda run: run['train_info'].update(order='another'),
    'settings': lambda run: run['eval_info']['settings'].update(batch_size=1),
    'test run': lambda run: run['run_info'].update(test_run=True),
    'weights of the base': lambda run: run['eval_info'].update(base={'weights': 'b'}),
    'seed': lambda run: run['run_info'].update(seed=7),
    'same rank': lambda run: run['run_info'].update(rank=8),
}


def test_a_sound_study_is_stated(tmp_path, capsys):
    assert main(['report', *study_in(tmp_path)]) == 0
    page = (tmp_path / 'reports' / 'index.html').read_text()
    assert 'class="refused"' not in page and 'r=32' in page


@pytest.mark.parametrize('what', [name for name in CONFOUNDS if name != 'weights of the base'])
def test_what_is_refused_is_stated_nowhere(tmp_path, capsys, what):
    """Console, page and the analysis' own gate: the same sentence in one red box, no number, status 1."""
    from lora_mbpp.analysis import result_tables
    from lora_mbpp.reporting.comparisons import comparison_table
    from lora_mbpp.reporting.confound_check import comparable_study

    assert main(['report', *study_in(tmp_path, CONFOUNDS[what])]) == 1
    said, page = capsys.readouterr().out, (tmp_path / 'reports' / 'index.html').read_text()
    assert said.count('no finding: ') == 1 and page.count('class="refused"') == 1 and 'No finding. ' in page
    assert 'pass@1' not in said.replace(said.split('no finding: ')[1].splitlines()[0], '') and '<img' not in page
    assert 'better' not in said and 'equivalent' not in said

    def analysis():
        runs, again = comparable_study(tmp_path / 'artifacts', 'starter')
        result_tables(runs, again, comparison_table(runs, again))

    sentence = complaint(analysis)
    assert sentence and sentence in said


def test_other_weights_of_the_base_are_refused_where_known(tmp_path):
    def both(run):
        run['eval_info']['base'] = {'weights': 'b'}

    assert main(['report', *study_in(tmp_path, both)]) == 0  # the other run does not know
    for path in (tmp_path / 'artifacts' / 'metrics').glob('*r8*.json'):
        run = read_json(path)
        run['eval_info']['base'] = {'weights': 'a'}
        write_json(path, run)
    assert main(['report', *study_in_place(tmp_path)]) == 1


def study_in_place(folder):
    return ['--artifacts-dir', str(folder / 'artifacts'), '--reports-dir', str(folder / 'reports')]


def test_the_shipped_results_are_stated():
    from conftest import ROOT

    from lora_mbpp.reporting.confound_check import comparable_study

    for folder in sorted((ROOT / 'results').iterdir()):
        if (folder / 'metrics').is_dir():
            runs, _ = comparable_study(folder, folder.name)
            assert len(runs) > 2


# ---- damaged files


@pytest.mark.parametrize(
    'content',
    [
        b'{"run_info": {',
        b'',
        b'\xff\xfe\x00garbage',
        b'[1, 2]',
        b'"text"',
        b'{"run_info": 5}',
        b'null',
        b'{"a": ' * 9999,
    ],
    ids=['torn', 'empty', 'binary', 'list', 'text', 'no run', 'null', 'deep'],
)
def test_a_damaged_metrics_file_is_named(tmp_path, capsys, content):
    """Whatever a run's file holds: never an empty page with status 0, never a trace."""
    argv = study_in(tmp_path)
    (tmp_path / 'artifacts' / 'metrics' / 'made-up-r8-s0.json').write_bytes(content)
    assert main(['report', *argv]) == 1
    assert 'made-up-r8-s0.json' in (tmp_path / 'reports' / 'index.html').read_text()
    assert 'made-up-r8-s0.json' in capsys.readouterr().out


@pytest.mark.parametrize('missing', ['run', 'kind', 'rank', 'preset', 'test_run', 'eval_info', 'settings', 'per_task'])
def test_a_metrics_file_without_a_field(tmp_path, capsys, missing):
    def take_out(run):
        run['run_info'].pop(missing, None)
        run['eval_info'].pop(missing, None)
        run.pop(missing, None)

    trained_only = missing in ('eval_info', 'per_task')
    assert main(['report', *study_in(tmp_path, take_out)]) == (0 if trained_only else 1)
    assert trained_only or f'.{missing}' in (tmp_path / 'reports' / 'index.html').read_text()


def test_a_damaged_report_is_no_success(tmp_path, capsys):
    argv = study_in(tmp_path)
    (tmp_path / 'reports' / '02_train_r8_s0.ipynb').write_text('{"cells": [')
    assert main(['report', *argv]) == 1
    assert 'damaged file' in (tmp_path / 'reports' / 'index.html').read_text()
