"""What the records of the book say: runs that differ in stated parameters only, their differences, and verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from poolnb.lab.analysis import Comparison, compare
from poolnb.lab.config import RunConfig
from poolnb.lab.provenance import BOOK, RESULTS, note_use
from poolnb.lab.records import Record, load_records, records_frame
from poolnb.lab.statistics import ENOUGH, Interval, PairedDifference, corrected, mean_interval, paired_difference
from poolnb.lab.sweeps.sweep import read_sweep

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

SWEEPS = BOOK / "experiments" / "sweeps"
HOLDS, FAILS, OPEN, UNTESTED, PARTLY = "holds", "does not hold", "undecided", "not tested", "holds in part"
_ORDER = (HOLDS, FAILS, OPEN, f"{OPEN}, n too small", UNTESTED)


# ---- runs ------------------------------------------------------------------------------------------------------------


def planned(sweep: str) -> list[RunConfig]:
    """The runs that the file `sweep` of `book/experiments/sweeps` plans."""
    note_use(SWEEPS)
    return list(read_sweep(SWEEPS / f"{sweep}.toml").configs)


def length(sweep: str) -> int:
    """Epochs of the runs that a sweep plans."""
    return planned(sweep)[0].epochs


def records_in(*folders: str) -> list[Record]:
    """The finished runs in these folders of `book/results`. A folder that is not there yet has no runs."""
    there = [RESULTS / folder for folder in folders if (RESULTS / folder).is_dir()]
    return [record for folder in there for record in load_records(folder)]


def select(*folders: str, epochs: int, vary: Sequence[str] = ("pooler", "seed"), **fixed: Any) -> list[Record]:
    """The runs in these folders of `book/results`, cut to `epochs`, that agree in all parameters but those in `vary`.

    What is neither in `vary` nor in `fixed` has its default. A longer run counts with its first epochs; a run that is
    in two folders counts once.
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


def study(sweep: str, folder: str | None = None) -> pandas.DataFrame:
    """The runs of a sweep that are there, one row each as in `table`: also those that failed, whose values are NaN.

    `folder` of `book/results` has its records (default: the one of the sweep's name). A sweep whose file is not there
    yet has no runs.
    """
    if not (SWEEPS / f"{sweep}.toml").is_file() or not (RESULTS / (folder or sweep)).is_dir():
        return table([])
    keys = {config.key for config in planned(sweep)}
    there = load_records(RESULTS / (folder or sweep), failed=True)
    return table(record for record in there if record.key in keys)


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
    found = {
        "last": 100 * curves["test_accuracy"][-1],
        "flattered": 100 * max(curves["test_accuracy"]),
        "rise": curves["test_loss"][-1] - min(curves["test_loss"]),
        "train_loss": curves["train_loss"][-1],
    }
    if stopped is not None:
        found["chosen"] = 100 * stopped["test_accuracy"]
        found["last_validation"] = 100 * curves["validation_accuracy"][-1]
    return found


def compared(
    frame: pandas.DataFrame, value: str = "last", by: str = "pooler", baseline: Any = "max", **how: Any
) -> Comparison | None:
    """`analysis.compare`; None as long as no run of the baseline, and of another group, has finished."""
    if frame.empty:
        return None
    finished = set(frame.loc[frame[value].notna(), by])
    return compare(frame, value, by, baseline, **how) if baseline in finished and len(finished) > 1 else None


def interval(found: Comparison | None, name: Any) -> Interval | None:
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


def gap(values: Mapping[Any, float], baseline: Mapping[Any, float]) -> PairedDifference | None:
    """The difference paired by seed, or None if no seed has both."""
    return paired_difference(values, baseline) if values.keys() & baseline.keys() else None


def differences(frame: pandas.DataFrame, value: str, by: str = "pooler", baseline: Any = "max") -> dict[Any, Any]:
    """For every value of the column `by` but the `baseline`: the paired difference to it, and its p after Holm.

    The p of a difference of too few pairs is NaN; `statistics.corrected` has the rule.
    """
    if frame.empty:
        return {}
    reference = by_seed(frame, value, **{by: baseline})
    found = {name: gap(by_seed(frame, value, **{by: name}), reference) for name in frame[by].unique()}
    kept = {name: one for name, one in found.items() if one is not None and name != baseline}
    return {name: (one, p) for (name, one), p in zip(kept.items(), corrected(list(kept.values())), strict=True)}


