"""Sweeps: many runs from one readable file, in processes of this machine; what is done already is not done again."""

from __future__ import annotations

import itertools
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import tomllib
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from .config import ConfigError, RunConfig, UserError, check_names
from .provenance import BOOK
from .records import Record, RecordError, WriteError, prepare_folder, read_record, record_path, write_record

NOTEBOOK = BOOK / "experiments" / "one-run.ipynb"
ATTEMPTS = 2  # a run whose process dies is tried once more before it counts as failed


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
        spec = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
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
            raise ConfigError(f"{name} is {value!r}; accepted: {'a table' if kind is dict else 'tables'}")
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"grid: {name} is {values!r}; accepted: a list with at least one value")
    configs = []
    for variant, *values in itertools.product(variants, *grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        twice = sorted((fixed.keys() & chosen.keys()) | (variant.keys() & (fixed.keys() | chosen.keys())))
        if twice:
            raise ConfigError(f"{', '.join(twice)}: given twice; accepted: in one of fixed, grid, variants")
        configs.append(RunConfig.from_mapping({**fixed, **variant, **chosen}))
    return sorted(configs, key=lambda config: config.seed)


@dataclass(frozen=True)
class Task:
    """One run to be done, by the notebook if there is one, else by the function that the notebook calls."""

    config: RunConfig
    results: str
    notebook: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a task: no `error`, or a line that says what went wrong; `recorded`, whether a record says it."""

    task: Task
    error: str | None = None
    recorded: bool = True


class Executor(Protocol):
    """Something that carries out tasks and tells the outcome of each, in any order."""

    def execute(self, tasks: Sequence[Task]) -> Iterator[Outcome | None]:
        """Yield one outcome per task; None now and then, while there is nothing to tell."""


@dataclass
class Report:
    """What a sweep has done: how many runs were there before, and the errors of those that failed, by run."""

    total: int
    before: int = 0
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def sweep(
    configs: Iterable[RunConfig],
    results: str | os.PathLike[str],
    *,
    workers: int | None = None,
    fast: bool = False,
    retry_failed: bool = False,
    progress: bool = True,
    on_outcome: Callable[[Report, Outcome], None] | None = None,
    executor: Executor | None = None,
) -> Report:
    """Do every run of `configs` whose record is not in the folder `results` yet.

    A run that fails leaves a record that says why, and the others go on; it is done again only with `retry_failed`.
    With `fast` a run is a call of `run`; without, an execution of the one-run notebook. The records are the same.
    `workers` is the number of processes (default: as many as the cores hold, with the threads that each run uses).
    `on_outcome(report, outcome)` is called after every run.

    Stopped in any way and started again, a sweep does only what is missing.

    Raises `ConfigError` or `DataError` before any run if one of the runs cannot work, and `WriteError` as soon as a
    record cannot be written, on a full disk say: every further run would be in vain.
    """
    configs = [replace(config, threads=config.threads or 1) for config in configs]
    results = prepare_folder(results).resolve()
    notebook = None if fast else str(_existing(NOTEBOOK))
    report = Report(len(configs))
    tasks = []
    for config in configs:
        record = _present(record_path(results, config))
        if record is None or (record.status == "failed" and retry_failed):
            tasks.append(Task(config, str(results), notebook))
        elif record.status == "failed":
            report.failed[config.name] = f"{record.error} (in an earlier sweep)"
        else:
            report.before += 1
    _check_options([task.config for task in tasks])
    executor = executor or LocalProcesses(workers or default_workers(configs))
    with _bar(report, progress) as bar:
        for outcome in executor.execute(tasks) if tasks else ():
            if outcome is None:
                bar.refresh()
                continue
            if outcome.error is None:
                report.done += 1
            else:
                report.failed[outcome.task.config.name] = outcome.error
                if progress:
                    bar.write(f"failed: {outcome.task.config.name}: {outcome.error}", file=sys.stderr)
            if not outcome.recorded:
                raise WriteError(f"{outcome.error}; the sweep has stopped; started again, it does what is missing")
            bar.note(outcome)
            if on_outcome is not None:
                on_outcome(report, outcome)
    return report


def default_workers(configs: Iterable[RunConfig]) -> int:
    """As many processes as this machine has cores for, each with the threads of the widest run."""
    threads = max((config.threads or 1 for config in configs), default=1)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // threads)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ConfigError(
            f"{path.name} is not where a checkout has it ({path.parent}); use --fast, which needs no notebook"
        )
    return path


def _present(path: Path) -> Record | None:
    """The record at `path`, if it is there and whole."""
    if not path.exists():
        return None
    try:
        return read_record(path)
    except RecordError as error:
        warnings.warn(f"done again: {error}", stacklevel=2)
        return None


def _check_options(configs: Iterable[RunConfig]) -> None:
    """Raise `ConfigError` before the first run if a pooler refuses its options."""
    import torch

    from . import models

    kinds = {(c.dataset, c.model, c.pooler, repr(c.pooler_options)): c for c in configs}
    with torch.random.fork_rng(devices=[]):
        for config in kinds.values():
            models.build(config)


# --- carrying out one task -------------------------------------------------------------------------------------------


def carry_out(task: Task) -> Outcome:
    """Do the run of `task` and write its record; a failed run leaves a record that says why."""
    try:
        if task.notebook is None:
            from .training import run

            run(task.config, task.results, progress=False)
        else:
            _run_notebook(task)
    except OSError as error:  # nothing could be written, a record of the failure neither: the run stays missing
        return Outcome(task, str(error), recorded=False)
    except Exception as error:
        return record_failure(task, _reason(error))
    return Outcome(task)


def _run_notebook(task: Task) -> None:
    import papermill

    parameters = {**task.config.parameters, "results": task.results}
    with _quiet():
        papermill.execute_notebook(task.notebook, None, parameters, progress_bar=False, kernel_name="python3")
    record = read_record(record_path(task.results, task.config))
    if record.status != "done":
        raise UserError(record.error)


@contextmanager
def _quiet() -> Iterator[None]:
    """No stderr, for child processes too: a kernel warns about its transport, in the middle of the progress bar.

    An error in the notebook does not come this way; it is raised.
    """
    before, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)


def _reason(error: Exception) -> str:
    """The error in one line; for an error in a notebook the notebook's own."""
    kind, text = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", str(error))
    return f"{kind}: {text}".splitlines()[0]


def record_failure(task: Task, reason: str, environment: dict[str, Any] | None = None) -> Outcome:
    """Make sure that `results` has a record of the failed run; the run's own, which says more, is kept.

    `environment` says where the run was tried (default: here).
    """
    from . import training

    path = record_path(task.results, task.config)
    own = _present(path)
    if own is not None and own.status == "failed" and own.error:
        return Outcome(task, own.error)
    config = task.config
    if environment is None:
        environment = training.environment(training.resolve_device(config.device))
    record = Record(config.parameters, config.key, "failed", reason, environment=environment)
    try:
        write_record(record, task.results)
    except OSError as error:
        return Outcome(task, f"{reason} (not recorded: {error})", recorded=False)
    return Outcome(task, reason)


# --- processes of this machine ---------------------------------------------------------------------------------------


class LocalProcesses:
    """An executor with `workers` processes. Each does one run after the other; one that dies is replaced."""

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise ConfigError(f"workers is {workers}; accepted: a whole number >= 1")
        self.workers = workers

    def execute(self, tasks: Sequence[Task]) -> Iterator[Outcome | None]:
        _check_machine([task.config for task in tasks])
        waiting = deque((task, 1) for task in tasks)
        threads = max(task.config.threads or 1 for task in tasks)
        workers = [_Worker(threads) for _ in range(min(self.workers, len(tasks)))]
        try:
            while waiting or any(worker.job for worker in workers):
                for number, worker in enumerate(workers):
                    if worker.job is None and waiting:
                        workers[number] = worker = worker.living()
                        worker.give(*waiting.popleft())
                busy: dict[Any, _Worker] = {worker.connection: worker for worker in workers if worker.job}
                ready = multiprocessing.connection.wait(list(busy), timeout=1)
                yield from (outcome for link in ready if (outcome := busy[link].take(waiting)))
                if not ready:
                    yield None
        finally:
            for worker in workers:
                worker.stop()


def _check_machine(configs: Iterable[RunConfig]) -> None:
    """Raise before the first run if this machine lacks a device or data."""
    from . import data, training

    needs = {(config.device, config.dataset) for config in configs}
    for device in {device for device, _ in needs}:
        training.resolve_device(device)
    for dataset in {dataset for _, dataset in needs}:
        data.load(dataset)


class _Worker:
    """One process and the parent's end of the pipe to it."""

    def __init__(self, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.threads = threads
        self.job: tuple[Task, int] | None = None
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs,), daemon=False)
        with _environment(
            OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads), PYDEVD_DISABLE_FILE_VALIDATION="1"
        ):
            self.process.start()
        theirs.close()

    def living(self) -> _Worker:
        """This worker, or a new one if its process has ended."""
        return self if self.process.is_alive() else _Worker(self.threads)

    def give(self, task: Task, attempt: int) -> None:
        self.job = (task, attempt)
        try:
            self.connection.send(task)
        except OSError:
            pass  # the process has just died: `take` finds out

    def take(self, waiting: deque[tuple[Task, int]]) -> Outcome | None:
        """The outcome that the process has sent. If it has died, its task goes back to the queue, or has failed."""
        assert self.job is not None
        (task, attempt), self.job = self.job, None
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
        if attempt < ATTEMPTS:
            waiting.appendleft((task, attempt + 1))
            return None
        return record_failure(task, f"its process ended {attempt} times, last with exit code {self.process.exitcode}")

    def stop(self) -> None:
        self.connection.close()
        if self.job is not None:
            self.process.terminate()
        self.process.join(5)
        if self.process.exitcode is None:
            self.process.kill()


