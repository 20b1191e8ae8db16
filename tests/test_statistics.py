"""Simulated studies with a known truth: how often each verdict is wrong, how often an effect is found, and the edges."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from lora_mbpp.core.errors import UserError, complaint
from lora_mbpp.core.runs import PREREGISTRATION
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
from lora_mbpp.reporting.tables import by_rank, check_confounds, compare, comparison_table, finished
from lora_mbpp.testing import simulated_run, simulated_study

MARGIN, STUDIES = PREREGISTRATION['margins'], 1000


def judged(rows, endpoint, family=1):
    """Verdicts of (estimate, p) pairs."""
    return [verdict(found, min(1, p * family), MARGIN[endpoint]) for found, p in rows]


def binary_studies(truth, discordance, tasks=500, studies=STUDIES, seed=0):
    """One seed a rank: a share `discordance` of tasks flips, net `truth`."""
    rng = np.random.default_rng(seed)
    for _ in range(studies):
        u = rng.random(tasks)
        d = np.where(u < (discordance + truth) / 2, 1.0, np.where(u < discordance, -1.0, 0.0))
        yield pass_estimate(d), mcnemar_p(int((d > 0).sum()), int((d < 0).sum()))


def seeded_passes(shift, seeds, spread, tasks=500, studies=STUDIES):
    """Several seeds a rank: tasks have a difficulty, seeds a luck of their own."""
    rng = np.random.default_rng([seeds, int(1000 * spread), int(1000 * shift)])
    for _ in range(studies):
        hard = rng.normal(0, 1.5, tasks)

        def passes(more):
            return (hard + more + rng.normal(0, spread, (seeds, 1)) + rng.normal(0, 0.4, (seeds, tasks)) > 0.4).astype(
                float
            )

        found = pass_estimate(passes(shift) - passes(0))
        yield found, found.p_value()


def seeded_nll(truth, seeds, spread, tasks=500, studies=STUDIES):
    rng = np.random.default_rng([seeds, int(10_000 * spread), int(10_000 * truth)])
    for _ in range(studies):
        tokens = rng.integers(20, 200, tasks)
        found = estimate(
            (
                truth
                + rng.normal(0, 0.04, tasks)
                + rng.normal(0, 0.05, (seeds, tasks))
                + rng.normal(0, spread, (seeds, 1))
            )
            * tokens,
            tokens,
        )
        yield found, found.p_value()


def share(verdicts, kind):
    return verdicts.count(kind) / len(verdicts)


@pytest.mark.parametrize('discordance', [0.05, 0.15, 0.4])
@pytest.mark.parametrize('tasks', [60, 500])
def test_one_seed_without_effect(discordance, tasks):
    assert share(judged(binary_studies(0, discordance, tasks), 'pass@1'), 'different') <= 0.065


@pytest.mark.parametrize('discordance', [0.06, 0.15, 0.4])
def test_equivalence_at_the_margin_is_rarely_claimed(discordance):
    assert (
        share(
            judged(((found, 1.0) for found, _ in binary_studies(MARGIN['pass@1'], discordance)), 'pass@1'), 'equivalent'
        )
        <= 0.065
    )


@pytest.mark.parametrize('seeds, spread', [(3, 0.0), (3, 0.02), (3, 0.05), (5, 0.05)])
def test_several_seeds_without_effect(seeds, spread):
    assert share(judged(seeded_passes(0, seeds, spread), 'pass@1'), 'different') <= 0.065


@pytest.mark.parametrize('seeds, spread', [(1, 0.0), (2, 0.005), (3, 0.0), (3, 0.005), (3, 0.02), (5, 0.005)])
def test_nll_errors_in_both_directions(seeds, spread):
    assert share(judged(seeded_nll(0, seeds, spread), 'NLL'), 'different') <= 0.065
    assert (
        share(judged(((found, 1.0) for found, _ in seeded_nll(MARGIN['NLL'], seeds, spread)), 'NLL'), 'equivalent')
        <= 0.065
    )


@pytest.mark.parametrize('discordance', [0.05, 0.1, 0.2])
def test_power_at_the_detectable_difference(discordance):
    truth = detectable_difference(500, discordance)
    assert share(judged(binary_studies(truth, discordance), 'pass@1'), 'different') >= 0.75


def test_power_at_the_detectable_difference_of_a_family():
    """Fifteen comparisons: the difference stated is that of the strictest step of Holm's procedure."""
    truth = detectable_difference(500, 0.1, PREREGISTRATION['alpha'] / 15)
    assert (
        truth > detectable_difference(500, 0.1)
        and share(judged(binary_studies(truth, 0.1), 'pass@1', family=15), 'different') >= 0.75
    )


