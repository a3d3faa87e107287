"""What is recorded of one input and one set of windows: a row per operation."""

from __future__ import annotations

import multiprocessing
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import torch

from poolnb.bench.tasks import all_tasks
from poolnb.bench.timing import in_cache, keep_freed_memory, turns
from poolnb.bench.work import Setting, least_bytes


@dataclass(frozen=True)
class Row:
    """One measured operation; times in milliseconds, traffic in GB/s.

    `in_cache`: the time of so much work on data that stay in the cache; None where it was not measured.
    """

    operator: str
    kernel: str
    direction: str
    windows: str
    dtype: str
    layout: str
    shape: tuple[int, ...]
    ms: float
    copies: float  # as a multiple of copy_
    traffic: float
    share_of_copy: float
    in_cache: float | None = None
    processes: int = 1  # whose median this is


def measure(
    setting: Setting, operators: Sequence[str], kernels: Sequence[str], seconds: float, processes: int = 1
) -> list[Row]:
    """Time everything for one input and one set of windows, or do so in several new processes and take medians.

    Where its memory lies makes some per cent of a time, and that stays as it is for as long as a process lives. What
    did not run in every process, such as a rival that compiled in some, is left out.
    """
    if processes == 1:
        return _measure_once(setting, operators, kernels, seconds)
    return medians([_in_a_new_process(setting, operators, kernels, seconds) for _ in range(processes)])


def medians(runs: Sequence[Sequence[Row]]) -> list[Row]:
    """One row for each that all processes have, of the medians of their figures."""
    by_task = [{(row.operator, row.kernel, row.direction): row for row in run} for run in runs]
    return [_median([run[task] for run in by_task]) for task in by_task[0] if all(task in run for run in by_task)]


def _in_a_new_process(*work: Any) -> list[Row]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _prepare, (torch.get_num_threads(),)) as process:
        return process.submit(_measure_once, *work).result()


def _prepare(threads: int) -> None:
    torch.set_num_threads(threads)
    keep_freed_memory()


def _median(rows: Sequence[Row]) -> Row:
    """One row in place of those of several processes."""
    figures: dict[str, Any] = {}
    for name in ("ms", "copies", "traffic", "share_of_copy", "in_cache"):
        values = [value for row in rows if (value := getattr(row, name)) is not None]
        figures[name] = round(statistics.median(values), 4) if values else None
    return replace(rows[0], **figures, processes=len(rows))


def _measure_once(setting: Setting, operators: Sequence[str], kernels: Sequence[str], seconds: float) -> list[Row]:
    times = turns(all_tasks(setting, operators, kernels), setting.device, seconds)
    cached = in_cache(setting, operators) if "compiled" in kernels else {}
    copy = times["copy_", "aten", "forward"]
    bandwidth = least_bytes(setting, "copy_", "forward") / copy
    rows = []
    for (name, kernel, direction), ms in times.items():
        traffic = least_bytes(setting, name, direction) / ms
        where = (setting.windows, setting.dtype, setting.layout, setting.shape)
        figures = (round(ms, 4), round(ms / copy, 3), round(traffic / 1e6, 2), round(traffic / bandwidth, 3))
        alone = cached.get((name, kernel, direction))
        rows.append(Row(name, kernel, direction, *where, *figures, alone and round(alone, 4)))
    return rows
