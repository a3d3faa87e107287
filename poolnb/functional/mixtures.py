"""Learned mixtures: mixed, gated, tree and adaptive pooling."""

from __future__ import annotations

from torch import Tensor

from poolnb._arguments import blend_parameter, channel_parameter, check, flag, tap_weights
from poolnb.functional._dimensions import by_dimension
from poolnb.geometry import IntOrSizes, OutputSize, Padding
from poolnb.ops.ada import ada_pool
from poolnb.ops.edscw import edscw_pool
from poolnb.ops.gated import gated_pool
from poolnb.ops.mixed import mixed_pool
from poolnb.ops.tree import tree_pool

__all__ = [
    "ada_pool1d",
    "ada_pool2d",
    "ada_pool3d",
    "edscw_pool1d",
    "edscw_pool2d",
    "edscw_pool3d",
    "gated_pool1d",
    "gated_pool2d",
    "gated_pool3d",
    "mixed_pool1d",
    "mixed_pool2d",
    "mixed_pool3d",
    "tree_pool1d",
    "tree_pool2d",
    "tree_pool3d",
]


def _mixed_pool(
    dims: int,
    input: Tensor,
    kernel_size: IntOrSizes | None,
    stride: IntOrSizes | None = None,
    padding: Padding = 0,
    dilation: IntOrSizes = 1,
    ceil_mode: bool = False,
    *,
    alpha: float | Tensor = 0.5,
    output_size: OutputSize = None,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Mixed pooling, :math:`y = \alpha \max_i x_i + (1-\alpha) \frac1n \sum_i x_i` over the n valid taps.

    Source: Lee, Gallagher and Tu (2016). The max part passes its gradient to the first largest tap;
    :math:`\partial y/\partial\alpha = \max_i x_i - \frac1n \sum_i x_i`.
    An infinite max or mean counts only where its share is not 0. The mean of +inf and -inf is NaN.

    Args:
        alpha: share of the max, in [0, 1]; a float, a 0-d tensor, a (C,) tensor, or one that broadcasts to the output
            and has its number of dimensions, such as (C, *output); of input's dtype or float32 beside half types. The
            range of a tensor is checked on the CPU only.
    """
    call = check(dims, input, kernel_size, stride, padding, dilation, ceil_mode, mask, output_size)
    share = blend_parameter("alpha", alpha, call)
    return call.finish(mixed_pool(call.input, call.mask, call.trimmed, share))


def _gated_pool(
    dims: int,
    input: Tensor,
    kernel_size: IntOrSizes | None,
    stride: IntOrSizes | None = None,
    padding: Padding = 0,
    dilation: IntOrSizes = 1,
    ceil_mode: bool = False,
    *,
    weight: Tensor,
    bias: float | Tensor | None = None,
    output_size: OutputSize = None,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Gated pooling, :math:`y = s \max_i x_i + (1-s) \frac1n \sum_i x_i` with :math:`s = \sigma(\sum_i w_i x_i + b)`.

    Source: Lee, Gallagher and Tu (2016). The mixture is chosen anew in every window. Taps that are not valid add 0 to
    the gate. With :math:`d = \max_i x_i - \frac1n \sum_i x_i`: :math:`\partial y/\partial w_i = d\,s(1-s)\,x_i` and
    :math:`\partial y/\partial b = d\,s(1-s)`; the gradient of a tap has the term :math:`d\,s(1-s)\,w_i` as well.
    An infinite tap opens or closes the gate by the sign of its weight. +inf beside -inf gives NaN, as their mean does.

    Args:
        weight: the gate's mask, one entry per tap in row-major order: (k,) for all channels, or (C, k); of input's
            dtype or float32 beside half types.
        bias: added to the gate; ``None`` (0), a float, a 0-d tensor or a (C,) tensor.
    """
    call = check(dims, input, kernel_size, stride, padding, dilation, ceil_mode, mask, output_size)
    masks = tap_weights("weight", weight, call)
    offset = channel_parameter("bias", 0.0 if bias is None else bias, call)
    return call.finish(gated_pool(call.input, call.mask, call.numbered, masks, offset))


def _tree_pool(
    dims: int,
    input: Tensor,
    kernel_size: IntOrSizes | None,
    stride: IntOrSizes | None = None,
    padding: Padding = 0,
    dilation: IntOrSizes = 1,
    ceil_mode: bool = False,
    *,
    leaves: Tensor,
    gates: Tensor,
    output_size: OutputSize = None,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Tree pooling: a binary tree of sigmoid gates over learned linear filters of the window.

    Source: Lee, Gallagher and Tu (2016), figure 3. Leaf j is :math:`\langle v_j, x\rangle`; an inner node with gate
    :math:`\omega` is :math:`s f_l + (1-s) f_r`, :math:`s = \sigma(\langle\omega, x\rangle)`, where :math:`f_l` and
    :math:`f_r` are its children; y is the root. Gates are numbered level by level: with four leaves gate 0 is the
    root, gate 1 joins leaves 0 and 1, gate 2 leaves 2 and 3. :math:`\partial f/\partial\omega = s(1-s)(f_l - f_r)\,x`,
    and a leaf's derivative is the product of the shares on its way to the root. Taps that are not valid add 0.
    An infinite tap gives a leaf the infinity that the sign of its weight says, and nothing at a weight of 0; two that
    contradict each other give NaN.

    Args:
        leaves: (L, k), L = 2 or 4 filters with one entry per tap in row-major order; of input's dtype or float32
            beside half types.
        gates: (L - 1, k), likewise.
    """
    call = check(dims, input, kernel_size, stride, padding, dilation, ceil_mode, mask, output_size)
    count = leaves.size(0) if isinstance(leaves, Tensor) and leaves.dim() == 2 else 2
    if count not in (2, 4):
        raise ValueError(f"leaves must have shape (L, {call.windows.taps}) with L = 2 or 4, got {tuple(leaves.shape)}")
    filters = tap_weights("leaves", leaves, call, count)
    openings = tap_weights("gates", gates, call, count - 1)
    return call.finish(tree_pool(call.input, call.mask, call.numbered, filters, openings))


def _ada_pool(
    dims: int,
    input: Tensor,
    kernel_size: IntOrSizes | None,
    stride: IntOrSizes | None = None,
    padding: Padding = 0,
    dilation: IntOrSizes = 1,
    ceil_mode: bool = False,
    *,
    beta: float | Tensor = 0.5,
    semi_grad: bool = False,
    output_size: OutputSize = None,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Adaptive pooling, :math:`y = \beta \sum_i u_i x_i + (1-\beta) \sum_i w_i x_i`: two softmax weightings, mixed.

    Source: Stergiou and Poppe (2023), AdaPool. :math:`w = \mathrm{softmax}(x)` favours large taps, and
    :math:`u = \mathrm{softmax}(d)` those near the mean m of the window, by :math:`d_i = 2|x_i m| / (x_i^2 + m^2)`,
    which is 1 where the sizes of both are equal, as where both are 0.
    With :math:`e = \sum_i u_i x_i` and :math:`s = \sum_i w_i x_i`: :math:`\partial y/\partial\beta = e - s`,
    :math:`\partial s/\partial x_j = w_j (1 + x_j - s)` and :math:`\partial e/\partial x_j = u_j +
    u_j (x_j - e) \partial d_j/\partial x_j + \frac1n \sum_i u_i (x_i - e) \partial d_i/\partial m`. At
    :math:`x_j = 0`, and at m = 0, d has a kink: its derivative there counts as 0.
    Taps of -inf carry weight 0, in the mean too, and a window that holds +inf gives +inf.

    Args:
        beta: share of the weighting by nearness, in [0, 1]; a float, a 0-d tensor, a (C,) tensor, or one that
            broadcasts to the output and has its number of dimensions, such as (C, *output); of input's dtype or
            float32 beside half types. The range of a tensor is checked on the CPU only.
        semi_grad: hold the weights constant, :math:`\beta u_j + (1-\beta) w_j`, as the code published with it does.
    """
    call = check(dims, input, kernel_size, stride, padding, dilation, ceil_mode, mask, output_size)
    share = blend_parameter("beta", beta, call)
    return call.finish(ada_pool(call.input, call.mask, call.trimmed, share, flag("semi_grad", semi_grad)))


def _edscw_pool(
    dims: int,
    input: Tensor,
    kernel_size: IntOrSizes | None,
    stride: IntOrSizes | None = None,
    padding: Padding = 0,
    dilation: IntOrSizes = 1,
    ceil_mode: bool = False,
    *,
    semi_grad: bool = False,
    output_size: OutputSize = None,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Adaptive pooling by nearness alone, :math:`y = \sum_i u_i x_i` with :math:`u = \mathrm{softmax}(d)`.

    Source: Stergiou and Poppe (2023), eDSCWPool; :func:`ada_pool2d` at ``beta=1``.
    :math:`d_i = 2|x_i m| / (x_i^2 + m^2)` with the mean m of the window, 1 where both are 0;
    :math:`\partial y/\partial x_j = u_j + u_j (x_j - y) \partial d_j/\partial x_j + \frac1n \sum_i u_i (x_i - y)
    \partial d_i/\partial m`. At :math:`x_j = 0`, and at m = 0, d has a kink: its derivative there counts as 0.
    Taps of -inf carry weight 0, in the mean too, and a window that holds +inf gives +inf.

    Args:
        semi_grad: hold the weights constant, :math:`u_j` alone, as the code published with it does.
    """
    call = check(dims, input, kernel_size, stride, padding, dilation, ceil_mode, mask, output_size)
    return call.finish(edscw_pool(call.input, call.mask, call.trimmed, flag("semi_grad", semi_grad)))


mixed_pool1d, mixed_pool2d, mixed_pool3d = by_dimension(_mixed_pool)
gated_pool1d, gated_pool2d, gated_pool3d = by_dimension(_gated_pool)
tree_pool1d, tree_pool2d, tree_pool3d = by_dimension(_tree_pool)
ada_pool1d, ada_pool2d, ada_pool3d = by_dimension(_ada_pool)
edscw_pool1d, edscw_pool2d, edscw_pool3d = by_dimension(_edscw_pool)
