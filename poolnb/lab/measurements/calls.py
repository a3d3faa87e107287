"""What a call costs where the numbers cost nothing: modules on a map of 4 by 4, forward, and forward and backward.

The modules take turns, many calls each, so that whatever slows the machine for a while slows all of them. Beside them
stands torch's own max pooling, whose binding is code that its build generates; `its op` is the same kernel called as
poolnb's are, through the operator registry.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import poolnb
from poolnb import native
from poolnb.lab.measurements.training_cost import POOLERS, medians

CALLS, TORCH, ITS_OP = 100, "torch max", "torch max, its op"
PLAN = [{"shape": [1, 2, 4, 4], "turns": 25, "threads": 1, "seed": seed} for seed in range(3)]


def measure(parameters: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Microseconds per call, the median over the turns: `forward` of an input that asks for no gradient, `both` with
    the gradient. `compiled` names the operators whose compiled kernels were in use."""
    torch.manual_seed(parameters["seed"])
    x = torch.rand(parameters["shape"])
    pools = _pools(x)
    ways = {
        "forward": {n: _forward(pool, x) for n, pool in pools.items()},
        "both": {n: _both(pool, x.clone().requires_grad_()) for n, pool in pools.items() if n != ITS_OP},
    }
    found = {}
    for way, calls in ways.items():
        milliseconds = medians(
            {n: _many(call) for n, call in calls.items()}, parameters["turns"], parameters["threads"]
        )
        found[way] = {n: 1000 * taken / CALLS for n, taken in milliseconds.items()}
    return found | {"compiled": sorted(native.operators())}, {}


def _pools(x: Tensor) -> dict[str, Callable[[Tensor], Any]]:
    made = {name: poolnb.create_pool(name, 2, channels=x.size(1), output_size=2) for name in POOLERS}
    op = torch.ops.aten.max_pool2d_with_indices.default
    return {TORCH: nn.MaxPool2d(2), ITS_OP: lambda x: op(x, (2, 2), (2, 2), (0, 0), (1, 1), False), **made}


def _forward(pool: Callable[[Tensor], Any], x: Tensor) -> Callable[[], Any]:
    return lambda: pool(x)


def _both(pool: Callable[[Tensor], Any], x: Tensor) -> Callable[[], Any]:
    arriving = torch.ones_like(pool(x).detach())

    def both() -> None:
        x.grad = None
        pool(x).backward(arriving)

    return both


def _many(call: Callable[[], Any]) -> Callable[[], None]:
    def many() -> None:
        for _ in range(CALLS):
            call()

    return many
