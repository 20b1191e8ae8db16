"""Every notebook runs as nbdev_test runs it, and the generated module is what the notebooks export."""

import ast
import json
import shutil
import subprocess
import sys

import papermill
import pytest
from conftest import NOTEBOOKS, ROOT
from nbdev.test import test_nb as run_notebook

from lora_mbpp.core.config import STAGES as CONFIG_STAGES
from lora_mbpp.core.config import Config, stage_parameters

STAGES = {
    'data': '00_data',
    'baseline': '01_baseline',
    'train': '02_train',
    'eval': '03_eval',
    'analysis': '04_analysis',
}


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.relative_to(ROOT / 'nbs').with_suffix('').as_posix())
def test_notebook_runs(path, monkeypatch):
    monkeypatch.setenv('IN_TEST', '1')
    passed, _ = run_notebook(path, skip_flags=['gpu'])
    assert passed


def cells_of(stage):
    return json.loads((ROOT / 'nbs' / f'{STAGES[stage]}.ipynb').read_text(encoding='utf-8'))['cells']


@pytest.mark.parametrize('stage', STAGES)
def test_parameters_cell_matches_config(stage):
    """The parameters cell, the command line and Config know the same names, each with a comment and a plain value."""
    found = papermill.inspect_notebook(str(ROOT / 'nbs' / f'{STAGES[stage]}.ipynb'))
    assert found.keys() == stage_parameters(stage).keys()
    assert all(p['help'] for p in found.values())
    for name, p in found.items():
        value = ast.literal_eval(p['default'])
        assert value is None or value == Config.__dataclass_fields__[name].default, name


@pytest.mark.parametrize('stage', STAGES)
def test_stage_takes_all_values_of_its_parameters_cell(stage):
    """One call, by name, right below: nothing is left out and nothing is repeated."""
    texts = [''.join(cell['source']) for cell in cells_of(stage)]
    tagged = next(i for i, cell in enumerate(cells_of(stage)) if 'parameters' in cell['metadata'].get('tags', []))
    calls = [(i, line) for i, text in enumerate(texts) for line in text.splitlines() if 'stage_config(' in line]
    assert calls == [(tagged + 2, f"cfg = stage_config('{stage}', globals())")]  # papermill's own cell lies between


@pytest.mark.parametrize('stage', STAGES)
def test_parameters_are_looked_at_before_anything_slow_is_imported(stage):
    """A wrong one is refused at once, not after the seconds that torch takes."""
    texts = [''.join(cell['source']) for cell in cells_of(stage) if cell['cell_type'] == 'code']
    taken = next(i for i, text in enumerate(texts) if 'stage_config(' in text)
    code = '\n'.join([*texts[: taken + 1], 'import sys', "assert not {'torch', 'pandas'} & sys.modules.keys()"])
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT / 'nbs', stdout=subprocess.DEVNULL)


def test_every_parameter_belongs_to_a_stage():
    assert {name for stage in STAGES for name in stage_parameters(stage)} == Config.__dataclass_fields__.keys()
    assert tuple(STAGES) == CONFIG_STAGES


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.relative_to(ROOT / 'nbs').with_suffix('').as_posix())
def test_notebook_is_clean(path):
    """No machine's path, no execution counts, cell ids present, explicit imports, small outputs."""
    nb = json.loads(path.read_text(encoding='utf-8'))
    text = path.read_text(encoding='utf-8')
    assert (nb['nbformat'], nb['nbformat_minor']) == (4, 5) and all(c.get('id') for c in nb['cells'])
    assert nb['metadata']['kernelspec']['name'] == 'python3' and nb['metadata']['kernelspec']['language'] == 'python'
    assert not any(place in text for place in ('/root/', '/home/', '/work/', 'C:\\\\Users'))
    assert 'import *' not in ''.join(''.join(c['source']) for c in nb['cells'] if c['cell_type'] == 'code')
    assert sum(len(json.dumps(c.get('outputs', []))) for c in nb['cells']) < 300_000
    assert all(c.get('execution_count') is None for c in nb['cells'] if c['cell_type'] == 'code')
    assert all(o.get('output_type') != 'error' for c in nb['cells'] for o in c.get('outputs', []))


