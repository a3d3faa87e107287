"""Means of runs that differ in their seed alone, and their intervals; `analysis` compares them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas


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
