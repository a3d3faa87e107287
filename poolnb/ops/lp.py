r"""Lp pooling: :math:`y = (\sum_i |x_i|^p)^{1/p}`."""

from __future__ import annotations

import torch
from torch import Tensor

from poolnb.geometry import Geometry, scatter
from poolnb.ops._power import PowerMean, endless_where, exponent_slope, needs_safe_path, power_mean, size_slope
from poolnb.ops.checks import PER_CHANNEL
from poolnb.ops.registration import PoolOp
from poolnb.ops.taps import all_finite, channelwise, one_hot, open_windows, per_channel_sum, spoilt, to_acc_dtype


def _evaluate(windows: Geometry, x: Tensor, mask: Tensor | None, p: Tensor) -> tuple[Tensor, PowerMean]:
    taps, _ = open_windows(x, mask, windows)  # taps that are not valid hold 0 and add nothing
    safe = not all_finite(x, p) or needs_safe_path(p)
    return taps, power_mean(taps.abs(), 1.0, channelwise(p, windows), safe)


def _forward(windows: Geometry, x: Tensor, mask: Tensor | None, norm_type: Tensor) -> Tensor:
    return _evaluate(windows, x, mask, norm_type)[1].output


def _backward(
    windows: Geometry, param_grads: bool, grad: Tensor, x: Tensor, mask: Tensor | None, norm_type: Tensor
) -> tuple[Tensor, Tensor]:
    taps, mean = _evaluate(windows, x, mask, norm_type)
    grad = to_acc_dtype(grad)
    slope = taps.sign() * size_slope(mean) if mean.logs is None else _smooth_slope(taps, mean)
    grad_x = scatter(grad * spoilt(slope, mean.output, mean.logs is not None), windows)
    if not param_grads:
        return grad_x, norm_type
    return grad_x, per_channel_sum(grad * exponent_slope(mean))


def _smooth_slope(taps: Tensor, mean: PowerMean) -> Tensor:
    """The slope sign(x) (r / rho)^(p-1), with a derivative that is right at a tap of 0 as well."""
    assert mean.logs is not None
    # 0, with the derivative that sign(x) r lacks there for p = 2; a window of zeros has none.
    at_zero = taps.masked_fill((taps != 0) | (mean.output == 0), 0) / mean.unit / mean.root
    slope = torch.where(mean.logs.no_share, at_zero.masked_fill(mean.p != 2, 0), taps.sign() * size_slope(mean))
    endless = endless_where(mean.p)
    if endless is None:
        return slope
    return torch.where(endless, taps.sign() * one_hot(taps, mean.powers.detach().argmax(0)), slope)


lp_pool = PoolOp("lp_pool", _forward, _backward, tensors={"norm_type": PER_CHANNEL.around(2, 1.2, 4)})
