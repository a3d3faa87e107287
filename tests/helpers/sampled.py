"""What the tests of the sampled operators share.

Statistical tests use fixed seeds, so they give the same answer in every run. Their limits are such that a right sampler
with a seed chosen at random would fail one of them with probability below 1e-6.
"""

from __future__ import annotations

from typing import Any

import pytest
from devices import torch
from poolers import SAMPLED
from torch import Tensor

from poolnb import functional as F

every_sampled = pytest.mark.parametrize("name", SAMPLED)
SHAPES = {1: (2, 3, 9), 2: (2, 3, 5, 6), 3: (2, 3, 4, 3, 4)}


def pool(name: str, x: Tensor, *args: Any, **params: Any) -> Tensor:
    dims = x.dim() - 2
    if name == "tdgs":
        params.setdefault("temperature", 0.7)
    return getattr(F, f"{name}_pool{dims}d")(x, *args, **params)


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def deviation(draws: Tensor, mean: Tensor, variance: Tensor) -> float:
    """The largest deviation of the draws' mean (over the first axis) from what it should be, in standard errors."""
    error = (variance / len(draws)).sqrt().clamp(min=1e-12)
    return float(((draws.mean(0) - mean) / error).abs().max())
