"""The map of maxima that S3 and max-blur pooling are made of: one entry per start of a window.

There are ``stride`` starts for each output position and dimension, the first at the padding's edge, none beyond the
last input position. The map may be of kept rows and columns alone.

Where compiled kernels are active, they find it and its gradient. Else it is a running maximum, one dimension after the
other, in few steps for a large kernel; its gradient runs the steps backwards, without two additions to one place at a
time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from poolnb.geometry import Geometry, memory_format, smaller
from poolnb.ops.chunking import samples_at_once
from poolnb.ops.registration import LIBRARY
from poolnb.ops.taps import all_finite, visible

Combine = Callable[[Tensor, Tensor], Tensor]
Step = tuple[Tensor, Tensor]  # what it combines: a map, and the same one further on

# Taps up to which a look at each is faster than steps. Max-blur in either layout, one thread of a loaded machine: with
# 36 taps it took 0.8 of the time of steps, with 49 more than twice as long.
_MOST = 32

# Without kernels of PyTorch's, and called from here alone. `starts`: the first taps of windows, dimension by dimension.
LIBRARY.define("_max_map(Tensor input, Tensor starts, int[] kernel_size, int[] output_size) -> Tensor")
LIBRARY.define(
    "_max_map_backward(Tensor grad, Tensor input, Tensor starts, int[] kernel_size, int[] output_size) -> Tensor"
)


@dataclass
class MaxMap:
    """The map of one call."""

    windows: Geometry
    values: Tensor  # 0 where a window has no valid tap
    some: Tensor | None  # whether it has one; None: all have

    def gradient(self, grad: Tensor) -> Tensor:
        """The gradient of ``values``, in the dtype of sums, given to the taps that they came from."""
        raise NotImplementedError


def max_map(windows: Geometry, x: Tensor, mask: Tensor | None, picked: Sequence[Tensor] | None = None) -> MaxMap:
    """The map, or its entries at the ``picked`` starts, which ascend, per dimension."""
    if mask is None and _can_compile(windows, x):
        return _Compiled.of(windows, x, picked)
    return _Stepwise.of(windows, x, mask, picked)


def at_once(x: Tensor, windows: Geometry, mask: Tensor | None) -> int:
    """How many samples the memory allows at once; the compiled kernels keep no taps."""
    return x.size(0) if mask is None and _can_compile(windows, x) else samples_at_once(x, windows)


def _can_compile(windows: Geometry, x: Tensor) -> bool:
    dense = all(d == 1 for d in windows.dilation)
    return dense and windows.taps <= _MOST and has_compiled("_max_map", x)


def has_compiled(name: str, *tensors: Tensor) -> bool:
    """Whether a raw op's compiled kernel is active, and can be called with these."""
    return visible(*tensors) and torch._C._dispatch_has_kernel_for_dispatch_key(f"poolnb::{name}", "CPU")


def bounded(windows: Geometry) -> Geometry:
    """The same windows, no stride longer than the map: it takes memory."""
    if any(isinstance(o, torch.SymInt) for o in windows.output):
        return windows
    sizes = zip(windows.stride, starts(windows), windows.output, strict=True)
    return replace(windows, stride=tuple(min(s, n) if o == 1 else s for s, n, o in sizes))


def starts(windows: Geometry) -> tuple[int, ...]:
    """How many starts of windows each dimension of the map holds."""
    sizes = zip(windows.output, windows.stride, windows.size, windows.padding, strict=True)
    return tuple(smaller(o * s, n + p) for o, s, n, p in sizes)


# ---- by compiled kernels ---------------------------------------------------------------------------------------------


@dataclass
class _Compiled(MaxMap):
    args: tuple[Tensor, Tensor, tuple[int, ...], tuple[int, ...]]

    @classmethod
    def of(cls, windows: Geometry, x: Tensor, picked: Sequence[Tensor] | None) -> MaxMap:
        if picked is None:
            first, output = _every_start(starts(windows), windows.padding), starts(windows)
        else:
            first = torch.cat([own - p for own, p in zip(picked, windows.padding, strict=True)])
            output = tuple(len(own) for own in picked)
        args = x.contiguous(memory_format=memory_format(x)), first, windows.kernel, output
        return cls(windows, torch.ops.poolnb._max_map.default(*args), None, args)

    def gradient(self, grad: Tensor) -> Tensor:
        grad = grad.contiguous(memory_format=memory_format(self.args[0]))
        result: Tensor = torch.ops.poolnb._max_map_backward.default(grad, *self.args)
        return result


@lru_cache(maxsize=64)
def _every_start(counts: tuple[int, ...], padding: tuple[int, ...]) -> Tensor:
    return torch.cat([torch.arange(-p, n - p) for n, p in zip(counts, padding, strict=True)])


