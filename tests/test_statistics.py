"""Simulated studies with a known truth: how often a verdict is wrong, how often an effect is found, and the edges."""

from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from lora_mbpp.core.errors import UserError, complaint
from lora_mbpp.core.files import write_json
from lora_mbpp.core.runs import PREREGISTRATION
from lora_mbpp.reporting.comparisons import compare, comparison_table, values_of, with_verdict
from lora_mbpp.reporting.confound_check import check_confounds
from lora_mbpp.reporting.loading import by_rank, metrics_in
from lora_mbpp.reporting.multiplicity import gatekept
from lora_mbpp.reporting.sentences import amount, p_text, sentence
from lora_mbpp.reporting.statistics import (
    bootstrap_interval,
    detectable_difference,
    detectable_mean,
    estimate,
    mcnemar_p,
    mcnemar_power,
    pass_estimate,
    verdict,
)
from lora_mbpp.reporting.tables import rate_table
from lora_mbpp.reporting.variance_components import contrast_spread, mean_squares
from lora_mbpp.testing import simulated_run, simulated_study

MARGIN, STUDIES = PREREGISTRATION['margins'], 1000
mcnemar_once = lru_cache(maxsize=None)(mcnemar_p)  # a thousand studies share a few dozen pairs of counts


# A study is its estimate and a function that gives its p-value: where the verdict needs no p-value, none is computed.


def binary_studies(truth, discordance, tasks=500, studies=STUDIES, seed=0):
    """One seed a rank: a share `discordance` of tasks flips, net `truth`."""
    rng = np.random.default_rng(seed)
    for _ in range(studies):
        u = rng.random(tasks)
        d = np.where(u < (discordance + truth) / 2, 1.0, np.where(u < discordance, -1.0, 0.0))
        yield pass_estimate(d), partial(mcnemar_once, int((d > 0).sum()), int((d < 0).sum()))


def seeded_passes(shift, seeds, spread, tasks=500, studies=STUDIES):
    """Several seeds a rank: tasks have a difficulty, seeds a luck of their own."""
    rng = np.random.default_rng([seeds, int(1000 * spread), int(1000 * shift)])

    def passes(hard, more):
        seed_luck, luck = rng.normal(0, spread, (seeds, 1)), rng.normal(0, 0.4, (seeds, tasks))
        return (hard + more + seed_luck + luck > 0.4).astype(float)

    for _ in range(studies):
        hard = rng.normal(0, 1.5, tasks)
        found = pass_estimate(passes(hard, shift) - passes(hard, 0))
        yield found, found.p_value


def seeded_nll(truth, seeds, spread, tasks=500, studies=STUDIES):
    """Several seeds a rank: differences of tasks, of seeds, and of both."""
    rng = np.random.default_rng([seeds, int(10_000 * spread), int(10_000 * truth)])
    for _ in range(studies):
        tokens = rng.integers(20, 200, tasks)
        by_task, by_both = rng.normal(0, 0.04, tasks), rng.normal(0, 0.05, (seeds, tasks))
        by_seed = rng.normal(0, spread, (seeds, 1))
        found = estimate((truth + by_task + by_both + by_seed) * tokens, tokens)
        yield found, found.p_value


def share_different(studies, endpoint, family=1):
    """How often a difference is claimed, large or small, in comparisons of a family of this size."""
    verdicts = [verdict(found, min(1, p() * family), MARGIN[endpoint]) for found, p in studies]
    return (verdicts.count('different') + verdicts.count('negligible')) / len(verdicts)


def share_equivalent(studies, endpoint):
    """How often the verdict is `equivalent` where the p-value is no obstacle."""
    verdicts = [verdict(found, 1.0, MARGIN[endpoint]) for found, _ in studies]
    return verdicts.count('equivalent') / len(verdicts)


@pytest.mark.parametrize('discordance', [0.05, 0.15, 0.4])
@pytest.mark.parametrize('tasks', [60, 500])
def test_one_seed_without_effect(discordance, tasks):
    assert share_different(binary_studies(0, discordance, tasks), 'pass@1') <= 0.065


