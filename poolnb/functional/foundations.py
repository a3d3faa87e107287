"""Max and average pooling."""

from __future__ import annotations

from torch import Tensor

from poolnb import ops
from poolnb._arguments import check
from poolnb.functional._dimensions import by_dimension
from poolnb.geometry import IntOrSizes


def _max_pool(
    dims: int,
    input: Tensor,
    kernel_size: IntOrSizes | None,
    stride: IntOrSizes | None = None,
    padding: IntOrSizes = 0,
    dilation: IntOrSizes = 1,
    ceil_mode: bool = False,
    *,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Max pooling, :math:`y = \max_i x_i`, with a mask and global pooling.

    The gradient goes to the first largest tap of each window, as torch's does. Without a mask it is torch's own.
    """
    call = check(dims, input, kernel_size, stride, padding, dilation, ceil_mode, mask)
    return call.finish(ops.max_pool(call.input, call.mask, call.windows))


def _avg_pool(
    dims: int,
    input: Tensor,
    kernel_size: IntOrSizes | None,
    stride: IntOrSizes | None = None,
    padding: IntOrSizes = 0,
    dilation: IntOrSizes = 1,
    ceil_mode: bool = False,
    *,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Average pooling, :math:`y = \frac1n \sum_i x_i` over the n valid taps, with a mask, dilation and global pooling.

    Padding does not count: this is torch's ``count_include_pad=False``, which is not torch's default.
    """
    call = check(dims, input, kernel_size, stride, padding, dilation, ceil_mode, mask)
    return call.finish(ops.avg_pool(call.input, call.mask, call.windows))


max_pool1d, max_pool2d, max_pool3d = by_dimension(_max_pool)
avg_pool1d, avg_pool2d, avg_pool3d = by_dimension(_avg_pool)
