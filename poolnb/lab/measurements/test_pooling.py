"""Networks trained with one pooler and tested with another, as in table 5 of Zeiler and Fergus (2013)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from poolnb.lab import training
from poolnb.lab.config import RunConfig
from poolnb.lab.network import build
from poolnb.lab.training import prepared

TRAINED = ("stochastic", "max", "avg")
_DIGITS = {"dataset": "digits", "limit": 1280, "epochs": 20}
_CIFAR10 = {"dataset": "cifar10", "limit": 20_000, "epochs": 10}
PLAN = [
    {**shared, "pooler": pooler, "seed": seed}
    for shared, seeds in ((_DIGITS, 5), (_CIFAR10, 8))
    for seed in range(seeds)
    for pooler in TRAINED
]
# How to test: `weighted` is stochastic pooling's mean under its probabilities, `sampled` one draw from them.
TESTED = {"weighted": "stochastic", "sampled": "stochastic", "avg": "avg", "max": "max"}


def measure(parameters: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Train as `parameters` say; `errors` is the share of test samples missed, per way of pooling in the test."""
    config = RunConfig(**parameters, device="cpu")
    with prepared(config) as job:
        job.train(progress=False, on_epoch=None)
        errors = {way: _error(config, job.model, way, job.samples["test"]) for way in TESTED}
    return {"errors": errors, "train_loss": job.curves["train_loss"][-1]}, job.hashes


def _error(config: RunConfig, trained: nn.Module, way: str, samples: Any) -> float:
    model = build(replace(config, pooler=TESTED[way]))
    model.load_state_dict(trained.state_dict())  # none of these poolers has parameters
    if way == "sampled":
        model.pools = nn.ModuleList(_Sampling(pool) for pool in model.pools)  # type: ignore[union-attr]
    _, correct = training.evaluate(model, samples)
    return 1 - int(correct) / len(samples)


class _Sampling(nn.Module):
    """A pool that goes on sampling in a network that is being tested."""

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, images: Tensor) -> Tensor:
        self.pool.train()
        with torch.no_grad():
            drawn: Tensor = self.pool(images)
            return drawn
