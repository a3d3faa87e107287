r"""Blur pooling: :math:`y = \sum_i b_i x_i / \sum_i b_i`, b the product over the axes of binomial coefficients.

An axis with k taps has :math:`\binom{k-1}{j}`. They are kept as logarithms until those of a window are compared: far
taps of a long window would be 0, and may be all it has. :math:`\partial y/\partial x_i = b_i / \sum_j b_j` does not
depend on the taps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from poolnb.geometry import Geometry, scatter, valid_taps
from poolnb.ops.registration import PoolOp
from poolnb.ops.taps import all_finite, finite, normalise, open_windows, to_acc_dtype


def _log_binomials(taps: int, device: torch.device) -> Tensor:
    """ln C(taps - 1, j) for every j, without what all have in common, in float64."""
    j = torch.arange(taps, dtype=torch.float64, device=device)
    if torch.onnx.is_in_onnx_export():  # ONNX has no lgamma; a sum loses digits in windows of millions of taps
        factorials = j.clamp(min=1).log().cumsum(0)
        return -factorials - factorials.flip(0)
    return -torch.lgamma(j + 1) - torch.lgamma(taps - j)


def _weights(windows: Geometry, x: Tensor, valid: Tensor | None) -> Tensor:
    """The weights of the taps of every window, (taps, ...), in the dtype of sums; 0 at taps that are not valid."""
    logs = torch.zeros((), dtype=torch.float64, device=x.device)
    for taps in windows.kernel:
        logs = logs.unsqueeze(-1) + _log_binomials(taps, x.device)
    logs = logs.reshape(-1, *(1,) * (2 + windows.dims))
    if valid is not None:
        logs = logs.masked_fill(~valid, -torch.inf)
    return normalise(logs).to(to_acc_dtype(x).dtype)


def _forward(windows: Geometry, x: Tensor, mask: Tensor | None) -> Tensor:
    safe = not all_finite(x)
    taps, valid = open_windows(x, mask, windows)
    y = (_weights(windows, x, valid) * finite(taps, safe)).sum(0)
    # An infinite tap counts, however small its weight.
    return y + taps.masked_fill(~taps.isinf(), 0).sum(0) if safe else y


def _backward(windows: Geometry, param_grads: bool, grad: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
    weights = _weights(windows, x, valid_taps(mask, windows, x.device))
    return scatter(to_acc_dtype(grad) * weights, windows)


blur_pool = PoolOp("blur_pool", _forward, _backward)
