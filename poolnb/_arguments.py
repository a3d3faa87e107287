"""Checks of the arguments that poolers share. A fault is one message: the name, what it got, what is accepted."""

from __future__ import annotations

import math
import numbers
from typing import NamedTuple

import torch
from torch import Tensor

from poolnb.geometry import Geometry, IntOrSizes, resolve

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_AXES = {1: "L", 2: "H, W", 3: "D, H, W"}


class Call(NamedTuple):
    """A checked call: ``input`` with a batch dimension, ``mask`` with as many dimensions (or ``None``), the windows."""

    input: Tensor
    mask: Tensor | None
    windows: Geometry
    batched: bool

    @property
    def channels(self) -> int:
        return self.input.size(1)

    @property
    def sum_dtype(self) -> torch.dtype:
        """The dtype that sums are kept in: float32 for half types."""
        return torch.promote_types(self.input.dtype, torch.float32)

    def finish(self, output: Tensor) -> Tensor:
        """The output as the caller shaped the input: without a batch dimension where there was none."""
        return output if self.batched else output.squeeze(0)


def check(
    dims: int,
    input: Tensor,
    kernel_size: IntOrSizes | None,
    stride: IntOrSizes | None,
    padding: IntOrSizes,
    dilation: IntOrSizes,
    ceil_mode: bool,
    mask: Tensor | None,
) -> Call:
    """Check what every pooler takes and resolve its windows."""
    check_input(dims, input)
    batched = input.dim() == dims + 2
    x = input if batched else input.unsqueeze(0)
    windows = resolve(x.shape[2:], kernel_size, stride, padding, dilation, ceil_mode)
    return Call(x, _check_mask(mask, input, dims), windows, batched)


def check_input(dims: int, input: Tensor) -> None:
    """Check type, dtype, layout and shape of ``input`` for ``dims`` spatial dimensions."""
    if not isinstance(input, Tensor):
        raise TypeError(f"input must be a torch.Tensor, got {type(input).__name__}")
    if input.dtype not in DTYPES:
        accepted = ", ".join(str(d).removeprefix("torch.") for d in DTYPES)
        raise TypeError(f"input must have one of the dtypes {accepted}, got {input.dtype}")
    if input.layout != torch.strided:
        raise TypeError(f"input must be a dense (strided) tensor, got layout {input.layout}")
    shape = tuple(input.shape)
    if input.dim() not in (dims + 1, dims + 2):
        raise ValueError(
            f"input must have shape (N, C, {_AXES[dims]}) or (C, {_AXES[dims]}), got {input.dim()} dimensions: {shape}"
        )
    if any(n == 0 for n in shape[-dims - 1 :]):
        raise ValueError(f"input must not be empty, the batch dimension excepted, got shape {shape}")


def _check_mask(mask: Tensor | None, input: Tensor, dims: int) -> Tensor | None:
    """The mask with one dimension per dimension of the batched input, its spatial extents those of the input."""
    if mask is None:
        return None
    if not isinstance(mask, Tensor):
        raise TypeError(f"mask must be a bool torch.Tensor or None, got {type(mask).__name__}")
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must have dtype bool (True = valid), got {mask.dtype}")
    check_device("mask", mask, input)
    missing = input.dim() - mask.dim()
    pairs = zip(mask.shape, input.shape[max(missing, 0) :], strict=False)
    if missing < 0 or any(m not in (1, n) for m, n in pairs):
        raise ValueError(f"mask must broadcast to input's shape {tuple(input.shape)}, got shape {tuple(mask.shape)}")
    full = mask.reshape((1,) * (dims + 2 - mask.dim()) + tuple(mask.shape))
    return full.expand(*full.shape[:2], *input.shape[-dims:])


def check_device(name: str, tensor: Tensor, input: Tensor) -> None:
    if tensor.device != input.device:
        raise ValueError(f"{name} must be on input's device {input.device}, got {tensor.device}")