def _work(connection: multiprocessing.connection.Connection) -> None:
    """A worker's life: tasks in, outcomes out, until the parent closes the pipe or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            task = connection.recv()
        except (EOFError, OSError):
            return
        connection.send(carry_out(task))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


# --- what the user sees meanwhile ------------------------------------------------------------------------------------


@contextmanager
def _bar(report: Report, progress: bool) -> Iterator[Any]:
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[misc, type-arg]
        best: dict[str, tuple[float, str]] = {}

        def note(self, outcome: Outcome) -> None:
            """Count the run, and show the best run so far of its data set, by validation accuracy."""
            self.update()
            config = outcome.task.config
            record = None if outcome.error else _present(record_path(outcome.task.results, config))
            chosen = record.summary.get("early_stopped") if record else None
            if chosen:
                candidate = (chosen["validation_accuracy"], config.pooler)
                self.best = {**self.best, config.dataset: max(candidate, self.best.get(config.dataset, candidate))}
            parts = [f"{dataset} {value:.3f} {pooler}" for dataset, (value, pooler) in self.best.items()]
            failed = [f"{len(report.failed)} failed"] if report.failed else []
            self.set_postfix_str(", ".join([*parts, *failed]))

    with Bar(total=report.total, initial=report.before + len(report.failed), unit="run", disable=not progress) as bar:
        yield bar
