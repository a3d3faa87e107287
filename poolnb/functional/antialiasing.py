"""Pooling that filters before it subsamples."""

from __future__ import annotations

from torch import Tensor

from poolnb._arguments import check, check_equal_windows, check_steady_windows, filter_size
from poolnb.functional._dimensions import by_dimension
from poolnb.geometry import IntOrSizes, OutputSize, Padding
from poolnb.ops.blur import blur_pool
from poolnb.ops.maxblur import maxblur_pool

__all__ = [
    "blur_pool1d",
    "blur_pool2d",
    "blur_pool3d",
    "maxblur_pool1d",
    "maxblur_pool2d",
    "maxblur_pool3d",
]


def _blur_pool(
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
    r"""Blur pooling, :math:`y = \sum_i b_i x_i / \sum_i b_i` over the valid taps: a low-pass filter and a subsampling.

    b is the product over the axes of :math:`\binom{k-1}{j}`, k being the axis's kernel size and j the number of the tap
    along it: 1 1 for k = 2, which is the mean, 1 2 1 for k = 3, 1 4 6 4 1 for k = 5. Source: Zhang (2019). Padding and
    masked taps do not count: the weights of the others are divided by their own sum, so that constant input gives
    constant output up to the edge. :math:`\partial y/\partial x_i = b_i / \sum_j b_j`. +inf beside -inf gives NaN, as
    their sum does.
    """
    call = check(dims, input, kernel_size, stride, padding, dilation, ceil_mode, mask, output_size)
    check_equal_windows("every tap has a weight", call)
    return call.finish(blur_pool(call.input, call.mask, call.numbered))


def _maxblur_pool(
    dims: int,
    input: Tensor,
    kernel_size: IntOrSizes | None,
    stride: IntOrSizes | None = None,
    padding: Padding = 0,
    dilation: IntOrSizes = 1,
    ceil_mode: bool = False,
    *,
    blur_size: int = 3,
    output_size: OutputSize = None,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Max-blur pooling: max pooling with stride 1, then :func:`blur_pool2d` of the result at the stride.

    Source: Zhang (2019), who takes max pooling apart into a maximum everywhere and a subsampling, and filters between
    the two. The map of maxima holds ``stride`` windows per output position and dimension: the first starts at the
    padding's edge, and none starts beyond the last input position. The filter has ``blur_size`` taps per dimension, and
    the first ``(blur_size - 1) // 2`` of the first window hang over the edge; entries of the map without a valid tap do
    not count in it. With :math:`b` its weights, :math:`\partial y/\partial x_i` is the sum of
    :math:`b_j / \sum_l b_l` over the entries j whose first largest tap is i. A mean of +inf and -inf is NaN, as for
    :func:`avg_pool2d`.

    Args:
        blur_size: taps of the filter in every dimension, an int of at least 1; 1 is max pooling.
    """
    call = check(dims, input, kernel_size, stride, padding, dilation, ceil_mode, mask, output_size)
    check_steady_windows("they share one map of maxima", call)
    windows = call.numbered
    return call.finish(maxblur_pool(call.input, call.mask, windows, filter_size("blur_size", blur_size, windows)))


blur_pool1d, blur_pool2d, blur_pool3d = by_dimension(_blur_pool)
maxblur_pool1d, maxblur_pool2d, maxblur_pool3d = by_dimension(_maxblur_pool)
