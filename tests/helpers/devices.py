"""Where the tests' tensors lie: `pytest --device cuda` runs the operators' tests on a GPU, and no other test.

A test of an operator says `from devices import torch`. That is PyTorch itself, or for another device than the CPU a
stand-in whose makers of tensors (`torch.rand` and the like) make them on the CPU, by the CPU's random generators, and
put them on the device: the numbers are the same everywhere. What the library makes itself is left alone, so that a
kernel that forgets its input's device is found.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch as _torch

DEVICE = _torch.device("cpu")
torch: Any = _torch

_MAKERS = (
    *("arange", "as_tensor", "empty", "eye", "from_numpy", "full", "linspace", "ones"),
    *("rand", "randint", "randn", "randperm", "tensor", "zeros"),
)


class _OnDevice:
    """PyTorch, but for where new tensors are."""

    def __init__(self, device: _torch.device) -> None:
        for name in _MAKERS:
            setattr(self, name, _placed(getattr(_torch, name), device))

    def __getattr__(self, name: str) -> Any:
        return getattr(_torch, name)


def _placed(make: Callable[..., _torch.Tensor], device: _torch.device) -> Callable[..., _torch.Tensor]:
    @functools.wraps(make)
    def placed(*args: Any, requires_grad: bool = False, **options: Any) -> _torch.Tensor:
        if "device" not in options and make is _torch.empty:  # may be larger than the CPU's memory
            options["device"] = device
        made = make(*args, **options)
        return (made if "device" in options else made.to(device)).requires_grad_(requires_grad)

    return placed


def choose(name: str) -> None:
    """Put all tensors that operators' tests make from now on there. Raises RuntimeError if there is no such device."""
    global DEVICE, torch
    if name == "cpu":
        return
    device = _torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= _torch.cuda.device_count():
        raise RuntimeError(f"--device is {name}, but torch sees {_torch.cuda.device_count()} CUDA devices")
    DEVICE, torch = _torch.empty(0, device=device).device, _OnDevice(device)
