r"""Generalised-mean pooling: :math:`y = (\frac1n \sum_i \max(x_i, \epsilon)^p)^{1/p}`."""

from __future__ import annotations

from torch import Tensor

from poolnb.geometry import Geometry, scatter
from poolnb.ops._power import PowerMean, exponent_slope, needs_safe_path, power_mean, size_slope
from poolnb.ops.checks import PER_CHANNEL
from poolnb.ops.registration import PoolOp
from poolnb.ops.taps import all_finite, channelwise, counts, open_windows, per_channel_sum, spoilt, to_acc_dtype


def _evaluate(
    windows: Geometry, x: Tensor, mask: Tensor | None, p: Tensor, eps: float
) -> tuple[Tensor, Tensor, PowerMean]:
    taps, valid = open_windows(x, mask, windows)
    share = taps.new_full((1,) * taps.dim(), 1 / windows.taps)
    if valid is not None:
        share = valid.to(taps.dtype) / counts(valid, windows, taps.dtype)
    safe = not all_finite(x, p) or needs_safe_path(p)
    return taps, share, power_mean(taps.clamp(min=eps), share, channelwise(p, windows), safe)


def _forward(windows: Geometry, x: Tensor, mask: Tensor | None, p: Tensor, eps: float) -> Tensor:
    return _evaluate(windows, x, mask, p, eps)[2].output


def _backward(
    windows: Geometry, param_grads: bool, grad: Tensor, x: Tensor, mask: Tensor | None, p: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    taps, share, mean = _evaluate(windows, x, mask, p, eps)
    grad = to_acc_dtype(grad)
    # 1 where x >= eps, else 0, without a mask; a NaN stays one. A tap that is not valid holds 0 and is below.
    above = 1 + (taps - eps).clamp(max=0).sign()
    slope = size_slope(mean) * share * above
    grad_x = scatter(grad * spoilt(slope, mean.output, mean.logs is not None), windows)
    if not param_grads:
        return grad_x, p
    return grad_x, per_channel_sum(grad * exponent_slope(mean))


gem_pool = PoolOp(
    "gem_pool", _forward, _backward, tensors={"p": PER_CHANNEL.around(3, 0.5, 4)}, attributes={"float eps": 1e-6}
)
