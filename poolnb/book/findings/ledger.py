"""The claims of the sources, and what the records and the executed chapters say about each.

`book/experiments/claims.toml` states the claims. One function per claim computes its findings: from the committed
records, from numbers that an executed chapter has kept, or on the spot where a few lines decide it. Nothing here is a
result: results are computed each time.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from poolnb.book.findings import facts as ledger_facts
from poolnb.book.findings import tdgs as ledger_tdgs
from poolnb.book.findings.evidence import (
    ANSWERED,
    HOLDS,
    OPEN,
    Finding,
    above,
    apart,
    below,
    beside,
    by_group,
    by_seed,
    compared,
    difference,
    few_digits,
    interval,
    length,
    overall,
    planned,
    select,
    study,
    table,
)
from poolnb.book.findings.tdgs import RECIPE, TITLES, Values
from poolnb.lab.analysis import ENOUGH, LOOKS, MARGIN, UNDECIDED, Comparison, Difference
from poolnb.lab.measurements.records import Measurement, load_measurements
from poolnb.lab.models import STRIDED
from poolnb.lab.provenance import BOOK, RESULTS
from poolnb.registry import create_pool

SMALL = 25.0  # percent: what we call a small overhead
COLLAPSE = 10.0  # points of test error: what we call a collapse
TRAINS = 20.0  # percent of ten classes told right, twice what chance gives: what we call training
LARGER = 1.25  # the smallest factor by which the source makes the learning rate larger
EPOCHS = 8  # of the comparison at one step size
SHORT = "s3, CIFAR-10, 8 epochs"  # too few for anything to overfit
BACKBONE_LOOKS = (5, 12)  # seeds of ResNet-20; planned after the first look, which left max against average open
EARLY = "CIFAR-10, 8 epochs"  # the first epochs of the longer runs, not other runs
RESNET = "CIFAR-10, ResNet-20"


@dataclass(frozen=True)
class Claim:
    """A claim, who makes it, the page that treats it, the folders of records behind it, and how it is judged."""

    id: str
    text: str
    source: str
    page: str
    records: list[str]
    find: Callable[[], list[Finding]]
    study: str = ""


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


def gains(runs: Any, rate: float) -> Any:
    """What a learning rate adds to the accuracy at 1e-3, as `evidence.by_group` has it."""
    at = {
        pooler: [by_seed(runs, "last", pooler=pooler, learning_rate=one) for one in (1e-3, rate)]
        for pooler in ("max", "avg", "soft")
    }
    return by_group({name: {s: high[s] - low[s] for s in low.keys() & high.keys()} for name, (low, high) in at.items()})


def soft_minus(frame: Any, value: str = "last", by: str = "pooler", **how: Any) -> dict[str, Difference | None]:
    """Softmax weighting minus max and minus average pooling: both intervals are true together."""
    found = compared(frame, value, by, "soft", of=["max", "avg"], **how)
    both = {rival: interval(found, rival) for rival in ("max", "avg")}
    return {rival: None if one is None else -one for rival, one in both.items()}


def largest_that_trains(runs: Any) -> Any:
    """The largest learning rate that trains, by pooler and seed, as its logarithm to base 10; NaN if none does.

    Only seeds count that a pooler has run at all the rates.
    """
    if runs.empty:
        return by_group({})
    rates = runs["learning_rate"].where(runs["last"] > TRAINS).groupby([runs["pooler"], runs["seed"]], sort=False)
    whole = rates.max()[rates.size() == runs["learning_rate"].nunique()]
    return by_group(
        {
            pooler: {int(seed): math.log10(rate) for seed, rate in own.droplevel("pooler").items()}
            for pooler, own in whole.groupby("pooler", sort=False)
        }
    )


def best_rates(runs: Any) -> dict[str, float]:
    """The learning rate of each pooler that is best on the validation samples, of those at which no run has failed."""
    scores = runs.groupby(["pooler", "learning_rate"])["last_validation"].agg(lambda seen: seen.mean(skipna=False))
    return {
        pooler: own.droplevel("pooler").idxmax()
        for pooler, own in scores.groupby("pooler", sort=False)
        if own.notna().any()
    }


def at_best_rates(runs: Any) -> Any:
    """The runs of each pooler at its best learning rate."""
    if runs.empty:
        return runs
    best = best_rates(runs)
    return runs[[best.get(pooler) == rate for pooler, rate in zip(runs["pooler"], runs["learning_rate"], strict=True)]]


def _c2() -> list[Finding]:
    wide = study("learning-rates-wide")
    if wide.empty:
        return _c2_short(learning_rates())
    found = []
    for rival, one in soft_minus(at_best_rates(wide)).items():
        what = f"accuracy, soft - {rival}, each at its best learning rate"
        found.append(Finding(what, one, "points", below(one, MARGIN), bound=MARGIN))
    fine, coarse = _largest("largest-rate"), _largest("learning-rates-wide")
    return found + (fine + [replace(one, aside=one.what) for one in coarse] if fine else coarse)


def _largest(sweep: str) -> list[Finding]:
    """What a sweep says of the largest learning rate; empty as long as no seed has run at all its rates."""
    runs = largest_that_trains(study(sweep))
    if runs.empty:
        return []
    title = f"largest learning rate that trains for {length(sweep)} epochs, power of ten"
    bound = math.log10(LARGER)
    return [
        Finding(f"{title}, soft - {rival}", one, "", below(one, bound), bound=bound)
        for rival, one in soft_minus(runs, "value", "group", margin=0).items()
    ]


def _c2_short(runs: Any) -> list[Finding]:
    """The three epochs that stand as long as the wide study has no runs.

    As there, accuracies are compared at the best learning rates: at the smallest one the networks have hardly left
    chance.
    """
    if runs.empty:
        return [Finding("accuracy, soft - max, each at its best learning rate", None, "points", below(None))]
    rates = ", ".join(f"{rate:g}" for rate in sorted(set(best_rates(runs).values())))
    found = [
        Finding(
            f"accuracy, soft - {rival}, each at its best learning rate ({rates})",
            one,
            "points",
            below(one, MARGIN),
            bound=MARGIN,
        )
        for rival, one in soft_minus(at_best_rates(runs)).items()
    ]
    for rate in (1.25e-3, 1.5e-3, 5e-3):
        for rival, one in soft_minus(gains(runs, rate), "value", "group").items():
            what = f"what {rate:g} adds over 0.001, soft - {rival}"
            found.append(Finding(what, one, "points", below(one, MARGIN), bound=MARGIN))
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


def gradient_differences(dataset: str, stage: int, **how: Any) -> dict[str, Difference | None]:
    """The cosine (or another measure) with the full gradient, soft and avg minus max, at a stage; true together."""
    poolers = sorted({m.parameters["pooler"] for m in _measured("gradients") if m.parameters["dataset"] == dataset})
    values = by_group({pooler: gradient_quality(dataset, pooler, stage, **how) for pooler in poolers})
    found = compared(values, "value", "group", of=["soft", "avg"], margin=0)
    return {pooler: interval(found, pooler) for pooler in ("soft", "avg")}


def gradient_stages() -> dict[str, list[int]]:
    """The epochs of training after which the gradients of each data set were measured."""
    return {one.parameters["dataset"]: one.parameters["stages"] for one in _measured("gradients")}


def _c3() -> list[Finding]:
    found = []
    for dataset, title in (("digits", "digits"), ("cifar10", "CIFAR-10")):
        for stage, epochs in enumerate(gradient_stages().get(dataset, [0])):
            for pooler, one in gradient_differences(dataset, stage).items():
                what = (
                    f"cosine with the full gradient, {pooler} - max, {title}, after {epochs} epoch{'s' * (epochs != 1)}"
                )
                found.append(Finding(what, one, "", above(one)))
    return found


# ---- C5, C9, C15: the comparison of all ------------------------------------------------------------------------------


def comparison(dataset: str, epochs: int = EPOCHS) -> Any:
    """The runs of all poolers at an equal budget, one row each."""
    return table(select(*RECIPE, epochs=epochs, dataset=dataset))


# The studies of all poolers with tuned rates, and what tables call them.
TUNED = {"cifar10": ("comparison-tuned", "CIFAR-10, tuned"), "mnist": ("mnist1000", "1000 of MNIST, tuned")}


def others(dataset: str) -> set[str]:
    """The poolers that `tuned` is to compare and that learn something: parameterised ones, and attention."""
    sweeps = RECIPE if tuned_runs(dataset).empty else (TUNED[dataset][0],)
    return {config.pooler for sweep in sweeps for config in planned(sweep) if _learns(config.pooler)}


def _learns(pooler: str) -> bool:
    if pooler == STRIDED:
        return False
    return any(True for _ in create_pool(pooler, 2, 2, channels=1, output_size=(1, 1)).parameters())


def tuned(dataset: str) -> tuple[Any, tuple[int, ...]]:
    """The runs of all poolers at an equal budget with tuned rates, one row each, and the looks that are planned.

    As long as these do not compare all, those of eight epochs at one rate, which are looked at once.
    """
    runs = tuned_runs(dataset)
    return (comparison(dataset), ()) if runs.empty else (runs, LOOKS)


def title_of(dataset: str) -> str:
    """What tables call the study whose runs `tuned` gives."""
    return TITLES[dataset] if tuned_runs(dataset).empty else TUNED[dataset][1]


def tuned_runs(dataset: str) -> Any:
    """The runs of all poolers with tuned rates; none as long as a pooler has not reached the first look."""
    name = TUNED[dataset][0]
    runs = study(name)
    if runs.empty:
        return runs
    seeds = runs.groupby("pooler")["seed"].nunique()
    whole = all(seeds.get(config.pooler, 0) >= LOOKS[0] for config in planned(name))
    return runs if whole else runs.iloc[:0]


def tuned_against_max(*poolers: str) -> dict[str, Difference | None]:
    """Test accuracy with tuned rates, of these poolers minus max pooling, by title; None where there are no runs yet.

    All poolers of a study are in the model, and the intervals are true together for all.
    """
    found: dict[str, Difference | None] = {}
    for dataset, (_, title) in TUNED.items():
        all_poolers = tuned_so_far(dataset)
        found |= {f"{pooler} - max, {title}": interval(all_poolers, pooler) for pooler in poolers}
    return found


def tuned_so_far(dataset: str) -> Comparison | None:
    """The poolers that have reached the first look with tuned rates, against max; None without any."""
    runs = study(TUNED[dataset][0])
    if runs.empty:
        return None
    seeds = runs.groupby("pooler")["seed"].nunique()
    return compared(runs[runs["pooler"].map(seeds) >= LOOKS[0]], looks=LOOKS)


@dataclass(frozen=True)
class Winner:
    """Of the `others`, the best on the validation samples, and what the test says of it against max.

    `count` of the others compete: those that have enough seeds for a verdict.
    """

    name: str
    difference: Difference
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
    field = others(dataset)
    compete = [name for name, row in found.table.iterrows() if row.n >= ENOUGH and name in field]
    best = max(compete, key=lambda name: chances.table.loc[name, "difference"], default=None)
    if best is None:
        return None
    row = found.table.loc[best]
    return Winner(best, found.intervals[best], row.verdict, row.seeds_needed, len(compete))


def _c5() -> list[Finding]:
    """Answered if all that learn compete and the verdict on the best of them is decided."""
    found = []
    for dataset in TITLES:
        title, best = title_of(dataset), winner(dataset)
        if best is None:
            found.append(Finding(f"{title}: the best pooler that learns, - max", None, "points", above(None)))
            continue
        count = len(others(dataset))
        answered = best.count == count and best.verdict != UNDECIDED
        field = f"the {count}" if best.count == count else f"{best.count} of {count}"
        what = f"{title}: {best.name} (best of {field} on validation) - max"
        verdict, study = ANSWERED if answered else OPEN, TUNED[dataset][0] if tuned(dataset)[1] else "comparison"
        found.append(Finding(what, best.difference, "points", verdict, study=study))
    return found


def overfitting() -> dict[str, Difference | None]:
    """The rise of the test loss after its lowest value, against max pooling: below 0 is less overfitting."""
    few, cifar, mnist = few_digits(), *(ledger_tdgs.recipe_table(name) for name in TITLES)
    cases = (
        ("stochastic, 300 digits, 40 epochs", few, "stochastic"),
        ("s3, 300 digits, 40 epochs", few, "s3"),
        ("stochastic, CIFAR-10, 25 epochs", cifar, "stochastic"),
        ("s3, CIFAR-10, 25 epochs", cifar, "s3"),
        ("stochastic, MNIST, 25 epochs", mnist, "stochastic"),
        (SHORT, comparison("cifar10"), "s3"),
    )
    return {title: difference(runs, "rise", name, margin=0, larger_is_better=False) for title, runs, name in cases}


def _c9() -> list[Finding]:
    """After eight epochs max pooling itself has hardly overfitted: those runs stand beside the claim."""
    return [
        Finding(f"rise of the test loss, {title}, - max", one, "", below(one), title if title == SHORT else "")
        for title, one in overfitting().items()
    ]


def max_against_average() -> dict[str, Difference | None]:
    """Test accuracy of the last epoch, max - avg, in the experiments that train a network with both.

    Of the learning rates each pooler has its best one, by validation. Of ResNet-20 the replication decides once it is
    complete.
    """
    cases = {
        "CIFAR-10, 25 epochs": table(select("recipe", epochs=25, dataset="cifar10")),
        EARLY: comparison("cifar10"),
        "MNIST, 8 epochs": comparison("mnist"),
        "300 digits, 40 epochs": few_digits(),
        f"CIFAR-10, SGD, {length('learning-rates')} epochs": at_best_rates(learning_rates()),
        "clips, 12 epochs": study("clips"),
    }
    found = {title: difference(runs, "last", "max", "avg") for title, runs in cases.items()}
    again = interval(replication(), "avg")
    found[RESNET] = first_seeds() if again is None else -again
    for dataset, (_, title) in TUNED.items():
        if len(runs := tuned_runs(dataset)):
            found[title] = difference(runs, "last", "max", "avg", looks=LOOKS)
    return found


def first_seeds() -> Difference | None:
    """ResNet-20's max minus average pooling by the seeds of the first two looks."""
    runs, looks = backbone("resnet20")
    return difference(runs, "last", "max", "avg", looks=looks)


