"""Max and average pooling in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from poolnb.reference._windows import Array, pool, pool_backward, windows_of


def _one_hot(taps: Array) -> Array:
    return np.eye(len(taps))[np.argmax(taps)]  # argmax: the first of equal ones


def max_pool(
    x: ArrayLike,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    *,
    mask: ArrayLike | None = None,
) -> Array:
    """y = max x_i."""
    x = np.asarray(x, np.float64)
    geometry = windows_of(x, kernel_size, stride, padding, dilation, ceil_mode)
    return pool(x, mask, geometry, lambda taps, _: taps.max())


def max_pool_backward(
    grad: ArrayLike,
    x: ArrayLike,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    *,
    mask: ArrayLike | None = None,
) -> Array:
    """dy/dx_i = 1 for the first largest tap, 0 for the others."""
    x = np.asarray(x, np.float64)
    geometry = windows_of(x, kernel_size, stride, padding, dilation, ceil_mode)
    return pool_backward(grad, x, mask, geometry, lambda taps, _: (_one_hot(taps), 0.0))[0]


def avg_pool(
    x: ArrayLike,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    *,
    mask: ArrayLike | None = None,
) -> Array:
    """y = (1/n) sum x_i over the n valid taps."""
    x = np.asarray(x, np.float64)
    geometry = windows_of(x, kernel_size, stride, padding, dilation, ceil_mode)
    return pool(x, mask, geometry, lambda taps, _: taps.mean())


def avg_pool_backward(
    grad: ArrayLike,
    x: ArrayLike,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    *,
    mask: ArrayLike | None = None,
) -> Array:
    """dy/dx_i = 1/n."""
    x = np.asarray(x, np.float64)
    geometry = windows_of(x, kernel_size, stride, padding, dilation, ceil_mode)
    return pool_backward(grad, x, mask, geometry, lambda taps, _: (np.full(len(taps), 1 / len(taps)), 0.0))[0]