# ---- step by step ----------------------------------------------------------------------------------------------------


@dataclass
class _Stepwise(MaxMap):
    steps: list[Step]  # of the running maximum
    picked: Sequence[Tensor] | None
    mask: Tensor | None
    safe: bool

    @classmethod
    def of(cls, windows: Geometry, x: Tensor, mask: Tensor | None, picked: Sequence[Tensor] | None) -> MaxMap:
        safe = x.dtype == torch.float16 or not all_finite(x)  # the lowest float16 is a number that taps do take
        nothing = -torch.inf if safe else torch.finfo(x.dtype).min
        x = x if mask is None else x.masked_fill(~mask, nothing)
        values, steps = _slide(x, windows, nothing, torch.maximum, picked)
        some = None
        if mask is not None or any(d != 1 for d in windows.dilation):
            some, _ = _slide(_valid(mask, windows, x.device), windows, False, torch.logical_or, picked)
            values = values.masked_fill(~some, 0)
        return cls(windows, values, some, steps, picked, mask, safe)

    def gradient(self, grad: Tensor) -> Tensor:
        if self.some is not None:
            grad = grad * self.some
        steps = [_later(*step, self.safe) for step in self.steps]
        if self.safe:  # a tap of -inf counts beside padding and masked taps
            valid = _valid(self.mask, self.windows, grad.device)
            _, of_valid = _slide(valid, self.windows, False, torch.logical_or, self.picked)
            steps = [
                torch.where(a == b, later, b.to(later.dtype)) for later, (a, b) in zip(steps, of_valid, strict=True)
            ]
        return _slide_back(grad, self.windows, steps, self.picked)


def _valid(mask: Tensor | None, windows: Geometry, device: torch.device) -> Tensor:
    return torch.ones((1, 1, *windows.size), dtype=torch.bool, device=device) if mask is None else mask


def _slide(
    x: Tensor, windows: Geometry, fill: float | bool, combine: Combine, picked: Sequence[Tensor] | None
) -> tuple[Tensor, list[Step]]:
    """``combine`` over every window of the map, or over those at the picked starts, one dimension after the other.

    The innermost goes first, and ``combine`` prefers its first argument: of equal taps the row-major first one counts.
    """
    steps: list[Step] = []
    for dim in reversed(range(windows.dims)):
        x = F.pad(x, _margins(windows, dim), value=fill)
        for shift in _shifts(windows, dim):
            count = x.size(2 + dim) - shift
            steps.append((x.narrow(2 + dim, 0, count), x.narrow(2 + dim, shift, count)))
            x = combine(*steps[-1])
        if picked is not None:
            x = x.index_select(2 + dim, picked[dim])
    return x, steps


def _slide_back(grad: Tensor, windows: Geometry, later: list[Tensor], picked: Sequence[Tensor] | None) -> Tensor:
    """The gradient, through the steps in reverse; ``later``: per step 1 where the maximum was the second one's."""
    later = list(later)
    for dim in range(windows.dims):
        inner = [0, 0] * (windows.dims - 1 - dim)
        if picked is not None:
            shape = (*grad.shape[: 2 + dim], starts(windows)[dim], *grad.shape[3 + dim :])
            grad = grad.new_zeros(shape).index_copy(2 + dim, picked[dim], grad)
        for shift in reversed(_shifts(windows, dim)):
            moved = grad * later.pop()
            grad = F.pad(grad - moved, [*inner, 0, shift]) + F.pad(moved, [*inner, shift, 0])
        grad = F.pad(grad, [-m for m in _margins(windows, dim)])
    return grad


def _later(a: Tensor, b: Tensor, safe: bool) -> Tensor:
    """1 where the maximum is b's, else 0: of equal ones, and of two NaN, a counts."""
    if safe:
        return ((b > a) | (b.isnan() & ~a.isnan())).to(a.dtype)
    return (b - a).detach().relu().sign()  # faster than a comparison


def _margins(windows: Geometry, dim: int) -> list[int]:
    """What padding before and after one dimension the map needs, in the order of ``F.pad``."""
    before = windows.padding[dim]
    after = starts(windows)[dim] + windows.span[dim] - 1 - before - windows.size[dim]
    return [0, 0] * (windows.dims - 1 - dim) + [before, after]


def _shifts(windows: Geometry, dim: int) -> list[int]:
    """By how much each step looks ahead. A step doubles the taps seen, the last one adds what is missing."""
    shifts, width, kernel = [], 1, windows.kernel[dim]
    while width < kernel:
        more = min(width, kernel - width)
        shifts.append(more * windows.dilation[dim])
        width += more
    return shifts