def _c15() -> list[Finding]:
    cases = max_against_average()
    asides = {EARLY: cases[EARLY]}
    if replication() is not None:
        asides[f"{RESNET}, the seeds before"] = first_seeds()
    return [
        Finding(
            f"accuracy, max - avg, {title}",
            one,
            "points",
            above(one),
            aside=title if title in asides else "",
            study="backbones-replication" if title == RESNET else "",
        )
        for title, one in (cases | asides).items()
    ]


def resnet_part() -> Finding:
    """What ResNet-20 says of the claim that max pooling is preferable to average."""
    return next(one for one in _c15() if one.study == "backbones-replication")


# ---- windows that overlap, and Lp's scale ----------------------------------------------------------------------------


def overlap() -> Any:
    """The runs of windows that overlap and of those that do not, one row each, as poolers such as `max, 3 by 3`."""
    runs = study("overlap")
    if runs.empty:
        return runs
    sizes = [options.get("kernel_size", 2) for options in runs["pooler_options"]]
    return runs.assign(pooler=[f"{name}, {k} by {k}" for name, k in zip(runs["pooler"], sizes, strict=True)])


def scale() -> Any:
    """Lp pooling and the generalised mean at the same p, one row per run, as poolers such as `lp, p = 2`.

    They differ in their scale alone. Max and average pooling, which is the mean at p = 1, are those of `overlap`.
    """
    import pandas

    runs, others = study("scale"), overlap()
    if runs.empty:
        return runs
    powers = [options.get("norm_type", options.get("p")) for options in runs["pooler_options"]]
    runs = runs.assign(pooler=[f"{name}, p = {p:g}" for name, p in zip(runs["pooler"], powers, strict=True)])
    names = {"max, 2 by 2": "max", "avg, 2 by 2": "gem, p = 1"}
    if not others.empty:
        others = others[others["pooler"].isin(names)].replace({"pooler": names})
    return pandas.concat([runs, others])


