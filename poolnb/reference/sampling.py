"""Stochastic pooling, S3Pool and TDGS in NumPy, with their noise."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import comb
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from poolnb.reference.softmax import softmax
from poolnb.reference.windows import Array, Axis, Index, Windows, each_window, over_windows, values

__all__ = [
    "s3_pool",
    "s3_pool_backward",
    "stochastic_pool",
    "stochastic_pool_backward",
    "tdgs_pool",
    "tdgs_pool_backward",
]

# ---- noise -----------------------------------------------------------------------------------------------------------


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox4x32-10 (Salmon et al. 2011): four 32-bit words from a counter of four and a key of two."""
    c, (k0, k1) = counter, key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = ((p1 >> 32) ^ c[1] ^ k0, p1 & 0xFFFFFFFF, (p0 >> 32) ^ c[3] ^ k1, p0 & 0xFFFFFFFF)
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c


def uniform(seed: int, block: int, draw: int, stream: int, word: int) -> float:
    """A number in (0, 1) from one output word of one counter: the middle of one of 2^23 equal parts."""
    key = (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF)
    bits = philox((block & 0xFFFFFFFF, block >> 32, draw, stream), key)[word]
    return ((bits >> 9) + 0.5) / 2**23


def _position(out: Index, x: Array, geometry: Windows) -> int:
    return int(np.ravel_multi_index(out, (*x.shape[:2], *geometry.output)))


def _check_seed(seed: int | None) -> int:
    if seed is None:
        raise ValueError("seed must be an int when training is True, got None")
    return int(seed)


# ---- stochastic pooling ----------------------------------------------------------------------------------------------


def _probabilities(taps: Array) -> Array:
    """a / sum a; equal ones where no tap is positive. -inf: 0; +inf: they share it. NaN if one is NaN."""
    if np.isposinf(taps).any():
        shares = np.where(np.isnan(taps), np.nan, np.isposinf(taps).astype(float))
    else:
        shares = np.maximum(taps, 0)
    if np.isnan(shares).any():
        return np.full(len(taps), np.nan)
    if not shares.any():
        shares = (~np.isneginf(taps)).astype(float)
    shares = shares / max(shares.max(), 1e-320)
    probabilities: Array = shares / shares.sum() if shares.any() else shares
    return probabilities


def _draw_tap(p: Array, u: float) -> int | None:
    """The first tap at which the probabilities sum to more than u; ``None`` if there is no probability."""
    if not p.sum() > 0:
        return None
    return int(np.argmax(np.cumsum(p) > u * p.sum()))


def _mean_under(p: Array, taps: Array) -> float:
    if np.isnan(taps).any():
        return np.nan
    counted = p > 0
    return float(p[counted] @ taps[counted]) if counted.any() else -np.inf


@over_windows
def stochastic_pool(
    x: Array,
    windows: Windows,
    *,
    training: bool = False,
    seed: int | None = None,
    mask: ArrayLike | None = None,
) -> Array:
    """Training: y = x_l with l drawn from p_i = a_i / sum a, a = max(x, 0). Evaluation: y = sum p_i x_i."""
    y = np.zeros((*x.shape[:2], *windows.output))
    for out, where, _ in each_window(x, mask, windows):
        if not where:
            continue
        taps = values(x, where)
        p = _probabilities(taps)
        tap = _stochastic_tap(p, out, x, windows, seed) if training else None
        y[out] = _mean_under(p, taps) if tap is None else taps[tap]
    return y


@over_windows
def stochastic_pool_backward(
    grad: Array,
    x: Array,
    windows: Windows,
    *,
    training: bool = False,
    seed: int | None = None,
    mask: ArrayLike | None = None,
) -> Array:
    """Training: 1 for the drawn tap. Evaluation: with S = sum a, y = sum a^2 / S, so for a positive tap

    dy/dx_i = 2 a_i / S - sum a^2 / S^2 = 2 p_i - sum p^2,

    and 0 for the others; p_i = 1/n where no tap is positive. For finite input.
    """
    grad_x = np.zeros_like(x)
    for out, where, _ in each_window(x, mask, windows):
        if not where:
            continue
        taps = values(x, where)
        p = _probabilities(taps)
        slopes = np.where(taps > 0, 2 * p - p @ p, 0) if (taps > 0).any() else p
        if training:
            slopes = np.eye(len(taps))[_stochastic_tap(p, out, x, windows, seed)]
        for tap, slope in zip(where, slopes, strict=True):
            grad_x[tap] += grad[out] * slope
    return grad_x


