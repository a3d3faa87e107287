r"""Log-sum-exp pooling: :math:`y = \frac1r \ln \frac1n \sum_i e^{r x_i}`.

In differences from the largest tap m it holds from r = 0 (the mean) to large r (the max):
:math:`y = m + \frac1r \mathrm{log1p}(\frac1n \sum_i \mathrm{expm1}(r (x_i - m)))`, and with :math:`v_i = r (x_i - y)`
:math:`\partial y/\partial x_i = e^{v_i} / n`. For :math:`\partial y/\partial r` see :mod:`poolnb.ops._log_mean`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from poolnb.geometry import Geometry, scatter
from poolnb.ops._log_mean import bounded, curve, differentiable, log_mean, phi
from poolnb.ops.checks import PER_CHANNEL
from poolnb.ops.registration import PoolOp
from poolnb.ops.taps import (
    all_finite,
    channelwise,
    counts,
    may_be_empty,
    open_windows,
    per_channel_sum,
    to_acc_dtype,
    visible,
    without_invalid,
)


class _State(NamedTuple):
    x_minus_peak: Tensor  # x - m, m the tap that r favours; 0 at taps that are not valid
    y_minus_peak: Tensor  # y - m; on the safe path both are halved, and r is doubled: a difference may overflow
    pos_inf: Tensor | None  # taps of +inf; None: there are none
    share: Tensor | float  # 1/n at valid taps, 0 at others
    r: Tensor
    output: Tensor


def _evaluate(windows: Geometry, x: Tensor, mask: Tensor | None, sharpness: Tensor) -> _State:
    safe = not all_finite(x, sharpness)
    taps, valid = open_windows(x, mask, windows)
    r = channelwise(sharpness, windows)
    share: Tensor | float = 1 / windows.taps
    if valid is not None:
        share = valid.to(taps.dtype) / counts(valid, windows, taps.dtype)
    largest = torch.finfo(taps.dtype).max
    original = taps
    if safe:  # no inf - inf, and no difference that overflows; NaN passes
        taps, r = taps.clamp(-largest, largest) * 0.5, (2 * r).clamp(-largest, largest)
    # The tap that r favours: the largest for r >= 0, the smallest for r < 0.
    facing, sign = taps, 1 - 2 * (r < 0).to(taps.dtype)
    if not (visible(r) and bool((r >= 0).all())):
        facing = taps * sign
    if valid is not None:
        facing = without_invalid(facing, valid)
    peak = facing.detach().amax(0).clamp(min=-largest) * sign
    x_minus_peak = taps - peak
    if valid is not None:
        x_minus_peak = x_minus_peak * valid.to(taps.dtype)
    if safe:
        x_minus_peak = bounded(x_minus_peak, r)
    y_minus_peak = log_mean(x_minus_peak, share, r)
    if windows.long:  # the differences of many small exponentials from 1 cancel
        mean = ((r * x_minus_peak).exp() * share).sum(0)
        small = (mean < 0.5) & (mean > 0)
        y_minus_peak = torch.where(small, torch.where(small, mean, 1).log() / torch.where(small, r, 1), y_minus_peak)
    y = peak + y_minus_peak
    if windows.long and not safe:  # what y lacks: peak and y_minus_peak may cancel
        left = taps - y if valid is None else (taps - y) * valid.to(taps.dtype)
        y = y + (left * phi(r * left) * share).sum(0)
    if may_be_empty(mask, windows):
        assert valid is not None
        y = y * valid.any(0).to(y.dtype)
    if not safe:
        return _State(x_minus_peak, y_minus_peak, None, share, r, y)
    y = _with_infinities(2 * y, original, valid, sharpness, windows)
    return _State(x_minus_peak, y_minus_peak, original == torch.inf, share, r, y)


def _with_infinities(y: Tensor, taps: Tensor, valid: Tensor | None, sharpness: Tensor, windows: Geometry) -> Tensor:
    """+inf where a tap is; -inf where all taps are, or one is and r does not suppress it."""
    neg_inf = taps == -torch.inf
    counted = neg_inf if valid is None else neg_inf | ~valid
    sunk = counted.all(0) | (channelwise(sharpness, windows) <= 0)
    limits = torch.zeros_like(y).masked_fill(sunk & neg_inf.any(0), -torch.inf)
    limits = limits.masked_fill((taps == torch.inf).any(0), torch.inf)
    return torch.where(y.isnan() & taps.isnan().any(0), y, torch.where(limits.isinf(), limits, y))


def _forward(windows: Geometry, x: Tensor, mask: Tensor | None, r: Tensor) -> Tensor:
    return _evaluate(windows, x, mask, r).output


def _backward(
    windows: Geometry, param_grads: bool, grad: Tensor, x: Tensor, mask: Tensor | None, sharpness: Tensor
) -> tuple[Tensor, Tensor]:
    x_minus_peak, y_minus_peak, pos_inf, share, r, y = _evaluate(windows, x, mask, sharpness)
    grad = to_acc_dtype(grad)
    # x - y in two differences: next to large taps y itself is too coarse. Taps that are not valid have no share.
    if pos_inf is not None:
        y_minus_peak = differentiable(x_minus_peak, y_minus_peak, share, r)
    excess = x_minus_peak - y_minus_peak
    if pos_inf is not None:
        excess = bounded(excess, r)
    v = r * excess
    weights = v.exp() * share
    slope = weights
    if pos_inf is not None:
        slope = torch.where(y.isinf(), pos_inf / pos_inf.sum(0).clamp(min=1).to(v.dtype), weights)
    grad_x = scatter(grad * slope, windows)
    if not param_grads:
        return grad_x, sharpness
    by_r = curve(excess, v, weights, share, r)
    if pos_inf is not None:
        by_r = 4 * by_r.masked_fill(y.isinf(), 0)
    return grad_x, per_channel_sum(grad * by_r)


lse_pool = PoolOp("lse_pool", _forward, _backward, tensors={"r": PER_CHANNEL.around(1, -2, 3)})
