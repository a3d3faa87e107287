"""What the records of the book say: runs that differ in stated parameters only, their differences, and verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from poolnb.lab.analysis import (
    ABOVE,
    BELOW,
    ENOUGH,
    EQUAL,
    UNDECIDED,
    Comparison,
    Difference,
    compare,
    verdict_of,
)
from poolnb.lab.config import RunConfig
from poolnb.lab.provenance import BOOK, RESULTS, note_use
from poolnb.lab.records import Record, load_records, records_frame
from poolnb.lab.statistics import Interval, mean_interval
from poolnb.lab.sweeps.sweep import read_sweep

if TYPE_CHECKING:
    import pandas

SWEEPS = BOOK / "experiments" / "sweeps"
HOLDS, FAILS, OPEN, UNTESTED, PARTLY = "holds", "does not hold", "undecided", "not tested", "holds in part"
ANSWERED = "answered"  # of a question
VERDICTS = (HOLDS, FAILS, PARTLY, OPEN, UNTESTED, ANSWERED)
WAITING, FEW = REASONS = ("a part has no runs", "n too small")
_ORDER = (HOLDS, FAILS, OPEN, f"{OPEN}, {FEW}", UNTESTED)


# ---- runs ------------------------------------------------------------------------------------------------------------


def planned(sweep: str) -> list[RunConfig]:
    """The runs that the file `sweep` of `book/experiments/sweeps` plans."""
    note_use(SWEEPS)
    return list(read_sweep(SWEEPS / f"{sweep}.toml").configs)


def length(sweep: str) -> int:
    """Epochs of the runs that a sweep plans."""
    return planned(sweep)[0].epochs


def records_in(*folders: str, failed: bool = False) -> list[Record]:
    """The finished runs in these folders of `book/results`, and those that failed if asked for.

    A folder that is not there yet has no runs.
    """
    there = [RESULTS / folder for folder in folders if (RESULTS / folder).is_dir()]
    return [record for folder in there for record in load_records(folder, failed=failed)]


def select(*folders: str, epochs: int, vary: Sequence[str] = ("pooler", "seed"), **fixed: Any) -> list[Record]:
    """The runs in these folders of `book/results`, cut to `epochs`, that agree in all parameters but those in `vary`.

    What is neither in `vary` nor in `fixed` has its default. A longer run counts with its first epochs; a run that is
    in two folders counts once. Runs that failed have no curves and are left out; `study` keeps them.
    """
    wanted = RunConfig(epochs=epochs, **fixed)
    same = [spec.name for spec in fields(RunConfig) if spec.metadata["identity"] and spec.name not in vary]
    found: dict[str, Record] = {}
    for record in records_in(*folders):
        like = replace(record.config, epochs=epochs)
        if all(getattr(like, name) == getattr(wanted, name) for name in same):
            with suppress(ValueError):  # a shorter run, or one whose learning rate falls by another epoch
                found.setdefault(like.key, record.first(epochs))
    return list(found.values())


def study(*sweeps: str, folder: str = "") -> pandas.DataFrame:
    """The runs of a sweep that are there, one row each as in `table`: also those that failed, whose values are NaN.

    Of several sweeps, all runs: their records are in one folder, by default that of the first one's name. A sweep whose
    file is not there yet has no runs.
    """
    records = RESULTS / (folder or sweeps[0])
    there = [sweep for sweep in sweeps if (SWEEPS / f"{sweep}.toml").is_file()]
    keys = {config.key for sweep in there for config in planned(sweep)}
    if not keys or not records.is_dir():
        return table([])
    return table(record for record in load_records(records, failed=True) if record.key in keys)


def few_digits() -> pandas.DataFrame:
    """The runs of all poolers on 300 digits, one row each: three sweeps that differ in poolers alone."""
    folders = ("sampling-digits", "means-digits", "learned-digits")
    return table(select(*folders, epochs=40, dataset="digits", limit=300, learning_rate=3e-3, batch_size=32))


def table(records: Iterable[Record]) -> pandas.DataFrame:
    """One row per run: its parameters, and what chapters compare, accuracies in percent.

    `last`: test accuracy of the last epoch, and `last_validation` on the held-out samples; `chosen`: of the epoch with
    the best validation accuracy; `flattered`: of the epoch with the best test accuracy, which is how to fool oneself;
    `rise`: how far the test loss ends above its lowest value; `train_loss`: of the last epoch. All are NaN for a run
    that failed.
    """
    records = list(records)
    frame = records_frame(records)
    if not records:
        return frame
    values = [_values(record) if record.status == "done" else {} for record in records]
    for name in ("last", "last_validation", "chosen", "flattered", "rise", "train_loss"):
        frame[name] = [one.get(name, math.nan) for one in values]
    return frame


def _values(record: Record) -> dict[str, float]:
    curves, stopped = record.curves, record.summary["early_stopped"]
    test_losses = [loss for loss in curves["test_loss"] if loss is not None]
    found = {
        "last": 100 * curves["test_accuracy"][-1],
        "flattered": 100 * max(one for one in curves["test_accuracy"] if one is not None),
        "rise": math.inf if curves["test_loss"][-1] is None else curves["test_loss"][-1] - min(test_losses),
        "train_loss": curves["train_loss"][-1],
    }
    if stopped is not None:
        found["chosen"] = 100 * stopped["test_accuracy"]
        found["last_validation"] = 100 * curves["validation_accuracy"][-1]
    return found


def by_group(groups: Mapping[Any, Mapping[int, float]]) -> pandas.DataFrame:
    """What `compared` takes, of values by seed in several groups: the columns `group`, `seed` and `value`."""
    import pandas

    rows = [(name, seed, value) for name, values in groups.items() for seed, value in values.items()]
    return pandas.DataFrame(rows, columns=["group", "seed", "value"])


def compared(
    frame: pandas.DataFrame, value: str = "last", by: str = "pooler", baseline: Any = "max", **how: Any
) -> Comparison | None:
    """`analysis.compare`; None as long as no run of the baseline, and of another group, has finished on one seed.

    A group that has finished no seed of the baseline's waits for one.
    """
    if frame.empty:
        return None
    finished = frame[frame[value].notna()]
    seeds = {name: set(rows["seed"]) for name, rows in finished.groupby(by, sort=False)}
    shared = {name for name, own in seeds.items() if own & seeds.get(baseline, set())}
    kept = frame[[name in shared or name not in seeds for name in frame[by]]]
    return compare(kept, value, by, baseline, **how) if len(shared) > 1 else None


def difference(
    frame: pandas.DataFrame, value: str, name: Any, baseline: Any = "max", by: str = "pooler", **how: Any
) -> Difference | None:
    """The difference of one group to another, stated alone: all runs of `frame` say how large the rest is.

    None if there is none yet.
    """
    return interval(compared(frame, value, by, baseline, of=[name], **how), name)


def apart(values: Mapping[int, float], baseline: Mapping[int, float], **how: Any) -> Difference | None:
    """The difference of two groups of values by seed, where there are no others; None without a seed in common."""
    both = values.keys() & baseline.keys()
    groups = {"values": {seed: values[seed] for seed in both}, "baseline": {seed: baseline[seed] for seed in both}}
    return difference(by_group(groups), "value", "values", "baseline", "group", **how)


def interval(found: Comparison | None, name: Any) -> Difference | None:
    """The difference of the group `name` to the baseline, or None if there is none yet."""
    one = None if found is None else found.intervals.get(name)
    return one if one is not None and one.n else None


def by_seed(frame: pandas.DataFrame, value: str, **chosen: Any) -> dict[int, float]:
    """The column `value` by seed, of the rows in which every column named in `chosen` has that value."""
    if frame.empty:
        return {}
    for name, wanted in chosen.items():
        frame = frame.loc[[one == wanted for one in frame[name]]]
    if frame["seed"].duplicated().any():
        raise ValueError(f"{chosen}: one seed stands for several runs; choose more parameters")
    return dict(zip(frame["seed"].astype(int), frame[value].astype(float), strict=True))


# ---- verdicts --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """One number that a claim is judged by: what it is, its interval (None: it was not measured), and the verdict.

    `bound` is what the claim says that it is more, or less, than. With an `aside`, a few words for it, it is no part of
    the claim, but stands beside the verdict: a rival explanation. `study` names the sweep whose runs decide it, where
    that is not the claim's own.
    """

    what: str
    interval: Interval | None
    unit: str
    verdict: str
    aside: str = ""
    bound: float = 0.0
    study: str = ""

    @property
    def value(self) -> str:
        """The number in words."""
        if self.interval is not None and self.interval.low == self.interval.high:  # counted, not estimated
            return f"{self.interval.mean:.3g} {self.unit}".strip() + f", n = {self.interval.n}"
        return say(self.interval, self.unit, digits=2 if self.unit else 3)  # a cosine or a loss is small

    @property
    def word(self) -> str:
        """The verdict on the difference; of another number, that on the claim."""
        one = self.interval
        if not isinstance(one, Difference) or one.n < ENOUGH:
            return self.verdict
        if self.verdict == FAILS and one.verdict == UNDECIDED and not self.bound:
            side = ABOVE if excludes(one, ABOVE) else BELOW
            return f"undecided, but not {side} by {one.margin:g} {self.unit}".rstrip()
        return words(one, self.bound, self.unit)

    @property
    def said(self) -> str:
        """All of it: `accuracy, max - avg: +0.84 ± 0.32 points, n = 3: above (holds)`."""
        verdict = "" if self.verdict == self.word else f" ({self.verdict})"
        return "; ".join(filter(None, (f"{self.what}: {self.value}: {self.word}{verdict}", self.doubt)))

    @property
    def doubt(self) -> str:
        """What the pairs alone say where only the scatter of all poolers tells the difference from 0, else nothing."""
        one = self.interval
        doubtful = isinstance(one, Difference) and one.by_others and not self.bound
        return f"by its pairs alone {say(one.pair, self.unit)}, undecided" if doubtful else ""  # type: ignore[union-attr]


def words(one: Difference, bound: float = 0.0, unit: str = "points") -> str:
    """The verdict on a difference: above, below, equal within the margin, undecided; of a bound that is not 0, too.

    A difference inside the margin whose interval does not contain 0 is `above, but by less than 0.5 points`.
    """
    if bound:
        verdict, against = _beyond(one, bound), f"{bound:g} {unit}".rstrip()
        if verdict != UNDECIDED:
            return f"{verdict} {against}"
        return f"{one.verdict} 0, {UNDECIDED} against {against}" if one.verdict in (ABOVE, BELOW) else UNDECIDED
    if one.verdict != EQUAL:
        return one.verdict
    margin = f"{one.margin:g} {unit}".rstrip()
    return f"{one.side}, but by less than {margin}" if one.side else f"equal within {margin}"


def _beyond(one: Interval, bound: float) -> str:
    """On which side of `bound` an interval lies. Of a difference about 0 its own verdict counts, with its margin.

    An interval that lies inside the margin and does not contain 0 is on its side of 0.
    """
    if isinstance(one, Difference) and not bound:
        return one.side or one.verdict
    return verdict_of(one.low - bound, one.high - bound, margin=0)


def above(interval: Interval | None, bound: float = 0.0) -> str:
    """The verdict on "it is more than `bound`"; about 0, what contains 0 and is not more by the margin is not more."""
    return _judged(interval, bound, ABOVE)


def below(interval: Interval | None, bound: float = 0.0) -> str:
    """The verdict on "it is less than `bound`"; about 0, what contains 0 and is not less by the margin is not less."""
    return _judged(interval, bound, BELOW)


def _judged(interval: Interval | None, bound: float, claimed: str) -> str:
    if interval is None:
        return UNTESTED
    if interval.n < ENOUGH or math.isnan(interval.low):
        return f"{OPEN}, {FEW}"
    verdict = _beyond(interval, bound)
    if verdict == UNDECIDED:
        return FAILS if not bound and excludes(interval, claimed) else OPEN
    return HOLDS if verdict == claimed else FAILS


def excludes(one: Interval, side: str) -> bool:
    """Whether a difference cannot lie on a side of 0 by as much as its margin, wherever else it may lie.

    Not where failed runs are the reason that it is undecided: they are in no interval.
    """
    if not isinstance(one, Difference) or verdict_of(one.low, one.high, one.margin) != one.verdict:
        return False
    return one.high < one.margin if side == ABOVE else one.low > -one.margin


def overall(findings: Sequence[Finding]) -> str:
    """The verdict on a claim of which every finding without an `aside` is a part.

    A claim is all of its parts. So it holds (or is answered) if all do; it holds in part if one does and another does
    not; it does not hold if one part does not and none does, even while others are undecided, if all parts have runs;
    and it is undecided otherwise. If no part has runs the claim is not tested. If some have none the verdict says so,
    and with too few runs where the other parts do not decide it.
    """
    verdicts = {one.verdict for one in findings if not one.aside}
    if len(verdicts) == 1:
        return verdicts.pop()
    if {FAILS, HOLDS} <= verdicts:
        found = PARTLY
    elif FAILS in verdicts and UNTESTED not in verdicts:
        return FAILS
    else:
        found = OPEN
    if UNTESTED in verdicts:
        return f"{found}, {WAITING}"
    few = f"{OPEN}, {FEW}"
    return few if found == OPEN and few in verdicts and OPEN not in verdicts else found


def beside(findings: Sequence[Finding]) -> list[str]:
    """What stands beside the verdict and does not count for it: the asides, gathered by how each turned out."""
    kept = {verdict: [one.aside for one in findings if one.aside and one.verdict == verdict] for verdict in _ORDER}
    return [f"not counted, {verdict}: {'; '.join(names)}" for verdict, names in kept.items() if names]


# ---- words and figures -----------------------------------------------------------------------------------------------


def say(interval: Interval | None, unit: str = "points", digits: int = 2) -> str:
    """An interval in words: `+0.84 ± 0.32 points, n = 3`; it says so if it is true together with others."""
    if interval is None:
        return "no runs yet"
    tail = f" {unit}, n = {interval.n}" if unit else f", n = {interval.n}"
    if interval.n == 1 or math.isnan(interval.low):
        return f"{interval.mean:+.{digits}f}{tail} (one run, no interval)"
    mean = round(interval.mean, digits) + 0.0  # no -0.00
    joint = ", joint" if isinstance(interval, Difference) and interval.together > 1 else ""
    return f"{mean:+.{digits}f} ± {interval.half_width:.{digits}f}{tail}{joint}"


def level(values: Mapping[int, float], unit: str = "%", digits: int = 2) -> str:
    """Mean and half-width of values by seed: `70.48 ± 2.11 %, n = 3`."""
    return say(mean_interval(values.values()) if values else None, unit, digits).lstrip("+")
