"""The pooling functions. Each checks its arguments, resolves the windows and calls the operator.

Every function exists for one, two and three spatial dimensions: ``soft_pool1d``, ``soft_pool2d``, ``soft_pool3d``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor

from poolnb import ops
from poolnb._arguments import channel_parameter, check, flag
from poolnb.geometry import IntOrSizes

Pool = Callable[..., Tensor]

_SHAPES = {1: "(N, C, L)", 2: "(N, C, H, W)", 3: "(N, C, D, H, W)"}

_DOC = """{text}

Args:
    input: {shape}, or the same without the batch dimension; float16, bfloat16, float32 or float64, any memory layout.
        Half types accumulate in float32; the output keeps dtype and layout.
    kernel_size: window size, at least 1 per dimension. ``None``: one window over the whole spatial extent.
    stride: step between windows, at least 1; ``None``: ``kernel_size``.
    padding: positions added on both sides, at most half of ``kernel_size``. They never count as taps.
    dilation: distance between the taps of a window, at least 1.
    ceil_mode: round the output size up; the last window still starts inside the input or its left padding.
{own}    mask: bool, broadcastable to ``input``, True = valid. A masked tap is treated like padding.

Returns:
    Tensor: {shape}, the spatial size as :func:`torch.nn.functional.max_pool{dims}d` gives it. A window without a valid
    tap gives 0 and passes no gradient. A NaN among the valid taps gives NaN.

Raises:
    TypeError: an argument of the wrong type, such as an integer ``input`` or a float ``mask``.
    ValueError: a shape, device or range that does not fit. The message names the argument and what it accepts.
"""


def _by_dimension(pool: Pool) -> tuple[Pool, Pool, Pool]:
    """``pool(dims, input, ...)`` for 1, 2 and 3 spatial dimensions.

    The docstring of ``pool`` is its text; lines after "Args:" are its own arguments, joined to the shared ones.
    """
    return _for(1, pool), _for(2, pool), _for(3, pool)


def _for(dims: int, pool: Pool) -> Pool:
    def bound(*args: Any, **kwargs: Any) -> Tensor:
        return pool(dims, *args, **kwargs)

    text, _, own = inspect.cleandoc(pool.__doc__ or "").partition("\n\nArgs:\n")
    name = f"{pool.__name__.removeprefix('_')}{dims}d"
    bound.__name__ = bound.__qualname__ = name
    bound.__doc__ = _DOC.format(text=text, own=own and own + "\n", shape=_SHAPES[dims], dims=dims)
    signature = inspect.signature(pool)
    own_parameters = [p for p in signature.parameters.values() if p.name != "dims"]
    bound.__signature__ = signature.replace(parameters=own_parameters)  # type: ignore[attr-defined]
    return bound


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


def _soft_pool(
    dims: int,
    input: Tensor,
    kernel_size: IntOrSizes | None,
    stride: IntOrSizes | None = None,
    padding: IntOrSizes = 0,
    dilation: IntOrSizes = 1,
    ceil_mode: bool = False,
    *,
    beta: float | Tensor = 1.0,
    semi_grad: bool = False,
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
    call = check(dims, input, kernel_size, stride, padding, dilation, ceil_mode, mask)
    scale = channel_parameter("beta", beta, call)
    return call.finish(ops.soft_pool(call.input, call.mask, call.windows, scale, flag("semi_grad", semi_grad)))


max_pool1d, max_pool2d, max_pool3d = _by_dimension(_max_pool)
avg_pool1d, avg_pool2d, avg_pool3d = _by_dimension(_avg_pool)
soft_pool1d, soft_pool2d, soft_pool3d = _by_dimension(_soft_pool)
