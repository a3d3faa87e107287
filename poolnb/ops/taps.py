"""Arithmetic over the taps of windows, shared by the default kernels: (taps, N, C, *output) in, (N, C, *output) out.

The rules for infinities stand here and nowhere else: an invalid tap and a tap of -inf carry weight 0, a window that
holds +inf divides its weight among those taps, and a window without a valid tap gives 0.

So does the rule for NaN: a NaN among the valid taps makes the window's result NaN, and with it every derivative that
depends on the taps, of all valid taps and of parameters. Some do not: those of avg and of max, which goes to a NaN
among them, and so those of mixed and s3 by the taps, of weighted by the taps, and of TDGS by a temperature below 0. A
draw that could not be made, in stochastic pooling, passes nothing on.
"""

from __future__ import annotations

import torch
from torch import Tensor

from poolnb.geometry import Geometry, gather, is_long, valid_taps

_LARGE = 1e15


def to_acc_dtype(x: Tensor) -> Tensor:
    """``x`` in the dtype that sums are kept in: float32 for half types."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def open_windows(x: Tensor, mask: Tensor | None, windows: Geometry) -> tuple[Tensor, Tensor | None]:
    """The taps, in the dtype of sums, and which are valid (``None``: all). Invalid taps hold 0, whatever was there."""
    x = to_acc_dtype(x)
    if mask is not None:
        x = x.masked_fill(~mask, 0)
    return gather(x, windows), valid_taps(mask, windows, x.device)


def channelwise(parameter: Tensor, windows: Geometry) -> Tensor:
    """A (C,) parameter, shaped to multiply (N, C, *output)."""
    return parameter.view(-1, *(1,) * windows.dims)


def per_channel_sum(values: Tensor) -> Tensor:
    """The sum of (N, C, *output) per channel, as a (C,) tensor."""
    return values.transpose(0, 1).flatten(1).sum(1)


def counts(valid: Tensor | None, windows: Geometry, dtype: torch.dtype) -> Tensor | int:
    """How many valid taps each window has, at least 1 so that it can divide."""
    return windows.taps if valid is None else valid.sum(0).clamp(min=1).to(dtype)


def may_be_empty(mask: Tensor | None, windows: Geometry) -> bool:
    """Whether a window can be without a valid tap."""
    return mask is not None or windows.has_empty_window


def visible(*tensors: Tensor) -> bool:
    """Whether the values can be looked at: on a CPU, where it costs no wait, and outside transforms and traces."""
    traced = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or _recorded()
    return not traced and all(t.device.type == "cpu" for t in tensors)


def _recorded() -> bool:
    """Whether `make_fx`, `torch.func.linearize` or a `FakeTensorMode` stands between the caller and the numbers."""
    modes = torch._C._TorchDispatchModeKey
    return any(torch._C._get_dispatch_mode(key) is not None for key in (modes.FAKE, modes.PROXY))


def all_finite(*tensors: Tensor) -> bool:
    """Whether a look at the data shows no NaN, no infinity and no product near overflow.

    The safe path costs several masks of the taps' size, the look one pass over the input.
    """
    if not visible(*tensors):
        return False
    ranges = [torch.aminmax(_in_memory_order(t.detach())) for t in tensors if t.numel()]
    return all(-_LARGE < float(low) and float(high) < _LARGE for low, high in ranges)


def _in_memory_order(x: Tensor) -> Tensor:
    """A view that is contiguous where ``x`` is dense: a full reduction would copy another layout first."""
    return x.permute(sorted(range(x.dim()), key=x.stride, reverse=True))


def without_invalid(taps: Tensor, valid: Tensor) -> Tensor:
    """The taps, or numbers that belong to them, -inf in the place of invalid ones. Those must be finite.

    One number is added per position: much cheaper than a mask of the taps' size.
    """
    return taps + torch.zeros(valid.shape, dtype=taps.dtype, device=taps.device).masked_fill(~valid, -torch.inf)


def mean_of(taps: Tensor, size: Tensor | int, safe: bool, wide: bool = False) -> Tensor:
    """Their sum over how many there are; taps that do not count hold 0. ``wide``: added in float64."""
    mean = taps.sum(0, dtype=torch.float64 if wide else None).to(taps.dtype) / size
    if not safe:
        return mean
    # Where the sum overflows, to infinity or in both directions to NaN, shares of it do not.
    return torch.where(mean.isfinite(), mean, (taps / size).sum(0))


def finite(taps: Tensor, safe: bool = True) -> Tensor:
    """The taps, 0 in the place of infinities; NaN stays."""
    return taps.masked_fill(taps.isinf(), 0) if safe else taps


def softmax(taps: Tensor, scale: Tensor, valid: Tensor | None, safe: bool = True) -> Tensor:
    """Weights softmax(scale * taps) over the tap axis, finite for every input without NaN; see the rules above."""
    if not safe:
        return softmax_of(scale * taps, taps, valid, safe)
    sign = torch.where(scale < 0, -1.0, 1.0).to(taps.dtype)
    out = taps.isinf() if valid is None else taps.isinf() | ~valid
    return softmax_of(2 * (scale * half_below_top(finite(taps), sign, out)), taps, valid, safe)


def half_below_top(taps: Tensor, sign: Tensor | int, out: Tensor) -> Tensor:
    """(taps - top) / 2, top the largest tap of those that are not ``out``, the smallest where ``sign`` is -1.

    A factor of that sign makes of it at most 0, where its product with the taps may overflow for all of them. In
    halves, since a difference may overflow too.
    """
    halves = taps * 0.5
    top = (halves.detach() * sign).masked_fill(out, -torch.inf).amax(0)
    return halves - top.masked_fill(top == -torch.inf, 0) * sign


def softmax_of(logits: Tensor, taps: Tensor, valid: Tensor | None, safe: bool = True) -> Tensor:
    """Weights softmax(logits) over the tap axis. A logit of -inf is a weight of 0, one of +inf takes all of it."""
    if not safe:
        if valid is None:  # torch's softmax adds one term after the other
            return normalise(logits) if is_long(logits.size(0)) else torch.softmax(logits, 0)
        return normalise(without_invalid(logits, valid))
    counted = (taps != -torch.inf) & (logits != -torch.inf)
    if valid is not None:
        counted = counted & valid
    pos_inf = counted & (taps == torch.inf)
    pos_inf = pos_inf | (counted & (logits == torch.inf) & ~pos_inf.any(0))
    largest = torch.finfo(taps.dtype).max
    # The clamp keeps a logit of +inf from becoming inf - inf; NaN passes through it.
    weights = normalise(logits.clamp(-largest, largest).masked_fill(~counted, -torch.inf))
    n_pos_inf = pos_inf.sum(0)
    return torch.where(n_pos_inf > 0, pos_inf / n_pos_inf.clamp(min=1).to(taps.dtype), weights)


def normalise(logits: Tensor) -> Tensor:
    """softmax over the tap axis; all weights 0 in a window whose logits are all -inf."""
    peak = logits.amax(0)
    exps = (logits - peak.masked_fill(peak == -torch.inf, 0)).exp()
    total = exps.sum(0)
    return exps / total.masked_fill(total == 0, 1)


def weighted_mean(weights: Tensor, taps: Tensor, valid: Tensor | None, safe: bool = True) -> Tensor:
    """sum of weights * taps; -inf for a window whose valid taps are all -inf, 0 for one without a valid tap."""
    if not safe:
        return (weights * taps).sum(0)
    neg_inf = taps == -torch.inf
    y = (weights * taps.masked_fill(neg_inf | ((weights == 0) & taps.isinf()), 0)).sum(0)
    if valid is not None:
        neg_inf = neg_inf & valid
    return y.masked_fill((weights == 0).all(0) & neg_inf.any(0) & ~y.isnan(), -torch.inf)


def weighted_sum(weights: Tensor, taps: Tensor, safe: bool = True) -> Tensor:
    """sum of weights * taps. A weight of 0 is nothing even of an infinite tap; infinite terms have no derivative."""
    if not safe:
        return (weights * taps).sum(0)
    infinite = (weights.sign() * taps).masked_fill(~taps.isinf() | (weights == 0), 0)
    return (weights * finite(taps)).sum(0) + infinite.detach().sum(0)


def deviation(taps: Tensor, y: Tensor, weights: Tensor, safe: bool) -> tuple[Tensor, int]:
    """What each tap is away from y, in a unit of 1 or 2: by halves where the difference may overflow.

    There, no 0 * inf: a tap of weight 0 and a window with an infinite result take no part.
    """
    if not safe:
        return taps - y, 1
    return (taps * 0.5 - y * 0.5).masked_fill((weights == 0) | y.isinf(), 0), 2


def spoilt(slope: Tensor, y: Tensor, safe: bool = True) -> Tensor:
    """``slope``, NaN where the result is."""
    return torch.where(y.isnan(), y, slope) if safe else slope


def pick(taps: Tensor, chosen: Tensor, safe: bool = True) -> Tensor:
    """The chosen tap of every window. ``len(taps)`` means that none was: then NaN, -inf or 0, as the taps are."""
    # Invalid taps hold 0, so that the last tap of a window without a valid one is 0.
    y = taps.gather(0, chosen.clamp(max=len(taps) - 1).unsqueeze(0)).squeeze(0)
    return torch.where(chosen < len(taps), y, taps.amin(0)) if safe else y


def one_hot(taps: Tensor, chosen: Tensor) -> Tensor:
    """1 at the chosen tap of every window, 0 at the others, in the taps' shape and dtype."""
    number = torch.arange(len(taps), device=taps.device).view(-1, *(1,) * chosen.dim())
    return (number == chosen).to(taps.dtype)
