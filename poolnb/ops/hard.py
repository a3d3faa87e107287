"""Max and mean over valid taps.

Where no window can be empty and nothing is masked they are torch's own functions; the rest is written over taps. They
need no ``poolnb::`` op: a kernel of our own would add nothing to ATen's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from poolnb.geometry import Geometry
from poolnb.ops.taps import open_windows

_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVG = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def max_pool(x: Tensor, mask: Tensor | None, windows: Geometry) -> Tensor:
    """Largest valid tap; the gradient goes to the first of equal ones."""
    if mask is None and not windows.has_empty_window:
        # ceil_mode only decides the output size: asking for it where floor gives the same size changes nothing.
        w = windows
        return _MAX[w.dims](x, w.kernel, w.stride, w.padding, w.dilation, ceil_mode=w.rounded_up)
    taps, valid = open_windows(x, mask, windows)
    assert valid is not None
    candidates = taps.masked_fill(~valid, -torch.inf)
    chosen = candidates.detach().argmax(0)
    index = torch.arange(windows.taps, device=x.device).view(-1, *(1,) * x.dim())
    y = torch.where(index == chosen, candidates, 0).sum(0)
    return y.masked_fill(~valid.any(0), 0).to(x.dtype)


def avg_pool(x: Tensor, mask: Tensor | None, windows: Geometry) -> Tensor:
    """Mean of the valid taps."""
    undilated = all(d == 1 for d in windows.dilation)
    if mask is None and undilated:
        w = windows
        options = {"ceil_mode": w.rounded_up, "count_include_pad": False}
        return _AVG[w.dims](x, w.kernel, w.stride, w.padding, **options)
    taps, valid = open_windows(x, mask, windows)
    if valid is None:
        return taps.mean(0).to(x.dtype)
    return (taps.sum(0) / valid.sum(0).clamp(min=1)).to(x.dtype)

