"""The analysis: against SciPy and statsmodels, its distribution against Genz's integral, and its error rates."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from poolnb.lab.analysis import (
    ABOVE,
    BELOW,
    EQUAL,
    LOOKS,
    MARGIN,
    POWER,
    UNDECIDED,
    alpha_at,
    compare,
    dunnett_critical,
    dunnett_p,
    half_width,
    power,
    seeds_needed,
    verdict_of,
)


def study(effects, seeds, sd=0.4, rng=None, scatter=1.0):
    """Runs of a study: group 0 is the baseline `max`; a seed is good or bad for all."""
    rng = rng or np.random.default_rng(0)
    names = ["max", *(f"pool{place}" for place in range(1, len(effects)))]
    common = rng.normal(0, scatter, seeds)
    noise = rng.normal(0, sd, (len(effects), seeds))
    rows = [
        (name, seed, 70 + effects[place] + common[seed] + noise[place, seed])
        for place, name in enumerate(names)
        for seed in range(seeds)
    ]
    return pd.DataFrame(rows, columns=["pooler", "seed", "last"])


def correlation(present):
    """Correlations of the differences to group 0, of the additive model of the runs that are there (groups, seeds)."""
    groups, seeds = present.shape
    at = np.argwhere(present)
    design = np.hstack([np.eye(groups)[at[:, 0]][:, 1:], np.eye(seeds)[at[:, 1]]])
    covariance = np.linalg.inv(design.T @ design)[: groups - 1, : groups - 1]
    spread = np.sqrt(np.diag(covariance))
    return covariance / np.outer(spread, spread), len(at) - groups - seeds + 1


# ---- the distribution ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("others", "df", "alpha", "table"),
    # Dunnett (1964), two-sided, as textbooks print it.
    [(1, 10, 0.05, 2.23), (2, 10, 0.05, 2.57), (4, 10, 0.05, 2.89), (9, 20, 0.05, 2.95)],
)
def test_critical_values_are_those_of_dunnett_s_tables(others, df, alpha, table):
    equal = 0.5 + 0.5 * np.eye(others)
    assert dunnett_critical(equal, df, alpha) == pytest.approx(table, abs=0.006)


@pytest.mark.parametrize(("groups", "seeds", "missing"), [(15, 12, 0), (15, 12, 0.1), (15, 5, 0.3), (4, 4, 0.3)])
def test_the_distribution_is_that_of_genz_s_integral(groups, seeds, missing):
    rng = np.random.default_rng(0)
    matrix, df = correlation(rng.random((groups, seeds)) >= missing)
    c = dunnett_critical(matrix, df, 0.05)
    limit = np.full(groups - 1, c)
    shape = {"shape": matrix, "df": df, "random_state": 0, "maxpts": 20_000 * groups}
    assert 1 - stats.multivariate_t.cdf(limit, lower_limit=-limit, **shape) == pytest.approx(0.05, abs=1e-4)
    assert dunnett_p(matrix, df, c) == pytest.approx(0.05, abs=1e-6)


def test_a_p_value_falls_below_what_may_be_erred_as_the_interval_leaves_zero():
    found = compare(study((0, 0.3, 0.5, 0.7, 0.9, 1.1), 5))
    apart = (found.table["low"] > 0) | (found.table["high"] < 0)
    assert ((found.p_values() < 0.05) == apart).all() and 0 < apart.sum() < len(apart)


def test_printed_numbers_do_not_change_from_call_to_call():
    matrix = 0.5 + 0.5 * np.eye(14)
    assert len({dunnett_p(matrix, 154, 2.5) for _ in range(3)}) == 1


# ---- the model -------------------------------------------------------------------------------------------------------


def test_without_an_effect_of_seeds_it_is_scipy_s_dunnett():
    """Groups with no seed in common but one leave no seed to subtract; SciPy's test knows groups alone."""
    rng = np.random.default_rng(1)
    samples = rng.normal(size=(4, 200)) + np.array([0, 0.1, 0.2, 0.4])[:, None]
    centred = samples - samples.mean(0)  # so that seeds add nothing
    rows = [("max pool1 pool2 pool3".split()[g], s, centred[g, s]) for g in range(4) for s in range(200)]
    found = compare(pd.DataFrame(rows, columns=["pooler", "seed", "last"]))
    expected = stats.dunnett(*centred[1:], control=centred[0], random_state=0)
    low, high = expected.confidence_interval()
    # SciPy has 796 degrees of freedom, the model 597: of the same squares.
    scale = math.sqrt(796 / 597)
    assert found.table["difference"].to_numpy() == pytest.approx((low + high) / 2, abs=1e-6)
    assert (found.table["high"] - found.table["low"]).to_numpy() == pytest.approx((high - low) * scale, rel=3e-3)


