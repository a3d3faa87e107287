r"""Log-sum-exp pooling: :math:`y = \frac1r \ln \frac1n \sum_i e^{r x_i}`.

Every formula here is written in differences, so that it holds from r = 0 (the mean) to large r (the max):
:math:`y = m + \frac1r \mathrm{log1p}(\frac1n \sum_i \mathrm{expm1}(r (x_i - m)))`, m the largest tap, and with
:math:`v_i = r (x_i - y)`: :math:`\partial y/\partial x_i = e^{v_i} / n` and
:math:`\partial y/\partial r = \frac1r \sum_i w_i (x_i - y)`, which is :math:`\frac1n \sum_i (x_i - y)^2
\varphi'(v_i)` with :math:`\varphi(v) = (e^v - 1)/v`. Where every v is small the quotient loses its digits, and the
series of :math:`\varphi'` takes its place.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from poolnb.geometry import Geometry, scatter
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

# exp(-_LIMIT) is 0 in every dtype.
_LIMIT = 1e4
# A quotient that is 1 at 0 is 1 to every digit here too. (Nearer to 0 would do as well, but expm1 is slow there.)
_LEAST = 1e-18


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
        x_minus_peak = _bounded(x_minus_peak, r)
    # log(mean exp(r d)) / r by quotients that are 1 at 0: nothing is divided by r.
    rise = (x_minus_peak * _expm1_quotient(r * x_minus_peak) * share).sum(0)
    y_minus_peak = rise * _log1p_quotient(r * rise)
    if windows.long:  # the differences of many small exponentials from 1 cancel
        mean = ((r * x_minus_peak).exp() * share).sum(0)
        small = (mean < 0.5) & (mean > 0)
        y_minus_peak = torch.where(small, torch.where(small, mean, 1).log() / torch.where(small, r, 1), y_minus_peak)
    y = peak + y_minus_peak
    if windows.long and not safe:  # what y lacks: peak and y_minus_peak may cancel
        left = taps - y if valid is None else (taps - y) * valid.to(taps.dtype)
        y = y + (left * _phi(r * left) * share).sum(0)
    if may_be_empty(mask, windows):
        assert valid is not None
        y = y * valid.any(0).to(y.dtype)
    if not safe:
        return _State(x_minus_peak, y_minus_peak, None, share, r, y)
    y = _with_infinities(2 * y, original, valid, sharpness, windows)
    return _State(x_minus_peak, y_minus_peak, original == torch.inf, share, r, y)


def _expm1_quotient(v: Tensor) -> Tensor:
    """(exp(v) - 1) / v for v <= 0, 1 at 0."""
    if torch.onnx.is_in_onnx_export():  # ONNX has no expm1
        return _phi(v)
    v = v.clamp(max=-_LEAST)
    return v.expm1() / v


def _log1p_quotient(v: Tensor) -> Tensor:
    """ln(1 + v) / v for v <= 0, 1 at 0."""
    if torch.onnx.is_in_onnx_export():  # nor log1p: the rounding of 1 + v cancels where it is subtracted again
        rounded = 1 + v
        return torch.where(rounded == 1, 1, rounded.log() / torch.where(rounded == 1, 1, rounded - 1))
    v = v.clamp(max=-_LEAST)
    return v.log1p() / v


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
    excess = x_minus_peak - y_minus_peak if pos_inf is None else _differentiable(x_minus_peak, y_minus_peak, share, r)
    v = r * excess
    weights = v.exp() * share
    slope = weights
    if pos_inf is not None:
        slope = torch.where(y.isinf(), pos_inf / pos_inf.sum(0).clamp(min=1).to(v.dtype), weights)
    grad_x = scatter(grad * slope, windows)
    if not param_grads:
        return grad_x, sharpness
    curve = _curve(excess, v, weights, share, r)
    if pos_inf is not None:
        curve = 4 * curve.masked_fill(y.isinf(), 0)
    return grad_x, per_channel_sum(grad * curve)


def _differentiable(x_minus_peak: Tensor, y_minus_peak: Tensor, share: Tensor | float, r: Tensor) -> Tensor:
    """x_minus_peak - y_minus_peak, with derivatives that are as accurate as the value.

    Newton steps for mean(exp(r (x - y))) = 1 leave the value, and bring the derivatives without dividing by r: each
    step one order of them. With two the third derivative of y is right.
    """
    y_minus_peak = y_minus_peak.detach()
    for _ in range(2):
        excess = _bounded(x_minus_peak - y_minus_peak, r)
        step = (excess * _phi(r * excess) * share).sum(0)
        y_minus_peak = y_minus_peak + (step - step.detach())
    return _bounded(x_minus_peak - y_minus_peak, r)


def _bounded(excess: Tensor, r: Tensor) -> Tensor:
    """No further from y than where the weight is 0 anyway, so that nothing becomes infinite."""
    limit = _LIMIT / r.detach().abs()
    return excess.clamp(-limit, limit)


def _phi(v: Tensor) -> Tensor:
    """(exp(v) - 1) / v, 1 at 0."""
    small = v.abs() < 0.5
    large = v.masked_fill(small, 1)
    series = _series(v.masked_fill(~small, 0), [1 / math.factorial(k + 1) for k in range(16)])
    return torch.where(small, series, large.expm1() / large)


def _curve(excess: Tensor, v: Tensor, weights: Tensor, share: Tensor | float, r: Tensor) -> Tensor:
    """dy/dr, in each window by the formula that is accurate there."""
    flat = v.detach().abs().amax(0) < 0.1
    count = 10 if v.dtype == torch.float64 else 5
    near = v.clamp(-0.1, 0.1)
    series = _series(near, [(k + 1) / math.factorial(k + 2) for k in range(count)])
    bend = (excess.square() * series * share).sum(0)
    quotient = (weights * excess).sum(0) / torch.where(flat, 1, r)
    return torch.where(flat, bend, quotient)


def _series(v: Tensor, coefficients: list[float]) -> Tensor:
    total = torch.full_like(v, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = total * v + c
    return total


lse_pool = PoolOp("lse_pool", _forward, _backward, tensors={"r": PER_CHANNEL.around(1, -2, 3)})
