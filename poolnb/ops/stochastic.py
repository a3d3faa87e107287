r"""Stochastic pooling: one tap drawn with probability :math:`p_i = a_i/\sum a`, :math:`a = \max(x, 0)`.

With a seed (training) the output is the drawn tap; without one (evaluation) it is :math:`\sum_i p_i x_i`. A window
without a positive tap has equal probabilities. +inf among the taps: they share the probability; -inf: probability 0.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from poolnb.geometry import Geometry, scatter
from poolnb.ops import philox
from poolnb.ops.registration import PoolOp
from poolnb.ops.taps import all_finite, one_hot, open_windows, pick, to_acc_dtype, weighted_mean


class _State(NamedTuple):
    taps: Tensor
    valid: Tensor | None
    shares: Tensor  # in proportion to the probabilities; all 0 where no tap counts
    safe: bool


def _open(windows: Geometry, x: Tensor, mask: Tensor | None, draws: bool) -> _State:
    safe = not all_finite(x)
    taps, valid = open_windows(x, mask, windows)
    positive = taps.relu()
    peak = positive.detach().amax(0)
    flat = (peak == 0).to(taps.dtype)
    has_pos_inf = peak == torch.inf if safe else None
    # Dividing by the largest tap keeps the sum from overflowing. It cancels, so it needs no derivative. A draw sums in
    # float64, where narrower types cannot overflow.
    if not draws or taps.dtype == torch.float64:
        unit = peak + flat
        positive = positive / (unit if has_pos_inf is None else unit.masked_fill(has_pos_inf, 1))
    if has_pos_inf is None:
        return _State(taps, valid, positive + (flat if valid is None else flat * valid), safe)
    counted = taps != -torch.inf if valid is None else (taps != -torch.inf) & valid
    shares = torch.where(has_pos_inf, (taps == torch.inf).to(taps.dtype), positive + flat * counted)
    return _State(taps, valid, shares, safe)


def _probabilities(shares: Tensor) -> Tensor:
    total = shares.sum(0)
    return shares / total.masked_fill(total == 0, 1)


def _draw(shares: Tensor, seed: philox.Seed, safe: bool) -> Tensor:
    """The number of the drawn tap per window; the number of taps where none can be drawn.

    Sums are kept in float64: the tap then does not depend on how a device orders the additions.
    """
    where = shares.shape[1:]
    first = seed.sample * where[1:].numel()
    noise = philox.uniform(
        seed.key, where.numel(), philox.STOCHASTIC, first=first, dtype=torch.float32, device=shares.device
    )
    cumulated = shares.detach().cumsum(0, dtype=torch.float64)
    total = cumulated[-1]
    tap = (cumulated <= noise.view(where) * total).sum(0)
    return tap.masked_fill(~(total > 0), len(shares)) if safe else tap


def _forward(windows: Geometry, x: Tensor, mask: Tensor | None, seed: philox.Seed | None) -> Tensor:
    taps, valid, shares, safe = _open(windows, x, mask, seed is not None)
    if seed is None:
        return weighted_mean(_probabilities(shares), taps, valid, safe)
    return pick(taps, _draw(shares, seed, safe), safe)


def _backward(
    windows: Geometry, param_grads: bool, grad: Tensor, x: Tensor, mask: Tensor | None, seed: philox.Seed | None
) -> Tensor:
    taps, _, shares, safe = _open(windows, x, mask, seed is not None)
    if seed is None:
        return scatter(to_acc_dtype(grad) * _slopes(taps, _probabilities(shares), safe), windows)
    return scatter(to_acc_dtype(grad) * one_hot(taps, _draw(shares, seed, safe)), windows)


def _slopes(taps: Tensor, p: Tensor, safe: bool) -> Tensor:
    """dy/dx_i = 2 p_i - sum p^2 at a positive tap and 0 at others; p_i where no tap is positive."""
    positive = taps > 0
    some = positive.any(0)
    slopes = torch.where(some, positive * (2 * p - p.square().sum(0)), p)
    return torch.where((taps == torch.inf).any(0), p, slopes) if safe else slopes


stochastic_pool = PoolOp("stochastic_pool", _forward, _backward, sampled=True)
