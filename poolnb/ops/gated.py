r"""Gated pooling: mixed pooling with :math:`\alpha = \sigma(\langle w, x\rangle + b)`, one gate per window."""

from __future__ import annotations

import torch
from torch import Tensor

from poolnb.geometry import Geometry
from poolnb.ops.checks import PER_CHANNEL, PER_TAP
from poolnb.ops.filters import filter_response, filter_response_backward
from poolnb.ops.mixed import mixed_pool
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
    x = to_acc_dtype(x)
    alpha = _share(windows, x, mask, weight, bias)
    grad_x, grad_alpha = mixed_pool.gradient(to_acc_dtype(grad), x, mask, windows, alpha)
    grad_gate = grad_alpha * alpha * (1 - alpha)
    grad_x, grad_weight = filter_response_backward(windows, grad_gate, x, mask, weight, grad_x)
    return grad_x, grad_weight, per_channel_sum(grad_gate)


gated_pool = PoolOp("gated_pool", _forward, _backward, tensors={"weight": PER_TAP, "bias": PER_CHANNEL})
