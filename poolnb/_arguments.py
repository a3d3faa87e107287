"""Checks of the arguments that poolers share. A fault is one message: the name, what it got, what is accepted."""

from __future__ import annotations

import math
import numbers
from typing import NamedTuple

import torch
from torch import Tensor

from poolnb.geometry import (
    Geometry,
    IntOrSizes,
    OutputSize,
    Padding,
    adaptive_equal,
    check_output_size,
    per_dim,
    plain_int,
    resolve,
)
from poolnb.ops.adaptive import copied, side_by_side
from poolnb.ops.checks import ACC_DTYPES, DTYPES
from poolnb.ops.seed import draw_seed
from poolnb.ops.taps import visible

TORCHSCRIPT = (
    "poolnb does not work in TorchScript (torch.jit.trace, torch.jit.script, torch.onnx.export with dynamo=False), "
    "which would keep the example's sizes: use torch.export, or torch.onnx.export with dynamo=True"
)
_AXES = {1: "L", 2: "H, W", 3: "D, H, W"}
_LIMITS = {d: (torch.finfo(d).smallest_normal, torch.finfo(d).max) for d in DTYPES}


class Call(NamedTuple):
    """A checked call: ``input`` with a batch dimension, ``mask`` with as many dimensions (or ``None``), the windows.

    Where an ``output_size`` makes windows differ, these three have the windows' taps side by side, and ``source`` is
    the spatial size that the input came with.
    """

    input: Tensor
    mask: Tensor | None
    windows: Geometry
    batched: bool
    source: tuple[int, ...] | None = None

    @property
    def channels(self) -> int:
        return self.input.size(1)

    @property
    def acc_dtype(self) -> torch.dtype:
        """The dtype that sums are kept in: float32 for half types."""
        return ACC_DTYPES[self.input.dtype]

    @property
    def trimmed(self) -> Geometry:
        """The windows for an operator that does not know its taps by number."""
        return self.windows.trimmed()

    @property
    def numbered(self) -> Geometry:
        """The windows for one that does, where they are not nearly all padding: that would take memory for nothing."""
        w = self.windows
        if w.padded and w.taps > 2**16 and w.taps > 64 * math.prod(w.size):
            raise ValueError(
                f"kernel_size must give at most 64 taps per input position, got {w.kernel} for spatial size {w.size}: "
                "nearly all of a window would be padding"
            )
        return w.near()

    def like_input(self, x: Tensor) -> Tensor:
        """A tensor of the size that the input came with, its taps laid out as the input's."""
        return x if self.source is None else copied(x, self.source, self.windows.output)

    def finish(self, output: Tensor) -> Tensor:
        """The output as the caller shaped the input: without a batch dimension where there was none."""
        return output if self.batched else output.squeeze(0)


def check(
    dims: int,
    input: Tensor,
    kernel_size: IntOrSizes | None,
    stride: IntOrSizes | None,
    padding: Padding,
    dilation: IntOrSizes,
    ceil_mode: bool,
    mask: Tensor | None,
    output_size: OutputSize = None,
) -> Call:
    """Check what every pooler takes and resolve its windows."""
    call = check_as_given(dims, input, kernel_size, stride, padding, dilation, ceil_mode, mask, output_size)
    source = call.windows.source
    return call if source is None else Call(*side_by_side(*call[:3]), call.batched, source)


def check_as_given(
    dims: int,
    input: Tensor,
    kernel_size: IntOrSizes | None,
    stride: IntOrSizes | None,
    padding: Padding,
    dilation: IntOrSizes,
    ceil_mode: bool,
    mask: Tensor | None,
    output_size: OutputSize = None,
) -> Call:
    """As :func:`check`, for who sees to windows that differ by himself: nothing is laid side by side."""
    check_input(dims, input)
    batched = input.dim() == dims + 2
    x = input if batched else input.unsqueeze(0)
    windows = resolve(x.shape[2:], kernel_size, stride, padding, dilation, ceil_mode, output_size)
    return Call(x, _check_mask(mask, input, dims), windows, batched)


def check_input(dims: int, input: Tensor) -> None:
    """Check type, dtype, layout and shape of ``input`` for ``dims`` spatial dimensions."""
    if torch._C._get_tracing_state() is not None:
        raise RuntimeError(TORCHSCRIPT)
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
    if 0 in shape[-dims - 1 :]:
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
    """A finite real number in [low, high], or (low, high) with ``strict``."""
    if type(value) is not float and (isinstance(value, bool) or not isinstance(value, numbers.Real)):
        raise TypeError(f"{name} must be a {accepted}, got {value!r}")
    # Comparisons alone, which torch.compile can trace for a dynamic float; NaN fails the first one.
    if not -math.inf < value < math.inf or value < low or value > high or (strict and value in (low, high)):
        raise ValueError(f"{name} must be a finite number{_range(low, high, strict)}, got {value!r}")
    return value


