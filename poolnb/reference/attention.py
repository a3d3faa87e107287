"""Weighted pooling in NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from poolnb.reference.softmax import softmax
from poolnb.reference.windows import Array, Windows, each_window, over_windows, values

__all__ = [
    "weighted_pool",
    "weighted_pool_backward",
]


def tap_weights(taps: Array, logits: Array) -> Array:
    """softmax(logits); taps and logits of -inf have none, and infinite taps or logits share all."""
    counted = ~np.isneginf(taps) & ~np.isneginf(logits)
    for pos_inf in (counted & np.isposinf(taps), counted & np.isposinf(logits)):
        if pos_inf.any():
            shared: Array = pos_inf / pos_inf.sum()
            return shared
    weights = np.zeros(len(taps))
    if counted.any():
        weights[counted] = softmax(logits[counted])
    return weights


def _weighted(taps: Array, logits: Array) -> float:
    if np.isnan(taps).any() or np.isnan(logits).any():
        return np.nan
    weights = tap_weights(taps, logits)
    if not weights.any():
        return -np.inf if np.isneginf(taps).any() else 0.0
    return float(weights[weights > 0] @ taps[weights > 0])


@over_windows
def weighted_pool(
    x: Array,
    windows: Windows,
    *,
    logits: ArrayLike,
    mask: ArrayLike | None = None,
) -> Array:
    """y = sum w_i x_i with w = softmax(logits); ``logits`` broadcast to the shape of ``x``."""
    full = np.broadcast_to(np.asarray(logits, np.float64), x.shape)
    y = np.zeros((*x.shape[:2], *windows.output))
    for out, taps, _ in each_window(x, mask, windows):
        if taps:
            y[out] = _weighted(values(x, taps), values(full, taps))
    return y


@over_windows
def weighted_pool_backward(
    grad: Array,
    x: Array,
    windows: Windows,
    *,
    logits: ArrayLike,
    mask: ArrayLike | None = None,
) -> tuple[Array, Array]:
    """dy/dx_i = w_i and dy/dlogit_i = w_i (x_i - y), for finite input.

    Returns the gradients of ``x`` and of ``logits``, in their shapes.
    """
    full = np.broadcast_to(np.asarray(logits, np.float64), x.shape)
    grad_x, grad_logits = np.zeros_like(x), np.zeros_like(x)
    for out, taps, _ in each_window(x, mask, windows):
        if not taps:
            continue
        window = values(x, taps)
        weights = tap_weights(window, values(full, taps))
        for tap, slope, weight in zip(taps, weights * (window - weights @ window), weights, strict=True):
            grad_x[tap] += grad[out] * weight
            grad_logits[tap] += grad[out] * slope
    shared = np.shape(logits)[-x.ndim + 1] == 1
    return grad_x, grad_logits.sum(1, keepdims=True) if shared else grad_logits
