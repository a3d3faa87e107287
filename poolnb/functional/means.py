"""Means between average and max: log-sum-exp and the generalised mean."""

from __future__ import annotations

from torch import Tensor

from poolnb._arguments import channel_parameter, check, held, number
from poolnb.functional._dimensions import by_dimension
from poolnb.geometry import IntOrSizes, OutputSize, Padding
from poolnb.ops.gem import gem_pool
from poolnb.ops.lse import lse_pool

__all__ = [
    "gem_pool1d",
    "gem_pool2d",
    "gem_pool3d",
    "lse_pool1d",
    "lse_pool2d",
    "lse_pool3d",
]


def _lse_pool(
    dims: int,
    input: Tensor,
    kernel_size: IntOrSizes | None,
    stride: IntOrSizes | None = None,
    padding: Padding = 0,
    dilation: IntOrSizes = 1,
    ceil_mode: bool = False,
    *,
    r: float | Tensor = 1.0,
    output_size: OutputSize = None,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Log-sum-exp pooling, :math:`y = \frac1r \ln \frac1n \sum_i e^{r x_i}` over the n valid taps.

    Source: Pinheiro and Collobert (2015). ``r`` = 0 is the mean, large ``r`` approaches the max, negative ``r`` the
    min; the value and both derivatives are accurate for every r. With :math:`w = \mathrm{softmax}(r x)`:
    :math:`\partial y/\partial x_i = w_i` and :math:`\partial y/\partial r = (\sum_i w_i x_i - y)/r`.
    A window that holds +inf gives +inf. A tap of -inf adds nothing to the sum, but counts in n; it makes the result
    -inf where all taps are -inf, or where r is not positive.

    Args:
        r: sharpness; a float, a 0-d tensor or a (C,) tensor, of input's dtype or float32 beside half types.
    """
    call = check(dims, input, kernel_size, stride, padding, dilation, ceil_mode, mask, output_size)
    return call.finish(lse_pool(call.input, call.mask, call.trimmed, channel_parameter("r", r, call)))


def _gem_pool(
    dims: int,
    input: Tensor,
    kernel_size: IntOrSizes | None,
    stride: IntOrSizes | None = None,
    padding: Padding = 0,
    dilation: IntOrSizes = 1,
    ceil_mode: bool = False,
    *,
    p: float | Tensor = 3.0,
    eps: float = 1e-6,
    output_size: OutputSize = None,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Generalised-mean pooling, :math:`y = (\frac1n \sum_i \max(x_i, \epsilon)^p)^{1/p}` over the n valid taps.

    Source: Radenovic et al. (2018). p = 1 is the mean (of positive input), large p approaches the max. The window's
    largest tap is divided out before the power is taken, so that p = 64 does not over- or underflow in float16.
    :math:`\partial y/\partial x_i = \frac1n (x_i/y)^{p-1}`, 0 below ``eps``, and
    :math:`\partial y/\partial p = \frac yp (\sum_i u_i \ln x_i - \ln y)` with :math:`u_i = x_i^p / \sum_j x_j^p`.
    A window that holds +inf gives +inf; -inf counts as ``eps``, as every tap below it.

    Args:
        p: exponent, greater than 0; a float, a 0-d tensor or a (C,) tensor, of input's dtype or float32 beside half
            types. The range of a tensor is checked on the CPU only.
        eps: smaller taps are raised to it; a float greater than 0.
    """
    call = check(dims, input, kernel_size, stride, padding, dilation, ceil_mode, mask, output_size)
    exponent = channel_parameter("p", p, call, low=0, strict=True)
    least = held("eps", number("eps", eps, low=0, strict=True), call.acc_dtype, positive=True)
    held("eps", least, call.input.dtype)  # no result is below it
    return call.finish(gem_pool(call.input, call.mask, call.trimmed, exponent, least))


lse_pool1d, lse_pool2d, lse_pool3d = by_dimension(_lse_pool)
gem_pool1d, gem_pool2d, gem_pool3d = by_dimension(_gem_pool)
