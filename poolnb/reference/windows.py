"""The loop over windows: an operator only has to say what it does with the valid taps of one window.

Which taps a window has is said once more here, one window after the other, apart from :mod:`poolnb.geometry`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, product, takewhile
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Index = tuple[int, ...]


@dataclass(frozen=True)
class Axis:
    """The windows along one dimension of ``size`` positions; positions may lie outside."""

    size: int
    starts: list[int]  # of every window the first tap
    kernel: int  # the taps of the longest
    lengths: list[int]  # the taps of each
    dilation: int = 1
    stride: int = 1


@dataclass(frozen=True)
class Windows:
    """The windows of one call, an axis for each spatial dimension."""

    axes: tuple[Axis, ...]

    @property
    def kernel(self) -> Index:
        return tuple(axis.kernel for axis in self.axes)

    @property
    def output(self) -> Index:
        return tuple(len(axis.starts) for axis in self.axes)


def windows_of(
    x: Array,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    output_size: Any = None,
) -> Windows:
    size = x.shape[2:]
    dims = len(size)
    if kernel_size is None:
        asked = _each(1 if output_size is None else output_size, dims)
        return Windows(tuple(_adaptive(n, n if o is None else o) for n, o in zip(size, asked, strict=True)))
    sides = [p if np.ndim(p) or p == "same" else (p, p) for p in _each(padding, dims)]
    strides = kernel_size if stride is None or np.size(stride) == 0 else stride
    each = zip(size, _each(kernel_size, dims), _each(strides, dims), sides, _each(dilation, dims), strict=True)
    return Windows(tuple(_axis(n, k, s, p, d, ceil_mode) for n, k, s, p, d in each))


def over_windows(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a pooler of a function of arrays and windows: it takes a geometry in the place of ``windows``.

    The arrays before it, the input and the gradient of the output, come in as float64. Windows that somebody has
    already are taken as they are.
    """
    own = list(inspect.signature(function).parameters.values())
    arrays = [p for p in own if p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "windows"]
    options = [p for p in own if p.kind is p.KEYWORD_ONLY]
    *geometry, output_size = list(inspect.signature(windows_of).parameters.values())[1:]
    output_size = output_size.replace(kind=inspect.Parameter.KEYWORD_ONLY)
    mask = options.pop()
    signature = inspect.Signature([*arrays, *geometry, *options, output_size, mask])

    @functools.wraps(function)
    def pooler(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        before = [np.asarray(given.pop(p.name), np.float64) for p in arrays]
        where = [given.pop(p.name) for p in (*geometry, output_size)]
        windows = where[0] if isinstance(where[0], Windows) else windows_of(before[-1], *where)
        return function(*before, windows, **given)

    pooler.__signature__ = signature  # type: ignore[attr-defined]
    return pooler


def _each(value: Any, dims: int) -> list[Any]:
    """One entry per dimension."""
    entries = list(value) if isinstance(value, list | tuple) else [value]
    return entries * dims if len(entries) == 1 else entries


def _axis(n: int, kernel: int, stride: int, padding: Any, dilation: int, ceil_mode: bool) -> Axis:
    """Windows that start ``stride`` apart, the first one as far before the input as the padding says."""
    extent = dilation * (kernel - 1) + 1
    if padding == "same":  # as many windows as strides begin in the input
        outputs = len(range(0, n, stride))
        missing = max((outputs - 1) * stride + extent - n, 0)
        starts = [o * stride - missing // 2 for o in range(outputs)]
    else:
        before, after = padding
        # Those that end before the padding does; with ceil_mode one more that begins in or before the input.
        further = stride - 1 if ceil_mode else 0
        every = takewhile(lambda start: start + extent <= n + after + further, count(-before, stride))
        starts = [start for start in every if not ceil_mode or start < n]
    return Axis(n, starts, kernel, [kernel] * len(starts), dilation, stride)


def _adaptive(n: int, outputs: int) -> Axis:
    """Window i from floor(i n / o) to the position before ceil((i + 1) n / o)."""
    starts = [int(np.floor_divide(i * n, outputs)) for i in range(outputs)]
    ends = [int(-np.floor_divide(-(i + 1) * n, outputs)) for i in range(outputs)]
    lengths = [end - start for start, end in zip(starts, ends, strict=True)]
    return Axis(n, starts, max(lengths), lengths, stride=max(lengths))


def each_window(x: Array, mask: ArrayLike | None, windows: Windows) -> Iterator[tuple[Index, list[Index], list[int]]]:
    """Yield per window its output index (n, c, *position), the input index of every valid tap, and the taps' numbers.

    Taps are numbered row-major within the longest window, the invalid ones counted: parameters with one entry per tap
    need it.
    """
    allowed = np.broadcast_to(np.ones(1, bool) if mask is None else np.asarray(mask, bool), x.shape)
    axes = windows.axes
    for n, c in np.ndindex(*x.shape[:2]):
        for position in np.ndindex(*windows.output):
            taps, numbers = [], []
            for number, offset in enumerate(product(*map(range, windows.kernel))):
                where = tuple(a.starts[o] + t * a.dilation for a, o, t in zip(axes, position, offset, strict=True))
                own = all(t < a.lengths[o] for a, o, t in zip(axes, position, offset, strict=True))
                inside = all(0 <= i < axis.size for i, axis in zip(where, axes, strict=True))
                if own and inside and allowed[(n, c, *where)]:
                    taps.append((n, c, *where))
                    numbers.append(number)
            yield (n, c, *position), taps, numbers


def values(x: Array, taps: list[Index]) -> Array:
    return np.array([x[t] for t in taps])


def pool(x: ArrayLike, mask: ArrayLike | None, windows: Windows, window: Callable[[Array, int], float]) -> Array:
    """Apply ``window(taps, channel) -> y`` to every window; a window without a valid tap gives 0."""
    x = np.asarray(x, np.float64)
    y = np.zeros((*x.shape[:2], *windows.output))
    with np.errstate(all="ignore"):
        for out, taps, _ in each_window(x, mask, windows):
            if taps:
                y[out] = window(values(x, taps), out[1])
    return y


def pool_backward(
    grad: ArrayLike,
    x: ArrayLike,
    mask: ArrayLike | None,
    windows: Windows,
    window: Callable[[Array, int], tuple[Array, float]],
) -> tuple[Array, Array]:
    """Chain rule for ``window(taps, channel) -> (dy/dtaps, dy/dparameter)``.

    Returns the gradient of the input and, per channel, the gradient of the window's parameter (0 where it has none).
    """
    grad, x = np.asarray(grad, np.float64), np.asarray(x, np.float64)
    grad_x, grad_parameter = np.zeros_like(x), np.zeros(x.shape[1])
    for out, taps, _ in each_window(x, mask, windows):
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
