"""The claims of the sources, and what the records and the executed chapters say about each.

`book/experiments/claims.toml` states the claims. One function per claim computes its findings: from the committed
records, from numbers that an executed chapter has kept, or on the spot where a few lines decide it. Nothing here is a
result: results are computed each time.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from poolnb.book.findings import facts as ledger_facts
from poolnb.book.findings import tdgs as ledger_tdgs
from poolnb.book.findings.evidence import (
    FAILS,
    HOLDS,
    OPEN,
    Finding,
    above,
    below,
    beside,
    by_seed,
    compared,
    gap,
    interval,
    length,
    overall,
    planned,
    select,
    study,
    table,
)
from poolnb.book.findings.tdgs import RECIPE, TITLES, Values
from poolnb.lab.analysis import LOOKS, UNDECIDED
from poolnb.lab.measurements.records import Measurement, load_measurements
from poolnb.lab.provenance import BOOK, RESULTS
from poolnb.lab.statistics import ENOUGH, Interval, PairedDifference, mean_interval
from poolnb.registry import create_pool

SMALL = 25.0  # percent: what we call a small overhead
COLLAPSE = 10.0  # points of test error: what we call a collapse
EQUAL = 1.0  # points of accuracy: an improvement below this is none
SHORT = "s3, CIFAR-10, 8 epochs"  # too few for anything to overfit
EARLY = "CIFAR-10, 8 epochs"  # the first epochs of the longer runs, not other runs


@dataclass(frozen=True)
class Claim:
    """A claim, who makes it, the page that treats it, the folders of records behind it, and how it is judged."""

    id: str
    text: str
    source: str
    page: str
    records: list[str]
    find: Callable[[], list[Finding]]


@dataclass(frozen=True)
class Row:
    """A judged claim."""

    claim: Claim
    findings: tuple[Finding, ...]
    verdict: str
    beside: tuple[str, ...] = ()


def _measured(folder: str) -> list[Measurement]:
    return load_measurements(RESULTS / folder) if (RESULTS / folder).is_dir() else []


# ---- C2: larger learning rates ---------------------------------------------------------------------------------------


def learning_rates() -> Any:
    """The runs of the learning rates, one row each."""
    sweep = "learning-rates"
    fixed: dict[str, Any] = {"dataset": "cifar10", "optimizer": "sgd", "momentum": 0.9, "epochs": length(sweep)}
    return table(select(sweep, vary=("pooler", "seed", "learning_rate"), **fixed))


def _c2() -> list[Finding]:
    runs = learning_rates()

    def accuracy(pooler: str, rate: float) -> Values:
        return by_seed(runs, "last", pooler=pooler, learning_rate=rate)

    def gain(pooler: str, rate: float) -> Values:
        low, high = accuracy(pooler, 1e-3), accuracy(pooler, rate)
        return {seed: high[seed] - low[seed] for seed in low.keys() & high.keys()}

    found = []
    for rival in ("max", "avg"):
        plain = gap(accuracy("soft", 1e-3), accuracy(rival, 1e-3))
        found.append(Finding(f"accuracy, soft - {rival}, at 1e-3", plain, "points", below(plain, EQUAL)))
        for rate in (1.25e-3, 1.5e-3, 5e-3):
            more = gap(gain("soft", rate), gain(rival, rate))
            what = f"what {rate:g} adds over 1e-3, soft - {rival}"
            found.append(Finding(what, more, "points", below(more, EQUAL)))
    return found


# ---- C3: gradient quality --------------------------------------------------------------------------------------------


def gradient_quality(
    dataset: str, pooler: str, stage: int, measure: str = "cosine", size: int = 64, part: str = "all"
) -> Values:
    """A measure of gradient quality by seed; `stage` counts from 0."""
    return {
        one.parameters["seed"]: one.values["stages"][stage][str(size)][part][measure]
        for one in _measured("gradients")
        if (one.parameters["dataset"], one.parameters["pooler"]) == (dataset, pooler)
    }


def _c3() -> list[Finding]:
    found = []
    for dataset in ("digits", "cifar10"):
        for pooler in ("soft", "avg"):
            stages = [
                (gradient_quality(dataset, pooler, stage), gradient_quality(dataset, "max", stage))
                for stage in range(4)
            ]
            seeds = set.intersection(*(set(dense) & set(sparse) for dense, sparse in stages))
            change = {seed: sum(dense[seed] - sparse[seed] for dense, sparse in stages) / 4 for seed in sorted(seeds)}
            interval = mean_interval(change.values()) if change else None
            what = f"cosine with the full gradient, {pooler} - max, {dataset}, mean of four stages"
            found.append(Finding(what, interval, "", above(interval)))
    return found


# ---- C5, C9, C15: the comparison of all ------------------------------------------------------------------------------


def comparison(dataset: str, epochs: int = 8) -> Any:
    """The runs of all poolers at an equal budget, one row each."""
    return table(select(*RECIPE, epochs=epochs, dataset=dataset))


def others() -> set[str]:
    """The poolers that are to be compared and learn something: parameterised ones, and attention."""
    return {config.pooler for sweep in RECIPE for config in planned(sweep) if _learns(config.pooler)}


def _learns(pooler: str) -> bool:
    return any(True for _ in create_pool(pooler, 2, 2, channels=1, output_size=(1, 1)).parameters())


def tuned(dataset: str) -> tuple[Any, tuple[int, ...]]:
    """The runs of all poolers at an equal budget with tuned rates, one row each, and the looks that are planned.

    Before there are any, those of eight epochs at one rate, which are looked at once.
    """
    runs = study({"cifar10": "comparison-tuned", "mnist": "mnist1000"}[dataset])
    return (comparison(dataset), ()) if runs.empty else (runs, LOOKS)


@dataclass(frozen=True)
class Winner:
    """Of the `others`, the best on the validation samples, and what the test says of it against max.

    `count` of the others compete: those that have enough seeds for a verdict.
    """

    name: str
    difference: Interval
    verdict: str
    seeds_needed: float
    count: int


def winner(dataset: str) -> Winner | None:
    """The winner of the comparison; None if nobody competes.

    Best is the largest difference to max on the validation samples, in the model of pooler and seed, so that a pooler
    gains nothing by seeds that are easy for all.
    """
    runs, looks = tuned(dataset)
    found, chances = (compared(runs, value, looks=looks) for value in ("last", "last_validation"))
    if found is None or chances is None:
        return None
    compete = [name for name, row in found.table.iterrows() if row.n >= ENOUGH and name in others()]
    best = max(compete, key=lambda name: chances.table.loc[name, "difference"], default=None)
    if best is None:
        return None
    row = found.table.loc[best]
    return Winner(best, found.intervals[best], row.verdict, row.seeds_needed, len(compete))


def _c5() -> list[Finding]:
    """Answered if all that learn compete and the verdict on the best of them is decided."""
    found = []
    for dataset, title in TITLES.items():
        best = winner(dataset)
        if best is None:
            found.append(Finding(f"{title}: the best pooler that learns, - max", None, "points", above(None)))
            continue
        answered = best.count == len(others()) and best.verdict != UNDECIDED
        field = f"{best.count} of {len(others())} that learn, with {ENOUGH} seeds"
        what = f"{title}: {best.name}, on validation the best of {field}, - max ({best.verdict})"
        found.append(Finding(what, best.difference, "points", "answered" if answered else OPEN))
    return found


def overfitting() -> dict[str, PairedDifference | None]:
    """The rise of the test loss after its lowest value, against max pooling: below 0 is less overfitting."""
    few = table(select("sampling-digits", epochs=40, dataset="digits", limit=300, learning_rate=3e-3, batch_size=32))
    cases = (
        ("stochastic, 300 digits, 40 epochs", few, "stochastic"),
        ("s3, 300 digits, 40 epochs", few, "s3"),
        ("stochastic, CIFAR-10, 25 epochs", table(select("recipe", epochs=25, dataset="cifar10")), "stochastic"),
        ("s3, CIFAR-10, 25 epochs", table(select("recipe", epochs=25, dataset="cifar10")), "s3"),
        ("stochastic, MNIST, 25 epochs", table(select("recipe", epochs=25, dataset="mnist")), "stochastic"),
        (SHORT, comparison("cifar10"), "s3"),
    )
    return {
        title: gap(by_seed(runs, "rise", pooler=name), by_seed(runs, "rise", pooler="max"))
        for title, runs, name in cases
    }


def _c9() -> list[Finding]:
    """After eight epochs max pooling itself has hardly overfitted: those runs stand beside the claim."""
    return [
        Finding(f"rise of the test loss, {title}, - max", one, "", below(one), title if title == SHORT else "")
        for title, one in overfitting().items()
    ]


def max_against_average() -> dict[str, PairedDifference | None]:
    """Test accuracy of the last epoch, max - avg, in the experiments that train the recipe network with both."""
    few: dict[str, Any] = {"limit": 300, "learning_rate": 3e-3, "batch_size": 32}
    sgd: dict[str, Any] = {"optimizer": "sgd", "momentum": 0.9, "learning_rate": 1e-3}
    steps = length("learning-rates")
    cases = {
        "CIFAR-10, 25 epochs": select("recipe", epochs=25, dataset="cifar10"),
        EARLY: select(*RECIPE, epochs=8, dataset="cifar10"),
        "MNIST, 8 epochs": select(*RECIPE, epochs=8, dataset="mnist"),
        "300 digits, 40 epochs": select("sampling-digits", epochs=40, dataset="digits", **few),
        f"CIFAR-10, SGD, {steps} epochs": select("learning-rates", epochs=steps, dataset="cifar10", **sgd),
        "clips, 12 epochs": select("clips", epochs=12, dataset="clips"),
    }
    runs = {title: table(records) for title, records in cases.items()}
    return {
        title: gap(by_seed(one, "last", pooler="max"), by_seed(one, "last", pooler="avg"))
        for title, one in runs.items()
    }


def _c15() -> list[Finding]:
    return [
        Finding(f"accuracy, max - avg, {title}", one, "points", above(one), title if title == EARLY else "")
        for title, one in max_against_average().items()
    ]


# ---- C10, C12, C13, C14 ----------------------------------------------------------------------------------------------


def swapped_errors(dataset: str, trained: str, tested: str) -> Values:
    """Test error in percent, by seed, of networks trained with one pooler and tested with another."""
    return {
        one.parameters["seed"]: 100 * one.values["errors"][tested]
        for one in _measured("test-pooling")
        if (one.parameters["dataset"], one.parameters["pooler"]) == (dataset, trained)
    }


def _c10() -> list[Finding]:
    found = []
    for dataset, title in (("cifar10", "CIFAR-10"), ("digits", "digits")):
        weighted = swapped_errors(dataset, "stochastic", "weighted")
        average, largest = (gap(swapped_errors(dataset, "stochastic", way), weighted) for way in ("avg", "max"))
        collapse, little = above(average, COLLAPSE), above(largest)
        if little == HOLDS:
            little = below(largest, COLLAPSE)
        for way, one, verdict in (("avg", average, collapse), ("max", largest, little)):
            aside = f"{way}, {title}" if dataset == "digits" else ""  # the paper has no such data
            found.append(Finding(f"test error, {way} - weighted, {title}", one, "points", verdict, aside))
    return found


COSTS = {
    f"{layout}, {threads} thread{'s' * (threads > 1)}": (layout, threads)
    for layout in ("channels_last", "nchw")
    for threads in (1, 2)
}


def cost(what: str, layout: str = "channels_last", threads: int = 1) -> dict[str, dict[int, float]]:
    """`milliseconds` or `kept` of a training step in percent of max pooling's, per pooler and repetition."""
    where = {"layout": layout, "threads": threads}
    found = [one for one in _measured("training-cost") if where.items() <= one.parameters.items()]
    names = found[0].values[what] if found else []
    return {
        name: {one.parameters["seed"]: 100 * one.values[what][name] / one.values[what]["max"] for one in found}
        for name in names
    }