@pytest.mark.parametrize('seeds, spread', [(3, 0.0), (3, 0.02), (5, 0.05)])
def test_equivalence_at_the_margin_is_rarely_claimed(seeds, spread):
    """A shift of 0.107 on the latent scale is the margin of two points there."""
    assert share_equivalent(seeded_passes(0.107, seeds, spread), 'pass@1') <= 0.065


def test_one_seed_is_never_equivalent():
    assert share_equivalent(binary_studies(0, 0.02), 'pass@1') == 0
    assert share_equivalent(seeded_nll(0, 1, 0.0, studies=100), 'NLL') == 0


@pytest.mark.parametrize('seeds, spread', [(3, 0.0), (3, 0.02), (3, 0.05), (5, 0.05)])
def test_several_seeds_without_effect(seeds, spread):
    assert share_different(seeded_passes(0, seeds, spread), 'pass@1') <= 0.065


@pytest.mark.parametrize('seeds, spread', [(1, 0.0), (3, 0.0), (3, 0.005), (3, 0.02), (5, 0.005)])
def test_nll_errors_in_both_directions(seeds, spread):
    # three seeds of one comparison alone leave two degrees of freedom, for which Satterthwaite's formula is too hopeful
    assert share_different(seeded_nll(0, seeds, spread), 'NLL') <= (0.08 if seeds == 3 else 0.065)
    assert share_equivalent(seeded_nll(MARGIN['NLL'], seeds, spread), 'NLL') <= 0.065


@pytest.mark.parametrize('discordance', [0.05, 0.1, 0.2])
def test_power_at_the_detectable_difference(discordance):
    truth = detectable_difference(500, discordance)
    assert share_different(binary_studies(truth, discordance), 'pass@1') >= 0.75


def test_power_at_the_detectable_difference_of_a_family():
    """Fifteen comparisons: the difference stated is that of the strictest step of Holm's procedure."""
    truth = detectable_difference(500, 0.1, PREREGISTRATION['alpha'] / 15)
    assert truth > detectable_difference(500, 0.1)
    assert share_different(binary_studies(truth, 0.1), 'pass@1', family=15) >= 0.75


def test_power_on_nll():
    rng, found = np.random.default_rng(5), next(iter(seeded_nll(0, 1, 0.0, studies=1)))[0]
    truth = detectable_mean(found)
    tokens = rng.integers(20, 200, 500)
    rows = [estimate((truth + rng.normal(0, np.hypot(0.04, 0.05), 500)) * tokens, tokens) for _ in range(500)]
    # below the nominal 0.8, because the spread is an estimate itself
    assert share_different([(row, row.p_value) for row in rows], 'NLL') >= 0.72


def test_five_points_are_found_where_discordance_allows():
    """And where it does not, the detectable difference says so."""
    assert share_different(binary_studies(0.05, 0.08), 'pass@1') >= 0.95
    assert share_different(binary_studies(0.05, 0.4), 'pass@1') <= 0.55
    assert detectable_difference(500, 0.4) > 0.05


# The whole procedure: all comparisons of a study, both families, both endpoints, adjusted as the report does it.


def one_answer(rng, latent):
    """Whether each task is passed, at once and by chance."""
    return (latent + rng.normal(0, 0.5, latent.shape) > 0).astype(float)


def sampled_answers(samples):
    """A way to draw the share of so many samples that pass.

    Adapters share what training does to a task, and those of a seed its order. Fitted to the 25 adapters and the base
    of `results/qwen2.5-coder-0.5b`, five samples: variance within tasks 0.053, of differences between two ranks of a
    seed 0.035, between two seeds 0.070, against the base 0.133. For ten samples it gives 0.055, 0.025, 0.060, 0.119;
    the second study, which nothing was fitted to, has 0.054, 0.028, 0.056, 0.115, and the 1.5B, whose base passes
    54 %, 0.057, 0.032, 0.053, 0.118 where this gives 0.054, 0.025, 0.061, 0.122."""

    def answers(rng, latent):
        tasks = latent.shape[-1]
        if latent.ndim == 1:
            latent = latent + rng.normal(0, np.hypot(np.hypot(0.57, 0.38), 0.22), tasks)
        else:
            by_seed = rng.normal(0, 0.38, (latent.shape[1], tasks)) + rng.normal(0, 0.57, tasks)
            latent = latent + by_seed + rng.normal(0, 0.22, latent.shape)
        return np.mean([latent + rng.normal(0, 0.42, latent.shape) > 0 for _ in range(samples)], 0)

    return answers


