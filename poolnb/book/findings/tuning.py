"""What the comparison's poolers are trained with: chosen by the tuning runs, and written into its sweep files.

    python -m poolnb.book.findings.tuning [--seeds N]

writes the sweep files of `STUDIES` from the records of `tuning.toml`, so that nobody copies a number by hand.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from poolnb.book.findings.evidence import SWEEPS, planned
from poolnb.lab.analysis import LOOKS
from poolnb.lab.config import RunConfig
from poolnb.lab.errors import UserError
from poolnb.lab.provenance import RESULTS
from poolnb.lab.records import Record, load_records

FOLDER = "tuning"
TUNED = ("learning_rate", "pool_learning_rate")
SEEDS = 12  # of each pooler, to begin with

# The sweep files that train with the tuned values: what they say of themselves, and what all their runs share.
STUDIES: dict[str, tuple[str, dict[str, Any]]] = {
    "comparison-tuned": (
        "All poolers at an equal budget of ten epochs on CIFAR-10, each with the rates that tuning.toml chose",
        {"dataset": "cifar10", "epochs": 10, "schedule": "linear"},
    ),
    "mnist1000": (
        "All poolers on 1000 images of MNIST for 60 epochs, each with the rates that tuning.toml chose on CIFAR-10",
        {"dataset": "mnist", "limit": 1000, "epochs": 60, "schedule": "linear", "evaluate_every": 10},
    ),
}


class IncompleteError(UserError):
    """A choice that cannot be made yet: tuning runs are missing, or all of a pooler's have failed."""


@dataclass(frozen=True)
class Candidate:
    """One setting of one pooler: its configuration with the seed left at 0, and what its seeds reached.

    `accuracies` are those of the last epoch on the validation samples, in percent; None is a run that failed.
    """

    config: RunConfig
    accuracies: tuple[float | None, ...]

    @property
    def mean(self) -> float:
        """Their mean; minus infinity if a run has failed, since a setting that may diverge is not chosen."""
        if None in self.accuracies:
            return float("-inf")
        return sum(filter(None, self.accuracies)) / len(self.accuracies)


def tuning_records() -> list[Record]:
    """The tuning runs that are there, the failed ones too."""
    folder = RESULTS / FOLDER
    return load_records(folder, failed=True) if folder.is_dir() else []


def candidates(plan: Sequence[RunConfig], records: Iterable[Record]) -> list[Candidate]:
    """The settings that `plan` tries, in its order. Raises `IncompleteError` if a planned run has no record."""
    found = {record.key: record for record in records}
    missing = [config.name for config in plan if config.key not in found]
    if missing:
        raise IncompleteError(f"{len(missing)} of {len(plan)} tuning runs are missing, the first is {missing[0]}")
    return [
        Candidate(replace(runs[0], seed=0), tuple(_validation(found[config.key]) for config in runs))
        for runs in _by_setting(plan)
    ]


def _validation(record: Record) -> float | None:
    return 100 * record.curves["validation_accuracy"][-1] if record.status == "done" else None


def choose(tried: Sequence[Candidate]) -> dict[str, Candidate]:
    """The best setting of every pooler: by validation alone, the first one tried at a tie."""
    chosen: dict[str, Candidate] = {}
    for one in tried:
        best = chosen.setdefault(one.config.pooler, one)
        if one.mean > best.mean:
            chosen[one.config.pooler] = one
    failed = [name for name, one in chosen.items() if one.mean == float("-inf")]
    if failed:
        raise IncompleteError(f"every setting of {', '.join(failed)} has a failed run; try smaller rates")
    return chosen


@dataclass(frozen=True)
class Tried:
    """How far a setting has been tried: `mean` validation accuracy in percent over those of its `planned` seeds that
    are there; None without any, minus infinity if a run has failed."""

    mean: float | None
    seeds: int
    planned: int

    @property
    def whole(self) -> bool:
        """No run is missing."""
        return self.seeds == self.planned


def tried(plan: Sequence[RunConfig], records: Iterable[Record]) -> dict[str, dict[tuple[float, float], Tried]]:
    """What the tuning has found so far, by pooler and setting (rate, factor)."""
    there = list(records)
    keys = {record.key for record in there}
    found: dict[str, dict[tuple[float, float], Tried]] = {}
    for runs in _by_setting(plan):
        one, done = runs[0], [config for config in runs if config.key in keys]
        mean = candidates(done, there)[0].mean if done else None
        setting = one.learning_rate, one.pool_learning_rate
        found.setdefault(one.pooler, {})[setting] = Tried(mean, len(done), len(runs))
    return found


def _by_setting(plan: Iterable[RunConfig]) -> list[list[RunConfig]]:
    """The runs of `plan` that differ in their seed alone, together, in its order."""
    seen: dict[str, list[RunConfig]] = {}
    for config in plan:
        seen.setdefault(replace(config, seed=0).key, []).append(config)
    return list(seen.values())


def sweep_text(study: str, chosen: Mapping[str, Candidate], seeds: int = SEEDS) -> str:
    """The sweep file of a study: every pooler with its chosen values, for seeds from 0."""
    description, fixed = STUDIES[study]
    lines = [
        "# Written by `python -m poolnb.book.findings.tuning` from the records of tuning.toml.",
        f'description = "{description}"',
        "",
        "[fixed]",
        *(f"{name} = {_toml(value)}" for name, value in fixed.items()),
        'optimizer = "adam"',
        "batch_size = 64",
        "threads = 1",
    ]
    for pooler, one in chosen.items():
        lines += ["", "[[variants]]", f'pooler = "{pooler}"']
        lines += [f"{name} = {_toml(getattr(one.config, name))}" for name in TUNED]
    lines += ["", "[grid]", f"seed = {list(range(seeds))}"]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def write(studies: Iterable[str] = tuple(STUDIES), seeds: int = SEEDS) -> list[Path]:
    """Write the sweep files of these studies. Raises `IncompleteError` if the tuning does not allow a choice yet."""
    picked = choose(candidates(planned("tuning"), tuning_records()))
    paths = [SWEEPS / f"{study}.toml" for study in studies]
    for path in paths:
        path.write_text(sweep_text(path.stem, picked, seeds), encoding="utf-8")
    return paths


def main(argv: Sequence[str] | None = None) -> int:
    """Write the sweep files of all studies."""
    parser = argparse.ArgumentParser(prog="python -m poolnb.book.findings.tuning", description=__doc__)
    parser.add_argument("--seeds", type=int, choices=LOOKS, default=SEEDS, help="seeds of each pooler")
    arguments = parser.parse_args(argv)
    try:
        paths = write(seeds=arguments.seeds)
    except IncompleteError as error:
        parser.exit(2, f"poolnb: error: {error}\n")
    for path in paths:
        print(f"written: {path.name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
