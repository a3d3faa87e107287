"""One run of a sweep: carried out by the notebook or by the function that it calls, with a record whatever happens."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from .config import RunConfig, UserError
from .provenance import BOOK
from .records import Record, RecordError, read_record, record_path, write_record

NOTEBOOK = BOOK / "experiments" / "one-run.ipynb"


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
    own = present(path)
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


def present(path: Path) -> Record | None:
    """The record at `path`, if it is there and whole."""
    if not path.exists():
        return None
    try:
        return read_record(path)
    except RecordError as error:
        warnings.warn(f"done again: {error}", stacklevel=2)
        return None
