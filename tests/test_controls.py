"""Controls: what their rows are, what they are called, how they are planned; no comparison of ranks has them."""

from collections import Counter

import pandas as pd
import pytest
from conftest import ROOT

from lora_mbpp.cli import main
from lora_mbpp.core.config import resolve
from lora_mbpp.core.controls import ANCHOR_RANK, CONTROLS, check_controls, control_ranks, control_runs
from lora_mbpp.core.errors import UserError
from lora_mbpp.core.files import fingerprint, read_json, read_jsonl, write_json
from lora_mbpp.core.preregistration import freeze_plan, study_plan
from lora_mbpp.core.runs import run_info, run_name
from lora_mbpp.evaluation.base_answers import answered_rows, answers_file, asked_name
from lora_mbpp.experiments.index_page import controls_html, study_found, table_note, write_index
from lora_mbpp.experiments.study import Study, best_rates, control_steps, search_steps, study_steps
from lora_mbpp.reporting.comparisons import comparison_table
from lora_mbpp.reporting.confound_check import comparable_study, rates_were_searched
from lora_mbpp.reporting.control_sentences import control_sentences, form_sentence
from lora_mbpp.reporting.controls import CONTROL_FAMILIES, control_table
from lora_mbpp.reporting.findings import QUESTIONS, cautions, find, ordered_answer
from lora_mbpp.reporting.importance import importance_table
from lora_mbpp.reporting.rate_check import rate_warning
from lora_mbpp.testing import simulated_control, simulated_study
from lora_mbpp.training.control_rows import quarter, scrambled, source_of
from lora_mbpp.training.history import rise_sentence
from lora_mbpp.training.identity import identity
from lora_mbpp.training.model_card import card_facts, card_text

in_order = pytest.mark.xdist_group('controls')
of_one_report = pytest.mark.xdist_group('reported')  # they share what is found, in one process


def rows_of(*answers, source='mbpp'):
    """Training rows with these answers."""
    return [{'id': f'{source}/{i}', 'prompt': f'task {i}', 'completion': answer} for i, answer in enumerate(answers)]


@pytest.mark.parametrize('seed', range(20))
@pytest.mark.parametrize('answers', ['ab', 'aabb', 'abcdefgh', 'aaabcd', 'abcabcabc', 'aabbccdde'])
def test_scrambled_is_a_derangement_even_of_equal_answers(answers, seed):
    rows = rows_of(*answers)
    mixed = scrambled(rows, seed)
    assert [row['prompt'] for row in mixed] == [row['prompt'] for row in rows]
    assert [row['id'] for row in mixed] == [row['id'] for row in rows]
    assert Counter(row['completion'] for row in mixed) == Counter(answers)
    assert not [row for row, before in zip(mixed, rows) if row['completion'] == before['completion']]


@pytest.mark.parametrize('answers', ['', 'a', 'aab', 'aaaa'])
def test_what_cannot_be_scrambled_is_refused(answers):
    with pytest.raises(UserError, match='one answer'):
        scrambled(rows_of(*answers), 0)


def test_scrambling_depends_on_the_seed_alone():
    rows = rows_of(*map(str, range(200)))
    assert scrambled(rows, 3) == scrambled(rows, 3)
    assert len({fingerprint(scrambled(rows, seed)) for seed in range(5)}) == 5
    # every answer may land anywhere: no fixed shift of the file's order
    moved = Counter((int(row['completion']) - i) % 200 for i, row in enumerate(scrambled(rows, 0)))
    assert moved.most_common(1)[0][1] < 20


