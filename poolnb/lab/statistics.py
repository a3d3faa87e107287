"""Statistics of runs that differ in their seed alone: intervals, paired differences, a correction for many tests."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas


ENOUGH = 3  # pairs or values; with fewer nothing is tested, and there is no verdict


@dataclass(frozen=True)
class Interval:
    """The mean of `n` values and the interval that covers the true mean at the stated level.

    One value says nothing about its scatter: `low` and `high` are then NaN.
    """

    mean: float
    low: float
    high: float
    n: int

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class PairedDifference(Interval):
    """The mean difference over `n` pairs, its interval, the two-sided p value of "no difference", and Cohen's d_z."""

    p: float
    effect_size: float


def mean_interval(values: Iterable[float], level: float = 0.95) -> Interval:
    """Mean and confidence interval of `values` by Student's t (Student, 1908).

    Raises `ValueError` without values, for a value that is not finite, and for a `level` outside (0, 1).
    """
    values = [float(value) for value in values]
    if not values or not all(map(math.isfinite, values)):
        raise ValueError(f"values are {values!r}; accepted: at least one number, all finite")
    if not 0 < level < 1:
        raise ValueError(f"level is {level!r}; accepted: a number between 0 and 1, such as 0.95")
    mean, scatter, n = _moments(values)
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1)
    from scipy.stats import t

    half = float(t.ppf((1 + level) / 2, n - 1)) * scatter / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def paired_difference(
    values: Mapping[Hashable, float], baseline: Mapping[Hashable, float], level: float = 0.95
) -> PairedDifference:
    """The difference `values - baseline` over the keys (seeds) that both have.

    d_z is the mean difference over the standard deviation of the differences. Raises `ValueError` without a common key.
    """
    differences = [values[key] - baseline[key] for key in values if key in baseline]
    if not differences:
        raise ValueError(f"values and baseline have no key in common: {list(values)} and {list(baseline)}")
    interval = mean_interval(differences, level)
    mean, scatter, n = _moments(differences)
    if n == 1:
        p, effect = math.nan, math.nan
    elif scatter == 0:
        p, effect = (1.0, 0.0) if mean == 0 else (0.0, math.copysign(math.inf, mean))
    else:
        from scipy.stats import t

        effect = mean / scatter
        p = 2 * float(t.sf(abs(effect) * math.sqrt(n), n - 1))
    return PairedDifference(mean, interval.low, interval.high, n, p, effect)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values corrected for their number by Holm's step-down procedure (1979), in the same order.

    A NaN stays a NaN and does not count as a test.
    """
    tested = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    corrected = [math.nan] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(tested):
        largest = max(largest, min(1.0, p * (len(tested) - rank)))
        corrected[place] = largest
    return corrected


def corrected(differences: Sequence[PairedDifference]) -> list[float]:
    """The p values of `differences` after Holm, in the same order: the one rule of what counts as a test.

    A difference of fewer than `ENOUGH` pairs is not tested: its p is NaN, and the others are not corrected for it.
    """
    return holm([one.p if one.n >= ENOUGH else math.nan for one in differences])


def summary_table(
    frame: pandas.DataFrame, value: str = "last_test_accuracy", by: str = "pooler", level: float = 0.95
) -> pandas.DataFrame:
    """One row per group of `by`: `mean`, `low`, `high` and `n` of the column `value`, in the groups' order in `frame`.

    Raises `ValueError` if a group holds one seed twice: these would not be independent runs.
    """
    import pandas

    groups = {name: mean_interval(_by_seed(group, value, name).values(), level) for name, group in _groups(frame, by)}
    rows = {name: (found.mean, found.low, found.high, found.n) for name, found in groups.items()}
    table = pandas.DataFrame.from_dict(rows, orient="index", columns=["mean", "low", "high", "n"])
    return table.rename_axis(by)


def comparison_table(
    frame: pandas.DataFrame,
    baseline: str = "max",
    value: str = "last_test_accuracy",
    by: str = "pooler",
    level: float = 0.95,
) -> pandas.DataFrame:
    """One row per group of `by` but the `baseline`: the difference to the baseline, paired by seed.

    Columns: `difference`, `low`, `high`, `n`, `p`, `p_holm` (see `corrected`) and `effect_size` (d_z).
    Raises `ValueError` if there is no group `baseline`, or if a group holds one seed twice.
    """
    import pandas

    groups = {name: _by_seed(group, value, name) for name, group in _groups(frame, by)}
    if baseline not in groups:
        raise ValueError(f"baseline is {baseline!r}; accepted: {', '.join(map(str, groups))}")
    reference = groups.pop(baseline)
    found = {name: paired_difference(values, reference, level) for name, values in groups.items()}
    rows = {
        name: (one.mean, one.low, one.high, one.n, one.p, p_holm, one.effect_size)
        for (name, one), p_holm in zip(found.items(), corrected(list(found.values())), strict=True)
    }
    columns = ["difference", "low", "high", "n", "p", "p_holm", "effect_size"]
    return pandas.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis(by)


def _groups(frame: pandas.DataFrame, by: str) -> Iterable[tuple[str, pandas.DataFrame]]:
    return ((str(name), group) for name, group in frame.groupby(by, sort=False))


def _by_seed(group: pandas.DataFrame, value: str, name: str) -> dict[Hashable, float]:
    if group["seed"].duplicated().any():
        raise ValueError(f"{name}: one seed stands for several runs; choose rows that differ in their seed alone")
    return dict(zip(group["seed"], group[value].astype(float), strict=True))


def _moments(values: Sequence[float]) -> tuple[float, float, int]:
    """Mean, standard deviation of a sample, and count."""
    n = len(values)
    mean = math.fsum(values) / n
    scatter = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else math.nan
    return mean, scatter, n