def _c12() -> list[Finding]:
    found = []
    measures = [(f"time of a training step, {where}", cost("milliseconds", *COSTS[where])) for where in COSTS]
    measures.append(("memory kept for the gradient of a step", cost("kept")))
    for title, costs in measures:
        values = costs.get("soft", {})
        one = mean_interval(value - 100 for value in values.values()) if values else None
        found.append(Finding(f"{title}, soft over max", one, "%", below(one, SMALL)))
    return found


def _c13() -> list[Finding]:
    fixed: dict[str, Any] = {"epochs": 30, "pooler": "soft", "vary": ("seed",)}
    exact = table(select("softmax-gradient", **fixed))
    alone = table(select("softmax-gradient", pooler_options={"semi_grad": True}, **fixed))
    found = []
    for value, unit in (("last", "points"), ("train_loss", "")):
        one = gap(by_seed(exact, value), by_seed(alone, value))
        verdict = above(one)
        title = {"last": "test accuracy", "train_loss": "training loss"}[value]
        found.append(Finding(f"{title}, exact - published, digits", one, unit, HOLDS if verdict == FAILS else verdict))
    return found


def backbone(kind: str) -> Any:
    """The runs of a backbone, one row each: `resnet20`, or `clips`, the recipe in three dimensions."""
    return study("clips" if kind == "clips" else "backbones")


