"""Sweeps on a Dask cluster: the runs go to its workers, their records come back and are written here.

Start a scheduler and workers, each with one thread, since the state of torch's generators belongs to the process:

    dask scheduler
    dask worker tcp://HOST:8786 --nworkers 4 --nthreads 1
    dask worker tcp://HOST:8786 --nworkers 4 --nthreads 1 --resources GPU=1    # where a GPU is: four runs share it

A run with `device = "cuda"` goes to a worker that offers the resource GPU; every other run goes to any worker. Workers
need poolnb of the same sources and the data, but no folder in common with this machine. A worker that dies loses
nothing but time, and so does one that lacks something: its run goes to another one, and is missing if none can do it.
"""

from __future__ import annotations

import tempfile
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from poolnb.lab.config import RunConfig
from poolnb.lab.errors import ConfigError, UserError
from poolnb.lab.files import WriteError
from poolnb.lab.records import RecordError, parse_record, record_path, write_record
from poolnb.lab.sweeps.tasks import NOTEBOOK, Outcome, Task, carry_out

_ONE_AT_A_TIME = threading.Lock()  # for a worker with several threads: a run owns the process's generators


@dataclass
class _Try:
    """A task on its way, and the workers that could not do it, with the reason of the last one."""

    task: Task
    without: set[str] = field(default_factory=set)
    reason: str = ""


class Scheduler:
    """An executor that gives tasks to the Dask scheduler at `address`. `patience`: seconds to wait for an answer."""

    def __init__(self, address: str, patience: float = 10) -> None:
        self.address = address
        self.patience = patience

    def execute(self, tasks: Sequence[Task]) -> Iterator[Outcome | None]:
        from distributed import CancelledError, wait

        with self._client() as client:
            self._check_workers(client, [task.config for task in tasks])
            waiting = {self._submit(client, one): one for one in map(_Try, tasks)}
            last_seen = time.monotonic()
            try:
                while waiting:
                    try:
                        finished = wait(list(waiting), timeout=1, return_when="FIRST_COMPLETED").done
                    except TimeoutError:
                        last_seen = time.monotonic() if self._able(client, waiting.values()) else last_seen
                        if time.monotonic() - last_seen > self.patience:
                            raise UserError(self._nobody(waiting.values())) from None
                        yield None
                        continue
                    last_seen = time.monotonic()
                    for future in finished:
                        one = waiting.pop(future)
                        outcome = _outcome(one, future)
                        again = None if outcome else self._submit(client, one)
                        if again is not None:
                            waiting[again] = one
                        else:
                            yield outcome or Outcome(one.task, one.reason, recorded=False)
            except CancelledError:
                raise UserError(
                    f"the scheduler at {self.address} is gone; started again, the sweep does what is missing"
                ) from None
            finally:
                client.cancel(list(waiting))

    def _submit(self, client: Any, one: _Try) -> Any:
        """Give the task to a worker that has not failed at it; None if there is none left."""
        config = one.task.config
        able = [address for address in _able(_workers(client), config) if address not in one.without]
        if one.without and not able:
            return None
        name = f"{config.name}-{uuid.uuid4().hex[:8]}"  # another sweep's result of this name is not ours
        only = {"workers": able} if one.without else {}
        return client.submit(
            _there(), *_as_plain(one.task), key=name, pure=False, resources=_resources(config) or None, **only
        )

    def _able(self, client: Any, tries: Any) -> bool:
        """Whether a worker is there for one of the tasks."""
        workers = _workers(client)
        return any(set(_able(workers, one.task.config)) - one.without for one in tries)

    def _nobody(self, tries: Any) -> str:
        gpu = " --resources GPU=1" if any(_resources(one.task.config) for one in tries) else ""
        return (
            f"no worker of {self.address} is left for {len(tries)} runs; start some: dask worker {self.address} "
            f"--nthreads 1{gpu}; started again, the sweep does what is missing"
        )

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
        workers = _workers(client)
        if any(_resources(config) and not _able(workers, config) for config in configs):
            raise ConfigError(
                f"device is 'cuda', but no worker of {self.address} offers a GPU; "
                f"start one: dask worker {self.address} --nthreads 1 --resources GPU=1"
            )


def _resources(config: RunConfig) -> dict[str, float]:
    return {"GPU": 1} if config.device.startswith("cuda") else {}


def _workers(client: Any) -> dict[str, Any]:
    try:
        return dict(client.scheduler_info(n_workers=-1)["workers"])
    except OSError:  # the scheduler is gone, or slow: `wait` finds out
        return {}


def _able(workers: dict[str, Any], config: RunConfig) -> list[str]:
    """The addresses of the workers that offer what `config` asks for."""
    needs = _resources(config)
    return [address for address, one in workers.items() if needs.keys() <= one["resources"].keys()]


def _there() -> Callable[..., tuple[str, str, str]]:
    """What a worker is given to do. It travels as code, not by its name, so that a worker without poolnb can say so."""

    def there(parameters: dict[str, Any], by_notebook: bool, sources: str) -> tuple[str, str, str]:
        from distributed import get_worker

        here = get_worker().address
        try:
            from poolnb.lab.sweeps.scheduler import carry_out_there
        except Exception as error:
            return here, f"poolnb cannot be imported there ({type(error).__name__}: {error})", ""
        return here, *carry_out_there(parameters, by_notebook, sources)

    return there


def _as_plain(task: Task) -> tuple[dict[str, Any], bool, str]:
    """A task in plain values, and the fingerprint of the sources that it is meant for."""
    from poolnb.lab.training import source_hash_in_use

    return task.config.parameters, task.notebook is not None, source_hash_in_use()


def carry_out_there(parameters: dict[str, Any], by_notebook: bool, sources: str) -> tuple[str, str]:
    """On a worker: do the run; why there is no record, and the record's text, one of them empty."""
    from poolnb.lab.training import source_hash_in_use

    if source_hash_in_use() != sources:
        return "its poolnb has other sources than the sweep's", ""
    config = RunConfig.from_mapping(parameters)
    with _ONE_AT_A_TIME, tempfile.TemporaryDirectory() as folder:
        outcome = carry_out(Task(config, folder, str(NOTEBOOK) if by_notebook else None))
        path: Path = record_path(folder, config)
        if outcome.recorded:
            return "", path.read_text(encoding="utf-8")
        return outcome.error or "", outcome.record.to_json() if outcome.record else ""


def _outcome(one: _Try, future: Any) -> Outcome | None:
    """Write the record that has come back. None if none has: then `one` says why, and without whom to try again."""
    from distributed import CancelledError, KilledWorker

    task = one.task
    try:
        where, error, text = future.result()
    except CancelledError:
        raise
    except KilledWorker:
        return Outcome(task, "the workers that had this run have died", recorded=False)
    except Exception as raised:  # dask's own: the task did not come to a worker, or its answer not back
        return Outcome(task, f"its worker: {type(raised).__name__}: {_first_line(raised)}", recorded=False)
    try:
        record = parse_record(text) if text else None
    except RecordError as raised:
        record, error = None, str(raised)
    if record is None or record.key != task.config.key:
        one.without.add(where)
        one.reason = f"its worker {where}: {error or 'the record of another run came back'}"
        warnings.warn(f"tried elsewhere: {task.config.name}; {one.reason}", stacklevel=2)
        return None
    try:
        write_record(record, task.results)
    except WriteError as raised:
        return Outcome(task, str(raised), recorded=False, unwritable=True, record=record)
    return Outcome(task, record.error)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