def simulated_passes(rng, ranks, seeds, tasks, seed_sd, interaction_sd, effects, answers, scale, easy=-0.4):
    """Shares of passes of adapters (ranks x seeds x tasks) and of the base (tasks), 40 % unless tasks are `easy`."""
    hard = rng.normal(easy, 1.5, tasks)
    shift = np.asarray(effects)[:, None] + rng.normal(0, seed_sd, seeds) + rng.normal(0, interaction_sd, (ranks, seeds))
    return answers(rng, hard + scale * shift[:, :, None] + np.zeros(tasks)), answers(rng, hard)


def study_p_values(rng, ranks, seeds, tasks, seed_sd, interaction_sd, effects):
    """Estimates of both families on one simulated endpoint (passes, 40 % of them)."""
    design = ranks, seeds, tasks, seed_sd, interaction_sd, effects
    return both_families(*simulated_passes(rng, *design, one_answer, LATENT))


def both_families(passed, base):
    """Estimates of the comparisons with the base and of those between ranks."""
    ranks, seeds = passed.shape[:2]
    squares = mean_squares({(k, s): passed[k, s].mean() for k in range(ranks) for s in range(seeds)})
    against_base = [pass_estimate(passed[k] - base, None, contrast_spread(squares, [1])) for k in range(ranks)]
    pairs = [(a, b) for a in range(ranks) for b in range(a + 1, ranks)]
    between = [pass_estimate(passed[b] - passed[a], None, contrast_spread(squares, [-1, 1])) for a, b in pairs]
    return against_base, between


LATENT = 4.3  # of the simulation's scale to a share of passes, near 40 %
NO_EFFECT = [(5, 3, 0.0, 0.0), (5, 3, 0.01, 0.01), (5, 3, 0.02, 0.02), (5, 5, 0.01, 0.02), (2, 3, 0.0, 0.02)]


@pytest.mark.parametrize('ranks, seeds, seed_sd, interaction_sd', NO_EFFECT)
def test_family_wise_error_of_the_whole_procedure(ranks, seeds, seed_sd, interaction_sd):
    """Nothing differs, on either endpoint: how often any of the comparisons of a family is called different."""
    rng, alarms, studies = np.random.default_rng([ranks, seeds, int(1000 * interaction_sd)]), np.zeros(2), 250
    for _ in range(studies):
        both = [study_p_values(rng, ranks, seeds, 500, seed_sd, interaction_sd, np.zeros(ranks)) for _ in range(2)]
        for family in range(2):
            adjusted = gatekept([[found.p_value() for found in endpoint[family]] for endpoint in both])
            alarms[family] += (adjusted < 0.05).any()
    assert (alarms / studies <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / studies)).all(), alarms / studies


@pytest.mark.parametrize('seeds, least', [(3, 0.55), (5, 0.85)])
def test_power_of_the_whole_procedure(seeds, least):
    """An effect of 4.5 points of every rank against the base, seeds that differ by 1 point: found how often."""
    rng, found, studies = np.random.default_rng(seeds), 0, 100
    for _ in range(studies):
        against_base, _ = study_p_values(rng, 5, seeds, 500, 0.01, 0.01, np.full(5, 0.045))
        found += np.mean(gatekept([[one.p_value() for one in against_base]])[0] < 0.05)
    assert found / studies >= least, found / studies


def test_equivalence_error_of_the_whole_procedure():
    """Two ranks of five lie exactly the margin apart: how often they are called equivalent."""
    rng, wrong, studies = np.random.default_rng(11), 0, 250
    for _ in range(studies):
        _, between = study_p_values(rng, 5, 3, 500, 0.01, 0.01, [0, 0, 0, 0, MARGIN['pass@1']])
        wrong += verdict(between[3], 1.0, MARGIN['pass@1']) == 'equivalent'  # the first against the last
    assert wrong / studies <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / studies)


def trend_p_value(passed, ranks):
    """Of the change for each doubling of the rank, as `rank_trend` has it."""
    logs = np.log2(ranks)
    slope = (logs - logs.mean()) / ((logs - logs.mean()) ** 2).sum()
    squares = mean_squares({(k, s): passed[k, s].mean() for k in range(len(passed)) for s in range(passed.shape[1])})
    return estimate(np.tensordot(slope, passed, 1), None, contrast_spread(squares, slope)).p_value()


