"""The command line: the seed's commands keep their options, and every mistake gets one sentence and exit status 2."""

import json
import os
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT

from lora_mbpp.cli import build_parser, main
from lora_mbpp.core.config import resolve
from lora_mbpp.core.files import read_json, read_jsonl
from lora_mbpp.core.options import config_from, given_values

SEED_OPTIONS = {
    'data': ['--out-dir', '--train-ratio', '--val-ratio', '--test-ratio', '--mbpp-file', '--codealpaca-file'],
    'baseline': ['--model', '--mbpp-file', '--out-file'],
    'train': ['--config', '--train-file', '--val-file', '--output-dir', '--merge'],
    'eval': ['--model', '--lora-dir', '--mbpp-file', '--out-file', '--samples'],
    'sweep': ['--ranks', '--seeds', '--reports-dir'],
    'report': ['--reports-dir'],
}


def refused(capsys, *argv):
    """The one sentence of a refused command."""
    assert main(list(argv)) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith(f'lora-mbpp {argv[0]}: ') and '\n' not in said and 'Traceback' not in said
    return said


@pytest.mark.parametrize('command', SEED_OPTIONS)
def test_help_names_the_options(command, capsys):
    with pytest.raises(SystemExit) as stop:
        build_parser().parse_args([command, '--help'])
    text = capsys.readouterr().out
    assert stop.value.code == 0 and all(option in text for option in SEED_OPTIONS[command])


def test_help_is_quick_to_import():
    """`--help` loads neither torch nor transformers nor pandas."""
    code = """import sys
from lora_mbpp.cli import build_parser
build_parser()
sys.exit(any(name in sys.modules for name in ("torch", "transformers", "pandas", "numpy")))"""
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0


def test_old_spellings_work(capsys, tmp_path):
    """Commands, options and YAML keys that were renamed, for one more version; `--help` says so."""
    parse = build_parser().parse_args
    for old, new in (('ladder', 'truncate'), ('curve', 'snapshots')):
        former, current = parse([old, '--passes']), parse([new, '--run-programs'])
        assert former.function is current.function and former.run_programs and current.run_programs
        assert not parse([new]).run_programs
    for flags in (['--again'], ['--again', 'true'], ['--repeat-baseline']):
        assert config_from(given_values(parse(['baseline', *flags]), 'baseline')).repeat_baseline is True
    (tmp_path / 'c.yaml').write_text('again: true\n')
    args = parse(['baseline', '--config', str(tmp_path / 'c.yaml')])
    assert given_values(args, 'baseline') == {'repeat_baseline': True}
    with pytest.raises(SystemExit):
        parse(['baseline', '--help'])
    said = ' '.join(capsys.readouterr().out.split())
    assert 'Old spellings work until version 0.2: ladder, curve, --passes, --again.' in said


@pytest.fixture
def task_file(tmp_path):
    rows = [
        {
            'task_id': i,
            'text': 'Add.',
            'code': 'def add(a, b):\n    return a + b',
            'test_list': ['assert add(1, 2) == 3', 'assert add(0, 0) == 0', 'assert add(-1, 1) == 0'],
        }
        for i in (11, 12)
    ]
    path = tmp_path / 'tasks.jsonl'
    path.write_text('\n'.join(map(json.dumps, rows)) + '\n')
    return path


def test_samples_are_scored(tmp_path, task_file, capsys):
    samples, out = tmp_path / 's.jsonl', tmp_path / 'out.json'
    good, bad = 'def add(a, b):\n    return a + b', 'def add(a, b):\n    return 3'
    rows = [
        {'task_id': 11, 'solution': good},
        {'task_id': 11, 'solution': bad},
        {'task_id': 12, 'solution': f'```python\n{good}\n```'},
        {'task_id': 12, 'solution': 'def add(a b)'},
    ]
    samples.write_text('\n'.join(map(json.dumps, rows)))
    assert main(['eval', '--samples', str(samples), '--mbpp-file', str(task_file), '--out-file', str(out)]) == 0
    result = read_json(out)
    info = result['eval_info']
    assert (info['pass_at_1'], info['syntax_rate'], info['n_tasks']) == (0.5, 0.75, 2)
    assert [(r['task_id'], r['sample_idx'], r['verdict']) for r in result['per_task']] == [
        (11, 0, 'passed'),
        (11, 1, 'wrong_answer'),
        (12, 0, 'passed'),
        (12, 1, 'syntax_error'),
    ]
    assert 'pass@1 50.0%' in capsys.readouterr().out


@pytest.mark.parametrize(
    'line, words',
    [
        ('{"task_id": 999, "solution": ""}', 'task_id 999 is not among the 2 tasks'),
        ('{"task_id": 11}', 'field solution'),
        ('{"task_id": 11, "sol', 'line 1: not valid JSON'),
        ('[1]', 'list of objects'),
    ],
)
def test_bad_samples(tmp_path, task_file, capsys, line, words):
    (tmp_path / 's.jsonl').write_text(line + '\n')
    assert words in refused(capsys, 'eval', '--samples', str(tmp_path / 's.jsonl'), '--mbpp-file', str(task_file))


