"""How long a sweep will take: from records of the same kind of run, or from a short timing of a few steps."""

from __future__ import annotations

import heapq
import json
import math
import multiprocessing
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

from poolnb.lab.config import RunConfig
from poolnb.lab.records import Record
from poolnb.lab.sweeps.processes import environment_variables, start_variables

STEPS = 24  # timed per kind of run, three times
BATCHES = 4  # of the evaluation


class Forecast:
    """The seconds of runs, and when `workers` processes will have done them.

    `per_epoch` has the seconds of an epoch by `kind`; `start` those before a run begins, once per run with `each`,
    otherwise once per process. `source` says in words where the numbers come from.
    """

    def __init__(
        self, per_epoch: dict[str, float], workers: int, *, start: float = 0.0, each: bool = False, source: str = ""
    ) -> None:
        self.per_epoch = dict(per_epoch)
        self.workers = workers
        self.start, self.each = start, each
        self.source = source
        self.seen: dict[str, list[float]] = {}

    def seconds(self, config: RunConfig) -> float:
        """One run, start included where every run has its own."""
        return config.epochs * self.per_epoch[kind(config)] + (self.start if self.each else 0)

    def left(self, configs: Iterable[RunConfig]) -> float:
        """Seconds until all of `configs` are done, each given to the first process that is free."""
        started = self.each or self.seen  # processes are, once a run is done
        free = [0.0 if started else self.start] * self.workers
        for config in configs:
            heapq.heappush(free, heapq.heappop(free) + self.seconds(config))
        return max(free)

    def note(self, record: Record) -> None:
        """Learn from a run that is done: of its own kind directly, of those not seen yet in proportion."""
        own = kind(record.config)
        if own not in self.per_epoch or (seconds := _epoch_of(record)) is None:
            return
        first = not self.seen
        pace = seconds / self.per_epoch[own]
        self.seen.setdefault(own, []).append(seconds)
        self.per_epoch[own] = sum(self.seen[own]) / len(self.seen[own])
        if first:
            self.per_epoch = {name: s if name in self.seen else s * pace for name, s in self.per_epoch.items()}


def kind(config: RunConfig) -> str:
    """What decides how long an epoch takes: not the seed, the number of epochs, or the learning rate."""
    same = ("dataset", "model", "pooler", "pooler_options", "batch_size", "limit", "validation", "optimizer")
    parts = {name: getattr(config, name) for name in same} | {"dropout": config.dropout > 0}
    return json.dumps(parts | {"device": config.device, "threads": config.threads}, sort_keys=True)


def forecast(configs: Sequence[RunConfig], records: Iterable[Record], workers: int, *, each: bool = False) -> Forecast:
    """The forecast for runs that are missing: `each`, whether every run starts a process of its own.

    `records` are those of the sweep itself, made by this machine; others say nothing of it.
    """
    known: dict[str, list[float]] = {}
    for record in records:
        if record.environment.get("device_name") == _this_machine(record.config.device):
            known.setdefault(kind(record.config), []).extend(filter(None, [_epoch_of(record)]))
    kinds = {kind(config): config for config in configs}
    per_epoch = {name: sum(known[name]) / len(known[name]) for name in kinds if known.get(name)}
    unknown = {name: config for name, config in kinds.items() if name not in per_epoch}
    words = [f"{sum(len(known[name]) for name in per_epoch)} records"] if per_epoch else []
    start = 0.0
    if unknown:
        start, timed = _timed(list(unknown.values()), workers)
        per_epoch |= dict(zip(unknown, timed, strict=True))
        words.append(f"a few steps of {len(unknown)} kinds of run" if len(unknown) > 1 else "a few steps")
    elif each:
        start, _ = _timed([], workers)
    return Forecast(per_epoch, workers, start=start, each=each, source=" and ".join(words))


def _this_machine(device: str) -> str:
    from poolnb.lab import training

    return str(training.environment(training.resolve_device(device))["device_name"])


def _epoch_of(record: Record) -> float | None:
    epochs = record.timing.get("epochs")
    return sum(epochs) / len(epochs) if record.status == "done" and epochs else None


def _timed(configs: Sequence[RunConfig], workers: int) -> tuple[float, list[float]]:
    """Seconds until a process is ready, and those of an epoch of each kind while all `workers` are busy with it."""
    threads = max((config.threads or 1 for config in configs), default=1)
    context = multiprocessing.get_context("spawn")
    begin = time.perf_counter()
    with environment_variables(**start_variables(threads)), ProcessPoolExecutor(workers, context) as pool:
        list(pool.map(_ready, [configs[0] if configs else None] * workers))
        start = time.perf_counter() - begin
        each = [list(pool.map(_seconds_or_none, [config] * workers)) for config in configs]
    return start, [sum(times) / len(times) for times in each]


def _ready(config: RunConfig | None) -> None:
    """What a process does before its first step: the imports, and the data and kernels of a run."""
    from poolnb.lab import training

    if config is not None:
        with suppress(Exception), training.prepared(config):
            pass
    time.sleep(0.1)  # so that one process does not take the turn of another


def _seconds_or_none(config: RunConfig) -> float:
    """The seconds of an epoch; hardly any of a run that fails in its first steps, which the sweep itself will tell."""
    try:
        return epoch_seconds(config)
    except Exception:
        return 1e-3


def epoch_seconds(config: RunConfig) -> float:
    """The seconds of an epoch of `config`, from some steps of training and some batches of evaluation."""
    import torch

    from poolnb.lab import data, training

    samples = data.load(config.dataset)
    train, validation = data.split(samples.train, config.validation, config.limit)
    steps = math.ceil(len(train) / config.batch_size)
    timed = min(steps, STEPS)
    short = replace(config, epochs=3, limit=timed * config.batch_size if config.limit is None else config.limit)
    with training.prepared(short) as job:
        test = min(len(job.samples["test"]), BATCHES * training.EVALUATION_BATCH)
        sizes = {"train": min(len(train), timed * config.batch_size), "validation": 0, "test": test}
        job.samples = {name: job.samples[name].subset(torch.arange(size)) for name, size in sizes.items()}
        job.train(progress=False, on_epoch=None)
        evaluation = min(_seconds(lambda: training.evaluate(job.model, job.samples["test"])) for _ in range(2))
        step = (sum(job.seconds[1:]) / len(job.seconds[1:]) - evaluation) / timed
        share = (len(validation) + len(samples.test)) / test
    return max(0.0, step) * steps + evaluation * share


def _seconds(act: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    act()
    return time.perf_counter() - begin


def in_words(seconds: float) -> str:
    """`50 s`, `12 min`, `3 h 20 min`: no finer than such a forecast is."""
    if seconds < 90:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
