"""The loop over windows: an operator only has to say what it does with the valid taps of one window."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from poolnb.geometry import Geometry, resolve

Array = NDArray[np.float64]
Index = tuple[int, ...]


def windows_of(x: Array, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> Geometry:
    return resolve(x.shape[2:], kernel_size, stride, padding, dilation, ceil_mode)


def each_window(x: Array, mask: ArrayLike | None, geometry: Geometry) -> Iterator[tuple[Index, list[Index], list[int]]]:
    """Yield per window its output index (n, c, *position), the input index of every valid tap, and the taps' numbers.

    Taps are numbered row-major within the window, the invalid ones counted: parameters with one entry per tap need it.
    """
    allowed = np.broadcast_to(np.ones(1, bool) if mask is None else np.asarray(mask, bool), x.shape)
    for n, c in np.ndindex(*x.shape[:2]):
        for position in np.ndindex(*geometry.output):
            taps, numbers = [], []
            for number, offset in enumerate(product(*map(range, geometry.kernel))):
                where = tuple(
                    o * s - p + t * d
                    for o, s, p, t, d in zip(
                        position, geometry.stride, geometry.padding, offset, geometry.dilation, strict=True
                    )
                )
                inside = all(0 <= i < size for i, size in zip(where, geometry.size, strict=True))
                if inside and allowed[(n, c, *where)]:
                    taps.append((n, c, *where))
                    numbers.append(number)
            yield (n, c, *position), taps, numbers


def values(x: Array, taps: list[Index]) -> Array:
    return np.array([x[t] for t in taps])


def pool(x: ArrayLike, mask: ArrayLike | None, geometry: Geometry, window: Callable[[Array, int], float]) -> Array:
    """Apply ``window(taps, channel) -> y`` to every window; a window without a valid tap gives 0."""
    x = np.asarray(x, np.float64)
    y = np.zeros((*x.shape[:2], *geometry.output))
    with np.errstate(all="ignore"):
        for out, taps, _ in each_window(x, mask, geometry):
            if taps:
                y[out] = window(values(x, taps), out[1])
    return y


def pool_backward(
    grad: ArrayLike,
    x: ArrayLike,
    mask: ArrayLike | None,
    geometry: Geometry,
    window: Callable[[Array, int], tuple[Array, float]],
) -> tuple[Array, Array]:
    """Chain rule for ``window(taps, channel) -> (dy/dtaps, dy/dparameter)``.

    Returns the gradient of the input and, per channel, the gradient of the window's parameter (0 where it has none).
    """
    grad, x = np.asarray(grad, np.float64), np.asarray(x, np.float64)
    grad_x, grad_parameter = np.zeros_like(x), np.zeros(x.shape[1])
    for out, taps, _ in each_window(x, mask, geometry):
        if not taps:
            continue
        slopes, parameter_slope = window(values(x, taps), out[1])
        grad_parameter[out[1]] += grad[out] * parameter_slope
        for tap, slope in zip(taps, slopes, strict=True):
            grad_x[tap] += grad[out] * slope
    return grad_x, grad_parameter


def per_channel(parameter: ArrayLike, channel: int) -> float:
    """The entry of a float, 0-d or (C,) parameter for one channel."""
    return float(np.ravel(parameter)[channel if np.size(parameter) > 1 else 0])
