r"""Power means over windows, shared by Lp and GeM: :math:`(\sum_i c_i a_i^p)^{1/p}` for sizes :math:`a_i \ge 0`.

Sizes are divided by the window's largest before they are raised to a power, so that nothing over- or underflows. With
:math:`r_i = a_i / a_{max}`, :math:`S = \sum c_i r_i^p` and :math:`\rho = S^{1/p}` the result is
:math:`y = a_{max} \rho`, and :math:`\partial y/\partial a_i = c_i (r_i/\rho)^{p-1}`,
:math:`\partial y/\partial p = (y/p) (\sum_i u_i \ln r_i - \ln\rho)` with :math:`u_i = c_i r_i^p / S`.

GeM, whose :math:`c_i` have sum 1, comes to the geometric mean as p goes to 0, and these to differences of numbers next
to each other. There :math:`\ln S` is taken from :math:`S - 1 = \sum c_i (r_i^p - 1)`, and
:math:`\partial y/\partial p = y \sum c_i v_i^2 g(p v_i)` with :math:`v_i = \ln(r_i/\rho)`,
:math:`g(u) = (u e^u - e^u + 1)/u^2`, a sum in which nothing is subtracted.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from poolnb.ops.taps import visible

_NEAR_ZERO = 0.25
_LEAST = 2.0**-100  # nearer to 0 nothing changes, but that products underflow


class PowerMean(NamedTuple):
    p: Tensor
    ratio: Tensor  # size over the window's largest size; 1 for a tap without a share
    powers: Tensor  # c * ratio ** p
    total: Tensor
    root: Tensor
    unit: Tensor  # the largest finite size
    output: Tensor
    logs: Logs | None  # on the safe path


class Logs(NamedTuple):
    """What the safe path is made of, where a power of a quotient would lose digits."""

    ratio: Tensor
    root: Tensor
    no_share: Tensor  # taps of size 0, and those beside an infinite one
    weights: Tensor | None  # c, of a mean; None: Lp


def power(x: Tensor, p: Tensor) -> Tensor:
    """``x ** p`` for x >= 0: by torch where p is one small number, else as exp(p ln x), which is faster."""
    simple = _simple(p)
    return x**simple if simple is not None else (p * x.log()).exp()


def _simple(p: Tensor) -> float | None:
    """The one exponent that torch knows how to take without a logarithm, if that is what ``p`` holds."""
    if not visible(p):
        return None
    low, high = map(float, torch.aminmax(p))
    return low if low == high and low in (0, 0.5, 1, 2, 3) else None


def _times(p: Tensor, log: Tensor) -> Tensor:
    """p * log, 0 at a log of 0 though p be infinite."""
    return (p * log).masked_fill((log == 0) & p.isinf(), 0)


def power_mean(size: Tensor, coefficient: Tensor | float, p: Tensor, safe: bool) -> PowerMean:
    """Of sizes of at least 0. A tensor of coefficients, with sum 1, makes a mean of it."""
    if safe:
        return _safe_power_mean(size, coefficient, p)
    unit = size.detach().amax(0)
    unit = unit + (unit == 0)
    ratio = size / unit
    powers = power(ratio, p) * coefficient
    total = powers.sum(0)
    output = unit * power(total, 1 / p)
    # The largest tap alone gives 1, or 1/n: a smaller total is 0, and only has to divide without harm.
    total = total.clamp(min=0.5 / len(size))
    return PowerMean(p, ratio, powers, total, power(total, 1 / p), unit, output, None)


def _safe_power_mean(size: Tensor, coefficient: Tensor | float, p: Tensor) -> PowerMean:
    weights = coefficient if isinstance(coefficient, Tensor) else None
    if weights is not None:
        p = torch.where(p >= 0, p.clamp(min=_LEAST), p)
    pos_inf = size == torch.inf
    has_pos_inf = pos_inf.any(0)
    finite = size.masked_fill(pos_inf, 0)
    unit = finite.detach().amax(0)
    unit = unit + (unit == 0)
    no_share = torch.where(has_pos_inf, ~pos_inf, size == 0)
    # A base of 0 has no derivative that could be used: it is left out of the power and put back as the 0 it gives.
    known = torch.where(no_share | has_pos_inf, unit, finite)
    ratio, log_ratio = known / unit, _log_ratio(known, unit)
    simple = _simple(p)
    powers = ratio**simple if simple is not None else _times(p, log_ratio).exp()
    powers = powers.masked_fill(no_share, 0) * coefficient
    total = powers.sum(0)
    empty = total == 0
    total = total.masked_fill(empty, 1)
    log_root = total.log() / p
    if weights is not None and _may_be_near_zero(p):
        below = ((p * log_ratio).expm1().masked_fill(no_share, -1) * weights).sum(0)
        near = (p < _NEAR_ZERO) & (total >= 0.5)
        log_root = torch.where(near, below.clamp(min=-0.75).log1p() / p, log_root)
    root = log_root.exp()
    infinite = torch.zeros_like(root).masked_fill(has_pos_inf, torch.inf)
    output = (unit * root).masked_fill(empty, 0) + infinite
    return PowerMean(p, ratio, powers, total, root, unit, output, Logs(log_ratio, log_root, no_share, weights))


def _log_ratio(size: Tensor, unit: Tensor) -> Tensor:
    """ln(size / unit), by the two logs where the ratio is no normal number."""
    tiny, ratio = torch.finfo(size.dtype).tiny, size / unit
    apart = size.clamp(min=tiny).log() - unit.clamp(min=tiny).log()
    return torch.where(ratio < tiny, apart, ratio.clamp(min=tiny).log())


def _may_be_near_zero(p: Tensor) -> bool:
    return bool(p.amin() < _NEAR_ZERO) if visible(p) else True


def size_slope(mean: PowerMean) -> Tensor:
    """(r / rho) ** (p - 1): the derivative by the size of a tap, up to its coefficient; 0 for a tap of size 0."""
    if mean.logs is None:
        return power(mean.ratio / mean.root, mean.p - 1)
    slope = _times(mean.p - 1, mean.logs.ratio - mean.logs.root).exp()
    return slope.masked_fill(mean.logs.no_share, 0)


def exponent_slope(mean: PowerMean) -> Tensor:
    """dy/dp; 0 where y is infinite."""
    p, output, logs = mean.p, mean.output, mean.logs
    if logs is None:
        tiny = torch.finfo(mean.ratio.dtype).tiny
        entropy = (mean.powers * mean.ratio.clamp(min=tiny).log()).sum(0) / mean.total - mean.total.log() / p
        return output * (entropy / p)  # output / p may overflow
    slope = ((mean.powers * logs.ratio).sum(0) / mean.total - logs.root) / p
    if logs.weights is not None and _may_be_near_zero(p):
        slope = torch.where(p < _NEAR_ZERO, _slope_near_zero(p, logs, logs.weights), slope)
    output = output.masked_fill(output.isinf(), 0)
    return (output * slope).masked_fill(output == 0, 0)


def _slope_near_zero(p: Tensor, logs: Logs, weights: Tensor) -> Tensor:
    away = logs.ratio - logs.root
    bent = torch.where(logs.no_share, p**-2, away.square() * _bend(p * away))
    return (bent * weights).sum(0)


def _bend(u: Tensor) -> Tensor:
    """(u e^u - e^u + 1) / u^2, by its series sum u^k / (k! (k + 2)) where the difference would lose digits."""
    far = u.abs() > 0.5
    near, away = u.masked_fill(far, 0), u.masked_fill(~far, 1)
    terms = 14 if u.dtype == torch.float64 else 8
    series = torch.full_like(u, 1 / (terms + 2))
    for k in range(terms, 0, -1):
        series = 1 / (k + 1) + near * series / k
    return torch.where(far, (away * away.exp() - away.exp() + 1) / away.square(), series)


def needs_safe_path(p: Tensor) -> bool:
    """Whether (r / rho) ** (p - 1) is not 0 at r = 0, where the slope has to be, or p takes a quotient's digits."""
    if not visible(p):
        return True
    low, high = torch.aminmax(p)
    return bool(low <= 1) or bool(high > 32)
