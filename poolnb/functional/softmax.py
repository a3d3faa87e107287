"""Softmax-weighted pooling: SWAP, SoftPool, AutoPool."""

from __future__ import annotations

from torch import Tensor

from poolnb._arguments import channel_parameter, check, flag
from poolnb.functional._dimensions import by_dimension
from poolnb.geometry import IntOrSizes, OutputSize, Padding
from poolnb.ops.soft import soft_pool

__all__ = [
    "soft_pool1d",
    "soft_pool2d",
    "soft_pool3d",
]


def _soft_pool(
    dims: int,
    input: Tensor,
    kernel_size: IntOrSizes | None,
    stride: IntOrSizes | None = None,
    padding: Padding = 0,
    dilation: IntOrSizes = 1,
    ceil_mode: bool = False,
    *,
    beta: float | Tensor = 1.0,
    semi_grad: bool = False,
    output_size: OutputSize = None,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Softmax-weighted pooling, :math:`y = \sum_i w_i x_i` with :math:`w = \mathrm{softmax}(\beta x)` in the window.

    Known as SWAP and as SoftPool (Stergiou et al. 2021); with a learned beta it is AutoPool (McFee et al. 2018).
    :math:`\partial y/\partial x_i = w_i (1 + \beta (x_i - y))` and :math:`\partial y/\partial\beta = Var_w(x)`.
    Taps of -inf carry weight 0 and a window that holds +inf gives +inf, whatever the sign of ``beta``.

    Args:
        beta: inverse temperature; a float, a 0-d tensor or a (C,) tensor, of input's dtype or float32 beside half
            types. 0 gives the mean, large values approach the max, negative ones the min.
        semi_grad: use :math:`w_i` alone as the derivative, as the CUDA code published with SoftPool does.
    """
    call = check(dims, input, kernel_size, stride, padding, dilation, ceil_mode, mask, output_size)
    scale = channel_parameter("beta", beta, call)
    return call.finish(soft_pool(call.input, call.mask, call.trimmed, scale, flag("semi_grad", semi_grad)))


soft_pool1d, soft_pool2d, soft_pool3d = by_dimension(_soft_pool)
