"""Sweeps: many runs from one readable file, here or on a cluster; what is done already is not done again."""

from __future__ import annotations

import importlib.util
import itertools
import os
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from poolnb._machine import usable_cores
from poolnb.lab.config import RunConfig, check_names
from poolnb.lab.errors import ConfigError, UserError, shown
from poolnb.lab.files import WriteError, prepare_folder
from poolnb.lab.network import build
from poolnb.lab.records import Record, record_path
from poolnb.lab.sweeps.forecast import Forecast, forecast, in_words
from poolnb.lab.sweeps.processes import LocalProcesses, check_main_module
from poolnb.lab.sweeps.tasks import NOTEBOOK, Executor, Outcome, Task, present

IN_VAIN = 3  # so many runs in a row that could not be carried out stop a sweep
_AGAIN = "started again, it does what is missing"


@dataclass(frozen=True)
class Sweep:
    """A named list of runs, no two of them the same."""

    name: str
    description: str
    configs: tuple[RunConfig, ...]


def read_sweep(path: str | os.PathLike[str]) -> Sweep:
    """The sweep that a TOML file describes. Raises `ConfigError` that names the file and what is wrong with it.

    The file has a `description` (text), a table `fixed` (parameters that all runs share), a table `grid` (lists: every
    combination is run) and an array of tables `variants` (sets of parameters that belong together; every set is run
    with every combination). Runs of one seed come before those of the next: a sweep stopped early compares all poolers.
    """
    path = Path(path)
    try:
        spec = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors may begin it with a byte order mark
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"sweep file {path}: {error}") from None
    try:
        check_names(spec, ("description", "fixed", "grid", "variants"))
        configs = {config.key: config for config in _expand(spec)}
    except ConfigError as error:
        raise ConfigError(f"sweep file {path}: {error}") from None
    return Sweep(path.stem, str(spec.get("description", "")), tuple(configs.values()))