def _stochastic_tap(p: Array, out: Index, x: Array, geometry: Windows, seed: int | None) -> int | None:
    position = _position(out, x, geometry)
    return _draw_tap(p, uniform(_check_seed(seed), position // 4, 0, 1, position % 4))


# ---- S3Pool ----------------------------------------------------------------------------------------------------------


def _at_every_start(axis: Axis, starts: int) -> Axis:
    first = axis.starts[0]
    return replace(axis, starts=list(range(first, first + starts)), lengths=[axis.kernel] * starts, stride=1)


class _S3:
    """The stride-1 max map of one call and, per dimension, how much each of its entries counts for each output."""

    def __init__(self, x: Array, geometry: Windows, grid_size: Any, mask: ArrayLike | None) -> None:
        self.x, self.geometry = x, geometry
        axes = geometry.axes
        # One after the other from the first window's start on, none beyond the last input position.
        self.starts = tuple(min(len(a.starts) * a.stride, a.size - a.starts[0]) for a in axes)
        grid = tuple(2 * a.stride for a in axes) if grid_size is None else grid_size
        self.grid = (grid,) * len(axes) if isinstance(grid, int) else tuple(grid)
        dense = Windows(tuple(_at_every_start(*each) for each in zip(axes, self.starts, strict=True)))
        self.where: dict[Index, Index | None] = {}  # entry of the map -> its largest tap; None: no valid tap
        for entry, taps, _ in each_window(x, mask, dense):
            self.where[entry] = taps[int(np.argmax(values(x, taps)))] if taps else None

    def weights(self, training: bool, seed: int | None, eval_mode: str) -> list[Array]:
        """Per dimension a matrix (outputs, starts)."""
        return [self._weights(dim, training, seed, eval_mode) for dim in range(len(self.geometry.axes))]

    def _weights(self, dim: int, training: bool, seed: int | None, eval_mode: str) -> Array:
        outputs, stride, starts = self.geometry.output[dim], self.geometry.axes[dim].stride, self.starts[dim]
        grid = self.grid[dim]
        matrix = np.zeros((outputs, starts))
        if not training and eval_mode == "average":
            for o in range(outputs):
                matrix[o, o * stride : (o + 1) * stride] = 1
            return matrix
        for first in range(0, outputs, grid // stride):
            kept = range(first, min(first + grid // stride, outputs))
            strip = range(first * stride, min(first * stride + grid, starts))
            n, m = len(strip), len(kept)
            if training:
                noise = [uniform(_check_seed(seed), r // 4, dim, 3, r % 4) for r in strip]
                chosen = sorted(np.argsort(noise, kind="stable")[:m])
                matrix[list(kept), [strip[r] for r in chosen]] = 1
            else:  # the i-th of m out of n, all subsets equally likely, is r with this chance
                for i, r in product(range(m), range(n)):
                    matrix[kept[i], strip[r]] = comb(r, i) * comb(n - 1 - r, m - 1 - i) / comb(n, m)
        return matrix

    def terms(self, weights: list[Array], renormalise: bool) -> Any:
        """Yield per output its index and a list of (weight, tap or None) over the entries of the map that count."""
        n, c = self.x.shape[:2]
        for out in np.ndindex(n, c, *self.geometry.output):
            columns = [np.flatnonzero(w[o]) for w, o in zip(weights, out[2:], strict=True)]
            terms = []
            for entry in product(*columns):
                weight = float(np.prod([w[o, e] for w, o, e in zip(weights, out[2:], entry, strict=True)]))
                terms.append((weight, self.where[(*out[:2], *map(int, entry))]))
            if renormalise:
                terms = [(weight, tap) for weight, tap in terms if tap is not None]
                terms = [(1 / len(terms), tap) for _, tap in terms]
            yield out, terms


@over_windows
def s3_pool(
    x: Array,
    windows: Windows,
    *,
    grid_size: Any = None,
    eval_mode: str = "average",
    training: bool = False,
    seed: int | None = None,
    mask: ArrayLike | None = None,
) -> Array:
    """Training: rows and columns drawn from the stride-1 max map. Evaluation: its mean per stride cell, or the mean
    of the training output over all draws."""
    s3 = _S3(x, windows, grid_size, mask)
    y = np.zeros((*x.shape[:2], *windows.output))
    average = not training and eval_mode == "average"
    for out, terms in s3.terms(s3.weights(training, seed, eval_mode), average):
        maxima = [x[tap] if tap is not None else 0.0 for _, tap in terms]
        y[out] = sum(weight * m for (weight, _), m in zip(terms, maxima, strict=True))
    return y


@over_windows
def s3_pool_backward(
    grad: Array,
    x: Array,
    windows: Windows,
    *,
    grid_size: Any = None,
    eval_mode: str = "average",
    training: bool = False,
    seed: int | None = None,
    mask: ArrayLike | None = None,
) -> Array:
    """The weight of each entry of the max map goes to that entry's first largest tap."""
    s3 = _S3(x, windows, grid_size, mask)
    grad_x = np.zeros_like(x)
    average = not training and eval_mode == "average"
    for out, terms in s3.terms(s3.weights(training, seed, eval_mode), average):
        for weight, tap in terms:
            if tap is not None:
                grad_x[tap] += grad[out] * weight
    return grad_x


# ---- TDGS ------------------------------------------------------------------------------------------------------------


def _unit(taps: Array, normalize: bool) -> tuple[Array, float]:
    """z and the norm that it was divided by: x / |x| and |x|, or x and 1."""
    if not normalize or not taps.any():
        return taps, 1.0
    size = np.abs(taps).max()  # squares of very large or small taps leave float64's range
    norm = size * np.sqrt(np.sum((taps / size) ** 2))
    return taps / norm, norm


def _gumbel(seed: int | None, position: int, numbers: list[int]) -> Array:
    """-log(-log u) per tap; ``numbers`` are the taps' numbers in the window, the invalid ones counted."""
    u = [uniform(_check_seed(seed), position, tap // 4, 2, tap % 4) for tap in numbers]
    return -np.log(-np.log(u))


def _at(temperature: ArrayLike, out: Index) -> float:
    """The entry for one window of a float, 0-d, (C,) or (C, *output) parameter."""
    t = np.asarray(temperature, np.float64)
    return float(t if t.ndim == 0 else t[out[1]] if t.ndim == 1 else t[out[1:]])


@over_windows
def tdgs_pool(
    x: Array,
    windows: Windows,
    *,
    temperature: ArrayLike,
    tau: float = 1.0,
    hard: bool = True,
    normalize: bool = True,
    eps: float = 0.01,
    training: bool = False,
    seed: int | None = None,
    mask: ArrayLike | None = None,
) -> Array:
    """l = z / (max(T, 0) + eps). Training: y = sum s_i x_i, s = softmax((l + g) / tau), made one-hot when hard.

    Evaluation: y = sum w_i x_i, w = softmax(l).
    """
    y = np.zeros((*x.shape[:2], *windows.output))
    for out, where, numbers in each_window(x, mask, windows):
        if not where:
            continue
        taps = values(x, where)
        if np.isnan(taps).any() or not (taps > -np.inf).any():
            y[out] = taps.sum()  # NaN, or -inf
        elif (taps == np.inf).any():
            y[out] = np.inf
        else:
            kept = taps > -np.inf  # -inf: probability 0
            z, _ = _unit(taps[kept], normalize)
            scores = z / (max(_at(temperature, out), 0) + eps)
            if training:
                noise = _gumbel(seed, _position(out, x, windows), [n for n, k in zip(numbers, kept, strict=True) if k])
                scores = (scores - scores.max() + noise) / tau  # next to large scores noise would be lost
            weights = np.eye(len(scores))[scores.argmax()] if training and hard else softmax(scores)
            y[out] = weights @ taps[kept]
    return y


@over_windows
def tdgs_pool_backward(
    grad: Array,
    x: Array,
    windows: Windows,
    *,
    temperature: ArrayLike,
    tau: float = 1.0,
    hard: bool = True,
    normalize: bool = True,
    eps: float = 0.01,
    training: bool = False,
    seed: int | None = None,
    mask: ArrayLike | None = None,
) -> tuple[Array, Array]:
    """For finite input. With t = max(T, 0) + eps, q the softmax (of l, or of (l + g) / tau) and s the weights,

    dq_i/dl_j = q_i (delta_ij - q_j) / tau  and  dz_i/dx_j = (delta_ij - z_i z_j) / |x|,

    so that with c_i = q_i (x_i - sum q x), the derivative of sum q x by tau l_i,

    dy/dx_j = s_j + (c_j - z_j sum c z) / (tau t |x|)  and  dy/dT = -[T > 0] sum c z / (tau t^2).

    Without ``normalize``, z = x and dy/dx_j = s_j + c_j / (tau t). When hard, s is one-hot; the rest stays as it is.

    Returns the gradient of ``x`` and that of the temperature per window, (N, C, *output), to be summed to its shape.
    """
    grad_x, grad_t = np.zeros_like(x), np.zeros((*x.shape[:2], *windows.output))
    for out, where, numbers in each_window(x, mask, windows):
        if not where:
            continue
        taps, raw = values(x, where), _at(temperature, out)
        t, sharpness = max(raw, 0) + eps, tau if training else 1.0
        z, norm = _unit(taps, normalize)
        scores = z / t
        if training:
            scores = (scores - scores.max() + _gumbel(seed, _position(out, x, windows), numbers)) / tau
        q = softmax(scores)
        s = np.eye(len(q))[scores.argmax()] if training and hard else q
        c = q * (taps - q @ taps)
        turned = (c - z * (c @ z)) / norm if normalize else c
        slopes = s + turned / (sharpness * t)
        grad_t[out] = -grad[out] * (c @ z) / (sharpness * t**2) * (raw > 0)
        for tap, slope in zip(where, slopes, strict=True):
            grad_x[tap] += grad[out] * slope
    return grad_x, grad_t
