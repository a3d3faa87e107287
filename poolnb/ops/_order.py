"""The taps of windows in order, the largest first."""

from __future__ import annotations

import torch
from torch import Tensor

from poolnb.ops.taps import without_invalid

_FEW = 16


def order_of(taps: Tensor, valid: Tensor | None, safe: bool) -> Tensor:
    """Numbers of the taps, (taps, N, C, *output): valid ones before the others, ties in tap order, NaN first."""
    with torch.no_grad():
        known = taps.detach()
        if len(known) <= _FEW:
            return _counted(known, valid, safe)
        if valid is None:
            return _descending(known)
        if not safe:
            return _descending(without_invalid(known, valid))
        order = _descending(known.masked_fill(~valid, -torch.inf))
        # A valid -inf is as large as what is not valid: that goes behind it.
        left = ~valid.expand_as(taps).gather(0, order)
        return order.gather(0, _sorted(left.int(), descending=False))


def _counted(taps: Tensor, valid: Tensor | None, safe: bool) -> Tensor:
    """The same, from each tap's rank: how many others stand before it. Of few taps that is faster than sorting."""
    # Not added in place: `torch.func.linearize` works constants out ahead, and loses what is written into them.
    rank_of = list(torch.zeros(taps.shape, dtype=torch.int64, device=taps.device))
    for j in range(1, len(taps)):
        for i in range(j):
            first = taps[j] > taps[i]  # whether j stands before i, which comes first in tap order
            if safe:
                first = first | (taps[j].isnan() & ~taps[i].isnan())
            if valid is not None:
                first = (valid[j] & ~valid[i]) | (first & (valid[j] == valid[i]))
            rank_of[i] = rank_of[i] + first
            rank_of[j] = rank_of[j] + ~first
    ranks = torch.stack(rank_of)
    numbers = torch.arange(len(taps), device=taps.device).view(-1, *(1,) * (taps.dim() - 1))
    return torch.empty_like(ranks).scatter(0, ranks, numbers.expand_as(ranks))


def by_rank(values: Tensor, order: Tensor) -> Tensor:
    """Numbers of the taps, put in order."""
    return values.gather(0, order)


def by_tap(values: Tensor, order: Tensor) -> Tensor:
    """The inverse of :func:`by_rank`."""
    return torch.zeros_like(values).scatter(0, order, values)


def _descending(values: Tensor) -> Tensor:
    return _sorted(values, descending=True)


def _sorted(values: Tensor, descending: bool) -> Tensor:
    """The numbers of the taps in order, those of equal ones as they come."""
    if torch.onnx.is_in_onnx_export():  # its own sorting keeps their order, and knows no such option
        return values.sort(dim=0, descending=descending)[1]
    return values.sort(dim=0, descending=descending, stable=True)[1]