@pytest.mark.parametrize('n', [1, 2, 4, 5, 100, 1746])
def test_a_quarter_of_every_source_in_order(n):
    rows = rows_of(*'x' * n) + rows_of(*'y' * (3 * n), source='codealpaca')
    part = quarter(rows, seed=1)
    assert Counter(map(source_of, part)) == {'mbpp': -(-n // 4), 'codealpaca': -(-3 * n // 4)}
    places = [rows.index(row) for row in part]
    assert places == sorted(set(places)) and part == quarter(rows, seed=1)
    if n >= 100:
        assert part != quarter(rows, seed=2)


ASKED = {
    'id': 'mbpp/601',
    'prompt': 'Write a function to double.\nYour code should pass these tests:\nassert double(2) == 4',
    'completion': '```python\ndef helper(x):\n    return x\n\ndef double(x):\n    return helper(2 * x)\n```',
}
OTHER = {'id': 'codealpaca/1', 'prompt': 'Print hello.', 'completion': '```python\nprint("hello")\n```'}


@pytest.fixture
def with_answers(tmp_path):
    """A function that puts texts where the base's answers to `ASKED` and `OTHER` would lie, and gives the rows."""
    cfg = resolve('test', data_dir=str(tmp_path))

    def rows_from(*texts):
        rows = [ASKED, OTHER][: len(texts)]
        write_json(answers_file(cfg, rows), {'answers': [{'text': text} for text in texts]})
        return answered_rows(cfg, rows)

    return rows_from


def test_format_rows_are_the_bases_definitions_in_the_same_fence(with_answers, capsys):
    wordy = 'Sure!\n```python\ndef double(x):\n    return x + x\n\nprint(double(1))\n```\nThis doubles.'
    rows = with_answers(wordy, 'def hello():\n    print("hello")\n\nhello()')
    assert [row['completion'] for row in rows] == [
        '```python\ndef double(x):\n    return x + x\n```',
        '```python\ndef hello():\n    print("hello")\n```',
    ]
    assert [row['prompt'] for row in rows] == [ASKED['prompt'], OTHER['prompt']]
    assert '0 of 2 answers' in capsys.readouterr().out


@pytest.mark.parametrize(
    'text', ['', 'I cannot.', '```python\nprint(1)\n```', '```python\ndef double(x:\n```', 'import math']
)
def test_answers_that_define_nothing_are_left_out_and_counted(with_answers, capsys, text):
    rows = with_answers('```python\ndef double(x):\n    return 2 * x\n```', text)
    assert [row['id'] for row in rows] == [ASKED['id']]
    assert '1 of 2 answers of the base hold no definition' in capsys.readouterr().out
    with pytest.raises(UserError, match='no form to learn'):
        with_answers(text)


def test_the_function_that_a_prompt_asks_for():
    assert asked_name(ASKED) == 'double' and asked_name(OTHER) is None


def test_answers_are_kept_by_what_decides_them(tmp_path, monkeypatch):
    cfg = resolve('test', data_dir=str(tmp_path))
    asked = []

    def answer(cfg, rows):
        asked.append(len(rows))
        return {'answers': [{'text': 'def f():\n    pass'} for _ in rows], 'device': {}}

    monkeypatch.setattr('lora_mbpp.evaluation.base_answers.answer_now', answer)
    rows = [ASKED, OTHER]
    for _ in range(2):
        assert len(answered_rows(cfg, rows)) == 2
    assert asked == [2], 'the second time they are read back'
    answered_rows(cfg, [ASKED])
    assert asked == [2, 1], 'other prompts are other answers'
    kept = read_json(answers_file(cfg, rows))
    assert kept['identity']['model'] == 'tiny-random' and kept['identity']['weights']


def test_names_and_kind():
    cfg = resolve('starter', rank=8, seed=1, control='format')
    assert run_name(cfg) == 'starter-r8-s1-format'
    assert run_name(resolve('starter', control='format', tag='lr0.001')) == 'starter-r8-s0-format-lr0.001'
    info = run_info(cfg, run_name(cfg), 'lora')
    assert (info['kind'], info['control'], info['rank'], info['seed']) == ('control', 'format', 8, 1)
    plain = run_info(resolve('starter'), 'starter-r8-s0', 'lora')
    assert plain['kind'] == 'lora' and 'control' not in plain
    assert run_info(cfg, 'starter-base', 'base')['kind'] == 'base'
    with pytest.raises(UserError, match='control name'):
        resolve('starter', control='a/b')


def test_identity_of_runs_is_what_it_was():
    """Old adapters are found again: nothing new stands in run.json, and other rows show in their fingerprint."""
    rows = rows_of(*'abcd')
    plain = identity(resolve('starter'), rows, rows)
    assert 'rows' not in plain and 'control' not in plain
    assert plain['train_data'] != identity(resolve('starter', rows='quarter'), quarter(rows, 0), rows)['train_data']


def test_ranks_of_controls():
    assert control_ranks('format', [1, 2, 8, 32, 64]) == [8] and control_ranks('format', [2, 4, 16]) == [4]
    assert control_ranks('data', [64, 1, 8]) == [1, 64] and control_ranks('full', [1]) == [ANCHOR_RANK]
    assert control_ranks('rslora', [1, 64]) == [64], 'at rank 1 the scale is the same'
    runs = control_runs(resolve('starter'), list(CONTROLS), [1, 8, 64], [0, 1, 2])
    assert Counter(run.control for run in runs) == {'format': 3, 'scrambled': 3, 'full': 3, 'data': 6, 'rslora': 3}


@pytest.mark.parametrize(
    ('controls', 'ranks', 'own', 'why'),
    [
        (['fromat'], [8], [0], 'did you mean'),
        (['format', 'format'], [8], [0], 'twice'),
        (['format'], [8], [3], 'seeds of the study'),
        (['format'], [8], [0, 0], 'seeds of the study'),
        (['format'], [8], [], 'seeds of the study'),
        (['full'], [8, 256], [0], 'leave it out'),
        (['rslora'], [1], [0], 'leave it out'),
    ],
)
def test_controls_that_cannot_be(controls, ranks, own, why):
    with pytest.raises(UserError, match=why):
        check_controls(resolve('starter'), controls, ranks, [0, 1], own)


def test_steps_of_controls_stand_beside_those_of_the_ranks():
    alone = Study(resolve('starter'), [1, 8], [0, 1])
    both = Study(resolve('starter'), [1, 8], [0, 1], controls=list(CONTROLS), control_seeds=[1])
    names = [step.name for step in study_steps(both)]
    assert len(set(names)) == len(names) and names[-1] == '04_analysis'
    steps = {step.name: step for step in study_steps(both)}
    assert {step.name: step for step in study_steps(alone)}.items() <= steps.items(), 'the ranks are trained as before'
    made = steps['02_train_format_r8_s1']
    assert made.parameters['rows'] == 'base-answers' and 'starter-r8-s1-format' in made.products[1]
    scored = steps['03_eval_format_r8_s1']
    assert scored.parameters['control'] == 'format' and 'rows' not in scored.parameters
    assert steps['02_train_rslora_r8_s1'].parameters['alpha_policy'] == 'rslora'
    assert 'rows' not in steps['02_train_full_r256_s1'].parameters


def test_rates_of_controls_are_those_of_their_rank_or_searched_anew():
    study = Study(resolve('starter'), [1, 8], [0], lrs=[1e-4, 1e-3], controls=list(CONTROLS), control_seeds=[0])
    searched = {(s.parameters.get('control'), s.parameters['rank']) for s in search_steps(study)[1:]}
    assert searched == {(None, 1), (None, 8), ('full', 256), ('rslora', 8)}
    assert best_rates(search_steps(study)) == {}, 'nothing is trained yet'
    rates = {1: 1e-4, 8: 1e-3, ('full', 256): 1e-4}
    lrs = {step.name: step.parameters['lr'] for step in control_steps(study, rates)}
    assert lrs == {
        '02_train_format_r8_s0_lr0.001': 1e-3,
        '02_train_scrambled_r8_s0_lr0.001': 1e-3,
        '02_train_full_r256_s0_lr0.0001': 1e-4,
        '02_train_data_r1_s0_lr0.0001': 1e-4,
        '02_train_data_r8_s0_lr0.001': 1e-3,
    }, 'rslora has no finished search and is left out'


def test_the_plan_has_the_controls_and_is_the_old_one_without(tmp_path):
    cfg = resolve('starter', data_dir=str(tmp_path))
    alone = study_plan(cfg, [1, 8], [0, 1])
    runs = control_runs(cfg, ['format', 'data'], [1, 8], [0])
    both = study_plan(cfg, [1, 8], [0, 1], controls=runs)
    assert 'controls' not in alone and {k: v for k, v in both.items() if k != 'controls'} == alone
    assert both['controls']['data']['ranks'] == [1, 8] and 'Holm' in both['controls']['rule']
    assert freeze_plan(tmp_path / 'a.plan.json', alone, 0) == []
    changes = freeze_plan(tmp_path / 'a.plan.json', both, 3)
    assert len(changes) == 1 and changes[0].startswith('controls None -> ')
    assert freeze_plan(tmp_path / 'a.plan.json', both, 4) == []


def test_wrong_options_are_sentences(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv('IN_TEST', raising=False)
    folders = ['--preset', 'test', '--artifacts-dir', str(tmp_path / 'a'), '--data-dir', str(tmp_path / 'd')]
    for given, why in (
        (['--controls', 'fromat'], "did you mean 'format'"),
        (['--controls', 'format', '--control-seeds', '7'], 'seeds of the study'),
        (['--control-seeds', '0'], 'name those too'),
    ):
        assert main(['sweep', *folders, *given]) == 2
        assert why in capsys.readouterr().err
    assert not (tmp_path / 'a').exists()


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    return tmp_path_factory.mktemp('controls')


def sweep(place, *extra):
    """Exit status of a sweep on the random model, whose base has answered already: by itself it defines nothing."""
    folders = [part for name in ('data', 'artifacts', 'reports') for part in (f'--{name}-dir', str(place / name))]
    return main(['sweep', '--preset', 'test', '--ranks', '2', *folders, *extra])


@in_order
@pytest.mark.slow
def test_a_sweep_with_all_controls(place, capsys, monkeypatch):
    """Data and answers of the base are there; every control is trained, scored, and in the plan."""
    monkeypatch.delenv('IN_TEST', raising=False)
    assert main(['data', '--preset', 'test', '--data-dir', str(place / 'data')]) == 0
    rows = read_jsonl(place / 'data' / 'train.jsonl')
    texts = [f'def answer_{i}():\n    return {i}' if i else 'no code' for i in range(len(rows))]
    answers = answers_file(resolve('test', data_dir=str(place / 'data')), rows)
    write_json(answers, {'answers': [{'text': text} for text in texts]})
    assert sweep(place, '--controls', ','.join(CONTROLS)) == 0, capsys.readouterr().out
    said = capsys.readouterr().out
    assert 'answers of the base to the training prompts, for 1 runs' in said
    metrics = {p.stem: read_json(p) for p in (place / 'artifacts' / 'metrics').glob('*.json')}
    names = {f'test-r{ANCHOR_RANK if control == "full" else 2}-s0-{control}' for control in CONTROLS}
    assert {name for name, one in metrics.items() if one['run_info']['kind'] == 'control'} == names
    assert all('per_task' in metrics[name]['eval_info'] for name in names)
    trained = {name: one['train_info']['rows'] for name, one in metrics.items() if 'train_info' in one}
    assert trained['test-r2-s0-format'] == len(rows) - 1, 'one answer defines nothing'
    assert trained['test-r2-s0-scrambled'] == trained['test-r2-s0'] == len(rows)
    assert trained['test-r2-s0-data'] == -(-len(rows) // 4)
    assert metrics['test-r2-s0-rslora']['train_info']['scale'] == pytest.approx(32 / 2**0.5)
    plan = read_json(place / 'artifacts' / 'test.plan.json')
    assert plan['plan']['controls'].keys() == {*CONTROLS, 'rule'} and not plan['changes']


@in_order
@pytest.mark.slow
def test_a_sweep_with_controls_has_nothing_left_to_do(place, capsys, monkeypatch):
    monkeypatch.delenv('IN_TEST', raising=False)
    if not (place / 'artifacts').exists():
        pytest.skip('needs the sweep of the test before')
    assert sweep(place, '--controls', ','.join(CONTROLS)) == 0
    said = capsys.readouterr().out
    assert said.count('done already') == 3 + 2 + 2 * 5 and 'answers of the base to' not in said


# what a report says


def made_up(controls=('format', 'scrambled', 'full', 'data', 'rslora'), gain=0.12):
    """A study of three ranks and seeds in which training helps, and its controls."""
    study = simulated_study(
        {1: (0.33 + gain, 0.86), 8: (0.33 + gain, 0.85), 64: (0.33 + gain, 0.85)}, seeds=3, n=240, base=(0.33, 1.0)
    )
    shares = {'format': (0.35, 0.97), 'scrambled': (0.1, 1.4), 'full': (0.46, 0.84), 'data': (0.4, 0.9)}
    runs = control_runs(resolve('starter'), list(controls), [1, 8, 64], [0, 1, 2])
    beside = [
        simulated_control(run.control, run.rank, run.seed, *shares.get(run.control, (0.45, 0.85)), n=240)
        for run in runs
    ]
    for run in [*study, *beside]:
        run['run_info']['test_run'] = False
    return study, beside


def written(folder, runs):
    """The folder, with the metrics of runs in it."""
    for run in runs:
        write_json(folder / 'metrics' / f'{run["run_info"]["run"]}.json', run)
    return folder


@pytest.fixture(scope='module')
def reported(tmp_path_factory):
    """(findings without controls, findings with all five) of the same study."""
    study, beside = made_up()
    alone = written(tmp_path_factory.mktemp('alone'), study)
    both = written(tmp_path_factory.mktemp('both'), [*study, *beside])
    return tuple(find(folder, 'starter', *comparable_study(folder, 'starter')) for folder in (alone, both))


@of_one_report
def test_ranks_are_the_same_to_the_last_digit_with_controls_and_without(reported):
    alone, both = reported
    assert alone.runs == both.runs and not alone.controls and len(both.controls) == 18
    pd.testing.assert_frame_equal(alone.comparisons, both.comparisons, check_exact=True)
    assert ordered_answer(alone)[QUESTIONS[1]] == ordered_answer(both)[QUESTIONS[1]]
    assert not set(both.comparisons.family) & set(CONTROL_FAMILIES)


def test_controls_do_not_count_as_a_search(tmp_path):
    """An upper anchor at a rate of its own is no search over rates of a rank, which would let rates differ."""
    study, beside = made_up(['full'])
    beside[0]['run_info']['parameters']['lr'] = 5e-5
    beside[0]['run_info']['rank'] = 8
    assert not rates_were_searched(written(tmp_path, [*study, *beside]), 'starter')


@of_one_report
def test_every_control_is_compared_with_base_and_study(reported):
    table = reported[1].beside
    pairs = {(row.a, row.b) for row in table.itertuples()}
    with_study = {('r=8', 'format r=8'), ('r=8', 'scrambled r=8'), ('r=8', 'full r=256'), ('r=64', 'rslora r=64')}
    assert pairs == with_study | {('r=1', 'data r=1'), ('r=64', 'data r=64')} | {('base', b) for _, b in pairs}
    assert set(table.seeds) == {3} and set(table.endpoint) == {'NLL', 'pass@1'}
    form = table[(table.a == 'base') & (table.b == 'format r=8') & (table.endpoint == 'pass@1')].iloc[0]
    gain = reported[1].comparisons.query("a == 'base' and b == 'r=8' and endpoint == 'pass@1'").iloc[0]
    assert form['share of gain'] == pytest.approx(form.difference / gain.difference)
    assert form['p adjusted'] >= form.p


@of_one_report
def test_the_answer_comes_in_its_order(reported):
    told = ordered_answer(reported[1])
    assert tuple(told) == QUESTIONS
    helps, rank, more = (' '.join(told[question]) for question in QUESTIONS)
    assert 'Training helped' in helps and 'Form alone brings' in helps and 'of the programs run' in helps
    assert 'rank' in rank and 'what training brings' in rank
    for words in (
        'Format: ',
        'Scrambled: ',
        'no full fine-tuning',
        'from a quarter',
        'rsLoRA: ',
        'data (a quarter or all)',
    ):
        assert words in more, words
    assert 'Not run' not in more and not cautions(reported[1])


@of_one_report
def test_without_controls_half_a_sentence_says_so(reported):
    told = ordered_answer(reported[0])
    assert 'No control was run, so how much of this is form is not known' in told[QUESTIONS[0]][-1]
    assert not any('Format' in sentence for sentence in told[QUESTIONS[2]])
    study, beside = made_up(['data'])
    said = control_sentences(study, beside, control_table(study, beside, comparison_table(study)))
    assert said[-1].startswith('Not run: the controls format, scrambled, full, rslora') and len(said) == 3


def test_no_share_of_a_gain_that_is_none():
    study, beside = made_up(['format'], gain=0.0)
    table = control_table(study, beside, comparison_table(study))
    assert table[table.endpoint == 'pass@1']['share of gain'].isna().all()
    assert '%' not in form_sentence(study, beside, table)


@pytest.mark.parametrize(
    ('change', 'why'),
    [
        (lambda run: run['eval_info'].update(settings={'batch_size': 7}), 'batch_size 7'),
        (lambda run: run['run_info']['parameters'].update(epochs=3), 'epochs 3'),
        (lambda run: run['eval_info'].update(base={'weights': 'others'}), 'base others'),
        (lambda run: run['run_info'].update(test_run=True), 'IN_TEST'),
    ],
)
def test_a_control_of_other_settings_is_left_out_and_named(tmp_path, change, why):
    study, beside = made_up(['format'])
    change(beside[0])
    folder = written(tmp_path, [*study, *beside])
    found = find(folder, 'starter', *comparable_study(folder, 'starter'))
    assert len(found.controls) == 2 and len(found.gaps) == 1 and why in found.gaps[0]
    assert cautions(found) and found.beside.seeds.max() == 2


def test_two_of_one_control_are_both_left_out(tmp_path):
    study, beside = made_up(['format'])
    twin = {**beside[0], 'run_info': {**beside[0]['run_info'], 'run': 'twin'}}
    found = find(written(tmp_path, [*study, *beside, twin]), 'starter', study)
    assert len(found.controls) == 2 and len(found.gaps) == 2


def test_planned_controls_that_are_missing_are_named(tmp_path):
    study, beside = made_up(['format'])
    plan = study_plan(resolve('starter'), [1, 8, 64], [0], controls=control_runs(resolve(), ['format'], [8], [0, 1, 2]))
    freeze_plan(tmp_path / 'starter.plan.json', plan, 0)
    found = find(written(tmp_path, [*study, *beside[:2]]), 'starter', study)
    assert found.gaps == ['1 of 3 planned runs of controls are missing: format r=8 s2']


def test_a_base_alone_and_controls_without_ranks(tmp_path):
    study, beside = made_up(['format'])
    found = find(written(tmp_path, [study[0], *beside]), 'starter', study[:1])
    assert not found.controls and list(ordered_answer(found)) == [QUESTIONS[0]]


def test_a_rate_that_is_too_high_is_told():
    study, _ = made_up(gain=-0.15)
    worse = comparison_table(study)
    said = rate_warning(study, worse)
    assert 'solves fewer tasks than the base' in said and '--lr' in said and '(0.001)' in said
    better, _ = made_up()
    assert rate_warning(better, comparison_table(better)) == ''
    for run in better[1:4]:
        run['train_info']['val_nll'] = [{'step': s, 'nll': nll} for s, nll in enumerate((0.66, 0.5, 0.56))]
    said = rate_warning(better, comparison_table(better))
    assert 'rises again during training, by up to 0.060 nats (r=1 s0, r=1 s1, r=1 s2)' in said and '--lr' in said


@pytest.mark.parametrize(
    ('rates', 'end', 'beyond'),
    [
        ((1e-4, 1e-3), 'highest', 'above'),
        ((1e-3, 1e-2), 'lowest', 'below'),
        ((1e-4, 1e-3, 1e-2), None, None),
        ((), None, None),
    ],
)
@pytest.mark.parametrize('control', ['', 'full'])
def test_a_rate_at_the_end_of_its_search_is_told(tmp_path, control, rates, end, beyond):
    """Runs at 1e-3, and a search over `rates` for the lowest rank or the anchor."""
    study, beside = made_up(['full'])
    one = beside[0] if control else study[1]
    for lr in rates:
        info = {**one['run_info'], 'run': f'searched-{lr}', 'seed': 100}
        info['parameters'] = {**info['parameters'], 'lr': lr}
        written(tmp_path, [{'run_info': info, 'train_info': one['train_info']}])
    said = cautions(find(written(tmp_path, [*study, *beside]), 'starter', study))
    name = 'Full r=256' if control else 'R=1'
    told = [f'{name} has the {end} of 2 learning rates tried (0.001): its best may lie {beyond}.'] if end else []
    assert [line for line in said if 'learning rates tried' in line] == told


@pytest.mark.parametrize(('curve', 'warned'), [((0.66, 0.5), False), ((0.66, 0.5, 0.505), False), ((0.5, 0.6), True)])
def test_a_training_warns_of_a_rise(curve, warned):
    assert bool(rise_sentence([{'nll': nll} for nll in curve])) == warned and rise_sentence([]) == ''


def test_importance_is_in_standard_deviations():
    study, beside = made_up(['data'])
    table = importance_table(study, beside, pd.DataFrame(columns=['rank', 'seed', 'lr', 'nll']))
    sd = table[table.endpoint == 'pass@1'].set_index('component').sd
    by_seed = {(r['run_info']['kind'], r['run_info']['rank'], r['run_info']['seed']): r for r in [*study, *beside]}
    halves = [
        [
            sum(by_seed[kind, rank, seed]['eval_info']['pass_at_1'] for seed in range(3)) / 3
            for kind in ('control', 'lora')
        ]
        for rank in (1, 64)
    ]
    expected = (sum((a - b) ** 2 / 2 for a, b in halves) / 2) ** 0.5
    assert sd['data (a quarter or all)'] == pytest.approx(expected)
    rates = pd.DataFrame([(8, 0, 1e-4, 0.5), (8, 0, 1e-3, 0.6), (64, 0, 1e-4, 0.52), (64, 0, 1e-3, 0.56)])
    rates.columns = ['rank', 'seed', 'lr', 'nll']
    found = importance_table(study, [], rates)
    searched = found[found.endpoint == 'validation NLL'].set_index('component').sd
    assert searched['learning rate'] == pytest.approx(((0.1**2 / 2 + 0.04**2 / 2) / 2) ** 0.5)
    assert searched['rank (at its best rate)'] == pytest.approx(0.02 / 2**0.5)


def test_the_index_page_has_a_part_for_controls_where_there_are_some(tmp_path, capsys):
    study, beside = made_up(['format', 'full'])
    cfg = resolve('starter', artifacts_dir=str(written(tmp_path, [*study, *beside])))
    index, refusal = write_index(cfg, [], {}, tmp_path / 'reports')
    page = index.read_text(encoding='utf-8')
    assert refusal is None and 'id="controls"' in page and 'href="#controls"' in page
    assert page.count('<figure>') == 2 and 'format r=8 s1' in page
    assert 'Form alone brings' in page and 'Not run: the controls scrambled, data, rslora' in page
    assert 'Upper anchor: r=256' in capsys.readouterr().out


def test_the_index_page_has_no_empty_part(tmp_path):
    study, _ = made_up()
    found = study_found(resolve('starter', artifacts_dir=str(tmp_path)), study, None)
    part = controls_html(found)
    assert '<figure>' not in part and '<table>' not in part and 'id="controls"' not in part
    assert 'No control was run' in table_note(found)


def test_each_control_is_adjusted_by_itself():
    """What else was run changes no verdict of a control."""
    study, beside = made_up(['format', 'data'])
    comparisons = comparison_table(study)
    both = control_table(study, beside, comparisons)
    alone = control_table(study, [run for run in beside if run['run_info']['control'] == 'format'], comparisons)
    pd.testing.assert_frame_equal(both[both.control == 'format'].reset_index(drop=True), alone, check_exact=True)


@pytest.mark.parametrize('group', ['starter', pytest.param('smollm2-135m', marks=pytest.mark.slow)])
def test_old_results_are_read_as_before(group):
    folder = ROOT / 'results' / group
    runs, repeated = comparable_study(folder, group)
    found = find(folder, group, runs, repeated)
    assert not found.controls and not found.gaps and len(found.comparisons)
    pd.testing.assert_frame_equal(found.comparisons, comparison_table(runs, repeated), check_exact=True)


def test_a_card_says_that_it_is_a_control(tmp_path):
    cfg = resolve('starter', artifacts_dir=str(tmp_path), control='scrambled')
    write_json(tmp_path / 'metrics' / f'{run_name(cfg)}.json', {'run_info': run_info(cfg, run_name(cfg), 'lora')})
    write_json(tmp_path / 'adapter_config.json', {'r': 8, 'lora_alpha': 32})
    assert 'a control of a study (scrambled)' in card_text(card_facts(cfg, run_name(cfg), tmp_path))
    plain = resolve('starter', artifacts_dir=str(tmp_path))
    assert 'control' not in card_text(card_facts(plain, run_name(plain), tmp_path))
