r"""Power means over windows, shared by Lp and GeM: :math:`(\sum_i c_i a_i^p)^{1/p}` for sizes :math:`a_i \ge 0`.

Sizes are divided by the window's largest before they are raised to a power, so that nothing over- or underflows. With
:math:`r_i = a_i / a_{max}`, :math:`S = \sum c_i r_i^p` and :math:`\rho = S^{1/p}` the result is
:math:`y = a_{max} \rho`, and :math:`\partial y/\partial a_i = c_i (r_i/\rho)^{p-1}`,
:math:`\partial y/\partial p = (y/p) (\sum_i u_i \ln r_i - \ln\rho)` with :math:`u_i = c_i r_i^p / S`.

GeM, whose :math:`c_i` have sum 1, comes to the geometric mean as p goes to 0, and these to differences of numbers next
to each other. There it is exp(L) of the logs of the sizes: see :mod:`poolnb.ops._log_mean`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from poolnb.ops._log_mean import curve, differentiable, log_mean
from poolnb.ops.taps import visible

_NEAR_ZERO = 0.25


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
    share: Tensor | None  # c, where p may be near 0 in a mean


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


def endless_where(p: Tensor) -> Tensor | None:
    """Where p is infinite; None: nowhere."""
    return None if visible(p) and not bool(p.isinf().any()) else p.isinf()


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
    pos_inf = size == torch.inf
    has_pos_inf = pos_inf.any(0)
    finite = size.masked_fill(pos_inf, 0)
    unit = finite.detach().amax(0)
    unit = unit + (unit == 0)
    no_share = (size == 0) | (has_pos_inf & ~pos_inf)
    # A base of 0 has no derivative that could be used: it is left out of the power and put back as the 0 it gives.
    known = torch.where(no_share | has_pos_inf, unit, finite)
    ratio, log_ratio = known / unit, _log_ratio(known, unit)
    powers = _powers(ratio, log_ratio, p).masked_fill(no_share, 0) * coefficient
    total = powers.sum(0)
    empty = total == 0
    total = total.masked_fill(empty, 1)
    log_root, share = total.log() / p, None
    if isinstance(coefficient, Tensor) and _may_be_near_zero(p):
        share = coefficient
        near = (p < _NEAR_ZERO) & (total.detach() >= 0.5)
        log_root = torch.where(near, log_mean(log_ratio, share, _near(p)), log_root)
    root = log_root.exp()
    infinite = torch.zeros_like(root).masked_fill(has_pos_inf, torch.inf)
    output = (unit * root).masked_fill(empty, 0) + infinite
    return PowerMean(p, ratio, powers, total, root, unit, output, Logs(log_ratio, log_root, no_share, share))


def _powers(ratio: Tensor, log_ratio: Tensor, p: Tensor) -> Tensor:
    """ratio ** p; with an infinite p, 1 for the largest."""
    simple, endless = _simple(p), endless_where(p)
    if simple is not None:
        return ratio**simple
    if endless is None:
        return (p * log_ratio).exp()
    largest = torch.where(log_ratio < 0, 0, log_ratio.detach() + 1)  # 1, or NaN
    return torch.where(endless, largest, (p.masked_fill(endless, 1) * log_ratio).exp())


def _log_ratio(size: Tensor, unit: Tensor) -> Tensor:
    """ln(size / unit), by the two logs where the ratio is no normal number."""
    tiny, ratio = torch.finfo(size.dtype).tiny, size / unit
    apart = size.clamp(min=tiny).log() - unit.clamp(min=tiny).log()
    return torch.where(ratio < tiny, apart, ratio.clamp(min=tiny).log())


def _may_be_near_zero(p: Tensor) -> bool:
    return bool(p.amin() < _NEAR_ZERO) if visible(p) else True


def _near(p: Tensor) -> Tensor:
    """p, where another formula is taken for a larger one."""
    return p.clamp(max=_NEAR_ZERO)


def size_slope(mean: PowerMean) -> Tensor:
    """(r / rho) ** (p - 1): the derivative by the size of a tap, up to its coefficient; 0 for a tap of size 0."""
    if mean.logs is None:
        return power(mean.ratio / mean.root, mean.p - 1)
    endless = endless_where(mean.p)
    exponent = (mean.p if endless is None else mean.p.masked_fill(endless, 1)) - 1
    return (exponent * (mean.logs.ratio - _log_root(mean, mean.logs))).exp().masked_fill(mean.logs.no_share, 0)


def _log_root(mean: PowerMean, logs: Logs) -> Tensor:
    """ln rho, near p = 0 with derivatives that are as accurate as its value."""
    if logs.share is None or not torch.is_grad_enabled():
        return logs.root
    with_slopes = differentiable(logs.ratio, logs.root, logs.share, _near(mean.p))
    return torch.where(mean.p < _NEAR_ZERO, with_slopes, logs.root)


def exponent_slope(mean: PowerMean) -> Tensor:
    """dy/dp; 0 where y is infinite."""
    p, output, logs = mean.p, mean.output, mean.logs
    if logs is None:
        tiny = torch.finfo(mean.ratio.dtype).tiny
        entropy = (mean.powers * mean.ratio.clamp(min=tiny).log()).sum(0) / mean.total - mean.total.log() / p
        return output * (entropy / p)  # output / p may overflow
    slope = ((mean.powers * logs.ratio).sum(0) / mean.total - logs.root) / p
    output = output.masked_fill(output.isinf(), 0)
    if logs.share is not None:
        near, root, small = p < _NEAR_ZERO, _log_root(mean, logs), _near(p)
        excess = logs.ratio - root
        v = small * excess
        slope = torch.where(near, curve(excess, v, v.exp() * logs.share, logs.share, small), slope)
        output = torch.where(near, output.detach() * (1 + (root - root.detach())), output)
    return (output * slope).masked_fill(output == 0, 0)


def needs_safe_path(p: Tensor) -> bool:
    """Whether (r / rho) ** (p - 1) is not 0 at r = 0, where the slope has to be, or p takes a quotient's digits."""
    if not visible(p):
        return True
    low, high = torch.aminmax(p)
    return bool(low <= 1) or bool(high > 32)
