"""What of a plan of runs is done and what is missing, in words: from the sweeps' files and the records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from poolnb.book.findings import studies, tuning
from poolnb.book.findings.evidence import OPEN, SWEEPS, UNTESTED, Finding, planned, records_in
from poolnb.book.findings.ledger import EPOCHS, Row, comparison
from poolnb.book.findings.pages import Table, where
from poolnb.book.findings.tdgs import RECIPE, TITLES, recipe_name
from poolnb.lab.analysis import MOST, Difference, seeds_needed
from poolnb.lab.config import RunConfig
from poolnb.lab.data import DATASETS
from poolnb.lab.measurements.records import KINDS, done_of_plan
from poolnb.lab.provenance import RESULTS
from poolnb.lab.records import Record

__all__ = ["Progress", "comparison_runs", "planned", "progress", "state_of_studies", "still_open"]


@dataclass(frozen=True)
class Progress:
    """The runs of a plan: their records, and those that have none."""

    plan: Sequence[RunConfig]
    done: Sequence[Record]
    missing: Sequence[RunConfig]

    @property
    def count(self) -> str:
        """`14 of 40 planned runs (14 on cpu)`."""
        tail = f" ({where(self.done)})" if self.done else ""
        return f"{len(self.done)} of {len(self.plan)} planned runs{tail}"

    @property
    def lack(self) -> str:
        """`none`, or what is missing by data set: `CIFAR-10: tdgs (seeds 3, 4); MNIST: all`."""
        parts = []
        for dataset in dict.fromkeys(config.dataset for config in self.plan):
            wanted, lacking = ([c for c in runs if c.dataset == dataset] for runs in (self.plan, self.missing))
            names = "all" if len(lacking) == len(wanted) else ", ".join(_groups(wanted, lacking))
            parts += [f"{DATASETS[dataset].title}: {names}"] if lacking else []
        return "; ".join(parts) or "none"


def progress(plan: Iterable[RunConfig], *folders: str) -> Progress:
    """What of `plan` is done in these folders of `book/results`. A longer run counts for a shorter one, if it began as
    that one does; a run that failed is done.
    """
    plan = list(plan)
    there: dict[str, list[Record]] = {}
    for record in sorted(records_in(*folders, failed=True), key=lambda record: -record.config.epochs):
        there.setdefault(_kind(record.config), []).append(record)
    done: dict[str, Record] = {}
    for config in plan:
        serving = [record for record in there.get(_kind(config), ()) if _serves(record, config)]
        done |= {config.key: serving[0]} if serving else {}
    return Progress(plan, list(done.values()), [c for c in plan if c.key not in done])


def _serves(record: Record, config: RunConfig) -> bool:
    """Whether it is the record of this run, or its first epochs are."""
    if record.key == config.key:
        return True
    with suppress(ValueError):
        record.first(config.epochs)
        return True
    return False


def comparison_runs() -> str:
    """How many runs the comparison at one step size has, and how they add up: those of its sweep, and longer ones."""
    count, own = sum(len(comparison(name)) for name in TITLES), progress(planned("comparison"), *RECIPE)
    rest = count - len(own.done)
    return (
        f"{count} runs: {own.count} of the sweep comparison.toml, and the first {EPOCHS} epochs of {rest} longer ones"
    )


def still_open(rows: Iterable[Row]) -> Table:
    """One row per undecided part of an undecided claim: how many seeds would decide it, and what of its runs is done.

    The number of seeds is for an 80 % chance of a verdict, if the difference and the scatter are as they were seen.
    """
    lines = []
    for row in rows:
        if not row.verdict.startswith(OPEN):
            continue
        for one in row.findings:
            if not one.aside and one.verdict.startswith((OPEN, UNTESTED)):
                against = f", against {one.bound:g} {one.unit}".rstrip() if one.bound else ""
                what, found = f"{row.claim.id}: {one.what}", one.value + against
                lines.append([what, found, _seeds_that_decide(one), _runs(one.study or row.claim.study)])
    return Table(("undecided", "found", "seeds that would decide it", "runs done"), lines, unfolded=True)


def _seeds_that_decide(finding: Finding) -> str:
    one = finding.interval
    if not isinstance(one, Difference):
        return "not known"
    needed = one.seeds_needed
    if finding.bound:
        needed = seeds_needed(one.mean - finding.bound, one.sd, one.together + 1, margin=0)
    if needed != needed or not needed:
        return "not known"
    return f"more than {MOST}" if needed > MOST else f"{needed:.0f}"


def _runs(study: str) -> str:
    """What of the study that is to decide a claim, runs or measurements, is done."""
    if not study:
        return "none is planned"
    if study in KINDS:
        done, total = done_of_plan(study, RESULTS / study)
        return f"{done} of {total} of {study}"
    if not (SWEEPS / f"{study}.toml").is_file():
        return f"none of {study}, which waits for tuning"
    plan = planned(study)
    done = len(progress(plan, studies.study(study).folder, *RECIPE).done)
    return f"{done} of {len(plan)} of {study}"


def state_of_studies(names: Sequence[str] = ()) -> Table:
    """One row per study (none named: all, in the order of their worth): what is done of what is planned, and its aim.

    A study that trains with tuned step sizes has no plan before these are found; it waits.
    """
    rows = []
    for name in studies.chosen(names):
        if not (SWEEPS / f"{name}.toml").is_file():
            rows.append([name, "waits for tuning", tuning.STUDIES[name][0]])
            continue
        one, plan = studies.study(name), planned(name)
        aim = one.sweep.description.partition(";")[0]  # the rest is for who runs it
        done = len(progress(plan, one.folder, *RECIPE).done)
        rows.append([name, f"all {done}" if done == len(plan) else f"{done} of {len(plan)}", aim])
    return Table(("study", "runs done", "what it is for"), rows, unfolded=True)


def _kind(config: RunConfig) -> str:
    """What runs that differ in their length alone have in common."""
    return replace(config, epochs=1).key


def _groups(wanted: Sequence[RunConfig], lacking: Sequence[RunConfig]) -> list[str]:
    """What is lacking, by pooler: the seeds, where not all are lacking."""
    rates = {config.learning_rate for config in wanted}

    def name(config: RunConfig) -> str:
        own = {option: value for option, value in config.pooler_options.items() if option != "positive"}  # in the name
        options = "".join(f", {option} {value:g}" for option, value in own.items())
        rate = f" at {config.learning_rate:g}" if len(rates) > 1 else ""
        return recipe_name(config) + options + rate

    found = []
    for one in dict.fromkeys(map(name, wanted)):
        seeds = [str(config.seed) for config in lacking if name(config) == one]
        whole = len(seeds) == sum(name(config) == one for config in wanted)
        if seeds:
            found.append(one if whole else f"{one} (seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)})")
    return found
