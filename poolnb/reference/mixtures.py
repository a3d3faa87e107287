"""Mixed, gated, tree and adaptive pooling in NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from poolnb.reference.softmax import _soft, _soft_slopes, softmax
from poolnb.reference.windows import Array, Windows, each_window, over_windows, pool, pool_backward, values

__all__ = [
    "ada_pool",
    "ada_pool_backward",
    "edscw_pool",
    "edscw_pool_backward",
    "gated_pool",
    "gated_pool_backward",
    "mixed_pool",
    "mixed_pool_backward",
    "tree_pool",
    "tree_pool_backward",
]


def sigmoid(t: float) -> float:
    return float(1 / (1 + np.exp(-t)))


def _blend(share: float, first: float, second: float) -> float:
    """share * first + (1 - share) * second; a share of 0 is nothing even of an infinity."""
    return (share * first if share != 0 else 0.0) + ((1 - share) * second if share != 1 else 0.0)


def _blend_slopes(share: float, taps: Array) -> Array:
    slopes: Array = share * np.eye(len(taps))[np.argmax(taps)] + (1 - share) / len(taps)
    return slopes


def _dot(weights: Array, taps: Array) -> float:
    """sum of weights * taps, where a weight of 0 is nothing even of an infinity."""
    used = weights != 0
    return float(np.sum(weights[used] * taps[used]))


def _shares(alpha: ArrayLike, shape: tuple[int, ...]) -> Array:
    """alpha (a number, (C,), or as the output) in the shape of the output."""
    alpha = np.asarray(alpha, np.float64)
    per_channel = alpha.shape == (shape[1],)
    return np.broadcast_to(alpha.reshape(-1, *(1,) * (len(shape) - 2)) if per_channel else alpha, shape)


@over_windows
def mixed_pool(
    x: Array,
    windows: Windows,
    *,
    alpha: ArrayLike = 0.5,
    mask: ArrayLike | None = None,
) -> Array:
    """y = alpha max + (1 - alpha) mean."""
    y = np.zeros((*x.shape[:2], *windows.output))
    shares = _shares(alpha, y.shape)
    with np.errstate(invalid="ignore"):
        for out, taps, _ in each_window(x, mask, windows):
            if taps:
                window = values(x, taps)
                y[out] = _blend(shares[out], window.max(), window.mean())
    return y


@over_windows
def mixed_pool_backward(
    grad: Array,
    x: Array,
    windows: Windows,
    *,
    alpha: ArrayLike = 0.5,
    mask: ArrayLike | None = None,
) -> tuple[Array, Array]:
    """dy/dx_i = alpha [i is the first largest] + (1 - alpha)/n and dy/dalpha = max - mean, for finite input.

    Returns the gradients of ``x`` and, in the shape of the output, of alpha.
    """
    grad_x = np.zeros_like(x)
    shares, grad_alpha = _shares(alpha, grad.shape), np.zeros(grad.shape)
    for out, taps, _ in each_window(x, mask, windows):
        if not taps:
            continue
        window = values(x, taps)
        grad_alpha[out] = grad[out] * (window.max() - window.mean())
        for tap, slope in zip(taps, _blend_slopes(shares[out], window), strict=True):
            grad_x[tap] += grad[out] * slope
    return grad_x, grad_alpha


def _masks(weight: ArrayLike, channels: int) -> Array:
    """(k,) or (C, k) weights as (C, k)."""
    weight = np.asarray(weight, np.float64)
    return np.broadcast_to(weight, (channels, weight.shape[-1]))


def _offsets(bias: ArrayLike | None, channels: int) -> Array:
    return np.broadcast_to(np.asarray(0.0 if bias is None else bias, np.float64), channels)


@over_windows
def gated_pool(
    x: Array,
    windows: Windows,
    *,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> Array:
    """y = s max + (1 - s) mean with s = sigmoid(<weight, window> + bias); ``weight`` is (k,) or (C, k)."""
    y = np.zeros((*x.shape[:2], *windows.output))
    masks, offsets = _masks(weight, x.shape[1]), _offsets(bias, x.shape[1])
    with np.errstate(invalid="ignore", over="ignore"):
        for out, taps, numbers in each_window(x, mask, windows):
            if taps:
                window = values(x, taps)
                gate = _dot(masks[out[1], numbers], window) + offsets[out[1]]
                y[out] = _blend(sigmoid(gate), window.max(), window.mean())
    return y


@over_windows
def gated_pool_backward(
    grad: Array,
    x: Array,
    windows: Windows,
    *,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> tuple[Array, Array, Array]:
    """With d = max - mean and t = d s (1 - s): dy/dw_i = t x_i, dy/db = t, and
    dy/dx_i = s [i is the first largest] + (1 - s)/n + t w_i, for finite input.

    Returns the gradients of ``x``, of ``weight`` and, per channel, of ``bias``.
    """
    grad_x = np.zeros_like(x)
    masks, offsets = _masks(weight, x.shape[1]), _offsets(bias, x.shape[1])
    grad_masks, grad_bias = np.zeros(masks.shape), np.zeros(x.shape[1])
    for out, taps, numbers in each_window(x, mask, windows):
        if not taps:
            continue
        channel, window = out[1], values(x, taps)
        weights = masks[channel, numbers]
        share = sigmoid(weights @ window + offsets[channel])
        through_gate = (window.max() - window.mean()) * share * (1 - share)
        grad_masks[channel, numbers] += grad[out] * through_gate * window
        grad_bias[channel] += grad[out] * through_gate
        for tap, slope in zip(taps, _blend_slopes(share, window) + through_gate * weights, strict=True):
            grad_x[tap] += grad[out] * slope
    return grad_x, grad_masks if np.ndim(weight) == 2 else grad_masks.sum(0), grad_bias


def _node(i: int, window: Array, leaves: Array, gates: Array) -> float:
    """The value of node i: below len(gates) an inner node with children 2i + 1 and 2i + 2, else a leaf."""
    if i >= len(gates):
        return _dot(leaves[i - len(gates)], window)
    left, right = (_node(child, window, leaves, gates) for child in (2 * i + 1, 2 * i + 2))
    return _blend(sigmoid(_dot(gates[i], window)), left, right)


def _tree_slopes(i: int, share: float, window: Array, leaves: Array, gates: Array) -> tuple[Array, Array, Array]:
    """Derivatives of the root by window, leaves and gates that pass through node i; ``share`` is dy/d(node i)."""
    by_leaf, by_gate = np.zeros_like(leaves), np.zeros_like(gates)
    if i >= len(gates):
        by_leaf[i - len(gates)] = share * window
        return share * leaves[i - len(gates)], by_leaf, by_gate
    s = sigmoid(gates[i] @ window)
    children = (2 * i + 1, 2 * i + 2)
    left, right = (_node(child, window, leaves, gates) for child in children)
    through_gate = share * s * (1 - s) * (left - right)
    by_gate[i] = through_gate * window
    by_tap = through_gate * gates[i]
    for child, part in zip(children, (share * s, share * (1 - s)), strict=True):
        below = _tree_slopes(child, part, window, leaves, gates)
        by_tap, by_leaf, by_gate = by_tap + below[0], by_leaf + below[1], by_gate + below[2]
    return by_tap, by_leaf, by_gate


@over_windows
def tree_pool(
    x: Array,
    windows: Windows,
    *,
    leaves: ArrayLike,
    gates: ArrayLike,
    mask: ArrayLike | None = None,
) -> Array:
    """A binary tree of gates s f_left + (1 - s) f_right, s = sigmoid(<gate, x>), over leaves <leaf, x>."""
    filters, openings = np.asarray(leaves, np.float64), np.asarray(gates, np.float64)
    y = np.zeros((*x.shape[:2], *windows.output))
    with np.errstate(invalid="ignore", over="ignore"):
        for out, taps, numbers in each_window(x, mask, windows):
            y[out] = _node(0, values(x, taps), filters[:, numbers], openings[:, numbers])
    return y


@over_windows
def tree_pool_backward(
    grad: Array,
    x: Array,
    windows: Windows,
    *,
    leaves: ArrayLike,
    gates: ArrayLike,
    mask: ArrayLike | None = None,
) -> tuple[Array, Array, Array]:
    """A leaf gets the shares on its way to the root, multiplied; a gate s (1 - s) (f_left - f_right) times its node's.

    For finite input. Returns the gradients of ``x``, ``leaves`` and ``gates``.
    """
    filters, openings = np.asarray(leaves, np.float64), np.asarray(gates, np.float64)
    grad_x = np.zeros_like(x)
    grad_leaves, grad_gates = np.zeros_like(filters), np.zeros_like(openings)
    for out, taps, numbers in each_window(x, mask, windows):
        slopes = _tree_slopes(0, grad[out], values(x, taps), filters[:, numbers], openings[:, numbers])
        grad_leaves[:, numbers] += slopes[1]
        grad_gates[:, numbers] += slopes[2]
        for tap, slope in zip(taps, slopes[0], strict=True):
            grad_x[tap] += slope
    return grad_x, grad_leaves, grad_gates


def _likeness(taps: Array, m: float) -> Array:
    """d_i = 2 |x_i m| / (x_i^2 + m^2), 1 where both are 0. It depends on the ratio of the two alone."""
    largest = np.maximum(np.abs(taps), abs(m))
    largest[largest == 0] = 1
    a, b = taps / largest, m / largest
    d: Array = np.where((taps == 0) & (m == 0), 1.0, 2 * np.abs(a * b) / np.maximum(a**2 + b**2, 1))
    return d


def _near(taps: Array) -> float:
    """The mean, weighted by the softmax of the likeness to the plain one."""
    if np.isnan(taps).any():
        return np.nan
    if np.isposinf(taps).any():
        return np.inf
    taps = taps[~np.isneginf(taps)]  # weight 0
    return float(softmax(_likeness(taps, taps.mean())) @ taps) if len(taps) else -np.inf


def _near_slopes(taps: Array, semi_grad: bool) -> Array:
    """de/dx_j = u_j + u_j (x_j - e) dd_j/dx_j + 1/n sum_i u_i (x_i - e) dd_i/dm, for finite taps.

    dd/dx = 2 sign(x) |m| (m^2 - x^2) / (x^2 + m^2)^2; dd/dm is the same with x and m exchanged; both 0 at 0.
    """
    m = taps.mean()
    weights = softmax(_likeness(taps, m))
    if semi_grad:
        return weights
    centred = taps - weights @ taps
    largest = np.maximum(np.abs(taps), abs(m))
    largest[largest == 0] = 1
    a, b = taps / largest, m / largest
    common = 2 * (b**2 - a**2) / np.maximum(a**2 + b**2, 1) ** 2 / largest
    by_tap, by_mean = np.sign(taps) * np.abs(b) * common, -np.sign(m) * np.abs(a) * common
    slopes: Array = weights * (1 + centred * by_tap) + np.mean(weights * centred * by_mean)
    return slopes


@over_windows
def ada_pool(
    x: Array,
    windows: Windows,
    *,
    beta: ArrayLike = 0.5,
    mask: ArrayLike | None = None,
) -> Array:
    """y = beta e + (1 - beta) s: e weighs taps by the softmax of their likeness to the mean, s by that of the taps."""
    y = np.zeros((*x.shape[:2], *windows.output))
    shares = _shares(beta, y.shape)
    for out, taps, _ in each_window(x, mask, windows):
        if taps:
            window = values(x, taps)
            y[out] = _blend(shares[out], _near(window), _soft(window, 1.0))
    return y


@over_windows
def ada_pool_backward(
    grad: Array,
    x: Array,
    windows: Windows,
    *,
    beta: ArrayLike = 0.5,
    semi_grad: bool = False,
    mask: ArrayLike | None = None,
) -> tuple[Array, Array]:
    """dy/dx = beta de/dx + (1 - beta) ds/dx and dy/dbeta = e - s, for finite input.

    Returns the gradients of ``x`` and, in the shape of the output, of beta.
    """
    grad_x = np.zeros_like(x)
    shares, grad_beta = _shares(beta, grad.shape), np.zeros(grad.shape)
    for out, taps, _ in each_window(x, mask, windows):
        if not taps:
            continue
        window, share = values(x, taps), shares[out]
        grad_beta[out] = grad[out] * (_near(window) - _soft(window, 1.0))
        slopes = share * _near_slopes(window, semi_grad) + (1 - share) * _soft_slopes(window, 1.0, semi_grad)[0]
        for tap, slope in zip(taps, slopes, strict=True):
            grad_x[tap] += grad[out] * slope
    return grad_x, grad_beta


@over_windows
def edscw_pool(
    x: Array,
    windows: Windows,
    *,
    mask: ArrayLike | None = None,
) -> Array:
    """y = sum u_i x_i with u the softmax of the taps' likeness to their mean."""
    return pool(x, mask, windows, lambda taps, _: _near(taps))


@over_windows
def edscw_pool_backward(
    grad: Array,
    x: Array,
    windows: Windows,
    *,
    semi_grad: bool = False,
    mask: ArrayLike | None = None,
) -> Array:
    """As ``ada_pool_backward`` at beta = 1, for finite input. Returns the gradient of ``x``."""
    return pool_backward(grad, x, mask, windows, lambda taps, _: (_near_slopes(taps, semi_grad), 0.0))[0]