def _expand(spec: Mapping[str, Any]) -> list[RunConfig]:
    fixed, grid, variants = spec.get("fixed", {}), spec.get("grid", {}), spec.get("variants", [{}])
    for name, value, kind in (("fixed", fixed, dict), ("grid", grid, dict), ("variants", variants, list)):
        if not isinstance(value, kind) or (kind is list and not all(isinstance(one, dict) for one in value)):
            raise ConfigError(f"{name} is {shown(value)}; accepted: {'a table' if kind is dict else 'tables'}")
    if not (fixed or grid or "variants" in spec):
        raise ConfigError("it names no run; accepted: at least one parameter in fixed, grid or variants")
    if not variants or ("variants" in spec and not all(variants)):
        raise ConfigError("variants is empty or holds a table that is; accepted: tables with at least one parameter")
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"grid: {name} is {shown(values)}; accepted: a list with at least one value")
    configs = []
    for variant, *values in itertools.product(variants, *grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        twice = sorted((fixed.keys() & chosen.keys()) | (variant.keys() & (fixed.keys() | chosen.keys())))
        if twice:
            raise ConfigError(f"{', '.join(twice)}: given twice; accepted: in one of fixed, grid, variants")
        configs.append(RunConfig.from_mapping({**fixed, **variant, **chosen}))
    return sorted(configs, key=lambda config: config.seed)


@dataclass
class Report:
    """What a sweep has done: how many runs were there before, and by run why it has failed or is still missing.

    A failed run has a record that says so. A missing one has none: the machine was at fault; the next sweep does it.
    `left`: the seconds that it will still take, where that is forecast.
    """

    total: int
    before: int = 0
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    left: float | None = None


def sweep(
    configs: Iterable[RunConfig],
    results: str | os.PathLike[str],
    *,
    workers: int | None = None,
    fast: bool = False,
    retry_failed: bool = False,
    progress: bool = True,
    on_outcome: Callable[[Report, Outcome], None] | None = None,
    on_forecast: Callable[[Forecast, float], None] | None = None,
    executor: Executor | None = None,
) -> Report:
    """Do every run of `configs` whose record is not in the folder `results` yet.

    A run that fails leaves a record that says why, and the others go on; it is done again only with `retry_failed`.
    A run that this machine could not carry out, as when its process was killed, stays missing, and the others go on.
    With `fast` a run is a call of `run`; without, an execution of the one-run notebook. The records are the same.
    `workers` is the number of processes (default: as many as the cores hold, with the threads that each run uses).
    `on_outcome(report, outcome)` is called after every run. With `on_forecast(forecast, seconds)`, called before the
    first run, the sweep looks at records and times a few steps to say how long it will take, and `report.left` follows;
    not for an `executor`, whose machines are not known here.

    Stopped in any way and started again, a sweep does only what is missing.

    Raises `ConfigError` or `DataError` before any run if one of the runs cannot work, `WriteError` as soon as a record
    cannot be written, on a full disk say, and `UserError` after several runs in a row that could not be carried out:
    every further run would be in vain.
    """
    check_main_module()
    configs = [replace(config, threads=config.threads or 1) for config in configs]
    results = prepare_folder(results).resolve()
    notebook = None if fast else str(_existing(NOTEBOOK))
    report = Report(len(configs))
    tasks, there = [], []
    for config in configs:
        record = present(record_path(results, config))
        if record is None or (record.status == "failed" and retry_failed):
            tasks.append(Task(config, str(results), notebook))
        elif record.status == "failed":
            report.failed[config.name] = f"{record.error} (in an earlier sweep)"
        else:
            report.before += 1
            there.append(record)
    _check_options([task.config for task in tasks])
    workers = default_workers(configs) if workers is None else workers
    local = executor is None
    executor = executor or LocalProcesses(workers)
    waiting = {task.config.key: task.config for task in tasks}
    expected = None
    if on_forecast is not None and local and tasks:
        expected = forecast(list(waiting.values()), there, workers, each=not fast)
        report.left = expected.left(waiting.values())
        on_forecast(expected, report.left)
    in_vain = 0
    with _bar(report, progress) as bar:
        for outcome in executor.execute(tasks) if tasks else ():
            if outcome is None:
                bar.refresh()
                continue
            _count(report, outcome)
            if progress and outcome.error is not None:
                bar.write(f"{outcome.kind}: {outcome.task.config.name}: {outcome.error}", file=sys.stderr)
            if outcome.unwritable:
                raise WriteError(f"{outcome.error}; the sweep has stopped; {_AGAIN}", outcome.record)
            in_vain = 0 if outcome.recorded else in_vain + 1
            if in_vain == IN_VAIN:
                reason = f"{in_vain} runs in a row could not be carried out, the last: {outcome.error}"
                raise UserError(f"{reason}; the sweep has stopped; {_AGAIN}")
            record = None if outcome.error else present(record_path(results, outcome.task.config))
            waiting.pop(outcome.task.config.key, None)
            if expected is not None:
                if record is not None:
                    expected.note(record)
                report.left = expected.left(waiting.values())
            bar.note(outcome, record)
            if on_outcome is not None:
                on_outcome(report, outcome)
    return report


def _count(report: Report, outcome: Outcome) -> None:
    if outcome.error is None:
        report.done += 1
    else:
        errors = report.failed if outcome.recorded else report.missing
        errors[outcome.task.config.name] = outcome.error


def default_workers(configs: Iterable[RunConfig]) -> int:
    """As many processes as this machine has cores for, each with the threads of the widest run."""
    threads = max((config.threads or 1 for config in configs), default=1)
    return max(1, usable_cores() // threads)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ConfigError(
            f"{path.name} is not where a checkout has it ({path.parent}); use --fast, which needs no notebook"
        )
    lacking = [name for name in ("papermill", "ipykernel") if importlib.util.find_spec(name) is None]
    if lacking:
        raise ConfigError(f"{' and '.join(lacking)} not installed; use --fast, which needs no notebook")
    return path


def _check_options(configs: Iterable[RunConfig]) -> None:
    """Raise `ConfigError` before the first run if a pooler refuses its options."""
    import torch

    kinds = {(c.dataset, c.model, c.pooler, repr(c.pooler_options), c.pool_learning_rate): c for c in configs}
    with torch.random.fork_rng(devices=[]):
        for config in kinds.values():
            build(config)


# --- what the user sees meanwhile ------------------------------------------------------------------------------------


@contextmanager
def _bar(report: Report, progress: bool) -> Iterator[Any]:
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        best: dict[str, tuple[float, str]] = {}

        def note(self, outcome: Outcome, record: Record | None) -> None:
            """Count the run, and show the best run so far of its data set, by validation accuracy."""
            self.update(int(outcome.recorded))
            config = outcome.task.config
            chosen = record.summary.get("early_stopped") if record else None
            if chosen:
                candidate = (chosen["validation_accuracy"], config.pooler)
                self.best = {**self.best, config.dataset: max(candidate, self.best.get(config.dataset, candidate))}
            parts = [f"{dataset} {value:.3f} {pooler}" for dataset, (value, pooler) in self.best.items()]
            failed = [f"{len(report.failed)} failed"] if report.failed else []
            failed += [f"{len(report.missing)} missing"] if report.missing else []
            left = [] if report.left is None else [f"{in_words(report.left)} left"]
            self.set_postfix_str(", ".join([*left, *parts, *failed]))

    with Bar(total=report.total, initial=report.before + len(report.failed), unit="run", disable=not progress) as bar:
        yield bar
