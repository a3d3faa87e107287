"""S3Pool: a stride-1 max map, of which randomly chosen rows and columns are kept (Zhai et al. 2017).

The map has one entry per start of a window: ``stride`` of them for each output position and dimension, the first at
the padding's edge, none beyond the last input position. Each dimension is cut into strips of ``grid_size`` starts, and
a strip of n starts and m outputs keeps m of the n, in order.

It is composed of PyTorch operations: a running maximum per dimension, then a selection by distinct indices. Their
gradients are what S3Pool's must be, exact and without collisions, at every order, under every transform and exporter.
Only the draw is an op, so that a compiler does not look into it. A running maximum needs few steps for a large kernel,
and takes only rows and columns that are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import comb
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from poolnb.geometry import Geometry, memory_format
from poolnb.ops import philox
from poolnb.ops.hard import avg_pool
from poolnb.ops.registration import define
from poolnb.ops.taps import accumulate, tame

Combine = Callable[[Tensor, Tensor], Tensor]


def s3_pool(
    x: Tensor, mask: Tensor | None, windows: Geometry, seed: Tensor | None, grid: tuple[int, ...], expectation: bool
) -> Tensor:
    """Training with a ``seed``; evaluation without: the mean per stride cell, or the exact mean of the sampler."""
    starts = _starts(windows)
    pick = None if seed is None else _draw(seed, windows, starts, grid, x.device)
    y = x if mask is None else x.masked_fill(~mask, -torch.inf)
    y, some = _slide(y, windows, starts, -torch.inf, _larger, pick), _some_valid(x, mask, windows, starts, pick)
    if some is not None:
        y = y.masked_fill(~some, 0)
    if seed is None:
        y = _expected(y, windows, grid, tame(x)) if expectation else _cell_means(y, some, windows, starts)
    return y.to(x.dtype).contiguous(memory_format=memory_format(x))


# ---- the map of maxima -----------------------------------------------------------------------------------------------


def _starts(windows: Geometry) -> tuple[int, ...]:
    """How many starts of windows each dimension of the map holds."""
    sizes = zip(windows.output, windows.stride, windows.size, windows.padding, strict=True)
    return tuple(min(o * s, n + p) for o, s, n, p in sizes)


def _slide(
    x: Tensor,
    windows: Geometry,
    starts: tuple[int, ...],
    fill: float | bool,
    combine: Combine,
    pick: list[Tensor] | None = None,
) -> Tensor:
    """``combine`` over every window of the map, or over those at the picked starts, one dimension after the other.

    The innermost goes first, and ``combine`` prefers its first argument: of equal taps the row-major first one counts.
    """
    for dim in reversed(range(windows.dims)):
        axis, step = 2 + dim, windows.dilation[dim]
        left = windows.padding[dim]
        right = starts[dim] + windows.span[dim] - 1 - left - windows.size[dim]
        x = F.pad(x, [0, 0] * (windows.dims - 1 - dim) + [left, right], value=fill)
        width = 1
        while width < windows.kernel[dim]:  # doubling: y(i) over 2w taps is y(i) and y(i + w) over w taps
            more = min(width, windows.kernel[dim] - width)
            count = x.size(axis) - more * step
            x = combine(x.narrow(axis, 0, count), x.narrow(axis, more * step, count))
            width += more
        if pick is not None:
            x = x.index_select(axis, pick[dim])
    return x


def _larger(a: Tensor, b: Tensor) -> Tensor:
    return torch.where((b > a) | b.isnan(), b, a)


def _some_valid(
    x: Tensor, mask: Tensor | None, windows: Geometry, starts: tuple[int, ...], pick: list[Tensor] | None
) -> Tensor | None:
    """Which windows have a valid tap; ``None``: all."""
    if mask is None:
        if all(d == 1 for d in windows.dilation):
            return None
        mask = torch.ones((1, 1, *windows.size), dtype=torch.bool, device=x.device)
    return _slide(mask, windows, starts, False, torch.logical_or, pick)


# ---- training: the draw ----------------------------------------------------------------------------------------------


def _draw(
    seed: Tensor, windows: Geometry, starts: tuple[int, ...], grid: tuple[int, ...], device: torch.device
) -> list[Tensor]:
    """Per dimension the kept starts, ascending."""
    return [
        _draw_op(seed, dim, starts[dim], windows.output[dim], windows.stride[dim], grid[dim], device)
        for dim in range(windows.dims)
    ]


def _draw_kernel(
    seed: Tensor, dim: int, starts: int, outputs: int, stride: int, grid: int, device: torch.device
) -> Tensor:
    """Of every strip the starts with the smallest noise: position = start, draw = dimension."""
    share, strips = grid // stride, -(-outputs // (grid // stride))
    noise = philox.uniform(seed, starts, philox.S3, draw=dim, dtype=torch.float32, device=device)
    noise = F.pad(noise, (0, strips * grid - starts), value=2.0).view(strips, grid)
    kept = noise.argsort(dim=1, stable=True)[:, :share]
    kept[-1, outputs - (strips - 1) * share :] = grid  # the last strip may be short: its surplus sorts to the end
    first = torch.arange(0, strips * grid, grid, device=device).unsqueeze(1)
    return (kept.sort(1).values + first).flatten()[:outputs].contiguous()


def _draw_fake(seed: Tensor, dim: int, starts: int, outputs: int, stride: int, grid: int, device: Any) -> Tensor:
    return torch.empty(outputs, dtype=torch.int64, device=device)


_draw_op = define(
    "s3_draw(Tensor seed, int dim, SymInt starts, SymInt outputs, SymInt stride, SymInt grid, Device device) -> Tensor",
    _draw_kernel,
    _draw_fake,
)


# ---- evaluation ------------------------------------------------------------------------------------------------------


def _cell_means(y: Tensor, some: Tensor | None, windows: Geometry, starts: tuple[int, ...]) -> Tensor:
    """Mean of the map over each stride x stride cell; windows without a valid tap do not count."""
    zeros, ones = (0,) * windows.dims, (1,) * windows.dims
    cells = Geometry(starts, windows.stride, windows.stride, zeros, ones, windows.output)
    return avg_pool(y, some, cells)


def _expected(y: Tensor, windows: Geometry, grid: tuple[int, ...], finite: bool) -> Tensor:
    """The mean under the sampler: dimensions are drawn independently, so one sum per dimension."""
    y = accumulate(y)
    if finite:
        return _weigh(y, windows, grid)
    mean = _weigh(y.masked_fill(~y.isfinite(), 0), windows, grid)
    # A start that is never kept here has weight 0, and 0 * inf must not spoil the sum.
    for value, kind in ((-torch.inf, y == -torch.inf), (torch.inf, y == torch.inf), (torch.nan, y.isnan())):
        mean = mean.masked_fill(_weigh(kind.to(y.dtype), windows, grid) > 0, value)
    return mean


def _weigh(y: Tensor, windows: Geometry, grid: tuple[int, ...]) -> Tensor:
    for dim in range(windows.dims):
        y = y.movedim(2 + dim, -1)
        outputs, step = windows.output[dim], windows.stride[dim]
        strips = _chances(y.size(-1), outputs, step, grid[dim])
        weights = torch.tensor(strips, dtype=y.dtype, device=y.device)
        padded = F.pad(y, (0, len(strips) * grid[dim] - y.size(-1)))
        shared = padded.unflatten(-1, (len(strips), grid[dim])).unsqueeze(-2) * weights
        y = shared.sum(-1).flatten(-2)[..., :outputs].movedim(-1, 2 + dim)
    return y


@cache
def _chances(starts: int, outputs: int, stride: int, grid: int) -> list[list[list[float]]]:
    """[strip][output of the strip][start of the strip] -> how likely it is that this output keeps this start.

    The i-th of m kept among n, all subsets equally likely: start r is it with chance C(r, i) C(n-1-r, m-1-i) / C(n, m).
    """
    share = grid // stride
    table = []
    for strip in range(-(-outputs // share)):
        n, m = min(grid, starts - strip * grid), min(share, outputs - strip * share)
        chance = [[comb(r, i) * comb(n - 1 - r, m - 1 - i) / comb(n, m) for r in range(n)] for i in range(m)]
        rows = [row + [0.0] * (grid - n) for row in chance]
        table.append(rows + [[0.0] * grid] * (share - m))
    return table
