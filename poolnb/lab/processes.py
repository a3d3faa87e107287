"""An executor of sweeps: processes of this machine, one run at a time each, replaced when they die."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .config import ConfigError, RunConfig
from .tasks import Outcome, Task, carry_out, record_failure

ATTEMPTS = 2  # a run whose process dies is tried once more before it counts as failed


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
        with environment_variables(**start_variables(threads)):
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


def start_variables(threads: int) -> dict[str, str]:
    """The environment that a process of so many threads is started in."""
    return {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}


@contextmanager
def environment_variables(**values: str) -> Iterator[None]:
    """These variables in the environment, inside; as before afterwards."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
