r"""The log of a mean of exponentials, over windows: :math:`L(r) = \frac1r \ln \sum_i c_i e^{r d_i}`, the c with sum 1.

Log-sum-exp pooling is L of its taps; the generalised mean with p near 0 is exp(L) of their logs, with r = p. Every
formula here is written in differences, so that it holds at r = 0, where L is the mean. With :math:`v_i = r (d_i - L)`:
:math:`\partial L/\partial r = \frac1r \sum_i w_i (d_i - L)`, which is :math:`\sum_i c_i (d_i - L)^2 \varphi'(v_i)` with
:math:`\varphi(v) = (e^v - 1)/v`. Where every v is small the quotient loses its digits, and the series of
:math:`\varphi'` takes its place.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# exp(-_LIMIT) is 0 in every dtype.
_LIMIT = 1e4
# A quotient that is 1 at 0 is 1 to every digit here too. (Nearer to 0 would do as well, but expm1 is slow there.)
_LEAST = 1e-18


def log_mean(d: Tensor, share: Tensor | float, r: Tensor) -> Tensor:
    """L for r d of at most 0, by quotients that are 1 at 0: nothing is divided by r."""
    rise = (d * _expm1_quotient(r * d) * share).sum(0)
    return rise * _log1p_quotient(r * rise)


def _expm1_quotient(v: Tensor) -> Tensor:
    """(exp(v) - 1) / v for v <= 0, 1 at 0."""
    if torch.onnx.is_in_onnx_export():  # ONNX has no expm1
        return phi(v)
    v = v.clamp(max=-_LEAST)
    return v.expm1() / v


def _log1p_quotient(v: Tensor) -> Tensor:
    """ln(1 + v) / v for v <= 0, 1 at 0."""
    if torch.onnx.is_in_onnx_export():  # nor log1p: the rounding of 1 + v cancels where it is subtracted again
        rounded = 1 + v
        return torch.where(rounded == 1, 1, rounded.log() / torch.where(rounded == 1, 1, rounded - 1))
    v = v.clamp(max=-_LEAST)
    return v.log1p() / v


def differentiable(d: Tensor, mean: Tensor, share: Tensor | float, r: Tensor) -> Tensor:
    """L, with derivatives that are as accurate as its value, the ``mean`` given.

    Newton steps for sum c exp(r (d - L)) = 1 leave the value, and bring the derivatives without dividing by r: each
    step one order of them. With two the third derivative of L is right.
    """
    mean = mean.detach()
    for _ in range(2):
        excess = bounded(d - mean, r)
        step = (excess * phi(r * excess) * share).sum(0)
        mean = mean + (step - step.detach())
    return mean


def bounded(excess: Tensor, r: Tensor) -> Tensor:
    """No further from L than where the weight is 0 anyway, so that nothing becomes infinite."""
    limit = _LIMIT / r.detach().abs()
    return excess.clamp(-limit, limit)


def phi(v: Tensor) -> Tensor:
    """(exp(v) - 1) / v, 1 at 0."""
    small = v.abs() < 0.5
    large = v.masked_fill(small, 1)
    series = _series(v.masked_fill(~small, 0), [1 / math.factorial(k + 1) for k in range(16)])
    return torch.where(small, series, large.expm1() / large)


def curve(excess: Tensor, v: Tensor, weights: Tensor, share: Tensor | float, r: Tensor) -> Tensor:
    """dL/dr from excess = d - L, v = r excess and the weights, in each window by the formula that is accurate there."""
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
