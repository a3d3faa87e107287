r"""Log-sum-exp pooling: :math:`y = \frac1r \ln \frac1n \sum_i e^{r x_i}`.

Every formula here is written in differences, so that it holds from r = 0 (the mean) to large r (the max):
:math:`y = m + \frac1r \mathrm{log1p}(\frac1n \sum \mathrm{expm1}(r (x_i - m)))`, m the largest tap, and with
:math:`v_i = r (x_i - y)`: :math:`\partial y/\partial x_i = e^{v_i} / n` and
:math:`\partial y/\partial r = \frac1n \sum_i (x_i - y)^2 \varphi'(v_i)`, :math:`\varphi(v) = (e^v - 1)/v`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from poolnb.geometry import Geometry, scatter
from poolnb.ops.registration import PoolOp
from poolnb.ops.taps import accumulate, channelwise, counts, may_be_empty, open_windows, per_channel_sum, tame, visible

# Smaller sharpness is taken as this one: the difference is far below rounding, and 1/r exists.
_LEAST = 1e-20
# exp of this is 0 in every dtype.
_FLOOR = -1e4


class _State(NamedTuple):
    taps: Tensor
    valid: Tensor | None
    share: Tensor | float  # 1/n at valid taps, 0 at others
    r: Tensor
    output: Tensor
    careful: bool


def _sharpness(r: Tensor, windows: Geometry) -> Tensor:
    shift = torch.where(r.abs() < _LEAST, _LEAST - r, 0).detach()
    return channelwise(r + shift, windows)


def _evaluate(windows: Geometry, x: Tensor, mask: Tensor | None, sharpness: Tensor) -> _State:
    careful = not tame(x, sharpness)
    taps, valid = open_windows(x, mask, windows)
    r = _sharpness(sharpness, windows)
    share: Tensor | float = 1 / windows.taps
    if valid is not None:
        share = valid.to(taps.dtype) / counts(valid, windows, taps.dtype)
    largest = torch.finfo(taps.dtype).max
    original = taps
    if careful:
        taps = taps.clamp(-largest, largest)  # no inf - inf; NaN passes
    # The tap that r favours: the largest for r > 0, the smallest for r < 0.
    upward = visible(r) and bool((r > 0).all())
    facing = taps if upward else taps * r.sign()
    if valid is not None:
        facing = facing + torch.zeros(valid.shape, dtype=taps.dtype, device=taps.device).masked_fill(~valid, -torch.inf)
    peak = facing.detach().amax(0).clamp(min=-largest)
    peak = peak if upward else peak * r.sign()
    ahead = taps - peak
    if valid is not None:
        ahead = ahead * valid.to(taps.dtype)
    growth = (r * ahead).expm1()
    y = peak + (growth * share).sum(0).log1p() / r
    if may_be_empty(mask, windows):
        assert valid is not None
        y = y * valid.any(0).to(y.dtype)
    if careful:
        y = _with_infinities(y, original, valid, sharpness, windows)
    return _State(taps, valid, share, r, y, careful)


def _with_infinities(y: Tensor, taps: Tensor, valid: Tensor | None, sharpness: Tensor, windows: Geometry) -> Tensor:
    """+inf where a tap is; -inf where all taps are, or one is and r does not suppress it."""
    cold = taps == -torch.inf
    counted = cold if valid is None else cold | ~valid
    sunk = counted.all(0) | (channelwise(sharpness, windows) <= 0)
    limits = torch.zeros_like(y).masked_fill(sunk & cold.any(0), -torch.inf)
    limits = limits.masked_fill((taps == torch.inf).any(0), torch.inf)
    return torch.where(y.isnan() & taps.isnan().any(0), y, torch.where(limits.isinf(), limits, y))


def _forward(windows: Geometry, x: Tensor, mask: Tensor | None, r: Tensor) -> Tensor:
    return _evaluate(windows, x, mask, r).output


def _backward(
    windows: Geometry, param_grads: bool, grad: Tensor, x: Tensor, mask: Tensor | None, sharpness: Tensor
) -> tuple[Tensor, Tensor]:
    taps, valid, share, r, y, careful = _evaluate(windows, x, mask, sharpness)
    grad = accumulate(grad)
    present: Tensor | float = 1.0 if valid is None else valid.to(taps.dtype)
    infinite = y.isinf() if careful else None
    excess = _excess(taps, y.masked_fill(infinite, 0) if infinite is not None else y, present, share, r, careful)
    slope = (r * excess).exp() * share
    if infinite is not None:
        hot = (taps == torch.finfo(taps.dtype).max) & (y == torch.inf)
        slope = torch.where(infinite, hot / hot.sum(0).clamp(min=1).to(taps.dtype), slope)
    grad_x = scatter(grad * slope, windows)
    if not param_grads:
        return grad_x, sharpness
    curve = (excess.square() * _phi_slope(r * excess) * share).sum(0)
    if infinite is not None:
        curve = curve.masked_fill(infinite, 0)
    return grad_x, per_channel_sum(grad * curve)


def _excess(
    taps: Tensor, y: Tensor, present: Tensor | float, share: Tensor | float, r: Tensor, careful: bool
) -> Tensor:
    """x - y at valid taps, 0 at others; its own derivative is as accurate as its value."""
    if not careful:
        return (taps - y) * present
    y = y.detach()
    excess = _bounded((taps - y) * present, r)
    # A Newton step for mean(exp(r (x - y))) = 1. It leaves the value and brings the derivatives, without 1/r.
    step = (excess * _phi(r * excess) * share).sum(0)
    return _bounded((taps - y - (step - step.detach())) * present, r)


def _bounded(excess: Tensor, r: Tensor) -> Tensor:
    floor = _FLOOR / r
    return torch.where(r > 0, excess.maximum(floor), excess.minimum(floor))


def _phi(v: Tensor) -> Tensor:
    """(exp(v) - 1) / v, 1 at 0."""
    small = v.abs() < 0.5
    large = v.masked_fill(small, 1)
    series = _series(v.masked_fill(~small, 0), [1 / math.factorial(k + 1) for k in range(_terms(v))])
    return torch.where(small, series, large.expm1() / large)


def _phi_slope(v: Tensor) -> Tensor:
    """The derivative of phi: (v exp(v) - exp(v) + 1) / v^2, 1/2 at 0."""
    small = v.abs() < 0.5
    large = v.masked_fill(small, 1)
    series = _series(v.masked_fill(~small, 0), [(k + 1) / math.factorial(k + 2) for k in range(_terms(v))])
    return torch.where(small, series, (large * large.exp() - large.expm1()) / large.square())


def _terms(v: Tensor) -> int:
    return 14 if v.dtype == torch.float64 else 7


def _series(v: Tensor, coefficients: list[float]) -> Tensor:
    total = torch.full_like(v, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = total * v + c
    return total


lse_pool = PoolOp("lse_pool", _forward, _backward, tensors=["r"])
