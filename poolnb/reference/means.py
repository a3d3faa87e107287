"""Log-sum-exp and generalised-mean pooling in NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from poolnb.reference.softmax import softmax
from poolnb.reference.windows import Array, Windows, over_windows, per_channel, pool, pool_backward

__all__ = [
    "gem_pool",
    "gem_pool_backward",
    "lse_pool",
    "lse_pool_backward",
]


def _lse(taps: Array, r: float) -> float:
    if np.isnan(taps).any() or np.isposinf(taps).any():
        return float(taps.max())
    neg_inf = np.isneginf(taps)
    if neg_inf.all() or (neg_inf.any() and r <= 0):
        return -np.inf
    if r == 0:
        return float(taps.mean())
    favoured = taps.max() if r > 0 else taps.min()
    return float(favoured + np.log1p(np.mean(np.expm1(r * (taps - favoured)))) / r)


def _lse_slopes(taps: Array, r: float) -> tuple[Array, float]:
    weights, y = softmax(r * taps), _lse(taps, r)
    if abs(r) * np.ptp(taps) < 1e-3:  # the quotient below is 0/0 at r = 0: its series, by cumulants of the taps
        centred = taps - taps.mean()
        second, third, fourth = (np.mean(centred**k) for k in (2, 3, 4))
        return weights, float(second / 2 + r * third / 3 + r**2 * (fourth - 3 * second**2) / 8)
    return weights, float((weights @ taps - y) / r)


@over_windows
def lse_pool(
    x: Array,
    windows: Windows,
    *,
    r: ArrayLike = 1.0,
    mask: ArrayLike | None = None,
) -> Array:
    """y = (1/r) log mean exp(r x_i); the mean for r = 0."""
    return pool(x, mask, windows, lambda taps, c: _lse(taps, per_channel(r, c)))


@over_windows
def lse_pool_backward(
    grad: Array,
    x: Array,
    windows: Windows,
    *,
    r: ArrayLike = 1.0,
    mask: ArrayLike | None = None,
) -> tuple[Array, Array]:
    """dy/dx = softmax(r x) and dy/dr = (sum w_i x_i - y)/r, for finite input.

    Returns the gradients of ``x`` and, per channel, of ``r``.
    """
    return pool_backward(grad, x, mask, windows, lambda taps, c: _lse_slopes(taps, per_channel(r, c)))


def _generalised_mean(taps: Array, p: float, eps: float) -> float:
    sizes = np.maximum(taps, eps)
    if np.isnan(sizes).any() or np.isinf(sizes).any():
        return float(sizes.max())
    if p < 0.25:  # the mean of the powers is next to 1
        return float(sizes.max() * np.exp(np.log1p(np.mean(np.expm1(p * np.log(sizes / sizes.max())))) / p))
    return float(sizes.max() * np.mean((sizes / sizes.max()) ** p) ** (1 / p))


def _generalised_mean_slopes(taps: Array, p: float, eps: float) -> tuple[Array, float]:
    sizes, y = np.maximum(taps, eps), _generalised_mean(taps, p, eps)
    slopes = (sizes / y) ** (p - 1) / len(taps) * (taps >= eps)
    v = np.log(sizes / y)
    u = p * v
    if np.abs(u).max() < 1e-3:  # the mean below is that of u e^u - (e^u - 1): its series, by p^2
        return slopes, float(y * np.mean(v**2 * (1 / 2 + u / 3 + u**2 / 8 + u**3 / 30)))
    return slopes, float(y / p * np.mean(np.exp(u) * v))


@over_windows
def gem_pool(
    x: Array,
    windows: Windows,
    *,
    p: ArrayLike = 3.0,
    eps: float = 1e-6,
    mask: ArrayLike | None = None,
) -> Array:
    """y = (mean max(x_i, eps)^p)^(1/p)."""
    return pool(x, mask, windows, lambda taps, c: _generalised_mean(taps, per_channel(p, c), eps))


@over_windows
def gem_pool_backward(
    grad: Array,
    x: Array,
    windows: Windows,
    *,
    p: ArrayLike = 3.0,
    eps: float = 1e-6,
    mask: ArrayLike | None = None,
) -> tuple[Array, Array]:
    """dy/dx_i = (1/n) (x_i/y)^(p-1), 0 below eps, and dy/dp = (y/p) (sum u_i ln x_i - ln y), u_i = x_i^p / sum x_j^p.

    Here u_i is written as (x_i/y)^p / n, which is the same. For finite input. Returns the gradients of ``x`` and, per
    channel, of ``p``.
    """
    return pool_backward(grad, x, mask, windows, lambda taps, c: _generalised_mean_slopes(taps, per_channel(p, c), eps))
