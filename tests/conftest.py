"""Shared by the tests: where the published data sets are, and a configuration that trains in seconds."""

import gc
import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from lora_mbpp.core.environment import quick_imports

os.environ.setdefault('MPLBACKEND', 'Agg')
os.environ.setdefault('HF_HUB_OFFLINE', '1')  # no test needs a model hub
if int(os.environ.get('PYTEST_XDIST_WORKER_COUNT', 1)) > 1:
    # workers share the cores: with as many threads each they wait for one another (read when torch is imported)
    os.environ.setdefault('OMP_NUM_THREADS', '1')

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(
    path
    for path in (ROOT / 'nbs').rglob('*.ipynb')
    if not path.name.startswith(('out_', '.', '_')) and '.ipynb_checkpoints' not in path.parts
)

# Files whose tests stay in one worker, since they share runs that take long.
IN_ONE_WORKER = ('test_processes',)


def pytest_xdist_auto_num_workers(config) -> int:
    """One more than cores, as some tests wait, four at most; what the command line names runs in this process."""
    named = any('::' in argument or argument.endswith('.py') for argument in config.args)
    return 0 if named else min((os.cpu_count() or 1) + 1, 4)


@pytest.hookimpl(tryfirst=True)  # before xdist writes the groups into the names by which it deals the tests out
def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.stem in IN_ONE_WORKER:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
        if 'notebook_runs[experiments/ray_cluster]' in item.name:
            item.add_marker(pytest.mark.xdist_group('ray'))  # it starts a cluster, as the tests of test_cluster do


COLLECTION = ExitStack()


def pytest_collectstart(collector):
    # until all tests are collected, which imports all that they need; not in the process that only hands them out
    if isinstance(collector, pytest.Session):
        COLLECTION.enter_context(quick_imports())


def pytest_collection_finish():
    # what is imported stays: each of accelerate's full collections would look through three million objects again
    COLLECTION.close()
    gc.collect()
    gc.freeze()


def published(name: str) -> Path:
    """A published data file, or a skip that says how to provide it."""
    folder = Path(os.environ.get('LORA_MBPP_TEST_DATA') or ROOT.parent / 'shared' / 'data')
    if not (folder / name).exists():
        pytest.skip(f'{name} is not there: set LORA_MBPP_TEST_DATA to its folder')
    return folder / name


@pytest.fixture
def mbpp_file() -> Path:
    return published('mbpp.jsonl')


@pytest.fixture
def codealpaca_file() -> Path:
    return published('code_alpaca_2k.json')


@pytest.fixture
def tiny(tmp_path):
    """Parameters of a run on the random model, all files below a temporary folder."""
    return {'preset': 'test', 'data_dir': str(tmp_path / 'data'), 'artifacts_dir': str(tmp_path / 'artifacts')}