def _range(low: float, high: float, strict: bool) -> str:
    if high < math.inf:
        return f" in ({low:g}, {high:g})" if strict else f" in [{low:g}, {high:g}]"
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
    allow_inf: bool = False,
) -> Tensor:
    """A float, 0-d tensor or (C,) tensor as a (C,) tensor in the dtype of sums; ``allow_inf``: +inf is accepted."""
    if not isinstance(value, Tensor):
        if not (allow_inf and isinstance(value, float) and value == math.inf):
            value = number(name, value, low, high, strict, "real number or a torch.Tensor")
            value = held(name, value, call.acc_dtype, strict)
        return torch.full((call.channels,), value, dtype=call.acc_dtype, device=call.input.device)
    check_parameter_tensor(name, value, call.input)
    if tuple(value.shape) not in ((), (call.channels,)):
        raise ValueError(f"{name} must be 0-d or have shape ({call.channels},), got shape {tuple(value.shape)}")
    check_range(name, value, low, high, strict, allow_inf)
    return _spread(value.to(call.acc_dtype), (call.channels,))


def held(name: str, value: float, dtype: torch.dtype, positive: bool = False) -> float:
    """A number that a dtype can hold; one that must be ``positive`` may not be rounded to 0 either."""
    tiny, most = _LIMITS[dtype]
    least = tiny if positive else -most
    if not least <= value <= most and -math.inf < value < math.inf:
        beside = str(dtype).removeprefix("torch.")
        raise ValueError(f"{name} must be in [{least:g}, {most:g}], the range of {beside}, got {value!r}")
    return value


def _spread(value: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`value` in this shape; in a graph with memory of its own: Inductor gives no op the view of a constant."""
    full = value.expand(shape)
    return full.clone() if torch.compiler.is_compiling() and value.dim() == 0 else full


def check_range(
    name: str,
    value: Tensor,
    low: float = -math.inf,
    high: float = math.inf,
    strict: bool = False,
    allow_inf: bool = False,
) -> None:
    """Check the entries of a tensor that can be looked at: one on a CPU, outside traces and torch.func transforms."""
    if value.numel() == 0 or type(value) not in (Tensor, torch.nn.Parameter) or not visible(value):
        return
    if value.numel() == 1:
        least = most = value.item()
    else:
        least, most = (bound.item() for bound in torch.aminmax(value.detach()))
    finite = -math.inf < least and (most < math.inf or allow_inf)  # false for a NaN
    if not (finite and low <= least and most <= high) or (strict and least == low):
        some = "a NaN" if math.isnan(least) else f"entries from {least:g} to {most:g}"
        got = f"{least:g}" if value.numel() == 1 else some
        raise ValueError(f"{name} must be a finite number{_range(low, high, strict)} in every entry, got {got}")


def blend_parameter(name: str, value: float | Tensor, call: Call) -> Tensor:
    """A share in [0, 1]: a float, a 0-d or (C,) tensor, or one that broadcasts to the output, with its dimensions."""
    dims = call.windows.dims
    if not isinstance(value, Tensor):
        value = number(name, value, 0, 1, accepted="real number or a torch.Tensor")
        return torch.full((1,) * (dims + 2), value, dtype=call.acc_dtype, device=call.input.device)
    check_parameter_tensor(name, value, call.input)
    output = (call.input.size(0), call.channels, *call.windows.output)
    shape = tuple(value.shape)
    aligned = (call.channels, *(1,) * dims) if shape == (call.channels,) else shape
    full = (1,) * (dims + 2 - len(aligned)) + aligned
    per_position = len(aligned) in (dims + 1, dims + 2) and (call.batched or len(shape) < dims + 2)
    if aligned and not (per_position and all(a in (1, n) for a, n in zip(full, output, strict=True))):
        wanted = output if call.batched else output[1:]
        raise ValueError(
            f"{name} must be 0-d, have shape ({call.channels},) or broadcast to the output's shape {wanted}, "
            f"got shape {shape}"
        )
    check_range(name, value, 0, 1)
    return value.to(call.acc_dtype).reshape(full)


def check_equal_windows(reason: str, call: Call) -> None:
    """For an operator whose taps have numbers: a short window is no part of a long one."""
    if call.source is not None and not all(map(adaptive_equal, call.source, call.windows.output)):
        raise ValueError(
            f"output_size must give windows of equal size where {reason}, got output size {call.windows.output} for "
            f"spatial size {call.source}"
        )


def check_steady_windows(reason: str, call: Call) -> None:
    """For an operator that looks between its windows: they must be a fixed step apart."""
    if call.source is not None:
        raise ValueError(
            f"output_size must give windows of equal size a fixed step apart where {reason}, got output size "
            f"{call.windows.output} for spatial size {call.source}"
        )


def tap_weights(name: str, value: Tensor, call: Call, rows: int | None = None, low: float = -math.inf) -> Tensor:
    """Weights of at least ``low``, one entry per tap: (rows, k), or without ``rows`` (k,) and (C, k), as (C, k)."""
    taps = call.windows.taps
    check_equal_windows(f"every tap has an entry in {name}", call)
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {value!r}")
    check_parameter_tensor(name, value, call.input)
    accepted = [(rows, taps)] if rows is not None else [(taps,), (call.channels, taps)]
    if tuple(value.shape) not in accepted:
        shapes = " or ".join(map(str, accepted))
        raise ValueError(f"{name} must have shape {shapes}, {taps} being the taps of a window, got {_shape(value)}")
    check_range(name, value, low)
    full = value.to(call.acc_dtype)
    return full if rows is not None else _spread(full, (call.channels, taps))


def position_logits(name: str, value: Tensor, call: Call) -> Tensor:
    """One logit per input element, (N, C, *spatial), or per position, (N, 1, *spatial)."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {value!r}")
    check_parameter_tensor(name, value, call.input)
    shape = (*call.input.shape[:2], *(call.source or call.input.shape[2:]))
    accepted = [shape, (shape[0], 1, *shape[2:])]
    if not call.batched:
        accepted = [s[1:] for s in accepted]
    if tuple(value.shape) not in accepted:
        raise ValueError(f"{name} must have shape {accepted[0]} or {accepted[1]}, got {_shape(value)}")
    return call.like_input(value if call.batched else value.unsqueeze(0))


