"""Order statistics: rank pooling and quantiles."""

from __future__ import annotations

from torch import Tensor

from poolnb._arguments import channel_parameter, check, tap_weights
from poolnb.functional._dimensions import by_dimension
from poolnb.geometry import IntOrSizes, OutputSize, Padding
from poolnb.ops.quantile import quantile_pool
from poolnb.ops.rank import rank_pool

__all__ = [
    "quantile_pool1d",
    "quantile_pool2d",
    "quantile_pool3d",
    "rank_pool1d",
    "rank_pool2d",
    "rank_pool3d",
]


def _rank_pool(
    dims: int,
    input: Tensor,
    kernel_size: IntOrSizes | None,
    stride: IntOrSizes | None = None,
    padding: Padding = 0,
    dilation: IntOrSizes = 1,
    ceil_mode: bool = False,
    *,
    weight: Tensor,
    output_size: OutputSize = None,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Rank pooling, :math:`y = \sum_{r=1}^n w_r x_{(r)} / \sum_{r=1}^n w_r`, :math:`x_{(1)} \ge x_{(2)} \ge \dots`.

    Source: Yager (1988), the ordered weighted average; over the n valid taps, ties in tap order. The first weight alone
    gives the max, the last one of a whole window the min, equal weights the mean, equal ones of the first m ranks the
    mean of the m largest taps, the middle one the median. :math:`\partial y/\partial x_{(r)} = w_r / \sum_s w_s` and
    :math:`\partial y/\partial w_r = (x_{(r)} - y) / \sum_s w_s`, for r up to n; where taps tie, y has a kink.
    An infinite tap counts where the weight of its rank is not 0; +inf and -inf that both count give NaN. A window whose
    n weights are all 0 gives 0 and passes no gradient, as one without a valid tap.

    Args:
        weight: one entry per rank, of at least 0: (k,) for all channels, or (C, k), k being the taps of a window; of
            input's dtype or float32 beside half types. The range is checked on the CPU only.
    """
    call = check(dims, input, kernel_size, stride, padding, dilation, ceil_mode, mask, output_size)
    weights = tap_weights("weight", weight, call, low=0)
    return call.finish(rank_pool(call.input, call.mask, call.numbered, weights))


def _quantile_pool(
    dims: int,
    input: Tensor,
    kernel_size: IntOrSizes | None,
    stride: IntOrSizes | None = None,
    padding: Padding = 0,
    dilation: IntOrSizes = 1,
    ceil_mode: bool = False,
    *,
    q: float | Tensor = 0.5,
    output_size: OutputSize = None,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Quantile pooling: the q-quantile of the n valid taps, linear between ranks as :func:`torch.quantile` has it.

    Source: Hyndman and Fan (1996), their definition 7. With :math:`h = q (n - 1)`, counted from the smallest tap on,
    and f the fraction of h: :math:`y = (1 - f)\,a + f\,b` where a and b are the taps at the whole part of h
    and above it. 0 gives the min, 0.5 the median, 1 the max.
    :math:`\partial y/\partial a = 1 - f`, :math:`\partial y/\partial b = f`,
    :math:`\partial y/\partial q = (n - 1)(b - a)`; y has a kink where taps tie, of which the first in tap order counts
    as the largest, and as a function of q where h is whole: there the slope is that towards larger q, at q = 1 the
    other one.
    An infinite tap counts where its share is not 0; between -inf and +inf lies NaN.

    Args:
        q: in [0, 1]; a float, a 0-d tensor or a (C,) tensor, of input's dtype or float32 beside half types. The range
            of a tensor is checked on the CPU only.
    """
    call = check(dims, input, kernel_size, stride, padding, dilation, ceil_mode, mask, output_size)
    share = channel_parameter("q", q, call, low=0, high=1)
    return call.finish(quantile_pool(call.input, call.mask, call.trimmed, share))


rank_pool1d, rank_pool2d, rank_pool3d = by_dimension(_rank_pool)
quantile_pool1d, quantile_pool2d, quantile_pool3d = by_dimension(_quantile_pool)
