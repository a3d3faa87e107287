"""How every page compares: one additive model of pooler and seed, simultaneous intervals against a baseline, verdicts.

The value of a run is taken as what its pooler adds, what its seed adds (all poolers start from the same weights and see
the samples in the same order), and a rest of one variance. The differences to the baseline have intervals that are true
*together* with the stated probability (Dunnett, 1955): the multivariate t distribution, its correlations from the
design, so that poolers may lack seeds. With one pooler beside the baseline it is the paired t test.

Verdicts, of the whole interval: `EQUAL` inside the margin, else `ABOVE` 0, `BELOW` 0, or `UNDECIDED`.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from poolnb.lab.statistics import Interval, mean_interval

if TYPE_CHECKING:
    import pandas

ABOVE, BELOW, EQUAL, UNDECIDED = "above", "below", "equal", "undecided"
ALPHA = 0.05  # the probability that any interval of a study misses its true value, at whatever look
MARGIN = 0.5  # points of accuracy: a difference below this is none
ENOUGH = 3  # seeds; with fewer there is no verdict
LOOKS = (4, 8, 12, 16, 20, 24)  # numbers of seeds after which a sequential study is looked at
MOST = 1000  # seeds: more than this is not planned
POWER = 0.8  # the chance of a verdict that a plan asks for
EXACT = 12  # seeds; up to here all patterns of signs are tried
PATTERNS = 20_000  # otherwise so many are drawn


@dataclass(frozen=True)
class Difference(Interval):
    """One group of a comparison against its baseline: the interval, and the verdict with what it rests on.

    `sd` and `df` are the residual standard deviation of the comparison and its degrees of freedom, `margin` its margin;
    `seeds_needed` as in `Comparison.table`. `error` is the standard error (NaN: not known), and `together` the number
    of differences of which the intervals are true together: 1 is one stated alone. `pair` as in `Comparison.pairs`.
    """

    verdict: str
    seeds_needed: float
    sd: float
    df: int
    margin: float
    error: float = math.nan
    together: int = 1
    pair: Interval | None = None

    @property
    def by_others(self) -> bool:
        """Whether its side of 0 is told by the scatter of all groups alone, and not by that of its own pairs."""
        return bool(self.side and self.pair and self.pair.n >= ENOUGH and self.pair.low <= 0 <= self.pair.high)

    @property
    def side(self) -> str:
        """`ABOVE` or `BELOW` 0, also where the whole interval lies inside the margin; "" if it contains 0.

        A verdict that failed runs could overturn leaves no side.
        """
        if self.verdict == EQUAL:
            return ABOVE if self.low > 0 else BELOW if self.high < 0 else ""
        return self.verdict if self.verdict in (ABOVE, BELOW) else ""

    def __neg__(self) -> Difference:
        """The baseline against the group."""
        verdict = {ABOVE: BELOW, BELOW: ABOVE}.get(self.verdict, self.verdict)
        own = self.pair
        pair = None if own is None else Interval(-own.mean, -own.high, -own.low, own.n)
        return replace(self, mean=-self.mean, low=-self.high, high=-self.low, verdict=verdict, pair=pair)


@dataclass(frozen=True)
class Comparison:
    """What a study says of its groups against the baseline.

    - `table`: one row per stated group, never the baseline, in the frame's order: `difference`, `low`, `high` (NaN
      without a degree of freedom), `n` (seeds of the group with a value), `failed` (its runs without one), `verdict`,
      and `seeds_needed`, the number of seeds that would decide it with probability `POWER`, if the difference and the
      scatter are as seen (0: decided; `MOST` + 1: more; NaN: not known, or failed runs stand against a verdict).
    - `residuals`: one row per run: the group, the seed, `fitted` and `residual`. `values`: seeds x groups.
    - `sd`, `df`: the residual standard deviation and its degrees of freedom.
    - `seeds`: how many seeds were looked at; `waiting`: how many were left out, since their block is not complete;
      `alpha`: what this look may err; `complete`: whether the (first) planned look has been reached.
    - `critical`: the half-widths in standard errors. `correlation`: of the differences.
    """

    table: pandas.DataFrame
    residuals: pandas.DataFrame
    values: pandas.DataFrame
    baseline: Any
    margin: float
    sd: float
    df: int
    seeds: int
    waiting: int
    alpha: float
    complete: bool
    critical: float
    correlation: np.ndarray

    @property
    def verdicts(self) -> dict[Any, str]:
        """The verdict on each group."""
        return dict(self.table["verdict"])

    @property
    def seeds_needed(self) -> dict[Any, float]:
        """For each undecided group, how many seeds would decide it with probability `POWER`, if it is as seen."""
        return {name: row.seeds_needed for name, row in self.table.iterrows() if row.verdict == UNDECIDED}

    @property
    def intervals(self) -> dict[Any, Difference]:
        """The difference of each group to the baseline; its `n` is that of the one with fewer seeds."""
        most = int(self.values[self.baseline].notna().sum())
        together = int((self.table["n"] > 0).sum())
        pairs = self.pairs
        return {
            name: Difference(
                row.difference,
                row.low,
                row.high,
                min(int(row.n), most),
                row.verdict,
                row.seeds_needed,
                sd=self.sd,
                df=self.df,
                margin=self.margin,
                error=(row.high - row.low) / 2 / self.critical,
                together=together,
                pair=pairs.get(name),
            )
            for name, row in self.table.iterrows()
        }

    @property
    def pairs(self) -> dict[Any, Interval]:
        """The mean difference of each group by the seeds of the pair alone, with Student's interval for that one.

        The model takes the rest to scatter alike in all groups. Where one scatters more, its interval in `table` is too
        short, and this one shows it; with few seeds it is long.
        """
        differences = self.values.sub(self.values[self.baseline], axis=0)
        own = {name: differences[name].dropna() for name in self.table.index if name in differences}
        return {name: mean_interval(values) for name, values in own.items() if len(values)}

    def p_values(self) -> pandas.Series:
        """Dunnett's p for each group: of a largest |t| at least as large, among all groups, if none differed."""
        import pandas

        if not self.df:
            return pandas.Series(math.nan, index=self.table.index, name="p")
        errors = (self.table["high"] - self.table["difference"]) / self.critical
        t = (self.table["difference"].abs() / errors).where(errors != 0, 0)  # equal without any scatter
        p = [math.nan if math.isnan(one) else dunnett_p(self.correlation, self.df, one) for one in t]
        return pandas.Series(p, index=self.table.index, name="p")

    def permutation(self) -> pandas.Series:
        """A test without the model's normal rest: p for each group, for all groups together.

        If no pooler differs from the baseline, the differences of a seed are as likely with the other sign. The signs
        of a seed's differences change together, so that their correlation stays. p is the share of patterns of signs,
        one sign per seed, whose largest |t| among all groups is at least the |t| of the group as seen (Westfall and
        Young, 1993). With n seeds it is not below 2 / 2^n: a pattern and its opposite have the same |t|. Up to 12 seeds
        all patterns are tried, otherwise 20,000, always the same ones.
        """
        import pandas

        groups = [name for name in self.table.index if name in self.values.columns]
        differences = self.values[groups].sub(self.values[self.baseline], axis=0).dropna(how="all").to_numpy()
        count = len(differences)
        if count <= EXACT:
            signs = 1.0 - 2 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)
        else:
            signs = np.random.default_rng(0).choice((-1.0, 1.0), size=(PATTERNS, count))
            signs[0] = 1  # what was seen is one of the patterns
        seen = ~np.isnan(differences)
        n, filled = seen.sum(0), np.where(seen, differences, 0)
        # A change of sign leaves the sum of squares as it is, so |t| grows with |mean| alone, in a way of its own
        # for every group.
        mean = np.abs(signs @ filled) / np.maximum(n, 1)
        square = (filled**2).sum(0) / np.maximum(n, 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = mean / np.sqrt(np.maximum(square - mean**2, 1e-12 * square) / (n - 1))
        t = np.where((n >= 2) & (square > 0), t, 0)
        largest = t.max(axis=1, initial=0)
        real = [np.mean(largest >= one * (1 - 1e-9)) for one in np.where(n >= 2, t[0], 0)]
        return pandas.Series(np.where(n >= 2, real, math.nan), groups, name="p").reindex(self.table.index)


def compare(
    frame: pandas.DataFrame,
    value: str = "last",
    by: str = "pooler",
    baseline: Any = "max",
    *,
    of: Sequence[Any] | None = None,
    margin: float = MARGIN,
    looks: Sequence[int] = (),
    alpha: float = ALPHA,
    larger_is_better: bool = True,
) -> Comparison:
    """The groups of the column `by` against the `baseline`, in the column `value`.

    `of` are the groups whose differences are stated (default: all), as a claim names them before the runs are looked
    at; the intervals are true together for these. The other groups only tell how large the rest is.

    `frame` has one row per run, with a column `seed`; a run without a finite value is one that failed: it is counted,
    and since it is worse than any other, a verdict that it could overturn is not given. `looks` are the numbers of
    seeds after which a sequential study is looked at; `alpha` is spent on them in proportion to the seeds, each look on
    its own, so that all looks together err with probability `alpha` at most. Seeds beyond the last look that the
    baseline and every group that is stated have reached are left out until their block is complete; before the first
    look there are intervals, and no verdict. Without `looks` the study is looked at once.

    A group whose runs have all failed has a row without numbers. Raises `ValueError` if no run of the `baseline` has
    finished, if a group holds one seed twice, or if no seeds connect the groups.
    """
    frame = frame.assign(**{value: frame[value].where(np.isfinite(frame[value].astype(float)))})
    groups = list(dict.fromkeys(frame[by]))
    finished_groups = list(dict.fromkeys(frame.loc[frame[value].notna(), by]))
    if baseline not in finished_groups:
        accepted = ", ".join(map(str, finished_groups)) or "none: no runs"
        raise ValueError(f"baseline is {baseline!r}; accepted: {accepted}")
    if frame.duplicated([by, "seed"]).any():
        twice = frame.loc[frame.duplicated([by, "seed"]), by].iloc[0]
        raise ValueError(f"{twice}: one seed stands for several runs; choose rows that differ in their seed alone")
    wanted = [name for name in groups if of is None or name in of or name == baseline]
    kept, waiting, complete = _looked_at(frame, by, wanted, looks)
    spent = alpha_at(kept["seed"].nunique() if complete else 0, looks, alpha)
    done = kept[kept[value].notna()]
    finished, failed = (dict(rows[by].value_counts()) for rows in (done, kept[kept[value].isna()]))
    others = [name for name in groups if name != baseline and name in finished]
    estimate, covariance, df, residuals = _fit(done, value, by, others)
    sd = math.sqrt(float((residuals["residual"] ** 2).sum()) / df) if df else math.nan
    spread = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(spread, spread)
    stated = [name for name in others if of is None or name in of]
    places = [others.index(name) for name in stated]
    correlation = correlation[np.ix_(places, places)]
    critical = dunnett_critical(correlation, df, spent) if df and stated else math.nan
    rows = {}
    for place, name in zip(places, stated, strict=True):
        difference, half = float(estimate[place]), critical * sd * float(spread[place])
        low, high, n, lost = difference - half, difference + half, finished[name], failed.get(name, 0)
        verdict = verdict_of(low, high, margin)
        stands = _stands(verdict, lost, failed.get(baseline, 0), larger_is_better)
        enough = min(n, finished[baseline]) >= ENOUGH
        if not enough or not complete or not stands:
            verdict = UNDECIDED
        needed = 0.0 if stands else math.nan  # no number of seeds undoes a run that failed
        if verdict == UNDECIDED and stands:
            needed = seeds_needed(difference, sd, len(others) + 1, margin, looks, alpha, stated=len(stated))
        rows[name] = (difference, low, high, n, lost, verdict, needed)
    import pandas

    columns = ["difference", "low", "high", "n", "failed", "verdict", "seeds_needed"]
    names = [name for name in groups if name != baseline and (of is None or name in of)]
    empty = {name: (*[math.nan] * 3, 0, failed.get(name, 0), UNDECIDED, math.nan) for name in names}
    index = pandas.Index(names, name=by, dtype=object)
    table = pandas.DataFrame([(empty | rows)[name] for name in names], index=index, columns=columns)
    values = done.pivot(index="seed", columns=by, values=value)
    seeds = int(kept["seed"].nunique())
    return Comparison(
        table, residuals, values, baseline, margin, sd, df, seeds, waiting, spent, complete, critical, correlation
    )


def verdict_of(low: float, high: float, margin: float = MARGIN) -> str:
    """The verdict on a difference with this interval. One that is not known (NaN) is undecided."""
    if -margin < low and high < margin:
        return EQUAL
    return ABOVE if low > 0 else BELOW if high < 0 else UNDECIDED


def _stands(verdict: str, failed: int, lost: int, larger_is_better: bool) -> bool:
    """Whether failed runs of the group (`failed`) and of the baseline (`lost`) leave a verdict as it is."""
    against, in_favour = (failed, lost) if larger_is_better else (lost, failed)
    return not (against and verdict in (ABOVE, EQUAL)) and not (in_favour and verdict in (BELOW, EQUAL))


# ---- looks -----------------------------------------------------------------------------------------------------------


def alpha_at(seeds: int, looks: Sequence[int] = LOOKS, alpha: float = ALPHA) -> float:
    """What the look at so many seeds may err: with `LOOKS`, a sixth of `alpha` at each.

    Spent at a look is `alpha` in proportion to the seeds that it adds. Before the first look it is the first one's.
    """
    if not looks:
        return alpha
    reached = [look for look in looks if look <= seeds] or [looks[0]]
    added = reached[-1] - (reached[-2] if len(reached) > 1 else 0)
    return alpha * (added / looks[-1])


def _looked_at(
    frame: pandas.DataFrame, by: str, groups: Sequence[Any], looks: Sequence[int]
) -> tuple[pandas.DataFrame, int, bool]:
    """The runs of the last look that these groups have reached, how many seeds wait for the next, and if there is one.

    With each seed that is kept, the runs of the other groups are.
    """
    if not looks:
        return frame, 0, True
    per_seed = frame[frame[by].isin(groups)].groupby("seed")[by].nunique().sort_index()
    whole = [seed for seed, _ in itertools.takewhile(lambda one: one[1] == len(groups), per_seed.items())]
    reached = [look for look in looks if look <= len(whole)]
    if not reached:
        return frame, 0, False
    kept = whole[: reached[-1]]
    return frame[frame["seed"].isin(kept)], len(per_seed) - len(kept), True


def seeds_needed(
    difference: float,
    sd: float,
    groups: int,
    margin: float = MARGIN,
    looks: Sequence[int] = (),
    alpha: float = ALPHA,
    *,
    stated: int | None = None,
) -> float:
    """The smallest number of seeds of which a study would decide `difference`, if it is true, with probability `POWER`.

    Of a study that is looked at several times, the first look that would.

    `groups` counts the baseline; `stated` are the differences that hold together (default: all). NaN if the scatter is
    not known; `MOST` + 1 if that many would not do.
    """
    if math.isnan(sd):
        return math.nan

    def decides(seeds: int) -> bool:
        return power(difference, seeds, sd, groups, margin, alpha_at(seeds, looks, alpha), stated=stated) >= POWER

    for look in looks:
        if decides(look):
            return float(look)
    if not decides(MOST):
        return float(MOST + 1)
    low, high = (looks[-1] if looks else ENOUGH - 1), MOST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return float(high)


def power(
    difference: float,
    seeds: int,
    sd: float,
    groups: int,
    margin: float = MARGIN,
    alpha: float = ALPHA,
    *,
    stated: int | None = None,
) -> float:
    """The chance that a study in which all `groups` have so many `seeds` decides a true `difference`.

    Decided is what is told from 0, by the noncentral t distribution, or lies with its whole interval inside the margin.
    """
    from scipy.special import ndtr

    if not sd:
        return 1.0
    stated = groups - 1 if stated is None else stated
    df = (groups - 1) * (seeds - 1)
    found, weight = _chi_nodes(df)  # the scatter that the study finds, in true ones
    half = half_width(seeds, 1.0, groups, alpha, stated=stated) / math.sqrt(2 / seeds) * found
    true, limit = (value / (sd * math.sqrt(2 / seeds)) for value in (difference, margin))
    inside = np.maximum(limit - half, 0)
    told = ndtr(true - half) + ndtr(-true - half)
    equal = ndtr(inside - true) - ndtr(-inside - true)
    return float(weight @ np.minimum(told + equal, 1))


def half_width(seeds: int, sd: float, groups: int, alpha: float = ALPHA, *, stated: int | None = None) -> float:
    """Half-width of the intervals of a study in which all `groups`, the baseline among them, have so many `seeds`.

    `stated` differences hold together (default: all).
    """
    stated = groups - 1 if stated is None else stated
    df = (groups - 1) * (seeds - 1)
    equal = np.full((stated, stated), 0.5) + 0.5 * np.eye(stated)
    return dunnett_critical(equal, df, alpha) * sd * math.sqrt(2 / seeds)


# ---- the model -------------------------------------------------------------------------------------------------------


def _fit(done: pandas.DataFrame, value: str, by: str, others: Sequence[Any]) -> tuple[Any, ...]:
    """Least squares: the differences to the baseline, their covariance over the variance, df, and the residuals."""
    import pandas
    from statsmodels.api import OLS

    names, seeds = done[by].to_numpy(object), done["seed"].to_numpy()
    group = np.stack([names == name for name in others], 1) if others else np.zeros((len(done), 0))
    seed = seeds[:, None] == np.unique(seeds)
    design = np.hstack([group, seed]).astype(float)
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise ValueError(f"groups of {by!r} cannot be compared: no seeds connect them")
    fitted = OLS(done[value].to_numpy(float), design).fit()
    count = len(others)
    residuals = pandas.DataFrame({by: names, "seed": seeds})
    residuals["fitted"], residuals["residual"] = fitted.fittedvalues, fitted.resid
    df = len(done) - design.shape[1]
    return fitted.params[:count], np.asarray(fitted.normalized_cov_params)[:count, :count], df, residuals


# ---- Dunnett's distribution ------------------------------------------------------------------------------------------


def dunnett_critical(correlation: np.ndarray, df: float, alpha: float = ALPHA) -> float:
    """What the largest of several |t| of this `correlation` (k, k) and `df` exceeds with probability `alpha`."""
    return _critical(tuple(np.round(correlation, 12).ravel()), float(df), float(alpha))


def dunnett_p(correlation: np.ndarray, df: float, t: float) -> float:
    """The probability that the largest of several |t| is at least `t`."""
    return max(0.0, 1 - _probability(tuple(np.round(correlation, 12).ravel()), float(df), t))


@functools.lru_cache(maxsize=4096)
def _critical(correlation: tuple[float, ...], df: float, alpha: float) -> float:
    from scipy.optimize import brentq
    from scipy.stats import t

    count = math.isqrt(len(correlation))
    one, all_alone = float(t.isf(alpha / 2, df)), float(t.isf(alpha / (2 * count), df))  # Bonferroni's is the largest
    if count == 1:
        return one
    return float(brentq(lambda c: _probability(correlation, df, c) - (1 - alpha), one, all_alone + 1e-3, xtol=1e-12))


def _probability(correlation: tuple[float, ...], df: float, c: float) -> float:
    """P(max |t| <= c), by quadrature over two variables, given which the t are independent.

    t_i = (sqrt(1 - l_i^2) e_i + l_i z) / s, where e and z are normal and s^2 is a chi-square over df.
    """
    from scipy.special import ndtr

    count = math.isqrt(len(correlation))
    factors = _factors(np.reshape(correlation, (count, count)))
    z, weight_z = _normal_nodes()
    s, weight_s = _chi_nodes(df)
    rest = np.sqrt(1 - factors**2)[:, None, None]
    bound, shift = c * s[None, :, None], factors[:, None, None] * z[None, None, :]
    inside = ndtr((bound + shift) / rest) - ndtr((shift - bound) / rest)
    return float(weight_s @ inside.prod(axis=0) @ weight_z)


def _factors(matrix: np.ndarray) -> np.ndarray:
    """l with matrix_ij = l_i l_j off the diagonal: exact if no group lacks a seed (0.5), or for up to three groups.

    For groups that lack seeds here and there it is the nearest such matrix. With a third of all runs missing the
    probability is then right to 2e-5, as the tests hold against Genz's integral.
    """
    count = len(matrix)
    if count == 1:
        return np.zeros(1)
    first, second = np.triu_indices(count, 1)
    pairs = np.clip(matrix[first, second], 1e-6, 1 - 1e-9)
    sums = np.zeros((len(pairs), count))
    sums[np.arange(len(pairs)), first] = sums[np.arange(len(pairs)), second] = 1
    shares: np.ndarray = np.minimum(np.exp(np.linalg.lstsq(sums, np.log(pairs), rcond=None)[0]), 1 - 1e-9)
    return shares


@functools.lru_cache(maxsize=1)
def _normal_nodes() -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights for z: with those for s, probabilities to 1e-7."""
    x, weight = np.polynomial.legendre.leggauss(48)
    z = 7 * x
    return z, 7 * weight * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)


@functools.lru_cache(maxsize=256)
def _chi_nodes(df: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights for s = chi / sqrt(df)."""
    from scipy.stats import chi

    law = chi(df, scale=1 / math.sqrt(df))
    low, high = law.ppf(1e-10), law.isf(1e-10)
    x, weight = np.polynomial.legendre.leggauss(48)
    s = low + (high - low) * (x + 1) / 2
    return s, weight * (high - low) / 2 * law.pdf(s)