def test_the_estimates_are_those_of_statsmodels_formula_with_seeds_missing():
    from statsmodels.formula.api import ols

    frame = study((0, 0.5, -1, 0), 6).drop([3, 7, 8, 20])
    found = compare(frame)
    model = ols("last ~ C(pooler, Treatment('max')) + C(seed)", frame).fit()
    for name, row in found.table.iterrows():
        term = f"C(pooler, Treatment('max'))[T.{name}]"
        assert row.difference == pytest.approx(model.params[term])
        assert (row.high - row.low) / 2 == pytest.approx(found.critical * model.bse[term])
    assert found.df == model.df_resid and found.sd == pytest.approx(math.sqrt(model.mse_resid))
    assert found.residuals["residual"].to_numpy() == pytest.approx(model.resid.to_numpy(), abs=1e-9)
    assert found.table["n"].tolist() == [4, 6, 5]


def test_one_group_beside_the_baseline_is_the_paired_t_test():
    frame = study((0, 0.3), 6)
    whole = compare(frame)
    found = whole.table.loc["pool1"]
    two = frame.pivot(index="seed", columns="pooler", values="last")
    expected = stats.ttest_rel(two["pool1"], two["max"])
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert whole.p_values()["pool1"] == pytest.approx(expected.pvalue, abs=1e-7)


def test_a_difference_stated_alone_has_its_own_factor_and_the_scatter_of_all_groups():
    frame = study((0, 0.3, 0.5, -1), 5, sd=1)
    alone, together = compare(frame, of=["pool2"]), compare(frame)
    assert (alone.sd, alone.df) == (together.sd, together.df) and list(alone.table.index) == ["pool2"]
    assert alone.critical == pytest.approx(stats.t.ppf(0.975, alone.df)) and alone.critical < together.critical
    one, other = alone.intervals["pool2"], together.intervals["pool2"]
    assert one.mean == other.mean and one.half_width / alone.critical == pytest.approx(
        other.half_width / together.critical
    )
    assert alone.seeds_needed["pool2"] < together.seeds_needed["pool2"]
    back = compare(frame, baseline="pool2", of=["max"]).intervals["max"]
    assert (-back).mean == pytest.approx(one.mean) and (-back).low == pytest.approx(one.low)


def test_the_half_width_of_one_stated_difference_is_what_a_study_has():
    found = compare(study((0, 0.3, 0.5, -1), 5), of=["pool1"])
    assert found.intervals["pool1"].half_width == pytest.approx(half_width(5, found.sd, 4, stated=1))


def test_groups_that_no_seed_connects_are_refused():
    frame = study((0, 1), 4)
    apart = frame[(frame.pooler == "max") == (frame.seed < 2)]
    with pytest.raises(ValueError, match="no seeds connect them"):
        compare(apart)
    with pytest.raises(ValueError, match="baseline is 'max'; accepted: pool1"):
        compare(frame.assign(last=frame["last"].where(frame.pooler != "max")))
    with pytest.raises(ValueError, match="baseline is 'avg'; accepted: max, pool1"):
        compare(frame, baseline="avg")
    with pytest.raises(ValueError, match="max: one seed stands for several runs"):
        compare(pd.concat([frame, frame.iloc[:1]]))


