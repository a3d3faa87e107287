"""The spread of a window in NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from poolnb.reference.attention import tap_weights, weighted_pool, weighted_pool_backward
from poolnb.reference.windows import Array, Windows, each_window, over_windows, pool, pool_backward, values

__all__ = [
    "stats_pool",
    "stats_pool_backward",
    "std_pool",
    "std_pool_backward",
    "weighted_std_pool",
    "weighted_std_pool_backward",
]


def _std(taps: Array, eps: float) -> float:
    if np.isinf(taps).any() and not np.isnan(taps).any():
        return np.inf
    return float(np.sqrt(np.mean((taps - taps.mean()) ** 2) + eps))


@over_windows
def std_pool(
    x: Array,
    windows: Windows,
    *,
    eps: float = 1e-5,
    mask: ArrayLike | None = None,
) -> Array:
    """y = sqrt(mean (x_i - m)^2 + eps), m the mean."""
    return pool(x, mask, windows, lambda taps, _: _std(taps, eps))


@over_windows
def std_pool_backward(
    grad: Array,
    x: Array,
    windows: Windows,
    *,
    eps: float = 1e-5,
    mask: ArrayLike | None = None,
) -> Array:
    """dy/dx_i = (x_i - m) / (n y), for finite input."""

    def slopes(taps: Array, _: int) -> tuple[Array, float]:
        return (taps - taps.mean()) / (len(taps) * _std(taps, eps)), 0.0

    return pool_backward(grad, x, mask, windows, slopes)[0]


def _weighted_std(taps: Array, logits: Array, eps: float) -> tuple[float, Array, Array]:
    """y, dy/dx and dy/dlogits of one window; without derivatives where y is not finite."""
    none = np.zeros(len(taps))
    if np.isnan(taps).any() or np.isnan(logits).any():
        return np.nan, none, none
    weights = tap_weights(taps, logits)
    some = weights > 0
    if not some.any() or np.isposinf(taps[some]).any():
        return (np.inf if some.any() else 0.0), none, none
    centred = np.where(some, taps, 0) - weights[some] @ taps[some]
    variance = weights @ centred**2
    y = float(np.sqrt(variance + eps))
    return y, weights * centred / y, weights * (centred**2 - variance) / (2 * y)


@over_windows
def weighted_std_pool(
    x: Array,
    windows: Windows,
    *,
    logits: ArrayLike,
    eps: float = 1e-5,
    mask: ArrayLike | None = None,
) -> Array:
    """y = sqrt(sum w_i (x_i - m)^2 + eps), m = sum w_i x_i, w = softmax(logits)."""
    full = np.broadcast_to(np.asarray(logits, np.float64), x.shape)
    y = np.zeros((*x.shape[:2], *windows.output))
    for out, taps, _ in each_window(x, mask, windows):
        if taps:
            y[out] = _weighted_std(values(x, taps), values(full, taps), eps)[0]
    return y


@over_windows
def weighted_std_pool_backward(
    grad: Array,
    x: Array,
    windows: Windows,
    *,
    logits: ArrayLike,
    eps: float = 1e-5,
    mask: ArrayLike | None = None,
) -> tuple[Array, Array]:
    """dy/dx_i = w_i (x_i - m) / y and dy/dlogit_i = w_i ((x_i - m)^2 - v) / (2 y), v = sum w_j (x_j - m)^2.

    Returns the gradients of ``x`` and of ``logits``, in their shapes.
    """
    full = np.broadcast_to(np.asarray(logits, np.float64), x.shape)
    grad_x, grad_logits = np.zeros_like(x), np.zeros_like(x)
    for out, taps, _ in each_window(x, mask, windows):
        if taps:
            _, by_x, by_logit = _weighted_std(values(x, taps), values(full, taps), eps)
            for tap, slope, slope_logit in zip(taps, by_x, by_logit, strict=True):
                grad_x[tap] += grad[out] * slope
                grad_logits[tap] += grad[out] * slope_logit
    shared = np.shape(logits)[-x.ndim + 1] == 1
    return grad_x, grad_logits.sum(1, keepdims=True) if shared else grad_logits


@over_windows
def stats_pool(
    x: Array,
    windows: Windows,
    *,
    logits: ArrayLike | None = None,
    eps: float = 1e-5,
    mask: ArrayLike | None = None,
) -> Array:
    """Mean and standard deviation beside each other; without ``logits`` all weights are equal."""
    logits = np.zeros_like(x[:, :1]) if logits is None else logits
    mean = weighted_pool(x, windows, logits=logits, mask=mask)
    return np.concatenate([mean, weighted_std_pool(x, windows, logits=logits, eps=eps, mask=mask)], 1)


@over_windows
def stats_pool_backward(
    grad: Array,
    x: Array,
    windows: Windows,
    *,
    logits: ArrayLike | None = None,
    eps: float = 1e-5,
    mask: ArrayLike | None = None,
) -> tuple[Array, Array]:
    """The sum of what the two pass back.

    Returns the gradients of ``x`` and of ``logits``, in their shapes.
    """
    logits = np.zeros_like(x[:, :1]) if logits is None else logits
    of_mean, of_std = np.split(grad, 2, 1)
    first = weighted_pool_backward(of_mean, x, windows, logits=logits, mask=mask)
    second = weighted_std_pool_backward(of_std, x, windows, logits=logits, eps=eps, mask=mask)
    return first[0] + second[0], first[1] + second[1]