@dataclass(frozen=True)
class Design:
    """Of a study on 500 tasks; `seen`: what its ranks gained over the base."""

    ranks: list[int]
    seeds: int
    samples: int
    seen: list[float]
    easy: float = -0.4


DESIGNS = {
    'first': Design([1, 2, 8, 32, 64], 5, 5, [0.030, 0.038, 0.046, 0.046, 0.044]),
    'second': Design([1, 2, 8, 32, 64], 5, 10, [0.017, 0.030, 0.036, 0.034, 0.035]),
    '1.5B': Design([1, 8, 64], 3, 10, [0.006, 0.025, 0.026], easy=0.15),
}


def code_model_studies(design, effects, interaction_sd, studies, seed=24):
    """Shares of studies of a design where something is called so.

    The NLL's gate is open, as it was in the studies: pass@1 has the error rate of its family to itself."""
    rng, found, n = np.random.default_rng([seed, int(1000 * interaction_sd)]), [], len(design.ranks)
    pairs = [(design.ranks[a], design.ranks[b]) for a in range(n) for b in range(a + 1, n)]
    answers = sampled_answers(design.samples)
    for _ in range(studies):
        shape = n, design.seeds, 500, 0.01, interaction_sd
        passed, base = simulated_passes(rng, *shape, effects, answers, 4.5, design.easy)
        against_base, between = both_families(passed, base)
        called = [gatekept([[one.p_value() for one in family]])[0] < 0.05 for family in (against_base, between)]
        equivalent = [verdict(one, 1.0, MARGIN['pass@1']) == 'equivalent' for one in between]
        found.append(
            {
                'any rank called different from the base': called[0].any(),
                'ranks called different from the base': called[0].mean(),
                'any two ranks called different': called[1].any(),
                'r=8 called different from r=1': called[1][pairs.index((1, 8))],
                'trend': trend_p_value(passed, design.ranks) < 0.05,
                'r=64 within the margin of r=1': equivalent[pairs.index((1, 64))],
                'pairs of ranks within the margin': np.mean(equivalent),
            }
        )
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


@pytest.mark.slow
@pytest.mark.parametrize('name', DESIGNS)
@pytest.mark.parametrize('interaction_sd', [0.0, 0.01])
def test_error_rates_at_the_design_of_the_code_model(interaction_sd, name):
    """Qwen2.5-Coder: errors where nothing differs or all but the margin, power at what the studies found."""
    studies, design = 1000, DESIGNS[name]
    n = len(design.ranks)
    cells = {
        'no effect': [0.0] * n,
        'all +4.5': [0.045] * n,
        'r=64 two points up': [*[0] * (n - 1), MARGIN['pass@1']],
        'as seen': design.seen,
    }
    found = {cell: code_model_studies(design, effects, interaction_sd, studies) for cell, effects in cells.items()}
    for cell, rates in found.items():
        said = {what: round(share, 3) for what, share in rates.items()}
        print(f'{name}, rank x seed {100 * interaction_sd:g} points, {cell}:', said)
    nothing, alike, apart = (found[cell] for cell in ('no effect', 'all +4.5', 'r=64 two points up'))
    most = 0.05 + 2 * np.sqrt(0.05 * 0.95 / studies)
    errors = [nothing['any rank called different from the base'], nothing['any two ranks called different']]
    assert max(*errors, nothing['trend'], apart['r=64 within the margin of r=1']) <= most
    assert alike['ranks called different from the base'] >= 0.6


def test_unequal_seeds_are_said_and_pooled():
    """A rank with a seed less: its comparisons use what both have, say so, and still know the spread of the study."""
    runs = simulated_study({1: (0.4, 0.85), 8: (0.4, 0.85), 64: (0.4, 0.85)}, seeds=3, n=100)
    table = comparison_table([run for run in runs if (run['run_info']['rank'], run['run_info']['seed']) != (64, 2)])
    row = table.set_index(['endpoint', 'a', 'b']).loc[('NLL', 'r=8', 'r=64')]
    assert row.seeds == 2 and row['seeds left out'] == [2]
    assert 'without seed 2' in sentence(row.to_dict() | {'endpoint': 'NLL', 'a': 'r=8', 'b': 'r=64'})
    single = comparison_table([run for run in runs if run['run_info']['rank'] < 64 or run['run_info']['seed'] == 0])
    one = single.set_index(['endpoint', 'a', 'b']).loc[('NLL', 'r=8', 'r=64')]
    assert one.seeds == 1 and one['seed share'] >= 0 and one.verdict not in ('equivalent', 'negligible')