def scaled_up() -> dict[str, Difference | None]:
    """What the scale alone does: Lp pooling minus the generalised mean, at each p."""
    runs = scale()
    return {f"p = {p}": difference(runs, "last", f"lp, p = {p}", f"gem, p = {p}") for p in (1, 2, 3)}


# ---- C10, C12, C13, C14 ----------------------------------------------------------------------------------------------


def swapped_errors(dataset: str, trained: str, tested: str) -> Values:
    """Test error in percent, by seed, of networks trained with one pooler and tested with another."""
    return {
        one.parameters["seed"]: 100 * one.values["errors"][tested]
        for one in _measured("test-pooling")
        if (one.parameters["dataset"], one.parameters["pooler"]) == (dataset, trained)
    }


def tested_otherwise(dataset: str, way: str, trained: str = "stochastic") -> Difference | None:
    """How much more test error networks have that are tested with another pooler than their own, `weighted`.

    Each way alone: a network that collapses scatters otherwise than one that does not, so they tell nothing of each
    other's scatter.
    """
    errors, own = (swapped_errors(dataset, trained, one) for one in (way, "weighted"))
    return apart(errors, own, larger_is_better=False)


def _c10() -> list[Finding]:
    found = []
    for dataset, title in (("cifar10", "CIFAR-10"), ("digits", "digits")):
        for way in ("avg", "max"):
            one = tested_otherwise(dataset, way)
            verdict = above(one, COLLAPSE if way == "avg" else 0)
            if way == "max" and verdict == HOLDS:
                verdict = below(one, COLLAPSE)
            bound = COLLAPSE if way == "avg" else 0.0
            aside = f"{way}, {title}" if dataset == "digits" else ""  # the paper has no such data
            found.append(Finding(f"test error, {way} - weighted, {title}", one, "points", verdict, aside, bound))
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
    return _in_percent_of_max(found, what)


