"""S3Pool: a stride-1 max map, of which randomly chosen rows and columns are kept (Zhai et al. 2017).

The map has one entry per start of a window (see ``max_map.py``). Each dimension is cut into strips of ``grid_size``
starts, and a strip of n starts and m outputs keeps m of the n, in order. Evaluation is a weighted sum over each strip:
by the chances of being kept, or evenly over the strips that a grid of one stride gives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from poolnb.geometry import Geometry, is_long
from poolnb.ops import philox
from poolnb.ops.max_map import at_once, bounded, has_compiled, max_map, starts
from poolnb.ops.registration import LIBRARY, PoolOp
from poolnb.ops.taps import all_finite, to_acc_dtype, visible

_AVERAGES = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def _forward(
    windows: Geometry, x: Tensor, mask: Tensor | None, seed: philox.Seed | None, grid: Sequence[int], expectation: bool
) -> Tensor:
    if any(isinstance(k, torch.SymInt) for k in windows.kernel):  # the steps of the running maximum are a graph's
        raise ValueError("s3_pool cannot be exported to ONNX with kernel_size=None and a free size: give either size")
    windows, grid = _bounded(windows, grid)
    maxima = max_map(windows, x, mask, None if seed is None else _draw(seed, windows, grid, x.device))
    if seed is not None:
        return maxima.values
    y = to_acc_dtype(maxima.values)
    if not expectation and maxima.some is None and not is_long(math.prod(windows.stride)) and visible(x):
        return _AVERAGES[windows.dims](y, windows.stride, ceil_mode=True)
    strips = grid if expectation else windows.stride
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
    maxima = max_map(windows, x, mask, None if seed is None else _draw(seed, windows, grid, x.device))
    grad = to_acc_dtype(grad)
    if seed is None:
        if not expectation:
            grad = grad / _weight_of(maxima.some, windows, grad)
        grad = _spread(grad, windows, grid if expectation else windows.stride)
    return maxima.gradient(grad)


s3_pool = PoolOp(
    "s3_pool",
    _forward,
    _backward,
    attributes={"SymInt[] grid_size": (4, 4), "bool expectation": False},
    sampled=True,
    at_once=at_once,
)


def _bounded(windows: Geometry, grid: Sequence[int]) -> tuple[Geometry, tuple[int, ...]]:
    """The same map and strips, no stride longer than the map and no strip than its outputs need: both take memory."""
    short = bounded(windows)
    if any(isinstance(o, torch.SymInt) for o in windows.output):
        return short, tuple(grid)
    outputs = zip(grid, windows.stride, short.stride, windows.output, strict=True)
    return short, tuple(min(g // s, o) * less for g, s, less, o in outputs)


# ---- training: the draw ----------------------------------------------------------------------------------------------


# Without a kernel of PyTorch's, and called from here alone: the starts of all dimensions, one after the other.
LIBRARY.define("_s3_starts(Tensor seed, int[] counts, int[] output_size, int[] stride, int[] grid_size) -> Tensor")


def _draw(seed: philox.Seed, windows: Geometry, grid: Sequence[int], device: torch.device) -> Sequence[Tensor]:
    """Per dimension the kept starts, ascending: of every strip those with the smallest noise.

    The noise of a start: its position is the start, its draw the dimension.
    """
    counts = starts(windows)
    if device.type == "cpu" and has_compiled("_s3_starts", seed.key):
        kept: Tensor = torch.ops.poolnb._s3_starts.default(seed.key, counts, windows.output, windows.stride, grid)
        return torch.split(kept, list(windows.output))
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
    chance = [[math.comb(r, i) * math.comb(n - 1 - r, m - 1 - i) / math.comb(n, m) for r in range(n)] for i in range(m)]
    return [row + [0.0] * (grid - n) for row in chance] + [[0.0] * grid] * (share - m)
