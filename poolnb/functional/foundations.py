"""Max, average and Lp pooling."""

from __future__ import annotations

from typing import Any, Literal, Protocol, cast, overload

from torch import Tensor

from poolnb._arguments import channel_parameter, check, check_as_given, flag
from poolnb.functional._dimensions import by_dimension
from poolnb.geometry import IntOrSizes, OutputSize, Padding
from poolnb.ops.hard import avg_pool, max_pool, max_pool_with_indices
from poolnb.ops.lp import lp_pool

__all__ = [
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
]


def _max_pool(
    dims: int,
    input: Tensor,
    kernel_size: IntOrSizes | None,
    stride: IntOrSizes | None = None,
    padding: Padding = 0,
    dilation: IntOrSizes = 1,
    ceil_mode: bool = False,
    *,
    return_indices: bool = False,
    output_size: OutputSize = None,
    mask: Tensor | None = None,
) -> Any:
    r"""Max pooling, :math:`y = \max_i x_i`, with a mask and global pooling.

    The gradient goes to the first largest tap of each window, as torch's does. Without a mask it is torch's own.
    Source: Boureau et al. (2010) compare it with the mean.

    Args:
        return_indices: return ``(output, indices)``. An index is the row-major number of the chosen tap's position in
            its sample and channel, int64, as :func:`torch.nn.functional.max_unpool2d` takes it. In a window without a
            valid tap it is the first number that no other window of that sample and channel has, so that unpooling
            writes the 0 where nothing else is written; 0 where all are taken, which only dilation can bring about.
    """
    call = check_as_given(dims, input, kernel_size, stride, padding, dilation, ceil_mode, mask, output_size)
    if not flag("return_indices", return_indices):
        return call.finish(max_pool(call.input, call.mask, call.windows))
    output, indices = max_pool_with_indices(call.input, call.mask, call.windows)
    return call.finish(output), call.finish(indices)


def _avg_pool(
    dims: int,
    input: Tensor,
    kernel_size: IntOrSizes | None,
    stride: IntOrSizes | None = None,
    padding: Padding = 0,
    dilation: IntOrSizes = 1,
    ceil_mode: bool = False,
    *,
    output_size: OutputSize = None,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Average pooling, :math:`y = \frac1n \sum_i x_i` over the n valid taps, with a mask, dilation and global pooling.

    Padding does not count: this is torch's ``count_include_pad=False``, which is not torch's default. The gradient of
    every valid tap is 1/n. +inf beside -inf gives NaN, as their sum does. Without a mask or dilation it is torch's own,
    whose sum overflows where the taps come near the largest number of their dtype. Source: Boureau et al. (2010)
    compare it with the max.
    """
    call = check_as_given(dims, input, kernel_size, stride, padding, dilation, ceil_mode, mask, output_size)
    return call.finish(avg_pool(call.input, call.mask, call.windows))


def _lp_pool(
    dims: int,
    input: Tensor,
    kernel_size: IntOrSizes | None,
    stride: IntOrSizes | None = None,
    padding: Padding = 0,
    dilation: IntOrSizes = 1,
    ceil_mode: bool = False,
    *,
    norm_type: float | Tensor = 2.0,
    output_size: OutputSize = None,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Lp pooling, :math:`y = (\sum_i |x_i|^p)^{1/p}`; p = inf: :math:`\max_i |x_i|`.

    Source: Gulcehre et al. (2014), who learn p. The sum is not divided by the number of taps, and odd p use the
    absolute value, which :func:`torch.nn.functional.lp_pool2d` does not. With :math:`u_i = (|x_i|/y)^p`:
    :math:`\partial y/\partial x_i = \mathrm{sign}(x_i) (|x_i|/y)^{p-1}`, 0 in a window of zeros, and
    :math:`\partial y/\partial p = \frac yp (\sum_i u_i \ln |x_i| - \ln y)`. For p = inf the gradient goes
    to the first largest absolute value. A window that holds +inf or -inf gives +inf.

    Args:
        norm_type: p, greater than 0; a float (``math.inf`` included), a 0-d tensor or a (C,) tensor, of input's dtype
            or float32 beside half types. The range of a tensor is checked on the CPU only.
    """
    call = check(dims, input, kernel_size, stride, padding, dilation, ceil_mode, mask, output_size)
    p = channel_parameter("norm_type", norm_type, call, low=0, strict=True, allow_inf=True)
    return call.finish(lp_pool(call.input, call.mask, call.trimmed, p))


class _MaxPool(Protocol):
    """The type of the three functions: with ``return_indices`` they return two tensors."""

    @overload
    def __call__(
        self,
        input: Tensor,
        kernel_size: IntOrSizes | None,
        stride: IntOrSizes | None = None,
        padding: Padding = 0,
        dilation: IntOrSizes = 1,
        ceil_mode: bool = False,
        *,
        return_indices: Literal[False] = False,
        output_size: OutputSize = None,
        mask: Tensor | None = None,
    ) -> Tensor: ...

    @overload
    def __call__(
        self,
        input: Tensor,
        kernel_size: IntOrSizes | None,
        stride: IntOrSizes | None = None,
        padding: Padding = 0,
        dilation: IntOrSizes = 1,
        ceil_mode: bool = False,
        *,
        return_indices: Literal[True],
        output_size: OutputSize = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]: ...


max_pool1d, max_pool2d, max_pool3d = cast(tuple[_MaxPool, _MaxPool, _MaxPool], by_dimension(_max_pool))
avg_pool1d, avg_pool2d, avg_pool3d = by_dimension(_avg_pool)
lp_pool1d, lp_pool2d, lp_pool3d = by_dimension(_lp_pool)