def test_p_is_never_zero_and_zero_has_no_sign():
    assert p_text(1e-9) == 'p < 0.001' and amount(-1e-6, 'NLL', '+') == '0.000'


def test_agrees_with_scipy_and_statsmodels():
    rng = np.random.default_rng(0)
    d = rng.normal(0.2, 1, 80)
    found, theirs = estimate(d), stats.ttest_1samp(d, 0)
    assert np.isclose(found.p_value(), theirs.pvalue)
    assert np.allclose(found.interval(), theirs.confidence_interval(0.95))
    for b, c in [(0, 3), (7, 2), (12, 12)]:
        assert mcnemar_p(b, c) == pytest.approx(mcnemar([[5, b], [c, 9]], exact=True).pvalue)
    assert np.allclose(bootstrap_interval(d), found.interval(), atol=0.03)
    assert gatekept([[0.01, 0.04, 0.03]])[0] == pytest.approx([0.03, 0.06, 0.06])


@pytest.mark.parametrize('n, share, points', [(500, 0.05, 3.0), (500, 0.10, 4.1), (500, 0.15, 5.1), (500, 0.20, 5.9)])
def test_detectable_differences_of_the_literature(n, share, points):
    least = detectable_difference(n, share)
    assert 100 * least == pytest.approx(points, abs=0.25)
    assert mcnemar_power(n, share, least) == pytest.approx(0.8)


def test_p_value_and_interval_are_one_statement():
    for found, p in seeded_nll(0.004, 3, 0.004, studies=50):
        low, high = found.interval(0.95)
        assert (p() < 0.05) == (low > 0 or high < 0)


def test_edges():
    """Ties everywhere, no passes at all, and a single pair of tasks."""
    nothing = simulated_study({8: (0.3, 0.9), 32: (0.3, 0.9)}, n=200)
    for run in nothing:
        for record in run['eval_info']['per_task']:
            record['verdict'] = 'wrong_answer'
    table = comparison_table(nothing)
    passes = table[table.endpoint == 'pass@1']
    assert (passes.p == 1).all() and (passes.difference == 0).all()
    assert (passes.verdict == 'inconclusive').all() and passes.detectable.isna().all()  # one seed
    few = compare({None: simulated_run(0, 0, 0.3, 0.9, 10)}, {0: simulated_run(8, 0, 0.3, 0.9, 10)}, 'pass@1')
    assert with_verdict(few, few['p'], 1, MARGIN['pass@1'])['verdict'] == 'inconclusive'
    two = compare({None: simulated_run(0, 0, 0.3, 0.9, 2)}, {0: simulated_run(8, 0, 0.3, 0.9, 2)}, 'pass@1')
    widest = with_verdict(two, two['p'], 1, MARGIN['pass@1'])
    assert two['estimate'].interval()[0] < -1 == widest['low'] and widest['high'] == 1  # no share falls by 130 points
    with pytest.raises(ValueError, match='two tasks'):
        estimate([0.1])
    assert estimate(np.zeros(5)).p_value() == 1.0


def test_the_simulated_study_is_read_rightly():
    """Strong against the base, alike among themselves."""
    study = simulated_study({8: (0.40, 0.85), 32: (0.40, 0.85)}, seeds=3, n=500)
    table = comparison_table(study).set_index(['endpoint', 'a', 'b'])
    assert table.loc[('NLL', 'base', 'r=8')].verdict == table.loc[('pass@1', 'base', 'r=32')].verdict == 'different'
    assert table.loc[('NLL', 'r=8', 'r=32')].verdict == 'equivalent'
    assert (table.seeds == 3).all() and (table['p adjusted'] >= table.p).all()