# ---- verdicts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.1, 0.9, ABOVE),
        (-0.9, -0.1, BELOW),
        (-0.4, 0.4, EQUAL),
        (0.1, 0.4, EQUAL),
        (-0.1, 0.6, UNDECIDED),
        (math.nan, math.nan, UNDECIDED),
    ],
)
def test_a_verdict_is_one_of_the_whole_interval(low, high, verdict):
    assert verdict_of(low, high) == verdict


def test_two_seeds_give_no_verdict():
    frame = study((0, 9, -9), 3, sd=0.1)
    assert compare(frame).verdicts == {"pool1": ABOVE, "pool2": BELOW}
    assert set(compare(frame[frame.seed < 2]).verdicts.values()) == {UNDECIDED}
    one = compare(frame[frame.seed < 1])
    assert one.df == 0 and one.table[["low", "seeds_needed"]].isna().all(axis=None) and one.p_values().isna().all()


@pytest.mark.parametrize(
    ("failed", "larger_is_better", "expected"),
    [
        (None, True, {"pool1": ABOVE, "pool2": BELOW, "pool3": EQUAL}),
        ("pool1", True, {"pool1": UNDECIDED, "pool2": BELOW, "pool3": EQUAL}),
        ("pool2", True, {"pool1": ABOVE, "pool2": BELOW, "pool3": EQUAL}),
        ("pool2", False, {"pool1": ABOVE, "pool2": UNDECIDED, "pool3": EQUAL}),
        ("pool3", True, {"pool1": ABOVE, "pool2": BELOW, "pool3": UNDECIDED}),
        ("max", True, {"pool1": ABOVE, "pool2": UNDECIDED, "pool3": UNDECIDED}),
    ],
)
def test_a_failed_run_is_counted_and_takes_back_what_it_could_overturn(failed, larger_is_better, expected):
    frame = study((0, 3, -3, 0), 8, sd=0.1)
    frame.loc[(frame.pooler == failed) & (frame.seed == 5), "last"] = math.nan
    found = compare(frame, larger_is_better=larger_is_better)
    assert found.verdicts == expected
    assert found.table["failed"].to_dict() == {name: int(name == failed) for name in expected}


def test_a_group_whose_runs_have_all_failed_is_shown():
    frame = study((0, 1, 2), 5)
    rest = compare(frame[frame.pooler != "pool1"])
    found = compare(frame.assign(last=frame["last"].where(frame.pooler != "pool1")))
    lost = found.table.loc["pool1"]
    assert (lost.n, lost.failed, lost.verdict) == (0, 5, UNDECIDED) and math.isnan(lost.low)
    assert found.table.loc["pool2", "low"] == rest.table.loc["pool2", "low"]
    for p in (found.p_values(), found.permutation()):
        assert math.isnan(p["pool1"]) and p["pool2"] < 0.07


# ---- looks and plans -------------------------------------------------------------------------------------------------


def test_what_all_looks_may_err_is_spent_in_proportion_to_the_seeds():
    assert [alpha_at(look) for look in LOOKS] == pytest.approx([0.05 / 6] * 6)
    assert sum(alpha_at(look) for look in LOOKS) == pytest.approx(0.05)
    assert alpha_at(3) == alpha_at(15) == alpha_at(99) == alpha_at(24) and alpha_at(3, ()) == 0.05
    assert alpha_at(12, (12, 16)) == 0.05 * 12 / 16 and alpha_at(16, (12, 16)) == 0.05 * 4 / 16


def test_a_block_of_seeds_counts_once_all_groups_have_it():
    frame = study((0, 1, 2), 18)
    early = compare(frame[frame.seed < LOOKS[0] - 1], looks=LOOKS)
    assert (early.complete, early.seeds, early.waiting) == (False, 3, 0)
    assert early.table["low"].notna().all() and set(early.verdicts.values()) == {UNDECIDED}  # before the first look
    found = compare(frame, looks=LOOKS)
    assert (found.complete, found.seeds, found.waiting) == (True, 16, 2)
    assert found.alpha == pytest.approx(0.05 / 6) and found.table["n"].tolist() == [16, 16]
    lacking = compare(frame.drop(frame.index[(frame.pooler == "pool2") & (frame.seed == 15)]), looks=LOOKS)
    assert (lacking.seeds, lacking.waiting) == (12, 6)
    assert set(lacking.residuals["seed"]) == set(range(12))


