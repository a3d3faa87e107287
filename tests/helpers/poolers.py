"""The poolers as modules, as the tests of what PyTorch does with modules see them."""

from __future__ import annotations

from typing import Any

import pytest
from devices import DEVICE, torch
from torch import Tensor, nn

import poolnb
from poolnb.ops.registration import OPS
from poolnb.registry import pool_class

every_pooler = pytest.mark.parametrize("name", poolnb.list_pools())
SAMPLED = tuple(n for n in poolnb.list_pools() if (op := OPS.get(f"{pool_class(n).op}_pool")) and op.sampled)
# Those that say how to begin again. LpPool has a parameter only if its caller gives it one.
LEARNED = tuple(n for n in poolnb.list_pools() if hasattr(pool_class(n), "reset_parameters"))


def make(name: str, seed: int = 0, **params: Any) -> nn.Module:
    """A pooler for (N, 3, 7, 6) with overlapping, padded windows and parameters away from their first values."""
    torch.manual_seed(seed)
    module = poolnb.create_pool(name, 3, 2, padding=1, channels=3, output_size=(4, 3), **params).to(DEVICE)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.rand_like(parameter))
    return module


def batch(seed: int = 0, n: int = 2) -> Tensor:
    return torch.randn(n, 3, 7, 6, generator=torch.Generator().manual_seed(seed))
