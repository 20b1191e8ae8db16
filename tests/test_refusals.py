"""Whatever a person types wrongly gets one sentence, at once, and loses nothing."""

import contextlib
import errno
import io
import subprocess
import sys
from dataclasses import fields
from typing import get_args

import pytest
import yaml

from lora_mbpp.cli import build_parser, main
from lora_mbpp.core.config import INTERNAL, OPTIMIZERS, PRESETS, Config, interval_words, lies_within, resolve
from lora_mbpp.core.errors import UserError, complaint
from lora_mbpp.core.files import disk_advice, project_root, shown, write_text
from lora_mbpp.core.options import COMMANDS, advised, option_flags, options_of
from lora_mbpp.core.places import check_model_name, check_places

PARAMETERS = {f.name: f for f in fields(Config)}
KINDS = {name: (get_args(f.type) or (f.type,))[0] for name, f in PARAMETERS.items()}
NUMBERS = [name for name, kind in KINDS.items() if kind in (int, float)]
PLACES = [name for name, f in PARAMETERS.items() if f.metadata['place']]


def command_with(name):
    """A command that has this parameter."""
    return next(command for command in COMMANDS if '--' + name.replace('_', '-') in options_of(command))


def said_by(capsys, *argv):
    """The one line of a refused command, from the parser or from the command."""
    try:
        status = main(list(argv))
    except SystemExit as stop:
        status = stop.code
    said = capsys.readouterr().err.strip()
    assert status == 2 and '\n' not in said and 'Traceback' not in said, said
    assert said.startswith('lora-mbpp')
    return said


# ---- values


def test_every_number_declares_its_interval():
    assert len(NUMBERS) > 25 and not [name for name in NUMBERS if not PARAMETERS[name].metadata['within']]
    assert not [name for name, kind in KINDS.items() if kind in (str, bool) and PARAMETERS[name].metadata['within']]


@pytest.mark.parametrize('value', ['nan', 'inf', '-inf', '1e400', '-1', '', ' ', 'many', 'true', True, [1], {}, '1,5'])
@pytest.mark.parametrize('name', NUMBERS)
def test_a_number_of_no_use_is_refused_by_name(name, value):
    said = complaint(resolve, **{name: value})
    assert said and f'parameter {name} = ' in said and '\n' not in said


@pytest.mark.parametrize('name', NUMBERS)
def test_the_ends_of_an_interval(name):
    """An end that belongs is taken, one that does not is refused, and what lies beyond is refused."""
    interval = PARAMETERS[name].metadata['within']
    low, high = (float(end) for end in interval[1:-1].split(','))
    alone = {**dict.fromkeys(('train_ratio', 'val_ratio', 'test_ratio'), 0)} if 'ratio' in name else {}
    if name == 'warmup_ratio':
        alone = {}
    for end, belongs in ((low, interval[0] == '['), (high, interval[-1] == ']')):
        if end == float('inf') or (belongs and 'ratio' in name and end != 1):
            continue
        value = int(end) if KINDS[name] is int else end
        said = complaint(resolve, **{**alone, name: value})
        assert (said is None) == belongs, said
    beyond = [low - 1] + ([high * 2 + 1] if high != float('inf') else [])
    for value in beyond:
        assert interval_words(interval) in complaint(resolve, **{name: int(value)})


@pytest.mark.parametrize(
    'interval, inside, outside',
    [
        ('(0, 1]', (1, 0.5, 1e-300), (0, 1.0000001, -1, float('nan'))),
        ('[0, 1)', (0, 0.999), (1, -1e-9, float('nan'))),
        ('[0, inf)', (0, 1e300), (float('inf'), -1)),
    ],
)
def test_intervals(interval, inside, outside):
    assert all(lies_within(value, interval) for value in inside)
    assert not any(lies_within(value, interval) for value in outside)


@pytest.mark.parametrize('text, value', [('1e3', 1000), ('8.0', 8), (8.0, 8), (' 8', 8), ('4294967295', 2**32 - 1)])
def test_whole_numbers_are_read_exactly(text, value):
    assert resolve(seed=text).seed == value


