r"""Gated pooling: mixed pooling with :math:`\alpha = \sigma(\langle w, x\rangle + b)`, one gate per window."""

from __future__ import annotations

import torch
from torch import Tensor

from poolnb.geometry import Geometry, scatter
from poolnb.ops.checks import PER_CHANNEL, PER_TAP
from poolnb.ops.filters import filter_response, filter_response_backward
from poolnb.ops.mixed import extremes, gate_slope, mixed_pool, taps_slope
from poolnb.ops.registration import PoolOp
from poolnb.ops.taps import channelwise, per_channel_sum, to_acc_dtype


def _share(windows: Geometry, x: Tensor, mask: Tensor | None, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.sigmoid(filter_response(windows, x, mask, weight) + channelwise(bias, windows))


def _forward(windows: Geometry, x: Tensor, mask: Tensor | None, weight: Tensor, bias: Tensor) -> Tensor:
    x = to_acc_dtype(x)
    return mixed_pool(x, mask, windows, _share(windows, x, mask, weight, bias))


def _backward(
    windows: Geometry,
    param_grads: bool,
    grad: Tensor,
    x: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    x, grad = to_acc_dtype(x), to_acc_dtype(grad)
    alpha = _share(windows, x, mask, weight, bias)
    e = extremes(windows, x, mask, alpha)
    grad_x = scatter(grad * taps_slope(alpha, e), windows)
    grad_gate = grad * gate_slope(alpha, e.largest, e.mean, e.safe)
    grad_x, grad_weight = filter_response_backward(windows, grad_gate, x, mask, weight, grad_x)
    return grad_x, grad_weight, per_channel_sum(grad_gate)


gated_pool = PoolOp("gated_pool", _forward, _backward, tensors={"weight": PER_TAP, "bias": PER_CHANNEL})
