r"""Softmax-weighted pooling: :math:`y = \sum_i w_i x_i` with :math:`w = \mathrm{softmax}(\beta x)` over the window."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from poolnb.geometry import Geometry, scatter
from poolnb.ops.checks import PER_CHANNEL
from poolnb.ops.registration import PoolOp
from poolnb.ops.taps import (
    all_finite,
    channelwise,
    deviation,
    open_windows,
    softmax,
    spoilt,
    to_acc_dtype,
    weighted_mean,
)


class _State(NamedTuple):
    taps: Tensor
    weights: Tensor
    output: Tensor
    safe: bool


def _evaluate(windows: Geometry, x: Tensor, mask: Tensor | None, beta: Tensor) -> _State:
    safe = not all_finite(x, beta)
    taps, valid = open_windows(x, mask, windows)
    weights = softmax(taps, channelwise(beta, windows), valid, safe)
    return _State(taps, weights, weighted_mean(weights, taps, valid, safe), safe)


def _forward(windows: Geometry, x: Tensor, mask: Tensor | None, beta: Tensor, semi_grad: bool) -> Tensor:
    return _evaluate(windows, x, mask, beta).output


def _backward(
    windows: Geometry,
    param_grads: bool,
    grad: Tensor,
    x: Tensor,
    mask: Tensor | None,
    beta: Tensor,
    semi_grad: bool,
) -> tuple[Tensor, Tensor]:
    taps, weights, y, safe = _evaluate(windows, x, mask, beta)
    grad, scale = to_acc_dtype(grad), channelwise(beta, windows)
    centred, unit = deviation(taps, y, weights, safe)
    weighted = weights * centred
    slope = weights if semi_grad else weights + unit * scale * weighted
    grad_x = scatter(grad * spoilt(slope, y, safe), windows)
    if not param_grads:
        return grad_x, beta
    # dy/dbeta is the variance of the window's taps under the weights.
    variance = spoilt((weighted * centred).sum(0) * unit**2, y, safe)
    return grad_x, (grad * variance).transpose(0, 1).flatten(1).sum(1)


soft_pool = PoolOp(
    "soft_pool",
    _forward,
    _backward,
    tensors={"beta": PER_CHANNEL.around(1, -1, 3)},
    attributes={"bool semi_grad": False},
)
