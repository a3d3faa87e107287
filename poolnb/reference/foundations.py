"""Max, average and Lp pooling in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from poolnb.reference.windows import Array, Windows, each_window, over_windows, per_channel, pool, pool_backward, values

__all__ = [
    "avg_pool",
    "avg_pool_backward",
    "lp_pool",
    "lp_pool_backward",
    "max_pool",
    "max_pool_backward",
]


def _one_hot(taps: Array) -> Array:
    row: Array = np.eye(len(taps))[np.argmax(taps)]  # argmax: the first of equal ones
    return row


@over_windows
def max_pool(
    x: Array,
    windows: Windows,
    *,
    return_indices: bool = False,
    mask: ArrayLike | None = None,
) -> Any:
    """y = max x_i; with ``return_indices`` also the row-major number of its position in its sample and channel.

    That of a window without a valid tap is the first that is no other window's there, or 0.
    """
    y = pool(x, mask, windows, lambda taps, _: taps.max())
    return (y, _indices(x, mask, windows)) if return_indices else y


def _indices(x: Array, mask: ArrayLike | None, windows: Windows) -> NDArray[np.int64]:
    chosen = {}
    for out, taps, _ in each_window(x, mask, windows):
        largest = taps[int(np.argmax(values(x, taps)))][2:] if taps else None
        chosen[out] = None if largest is None else int(np.ravel_multi_index(largest, x.shape[2:]))
    indices = np.zeros((*x.shape[:2], *windows.output), np.int64)
    for out, number in chosen.items():
        others = {other for place, other in chosen.items() if place[:2] == out[:2]}
        free = (i for i in range(x[out[:2]].size) if i not in others)
        indices[out] = next(free, 0) if number is None else number
    return indices


@over_windows
def max_pool_backward(
    grad: Array,
    x: Array,
    windows: Windows,
    *,
    mask: ArrayLike | None = None,
) -> Array:
    """dy/dx_i = 1 for the first largest tap, 0 for the others."""
    return pool_backward(grad, x, mask, windows, lambda taps, _: (_one_hot(taps), 0.0))[0]


@over_windows
def avg_pool(
    x: Array,
    windows: Windows,
    *,
    mask: ArrayLike | None = None,
) -> Array:
    """y = (1/n) sum x_i over the n valid taps."""
    return pool(x, mask, windows, lambda taps, _: taps.mean())


@over_windows
def avg_pool_backward(
    grad: Array,
    x: Array,
    windows: Windows,
    *,
    mask: ArrayLike | None = None,
) -> Array:
    """dy/dx_i = 1/n."""
    return pool_backward(grad, x, mask, windows, lambda taps, _: (np.full(len(taps), 1 / len(taps)), 0.0))[0]


def _norm(taps: Array, p: float) -> float:
    sizes = np.abs(taps)
    if np.isnan(sizes).any() or np.isinf(sizes).any() or np.isinf(p) or not sizes.any():
        return float(sizes.max())
    return float(sizes.max() * np.sum((sizes / sizes.max()) ** p) ** (1 / p))


def _norm_slopes(taps: Array, p: float) -> tuple[Array, float]:
    sizes, y = np.abs(taps), _norm(taps, p)
    if y == 0:
        return np.zeros(len(taps)), 0.0
    if np.isinf(p):
        return np.sign(taps) * _one_hot(sizes), 0.0
    some = sizes > 0
    slopes, logs = np.zeros(len(taps)), np.zeros(len(taps))
    slopes[some] = np.sign(taps[some]) * (sizes[some] / y) ** (p - 1)
    logs[some] = np.log(sizes[some] / y)
    return slopes, float(y / p * np.sum((sizes / y) ** p * logs))


@over_windows
def lp_pool(
    x: Array,
    windows: Windows,
    *,
    norm_type: ArrayLike = 2.0,
    mask: ArrayLike | None = None,
) -> Array:
    """y = (sum |x_i|^p)^(1/p); max |x_i| for p = inf."""
    return pool(x, mask, windows, lambda taps, c: _norm(taps, per_channel(norm_type, c)))


@over_windows
def lp_pool_backward(
    grad: Array,
    x: Array,
    windows: Windows,
    *,
    norm_type: ArrayLike = 2.0,
    mask: ArrayLike | None = None,
) -> tuple[Array, Array]:
    """dy/dx_i = sign(x_i) (|x_i|/y)^(p-1) and dy/dp = (y/p) sum u_i ln(|x_i|/y), u_i = (|x_i|/y)^p, for finite input.

    Returns the gradients of ``x`` and, per channel, of ``norm_type``.
    """
    return pool_backward(grad, x, mask, windows, lambda taps, c: _norm_slopes(taps, per_channel(norm_type, c)))
