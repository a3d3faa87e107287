"""Pooling that filters before it subsamples, in NumPy."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import comb
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from poolnb.geometry import Geometry
from poolnb.reference.windows import Array, Index, each_window, values, windows_of

__all__ = [
    "blur_pool",
    "blur_pool_backward",
    "maxblur_pool",
    "maxblur_pool_backward",
]


def _coefficients(kernel: tuple[int, ...]) -> list[int]:
    """b of every tap, row-major: whole numbers, so that none is too large or too small."""
    b = [1]
    for k in kernel:
        b = [before * comb(k - 1, j) for before in b for j in range(k)]
    return b


def _shares(coefficients: list[int], numbers: list[int]) -> Array:
    """b_i / sum b of the taps with these numbers."""
    total = sum(coefficients[i] for i in numbers)
    return np.array([float(Fraction(coefficients[i], total)) for i in numbers])


def _mean(shares: Array, taps: Array) -> float:
    infinite = np.isinf(taps)  # counts, however small its share
    return float(shares @ np.where(infinite, 0, taps) + (taps[infinite].sum() if infinite.any() else 0))


def blur_pool(
    x: ArrayLike,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    *,
    mask: ArrayLike | None = None,
) -> Array:
    """y = sum b_i x_i / sum b_i, b the product over the axes of C(k - 1, j)."""
    x = np.asarray(x, np.float64)
    return _blur(x, mask, windows_of(x, kernel_size, stride, padding, dilation, ceil_mode))


def _blur(x: Array, mask: ArrayLike | None, geometry: Geometry) -> Array:
    y, b = np.zeros((*x.shape[:2], *geometry.output)), _coefficients(geometry.kernel)
    with np.errstate(all="ignore"):
        for out, taps, numbers in each_window(x, mask, geometry):
            if taps:
                y[out] = _mean(_shares(b, numbers), values(x, taps))
    return y


def blur_pool_backward(
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
    """dy/dx_i = b_i / sum b."""
    x = np.asarray(x, np.float64)
    geometry = windows_of(x, kernel_size, stride, padding, dilation, ceil_mode)
    return _blur_backward(np.asarray(grad, np.float64), x, mask, geometry)


def _blur_backward(grad: Array, x: Array, mask: ArrayLike | None, geometry: Geometry) -> Array:
    grad_x, b = np.zeros_like(x), _coefficients(geometry.kernel)
    for out, taps, numbers in each_window(x, mask, geometry):
        for tap, share in zip(taps, _shares(b, numbers) if taps else (), strict=True):
            grad_x[tap] += grad[out] * share
    return grad_x


def _map_of(geometry: Geometry, blur_size: int) -> tuple[Geometry, Geometry]:
    """The stride-1 windows of the map, one per start, and the windows that blur it."""
    sizes = zip(geometry.output, geometry.stride, geometry.size, geometry.padding, strict=True)
    starts = tuple(min(o * s, n + p) for o, s, n, p in sizes)
    every, before = (1,) * geometry.dims, ((blur_size - 1) // 2,) * geometry.dims
    maxima = replace(geometry, stride=every, output=starts)
    return maxima, Geometry(starts, (blur_size,) * geometry.dims, geometry.stride, before, every, geometry.output)


def _maxima(x: Array, mask: ArrayLike | None, geometry: Geometry) -> tuple[Array, dict[Index, Index]]:
    """The map, 0 where no tap is valid, and the place of the first largest tap of every other entry."""
    values_, chosen = np.zeros((*x.shape[:2], *geometry.output)), {}
    for out, taps, _ in each_window(x, mask, geometry):
        if taps:
            chosen[out] = taps[int(np.argmax(values(x, taps)))]
            values_[out] = x[chosen[out]]
    return values_, chosen


def _mask_of(entries: dict[Index, Index], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    some = np.zeros(shape, bool)
    for out in entries:
        some[out] = True
    return some


def maxblur_pool(
    x: ArrayLike,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    *,
    blur_size: int = 3,
    mask: ArrayLike | None = None,
) -> Array:
    """The maximum at every start of a window, then at the stride the mean of blur_size entries, weighted as in blur."""
    x = np.asarray(x, np.float64)
    geometry = windows_of(x, kernel_size, stride, padding, dilation, ceil_mode)
    first, second = _map_of(geometry, blur_size)
    maxima, chosen = _maxima(x, mask, first)
    return _blur(maxima, _mask_of(chosen, maxima.shape), second)


def maxblur_pool_backward(
    grad: ArrayLike,
    x: ArrayLike,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    *,
    blur_size: int = 3,
    mask: ArrayLike | None = None,
) -> Array:
    """The gradient of the blur, given to the first largest tap of every entry of the map."""
    x = np.asarray(x, np.float64)
    geometry = windows_of(x, kernel_size, stride, padding, dilation, ceil_mode)
    first, second = _map_of(geometry, blur_size)
    maxima, chosen = _maxima(x, mask, first)
    spread = _blur_backward(np.asarray(grad, np.float64), maxima, _mask_of(chosen, maxima.shape), second)
    grad_x = np.zeros_like(x)
    for out, tap in chosen.items():
        grad_x[tap] += spread[out]
    return grad_x
