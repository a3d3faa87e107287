"""Softmax-weighted pooling in NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from poolnb.reference.windows import Array, Windows, over_windows, per_channel, pool, pool_backward

__all__ = [
    "soft_pool",
    "soft_pool_backward",
]


def softmax(logits: Array) -> Array:
    """exp(l_i) / sum exp(l_j), shifted by the largest logit so that nothing overflows."""
    exps = np.exp(logits - logits.max())
    weights: Array = exps / exps.sum()
    return weights


def _soft(taps: Array, beta: float) -> float:
    if np.isnan(taps).any():
        return np.nan
    if np.isposinf(taps).any():
        return np.inf
    taps = taps[~np.isneginf(taps)]  # weight 0
    return float(softmax(beta * taps) @ taps) if len(taps) else -np.inf


def _soft_slopes(taps: Array, beta: float, semi_grad: bool) -> tuple[Array, float]:
    weights = softmax(beta * taps)
    centred = taps - weights @ taps
    slopes = weights if semi_grad else weights * (1 + beta * centred)
    return slopes, float(weights @ centred**2)


@over_windows
def soft_pool(
    x: Array,
    windows: Windows,
    *,
    beta: ArrayLike = 1.0,
    mask: ArrayLike | None = None,
) -> Array:
    """y = sum w_i x_i with w = softmax(beta x); ``beta`` is a float or has one entry per channel."""
    return pool(x, mask, windows, lambda taps, c: _soft(taps, per_channel(beta, c)))


@over_windows
def soft_pool_backward(
    grad: Array,
    x: Array,
    windows: Windows,
    *,
    beta: ArrayLike = 1.0,
    semi_grad: bool = False,
    mask: ArrayLike | None = None,
) -> tuple[Array, Array]:
    """dy/dx_i = w_i (1 + beta (x_i - y)) and dy/dbeta = Var_w(x), for finite input.

    Returns the gradients of ``x`` and, per channel, of ``beta``.
    """
    return pool_backward(grad, x, mask, windows, lambda taps, c: _soft_slopes(taps, per_channel(beta, c), semi_grad))
