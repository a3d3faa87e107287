"""Statistics of a window: what its spread says beside its mean."""

from __future__ import annotations

from torch import Tensor

from poolnb._arguments import check, number
from poolnb.functional._dimensions import by_dimension
from poolnb.geometry import IntOrSizes
from poolnb.ops.std import std_pool

__all__ = [
    "std_pool1d",
    "std_pool2d",
    "std_pool3d",
]


def _std_pool(
    dims: int,
    input: Tensor,
    kernel_size: IntOrSizes | None,
    stride: IntOrSizes | None = None,
    padding: IntOrSizes = 0,
    dilation: IntOrSizes = 1,
    ceil_mode: bool = False,
    *,
    eps: float = 1e-5,
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
    call = check(dims, input, kernel_size, stride, padding, dilation, ceil_mode, mask)
    return call.finish(std_pool(call.input, call.mask, call.trimmed, number("eps", eps, low=0, strict=True)))


std_pool1d, std_pool2d, std_pool3d = by_dimension(_std_pool)
