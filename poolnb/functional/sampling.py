"""Pooling that samples: stochastic pooling, S3Pool, TDGS."""

from __future__ import annotations

from torch import Tensor

from poolnb._arguments import check, flag, held, no_output_size, noise_seed, number, position_parameter, strip_sizes
from poolnb.functional._dimensions import by_dimension
from poolnb.geometry import IntOrSizes, OutputSize, Padding
from poolnb.ops.s3 import s3_pool
from poolnb.ops.stochastic import stochastic_pool
from poolnb.ops.tdgs import tdgs_pool

__all__ = [
    "s3_pool1d",
    "s3_pool2d",
    "s3_pool3d",
    "stochastic_pool1d",
    "stochastic_pool2d",
    "stochastic_pool3d",
    "tdgs_pool1d",
    "tdgs_pool2d",
    "tdgs_pool3d",
]


def _stochastic_pool(
    dims: int,
    input: Tensor,
    kernel_size: IntOrSizes | None,
    stride: IntOrSizes | None = None,
    padding: Padding = 0,
    dilation: IntOrSizes = 1,
    ceil_mode: bool = False,
    *,
    training: bool = False,
    seed: int | Tensor | None = None,
    output_size: OutputSize = None,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Stochastic pooling (Zeiler and Fergus 2013): one tap, drawn with probability :math:`p_i = a_i/\sum_j a_j`.

    :math:`a = \max(x, 0)`; where no tap is positive, all valid ones are equally likely. In training the output is the
    drawn tap, which alone gets the gradient. In evaluation it is :math:`y = \sum_i p_i x_i`, whose derivative is
    :math:`\partial y/\partial x_i = 2 p_i - \sum_j p_j^2` at a positive tap and 0 at others; without a positive tap it
    is the mean. Taps of -inf have probability 0; those of +inf share the probability.

    Under :func:`torch.vmap` every entry draws what a call of its own would: the same noise for one seed. Give a batch
    of seeds, or no seed and ``randomness="different"``, for different noise.

    Args:
        training: draw; otherwise take the mean under the drawing probabilities.
        seed: an int in [-2^63, 2^63), or an int64 0-d tensor on the CPU or input's device. The noise is a function of
            the seed and the window's row-major position in (N, C, ...) alone, whatever the layout or device.
            ``None``: one is drawn from torch's default CPU generator, in training only.
    """
    call = check(dims, input, kernel_size, stride, padding, dilation, ceil_mode, mask, output_size)
    key = noise_seed(seed, training, call)
    return call.finish(stochastic_pool(call.input, call.mask, call.trimmed, key))


def _s3_pool(
    dims: int,
    input: Tensor,
    kernel_size: IntOrSizes | None,
    stride: IntOrSizes | None = None,
    padding: Padding = 0,
    dilation: IntOrSizes = 1,
    ceil_mode: bool = False,
    *,
    grid_size: IntOrSizes | None = None,
    eval_mode: str = "average",
    training: bool = False,
    seed: int | Tensor | None = None,
    output_size: OutputSize = None,
    mask: Tensor | None = None,
) -> Tensor:
    r"""S3Pool (Zhai et al. 2017): max pooling with stride 1, then rows and columns of the result chosen at random.

    The max map holds ``stride`` windows per output position and dimension: the first starts at the padding's edge, and
    none starts beyond the last input position. Each dimension of the map is cut into strips of ``grid_size``; from a
    strip, ``grid_size / stride`` positions are drawn without replacement and kept in order: with m the map and R, C the
    kept rows and columns, :math:`y_{ij} = m_{R_i C_j}`. The draw is shared by the batch and the channels. The gradient
    goes to the first largest tap of each kept window. In evaluation a mean of +inf and -inf is NaN, as for
    :func:`avg_pool2d`.

    Args:
        grid_size: width of a strip, a multiple of ``stride``; ``None``: twice the stride (the stride itself from
            2^30 on). Equal to ``stride``, one position of each stride cell is kept.
        eval_mode: what evaluation computes. ``"average"``, as the authors do: the mean of the max map over each
            stride cell, where windows without a valid tap do not count. ``"expectation"``: the exact mean of the
            training output over the draws; the two agree when ``grid_size`` equals ``stride``.
        training: draw; otherwise evaluate by ``eval_mode``.
        seed: an int in [-2^63, 2^63), or an int64 0-d tensor on the CPU or input's device. The noise is a function of
            the seed, the dimension and the position along it. ``None``: one is drawn from torch's default CPU
            generator, in training only.
    """
    no_output_size("s3", dims, output_size)
    call = check(dims, input, kernel_size, stride, padding, dilation, ceil_mode, mask)
    grid = strip_sizes(grid_size, call.windows.stride)
    if eval_mode not in ("average", "expectation"):
        raise ValueError(f'eval_mode must be "average" or "expectation", got {eval_mode!r}')
    key = noise_seed(seed, training, call)
    return call.finish(s3_pool(call.input, call.mask, call.numbered, key, grid, eval_mode == "expectation"))


def _tdgs_pool(
    dims: int,
    input: Tensor,
    kernel_size: IntOrSizes | None,
    stride: IntOrSizes | None = None,
    padding: Padding = 0,
    dilation: IntOrSizes = 1,
    ceil_mode: bool = False,
    *,
    temperature: float | Tensor,
    tau: float = 1.0,
    hard: bool = True,
    normalize: bool = True,
    eps: float = 0.01,
    training: bool = False,
    seed: int | Tensor | None = None,
    output_size: OutputSize = None,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Temperature-driven Gumbel-softmax pooling: a tap drawn from a softmax whose temperature T can be learned.

    With :math:`t = \max(T, 0) + \epsilon` the logits are :math:`l_i = z_i/t`, where :math:`z = x/\lVert x\rVert_2` over
    the window, or :math:`z = x` without ``normalize``. In training :math:`y = \sum_i s_i x_i` with a Gumbel-softmax
    sample s of the logits (Jang et al. 2017); in evaluation :math:`s = \mathrm{softmax}(l)`. With q the softmax that
    is differentiated, at the sample's temperature (1 in evaluation),
    :math:`\partial y/\partial T = -\lVert x\rVert\,\mathrm{Var}_q(z)/(\tau t^2)`; for T < 0 it is 0, so that a negative
    temperature never changes again. A window of zeros has z = 0 and equal weights. Taps of -inf have probability 0;
    those of +inf share the probability.

    Two versions of the author's code disagree on details; this is what the author's slides describe.

    Args:
        temperature: T; a float, a 0-d tensor, a (C,) tensor or one of shape (C, *output size), of input's dtype or
            float32 beside half types.
        tau: temperature of the Gumbel-softmax sample, greater than 0. Without effect in evaluation.
        hard: output one tap, with the gradient of the soft sample in place of the choice's (straight through).
        normalize: divide every window by its Euclidean norm before the temperature.
        eps: added to the temperature, greater than 0.
        training: draw; otherwise take the mean under the drawing probabilities.
        seed: an int in [-2^63, 2^63), or an int64 0-d tensor on the CPU or input's device. The noise is a function of
            the seed, the window's row-major position in (N, C, ...) and the number of the tap, row-major in a window
            as long as the longest one along each axis. ``None``: one is drawn from torch's default CPU generator, in
            training only. For :func:`torch.vmap` see :func:`stochastic_pool2d`.
    """
    call = check(dims, input, kernel_size, stride, padding, dilation, ceil_mode, mask, output_size)
    temperature = position_parameter("temperature", temperature, call)
    options = (("tau", tau), ("eps", eps))
    tau, eps = (held(n, number(n, v, low=0, strict=True), call.acc_dtype, positive=True) for n, v in options)
    hard, normalize = flag("hard", hard), flag("normalize", normalize)
    key = noise_seed(seed, training, call)
    pooled = tdgs_pool(call.input, call.mask, call.numbered, temperature, key, tau, hard, normalize, eps)
    return call.finish(pooled)


stochastic_pool1d, stochastic_pool2d, stochastic_pool3d = by_dimension(_stochastic_pool)
s3_pool1d, s3_pool2d, s3_pool3d = by_dimension(_s3_pool)
tdgs_pool1d, tdgs_pool2d, tdgs_pool3d = by_dimension(_tdgs_pool)
