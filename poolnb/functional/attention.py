"""Pooling with weights from elsewhere: what LIP and attention pooling share."""

from __future__ import annotations

from torch import Tensor

from poolnb._arguments import check, position_logits
from poolnb.functional._dimensions import by_dimension
from poolnb.geometry import IntOrSizes, OutputSize, Padding
from poolnb.ops.weighted import weighted_pool

__all__ = [
    "weighted_pool1d",
    "weighted_pool2d",
    "weighted_pool3d",
]


def _weighted_pool(
    dims: int,
    input: Tensor,
    kernel_size: IntOrSizes | None,
    stride: IntOrSizes | None = None,
    padding: Padding = 0,
    dilation: IntOrSizes = 1,
    ceil_mode: bool = False,
    *,
    logits: Tensor,
    output_size: OutputSize = None,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Weighted pooling, :math:`y = \sum_i w_i x_i` with :math:`w = \mathrm{softmax}(l)` over the window's logits.

    Source: Gao et al. (2019), who call it local importance pooling; over one window it is the attention pooling of
    Ilse et al. (2018). The modules LIPPool and AttentionPool compute the logits from the input.
    :math:`\partial y/\partial x_i = w_i` and :math:`\partial y/\partial l_i = w_i (x_i - y)`.
    A tap of -inf or with a logit of -inf carries weight 0, a logit of +inf takes all weight, and a window that holds
    +inf gives +inf unless its logit is -inf. A window whose logits are all -inf gives 0.

    Args:
        logits: one per input element, in input's shape, or one per position, (N, 1, *spatial), shared by the
            channels; of input's dtype or float32 beside half types.
    """
    call = check(dims, input, kernel_size, stride, padding, dilation, ceil_mode, mask, output_size)
    return call.finish(weighted_pool(call.input, call.mask, call.trimmed, position_logits("logits", logits, call)))


weighted_pool1d, weighted_pool2d, weighted_pool3d = by_dimension(_weighted_pool)
