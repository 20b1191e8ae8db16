"""The sweep on the random model: all reports, then nothing to do, then one more rank, then a failure that stays alone."""
import json

import nbformat
import pytest

from lora_mbpp.cli import main
from lora_mbpp.config import read_json, write_json


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    return tmp_path_factory.mktemp('sweep')


def run(place, *extra):
    return main(['sweep', '--preset', 'test', '--data-dir', str(place/'data'), '--artifacts-dir', str(place/'artifacts'), '--reports-dir', str(place/'reports'), *extra])


def stamps(place):
    return {p.name: p.stat().st_mtime_ns for p in (place/'reports').glob('*.ipynb')}


def test_everything_is_made(place, capsys, monkeypatch):
    monkeypatch.delenv('IN_TEST', raising=False)
    assert run(place, '--ranks', '2') == 0
    names = {'00_data', '01_baseline', '02_train_r2_s0', '03_eval_r2_s0', '04_analysis'}
    assert {p.stem for p in (place/'reports').glob('*.ipynb')} == names
    page = (place/'reports'/'index.html').read_text()
    assert all(f'{name}.html' in page and (place/'reports'/f'{name}.html').stat().st_size > 10_000 for name in names)
    said = capsys.readouterr().out
    assert '[5/5] 04_analysis: finished' in said and 'test-r2-s0' in said
    for name in names:
        text = json.dumps(nbformat.read(place/'reports'/f'{name}.ipynb', 4))
        assert '\\r' not in text.replace('\\\\r', '') or name == '00_data'
        assert 'Traceback' not in text
    assert read_json(place/'artifacts'/'metrics'/'test-r2-s0.json')['run_info']['test_run'] is False


def test_second_start_has_nothing_to_do(place, capsys, monkeypatch):
    monkeypatch.delenv('IN_TEST', raising=False)
    before = stamps(place)
    assert run(place, '--ranks', '2') == 0
    assert stamps(place) == before and capsys.readouterr().out.count('done already') == 5


def test_one_more_rank_pays_for_itself_alone_and_a_failure_stays_alone(place, capsys, monkeypatch):
    """Rank 3 cannot train (its folder holds another run); rank 4 goes on, the exit status says so."""
    monkeypatch.delenv('IN_TEST', raising=False)
    taken = place/'artifacts'/'checkpoints'/'test-r3-s0'
    write_json(taken/'run.json', {'rank': 99})
    for name in ('adapter_config.json', 'adapter_model.safetensors'): (taken/name).touch()
    before = stamps(place)
    assert run(place, '--ranks', '2,3,4') == 1
    said, after = capsys.readouterr().out, stamps(place)
    assert 'FAILED' in said and 'exists with other parameters' in said and '03_eval_r3_s0: left out' in said
    assert all(after[name] == before[name] for name in before if not name.startswith('04'))
    assert (place/'reports'/'02_train_r3_s0.html').exists() and '03_eval_r3_s0.ipynb' not in after
    page = (place/'reports'/'index.html').read_text()
    assert 'test-r4-s0' in page and 'exists with other parameters' in page


def test_report_is_rebuilt(place, capsys):
    (place/'reports'/'index.html').unlink()
    assert main(['report', '--preset', 'test', '--artifacts-dir', str(place/'artifacts'), '--reports-dir', str(place/'reports')]) == 0
    assert 'test-r4-s0' in (place/'reports'/'index.html').read_text()


def test_refuses_to_run_under_in_test(place, capsys, monkeypatch):
    monkeypatch.setenv('IN_TEST', '1')
    assert run(place, '--ranks', '2') == 2
    assert 'IN_TEST is set' in capsys.readouterr().err
