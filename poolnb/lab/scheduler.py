"""Sweeps on a Dask cluster: the runs go to its workers, their records come back and are written here.

Start a scheduler and workers, each with one thread, since the state of torch's generators belongs to the process:

    dask scheduler
    dask worker tcp://HOST:8786 --nworkers 4 --nthreads 1
    dask worker tcp://HOST:8786 --nworkers 4 --nthreads 1 --resources GPU=1    # where a GPU is: four runs share it

A run with `device = "cuda"` goes to a worker that offers the resource GPU; every other run goes to any worker. Workers
need poolnb and the data, but no folder in common with this machine. A worker that dies loses nothing but time: its run
goes to another one.
"""

from __future__ import annotations

import tempfile
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from .config import ConfigError, RunConfig, UserError
from .records import parse_record, record_path, write_record
from .tasks import NOTEBOOK, Outcome, Task, carry_out, record_failure

_ONE_AT_A_TIME = threading.Lock()  # for a worker with several threads: a run owns the process's generators


class Scheduler:
    """An executor that gives tasks to the Dask scheduler at `address`. `patience`: seconds to wait for an answer."""

    def __init__(self, address: str, patience: float = 10) -> None:
        self.address = address
        self.patience = patience

    def execute(self, tasks: Sequence[Task]) -> Iterator[Outcome | None]:
        from distributed import CancelledError, wait

        with self._client() as client:
            self._check_workers(client, [task.config for task in tasks])
            waiting = {_submit(client, task): task for task in tasks}
            try:
                while waiting:
                    try:
                        finished = wait(list(waiting), timeout=1, return_when="FIRST_COMPLETED").done
                    except TimeoutError:
                        yield None
                        continue
                    for future in finished:
                        yield _outcome(waiting.pop(future), future)
            except CancelledError:
                raise UserError(
                    f"the scheduler at {self.address} is gone; started again, the sweep does what is missing"
                ) from None
            finally:
                client.cancel(list(waiting))

    @contextmanager
    def _client(self) -> Iterator[Any]:
        from distributed import Client

        try:
            client = Client(self.address, timeout=self.patience)
        except (OSError, TimeoutError, ValueError, TypeError) as error:
            raise ConfigError(
                f"scheduler is {self.address!r}, where no Dask scheduler answers ({_first_line(error)}); "
                "accepted: the address that `dask scheduler` shows, such as tcp://192.168.0.1:8786"
            ) from None
        with client:
            yield client

    def _check_workers(self, client: Any, configs: Sequence[RunConfig]) -> None:
        """Raise `ConfigError` if runs would wait for workers that are not there."""
        try:
            client.wait_for_workers(1, timeout=self.patience)
        except TimeoutError:
            raise ConfigError(
                f"scheduler {self.address} has no workers; start some: dask worker {self.address} --nthreads 1"
            ) from None
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        if any(map(_resources, configs)) and not any(worker["resources"].get("GPU") for worker in workers):
            raise ConfigError(
                f"device is 'cuda', but no worker of {self.address} offers a GPU; "
                f"start one: dask worker {self.address} --nthreads 1 --resources GPU=1"
            )


def _resources(config: RunConfig) -> dict[str, float]:
    return {"GPU": 1} if config.device.startswith("cuda") else {}


def _submit(client: Any, task: Task) -> Any:
    name = f"{task.config.name}-{uuid.uuid4().hex[:8]}"  # another sweep's result of this name is not ours
    return client.submit(carry_out_there, task, key=name, pure=False, resources=_resources(task.config) or None)


def carry_out_there(task: Task) -> tuple[str | None, str]:
    """On a worker: do the run of `task`; its error, if any, and the text of its record."""
    with _ONE_AT_A_TIME, tempfile.TemporaryDirectory() as folder:
        here = replace(task, results=folder, notebook=task.notebook and str(NOTEBOOK))
        outcome = carry_out(here)
        path: Path = record_path(folder, task.config)
        return outcome.error, path.read_text(encoding="utf-8") if path.exists() else ""


def _outcome(task: Task, future: Any) -> Outcome:
    """Write the record that has come back; a run whose workers have died, or raised, has failed."""
    from distributed import KilledWorker

    try:
        error, text = future.result()
    except KilledWorker:
        return record_failure(task, "the workers that had this run have died", environment={})
    except Exception as raised:
        return record_failure(task, f"its worker: {type(raised).__name__}: {_first_line(raised)}", environment={})
    if not text:
        return record_failure(task, f"its worker: {error}", environment={})
    try:
        write_record(parse_record(text), task.results)
    except OSError as raised:
        return Outcome(task, str(raised), recorded=False)
    return Outcome(task, error)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
