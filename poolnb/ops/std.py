r"""Standard deviation: :math:`y = \sqrt{\frac1n \sum_i (x_i - m)^2 + \epsilon}`, m the mean of the window.

Differences are taken from a tap of the window, the largest, so that equal taps differ by 0 exactly; they are divided by
the largest of them, or by :math:`\sqrt\epsilon` where that is more, so that no square over- or underflows.
:math:`\partial y/\partial x_i = (x_i - m)/(n y)`. A window that holds an infinity gives +inf; its derivatives are the
limits, those of a window with 1 (or -1) at the infinite taps and 0 at the others.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from poolnb.geometry import Geometry, scatter
from poolnb.ops.registration import PoolOp
from poolnb.ops.taps import all_finite, counts, may_be_empty, open_windows, spoilt, to_acc_dtype, without_invalid

_SMALLER = 0.25  # on the safe path taps are, so that no difference of two overflows


class _State(NamedTuple):
    centred: Tensor  # (x_i - m) / unit; 0 at taps that are not valid
    spread: Tensor  # y / unit
    size: Tensor | int  # how many valid taps
    output: Tensor
    safe: bool


def _evaluate(windows: Geometry, x: Tensor, mask: Tensor | None, eps: float) -> _State:
    safe = not all_finite(x)
    taps, valid = open_windows(x, mask, windows)
    size = counts(valid, windows, taps.dtype)
    tiny = torch.finfo(taps.dtype).tiny
    root = taps.new_full((), max(math.sqrt(eps), tiny))
    infinite = None
    if safe:
        taps, root, infinite = _bounded(taps, root, tiny)
    below = taps - _largest(taps, valid)
    if valid is not None:
        below = below * valid.to(taps.dtype)
    unit = torch.maximum(-below.detach().amin(0), root)
    ratio = below / unit
    centred = ratio - ratio.sum(0) / size
    if valid is not None:
        centred = centred * valid.to(taps.dtype)
    spread = (centred.square().sum(0) / size + (root / unit).square()).sqrt()
    y = unit * spread
    if infinite is not None:
        y = torch.where(infinite & ~y.isnan(), torch.inf, y / _SMALLER)
    if may_be_empty(mask, windows):
        assert valid is not None
        y = y * valid.any(0).to(y.dtype)
    return _State(centred, spread, size, y, safe)


def _bounded(taps: Tensor, root: Tensor, tiny: float) -> tuple[Tensor, Tensor, Tensor]:
    """Taps and root made smaller, in a window with infinities those at 1 and -1; and which windows these are."""
    endless = taps.isinf()
    infinite = endless.any(0)
    signs = torch.where(endless, taps.sign(), taps.masked_fill(endless, 0) * 0)  # NaN stays
    return torch.where(infinite, signs, taps * _SMALLER), torch.where(infinite, tiny, root * _SMALLER), infinite


def _largest(taps: Tensor, valid: Tensor | None) -> Tensor:
    """The largest valid tap, which is finite, of every window."""
    taps = taps.detach()
    if valid is None:
        return taps.amax(0)
    return without_invalid(taps, valid).amax(0).clamp(min=torch.finfo(taps.dtype).min * _SMALLER)


def _forward(windows: Geometry, x: Tensor, mask: Tensor | None, eps: float) -> Tensor:
    return _evaluate(windows, x, mask, eps).output


def _backward(windows: Geometry, param_grads: bool, grad: Tensor, x: Tensor, mask: Tensor | None, eps: float) -> Tensor:
    centred, spread, size, y, safe = _evaluate(windows, x, mask, eps)
    return scatter(to_acc_dtype(grad) * spoilt(centred / (size * spread), y, safe), windows)


std_pool = PoolOp("std_pool", _forward, _backward, attributes={"float eps": 1e-5})
