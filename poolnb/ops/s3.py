"""S3Pool: a stride-1 max map, of which randomly chosen rows and columns are kept (Zhai et al. 2017).

The map has one entry per start of a window: ``stride`` of them for each output position and dimension, the first at
the padding's edge, none beyond the last input position. Each dimension is cut into strips of ``grid_size`` starts, and
a strip of n starts and m outputs keeps m of the n, in order. Evaluation is a weighted sum over each strip: by the
chances of being kept, or evenly over the strips that a grid of one stride gives.

The map is a running maximum, one dimension after the other, in few steps for a large kernel; in training it holds the
kept rows and columns only. Its gradient runs the steps backwards, without two additions to one place at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import comb
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from poolnb.geometry import Geometry, smaller
from poolnb.ops import philox
from poolnb.ops.registration import PoolOp
from poolnb.ops.taps import all_finite, to_acc_dtype

Combine = Callable[[Tensor, Tensor], Tensor]


class _Map(NamedTuple):
    values: Tensor  # 0 where a window has no valid tap
    some: Tensor | None  # whether it has one; None: all have
    steps: list[tuple[Tensor, Tensor]]  # per step of the running maximum the two it compared
    picked: list[Tensor] | None  # per dimension the kept starts; None in evaluation
    safe: bool


def _forward(
    windows: Geometry, x: Tensor, mask: Tensor | None, seed: philox.Seed | None, grid: Sequence[int], expectation: bool
) -> Tensor:
    if any(isinstance(k, torch.SymInt) for k in windows.kernel):  # the steps of the running maximum are a graph's
        raise ValueError("s3_pool cannot be exported to ONNX with kernel_size=None and a free size: give either size")
    windows, grid = _bounded(windows, grid)
    maxima = max_map(windows, x, mask, seed, grid)
    if seed is not None:
        return maxima.values
    y, strips = to_acc_dtype(maxima.values), grid if expectation else windows.stride
    mean = _weigh(y, windows, strips) if all_finite(x) else _safe_weigh(y, windows, strips)
    return mean if expectation else mean / _weight_of(maxima.some, windows, mean)


def _backward(
    windows: Geometry,
    param_grads: bool,
    grad: Tensor,
    x: Tensor,
    mask: Tensor | None,
    seed: philox.Seed | None,
    grid: Sequence[int],
    expectation: bool,
) -> Tensor:
    windows, grid = _bounded(windows, grid)
    maxima, grad = max_map(windows, x, mask, seed, grid), to_acc_dtype(grad)
    if seed is None:
        if not expectation:
            grad = grad / _weight_of(maxima.some, windows, grad)
        grad = _spread(grad, windows, grid if expectation else windows.stride)
    if maxima.some is not None:
        grad = grad * maxima.some
    return slide_back(grad, windows, maxima)


s3_pool = PoolOp(
    "s3_pool", _forward, _backward, attributes={"SymInt[] grid_size": (4, 4), "bool expectation": False}, sampled=True
)


# ---- the map of maxima -----------------------------------------------------------------------------------------------


def _bounded(windows: Geometry, grid: Sequence[int]) -> tuple[Geometry, tuple[int, ...]]:
    """The same map and strips, no stride longer than the map and no strip than its outputs need: both take memory."""
    if any(isinstance(o, torch.SymInt) for o in windows.output):
        return windows, tuple(grid)
    sizes = zip(windows.stride, starts(windows), windows.output, strict=True)
    stride = tuple(min(s, n) if o == 1 else s for s, n, o in sizes)
    outputs = zip(grid, windows.stride, stride, windows.output, strict=True)
    strips = tuple(min(g // s, o) * short for g, s, short, o in outputs)
    return replace(windows, stride=stride), strips


def starts(windows: Geometry) -> tuple[int, ...]:
    """How many starts of windows each dimension of the map holds."""
    sizes = zip(windows.output, windows.stride, windows.size, windows.padding, strict=True)
    return tuple(smaller(o * s, n + p) for o, s, n, p in sizes)


def max_map(windows: Geometry, x: Tensor, mask: Tensor | None, seed: philox.Seed | None, grid: Sequence[int]) -> _Map:
    """The map, of the kept rows and columns where there is a seed."""
    picked = None if seed is None else _draw(seed, windows, grid, x.device)
    safe = x.dtype == torch.float16 or not all_finite(x)  # the lowest float16 is a number that taps do take
    nothing = -torch.inf if safe else torch.finfo(x.dtype).min
    steps: list[tuple[Tensor, Tensor]] = []

    def larger(a: Tensor, b: Tensor) -> Tensor:
        steps.append((a, b))
        return torch.maximum(a, b)

    values = _slide(x if mask is None else x.masked_fill(~mask, nothing), windows, nothing, larger, picked)
    if mask is None:
        if all(d == 1 for d in windows.dilation):
            return _Map(values, None, steps, picked, safe)
        mask = torch.ones((1, 1, *windows.size), dtype=torch.bool, device=x.device)
    some = _slide(mask, windows, False, torch.logical_or, picked)
    return _Map(values.masked_fill(~some, 0), some, steps, picked, safe)


def _slide(x: Tensor, windows: Geometry, fill: float | bool, combine: Combine, picked: list[Tensor] | None) -> Tensor:
    """``combine`` over every window of the map, or over those at the picked starts, one dimension after the other.

    The innermost goes first, and ``combine`` prefers its first argument: of equal taps the row-major first one counts.
    """
    for dim in reversed(range(windows.dims)):
        x = F.pad(x, _margins(windows, dim), value=fill)
        for shift in _shifts(windows, dim):
            count = x.size(2 + dim) - shift
            x = combine(x.narrow(2 + dim, 0, count), x.narrow(2 + dim, shift, count))
        if picked is not None:
            x = x.index_select(2 + dim, picked[dim])
    return x


def slide_back(grad: Tensor, windows: Geometry, maxima: _Map) -> Tensor:
    """The gradient of the map, given to the taps that it came from."""
    steps = list(maxima.steps)
    for dim in range(windows.dims):
        inner = [0, 0] * (windows.dims - 1 - dim)
        if maxima.picked is not None:
            shape = (*grad.shape[: 2 + dim], starts(windows)[dim], *grad.shape[3 + dim :])
            grad = grad.new_zeros(shape).index_copy(2 + dim, maxima.picked[dim], grad)
        for shift in reversed(_shifts(windows, dim)):
            moved = grad * _later(*steps.pop(), maxima.safe)
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


# ---- training: the draw ----------------------------------------------------------------------------------------------


def _draw(seed: philox.Seed, windows: Geometry, grid: Sequence[int], device: torch.device) -> list[Tensor]:
    """Per dimension the kept starts, ascending: of every strip those with the smallest noise.

    The noise of a start: its position is the start, its draw the dimension.
    """
    counts = starts(windows)
    noise = philox.uniform(seed.key, max(counts), philox.S3, draws=windows.dims, dtype=torch.float32, device=device)
    sizes = zip(noise, counts, windows.output, windows.stride, grid, strict=True)
    return [_kept(own[:count], *each) for own, count, *each in sizes]


def _kept(noise: Tensor, outputs: int, stride: int, grid: int) -> Tensor:
    share, strips = grid // stride, -(-outputs // (grid // stride))
    noise = F.pad(noise, (0, strips * grid - len(noise)), value=2.0).view(strips, grid)
    kept = noise.argsort(dim=1, stable=True)[:, :share]
    kept[-1, outputs - (strips - 1) * share :] = grid  # the last strip may be short: its surplus sorts to the end
    first = torch.arange(0, strips * grid, grid, device=noise.device).unsqueeze(1)
    return (kept.sort(1).values + first).flatten()[:outputs]


# ---- evaluation ------------------------------------------------------------------------------------------------------


def _weigh(y: Tensor, windows: Geometry, grid: Sequence[int]) -> Tensor:
    """The mean of what training with this grid gives: dimensions are independent, so one sum per dimension."""
    for dim in range(windows.dims):
        weights = _weights(windows, dim, grid[dim], y)
        y = y.movedim(2 + dim, -1)
        strips = weights.size(0)
        padded = F.pad(y, (0, strips * grid[dim] - y.size(-1))).unflatten(-1, (strips, grid[dim]))
        y = (padded.unsqueeze(-2) * weights).sum(-1).flatten(-2)[..., : windows.output[dim]].movedim(-1, 2 + dim)
    return y


def _spread(grad: Tensor, windows: Geometry, grid: Sequence[int]) -> Tensor:
    """The adjoint of :func:`_weigh`."""
    for dim in range(windows.dims):
        weights = _weights(windows, dim, grid[dim], grad)
        g = grad.movedim(2 + dim, -1)
        padded = F.pad(g, (0, weights[..., 0].numel() - g.size(-1))).unflatten(-1, weights.shape[:2])
        spread = (padded.unsqueeze(-1) * weights).sum(-2).flatten(-2)
        grad = spread[..., : starts(windows)[dim]].movedim(-1, 2 + dim)
    return grad


def _safe_weigh(y: Tensor, windows: Geometry, grid: Sequence[int]) -> Tensor:
    """The same where y may hold NaN and infinities: an entry of weight 0 must not spoil the sum by 0 * inf."""
    mean = _weigh(y.masked_fill(~y.isfinite(), 0), windows, grid)
    for value, kind in ((-torch.inf, y == -torch.inf), (torch.inf, y == torch.inf), (torch.nan, y.isnan())):
        there = _weigh(kind.to(y.dtype), windows, grid) > 0
        mean = mean + torch.zeros_like(mean).masked_fill(there, value)
    return mean


def _weight_of(some: Tensor | None, windows: Geometry, like: Tensor) -> Tensor | int:
    """The share of a stride cell's windows that have a valid tap: what a mean over those divides by."""
    if some is None:
        return 1
    share = _weigh(some.to(like.dtype), windows, windows.stride)
    return share + (share == 0)