def _shape(tensor: Tensor) -> str:
    return f"shape {tuple(tensor.shape)}"


def check_parameter_tensor(name: str, value: Tensor, input: Tensor) -> None:
    """Device and dtype of a parameter: input's dtype, or float32 beside half types."""
    check_device(name, value, input)
    accepted = {input.dtype, ACC_DTYPES[input.dtype]}
    if value.dtype not in accepted:
        names = " or ".join(sorted(str(d).removeprefix("torch.") for d in accepted))
        raise TypeError(f"{name} must have dtype {names} beside an input of {input.dtype}, got {value.dtype}")


def flag(name: str, value: bool) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, got {value!r}")
    return value


def position_parameter(name: str, value: float | Tensor, call: Call) -> Tensor:
    """A float, 0-d, (C,) or (C, *output) tensor as a (C, *output) tensor in the dtype of sums."""
    shape = (call.channels, *call.windows.output)
    if not isinstance(value, Tensor):
        value = held(name, number(name, value, accepted="real number or a torch.Tensor"), call.acc_dtype)
        return torch.full(shape, value, dtype=call.acc_dtype, device=call.input.device)
    check_parameter_tensor(name, value, call.input)
    if tuple(value.shape) not in ((), shape[:1], shape):
        raise ValueError(
            f"{name} must be 0-d or have shape ({call.channels},) or {shape}, got shape {tuple(value.shape)}"
        )
    check_range(name, value)
    aligned = value.view(-1, *(1,) * len(call.windows.output)) if value.dim() == 1 else value
    return _spread(aligned.to(call.acc_dtype), shape)


def no_output_size(operator: str, dims: int, output_size: OutputSize) -> None:
    """For an operator whose windows have a stride, which windows that an output size asks for may not have."""
    if any(n != 1 for n in check_output_size(dims, output_size)):
        raise ValueError(f"output_size must be None or 1 for {operator}, which needs a stride, got {output_size!r}")


def strip_sizes(grid_size: IntOrSizes | None, stride: tuple[int, ...]) -> tuple[int, ...]:
    """S3Pool's strips, one width per dimension: multiples of the stride."""
    if grid_size is None:
        return tuple(2 * s if 2 * s < 2**31 else s for s in stride)
    grid = per_dim("grid_size", grid_size, len(stride), least=1)
    if any(g % s for g, s in zip(grid, stride, strict=True)):
        raise ValueError(f"grid_size must be a multiple of stride in every dimension, got {grid_size!r}, {stride=}")
    return grid


def filter_size(name: str, value: int, windows: Geometry) -> int:
    """How many taps a filter behind the windows has in every dimension; not so many that nearly all are padding."""
    if not isinstance(plain_int(value), int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, got {value!r}")
    (taps,) = per_dim(name, value, 1, least=1)
    if taps**windows.dims > max(2**16, 64 * math.prod(windows.size)):
        raise ValueError(
            f"{name} must give at most 64 taps per input position, got {value!r} for spatial size {windows.size}: "
            "nearly all of a window would be padding"
        )
    return taps


def noise_seed(seed: int | Tensor | None, training: bool, call: Call) -> Tensor | None:
    """The seed of a sampled operator as an int64 0-d tensor; ``None`` in evaluation, which draws nothing."""
    seed = plain_int(seed)
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
        return draw_seed()
    return seed if isinstance(seed, Tensor) else torch.full((), seed, dtype=torch.int64, device="cpu")
