"""Finding poolers by name, and swapping them into a model."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from poolnb import modules
from poolnb.geometry import IntOrSizes

# name -> class name without its dimension
_POOLS = {"avg": "AvgPool", "max": "MaxPool", "soft": "SoftPool", "swap": "SoftPool"}


def list_pools() -> list[str]:
    """The names that :func:`create_pool` accepts, in alphabetical order."""
    return sorted(_POOLS)


def pool_class(name: str, dims: int = 2) -> type[torch.nn.Module]:
    """The module class behind a name, for ``dims`` spatial dimensions."""
    if not isinstance(name, str) or name not in _POOLS:
        raise ValueError(f"name must be one of {', '.join(list_pools())}, got {name!r}")
    if dims not in (1, 2, 3):
        raise ValueError(f"dims must be 1, 2 or 3, got {dims!r}")
    return getattr(modules, f"{_POOLS[name]}{dims}d")


def create_pool(
    name: str,
    kernel_size: IntOrSizes | None,
    stride: IntOrSizes | None = None,
    *,
    dims: int = 2,
    channels: int | None = None,
    output_size: IntOrSizes | None = None,
    **own: Any,
) -> torch.nn.Module:
    """Create a pooler by name.

    Args:
        name: one of :func:`list_pools`.
        kernel_size, stride: as the pooler takes them; further geometry (``padding``, ...) goes into ``own``.
        dims: number of spatial dimensions, 1 to 3.
        channels: number of input channels; passed on to poolers that need it, ignored by the others.
        output_size: spatial output size; likewise.
        own: the pooler's own options.

    Raises:
        ValueError: an unknown name, a missing ``channels`` or ``output_size`` where the pooler needs it.
        TypeError: an option that the pooler does not have; the message lists those it has.
    """
    cls = pool_class(name, dims)
    accepted = [p for p in inspect.signature(cls).parameters if p not in ("kernel_size", "stride")]
    for option in own:
        if option not in accepted:
            raise TypeError(f"{name} has no option {option!r}; it accepts {', '.join(sorted(accepted))}")
    for key, value in (("channels", channels), ("output_size", output_size)):
        if key in accepted and value is not None:
            own[key] = value
    required = [
        p.name for p in inspect.signature(cls).parameters.values() if p.default is p.empty and p.name not in own
    ]
    missing = [p for p in required if p not in ("kernel_size", "stride")]
    if missing:
        raise ValueError(f"{name} needs {' and '.join(missing)}")
    return cls(kernel_size, stride=stride, **own)
