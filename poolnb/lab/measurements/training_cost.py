"""What a step of training costs with each pooler: time, and memory kept for the gradient, in the recipe's network.

The poolers take turns, one step each, so that whatever slows the machine for a while slows all of them; the median over
the turns is kept. A repetition is such a measurement anew; the chapter's intervals are over repetitions.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import poolnb
from poolnb import native
from poolnb.bench.work import LAYOUTS
from poolnb.lab.config import RunConfig
from poolnb.lab.training import Job, _optimizer, prepared

TURNS = 45
POOLERS = [name for name in poolnb.list_pools() if name != "swap"]  # swap is soft under another name
THREADS = (1, 2)
PLAN = [
    {"dataset": "cifar10", "batch_size": 64, "turns": TURNS, "layout": layout, "threads": threads, "seed": seed}
    for layout in LAYOUTS
    for threads in THREADS
    for seed in range(3)
]


def measure(parameters: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Per pooler `milliseconds`, the median time of a training step, and `kept`, the bytes kept for the gradient.

    `layout` is that of the images and of the weights of convolutions, and so of everything between. `compiled` names
    the operators whose compiled kernels were in use.
    """
    shared = {name: parameters[name] for name in ("dataset", "batch_size", "seed")}
    steps, kept = {}, {}
    hashes: dict[str, str] = {}
    for pooler in POOLERS:
        with prepared(RunConfig(**shared, pooler=pooler, limit=1000, device="cpu")) as job:
            step = Step(job, LAYOUTS[parameters["layout"]])
            steps[pooler], kept[pooler], hashes = step, bytes_kept(step), job.hashes
    milliseconds = medians(steps, parameters["turns"], parameters["threads"])
    return {"milliseconds": milliseconds, "kept": kept, "compiled": sorted(native.operators())}, hashes


def medians(steps: Mapping[str, Callable[[], Any]], turns: int, threads: int) -> dict[str, float]:
    """The median milliseconds of each step. They take turns, and the first two turns warm up."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    for turn in range(turns + 2):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if turn >= 2:
                times[name].append(1000 * (time.perf_counter() - start))
    torch.set_num_threads(before)
    return {name: statistics.median(own) for name, own in times.items()}


class Step:
    """One training step on one batch, again and again."""

    def __init__(self, job: Job, layout: torch.memory_format) -> None:
        self.model = job.model.train().to(memory_format=layout)
        self.optimizer = _optimizer(job.config, job.model)
        images, self.labels = job.samples["train"].batch(torch.arange(job.config.batch_size))
        self.images = images.contiguous(memory_format=layout)

    def loss(self) -> Tensor:
        return F.cross_entropy(self.model(self.images), self.labels)

    def __call__(self) -> None:
        loss = self.loss()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()


def bytes_kept(step: Step) -> int:
    """The memory of all tensors that one forward pass keeps for its gradient, every one counted once."""
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = step.loss()
    del loss
    return sum(kept.values())
