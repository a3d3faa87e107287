r"""Temperature-driven Gumbel-softmax pooling: a tap drawn from a softmax whose temperature is learned.

Logits are :math:`l_i = z_i/t` with :math:`t = \max(T, 0) + \epsilon` and :math:`z = x/\lVert x\rVert_2` over the
window's valid taps (0 for a window of zeros), or :math:`z = x` without ``normalize``. With a seed (training),
:math:`q = \mathrm{softmax}((l + g)/\tau)` with Gumbel noise g, and the output is :math:`\sum_i s_i x_i`: s = q or, if
``hard``, one-hot at the largest :math:`l + g` with the gradient of q in its place. Without one (evaluation),
:math:`q = s = \mathrm{softmax}(l)`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from poolnb.geometry import Geometry, scatter
from poolnb.ops import philox
from poolnb.ops.checks import PER_CHANNEL_AND_WINDOW
from poolnb.ops.registration import PoolOp
from poolnb.ops.taps import (
    all_finite,
    half_below_top,
    normalise,
    one_hot,
    open_windows,
    pick,
    to_acc_dtype,
    weighted_mean,
)


class _State(NamedTuple):
    taps: Tensor
    valid: Tensor | None
    z: Tensor
    norm: Tensor | None  # of the window; None without normalize
    t: Tensor
    q: Tensor
    chosen: Tensor | None  # the drawn tap; None unless drawn hard
    safe: bool


def _evaluate(
    windows: Geometry,
    x: Tensor,
    mask: Tensor | None,
    temperature: Tensor,
    seed: philox.Seed | None,
    tau: float,
    hard: bool,
    normalize: bool,
    eps: float,
) -> _State:
    safe = not all_finite(x, temperature)
    taps, valid = open_windows(x, mask, windows)
    t = temperature.relu() + eps
    finite, excluded = _finite(taps, valid, safe)
    z, norm = _unit(finite) if normalize else (finite, None)
    if safe:
        assert excluded is not None
        scores = 2 * (half_below_top(z, 1, excluded) / t)
    else:
        scores = z / t
    if excluded is not None:
        scores = scores.masked_fill(excluded, -torch.inf)
    if seed is not None:  # in differences: next to large scores a sum with the noise would lose it
        top = scores.detach().amax(0)
        scores = (scores - top.masked_fill(top == -torch.inf, 0) + _gumbel(seed, taps)) / tau
    chosen = _largest(scores) if seed is not None and hard else None
    return _State(taps, valid, z, norm, t, normalise(scores), chosen, safe)


def _finite(taps: Tensor, valid: Tensor | None, safe: bool) -> tuple[Tensor, Tensor | None]:
    """The taps with infinities set to 0, and which of them have probability 0 (``None``: no tap).

    These are the invalid ones, those of -inf, and in a window that holds +inf all others.
    """
    if not safe:
        return taps, None if valid is None else ~valid
    pos_inf, neg_inf = taps == torch.inf, taps == -torch.inf
    excluded = neg_inf | (pos_inf.any(0) & (taps < torch.inf))
    return taps.masked_fill(pos_inf | neg_inf, 0), excluded if valid is None else excluded | ~valid


def _unit(taps: Tensor) -> tuple[Tensor, Tensor]:
    """taps / norm and the norm, over the window; a window of zeros stays as it is.

    Dividing by the largest size first keeps squares from over- and underflowing. It cancels and needs no derivative.
    """
    size = taps.detach().abs().amax(0)
    size = size + (size == 0)
    scaled = taps / size
    square = scaled.square().sum(0)
    norm = (square + (square == 0)).sqrt()
    return scaled / norm, size * norm


def _gumbel(seed: philox.Seed, taps: Tensor) -> Tensor:
    each, samples, *window = taps.shape
    count = math.prod(window)
    noise = philox.tap_uniform(
        seed.key, each, samples * count, philox.TDGS, first=seed.sample * count, dtype=taps.dtype, device=taps.device
    )
    return -(-noise.log()).log().view(taps.shape)


def _largest(scores: Tensor) -> Tensor:
    """The first largest score per window; the number of taps where all are -inf or one is NaN."""
    peak, tap = scores.detach().amax(0), scores.detach().argmax(0)
    return tap.masked_fill(~(peak > -torch.inf), len(scores))


def _forward(windows: Geometry, x: Tensor, mask: Tensor | None, temperature: Tensor, *options: Any) -> Tensor:
    s = _evaluate(windows, x, mask, temperature, *options)
    if s.chosen is None:
        return weighted_mean(s.q, s.taps, s.valid, s.safe)
    y = pick(s.taps, s.chosen, s.safe)
    return y.masked_fill(s.t.isnan(), torch.nan) if s.safe else y


def _backward(
    windows: Geometry,
    param_grads: bool,
    grad: Tensor,
    x: Tensor,
    mask: Tensor | None,
    temperature: Tensor,
    seed: philox.Seed | None,
    tau: float,
    *options: Any,
) -> tuple[Tensor, Tensor]:
    s = _evaluate(windows, x, mask, temperature, seed, tau, *options)
    grad, width = to_acc_dtype(grad), s.t if seed is None else s.t * tau
    # In differences from the likeliest tap, exact where all probability is on equal taps.
    apart = s.z - s.z.detach().gather(0, s.q.detach().argmax(0, keepdim=True))
    if s.safe:  # no product of 0 and a difference that overflows
        apart = apart.masked_fill(s.q == 0, 0)
    centred = s.q * (apart - (s.q * apart).sum(0))
    spread = (centred * apart).sum(0)  # the variance of z under q
    turned = centred if s.norm is None else centred - s.z * spread
    direct = s.q if s.chosen is None else one_hot(s.taps, s.chosen)
    grad_x = scatter(grad * (direct + turned / width), windows)
    if not param_grads:
        return grad_x, temperature
    slope = -spread / (width * s.t) if s.norm is None else -s.norm * spread / (width * s.t)
    return grad_x, (grad * torch.where(temperature > 0, slope, 0)).sum(0)


tdgs_pool = PoolOp(
    "tdgs_pool",
    _forward,
    _backward,
    tensors={"temperature": PER_CHANNEL_AND_WINDOW.around(1, 0.2, 2)},
    attributes={"float tau": 1.0, "bool hard": True, "bool normalize": True, "float eps": 0.01},
    sampled=True,
)