def _c12() -> list[Finding]:
    """What is measured is an implementation: of the kernels of this book, and of the published formula in PyTorch's
    own operations. The claim speaks of neither, so both are parts of it."""
    kernel = {f"time of a training step, {where}": cost("milliseconds", *COSTS[where]) for where in COSTS}
    kernel["memory kept for the gradient of a step"] = cost("kept")
    formula = {
        f"time of a training step, {layout}": alternatives("milliseconds", layout)
        for layout in ("channels_last", "nchw")
    }
    formula["memory kept for the gradient of a step"] = alternatives("kept")
    cases = (
        ("soft by this book's kernel over max", "soft", kernel),
        ("the published formula by PyTorch's operations over max", "formula", formula),
    )
    found = []
    for how, name, measures in cases:
        for title, costs in measures.items():
            one = _over_max(costs, name)
            found.append(Finding(f"{title}, {how}", one, "%", below(one, SMALL), bound=SMALL))
    return found


def alternatives(what: str, layout: str = "channels_last") -> dict[str, dict[int, float]]:
    """What stands in the place of a pool, in percent of max pooling, per network and repetition.

    `what` is `milliseconds`, `kept` or `operations`.
    """
    found = [one for one in _measured("alternatives") if one.parameters["layout"] == layout]
    return _in_percent_of_max(found, what)