def number(
    name: str,
    value: float,
    low: float = -math.inf,
    high: float = math.inf,
    strict: bool = False,
    accepted: str = "real number",
) -> float:
    """A finite real number in [low, high], or (low, high] with ``strict``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a {accepted}, got {value!r}")
    # Comparisons alone, which torch.compile can trace for a dynamic float; NaN fails the first one.
    if not -math.inf < value < math.inf or value < low or value > high or (strict and value == low):
        raise ValueError(f"{name} must be a finite number{_range(low, high, strict)}, got {value!r}")
    return value


def _range(low: float, high: float, strict: bool) -> str:
    if high < math.inf:
        return f" in {'(' if strict else '['}{low:g}, {high:g}]"
    if low > -math.inf:
        return f" {'greater than' if strict else 'of at least'} {low:g}"
    return ""


def channel_parameter(
    name: str,
    value: float | Tensor,
    call: Call,
    low: float = -math.inf,
    high: float = math.inf,
    strict: bool = False,
) -> Tensor:
    """A float, 0-d tensor or (C,) tensor as a (C,) tensor in the dtype of sums; the range is checked for floats."""
    if not isinstance(value, Tensor):
        value = number(name, value, low, high, strict, "real number or a torch.Tensor")
        return torch.full((call.channels,), value, dtype=call.sum_dtype, device=call.input.device)
    check_parameter_tensor(name, value, call)
    if tuple(value.shape) not in ((), (call.channels,)):
        raise ValueError(f"{name} must be 0-d or have shape ({call.channels},), got shape {tuple(value.shape)}")
    return value.to(call.sum_dtype).expand(call.channels)


def check_parameter_tensor(name: str, value: Tensor, call: Call) -> None:
    """Device and dtype of a parameter: input's dtype, or float32 beside half types."""
    check_device(name, value, call.input)
    accepted = {call.input.dtype, call.sum_dtype}
    if value.dtype not in accepted:
        names = " or ".join(sorted(str(d).removeprefix("torch.") for d in accepted))
        raise TypeError(f"{name} must have dtype {names} beside an input of {call.input.dtype}, got {value.dtype}")


def flag(name: str, value: bool) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, got {value!r}")
    return value


def position_parameter(name: str, value: float | Tensor, call: Call) -> Tensor:
    """A float, 0-d, (C,) or (C, *output) tensor as a (C, *output) tensor in the dtype of sums."""
    shape = (call.channels, *call.windows.output)
    if not isinstance(value, Tensor):
        value = number(name, value, accepted="real number or a torch.Tensor")
        return torch.full(shape, value, dtype=call.sum_dtype, device=call.input.device)
    check_parameter_tensor(name, value, call)
    if tuple(value.shape) not in ((), shape[:1], shape):
        raise ValueError(
            f"{name} must be 0-d or have shape ({call.channels},) or {shape}, got shape {tuple(value.shape)}"
        )
    aligned = value.view(-1, *(1,) * len(call.windows.output)) if value.dim() == 1 else value
    return aligned.to(call.sum_dtype).expand(shape)


def noise_seed(seed: int | Tensor | None, training: bool, call: Call) -> Tensor | None:
    """The seed of a sampled operator as an int64 0-d tensor; ``None`` in evaluation, which draws nothing."""
    if isinstance(seed, Tensor):
        if seed.dtype != torch.int64:
            raise TypeError(f"seed must be an int or an int64 tensor, got a tensor of {seed.dtype}")
        if seed.dim() != 0:
            raise ValueError(f"seed must be an int or a 0-d tensor, got shape {tuple(seed.shape)}")
        if seed.device.type != "cpu":
            check_device("seed", seed, call.input)
    elif seed is not None:
        if isinstance(seed, bool) or not isinstance(seed, int | torch.SymInt):
            raise TypeError(f"seed must be an int, an int64 0-d tensor or None, got {seed!r}")
        if not -(2**63) <= seed < 2**63:
            raise ValueError(f"seed must be in [-2**63, 2**63), got {seed!r}")
    if not flag("training", training):
        return None
    if seed is None:
        return torch.randint(2**63 - 1, (), device="cpu")
    return seed if isinstance(seed, Tensor) else torch.full((), seed, dtype=torch.int64, device="cpu")
