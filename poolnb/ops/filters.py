"""Linear filters over windows: the sum of weight times tap, one weight per tap and channel.

Where nothing is infinite they go tap by tap over views of the input, and never hold all taps. The rest is written over
taps, where a weight of 0 makes nothing even of an infinite one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from poolnb.geometry import Geometry, crop, pad, scatter, tap_views
from poolnb.ops.taps import (
    all_finite,
    channelwise,
    finite,
    open_windows,
    per_channel_sum,
    to_acc_dtype,
    weighted_sum,
)


def filter_response(windows: Geometry, x: Tensor, mask: Tensor | None, weight: Tensor) -> Tensor:
    """The filters' responses (N, C, *output), in the dtype of sums. ``weight`` is (C, taps)."""
    if windows.long or not all_finite(x, weight):
        taps, _ = open_windows(x, mask, windows)
        per_tap = _per_tap(windows, weight)
        return weighted_sum(per_tap, taps)
    views = zip(_per_channel(windows, weight), tap_views(_padded(windows, x, mask), windows), strict=True)
    first, tap = next(views)
    response = first * tap
    for own, tap in views:
        response.addcmul_(own, tap)
    return response


def filter_response_backward(
    windows: Geometry, grad: Tensor, x: Tensor, mask: Tensor | None, weight: Tensor, grad_x: Tensor
) -> tuple[Tensor, Tensor]:
    """``grad_x`` with what :func:`filter_response` passes back to ``x`` added, maybe in place; the weight's gradient.

    ``grad`` and ``grad_x``, which holds what comes to ``x`` by another way, are in the dtype of sums.
    """
    if windows.long or not all_finite(x, weight, grad):
        taps, valid = open_windows(x, mask, windows)
        slope = grad * _per_tap(windows, weight)
        if valid is not None:
            slope = slope * valid.to(slope.dtype)
        return grad_x + scatter(slope, windows), (grad * finite(taps)).transpose(1, 2).flatten(2).sum(2).t()
    grad_padded, sums = pad(grad_x, windows), []
    views = zip(tap_views(_padded(windows, x, mask), windows), tap_views(grad_padded, windows), strict=True)
    for own, (tap, grad_tap) in zip(_per_channel(windows, weight), views, strict=True):
        grad_tap.addcmul_(own, grad)
        sums.append(per_channel_sum(grad * tap))
    grad_x = crop(grad_padded, windows)
    return grad_x if mask is None else grad_x.masked_fill(~mask, 0), torch.stack(sums, 1)


def _padded(windows: Geometry, x: Tensor, mask: Tensor | None) -> Tensor:
    return pad(to_acc_dtype(x if mask is None else x.masked_fill(~mask, 0)), windows)


def _per_channel(windows: Geometry, weight: Tensor) -> list[Tensor]:
    return [channelwise(own, windows) for own in weight.unbind(1)]


def _per_tap(windows: Geometry, weight: Tensor) -> Tensor:
    return weight.t().reshape(windows.taps, 1, len(weight), *(1,) * windows.dims)