def test_shares_must_add_up_whatever_they_are():
    assert 'add up to 1' in complaint(resolve, train_ratio=0.9)
    assert 'train_ratio' in complaint(resolve, train_ratio='nan', val_ratio='nan', test_ratio='nan')


@pytest.mark.parametrize('name', [name for name, f in PARAMETERS.items() if f.metadata['choices']])
def test_a_choice_that_does_not_exist(name):
    said = complaint(resolve, **{name: 'no such thing'})
    assert f"parameter {name} = 'no such thing' is not one of" in said
    assert not any(word in said.split(' is not one of ')[1].split(', ') for word in INTERNAL)


def test_internal_names_work_and_are_not_offered(capsys):
    assert resolve('test').source == 'literal'
    assert 'test' not in complaint(resolve, preset='tset').split('; there are ')[1] and 'test' in PRESETS
    assert "did you mean 'starter'" in complaint(resolve, preset='startr')
    for command in COMMANDS:
        with contextlib.suppress(SystemExit):
            build_parser().parse_args([command, '--help'])
        assert 'literal' not in capsys.readouterr().out


@pytest.mark.parametrize('name', [name for name, kind in KINDS.items() if kind is str and name != 'preset'])
@pytest.mark.parametrize('value', ['', '  ', 'a\0b', 'a\nb', ['a'], {'a': 1}, True])
def test_a_text_of_no_use_is_refused_by_name(name, value):
    assert f'parameter {name} = ' in complaint(resolve, **{name: value})


@pytest.mark.parametrize('name', ['run', 'tag', 'group'])
@pytest.mark.parametrize('value', ['..', '.', '.hidden', '-x', 'a/b', 'a\\b', 'x' * 101, 'a b'])
def test_names_that_no_file_can_have(name, value):
    assert f'{name} name' in complaint(resolve, **{name: value})


def test_optimizers_are_those_of_transformers():
    from transformers.training_args import OptimizerNames

    assert set(OPTIMIZERS) <= {one.value for one in OptimizerNames}


def test_values_that_do_not_go_together():
    assert 'takes the base apart' in complaint(resolve, method='pissa', quantization='nf4')


@pytest.mark.parametrize(
    'values', [{'preset': ['starter']}, {'rank': [8]}, {'seed': -1}, {'lr': 'fast'}, {'model': {}}]
)
def test_yaml_values_are_checked_alike(values, tmp_path, capsys):
    (tmp_path / 'c.yaml').write_text(yaml.safe_dump(values))
    assert next(iter(values)) in said_by(capsys, 'train', '--config', str(tmp_path / 'c.yaml'))


# ---- places


@pytest.mark.parametrize('name', PLACES)
def test_a_place_of_no_use_is_refused(name, tmp_path):
    """A missing file, a folder for a file, a file for a folder, a folder below a file, a home that nobody has."""
    (tmp_path / 'file').write_text('x')
    kind = PARAMETERS[name].metadata['place']
    wrong = {
        'file': [(tmp_path / 'no', 'there is no file'), (tmp_path, 'is a folder')],
        'new file': [(tmp_path, 'is a folder'), (tmp_path / 'file' / 'x.json', 'is a file, not a folder')],
        'adapter': [(tmp_path / 'no', 'there is no adapter'), (tmp_path, 'there is no adapter')],
        'new folder': [(tmp_path / 'file', 'is a file'), (tmp_path / 'file' / 'a' / 'b', 'is a file, not a folder')],
    }[kind]
    for path, words in [*wrong, ('~nobody-of-this-name/x', 'no such home folder')]:
        assert words in complaint(check_places, resolve(**{name: str(path)}))
    assert 'free some space' not in str(wrong)


@pytest.mark.parametrize('name', PLACES)
def test_a_place_is_looked_at_by_the_command(name, tmp_path, capsys):
    option = option_flags(name, ())[0]
    said = said_by(capsys, command_with(name), option, '~nobody-of-this-name/x')
    assert 'no such home folder' in said


