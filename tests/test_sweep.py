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


def test_a_search_over_learning_rates_keeps_its_winner(tmp_path, capsys, monkeypatch):
    """Two rates are tried with the first seed; the better one's run is kept and evaluated, the base is measured twice."""
    monkeypatch.delenv('IN_TEST', raising=False)
    assert run(tmp_path, '--ranks', '2', '--lrs', '1e-3,1e-2', '--again', 'true') == 0
    said = capsys.readouterr().out
    assert 'searching learning rates: 1 ranks x 2' in said and 'at the end of the grid' in said
    names = {p.stem for p in (tmp_path/'reports').glob('*.ipynb')}
    trained, scored = ({n for n in names if n.startswith(stage)} for stage in ('02', '03'))
    assert trained == {'02_train_r2_s0_lr0.001', '02_train_r2_s0_lr0.01'} and len(scored) == 1 and scored.pop().replace('03_eval', '02_train') in trained
    metrics = {p.stem: read_json(p) for p in (tmp_path/'artifacts'/'metrics').glob('*.json')}
    assert metrics['test-base-again']['run_info']['kind'] == 'again' and sum('eval_info' in m for m in metrics.values()) == 3
    best = min((m['train_info']['val_nll'][-1]['nll'], name) for name, m in metrics.items() if 'train_info' in m)[1]
    assert 'eval_info' in metrics[best] and metrics[best]['eval_info']['plan']
    assert run(tmp_path, '--ranks', '2', '--lrs', '1e-3', '--again', 'true') == 2 and 'two or more' in capsys.readouterr().err


def test_several_at_a_time_make_the_same(place, tmp_path, capsys, monkeypatch):
    """Two jobs: every report, the analysis last, and the numbers of the run that made one after the other."""
    monkeypatch.delenv('IN_TEST', raising=False)
    assert run(tmp_path, '--ranks', '2,4', '--jobs', '2') == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith('[')]
    first_finish = next(i for i, line in enumerate(said) if '01_baseline: finished' in line or '02_train' in line and 'finished' in line)
    assert {line.split(': ')[0] for line in said[:first_finish] if line.endswith('running')} == {'[1/7] 00_data', '[2/7] 01_baseline', '[3/7] 02_train_r2_s0'}
    assert said[-1].startswith('[7/7] 04_analysis: finished') and said[-2] == '[7/7] 04_analysis: running'
    one, other = (read_json(folder/'artifacts'/'metrics'/'test-r4-s0.json') for folder in (place, tmp_path))
    assert one['train_info']['losses'] == other['train_info']['losses'] and one['eval_info']['reference_nll'] == other['eval_info']['reference_nll']
    assert run(tmp_path, '--jobs', '0') == 2


def test_report_is_rebuilt(place, capsys):
    (place/'reports'/'index.html').unlink()
    assert main(['report', '--preset', 'test', '--artifacts-dir', str(place/'artifacts'), '--reports-dir', str(place/'reports')]) == 0
    assert 'test-r4-s0' in (place/'reports'/'index.html').read_text()


def test_refuses_to_run_under_in_test(place, capsys, monkeypatch):
    monkeypatch.setenv('IN_TEST', '1')
    assert run(place, '--ranks', '2') == 2
    assert 'IN_TEST is set' in capsys.readouterr().err