def test_a_group_that_is_stated_alone_does_not_wait_for_the_others():
    frame = study((0, 1, 2), 12)
    frame = frame[(frame.pooler != "pool2") | (frame.seed < 5)]
    together, alone = compare(frame, looks=(5, 12)), compare(frame, of=["pool1"], looks=(5, 12))
    assert (together.seeds, together.waiting, alone.seeds, alone.waiting) == (5, 7, 12, 0)
    assert (together.alpha, alone.alpha) == pytest.approx((0.05 * 5 / 12, 0.05 * 7 / 12))
    assert alone.df == (12 - 1) + (5 - 1)  # the runs of the other group still say how large the rest is
    early = compare(frame[(frame.pooler == "max") | (frame.seed < 3)], of=["pool1"], looks=(5, 12))
    assert not early.complete and early.alpha == pytest.approx(0.05 * 5 / 12)


def test_the_half_width_at_a_number_of_seeds_is_what_a_study_of_them_has():
    found = compare(study((0, 0, 0, 0), 7))
    assert half_width(7, found.sd, 4) == pytest.approx((found.table["high"] - found.table["low"]).iloc[0] / 2)


def test_the_seeds_that_would_decide():
    assert seeds_needed(0.05, 0.4, 15) == seeds_needed(-0.05, 0.4, 15)
    needed = seeds_needed(0.05, 0.4, 15)
    assert power(0.05, int(needed), 0.4, 15) >= POWER > power(0.05, int(needed) - 1, 0.4, 15)
    assert seeds_needed(0.25, 0.4, 15) > needed > seeds_needed(5, 0.4, 15) == 3
    assert seeds_needed(0.05, 0.4, 15, looks=LOOKS) > needed
    for gap in (1.5, 2, 3):
        look = seeds_needed(gap, 1, 15, looks=LOOKS)
        assert look in LOOKS and power(gap, int(look), 1, 15, alpha=alpha_at(int(look))) >= POWER
    assert seeds_needed(0.25, 100, 15) == 1001 and math.isnan(seeds_needed(0.1, math.nan, 15))
    found = compare(study((0, 0.25, 3), 4))
    assert set(found.seeds_needed) == {name for name, one in found.verdicts.items() if one == UNDECIDED} == {"pool1"}
    assert found.seeds_needed["pool1"] > 4 and found.table.loc["pool2", "seeds_needed"] == 0


@pytest.mark.parametrize(("difference", "seeds", "sd"), [(1.4, 6, 0.93), (0.0, 5, 1.0), (-2.0, 4, 1.5), (0.3, 24, 0.4)])
def test_the_power_of_a_pair_is_that_of_statsmodels(difference, seeds, sd):
    from statsmodels.stats.power import TTestPower

    expected = TTestPower().power(abs(difference) / (sd * math.sqrt(2)), seeds, 0.05)
    assert power(difference, seeds, sd, 2, margin=0) == pytest.approx(expected, abs=1e-5)


def test_the_power_is_how_often_made_up_studies_are_decided():
    rng = np.random.default_rng(2)
    for effects in ((0, 1.6, 0), (0, 0.1, 0)):
        verdicts = [compare(study(effects, 12, sd=0.5, rng=rng)).verdicts["pool1"] for _ in range(400)]
        seen = np.mean([verdict != UNDECIDED for verdict in verdicts])
        assert seen == pytest.approx(power(effects[1], 12, 0.5, 3), abs=0.08)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_value_that_is_not_finite_is_a_run_that_failed(value):
    rows = [
        (name, seed, 70 + gain + 0.1 * (seed * (3 + place) % 7))
        for place, (name, gain) in enumerate({"max": 0, "a": 3, "b": 3}.items())
        for seed in range(8)
    ]
    frame = pd.DataFrame(rows, columns=["pooler", "seed", "last"])
    frame.loc[(frame.pooler == "a") & (frame.seed == 0), "last"] = value
    found = compare(frame)
    assert found.verdicts == {"a": "undecided", "b": "above"} and found.table["failed"].to_dict() == {"a": 1, "b": 0}
    assert found.table["difference"].tolist() == pytest.approx([3, 3], abs=0.3)
    assert math.isnan(found.table.loc["a", "seeds_needed"])  # no number of seeds undoes a failed run


