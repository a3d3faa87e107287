r"""Weighted pooling: :math:`y = \sum_i w_i x_i` with :math:`w = \mathrm{softmax}(l)` over the window's logits."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from poolnb.geometry import Geometry, gather, scatter
from poolnb.ops.checks import LIKE_INPUT
from poolnb.ops.registration import PoolOp
from poolnb.ops.taps import all_finite, deviation, open_windows, softmax_of, to_acc_dtype, weighted_mean


class _State(NamedTuple):
    taps: Tensor
    valid: Tensor | None
    weights: Tensor  # (taps, N, 1, *output) where all channels share them
    output: Tensor
    safe: bool


def _evaluate(windows: Geometry, x: Tensor, mask: Tensor | None, logits: Tensor) -> _State:
    safe = not all_finite(x, logits)
    taps, valid = open_windows(x, mask, windows)
    weights = softmax_of(gather(to_acc_dtype(logits), windows), taps, valid, safe)
    return _State(taps, valid, weights, weighted_mean(weights, taps, valid, safe), safe)


def _forward(windows: Geometry, x: Tensor, mask: Tensor | None, logits: Tensor) -> Tensor:
    return _evaluate(windows, x, mask, logits).output


def _backward(
    windows: Geometry, param_grads: bool, grad: Tensor, x: Tensor, mask: Tensor | None, logits: Tensor
) -> tuple[Tensor, Tensor]:
    taps, valid, weights, y, safe = _evaluate(windows, x, mask, logits)
    grad = to_acc_dtype(grad)
    weighted_grad = grad * weights
    grad_x = scatter(weighted_grad, windows)
    if not param_grads:
        return grad_x, logits
    centred, unit = deviation(taps, y, weights, safe)
    slopes = weighted_grad * centred * unit
    if safe and valid is not None:  # a NaN in a window is no matter of its masked taps
        slopes = slopes.masked_fill(~valid, 0)
    if logits.size(1) == 1:
        slopes = slopes.sum(2, keepdim=True)
    return grad_x, scatter(slopes, windows)


weighted_pool = PoolOp("weighted_pool", _forward, _backward, tensors={"logits": LIKE_INPUT}, batched=["logits"])
