"""Models and modules that `replace_pooling` is tried on."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor, nn

import poolnb


class Small(nn.Module):
    """Pools in a sequence, in a dict, nested, shared, and one that is never called."""

    def __init__(self) -> None:
        super().__init__()
        shared = nn.MaxPool2d(2)
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, 1, ceil_mode=True))
        self.second = nn.ModuleDict({"a": shared, "b": nn.Sequential(nn.Conv2d(4, 8, 1), nn.AvgPool2d((2, 1), (2, 1)))})
        self.again = shared
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.second["a"](self.first(x))
        return self.head(self.second["b"](x))


def pools(model: nn.Module) -> dict[str, nn.Module]:
    return {n: m for n, m in model.named_modules(remove_duplicate=False) if isinstance(m, poolnb.Pool)}


KINDS = ("MaxPool", "AvgPool", "LPPool", "AdaptiveMaxPool", "AdaptiveAvgPool")
TORCH = [(kind, dims) for kind in KINDS for dims in (1, 2, 3)]
OWN_KIND = {"MaxPool": "max", "AdaptiveMaxPool": "max", "AvgPool": "avg", "AdaptiveAvgPool": "avg", "LPPool": "lp"}


def torch_pool(kind: str, dims: int, cls: type | None = None, **options: Any) -> nn.Module:
    cls = cls or getattr(nn, f"{kind}{dims}d")
    sizes = (1,) if kind.startswith("Adaptive") else (2.0, 3) if kind == "LPPool" else (3,)
    return cls(*sizes, **options)


def refused(model: nn.Module, match: str, name: str = "soft", **options: Any) -> None:
    """The call fails with this message and leaves the model as it was, one module per name."""
    options.setdefault("types", tuple(getattr(nn, f"{kind}{dims}d") for kind, dims in TORCH))
    before = dict(model.named_modules(remove_duplicate=False))
    with pytest.raises(ValueError, match=match):
        poolnb.replace_pooling(model, name, **options)
    after = dict(model.named_modules(remove_duplicate=False))
    assert list(before) == list(after) and all(before[n] is after[n] for n in before)
