"""The spread of a window in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from poolnb.reference.windows import Array, pool, pool_backward, windows_of

__all__ = [
    "std_pool",
    "std_pool_backward",
]


def _std(taps: Array, eps: float) -> float:
    if np.isinf(taps).any() and not np.isnan(taps).any():
        return np.inf
    return float(np.sqrt(np.mean((taps - taps.mean()) ** 2) + eps))


def std_pool(
    x: ArrayLike,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    *,
    eps: float = 1e-5,
    mask: ArrayLike | None = None,
) -> Array:
    """y = sqrt(mean (x_i - m)^2 + eps), m the mean."""
    x = np.asarray(x, np.float64)
    geometry = windows_of(x, kernel_size, stride, padding, dilation, ceil_mode)
    return pool(x, mask, geometry, lambda taps, _: _std(taps, eps))


def std_pool_backward(
    grad: ArrayLike,
    x: ArrayLike,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    *,
    eps: float = 1e-5,
    mask: ArrayLike | None = None,
) -> Array:
    """dy/dx_i = (x_i - m) / (n y), for finite input."""
    x = np.asarray(x, np.float64)
    geometry = windows_of(x, kernel_size, stride, padding, dilation, ceil_mode)

    def slopes(taps: Array, _: int) -> tuple[Array, float]:
        return (taps - taps.mean()) / (len(taps) * _std(taps, eps)), 0.0

    return pool_backward(grad, x, mask, geometry, slopes)[0]
