r"""Mixed pooling: :math:`y = \alpha \max_i x_i + (1-\alpha) \frac1n \sum_i x_i`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from poolnb.geometry import Geometry, is_long, scatter
from poolnb.ops.checks import LIKE_OUTPUT
from poolnb.ops.registration import PoolOp
from poolnb.ops.taps import (
    all_finite,
    counts,
    may_be_empty,
    mean_of,
    one_hot,
    open_windows,
    to_acc_dtype,
    without_invalid,
)


class Extremes(NamedTuple):
    """What max and mean have to say about every window."""

    taps: Tensor
    valid: Tensor | None
    largest: Tensor
    mean: Tensor
    size: Tensor | int  # how many valid taps
    safe: bool


def extremes(windows: Geometry, x: Tensor, mask: Tensor | None, *parameters: Tensor) -> Extremes:
    taps, valid = open_windows(x, mask, windows)
    largest = (taps if valid is None else without_invalid(taps, valid)).amax(0)
    if may_be_empty(mask, windows):
        assert valid is not None
        largest = largest.masked_fill(~valid.any(0), 0)
    size, safe = counts(valid, windows, taps.dtype), not all_finite(x, *parameters)
    return Extremes(taps, valid, largest, mean_of(taps, size, safe), size, safe)


def blend(alpha: Tensor, first: Tensor, second: Tensor, safe: bool) -> Tensor:
    """alpha * first + (1 - alpha) * second, where a share of 0 is nothing even of an infinite value."""
    if not safe:
        return alpha * first + (1 - alpha) * second
    return _share(alpha, first) + _share(1 - alpha, second)


def _share(alpha: Tensor, value: Tensor) -> Tensor:
    # A NaN may come from inf - inf in a mean; one among the taps reaches the other share too.
    finite = value.isfinite()
    return alpha * value.masked_fill(~finite, 0) + value.masked_fill(finite | (alpha == 0), 0)


def difference(first: Tensor, second: Tensor, safe: bool) -> Tensor:
    """first - second, 0 where one of them is infinite."""
    if not safe:
        return first - second
    return 2 * half_difference(first, second)


def gate_slope(alpha: Tensor, first: Tensor, second: Tensor, safe: bool) -> Tensor:
    """The derivative of the blend by r, where alpha = sigmoid(r).

    The gate's own slope comes first: it may be 0 where the difference overflows.
    """
    slope = alpha * (1 - alpha)
    return 2 * slope * half_difference(first, second) if safe else slope * (first - second)


def half_difference(first: Tensor, second: Tensor) -> Tensor:
    """(first - second) / 2, which does not overflow; 0 where one of them is infinite."""
    return (first * 0.5 - second * 0.5).masked_fill(first.isinf() | second.isinf(), 0)


def first_largest(e: Extremes) -> Tensor:
    """1 at the first largest valid tap of each window, 0 elsewhere."""
    if is_long(e.taps.size(0)):  # one step each would take too long
        hits = ((e.taps == e.largest) | e.taps.isnan()).detach()
        hits = hits if e.valid is None else hits & e.valid
        return (hits & (one_hot(e.taps, hits.to(torch.uint8).argmax(0)) > 0)).to(e.taps.dtype)
    taken = torch.zeros_like(e.largest)
    first: list[Tensor] = []
    for tap in range(e.taps.size(0)):
        value = e.taps[tap].detach()
        if e.safe:
            hit = ((value == e.largest) | value.isnan()).to(value.dtype)
        else:
            hit = 1 - (e.largest.detach() - value).sign().abs()  # faster than a comparison
        if e.valid is not None:
            hit = hit * e.valid[tap].to(value.dtype)
        first.append(hit * (1 - taken))
        taken = taken + first[-1]
    return torch.stack(first)


def taps_slope(alpha: Tensor, e: Extremes) -> Tensor:
    """alpha at the first largest tap, and (1 - alpha) / n at every valid one."""
    mean_slope = (1 - alpha) / e.size
    if e.valid is not None:
        mean_slope = mean_slope * e.valid.to(e.taps.dtype)
    return alpha * first_largest(e) + mean_slope


def _forward(windows: Geometry, x: Tensor, mask: Tensor | None, alpha: Tensor) -> Tensor:
    e = extremes(windows, x, mask, alpha)
    return blend(to_acc_dtype(alpha), e.largest, e.mean, e.safe)


def _backward(
    windows: Geometry, param_grads: bool, grad: Tensor, x: Tensor, mask: Tensor | None, alpha: Tensor
) -> tuple[Tensor, Tensor]:
    e = extremes(windows, x, mask, alpha)
    grad = to_acc_dtype(grad)
    grad_x = scatter(grad * taps_slope(to_acc_dtype(alpha), e), windows)
    if not param_grads:
        return grad_x, alpha
    return grad_x, (grad * difference(e.largest, e.mean, e.safe)).sum_to_size(alpha.shape)


mixed_pool = PoolOp(
    "mixed_pool", _forward, _backward, tensors={"alpha": LIKE_OUTPUT.around(0.5, 0, 1)}, batched=["alpha"]
)