@pytest.fixture(scope='module')
def copy(tmp_path_factory):
    """A copy of what nbdev reads, so that no test writes into the repository."""
    target = tmp_path_factory.mktemp('repository')
    for name in ('nbs', 'lora_mbpp'):
        shutil.copytree(
            ROOT / name, target / name, ignore=shutil.ignore_patterns('__pycache__', 'out_*', '.ipynb_checkpoints')
        )
    for name in ('settings.ini', 'setup.py', 'README.md'):
        shutil.copy(ROOT / name, target / name)
    return target


def nbdev(copy, command):
    code = f'from nbdev.{"doclinks" if command == "nbdev_export" else "clean"} import {command}; {command}()'
    done = subprocess.run([sys.executable, '-c', code], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def same_modules(copy):
    def modules(root):
        return {
            p.relative_to(root).as_posix(): p.read_text(encoding='utf-8') for p in (root / 'lora_mbpp').rglob('*.py')
        }

    here, there = modules(ROOT), modules(copy)
    assert here.keys() == there.keys() and [name for name in here if here[name] != there[name]] == []


def test_export_and_clean_change_nothing(copy):
    nbdev(copy, 'nbdev_export')
    nbdev(copy, 'nbdev_clean')
    same_modules(copy)
    assert not (copy / 'pyproject.toml').exists()
    for path in NOTEBOOKS:
        assert (copy / path.relative_to(ROOT)).read_text(encoding='utf-8') == path.read_text(encoding='utf-8'), (
            f'{path.name}: run nbdev_clean'
        )


def run_papermill(copy, *arguments):
    """Papermill as a person types it inside nbs/."""
    return subprocess.run(
        [sys.executable, '-m', 'papermill', '--no-progress-bar', *arguments],
        cwd=copy / 'nbs',
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_papermill_trains_the_rank_it_is_given(copy, tmp_path):
    """`-p rank 32` trains rank 32, makes the data it misses, and its report cannot disturb the next export."""
    places = ['-p', 'data_dir', str(tmp_path / 'data'), '-p', 'artifacts_dir', str(tmp_path / 'artifacts')]
    done = run_papermill(copy, '02_train.ipynb', 'out_r32.ipynb', '-p', 'rank', '32', '-p', 'preset', 'test', *places)
    assert done.returncode == 0, done.stderr[-2000:]
    config = json.loads((tmp_path / 'artifacts' / 'checkpoints' / 'test-r32-s0' / 'adapter_config.json').read_text())
    assert config['r'] == 32 and (tmp_path / 'data' / 'train.jsonl').exists()
    assert 'prepared from source literal' in (copy / 'nbs' / 'out_r32.ipynb').read_text()
    nbdev(copy, 'nbdev_export')
    same_modules(copy)
    ignored = subprocess.run(['git', 'check-ignore', 'nbs/out_r32.ipynb'], cwd=ROOT, capture_output=True, text=True)
    assert ignored.returncode in (0, 128)  # 128: not a git checkout


def test_papermill_refuses_a_misspelled_parameter(copy):
    done = run_papermill(copy, '00_data.ipynb', 'out_typo.ipynb', '-p', 'sorce', 'files')
    assert done.returncode != 0
    assert "no parameter 'sorce' (did you mean 'source'?)" in done.stderr


def test_every_exported_function_is_documented():
    for module in (ROOT / 'lora_mbpp').rglob('[a-z]*.py'):
        tree = ast.parse(module.read_text(encoding='utf-8'))
        bare = [
            n.name
            for n in tree.body
            if isinstance(n, (ast.FunctionDef, ast.ClassDef))
            and not n.name.startswith('_')
            and not ast.get_docstring(n)
        ]
        assert not bare, f'{module.name}: {bare}'


def test_config_has_help_for_every_field():
    assert all(f.metadata['help'] and f.metadata['stages'] for f in Config.__dataclass_fields__.values())