@pytest.mark.parametrize(
    'name, words',
    [
        ('./models/none', 'there is no folder ./models/none'),
        ('/models/none', 'there is no folder'),
        ('a/b/c', 'there is no folder a/b/c'),
        ('models\\none', 'there is no folder'),
        ('a model', 'neither a folder nor a Hub id'),
        ('FILE', 'is a file'),
        ('EMPTY', 'holds no config.json'),
        ('ADAPTER', '--lora-dir'),
    ],
)
def test_a_model_that_cannot_be_one(name, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'FILE').touch()
    for folder in ('EMPTY', 'ADAPTER'):
        (tmp_path / folder).mkdir()
    (tmp_path / 'ADAPTER' / 'adapter_config.json').write_text('{}')
    assert words in complaint(check_model_name, name)


def test_a_hub_model_that_cannot_be_had_is_one_sentence_in_seconds(monkeypatch):
    import time

    from lora_mbpp.models import hub

    started = time.monotonic()
    monkeypatch.delenv('HF_HUB_OFFLINE', raising=False)
    monkeypatch.setattr(hub, 'is_offline', lambda: False)
    monkeypatch.setenv('HF_ENDPOINT', 'http://127.0.0.1:9')
    said = complaint(hub.require_model.__wrapped__, 'nobody/no-such-model-anywhere')
    assert said.startswith("cannot load model 'nobody/no-such-model-anywhere'") and '\n' not in said
    assert time.monotonic() - started < 5


def test_a_hub_that_does_not_answer_is_not_waited_for(monkeypatch):
    import time

    import huggingface_hub

    from lora_mbpp.models import hub

    monkeypatch.setattr(hub, 'is_offline', lambda: False)
    monkeypatch.setattr(huggingface_hub.HfApi, 'model_info', lambda *args, **kwargs: time.sleep(5))
    started = time.monotonic()
    assert hub.why_not_from_hub('some/model', patience=0.2) == 'huggingface.co did not answer within 0.2 s'
    assert time.monotonic() - started < 3


def test_advice_fits_the_error(tmp_path):
    (tmp_path / 'file').touch()
    said = complaint(write_text, tmp_path / 'file' / 'x', 'x')
    assert 'cannot write' in said and 'free some space' not in said
    assert 'free some space' in disk_advice(OSError(errno.ENOSPC, ''))
    assert 'may not be written' in disk_advice(OSError(errno.EACCES, ''))


# ---- commands


BAD_NUMBERS = [
    *(('data', '--train-ratio', 'nan'), ('baseline', '--n-samples', '0'), ('train', '--rank', '0')),
    *(('eval', '--seed', '-1'), ('plan', '--ranks', '0'), ('plan', '--vram', '-3'), ('sweep', '--lr', 'inf')),
    *(('sweep', '--ranks', '8,8'), ('sweep', '--seeds', '99999999999'), ('sweep', '--lrs', '0.1,nan')),
    *(('sweep', '--jobs', '0'), ('truncate', '--cpu-s', '1e300'), ('snapshots', '--temperature', '0')),
    *(('report', '--group', '../x'), ('train', '--optimizer', 'adamx'), ('baseline', '--model', './none')),
    *(('eval', '--lora-dir', 'none'), ('train', '--seed', '9' * 30), ('train', '--gpus', '0')),
    *(('eval', '--samples', 'none.jsonl'), ('plan', '--card', 'none'), ('plan', '--tflops', '5')),
]


