r"""Quantile pooling: the q-quantile of a window's taps, linear between ranks.

Counted from the smallest of n taps, from 0 on, it lies at :math:`q (n - 1)`: between the lower tap at its whole part
and the upper one above that, at the fraction f. The derivatives are 1 - f and f there, and by q (n - 1) times the
difference of the two; at a tap, where that jumps, that of the piece above it, and at q = 1 of the piece below.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from poolnb.geometry import Geometry, scatter
from poolnb.ops._order import order_of
from poolnb.ops.checks import PER_CHANNEL
from poolnb.ops.mixed import blend, difference
from poolnb.ops.registration import PoolOp
from poolnb.ops.taps import all_finite, channelwise, one_hot, open_windows, per_channel_sum, spoilt, to_acc_dtype


class _State(NamedTuple):
    taps: Tensor
    lower: Tensor  # number of the tap, and below its value
    upper: Tensor
    low: Tensor
    high: Tensor
    fraction: Tensor  # of the way from the lower to the upper one
    steps: Tensor | int  # from the smallest to the largest tap
    output: Tensor
    safe: bool


def _evaluate(windows: Geometry, x: Tensor, mask: Tensor | None, q: Tensor) -> _State:
    safe = not all_finite(x)
    taps, valid = open_windows(x, mask, windows)
    order = order_of(taps, valid, safe)
    steps: Tensor | int = taps.size(0) - 1 if valid is None else (valid.sum(0) - 1).clamp(min=0)
    # In float64: the fraction is what the steps of a long window leave of q's digits.
    at = (channelwise(q.double(), windows) * steps).expand(order.shape[1:])
    whole = at.detach().floor().long()
    last = steps - 1
    whole = (torch.minimum(whole, last) if isinstance(last, Tensor) else whole.clamp(max=last)).clamp(min=0)
    from_top = steps - whole
    lower = order.gather(0, from_top.unsqueeze(0)).squeeze(0)
    upper = order.gather(0, (from_top - 1).clamp(min=0).unsqueeze(0)).squeeze(0)
    low, high = (taps.gather(0, tap.unsqueeze(0)).squeeze(0) for tap in (lower, upper))
    fraction = (at - whole).to(taps.dtype)
    y = blend(fraction, high, low, True) if safe else torch.lerp(low, high, fraction)
    if safe:
        y = y.masked_fill(taps.isnan().any(0), torch.nan)
    return _State(taps, lower, upper, low, high, fraction, steps, y, safe)


def _forward(windows: Geometry, x: Tensor, mask: Tensor | None, q: Tensor) -> Tensor:
    return _evaluate(windows, x, mask, q).output


def _backward(
    windows: Geometry, param_grads: bool, grad: Tensor, x: Tensor, mask: Tensor | None, q: Tensor
) -> tuple[Tensor, Tensor]:
    s = _evaluate(windows, x, mask, q)
    grad = to_acc_dtype(grad)
    slope = (1 - s.fraction) * one_hot(s.taps, s.lower) + s.fraction * one_hot(s.taps, s.upper)
    grad_x = scatter(grad * spoilt(slope, s.output, s.safe), windows)
    if not param_grads:
        return grad_x, q
    by_q = s.steps * difference(s.high, s.low, s.safe)
    return grad_x, per_channel_sum(grad * spoilt(by_q, s.output, s.safe))


quantile_pool = PoolOp("quantile_pool", _forward, _backward, tensors={"q": PER_CHANNEL.around(0.5, 0, 1)})
