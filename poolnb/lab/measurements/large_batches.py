"""What a large batch costs per sample: forward and backward of a pool at 2 by 2, with page faults counted.

A large tensor is new memory in every step: the C library gives what it frees back to the system, which then hands out
every page of 4 KiB anew, cleared. PyTorch can ask for pages of 2 MiB instead, if THP_MEM_ALLOC_ENABLE=1 is set before
it starts; so each way is measured in a process of its own. Linux alone counts page faults.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from poolnb import functional, native

POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "soft": lambda x: functional.soft_pool2d(x, 2),
    "torch max": lambda x: F.max_pool2d(x, 2),
    "torch avg": lambda x: F.avg_pool2d(x, 2),
}
PLAN = [
    {"batch": batch, "channels": 64, "size": 32, "huge_pages": huge, "turns": 15, "threads": 1, "seed": seed}
    for seed in range(3)
    for batch in (64, 128, 256)
    for huge in (False, True)
]


def measure(parameters: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Per pool `microseconds` per sample, the median over the turns, and `faults`, page faults per step."""
    environment = {**os.environ, "THP_MEM_ALLOC_ENABLE": str(int(parameters["huge_pages"]))}
    command = [sys.executable, "-m", "poolnb.lab.measurements.large_batches", json.dumps(parameters)]
    found = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(found), {}


def in_this_process(parameters: dict[str, Any]) -> dict[str, Any]:
    """The values of `measure`, under the environment that is there. The pools take turns; two turns warm up."""
    torch.set_num_threads(parameters["threads"])
    batch, channels, size = parameters["batch"], parameters["channels"], parameters["size"]
    generator = torch.Generator().manual_seed(parameters["seed"])
    x = torch.randn(batch, channels, size, size, generator=generator).requires_grad_()
    arriving = torch.ones(batch, channels, size // 2, size // 2)
    seconds: dict[str, list[float]] = {name: [] for name in POOLS}
    faults: dict[str, list[int]] = {name: [] for name in POOLS}
    for turn in range(parameters["turns"] + 2):
        for name, pool in POOLS.items():
            x.grad = None
            before, start = _page_faults(), time.perf_counter()
            pool(x).backward(arriving)
            if turn >= 2:
                seconds[name].append(time.perf_counter() - start)
                faults[name].append(_page_faults() - before)
    return {
        "microseconds": {name: 1e6 * statistics.median(own) / batch for name, own in seconds.items()},
        "faults": {name: statistics.median(own) for name, own in faults.items()},
        "compiled": sorted(native.operators()),
    }


def _page_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


if __name__ == "__main__":
    print(json.dumps(in_this_process(json.loads(sys.argv[1]))))