def test_refusals_come_before_anything_heavy(tmp_path):
    """All of these in one process: none imports torch, transformers, pandas or a stage."""
    code = f"""
import sys
from lora_mbpp.cli import main
for argv in {BAD_NUMBERS!r}:
    try: status = main(list(argv))
    except SystemExit as stop: status = stop.code
    heavy = [name for name in ('torch', 'transformers', 'pandas', 'papermill', 'datasketch') if name in sys.modules]
    assert status == 2 and not heavy, (argv, status, heavy)
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-1500:]
    assert len(done.stderr.strip().splitlines()) == len(BAD_NUMBERS)


@pytest.mark.parametrize(
    'argv, words',
    [
        (['sweep', '--ranks', '8', '32'], "did you mean '--ranks 8,32'?"),
        (['sweep', '--ranks', '8,', '32', '--jobs', '2'], "did you mean '--ranks 8,32'?"),
        (['plan', '--ranks', '8', '16', '32'], "did you mean '--ranks 8,16,32'?"),
        (['sweep', '--seeds', '0', '1'], "did you mean '--seeds 0,1'?"),
        (['train', '--rnak', '8'], "did you mean '--rank'?"),
        (['train', '--rnak=8'], "did you mean '--rank'?"),
        (['sweep', '--rank', '8'], "did you mean '--ranks'?"),
        (['report', '--n-samples', '3'], 'it is one of lora-mbpp baseline, eval'),
        (['train', 'configs/x.yaml'], "'configs/x.yaml' belongs to no option"),
        (['trian'], "did you mean 'train'?"),
        (['sweep', '--engine', 'rya'], "did you mean 'ray'?"),
        (['sweep', '--jobs', 'x'], '--jobs'),
        (['train', '--rank'], 'expected one argument'),
        ([], 'required'),
    ],
)
def test_what_was_meant(capsys, argv, words):
    assert words in said_by(capsys, *argv)


@pytest.mark.parametrize('command', COMMANDS)
def test_advice_names_options_that_the_command_has(command):
    """Of every parameter's option: advice is left alone where the command has it, and says who has it elsewhere."""
    for name in PARAMETERS:
        option = option_flags(name, ())[0]
        homes = [one for one in COMMANDS if option in options_of(one)]
        said = advised(f'pass {option} and go on', command)
        if command in homes or not homes:
            assert said == f'pass {option} and go on'
        else:
            assert said.endswith(f'({option} is an option of lora-mbpp {", ".join(homes)})')
            assert advised(f'run lora-mbpp {homes[0]} {option}', command) == f'run lora-mbpp {homes[0]} {option}'


def test_options_of_are_those_of_the_parser():
    parser = build_parser()
    commands = next(action for action in parser._actions if action.choices).choices
    for command in COMMANDS:
        assert options_of(command) <= set(commands[command]._option_string_actions)


# ---- notebooks


@pytest.fixture
def shell():
    from IPython.core.interactiveshell import InteractiveShell

    InteractiveShell.clear_instance()  # that of a notebook which was tested before shows nothing
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


def shown_by(shell, code):
    """What a cell that fails shows."""
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(said):
        shell.run_cell(code)
    return said.getvalue().strip()


@pytest.mark.parametrize('debug', ['', '1'])
def test_a_notebook_shows_a_mistake_in_one_line(shell, monkeypatch, debug):
    monkeypatch.setenv('LORA_MBPP_DEBUG', debug)
    said = shown_by(shell, 'from lora_mbpp.core.errors import UserError\nraise UserError("there is no file x")')
    assert 'there is no file x' in said and (len(said.splitlines()) == 1) == (not debug), said


@pytest.mark.parametrize('debug', ['', '1'])
def test_a_notebook_shows_an_interrupt_in_one_line(shell, monkeypatch, debug):
    monkeypatch.setenv('LORA_MBPP_DEBUG', debug)
    shown_by(shell, 'from lora_mbpp.core.errors import shorten_interrupts\nshorten_interrupts()')
    said = shown_by(shell, 'def deep(n):\n    if not n: raise KeyboardInterrupt\n    deep(n - 1)\ndeep(5)')
    assert (said.splitlines()[0].startswith('interrupted') and len(said.splitlines()) == 1) == (not debug), said
    shell.set_custom_exc((), None)


def test_other_errors_keep_their_trace(shell):
    assert len(shown_by(shell, 'def f(): raise ValueError("a fault")\nf()').splitlines()) > 3


def test_the_project_is_found_from_anywhere(tmp_path, monkeypatch):
    """From another folder than the project's: its own folder, named in full."""
    here = project_root()
    assert shown(here / 'data') == 'data'
    monkeypatch.delenv('LORA_MBPP_HOME', raising=False)
    monkeypatch.chdir(tmp_path)
    assert project_root() == here and shown(here / 'data') == str(here / 'data')
    monkeypatch.setenv('LORA_MBPP_HOME', str(tmp_path))
    assert project_root() == tmp_path.resolve() and shown(tmp_path / 'data') == 'data'


def test_user_errors_travel_between_processes():
    import pickle

    assert str(pickle.loads(pickle.dumps(UserError('x')))) == 'x'
