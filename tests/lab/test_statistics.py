"""Statistics against published tables, SciPy and simulation."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from poolnb.lab.statistics import comparison_table, holm, mean_interval, paired_difference, summary_table


def test_the_interval_is_student_s():
    """Student's own data: extra hours of sleep of ten patients; t(0.975, 9) = 2.262 in every table."""
    hours = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    found = mean_interval(hours)
    assert found.mean == pytest.approx(0.75)
    assert found.half_width == pytest.approx(2.262 * 1.78901 / math.sqrt(10), rel=1e-4)
    assert (found.n, found.high - found.mean) == (10, pytest.approx(found.mean - found.low))


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    found = [mean_interval(sample, 0.9) for sample in rng.normal(3.0, 2.0, size=(2000, 4))]
    covered = np.mean([one.low <= 3.0 <= one.high for one in found])
    assert covered == pytest.approx(0.9, abs=0.02)


def test_one_value_has_no_interval():
    found = mean_interval([0.5])
    assert (found.mean, found.n) == (0.5, 1) and math.isnan(found.low) and math.isnan(found.high)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_values_without_a_mean_are_refused(values):
    with pytest.raises(ValueError, match="values are .*; accepted: at least one number, all finite"):
        mean_interval(values)


def test_a_level_outside_0_and_1_is_refused():
    with pytest.raises(ValueError, match="level is 95"):
        mean_interval([1.0, 2.0], level=95)


def test_paired_differences_agree_with_scipy():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 6))
    found = paired_difference(dict(enumerate(a)), dict(enumerate(b)))
    expected = stats.ttest_rel(a, b)
    low, high = expected.confidence_interval()
    assert (found.p, found.low, found.high) == pytest.approx((expected.pvalue, low, high))
    assert found.effect_size == pytest.approx(np.mean(a - b) / np.std(a - b, ddof=1))


def test_pairs_are_formed_by_key():
    found = paired_difference({2: 5.0, 1: 3.0, 9: 100.0}, {1: 1.0, 2: 2.0, 3: 0.0})
    assert (found.mean, found.n) == (2.5, 2)
    with pytest.raises(ValueError, match="no key in common"):
        paired_difference({1: 1.0}, {2: 1.0})


def test_differences_without_scatter():
    same = paired_difference({0: 1.0, 1: 1.0}, {0: 1.0, 1: 1.0})
    assert (same.p, same.effect_size) == (1.0, 0.0)
    shifted = paired_difference({0: 1.5, 1: 1.5}, {0: 2.0, 1: 2.0})
    assert (shifted.p, shifted.effect_size) == (0.0, -math.inf)


def test_holm_s_procedure():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []
    corrected = holm([0.01, math.nan, 0.02])
    assert corrected[0] == 0.02 and corrected[2] == 0.02 and math.isnan(corrected[1])


def test_holm_keeps_the_rate_of_any_false_alarm():
    p = np.random.default_rng(2).uniform(size=(4000, 5))
    alarms = np.mean([min(holm(row)) < 0.05 for row in p])
    assert alarms == pytest.approx(0.05, abs=0.012)


@pytest.fixture
def frame():
    rng = np.random.default_rng(3)
    poolers, seeds = ["max", "avg", "soft"], range(5)
    rows = [
        (pooler, seed, 0.7 + 0.1 * (pooler == "soft") + 0.01 * rng.normal()) for pooler in poolers for seed in seeds
    ]
    return pd.DataFrame(rows, columns=["pooler", "seed", "last_test_accuracy"])


def test_the_tables(frame):
    summary, comparison = summary_table(frame), comparison_table(frame)
    assert list(summary.index) == ["max", "avg", "soft"] and summary["n"].tolist() == [5, 5, 5]
    assert list(comparison.index) == ["avg", "soft"]
    assert comparison.loc["soft", "difference"] == pytest.approx(
        summary.loc["soft", "mean"] - summary.loc["max", "mean"]
    )
    assert comparison.loc["soft", "low"] > 0.05 and comparison.loc["soft", "p_holm"] == 2 * comparison.loc["soft", "p"]
    assert comparison.loc["avg", "p_holm"] == comparison.loc["avg", "p"] > 0.05


def test_a_seed_that_stands_for_two_runs_is_refused(frame):
    twice = pd.concat([frame, frame.iloc[:1]])
    with pytest.raises(ValueError, match="max: one seed stands for several runs"):
        summary_table(twice)
    with pytest.raises(ValueError, match="baseline is 'median'; accepted: max, avg, soft"):
        comparison_table(frame, baseline="median")