def _c14() -> list[Finding]:
    found = []
    for kind, title in (("resnet20", "ResNet-20"), ("clips", "recipe in 3-D, clips")):
        one = interval(compared(backbone(kind)), "soft")
        found.append(Finding(f"accuracy, soft - max, {title}", one, "points", above(one)))
    return found


# ---- all of them -----------------------------------------------------------------------------------------------------

_FINDERS: dict[str, Callable[[], list[Finding]]] = {
    "C1": ledger_facts.c1,
    "C2": _c2,
    "C3": _c3,
    "C4": ledger_facts.c4,
    "C5": _c5,
    "C6": ledger_tdgs.c6,
    "C7": ledger_tdgs.c7,
    "C8": ledger_tdgs.c8,
    "C9": _c9,
    "C10": _c10,
    "C11": ledger_facts.c11,
    "C12": _c12,
    "C13": _c13,
    "C14": _c14,
    "C15": _c15,
    "C16": ledger_facts.c16,
}


def claims() -> list[Claim]:
    """The claims, in order, as `book/experiments/claims.toml` states them."""
    stated = tomllib.loads((BOOK / "experiments" / "claims.toml").read_text(encoding="utf-8"))
    return [Claim(name, find=_FINDERS[name], **parts) for name, parts in stated.items()]


def judge(claim: Claim) -> Row:
    findings = tuple(claim.find())
    return Row(claim, findings, overall(findings), tuple(beside(findings)))


def ledger() -> list[Row]:
    """Every claim, judged."""
    return [judge(claim) for claim in claims()]
