r"""Gated pooling: mixed pooling with :math:`\alpha = \sigma(\langle w, x\rangle + b)`, one gate per window."""

from __future__ import annotations

import torch
from torch import Tensor

from poolnb.geometry import Geometry, scatter
from poolnb.ops.mixed import Extremes, blend, difference, extremes, taps_slope
from poolnb.ops.registration import PoolOp
from poolnb.ops.taps import accumulate, channelwise, finite, per_channel_sum


def _evaluate(
    windows: Geometry, x: Tensor, mask: Tensor | None, weight: Tensor, bias: Tensor
) -> tuple[Extremes, Tensor, Tensor]:
    """Max and mean, the weights shaped like taps, and alpha."""
    e = extremes(windows, x, mask, weight, bias)
    per_tap = weight.t().reshape(windows.taps, 1, weight.size(0), *(1,) * windows.dims)
    products = per_tap * e.taps
    if e.careful:  # a weight of 0 is nothing even of an infinite tap
        products = products.masked_fill((per_tap == 0) & e.taps.isinf(), 0)
    return e, per_tap, torch.sigmoid(products.sum(0) + channelwise(bias, windows))


def _forward(windows: Geometry, x: Tensor, mask: Tensor | None, weight: Tensor, bias: Tensor) -> Tensor:
    e, _, alpha = _evaluate(windows, x, mask, weight, bias)
    return blend(alpha, e.largest, e.mean, e.careful)


def _backward(
    windows: Geometry,
    param_grads: bool,
    grad: Tensor,
    x: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    e, per_tap, alpha = _evaluate(windows, x, mask, weight, bias)
    grad = accumulate(grad)
    grad_gate = grad * difference(e.largest, e.mean, e.careful) * alpha * (1 - alpha)
    slope = grad_gate * per_tap
    if e.valid is not None:
        slope = slope * e.valid.to(slope.dtype)
    grad_x = scatter(grad * taps_slope(alpha, e) + slope, windows)
    if not param_grads:
        return grad_x, weight, bias
    products = grad_gate * finite(e.taps, e.careful)
    grad_weight = products.transpose(1, 2).flatten(2).sum(2).t()
    return grad_x, grad_weight, per_channel_sum(grad_gate)


gated_pool = PoolOp("gated_pool", _forward, _backward, tensors=["weight", "bias"])
