"""Max-blur pooling: the stride-1 map of maxima that S3Pool makes, and blur pooling of it at the stride (Zhang 2019).

The map has one entry per start of a window; those without a valid tap do not count in the blur. Its gradient is that of
the blur, given to the first largest tap of every entry.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from poolnb.geometry import Geometry
from poolnb.ops.blur import blur_pool
from poolnb.ops.max_map import at_once, bounded, max_map, starts
from poolnb.ops.registration import PoolOp
from poolnb.ops.taps import to_acc_dtype


class _Blur(NamedTuple):
    """The windows that blur the map, and the map as they need it."""

    windows: Geometry
    values: Tensor
    some: Tensor | None  # which entries count; None: all


def _checked(windows: Geometry) -> Geometry:
    if any(isinstance(k, torch.SymInt) for k in windows.kernel):  # the steps of the running maximum are a graph's
        raise ValueError(
            "maxblur_pool cannot be exported to ONNX with kernel_size=None and a free size: give either size"
        )
    return bounded(windows)


def _blur(windows: Geometry, values: Tensor, some: Tensor | None, blur_size: int) -> _Blur:
    before = (blur_size - 1) // 2
    if blur_size % 2 == 0:  # its last window may reach one entry beyond what padding on both sides gives
        ends = [n < (o - 1) * s + 2 for n, o, s in zip(starts(windows), windows.output, windows.stride, strict=True)]
        margins = [m for end in reversed(ends) for m in (0, int(end))]
        if some is None and any(ends):
            some = torch.ones((1, 1, *values.shape[2:]), dtype=torch.bool, device=values.device)
        values, some = F.pad(values, margins), None if some is None else F.pad(some, margins)
    every = (1,) * windows.dims
    sizes = (blur_size,) * windows.dims, windows.stride, (before,) * windows.dims, every, windows.output
    return _Blur(Geometry(tuple(values.shape[2:]), *sizes), to_acc_dtype(values), some)


def _forward(windows: Geometry, x: Tensor, mask: Tensor | None, blur_size: int) -> Tensor:
    windows = _checked(windows)
    maxima = max_map(windows, x, mask)
    blur = _blur(windows, maxima.values, maxima.some, blur_size)
    return blur_pool(blur.values, blur.some, blur.windows)


def _backward(
    windows: Geometry, param_grads: bool, grad: Tensor, x: Tensor, mask: Tensor | None, blur_size: int
) -> Tensor:
    windows = _checked(windows)
    maxima = max_map(windows, x, mask)
    blur = _blur(windows, maxima.values, maxima.some, blur_size)
    spread: Tensor = blur_pool.gradient(to_acc_dtype(grad), blur.values, blur.some, blur.windows)
    for dim, size in enumerate(starts(windows)):
        spread = spread.narrow(2 + dim, 0, size)
    return maxima.gradient(spread)


maxblur_pool = PoolOp("maxblur_pool", _forward, _backward, attributes={"int blur_size": 3}, at_once=at_once)