def _in_percent_of_max(found: Sequence[Measurement], what: str) -> dict[str, dict[int, float]]:
    return {
        name: {one.parameters["seed"]: 100 * one.values[what][name] / one.values[what]["max"] for one in found}
        for name in (found[0].values[what] if found else ())
    }


def _over_max(costs: Mapping[str, Mapping[int, float]], name: str) -> Difference | None:
    """What a pooler costs more than max pooling, in percent of it, over the repetitions."""
    return apart(costs.get(name, {}), costs.get("max", {}), margin=0)


def _c13() -> list[Finding]:
    fixed: dict[str, Any] = {"epochs": 30, "pooler": "soft", "vary": ("seed",)}
    exact = table(select("softmax-gradient", **fixed))
    alone = table(select("softmax-gradient", pooler_options={"semi_grad": True}, **fixed))
    found = []
    for value, title, unit, margin in (
        ("last", "test accuracy", "points", MARGIN),
        ("train_loss", "training loss", "", 0),
    ):
        one = apart(by_seed(exact, value), by_seed(alone, value), margin=margin)
        verdict = above(one)
        if one is not None and one.side:
            verdict = HOLDS  # differently is what the claim says, in whatever direction
        found.append(Finding(f"{title}, exact - published, digits", one, unit, verdict))
    return found


def backbone(kind: str) -> tuple[Any, tuple[int, ...]]:
    """The runs of a backbone, one row each, and the looks at them.

    `resnet20`, where max and average pooling have more seeds than the others; `clips`, the recipe in 3-D.
    """
    if kind == "clips":
        return study("clips"), ()
    return study("backbones", "backbones-average"), BACKBONE_LOOKS


def on_backbones() -> dict[str, Comparison | None]:
    """The poolers in each backbone against max, by title."""
    runs, looks = backbone("resnet20")
    return {"ResNet-20, CIFAR-10": compared(runs, looks=looks), "clips, in 3-D": compared(backbone("clips")[0])}


def second_look() -> Comparison | None:
    """ResNet-20's average pooling against max once both have the seeds of the second look; None before."""
    runs, looks = backbone("resnet20")
    found = compared(runs, of=["avg"], looks=looks)
    return found if found is not None and found.seeds >= looks[-1] else None


def replication() -> Comparison | None:
    """ResNet-20's average pooling against max by new seeds alone, once all that were planned are there; None before.

    Their number was fixed before the first of them ran, so they are looked at once and have all of the 5 %.
    """
    name = "backbones-replication"
    runs = study(name, folder="backbones")
    return compared(runs) if len(runs) and len(runs) == len(planned(name)) else None


def _c14() -> list[Finding]:
    found = []
    for kind, title in (("resnet20", "ResNet-20"), ("clips", "recipe in 3-D, clips")):
        runs, looks = backbone(kind)
        one = difference(runs, "last", "soft", looks=looks)
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
    "C7": ledger_tdgs.initial_temperature,
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
