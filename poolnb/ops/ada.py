r"""Adaptive pooling: :math:`y = \sum_i (\beta u_i + (1-\beta) w_i)\,x_i`, :math:`u = \mathrm{softmax}(d)`,
:math:`w = \mathrm{softmax}(x)`, where :math:`d_i = 2|x_i m| / (x_i^2 + m^2)` compares a tap with the mean m.

With c = x - y of either part, D the derivatives of d and n the number of taps: dy/dx_j is beta times
:math:`u_j + u_j c_j \partial d_j/\partial x_j + \frac1n \sum_i u_i c_i \partial d_i/\partial m`, and (1 - beta) times
:math:`w_j (1 + c_j)`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from poolnb.geometry import Geometry, is_long, scatter
from poolnb.ops.checks import LIKE_OUTPUT
from poolnb.ops.mixed import blend, difference
from poolnb.ops.registration import PoolOp
from poolnb.ops.taps import (
    all_finite,
    deviation,
    finite,
    mean_of,
    open_windows,
    softmax_of,
    spoilt,
    to_acc_dtype,
    weighted_mean,
)


class Near(NamedTuple):
    """Weights by how near a tap is to the mean, and what their derivatives are made of."""

    weights: Tensor
    output: Tensor
    by_tap: Tensor  # of d by its own tap, times the larger size of tap and mean
    by_mean: Tensor  # of d by the mean, likewise
    larger: Tensor
    counted: Tensor | None  # which taps the mean counts; None: all
    size: Tensor | int  # how many those are


def near(taps: Tensor, valid: Tensor | None, safe: bool) -> Near:
    """A tap of -inf takes no part in the mean."""
    counted = valid
    if safe:
        counted = taps != -torch.inf if valid is None else valid & (taps != -torch.inf)
    size = taps.size(0) if counted is None else counted.sum(0).clamp(min=1).to(taps.dtype)
    known = finite(taps, safe)
    # The ratio of a tap to a mean near 0 shows every digit that a long sum would lose.
    mean = mean_of(known, size, safe, wide=is_long(taps.size(0)))
    likeness, by_tap, by_mean, larger = _likeness(known, mean)
    weights = softmax_of(likeness, taps, valid, safe)
    return Near(weights, weighted_mean(weights, taps, valid, safe), by_tap, by_mean, larger, counted, size)


def _likeness(x: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """d = 2 r / (1 + r^2), r the smaller of abs(x) and abs(m) by the larger one; its derivatives by x and m, times
    the larger one a; and a.

    With t = (1 - r^2) / (1 + r^2)^2, the derivative by the smaller size is 2 t / a, by the larger one -2 r t / a. At
    x = 0, and at m = 0, the size has a kink: 0 by symmetry.
    """
    size_x, size_m = x.abs(), m.abs().expand_as(x)
    below = size_x <= size_m  # by choice and not by minimum and maximum, which share a derivative where both are equal
    larger = torch.where(below, size_m, size_x)
    nothing = larger == 0
    larger = larger.masked_fill(nothing, 1)
    r = (torch.where(below, size_x, size_m) / larger).masked_fill(nothing, 1)
    one_over = 1 / (1 + r * r)
    smaller_slope = 2 * (1 - r * r) * one_over * one_over
    larger_slope = -r * smaller_slope
    by_x, by_m = torch.where(below, smaller_slope, larger_slope), torch.where(below, larger_slope, smaller_slope)
    return 2 * r * one_over, by_x * x.sign(), by_m * m.sign(), larger


def near_slope(n: Near, taps: Tensor, semi_grad: bool, safe: bool) -> Tensor:
    """The derivative of the mean under these weights by every tap."""
    if semi_grad:
        return n.weights
    weighted = n.weights * _relative(taps, n, safe)
    through_mean = (weighted * n.by_mean).sum(0) / n.size
    if n.counted is not None:
        through_mean = through_mean * n.counted.to(taps.dtype)
    return n.weights + weighted * n.by_tap + through_mean


def _relative(taps: Tensor, n: Near, safe: bool) -> Tensor:
    """(x - y) over the larger of tap and mean."""
    centred, unit = deviation(taps, n.output, n.weights, safe)
    return unit * (centred / n.larger)


class _State(NamedTuple):
    taps: Tensor
    near: Near
    high: Tensor  # weights softmax(x)
    soft: Tensor  # the mean under them
    output: Tensor
    safe: bool


def _evaluate(windows: Geometry, x: Tensor, mask: Tensor | None, beta: Tensor) -> _State:
    safe = not all_finite(x)
    taps, valid = open_windows(x, mask, windows)
    by_mean, high = near(taps, valid, safe), softmax_of(finite(taps, safe), taps, valid, safe)
    soft = weighted_mean(high, taps, valid, safe)
    y = blend(beta, by_mean.output, soft, safe)
    return _State(taps, by_mean, high, soft, y, safe)


def _forward(windows: Geometry, x: Tensor, mask: Tensor | None, beta: Tensor, semi_grad: bool) -> Tensor:
    return _evaluate(windows, x, mask, to_acc_dtype(beta)).output


def _backward(
    windows: Geometry,
    param_grads: bool,
    grad: Tensor,
    x: Tensor,
    mask: Tensor | None,
    beta: Tensor,
    semi_grad: bool,
) -> tuple[Tensor, Tensor]:
    share = to_acc_dtype(beta)
    taps, by_mean, high, soft, y, safe = _evaluate(windows, x, mask, share)
    grad = to_acc_dtype(grad)
    centred, unit = deviation(taps, soft, high, safe)
    soft_slope = high if semi_grad else high * (1 + unit * centred)
    slope = share * near_slope(by_mean, taps, semi_grad, safe) + (1 - share) * soft_slope
    grad_x = scatter(grad * spoilt(slope, y, safe), windows)
    if not param_grads:
        return grad_x, beta
    return grad_x, (grad * spoilt(difference(by_mean.output, soft, safe), y, safe)).sum_to_size(beta.shape)


ada_pool = PoolOp(
    "ada_pool",
    _forward,
    _backward,
    tensors={"beta": LIKE_OUTPUT.around(0.5, 0, 1)},
    attributes={"bool semi_grad": False},
    batched=["beta"],
)