# ---- verdicts --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """One number that a claim is judged by: what it is, its interval (None: it was not measured), and the verdict.

    With an `aside`, a few words for it, it is no part of the claim, but stands beside the verdict: a rival explanation.
    """

    what: str
    interval: Interval | None
    unit: str
    verdict: str
    aside: str = ""

    @property
    def value(self) -> str:
        """The number in words."""
        if self.interval is not None and self.interval.low == self.interval.high:  # counted, not estimated
            return f"{self.interval.mean:.3g} {self.unit}".strip() + f", n = {self.interval.n}"
        return say(self.interval, self.unit)


def above(interval: Interval | None, bound: float = 0.0) -> str:
    """The verdict on "it is more than `bound`"."""
    if interval is None:
        return UNTESTED
    if interval.n < ENOUGH or math.isnan(interval.low):
        return f"{OPEN}, n too small"
    return HOLDS if interval.low > bound else FAILS if interval.high < bound else OPEN


def below(interval: Interval | None, bound: float = 0.0) -> str:
    """The verdict on "it is less than `bound`"."""
    return {HOLDS: FAILS, FAILS: HOLDS}.get(verdict := above(interval, bound), verdict)


def overall(findings: Sequence[Finding]) -> str:
    """The verdict on a claim of which every finding without an `aside` is a part.

    A claim is all of its parts. So it holds (or is answered) if all do; it does not hold as soon as one part does not,
    whatever becomes of the undecided ones, and holds in part if another one does hold; and it is undecided otherwise.
    A part without runs is one with too few, unless no part has any: then the claim is not tested.
    """
    verdicts = {one.verdict for one in findings if not one.aside}
    if len(verdicts) == 1:
        return verdicts.pop()
    if FAILS in verdicts:
        return PARTLY if HOLDS in verdicts else FAILS
    return OPEN if OPEN in verdicts else f"{OPEN}, n too small"


def beside(findings: Sequence[Finding]) -> list[str]:
    """What stands beside the verdict: the asides, gathered by how each turned out."""
    kept = {verdict: [one.aside for one in findings if one.aside and one.verdict == verdict] for verdict in _ORDER}
    return [f"{verdict}: {', '.join(names)}" for verdict, names in kept.items() if names]


# ---- words and figures -----------------------------------------------------------------------------------------------


def say(interval: Interval | None, unit: str = "points", digits: int = 2) -> str:
    """An interval in words: `+0.84 ± 0.32 points, n = 3`."""
    if interval is None:
        return "no runs yet"
    tail = f" {unit}, n = {interval.n}" if unit else f", n = {interval.n}"
    if interval.n == 1 or math.isnan(interval.low):
        return f"{interval.mean:+.{digits}f}{tail} (one run, no interval)"
    return f"{interval.mean:+.{digits}f} ± {interval.half_width:.{digits}f}{tail}"


def level(values: Mapping[int, float], unit: str = "%", digits: int = 2) -> str:
    """Mean and half-width of values by seed: `70.48 ± 2.11 %, n = 3`."""
    return say(mean_interval(values.values()) if values else None, unit, digits).lstrip("+")


def forest(ax: Axes, rows: Mapping[str, Interval | None], label: str, colours: Mapping[str, str] | None = None) -> None:
    """Draw one interval per row, top to bottom, about a line at 0; of fewer than three pairs a hollow point alone.

    A row that is None, for which there are no runs yet, is left empty.
    """
    from poolnb.book import plots

    if not any(rows.values()):
        _ = ax.text(0.5, 0.5, "no runs yet", ha="center", va="center", transform=ax.transAxes)
        ax.set_axis_off()
        return
    ax.axvline(0, color=plots.FAINT, linewidth=1)
    for place, (name, one) in enumerate(rows.items()):
        if one is None:
            continue
        colour = (colours or {}).get(name, plots.INK)
        if one.n >= ENOUGH:
            ax.plot([one.low, one.high], [place, place], color=colour, linewidth=2, solid_capstyle="butt")
        ax.plot(one.mean, place, marker="o", color=colour, markerfacecolor=colour if one.n >= ENOUGH else "white")
    ax.set(yticks=range(len(rows)), yticklabels=list(rows), xlabel=label, ylim=(len(rows) - 0.5, -0.5))