# ---- the permutation test --------------------------------------------------------------------------------------------


def test_alone_it_is_the_exact_test_of_signs():
    frame = study((0, 0.4), 8)
    two = frame.pivot(index="seed", columns="pooler", values="last")
    expected = stats.permutation_test(
        (two["pool1"] - two["max"],), np.mean, permutation_type="samples", n_resamples=999
    )
    assert compare(frame).permutation()["pool1"] == pytest.approx(expected.pvalue)


def test_many_seeds_are_drawn_the_same_each_time_and_a_lacking_one_is_no_value():
    frame = study((0, 0, 1.5, 0), 14).drop(20)
    first, second = compare(frame).permutation(), compare(frame).permutation()
    assert first.equals(second) and list(first.index) == ["pool1", "pool2", "pool3"]
    assert first["pool2"] < 0.001 < first["pool1"]


def test_the_permutation_test_keeps_the_rate_of_any_false_alarm():
    rng = np.random.default_rng(4)
    smallest = [
        compare(study((0, 0, 0, 0, 5), 7, rng=rng)).permutation()[["pool1", "pool2", "pool3"]].min() for _ in range(300)
    ]
    assert np.mean(np.array(smallest) <= 0.05) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)


# ---- studies with a known answer -------------------------------------------------------------------------------------

EFFECTS = (0, 0, 0, 0, 0.1, -0.1, 0.5, -0.6, 1, -1, 3)


def wrong(verdicts, effects=EFFECTS):
    """The verdicts that a known effect contradicts."""
    truths = zip(verdicts.values(), effects[1:], strict=True)
    return sum(
        (verdict == ABOVE and effect <= 0)
        or (verdict == BELOW and effect >= 0)
        or (verdict == EQUAL and abs(effect) >= MARGIN)
        for verdict, effect in truths
    )


def sequential(rng):
    """A study that takes seeds in blocks until all is decided, or there are no more looks."""
    frame = study(EFFECTS, LOOKS[-1], rng=rng)
    for look in LOOKS:
        found = compare(frame[frame.seed < look], looks=LOOKS)
        if UNDECIDED not in found.verdicts.values():
            break
    return found


def test_of_a_thousand_studies_few_have_any_wrong_verdict():
    """Eleven groups, effects from none to 3 points, a residual scatter of 0.4 as in the book's comparison."""
    rng = np.random.default_rng(5)
    found = [sequential(rng) for _ in range(1000)]
    errors = np.mean([wrong(one.verdicts) > 0 for one in found])
    assert errors <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000)
    covered = [
        ((one.table["low"] <= np.array(EFFECTS[1:])) & (np.array(EFFECTS[1:]) <= one.table["high"])).all()
        for one in found
    ]
    assert np.mean(covered) >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 1000)
    # And what is there is found: a point or more always, none mostly.
    assert all(one.verdicts["pool10"] == ABOVE for one in found)
    assert np.mean([one.verdicts["pool8"] == ABOVE and one.verdicts["pool9"] == BELOW for one in found]) > 0.98
    assert np.mean([one.verdicts["pool1"] == EQUAL for one in found]) > 0.6


def test_one_look_errs_as_often_as_it_says():
    """Not much less: the intervals are exact, not only safe."""
    rng = np.random.default_rng(6)
    none = (0,) * 11
    found = [compare(study(none, 4, rng=rng)).table for _ in range(1000)]
    missed = np.mean([((one["low"] > 0) | (one["high"] < 0)).any() for one in found])
    assert missed == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / 1000))
