"""Statistics against published tables, SciPy and simulation."""

import math

import numpy as np
import pandas as pd
import pytest

from poolnb.lab.statistics import mean_interval, summary_table


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


@pytest.fixture
def frame():
    rng = np.random.default_rng(3)
    poolers, seeds = ["max", "avg", "soft"], range(5)
    rows = [
        (pooler, seed, 0.7 + 0.1 * (pooler == "soft") + 0.01 * rng.normal()) for pooler in poolers for seed in seeds
    ]
    return pd.DataFrame(rows, columns=["pooler", "seed", "last_test_accuracy"])


def test_a_table_has_a_row_per_group(frame):
    summary = summary_table(frame)
    assert list(summary.index) == ["max", "avg", "soft"] and summary["n"].tolist() == [5, 5, 5]
    for name, rows in frame.groupby("pooler"):
        found = mean_interval(rows["last_test_accuracy"])
        assert tuple(summary.loc[name, ["mean", "low", "high"]]) == (found.mean, found.low, found.high)


def test_a_seed_that_stands_for_two_runs_is_refused(frame):
    twice = pd.concat([frame, frame.iloc[:1]])
    with pytest.raises(ValueError, match="max: one seed stands for several runs"):
        summary_table(twice)
