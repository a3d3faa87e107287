"""What stands in the place of a pool, in a step of training: the published formula, a strided convolution, nothing.

The published formula of softmax weighting is computed by PyTorch's own operations, as its users would write it; beside
it stand the operator of this book, and max and average pooling. Without pools the maps keep their size to the end, and
so the first fully connected layer has one input per pixel and channel; with strided convolutions they shrink as with
pools. The networks take turns, as in `training_cost`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from poolnb import native
from poolnb.baselines import PLAIN, Windows
from poolnb.bench.work import LAYOUTS
from poolnb.lab.config import RunConfig
from poolnb.lab.measurements.training_cost import Step, bytes_kept, medians
from poolnb.lab.training import Job, prepared

FORMULA, STRIDED, NONE = "formula", "strided convolutions", "no pools"
NETWORKS = ("max", "avg", "soft", FORMULA, STRIDED, NONE)
PLAN = [
    {"dataset": "cifar10", "batch_size": 64, "turns": 15, "layout": layout, "threads": 1, "seed": seed}
    for layout in LAYOUTS
    for seed in range(3)
]


def measure(parameters: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Per network `milliseconds`, the median time of a training step, `kept`, the bytes kept for the gradient, and
    `operations`, the multiplications and additions of convolutions and fully connected layers, forward and backward.

    `compiled` names the operators whose compiled kernels were in use.
    """
    shared = {name: parameters[name] for name in ("dataset", "batch_size", "seed")}
    steps, kept, operations = {}, {}, {}
    hashes: dict[str, str] = {}
    for name in NETWORKS:
        pooler = name if name in ("max", "avg", "soft") else "max"
        with prepared(RunConfig(**shared, pooler=pooler, limit=1000, device="cpu")) as job:
            change(job, name)
            steps[name] = Step(job, LAYOUTS[parameters["layout"]])
            kept[name], hashes = bytes_kept(steps[name]), job.hashes
            with FlopCounterMode(display=False) as counter:
                steps[name]()
            operations[name] = counter.get_total_flops()
    milliseconds = medians(steps, parameters["turns"], parameters["threads"])
    values = {"milliseconds": milliseconds, "kept": kept, "operations": operations}
    return values | {"compiled": sorted(native.operators())}, hashes


def change(job: Job, name: str) -> None:
    """Put what `name` says in the place of the pools of the recipe's network."""
    model: Any = job.model
    if name == FORMULA:
        model.pools = nn.ModuleList(_Formula() for _ in model.pools)
    if name in (STRIDED, NONE):
        model.pools = nn.ModuleList(nn.Identity() for _ in model.pools)
    if name == STRIDED:
        for convolution in model.convs:
            convolution.stride = (2, 2)
    if name == NONE:
        images, _ = job.samples["train"].batch(torch.arange(1))
        model.hidden = nn.Linear(model.convs[-1].out_channels * images[0, 0].numel(), model.hidden.out_features)


class _Formula(nn.Module):
    """Softmax weighting over 2 by 2 windows by PyTorch's own means."""

    def forward(self, x: Tensor) -> Tensor:
        return PLAIN["soft"](x, Windows(2, 2))
