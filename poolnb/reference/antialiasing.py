"""Pooling that filters before it subsamples, in NumPy."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray

from poolnb.reference.windows import Array, Axis, Index, Windows, each_window, over_windows, values

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


@over_windows
def blur_pool(
    x: Array,
    windows: Windows,
    *,
    mask: ArrayLike | None = None,
) -> Array:
    """y = sum b_i x_i / sum b_i, b the product over the axes of C(k - 1, j)."""
    return _blur(x, mask, windows)


def _blur(x: Array, mask: ArrayLike | None, windows: Windows) -> Array:
    y, b = np.zeros((*x.shape[:2], *windows.output)), _coefficients(windows.kernel)
    with np.errstate(all="ignore"):
        for out, taps, numbers in each_window(x, mask, windows):
            if taps:
                y[out] = _mean(_shares(b, numbers), values(x, taps))
    return y


@over_windows
def blur_pool_backward(
    grad: Array,
    x: Array,
    windows: Windows,
    *,
    mask: ArrayLike | None = None,
) -> Array:
    """dy/dx_i = b_i / sum b."""
    return _blur_backward(grad, x, mask, windows)


def _blur_backward(grad: Array, x: Array, mask: ArrayLike | None, windows: Windows) -> Array:
    grad_x, b = np.zeros_like(x), _coefficients(windows.kernel)
    for out, taps, numbers in each_window(x, mask, windows):
        for tap, share in zip(taps, _shares(b, numbers) if taps else (), strict=True):
            grad_x[tap] += grad[out] * share
    return grad_x


def _map_of(windows: Windows, blur_size: int) -> tuple[Windows, Windows]:
    """The stride-1 windows of the map, one per start, and the windows that blur it."""
    maxima, blurs = zip(*(_axes_of(axis, blur_size) for axis in windows.axes), strict=True)
    return Windows(maxima), Windows(blurs)


def _axes_of(axis: Axis, blur_size: int) -> tuple[Axis, Axis]:
    first, outputs = axis.starts[0], len(axis.starts)
    stride = axis.starts[1] - first if outputs > 1 else axis.stride
    entries = min(outputs * stride, axis.size - first)  # none starts beyond the last position
    every = [first + i for i in range(entries)]
    maxima = Axis(axis.size, every, axis.kernel, [axis.kernel] * entries, axis.dilation)
    starts = [o * stride - (blur_size - 1) // 2 for o in range(outputs)]
    return maxima, Axis(entries, starts, blur_size, [blur_size] * outputs, stride=stride)


def _maxima(x: Array, mask: ArrayLike | None, windows: Windows) -> tuple[Array, dict[Index, Index]]:
    """The map, 0 where no tap is valid, and the place of the first largest tap of every other entry."""
    values_, chosen = np.zeros((*x.shape[:2], *windows.output)), {}
    for out, taps, _ in each_window(x, mask, windows):
        if taps:
            chosen[out] = taps[int(np.argmax(values(x, taps)))]
            values_[out] = x[chosen[out]]
    return values_, chosen


def _mask_of(entries: dict[Index, Index], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    some = np.zeros(shape, bool)
    for out in entries:
        some[out] = True
    return some


@over_windows
def maxblur_pool(
    x: Array,
    windows: Windows,
    *,
    blur_size: int = 3,
    mask: ArrayLike | None = None,
) -> Array:
    """The maximum at every start of a window, then at the stride the mean of blur_size entries, weighted as in blur."""
    first, second = _map_of(windows, blur_size)
    maxima, chosen = _maxima(x, mask, first)
    return _blur(maxima, _mask_of(chosen, maxima.shape), second)


@over_windows
def maxblur_pool_backward(
    grad: Array,
    x: Array,
    windows: Windows,
    *,
    blur_size: int = 3,
    mask: ArrayLike | None = None,
) -> Array:
    """The gradient of the blur, given to the first largest tap of every entry of the map."""
    first, second = _map_of(windows, blur_size)
    maxima, chosen = _maxima(x, mask, first)
    spread = _blur_backward(grad, maxima, _mask_of(chosen, maxima.shape), second)
    grad_x = np.zeros_like(x)
    for out, tap in chosen.items():
        grad_x[tap] += spread[out]
    return grad_x
