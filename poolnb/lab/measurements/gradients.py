"""How well a minibatch's gradient estimates the full gradient, per pooler, at fixed weights, in stages of training.

The full gradient is that of the mean loss over all training samples in use. Minibatches are a partition of these
samples, drawn without replacement: all of them together give the full gradient exactly. Before training, the weights
are the same for all poolers of one seed; later, each network has its own.

Poolers that sample are left out: part of their gradient's scatter is their own noise, at any batch size.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poolnb.lab.config import RunConfig
from poolnb.lab.samples import Samples
from poolnb.lab.training import prepared

BATCH_SIZES = (16, 64, 256)
_DIGITS = {"dataset": "digits", "limit": 1280, "stages": [0, 1, 5, 20]}
_CIFAR10 = {"dataset": "cifar10", "limit": 2560, "stages": [0, 1, 5, 10]}
_PLANS = ((_DIGITS, ("max", "avg", "soft", "gem", "lse", "lp", "mixed")), (_CIFAR10, ("max", "avg", "soft")))
PLAN = [
    {**shared, "pooler": pooler, "seed": seed} for shared, poolers in _PLANS for seed in range(5) for pooler in poolers
]


def measure(parameters: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Train as `parameters` say and measure at every stage (a number of epochs).

    The values are lists over the stages: `train_loss`, then per batch size and per part of the weights ("all", and
    "first", the first convolution, which every pool stands behind) the mean `cosine` between minibatch and full
    gradient, and `noise`, the mean squared distance between them over the squared length of the full gradient.
    """
    stages = parameters["stages"]
    chosen = {name: parameters[name] for name in ("dataset", "limit", "pooler", "seed")}
    config = RunConfig(**chosen, epochs=max(stages), device="cpu", validation=0.02)
    found: list[dict[str, Any]] = []
    with prepared(config) as job:
        job.samples["test"] = job.samples["test"].subset(torch.arange(100))  # no accuracy is asked for

        def at(epoch: int, values: Any = None) -> None:
            if epoch in stages:
                found.append(quality(job.model, job.samples["train"], config.seed))

        at(0)
        job.train(progress=False, on_epoch=at)
    return {"stages": found}, job.hashes


def quality(model: nn.Module, samples: Samples, seed: int, sizes: tuple[int, ...] = BATCH_SIZES) -> dict[str, Any]:
    """The measures of one stage: see `measure`. The weights of `model` are left as they are."""
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))
    model.train()
    loss, full = _gradient(model, samples, order, max(sizes))
    found: dict[str, Any] = {"train_loss": loss, "length": {part: float(g.norm()) for part, g in full.items()}}
    for size in sizes:
        sums = {part: [0.0, 0.0] for part in full}
        batches = [batch for batch in order.split(size) if len(batch) == size]
        for batch in batches:
            _, own = _gradient(model, samples, batch, size)
            for part, gradient in own.items():
                sums[part][0] += float(torch.cosine_similarity(gradient, full[part], dim=0))
                sums[part][1] += float((gradient - full[part]).square().sum() / full[part].square().sum())
        found[str(size)] = {
            part: {"cosine": cosine / len(batches), "noise": noise / len(batches)}
            for part, (cosine, noise) in sums.items()
        }
    return found


def _gradient(model: nn.Module, samples: Samples, index: Tensor, chunk: int) -> tuple[float, dict[str, Tensor]]:
    """Mean loss over the samples `index`, and its gradient (float64) in the weights that all poolers share."""
    weights = {name: weight for name, weight in model.named_parameters() if not name.startswith("pools.")}
    total = [torch.zeros(weight.shape, dtype=torch.float64) for weight in weights.values()]
    loss_sum = 0.0
    for part in index.split(chunk):
        images, labels = samples.batch(part)
        loss = F.cross_entropy(model(images), labels, reduction="sum") / len(index)
        for place, gradient in zip(total, torch.autograd.grad(loss, list(weights.values())), strict=True):
            place += gradient
        loss_sum += float(loss.detach())
    if not math.isfinite(loss_sum):
        raise FloatingPointError(f"the training loss is {loss_sum}")
    first = [g.flatten() for name, g in zip(weights, total, strict=True) if name.startswith("convs.0.")]
    return loss_sum, {"all": torch.cat([g.flatten() for g in total]), "first": torch.cat(first)}
