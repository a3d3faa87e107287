"""Statistics of a window: what its spread says beside its mean."""

from __future__ import annotations

import torch
from torch import Tensor

from poolnb._arguments import Call, check, held, number, position_logits
from poolnb.functional._dimensions import by_dimension
from poolnb.geometry import IntOrSizes, OutputSize, Padding
from poolnb.ops.hard import avg_pool
from poolnb.ops.std import std_pool
from poolnb.ops.weighted import weighted_pool
from poolnb.ops.weighted_std import weighted_std_pool

__all__ = [
    "stats_pool1d",
    "stats_pool2d",
    "stats_pool3d",
    "std_pool1d",
    "std_pool2d",
    "std_pool3d",
    "weighted_std_pool1d",
    "weighted_std_pool2d",
    "weighted_std_pool3d",
]


def _std_pool(
    dims: int,
    input: Tensor,
    kernel_size: IntOrSizes | None,
    stride: IntOrSizes | None = None,
    padding: Padding = 0,
    dilation: IntOrSizes = 1,
    ceil_mode: bool = False,
    *,
    eps: float = 1e-5,
    output_size: OutputSize = None,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Standard deviation of the n valid taps, :math:`y = \sqrt{\frac1n \sum_i (x_i - m)^2 + \epsilon}`, m their mean.

    Source: Snyder et al. (2018), who pool the frames of an utterance into mean and standard deviation. It divides by n,
    not by n - 1. :math:`\partial y/\partial x_i = (x_i - m)/(n y)`: the derivatives of a window add up to 0, and equal
    taps, whose result is :math:`\sqrt\epsilon`, pass 0. Neither squares nor sums over- or underflow, and a large mean
    costs no digits. A window that holds +inf or -inf gives +inf, with the derivatives of the limit.

    Args:
        eps: added to the variance; a float greater than 0.
    """
    call = check(dims, input, kernel_size, stride, padding, dilation, ceil_mode, mask, output_size)
    return call.finish(std_pool(call.input, call.mask, call.trimmed, _least("eps", eps, call)))


def _weighted_std_pool(
    dims: int,
    input: Tensor,
    kernel_size: IntOrSizes | None,
    stride: IntOrSizes | None = None,
    padding: Padding = 0,
    dilation: IntOrSizes = 1,
    ceil_mode: bool = False,
    *,
    logits: Tensor,
    eps: float = 1e-5,
    output_size: OutputSize = None,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Standard deviation under weights, :math:`y = \sqrt{\sum_i w_i (x_i - m)^2 + \epsilon}`.

    :math:`w = \mathrm{softmax}(l)` over the window's logits, and :math:`m = \sum_i w_i x_i`. Source: Okabe et al.
    (2018). :math:`\partial y/\partial x_i = w_i (x_i - m)/y`, and with :math:`v = \sum_j w_j (x_j - m)^2`
    :math:`\partial y/\partial l_i = w_i ((x_i - m)^2 - v)/(2 y)`. Weights are those of :func:`weighted_pool2d`: a
    tap of -inf or with a logit of -inf has none. A window in which a tap of +inf has weight gives +inf, and passes no
    gradient; one without any weight gives 0.

    Args:
        logits: one per input element, in input's shape, or one per position, (N, 1, *spatial), shared by the
            channels; of input's dtype or float32 beside half types.
        eps: added to the variance; a float greater than 0.
    """
    call = check(dims, input, kernel_size, stride, padding, dilation, ceil_mode, mask, output_size)
    scores, least = position_logits("logits", logits, call), _least("eps", eps, call)
    return call.finish(weighted_std_pool(call.input, call.mask, call.trimmed, scores, least))


def _stats_pool(
    dims: int,
    input: Tensor,
    kernel_size: IntOrSizes | None,
    stride: IntOrSizes | None = None,
    padding: Padding = 0,
    dilation: IntOrSizes = 1,
    ceil_mode: bool = False,
    *,
    logits: Tensor | None = None,
    eps: float = 1e-5,
    output_size: OutputSize = None,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Statistics pooling: the mean :math:`m` of every window beside its standard deviation, in 2C channels.

    The first C channels are :math:`m = \sum_i w_i x_i`, the others :math:`\sqrt{\sum_i w_i (x_i - m)^2 + \epsilon}`:
    with :math:`w_i = 1/n` as Snyder et al. (2018), or with ``logits`` :math:`w = \mathrm{softmax}(l)` as Okabe et al.
    (2018). They are :func:`avg_pool2d` and :func:`std_pool2d`, or :func:`weighted_pool2d` and
    :func:`weighted_std_pool2d`, and so are their gradients.

    Args:
        logits: ``None``, or one per input element, in input's shape, or one per position, (N, 1, *spatial), shared by
            the channels; of input's dtype or float32 beside half types.
        eps: added to the variance; a float greater than 0.
    """
    call = check(dims, input, kernel_size, stride, padding, dilation, ceil_mode, mask, output_size)
    least = _least("eps", eps, call)
    if logits is None:
        mean = avg_pool(call.input, call.mask, call.windows)
        spread = std_pool(call.input, call.mask, call.trimmed, least)
    else:
        scores = position_logits("logits", logits, call)
        mean = weighted_pool(call.input, call.mask, call.trimmed, scores)
        spread = weighted_std_pool(call.input, call.mask, call.trimmed, scores, least)
    return call.finish(torch.cat([mean, spread], 1))


stats_pool1d, stats_pool2d, stats_pool3d = by_dimension(_stats_pool)


def _least(name: str, value: float, call: Call) -> float:
    return held(name, number(name, value, low=0, strict=True), call.acc_dtype, positive=True)


std_pool1d, std_pool2d, std_pool3d = by_dimension(_std_pool)
weighted_std_pool1d, weighted_std_pool2d, weighted_std_pool3d = by_dimension(_weighted_std_pool)
