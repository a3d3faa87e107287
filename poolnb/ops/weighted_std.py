r"""Standard deviation under weights: :math:`y = \sqrt{\sum_i w_i (x_i - m)^2 + \epsilon}`, w the softmax of logits.

m is the mean under the same weights. :math:`\partial y/\partial x_i = w_i (x_i - m)/y` and
:math:`\partial y/\partial l_i = w_i ((x_i - m)^2 - v)/(2 y)`, v being the sum under the root. Scaled as in ``std.py``;
weights and infinities as in ``weighted.py``. Of an infinite result no derivative is left.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from poolnb.geometry import Geometry, gather, scatter
from poolnb.ops.checks import LIKE_INPUT
from poolnb.ops.registration import PoolOp
from poolnb.ops.taps import all_finite, finite, open_windows, softmax_of, spoilt, to_acc_dtype

_SMALLER = 0.25  # on the safe path taps are, so that no difference of two overflows


class _State(NamedTuple):
    valid: Tensor | None
    weights: Tensor
    centred: Tensor  # (x_i - m) / unit
    variance: Tensor  # v / unit^2
    spread: Tensor  # y / unit
    output: Tensor


def _evaluate(windows: Geometry, x: Tensor, mask: Tensor | None, logits: Tensor, eps: float) -> _State:
    safe = not all_finite(x, logits)
    taps, valid = open_windows(x, mask, windows)
    weights = softmax_of(gather(to_acc_dtype(logits), windows), taps, valid, safe)
    scale = _SMALLER if safe else 1.0
    root = taps.new_full((), max(math.sqrt(eps) * scale, torch.finfo(taps.dtype).tiny))
    below = _below_largest(finite(taps, safe) * scale, weights)
    unit = torch.maximum(-below.detach().amin(0), root)
    ratio = below / unit
    centred = ratio - (weights * ratio).sum(0)
    variance = (weights * centred.square()).sum(0)
    spread = (variance + (root / unit).square()).sqrt()
    y = unit * spread / scale
    if safe:
        y = torch.where(((taps == torch.inf) & (weights > 0)).any(0) & ~y.isnan(), torch.inf, y)
    if safe or mask is not None or windows.has_empty_window:
        y = y * (weights != 0).any(0).to(y.dtype)
    return _State(valid, weights, centred, variance, spread, y)


def _below_largest(taps: Tensor, weights: Tensor) -> Tensor:
    """The taps less the largest of their window; 0 at those without weight, which decide no scale. NaN stays."""
    without = (weights == 0) & ~taps.isnan()
    largest = taps.detach().masked_fill(without, -torch.inf).amax(0)
    return (taps - largest.masked_fill(largest == -torch.inf, 0)).masked_fill(without, 0)


def _forward(windows: Geometry, x: Tensor, mask: Tensor | None, logits: Tensor, eps: float) -> Tensor:
    return _evaluate(windows, x, mask, logits, eps).output


def _backward(
    windows: Geometry, param_grads: bool, grad: Tensor, x: Tensor, mask: Tensor | None, logits: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    valid, weights, centred, variance, spread, y = _evaluate(windows, x, mask, logits, eps)
    grad, lost = to_acc_dtype(grad), y.isinf()
    slope = spoilt((weights * centred / spread).masked_fill(lost, 0), y)
    grad_x = scatter(grad * slope, windows)
    if not param_grads:
        return grad_x, logits
    # (d^2 - v) / (2 y) = y (d^2 - v) / (2 y^2), in which unit cancels.
    by_logit = (weights * (centred.square() - variance) / (2 * spread.square())).masked_fill(lost, 0)
    slopes = grad * spoilt(by_logit * y.masked_fill(lost, 0), y)
    if valid is not None:  # a NaN in a window is no matter of its masked taps
        slopes = slopes.masked_fill(~valid, 0)
    if logits.size(1) == 1:
        slopes = slopes.sum(2, keepdim=True)
    return grad_x, scatter(slopes, windows)


weighted_std_pool = PoolOp(
    "weighted_std_pool",
    _forward,
    _backward,
    tensors={"logits": LIKE_INPUT},
    attributes={"float eps": 1e-5},
    batched=["logits"],
)
