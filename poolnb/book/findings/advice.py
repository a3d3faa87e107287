"""Which pool to use: every study against max pooling, what it says of each pooler, and what each pooler costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from poolnb.book.findings import evidence, ledger
from poolnb.book.findings.tdgs import TITLES, recipe_table
from poolnb.lab.analysis import ABOVE, BELOW, EQUAL, UNDECIDED, Comparison

BASELINE = "max"


def studies() -> dict[str, Comparison | None]:
    """The studies that compare poolers with max pooling, by title; None as long as a study has no runs."""
    found: dict[str, Comparison | None] = {}
    for dataset, title in TITLES.items():
        found[ledger.TUNED[dataset][1]] = ledger.tuned_so_far(dataset)
        found[f"{title}, {ledger.EPOCHS} epochs"] = evidence.compared(ledger.comparison(dataset))
        found[f"{title}, 25 epochs"] = long_runs(dataset)
    found["300 digits"] = evidence.compared(evidence.few_digits())
    return found | ledger.on_backbones()


def long_runs(dataset: str) -> Comparison | None:
    """The full runs by the recipe on a data set. Forms of one pooler, such as TDGS with softplus, are not stated."""
    runs = recipe_table(dataset)
    return None if runs.empty else evidence.compared(runs, of=[name for name in set(runs["pooler"]) if "," not in name])


def poolers(found: Mapping[str, Comparison | None]) -> list[str]:
    """The poolers that any of the studies has compared, max first, those that do best on the first one next."""
    there = [one for one in found.values() if one is not None]
    gains: dict[str, float] = {}
    for one in there:
        for name, difference in one.intervals.items():
            gains.setdefault(str(name), difference.mean)
    return [BASELINE, *sorted(gains, key=lambda name: -gains[name])]


def by_verdict(found: Comparison | None) -> dict[str, list[str]]:
    """The poolers of a study by what it says of them against max."""
    verdicts: Mapping[Any, str] = found.verdicts if found is not None else {}
    return {
        word: [str(name) for name, verdict in verdicts.items() if verdict == word]
        for word in (ABOVE, BELOW, EQUAL, UNDECIDED)
    }


def better(found: Mapping[str, Comparison | None]) -> list[str]:
    """The poolers that are above max in some study and below it in none."""
    sorted_out = [by_verdict(one) for one in found.values()]
    above = {name for one in sorted_out for name in one[ABOVE]}
    return sorted(above - {name for one in sorted_out for name in one[BELOW]})


def never_below(found: Mapping[str, Comparison | None]) -> list[str]:
    """The poolers that no study has put below max."""
    below = {name for one in found.values() for name in by_verdict(one)[BELOW]}
    return [name for name in poolers(found) if name not in below]
