"""Max and mean over valid taps.

Where no window can be empty and nothing is masked they are torch's own functions; the rest is written over taps. They
need no ``poolnb::`` op: a kernel of our own would add nothing to ATen's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from poolnb.geometry import Geometry, gather, memory_format, valid_taps
from poolnb.ops.adaptive import copied, side_by_side
from poolnb.ops.taps import all_finite, mean_of, open_windows, to_acc_dtype

_MAX: dict[int, Any] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVG: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_ADAPTIVE_MAX: dict[int, Any] = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}
_ADAPTIVE_AVG: dict[int, Any] = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}


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


def _torch_adapts(x: Tensor, mask: Tensor | None, windows: Geometry) -> bool:
    """Whether torch's adaptive pools serve windows that differ: on a GPU their gradient uses atomics."""
    return windows.source is not None and mask is None and x.device.type == "cpu"


def max_pool(x: Tensor, mask: Tensor | None, windows: Geometry) -> Tensor:
    """Largest valid tap; the gradient goes to the first of equal ones."""
    return _max_pool(x, mask, windows, want_indices=False)[0]


def max_pool_with_indices(x: Tensor, mask: Tensor | None, windows: Geometry) -> tuple[Tensor, Tensor]:
    """The same, and the number of that tap's position in its sample and channel, int64.

    In a window without a valid tap it is the first one that no other window of the sample and channel has; or 0.
    """
    y, indices = _max_pool(x, mask, windows, want_indices=True)
    assert indices is not None
    return y, indices


def _max_pool(x: Tensor, mask: Tensor | None, windows: Geometry, want_indices: bool) -> tuple[Tensor, Tensor | None]:
    w = windows
    if _torch_adapts(x, mask, w):
        pooled = _ADAPTIVE_MAX[w.dims](x, w.output, want_indices)
        return (_like(x, pooled[0]), pooled[1]) if want_indices else (_like(x, pooled), None)
    plain = mask is None and w.source is None and w.known_to_torch and not w.has_empty_window
    if plain and _fixed(w) and _repeatable(x, w):
        # ceil_mode only decides the output size: asking for it where floor gives the same size changes nothing.
        options = {"ceil_mode": w.rounded_up, "return_indices": want_indices}
        # With channels_last_3d torch looks for the largest of taps of -inf in the first slice, outside of the window.
        used = x.contiguous() if w.dims == 3 else x
        pooled = _MAX[w.dims](used, w.kernel, w.stride, w.padding, w.dilation, **options)
        found = pooled if want_indices else (pooled,)
        y, *indices = found if used is x else (_laid_out(x, part) for part in found)
        return y, indices[0] if want_indices else None
    size = w.source or w.size
    places = _places(w, x.device) if want_indices else None
    x, mask, w = side_by_side(x, mask, w)
    w = w.trimmed()
    taps = gather(x if mask is None else x.masked_fill(~mask, -torch.inf), w, fill=-torch.inf)
    valid = valid_taps(mask, w, x.device)
    peak, chosen = taps.detach().amax(0), taps.detach().argmax(0)
    if valid is not None:  # where all valid taps are -inf, the first of them, not an invalid one before it
        chosen = torch.where(peak == -torch.inf, valid.to(torch.uint8).argmax(0), chosen)
    y = taps.gather(0, chosen.unsqueeze(0)).squeeze(0)
    some = None if valid is None else valid.any(0)
    if places is not None:
        found = gather(places, w).expand_as(taps).gather(0, chosen.unsqueeze(0)).squeeze(0)
        places = _laid_out(x, found if some is None else _out_of_the_way(found, some, size))
    return _like(x, y if some is None else y.masked_fill(~some, 0)), places


def _places(windows: Geometry, device: torch.device) -> Tensor:
    """The number of every position that the input came with, (1, 1, *windows.size)."""
    size = windows.source or windows.size
    places = torch.arange(math.prod(size), device=device).view(1, 1, *size)
    # The copy is one of floating numbers; float64 counts to 2^53.
    return places if windows.source is None else copied(places.double(), size, windows.output).long()


def _out_of_the_way(indices: Tensor, some: Tensor, size: Sequence[int]) -> Tensor:
    """The indices, in windows without a valid tap one where the 0 that `max_unpool` writes disturbs no other window."""
    flat, none = indices.flatten(2), ~some.expand_as(indices).flatten(2)
    count = math.prod(size)
    taken = torch.zeros((*flat.shape[:2], count + 1), dtype=torch.uint8, device=flat.device)
    taken = taken.scatter(2, flat.masked_fill(none, count), 1)[..., :count]
    return torch.where(none, taken.argmin(2, keepdim=True), flat).view_as(indices)


def _torch_averages(windows: Geometry) -> bool:
    """Whether torch has these averages: it knows no dilation and, in three dimensions, no kernel above the input."""
    undilated = windows.known_to_torch and all(d == 1 for d in windows.dilation)
    return undilated and (windows.dims < 3 or all(k <= n for k, n in zip(windows.kernel, windows.size, strict=True)))


def avg_pool(x: Tensor, mask: Tensor | None, windows: Geometry) -> Tensor:
    """Mean of the valid taps."""
    w = windows
    # torch's own adds one tap after the other. In three dimensions it takes no half types on a CPU, and forgets the
    # layout.
    wide = x.double() if w.long else x if w.dims < 3 else to_acc_dtype(x)
    if _torch_adapts(x, mask, w):
        return _like(x, _ADAPTIVE_AVG[w.dims](wide, w.output))
    if mask is None and w.source is None and _fixed(w) and _torch_averages(w) and _repeatable(x, w):
        options = {"ceil_mode": w.rounded_up, "count_include_pad": False}
        if x.device.type == "cuda" and any(w.padding):  # with channels last torch's gradient is wrong: its issue 188344
            wide = wide.contiguous()
        y = _AVG[w.dims](wide, w.kernel, w.stride, w.padding, **options)
        return y if wide is x and w.dims < 3 else _like(x, y)
    x, mask, w = side_by_side(x, mask, w)
    w = w.trimmed()
    taps, valid = open_windows(x.double() if w.long else x, mask, w)
    size = taps.size(0) if valid is None else valid.sum(0).clamp(min=1)
    return _like(x, mean_of(taps, size, not all_finite(x)))


def _like(x: Tensor, y: Tensor) -> Tensor:
    """``y`` in the dtype and layout of ``x``."""
    return _laid_out(x, y.to(x.dtype))


def _laid_out(x: Tensor, y: Tensor) -> Tensor:
    return y.contiguous(memory_format=memory_format(x))