@pytest.mark.parametrize(
    'argv, words',
    [
        (['data', '--train-ratio', '0.9'], 'add up to 1'),
        (['data', '--train-ratio', 'many'], 'a number of type float'),
        (['data', '--preset', 'startr'], "did you mean 'starter'"),
        (['data', '--mbpp-file', 'missing.jsonl'], 'there is no file missing.jsonl'),
        (['data', '--source', 'files'], 'needs --mbpp-file'),
        (['train', '--config', 'missing.yaml'], 'there is no file'),
        (['train', '--rank', '0'], 'greater than 0'),
        (['train', '--train-file', 'no.jsonl', '--val-file', 'no.jsonl'], 'there is no file'),
        (['eval', '--samples', 'missing.jsonl', '--mbpp-file', 'none.jsonl'], 'there is no file'),
        (['sweep', '--ranks', '8;32'], 'whole numbers with commas'),
        (['sweep', '--ranks', '8,8'], 'different whole numbers'),
        (['report', '--reports-dir', 'nowhere'], 'no reports in nowhere'),
    ],
)
def test_mistakes_get_a_sentence(capsys, monkeypatch, tmp_path, argv, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('LORA_MBPP_HOME', str(tmp_path))
    monkeypatch.delenv('IN_TEST', raising=False)
    assert words in refused(capsys, *argv)


def test_config_file_typo_is_named(capsys, tmp_path):
    (tmp_path / 'c.yaml').write_text('preset: test\nlearning_rate: 1\n')
    assert "unknown parameter 'learning_rate'" in refused(capsys, 'train', '--config', str(tmp_path / 'c.yaml'))
    (tmp_path / 'c.yaml').write_text('preset: [\n')
    assert 'not valid YAML' in refused(capsys, 'train', '--config', str(tmp_path / 'c.yaml'))


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='needs /dev/full, a disk that is always full')
def test_full_disk(capsys, tmp_path, monkeypatch):
    import lora_mbpp.core.files as files

    real = open
    monkeypatch.setattr(
        files,
        'open',
        lambda path, *a, **k: real('/dev/full' if str(path).endswith('.tmp') else path, *a, **k),
        raising=False,
    )
    said = refused(capsys, 'data', '--out-dir', str(tmp_path / 'data'))
    assert 'No space left' in said and 'cannot write' in said and not list((tmp_path / 'data').glob('*.jsonl'))


@pytest.mark.skipif(os.name == 'nt' or os.geteuid() == 0, reason='root may write everywhere')
def test_read_only_folder(capsys, tmp_path):
    tmp_path.chmod(0o500)
    assert 'cannot write' in refused(capsys, 'data', '--out-dir', str(tmp_path / 'data'))


def test_debug_shows_the_trace():
    with pytest.raises(Exception, match='add up to 1'):
        main(['data', '--train-ratio', '0.9', '--debug'])


@pytest.mark.parametrize('rank', (8, 32))
def test_recipes_are_valid_and_equal_but_for_the_rank(rank):
    mine, other = (yaml.safe_load((ROOT / 'configs' / f'lora_r{r}.yaml').read_text()) for r in (rank, 40 - rank))
    assert {**mine, 'rank': None} == {**other, 'rank': None}
    cfg = resolve(mine.pop('preset'), **mine)
    assert cfg.rank == rank
    assert (cfg.effective_batch, cfg.max_length, cfg.optimizer) == (16, 1024, 'adamw_torch_fused')


def test_stage_by_stage(tiny, tmp_path, capsys):
    """data, baseline, train, eval as the runbook types them, on the random model."""
    options = [part for name, value in tiny.items() for part in ('--' + name.replace('_', '-'), value)]
    without_artifacts = options[:4]
    data, adapter = tmp_path / 'data', tmp_path / 'my-adapter'
    answers, results = tmp_path / 'answers.jsonl', tmp_path / 'results.json'

    assert main(['data', *without_artifacts]) == 0
    assert main(['baseline', *options, '--out-file', str(answers)]) == 0
    assert len(read_jsonl(answers)) == 2

    rows = ['--train-file', str(data / 'train.jsonl'), '--val-file', str(data / 'val.jsonl')]
    assert main(['train', *options, '--rank', '2', *rows, '--output-dir', str(adapter), '--merge', 'true']) == 0
    assert (tmp_path / 'artifacts' / 'merged' / 'my-adapter' / 'config.json').exists()

    places = ['--mbpp-file', str(data / 'mbpp_test.jsonl'), '--out-file', str(results)]
    assert main(['eval', *options, '--lora-dir', str(adapter), *places]) == 0
    result = read_json(results)
    assert result['eval_info']['n_tasks'] == 2 and len(result['per_task']) == 2 and result['per_task'][0]['nll'] > 0
    capsys.readouterr()
    assert 'there is no adapter' in refused(capsys, 'eval', *options, '--lora-dir', str(tmp_path / 'nothing-here'))