def test_power_on_nll():
    rng, found = np.random.default_rng(5), next(iter(seeded_nll(0, 1, 0.0, studies=1)))[0]
    truth = detectable_mean(found)
    tokens = rng.integers(20, 200, 500)
    rows = (estimate((truth + rng.normal(0, np.hypot(0.04, 0.05), 500)) * tokens, tokens) for _ in range(500))
    assert (
        share([verdict(e, e.p_value(), MARGIN['NLL']) for e in rows], 'different') >= 0.72
    )  # the spread itself is an estimate


def test_five_points_are_found_where_discordance_allows():
    assert share(judged(binary_studies(0.05, 0.08), 'pass@1'), 'different') >= 0.95
    assert (
        share(judged(binary_studies(0.05, 0.4), 'pass@1'), 'different') <= 0.55
    )  # and the detectable difference says so
    assert detectable_difference(500, 0.4) > 0.05


def test_agrees_with_scipy_and_statsmodels():
    rng = np.random.default_rng(0)
    d = rng.normal(0.2, 1, 80)
    theirs = stats.ttest_1samp(d, 0)
    assert np.isclose(estimate(d).p_value(), theirs.pvalue) and np.allclose(
        estimate(d).interval(), theirs.confidence_interval(0.95)
    )
    assert all(
        mcnemar_p(b, c) == pytest.approx(mcnemar([[5, b], [c, 9]], exact=True).pvalue)
        for b, c in [(0, 3), (7, 2), (12, 12)]
    )
    low, high = bootstrap_interval(d)
    assert np.allclose((low, high), estimate(d).interval(), atol=0.03)
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


@pytest.mark.parametrize('n, share, points', [(500, 0.05, 3.0), (500, 0.10, 4.1), (500, 0.15, 5.1), (500, 0.20, 5.9)])
def test_detectable_differences_of_the_literature(n, share, points):
    assert 100 * detectable_difference(n, share) == pytest.approx(points, abs=0.25) and mcnemar_power(
        n, share, detectable_difference(n, share)
    ) == pytest.approx(0.8)


def test_p_value_and_interval_are_one_statement():
    for found, p in seeded_nll(0.004, 3, 0.004, studies=50):
        low, high = found.interval(0.95)
        assert (p < 0.05) == (low > 0 or high < 0)


def test_edges():
    """Ties everywhere, no passes at all, and a single pair of tasks."""
    nothing = [run for run in simulated_study({8: (0.3, 0.9), 32: (0.3, 0.9)}, n=200)]
    for run in nothing:
        for record in run['eval_info']['per_task']:
            record['verdict'] = 'wrong_answer'
    table = comparison_table(nothing)
    passes = table[table.endpoint == 'pass@1']
    assert (
        (passes.p == 1).all()
        and (passes.difference == 0).all()
        and (passes.verdict == 'equivalent').all()
        and passes.detectable.isna().all()
    )
    same = simulated_run(8, 0, 0.3, 0.9, 10)
    few = compare({None: simulated_run(0, 0, 0.3, 0.9, 10)}, {0: same}, 'pass@1')
    assert finished(few, few['p'], 1)['verdict'] == 'inconclusive'
    with pytest.raises(ValueError, match='two tasks'):
        estimate([0.1])
    assert estimate(np.zeros(5)).p_value() == 1.0


def test_the_simulated_study_is_read_rightly():
    """Strong against the base, alike among themselves."""
    table = comparison_table(simulated_study({8: (0.40, 0.85), 32: (0.40, 0.85)}, seeds=3, n=500)).set_index(
        ['endpoint', 'a', 'b']
    )
    assert table.loc[('NLL', 'base', 'r=8')].verdict == table.loc[('pass@1', 'base', 'r=32')].verdict == 'different'
    assert table.loc[('NLL', 'r=8', 'r=32')].verdict == 'equivalent'
    assert (table.seeds == 3).all() and (table['p adjusted'] >= table.p).all()


def test_seeds_are_paired_and_named():
    runs = simulated_study({8: (0.4, 0.85)}, seeds=2)
    apart = [*runs, simulated_run(32, 7, 0.4, 0.85)]
    assert 'no seed in common' in complaint(comparison_table, apart)
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
