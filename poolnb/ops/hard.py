"""Max and mean over valid taps.

Where no window can be empty and nothing is masked they are torch's own functions; the rest is written over taps. They
need no ``poolnb::`` op: a kernel of our own would add nothing to ATen's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from poolnb.geometry import Geometry, gather, memory_format, valid_taps
from poolnb.ops.taps import open_windows, to_acc_dtype

_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVG = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def _repeatable(x: Tensor, windows: Geometry) -> bool:
    """Whether torch's own gradient adds in a fixed order; in three dimensions on a GPU it uses atomics."""
    return windows.dims < 3 or x.device.type == "cpu"


def _fixed(windows: Geometry) -> bool:
    """Whether torch's functions take the windows; in a trace not those over the whole of a free size.

    Nor an output that a free size may round up: AOTInductor rounds it as the example's size would be.
    """
    if not torch.compiler.is_compiling():
        return True
    free = any(isinstance(n, torch.SymInt) for n in windows.size)
    return not (windows.single or (free and windows.rounded_up))


def max_pool(x: Tensor, mask: Tensor | None, windows: Geometry) -> Tensor:
    """Largest valid tap; the gradient goes to the first of equal ones."""
    if mask is None and _fixed(windows) and not windows.has_empty_window and _repeatable(x, windows):
        # ceil_mode only decides the output size: asking for it where floor gives the same size changes nothing.
        w = windows
        return _MAX[w.dims](x, w.kernel, w.stride, w.padding, w.dilation, ceil_mode=w.rounded_up)
    windows = windows.trimmed()
    taps = gather(x if mask is None else x.masked_fill(~mask, -torch.inf), windows, fill=-torch.inf)
    valid = valid_taps(mask, windows, x.device)
    peak, chosen = taps.detach().amax(0), taps.detach().argmax(0)
    if valid is not None:  # where all valid taps are -inf, the first of them, not an invalid one before it
        chosen = torch.where(peak == -torch.inf, valid.to(torch.uint8).argmax(0), chosen)
    y = taps.gather(0, chosen.unsqueeze(0)).squeeze(0)
    return _like(x, y if valid is None else y.masked_fill(~valid.any(0), 0))


def _torch_averages(windows: Geometry) -> bool:
    """Whether torch has these averages: it knows no dilation and, in three dimensions, no kernel above the input."""
    undilated = all(d == 1 for d in windows.dilation)
    return undilated and (windows.dims < 3 or all(k <= n for k, n in zip(windows.kernel, windows.size, strict=True)))


def avg_pool(x: Tensor, mask: Tensor | None, windows: Geometry) -> Tensor:
    """Mean of the valid taps."""
    if mask is None and _fixed(windows) and _torch_averages(windows) and _repeatable(x, windows):
        w = windows
        options = {"ceil_mode": w.rounded_up, "count_include_pad": False}
        if w.dims < 3 and not w.long:
            return _AVG[w.dims](x, w.kernel, w.stride, w.padding, **options)
        # torch's own adds one tap after the other. In three dimensions it takes no half types on a CPU, and forgets the
        # layout.
        y = _AVG[w.dims](x.double() if w.long else to_acc_dtype(x), w.kernel, w.stride, w.padding, **options)
        return _like(x, y)
    windows = windows.trimmed()
    taps, valid = open_windows(x.double() if windows.long else x, mask, windows)
    if valid is None:
        return _like(x, taps.mean(0))
    return _like(x, taps.sum(0) / valid.sum(0).clamp(min=1))


def _like(x: Tensor, y: Tensor) -> Tensor:
    """``y`` in the dtype and layout of ``x``."""
    return y.to(x.dtype).contiguous(memory_format=memory_format(x))
