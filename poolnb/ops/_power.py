r"""Power means over windows, shared by Lp and GeM: :math:`(\sum_i c_i a_i^p)^{1/p}` for sizes :math:`a_i \ge 0`.

Sizes are divided by the window's largest before they are raised to a power, so that nothing over- or underflows. With
:math:`r_i = a_i / a_{max}`, :math:`S = \sum c_i r_i^p` and :math:`\rho = S^{1/p}` the result is
:math:`y = a_{max} \rho`, and :math:`\partial y/\partial a_i = c_i (r_i/\rho)^{p-1}`,
:math:`\partial y/\partial p = (y/p) (\sum_i u_i \ln r_i - \ln\rho)` with :math:`u_i = c_i r_i^p / S`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from poolnb.ops.taps import visible


class PowerMean(NamedTuple):
    ratio: Tensor  # size over the window's largest size; where that is infinite: 1 for infinite taps, 0 for others
    powers: Tensor  # c * ratio ** p
    total: Tensor
    root: Tensor
    unit: Tensor  # the largest finite size
    output: Tensor
    safe: bool


def power(x: Tensor, p: Tensor) -> Tensor:
    """``x ** p`` for x >= 0: by torch where p is one small number, else as exp(p ln x), which is faster."""
    if visible(p):
        low, high = map(float, torch.aminmax(p))
        if low == high and low in (0, 0.5, 1, 2, 3):
            return x**low
        if high < torch.inf:
            return (p * x.log()).exp()
    return (p * x.log()).masked_fill((x == 1) & p.isinf(), 0).exp()  # 1 ** inf


def power_mean(size: Tensor, coefficient: Tensor | float, p: Tensor, safe: bool) -> PowerMean:
    pos_inf = size == torch.inf if safe else None
    if pos_inf is not None:
        size = size.masked_fill(pos_inf, 0)
    unit = size.detach().amax(0)
    unit = unit + (unit == 0)
    ratio = size / unit
    if pos_inf is None:
        powers = power(ratio, p) * coefficient
        total = powers.sum(0)
        output = unit * power(total, 1 / p)
        # The largest tap alone gives 1, or 1/n: a smaller total is 0, and only has to divide without harm.
        total = total.clamp(min=0.5 / len(size))
        return PowerMean(ratio, powers, total, power(total, 1 / p), unit, output, safe)
    has_pos_inf = pos_inf.any(0)
    ratio = torch.where(has_pos_inf, pos_inf.to(size.dtype), ratio)
    # A base of 0 has no derivative that could be used: it is left out of the power and put back as the 0 it gives.
    nothing = ratio == 0
    powers = power(ratio.masked_fill(nothing, 1), p).masked_fill(nothing, 0) * coefficient
    total = powers.sum(0)
    empty = total == 0
    total = total.masked_fill(empty, 1)
    root = power(total, 1 / p)
    infinite = torch.zeros_like(root).masked_fill(has_pos_inf, torch.inf)
    output = (unit * root).masked_fill(empty, 0) + infinite
    return PowerMean(ratio, powers, total, root, unit, output, safe)


def size_slope(mean: PowerMean, p: Tensor) -> Tensor:
    """(r / rho) ** (p - 1): the derivative by the size of a tap, up to its coefficient; 0 for a tap of size 0."""
    ratio = mean.ratio / mean.root
    if not mean.safe:
        return power(ratio, p - 1)
    nothing = ratio == 0
    return power(ratio.masked_fill(nothing, 1), p - 1).masked_fill(nothing, 0)


def exponent_slope(mean: PowerMean, p: Tensor) -> Tensor:
    """dy/dp; 0 where y is infinite."""
    tiny = torch.finfo(mean.ratio.dtype).tiny
    entropy = (mean.powers * mean.ratio.clamp(min=tiny).log()).sum(0) / mean.total - mean.total.log() / p
    output = mean.output
    if mean.safe:
        output = output.masked_fill(output.isinf(), 0)
    return output * (entropy / p)  # output / p may overflow


def needs_safe_path(p: Tensor) -> bool:
    """Whether (r / rho) ** (p - 1) is not 0 at r = 0, where the slope has to be."""
    return bool(p.amin() <= 1) if visible(p) else True
