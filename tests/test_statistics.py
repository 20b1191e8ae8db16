"""Simulated studies with a known truth: how often a verdict is wrong, how often an effect is found, and the edges."""

from functools import lru_cache, partial

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from lora_mbpp.core.errors import UserError, complaint
from lora_mbpp.core.runs import PREREGISTRATION
from lora_mbpp.reporting.comparisons import compare, comparison_table, with_verdict
from lora_mbpp.reporting.confound_check import check_confounds
from lora_mbpp.reporting.loading import by_rank
from lora_mbpp.reporting.statistics import (
    bootstrap_interval,
    detectable_difference,
    detectable_mean,
    estimate,
    holm,
    mcnemar_p,
    mcnemar_power,
    pass_estimate,
    verdict,
)
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
    """How often the verdict is `different` in comparisons of a family of this size."""
    verdicts = [verdict(found, min(1, p() * family), MARGIN[endpoint]) for found, p in studies]
    return verdicts.count('different') / len(verdicts)


def share_equivalent(studies, endpoint):
    """How often the verdict is `equivalent` where the p-value is no obstacle."""
    verdicts = [verdict(found, 1.0, MARGIN[endpoint]) for found, _ in studies]
    return verdicts.count('equivalent') / len(verdicts)


@pytest.mark.parametrize('discordance', [0.05, 0.15, 0.4])
@pytest.mark.parametrize('tasks', [60, 500])
def test_one_seed_without_effect(discordance, tasks):
    assert share_different(binary_studies(0, discordance, tasks), 'pass@1') <= 0.065


@pytest.mark.parametrize('discordance', [0.06, 0.15, 0.4])
def test_equivalence_at_the_margin_is_rarely_claimed(discordance):
    assert share_equivalent(binary_studies(MARGIN['pass@1'], discordance), 'pass@1') <= 0.065


@pytest.mark.parametrize('seeds, spread', [(3, 0.0), (3, 0.02), (3, 0.05), (5, 0.05)])
def test_several_seeds_without_effect(seeds, spread):
    assert share_different(seeded_passes(0, seeds, spread), 'pass@1') <= 0.065


@pytest.mark.parametrize('seeds, spread', [(1, 0.0), (2, 0.005), (3, 0.0), (3, 0.005), (3, 0.02), (5, 0.005)])
def test_nll_errors_in_both_directions(seeds, spread):
    assert share_different(seeded_nll(0, seeds, spread), 'NLL') <= 0.065
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


def test_agrees_with_scipy_and_statsmodels():
    rng = np.random.default_rng(0)
    d = rng.normal(0.2, 1, 80)
    found, theirs = estimate(d), stats.ttest_1samp(d, 0)
    assert np.isclose(found.p_value(), theirs.pvalue)
    assert np.allclose(found.interval(), theirs.confidence_interval(0.95))
    for b, c in [(0, 3), (7, 2), (12, 12)]:
        assert mcnemar_p(b, c) == pytest.approx(mcnemar([[5, b], [c, 9]], exact=True).pvalue)
    assert np.allclose(bootstrap_interval(d), found.interval(), atol=0.03)
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


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
    assert (passes.verdict == 'equivalent').all() and passes.detectable.isna().all()
    few = compare({None: simulated_run(0, 0, 0.3, 0.9, 10)}, {0: simulated_run(8, 0, 0.3, 0.9, 10)}, 'pass@1')
    assert with_verdict(few, few['p'], 1)['verdict'] == 'inconclusive'
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
