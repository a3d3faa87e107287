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

from poolnb.lab.config import RunConfig
from poolnb.lab.errors import ConfigError, UserError, shown
from poolnb.lab.sweeps.tasks import ATTEMPTS, Outcome, Task, carry_out

MOST = 1024  # processes
_GUARD = 'a script that starts a sweep does so under `if __name__ == "__main__":`, since every worker imports it'
_READY = "ready"


def check_main_module() -> None:
    """Raise `UserError` in a worker that imports a script which starts a sweep as it is imported."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise UserError(_GUARD)


def check_workers(workers: int) -> int:
    """The number of processes, if it can be one. Raises `ConfigError`."""
    if isinstance(workers, bool) or not isinstance(workers, int) or not 1 <= workers <= MOST:
        raise ConfigError(f"workers is {shown(workers)}; accepted: a whole number from 1 to {MOST}")
    return workers


class LocalProcesses:
    """An executor with `workers` processes. Each does one run after the other; one that dies is replaced."""

    def __init__(self, workers: int) -> None:
        self.workers = check_workers(workers)

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
    from poolnb.lab import data, training

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
        self.ready = False
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
        """The outcome that the process has sent, if it has sent one.

        A run that could not be carried out goes back to the queue, or is missing. Raises `UserError` if the process has
        ended before it was ready for a run, as every other one would.
        """
        assert self.job is not None
        try:
            sent: Any = self.connection.recv()
        except (EOFError, OSError):
            sent = self._ended()
        if sent == _READY:
            self.ready = True
            return None
        (task, attempt), self.job = self.job, None
        if not sent.recorded and not sent.unwritable and attempt < ATTEMPTS:
            waiting.appendleft((task, attempt + 1))
            return None
        outcome: Outcome = sent
        return outcome

    def _ended(self) -> Outcome:
        """What became of the task of a process that has ended."""
        assert self.job is not None
        task, attempt = self.job
        self.process.join()
        code = self.process.exitcode
        if not self.ready and code is not None and code > 0:  # it was not killed: it could not start
            raise UserError(f"a worker process has ended as it started, with exit code {code}; {_GUARD}")
        reason = f"its process ended {attempt} times, last with exit code {code}"
        return Outcome(task, reason + (" (killed: for want of memory?)" if code == -9 else ""), recorded=False)

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
    connection.send(_READY)
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
