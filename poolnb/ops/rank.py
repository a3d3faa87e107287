r"""Rank pooling: :math:`y = \sum_{r \le n} w_r x_{(r)} / \sum_{r \le n} w_r`, the taps weighted by their rank."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from poolnb.geometry import Geometry, scatter
from poolnb.ops._order import by_rank, by_tap, order_of
from poolnb.ops.checks import PER_TAP
from poolnb.ops.registration import PoolOp
from poolnb.ops.taps import all_finite, open_windows, spoilt, to_acc_dtype, weighted_sum


class _State(NamedTuple):
    order: Tensor
    ranked: Tensor  # the taps by rank
    present: Tensor | None  # which ranks a window has; None: all
    shares: Tensor  # of the ranks, with sum 1; 0 in a window whose weights are all 0
    inv_sum: Tensor  # 1 by the sum of the weights; 0 there
    output: Tensor
    safe: bool


def _evaluate(windows: Geometry, x: Tensor, mask: Tensor | None, weight: Tensor) -> _State:
    safe = not all_finite(x, weight)
    taps, valid = open_windows(x, mask, windows)
    order = order_of(taps, valid, safe)
    ranked = by_rank(taps, order)
    weights = weight.t().reshape(windows.taps, 1, len(weight), *(1,) * windows.dims)
    present = None
    if valid is not None:
        rank = torch.arange(len(taps), device=x.device).view(-1, *(1,) * (taps.dim() - 1))
        present = rank < valid.sum(0)
        weights = weights * present.to(weights.dtype)
    # As parts of the largest one, whose sum does not overflow.
    largest = weights.detach().amax(0)
    largest = largest.masked_fill(largest == 0, 1)
    parts = weights / largest
    total = parts.sum(0)
    shares = parts / total.masked_fill(total == 0, 1)
    inv_sum = ((total != 0) / total.masked_fill(total == 0, 1)) / largest
    return _State(order, ranked, present, shares, inv_sum, weighted_sum(shares, ranked, safe), safe)


def _forward(windows: Geometry, x: Tensor, mask: Tensor | None, weight: Tensor) -> Tensor:
    return _evaluate(windows, x, mask, weight).output


def _backward(
    windows: Geometry, param_grads: bool, grad: Tensor, x: Tensor, mask: Tensor | None, weight: Tensor
) -> tuple[Tensor, Tensor]:
    s = _evaluate(windows, x, mask, weight)
    grad = to_acc_dtype(grad)
    slope = by_tap(s.shares.expand_as(s.ranked), s.order)
    grad_x = scatter(grad * spoilt(slope, s.output, s.safe), windows)
    if not param_grads:
        return grad_x, weight
    centred = s.ranked - s.output
    if s.safe:
        centred = spoilt(centred.masked_fill(centred.isinf() | s.output.isinf(), 0), s.output)
    if s.present is not None:
        centred = centred.masked_fill(~s.present, 0)
    return grad_x, (grad * s.inv_sum * centred).transpose(1, 2).flatten(2).sum(2).t()


rank_pool = PoolOp("rank_pool", _forward, _backward, tensors={"weight": PER_TAP.around(1, 0, 1)})
