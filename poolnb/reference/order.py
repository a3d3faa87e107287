"""Rank and quantile pooling in NumPy."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from poolnb.reference.windows import Array, Windows, each_window, over_windows, per_channel, pool, pool_backward, values

__all__ = [
    "quantile_pool",
    "quantile_pool_backward",
    "rank_pool",
    "rank_pool_backward",
]


def _descending(taps: Array) -> list[int]:
    """Numbers of the taps, the largest first, ties in tap order."""
    return sorted(range(len(taps)), key=lambda i: -taps[i])


def _weighted(shares: Array, taps: Array) -> float:
    """sum of shares * taps, where a share of 0 is nothing even of an infinity, but not of a NaN."""
    if np.isnan(taps).any():
        return np.nan
    used = shares != 0
    return float(shares[used] @ taps[used])


def _rank_shares(weights: Array) -> Array:
    """w_r / sum w_r; all 0 if the weights are."""
    total = weights.sum()
    return weights / total if total > 0 else weights


@over_windows
def rank_pool(
    x: Array,
    windows: Windows,
    *,
    weight: ArrayLike,
    mask: ArrayLike | None = None,
) -> Array:
    """y = sum w_r x_(r) / sum w_r over the ranks r = 1..n that a window has; ``weight`` is (k,) or (C, k)."""
    weights = np.broadcast_to(np.asarray(weight, np.float64), (x.shape[1], np.shape(weight)[-1]))

    def window(taps: Array, channel: int) -> float:
        return _weighted(_rank_shares(weights[channel, : len(taps)]), taps[_descending(taps)])

    return pool(x, mask, windows, window)


@over_windows
def rank_pool_backward(
    grad: Array,
    x: Array,
    windows: Windows,
    *,
    weight: ArrayLike,
    mask: ArrayLike | None = None,
) -> tuple[Array, Array]:
    """dy/dx_(r) = w_r / W and dy/dw_r = (x_(r) - y) / W with W = sum w_r, for finite input.

    Returns the gradients of ``x`` and of ``weight``.
    """
    grad_x = np.zeros_like(x)
    weights = np.broadcast_to(np.asarray(weight, np.float64), (x.shape[1], np.shape(weight)[-1]))
    grad_weights = np.zeros(weights.shape)
    for out, taps, _ in each_window(x, mask, windows):
        n, channel = len(taps), out[1]
        total = weights[channel, :n].sum()
        if total == 0:
            continue
        window = values(x, taps)
        order = _descending(window)
        shares = weights[channel, :n] / total
        grad_weights[channel, :n] += grad[out] * (window[order] - shares @ window[order]) / total
        for share, tap in zip(shares, order, strict=True):
            grad_x[taps[tap]] += grad[out] * share
    return grad_x, grad_weights if np.ndim(weight) == 2 else grad_weights.sum(0)


def _beside(taps: Array, q: float) -> tuple[int, int, float]:
    """Numbers of the taps beside rank q (n - 1), counted from the smallest one, and how far between them it lies."""
    ascending = _descending(taps)[::-1]
    at = q * (len(taps) - 1)
    below = min(math.floor(at), max(len(taps) - 2, 0))
    return ascending[below], ascending[min(below + 1, len(taps) - 1)], at - below


def _quantile(taps: Array, q: float) -> float:
    if np.isnan(taps).any():
        return np.nan
    lower, upper, f = _beside(taps, q)
    return _weighted(np.array([1 - f, f]), taps[[lower, upper]])


def _quantile_slopes(taps: Array, q: float) -> tuple[Array, float]:
    lower, upper, f = _beside(taps, q)
    slopes = np.zeros(len(taps))
    slopes[lower] += 1 - f
    slopes[upper] += f
    return slopes, (len(taps) - 1) * float(taps[upper] - taps[lower])


@over_windows
def quantile_pool(
    x: Array,
    windows: Windows,
    *,
    q: ArrayLike = 0.5,
    mask: ArrayLike | None = None,
) -> Array:
    """The q-quantile of every window, linear between ranks; ``q`` is a float or has one entry per channel."""
    return pool(x, mask, windows, lambda taps, c: _quantile(taps, per_channel(q, c)))


@over_windows
def quantile_pool_backward(
    grad: Array,
    x: Array,
    windows: Windows,
    *,
    q: ArrayLike = 0.5,
    mask: ArrayLike | None = None,
) -> tuple[Array, Array]:
    """1 - f and f at the two taps beside rank q (n - 1), and dy/dq = (n - 1) times their difference, for finite input.

    Returns the gradients of ``x`` and, per channel, of ``q``.
    """
    return pool_backward(grad, x, mask, windows, lambda taps, c: _quantile_slopes(taps, per_channel(q, c)))