def test_seeds_are_paired_and_named():
    runs = simulated_study({8: (0.4, 0.85)}, seeds=2)
    assert 'no seed in common' in complaint(comparison_table, [*runs, simulated_run(32, 7, 0.4, 0.85)])
    twice = [*runs, {**runs[1], 'run_info': {**runs[1]['run_info'], 'run': 'another'}}]
    assert 'another' in complaint(by_rank, twice)


@pytest.mark.parametrize('change, word', [({'lr': 3e-4}, 'lr'), ({'train_data': 'other'}, 'train_data')])
def test_a_confound_is_refused(change, word):
    runs = simulated_study({8: (0.4, 0.85), 32: (0.4, 0.85)})
    check_confounds(runs)
    runs[-1]['run_info']['parameters'].update(change)
    with pytest.raises(UserError, match=f'more than their rank.*{word}'):
        check_confounds(runs)
    if word == 'lr':
        check_confounds(runs, chosen_rates=True)


def test_another_order_of_rows_is_a_confound_within_a_seed_only():
    runs = simulated_study({8: (0.4, 0.85), 32: (0.4, 0.85)}, seeds=2)
    check_confounds(runs)
    runs[-1]['train_info']['order'] = 'shuffled otherwise'
    with pytest.raises(UserError, match='order: '):
        check_confounds(runs)


def test_a_search_on_other_validation_rows_is_not_mixed_with_the_runs(tmp_path):
    """A search on 300 rows, and main runs at the best rate on 40 other ones: their NLL cannot be compared."""

    def trained(seed, lr, nll, rows):
        info = {'run': f'p-r8-s{seed}-lr{lr}', 'preset': 'p', 'kind': 'lora', 'rank': 8, 'seed': seed}
        info |= {'model': 'm', 'test_run': False}
        info['parameters'] = {'lr': lr, 'val_data': rows}
        name = tmp_path / 'metrics' / f'{info["run"]}.json'
        write_json(name, {'run_info': info, 'train_info': {'val_nll': [{'step': 0, 'nll': nll}]}})

    for seed in (100, 101):
        trained(seed, 1e-4, 0.40, 'many')
        trained(seed, 3e-4, 0.38, 'many')
    for seed in range(5):
        trained(seed, 3e-4, 0.51, 'few')
    table = rate_table(tmp_path, 'p')
    assert sorted(table.seed) == [100, 100, 101, 101] and table.nll.max() == 0.40
    assert list(table) == ['rank', 'seed', 'lr', 'nll']


def test_runs_of_which_files_change_are_read_again(tmp_path):
    """A file written anew, one that goes, one that leads nowhere; what a reader changes is its own."""
    runs, folder = simulated_study({8: (0.4, 0.85)}, seeds=2, n=20), tmp_path / 'metrics'
    for run in runs:
        write_json(folder / f"{run['run_info']['run']}.json", run)
    found = metrics_in(tmp_path)
    found[0]['run_info']['kind'] = 'mine'
    assert [run['run_info']['kind'] for run in metrics_in(tmp_path)] == ['base', 'lora', 'lora']
    changed = {**runs[1], 'run_info': {**runs[1]['run_info'], 'seed': 7}}
    write_json(folder / f"{runs[1]['run_info']['run']}.json", changed)
    (folder / f"{runs[2]['run_info']['run']}.json").unlink()
    assert [run['run_info']['seed'] for run in metrics_in(tmp_path)] == [runs[0]['run_info']['seed'], 7]
    (folder / 'gone.json').symlink_to(folder / 'nowhere')
    assert 'there is no file' in complaint(metrics_in, tmp_path)


def test_values_are_those_of_the_run_that_is_asked():
    """Not those of another one whose records are alike."""
    first, other = (simulated_study({8: (0.4, 0.85)}, n=20)[1] for _ in range(2))
    assert values_of(first, 'pass@1') == values_of(other, 'pass@1')
    for record in other['eval_info']['per_task']:
        record['verdict'] = 'wrong_answer'
    third = {**other, 'eval_info': {**other['eval_info'], 'per_task': list(other['eval_info']['per_task'])}}
    assert {amount for amount, _ in values_of(third, 'pass@1').values()} == {0.0}
    assert {amount for amount, _ in values_of(first, 'pass@1').values()} != {0.0}
