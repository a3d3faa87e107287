"""How it is timed: in turns, each call with the caches as the others find them; and once more within the cache."""

from __future__ import annotations

import ctypes
import math
import random
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from poolnb.bench.tasks import Key, Run, Task, all_tasks
from poolnb.bench.work import DTYPES, WORK, Setting

_CACHE = 32 << 20  # bytes of a CPU's largest cache, where the system does not say
_REPEATS = 25  # of a call whose data stay in the cache
_AHEAD = 2_000_000  # clock cycles that a GPU waits, while Python launches what will be timed


def turns(tasks: dict[Key, Task], device: str, seconds: float) -> dict[Key, float]:
    """The median of every task, in milliseconds, over as many turns as fit into the time, at least 5."""
    timed = _on_gpu if device == "cuda" else _on_cpu
    times: dict[Key, list[float]] = {key: [] for key in tasks}
    for task in tasks.values():
        timed(task)
    order, draw = list(tasks), random.Random(0)
    end = time.monotonic() + seconds
    while len(times[order[0]]) < 5 or time.monotonic() < end:
        draw.shuffle(order)
        for key in order:
            times[key].append(timed(tasks[key]))
    return {key: statistics.median(values) for key, values in times.items()}


def _on_cpu(task: Task) -> float:
    run = task()
    _other_memory().sum()
    return _milliseconds(run)


@cache
def _other_memory() -> Tensor:
    """Many times what a cache holds, of which a CPU may have several: after it is read, nothing else is there."""
    return torch.ones(8 * _cache_bytes() // 4)


@cache
def _cache_bytes() -> int:
    """The size of the CPU's largest cache."""
    sizes = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    try:
        return max(int(size.read_text().strip().removesuffix("K")) << 10 for size in sizes)
    except (OSError, ValueError):  # no Linux, or a machine that does not say
        return _CACHE


def _milliseconds(run: Run) -> float:
    began = time.perf_counter()
    result = run()
    took = time.perf_counter() - began
    del result
    return 1e3 * took


def _on_gpu(task: Task) -> float:
    run = task()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda._sleep(_AHEAD)
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end))


def in_cache(setting: Setting, operators: Sequence[str]) -> dict[Key, float]:
    """The milliseconds of every compiled kernel for this input, if it lay in the cache.

    They are those of some of its images, less what a call costs on an input of a few numbers.
    """
    image = math.prod(setting.shape[1:]) * DTYPES[setting.dtype].itemsize
    images = _cache_bytes() // 5 // image  # beside the input lie its gradient, the output and more
    if setting.device != "cpu" or not 0 < images < setting.shape[0]:
        return {}
    extent = WORK[setting.windows].kernel or 2
    few = _repeated(replace(setting, shape=(1, 1, *[extent] * setting.dims)), operators)
    many = _repeated(replace(setting, shape=(images, *setting.shape[1:])), operators)
    return {key: (many[key] - few[key]) / images * setting.shape[0] for key in many}


def _repeated(setting: Setting, operators: Sequence[str]) -> dict[Key, float]:
    """The median of many calls of one compiled kernel, one after the other."""
    tasks = {key: task for key, task in all_tasks(setting, operators, ["compiled"]).items() if key[1] == "compiled"}
    return {key: statistics.median(_milliseconds(task()) for _ in range(_REPEATS)) for key, task in tasks.items()}


def keep_freed_memory() -> None:
    """Tell glibc to keep what is freed, as it does in a training loop after the first steps.

    Else chance decides whether a result lies on pages that have to be made first, which takes longer than a copy.
    """
    trim_threshold, mmap_threshold = -1, -3  # malloc.h
    with suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(mmap_threshold, 32 << 20)  # the most that it takes
