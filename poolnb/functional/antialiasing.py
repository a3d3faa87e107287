"""Pooling that filters before it subsamples."""

from __future__ import annotations

from torch import Tensor

from poolnb._arguments import check
from poolnb.functional._dimensions import by_dimension
from poolnb.geometry import IntOrSizes
from poolnb.ops.blur import blur_pool

__all__ = [
    "blur_pool1d",
    "blur_pool2d",
    "blur_pool3d",
]


def _blur_pool(
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
    r"""Blur pooling, :math:`y = \sum_i b_i x_i / \sum_i b_i` over the valid taps: a low-pass filter and a subsampling.

    b is the product over the axes of :math:`\binom{k-1}{j}`, k being the axis's kernel size and j the number of the tap
    along it: 1 1 for k = 2, which is the mean, 1 2 1 for k = 3, 1 4 6 4 1 for k = 5. Source: Zhang (2019). Padding and
    masked taps do not count: the weights of the others are divided by their own sum, so that constant input gives
    constant output up to the edge. :math:`\partial y/\partial x_i = b_i / \sum_j b_j`. +inf beside -inf gives NaN, as
    their sum does.
    """
    call = check(dims, input, kernel_size, stride, padding, dilation, ceil_mode, mask)
    return call.finish(blur_pool(call.input, call.mask, call.numbered))


blur_pool1d, blur_pool2d, blur_pool3d = by_dimension(_blur_pool)
