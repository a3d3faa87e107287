"""One run of a sweep: carried out by the notebook or by the function that it calls.

A run ends in one of three ways. It is done. It has failed: training itself did, and its record says so. Or it is
missing: something about this machine was wrong, which says nothing of the run, so there is no record; the next sweep
tries it again.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from poolnb.lab.config import RunConfig
from poolnb.lab.files import WriteError
from poolnb.lab.provenance import BOOK
from poolnb.lab.records import Record, RecordError, is_done, read_record, record_path

NOTEBOOK = BOOK / "experiments" / "one-run.ipynb"
ATTEMPTS = 2  # a run that this machine could not carry out is tried once more before it is left missing


@dataclass(frozen=True)
class Task:
    """One run to be done, by the notebook if there is one, else by the function that the notebook calls."""

    config: RunConfig
    results: str
    notebook: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a task: no `error`, or a line that says what went wrong.

    `recorded`: whether there is a record, of a run that is done or has failed; else the run is missing. `unwritable`:
    the record could not be written to the results, so that every further run is in vain; `record` is that record.
    """

    task: Task
    error: str | None = None
    recorded: bool = True
    unwritable: bool = False
    record: Record | None = None

    @property
    def kind(self) -> str:
        """What became of it in one word: done, failed or missing."""
        return "missing" if not self.recorded else "failed" if self.error else "done"


class Executor(Protocol):
    """Something that carries out tasks and tells the outcome of each, in any order."""

    def execute(self, tasks: Sequence[Task]) -> Iterator[Outcome | None]:
        """Yield one outcome per task; None now and then, while there is nothing to tell."""


def carry_out(task: Task) -> Outcome:
    """Do the run of `task`, unless another sweep on the same folder has done it meanwhile."""
    from poolnb.lab.training import RunError, run

    path = record_path(task.results, task.config)
    try:
        if is_done(path):
            return Outcome(task)
        if task.notebook is None:
            run(task.config, task.results, progress=False)
        else:
            _run_notebook(task)
    except RunError as error:
        own = present(path)
        return Outcome(task, own.error if own and own.error else str(error))
    except WriteError as error:
        return Outcome(task, str(error), recorded=False, unwritable=True, record=error.record)
    except Exception as error:
        return Outcome(task, _reason(error), recorded=False)
    return Outcome(task)


def _run_notebook(task: Task) -> None:
    """Execute the notebook, and raise what the run in it has raised."""
    import papermill

    from poolnb.lab.training import RunError

    parameters = {**task.config.parameters, "results": task.results}
    try:
        with _quiet(), _own_kernel():
            papermill.execute_notebook(task.notebook, None, parameters, progress_bar=False, kernel_name="python3")
    except papermill.PapermillExecutionError as error:
        raised = {"RunError": RunError, "WriteError": WriteError}.get(error.ename)
        if raised is not None:
            raise raised(error.evalue) from None
        if not is_done(record_path(task.results, task.config)):  # what comes after the run is none of it
            raise
    read_record(record_path(task.results, task.config))


@contextmanager
def _own_kernel() -> Iterator[None]:
    """Let the kernel called python3 be this Python: the user may have one of this name that is another."""
    from ipykernel.kernelspec import write_kernel_spec

    before = os.environ.get("JUPYTER_PATH")
    with tempfile.TemporaryDirectory(prefix="poolnb-kernel-") as folder:
        write_kernel_spec(os.path.join(folder, "kernels", "python3"))
        os.environ["JUPYTER_PATH"] = os.pathsep.join([folder, *([before] if before else [])])
        try:
            yield
        finally:
            os.environ.pop("JUPYTER_PATH") if before is None else os.environ.update(JUPYTER_PATH=before)


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
    return f"{kind}: {text}".strip().splitlines()[0]


def present(path: Path) -> Record | None:
    """The record at `path`, if it is there and whole."""
    if not path.exists():
        return None
    try:
        return read_record(path)
    except RecordError as error:
        warnings.warn(f"done again: {error}", stacklevel=2)
        return None
