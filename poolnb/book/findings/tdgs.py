"""The claims about TDGS (C6, C7, C8): the runs behind them, what they show, and the rival explanations."""

from __future__ import annotations

from typing import Any

from poolnb.book.findings.evidence import (
    FAILS,
    HOLDS,
    UNTESTED,
    Finding,
    above,
    by_seed,
    gap,
    length,
    select,
    study,
    table,
)
from poolnb.lab.config import RunConfig
from poolnb.lab.data import DATASETS
from poolnb.lab.records import Record
from poolnb.lab.statistics import PairedDifference, mean_interval

RECIPE = ("recipe", "comparison")
TITLES = {name: DATASETS[name].title for name in ("cifar10", "mnist")}
CLAIMED = {"cifar10": 3.0, "mnist": 0.5}  # points that the slides state "on average"
COLD, INSIDE, HOT = (0.05, 0.1), (0.5, 1.0, 1.5), (2.0, 3.0)  # of initial temperatures, INSIDE is the claimed range
INITS = INSIDE + HOT
Values = dict[int, float]


def recipe_name(config: RunConfig) -> str:
    """The pooler of a run of the recipe; dropout makes another one of it."""
    return f"{config.pooler} + dropout" if config.dropout else config.pooler


def recipe(dataset: str) -> list[Record]:
    """The full runs of `recipe.toml` on a data set: TDGS, max pooling, and what could explain a difference."""
    found = select("recipe", epochs=25, vary=("pooler", "seed", "dropout"), dataset=dataset)
    return [record for record in found if recipe_name(record.config) in ("max", "max + dropout", "stochastic", "tdgs")]


def recipe_table(dataset: str) -> Any:
    """One row per run of `recipe`, with dropout as a pooler of its own: `max + dropout`."""
    records = recipe(dataset)
    runs = table(records)
    return runs if runs.empty else runs.assign(pooler=[recipe_name(record.config) for record in records])


def c6() -> list[Finding]:
    """TDGS and max as in the slides, last epoch against last epoch; beside it, TDGS against the other explanations."""
    found, rivals = [], []
    for dataset, title in TITLES.items():
        runs = recipe_table(dataset)

        def value(pooler: str, column: str = "last", runs: Any = runs) -> Values:
            return by_seed(runs, column, pooler=pooler)

        one, claimed = gap(value("tdgs"), value("max")), CLAIMED[dataset]
        found.append(Finding(f"last epoch, tdgs - max, {title}: more than 0", one, "points", above(one)))
        found.append(Finding(f"the same: more than the claimed {claimed:g}", one, "points", above(one, claimed)))
        others = {
            "max if both stop at the epoch best on validation": ("chosen", "max"),
            "max + dropout": ("last", "max + dropout"),
            "stochastic": ("last", "stochastic"),
        }
        for name, (column, rival) in others.items():
            other = gap(value("tdgs", column), value(rival, column))
            when = {"last": "last epoch", "chosen": "chosen on validation"}[column]
            what = f"{when}, tdgs - {f'({rival})' if '+' in rival else rival}, {title}"
            aside = f"tdgs above {name} ({title})"
            rivals.append(Finding(what, other, "points", above(other), aside))
    return found + rivals


def initial_temperatures() -> dict[float, Values]:
    """Test accuracy of the sweep's last epoch on CIFAR-10, by initial temperature and seed."""
    sweep = "initial-temperature"
    fixed: dict[str, Any] = {"epochs": length(sweep), "dataset": "cifar10", "pooler": "tdgs", "vary": ("seed",)}
    runs = {init: select(sweep, pooler_options={"init": init}, **fixed) for init in INITS}
    runs[1.0] = select(*RECIPE, **fixed)
    return {init: by_seed(table(records), "last") for init, records in runs.items()}


def initial_temperatures_linear() -> dict[float, Values]:
    """The same of the longer study, whose learning rate falls, with starts below the claimed range too."""
    runs = study("initial-temperature-linear")
    if runs.empty:
        return {}
    inits = sorted({options["init"] for options in runs["pooler_options"]})
    found = {init: by_seed(runs, "last", pooler_options={"init": init}) for init in inits}
    return {init: {seed: value for seed, value in values.items() if value == value} for init, values in found.items()}


def c7() -> list[Finding]:
    """Starts inside the claimed range against those above it, and where there are runs against those below it."""
    runs = initial_temperatures_linear()
    found = []
    if not runs:
        one = _inside_minus(initial_temperatures(), HOT)
        return [Finding("mean over 0.5, 1, 1.5 minus mean over 2, 3", one, "points", above(one))]
    for outside in (HOT, COLD):
        one = _inside_minus(runs, outside)
        what = f"mean over 0.5, 1, 1.5 minus mean over {', '.join(f'{init:g}' for init in outside)}"
        found.append(Finding(what, one, "points", above(one)))
    return found


def _inside_minus(runs: dict[float, Values], outside: tuple[float, ...]) -> PairedDifference | None:
    """Mean accuracy from the claimed range minus that from `outside`, over the seeds that all these starts have."""

    def mean_of(inits: tuple[float, ...]) -> Values:
        seeds = set.intersection(*(set(runs.get(init, ())) for init in inits))
        return {seed: sum(runs[init][seed] for init in inits) / len(inits) for seed in seeds}

    return gap(mean_of(INSIDE), mean_of(outside))


def temperatures(dataset: str) -> dict[str, dict[int, dict[str, Any]]]:
    """What the full runs of TDGS say of their temperatures, by pool and seed; see `training.describe_parameter`."""
    records = [record for record in recipe(dataset) if record.config.pooler == "tdgs"]
    names = sorted({name for record in records for name in record.pooling})
    return {name: {record.config.seed: record.pooling[name] for record in records} for name in names}


def mean_temperature(pool: dict[int, dict[str, Any]], epoch: int = -1) -> Values:
    """The mean temperature of a pool by seed: the learned one, or at the start, epoch 0."""
    return {seed: described["trajectory"][epoch] for seed, described in pool.items()}


def c8() -> list[Finding]:
    """A temperature is learned if it ends elsewhere than it starts."""
    found = []
    for dataset, title in TITLES.items():
        pools = temperatures(dataset)
        if not pools:
            found.append(Finding(f"mean temperature learned minus that at the start, {title}", None, "", UNTESTED))
        for name, pool in pools.items():
            start = mean_temperature(pool, epoch=0)
            one, at = gap(mean_temperature(pool), start), mean_interval(start.values()).mean
            verdict = above(one)
            what = f"mean temperature learned in {name.partition('.')[0]} minus that at the start ({at:.2f}), {title}"
            found.append(Finding(what, one, "", "answered" if verdict in (HOLDS, FAILS) else verdict))
    return found
