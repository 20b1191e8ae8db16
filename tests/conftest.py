"""Shared by the tests: where the published data sets are, and a configuration that trains in seconds."""

import os
from pathlib import Path

import pytest

os.environ.setdefault('MPLBACKEND', 'Agg')
os.environ.setdefault('HF_HUB_OFFLINE', '1')  # no test needs a model hub

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(
    path
    for path in (ROOT / 'nbs').rglob('*.ipynb')
    if not path.name.startswith(('out_', '.', '_')) and '.ipynb_checkpoints' not in path.parts
)


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