def _weights(windows: Geometry, dim: int, grid: int, like: Tensor) -> Tensor:
    """[strip, output of the strip, start of the strip]: how likely it is that this output keeps this start.

    The i-th of m kept among n, all subsets equally likely: start r is it with chance C(r, i) C(n-1-r, m-1-i) / C(n, m).
    """
    count, outputs, share = starts(windows)[dim], windows.output[dim], grid // windows.stride[dim]
    strips = (outputs + share - 1) // share  # of no negative number: ONNX divides towards 0
    if torch.compiler.is_compiling():  # the sizes may be free: choose the chances of each strip in the graph
        strip = torch.arange(strips, device=like.device)
        n, m = (count - strip * grid).clamp(max=grid), (outputs - strip * share).clamp(max=share)
        every = [_chances(n, m, grid, share) for n in range(1, grid + 1) for m in range(1, share + 1)]
        return torch.tensor(every, dtype=like.dtype, device=like.device)[(n - 1) * share + m - 1]
    sizes = ((min(grid, count - i * grid), min(share, outputs - i * share)) for i in range(strips))
    return torch.tensor([_chances(n, m, grid, share) for n, m in sizes], dtype=like.dtype, device=like.device)


def _chances(n: int, m: int, grid: int, share: int) -> list[list[float]]:
    """[output, start] of a strip with n starts and m outputs, filled up with zeros to ``share`` and ``grid``."""
    if m > n:
        return [[0.0] * grid] * share
    chance = [[comb(r, i) * comb(n - 1 - r, m - 1 - i) / comb(n, m) for r in range(n)] for i in range(m)]
    return [row + [0.0] * (grid - n) for row in chance] + [[0.0] * grid] * (share - m)
