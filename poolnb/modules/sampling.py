"""Pooling that samples, as modules: a random draw in training mode, a fixed function in evaluation mode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from poolnb._arguments import flag, held, no_output_size, number, strip_sizes
from poolnb.geometry import IntOrSizes, OutputSize, Padding, check_sizes
from poolnb.modules._base import Device, Pool, check_factory, is_traced, needed_for, parameter_shape, record

__all__ = [
    "S3Pool1d",
    "S3Pool2d",
    "S3Pool3d",
    "StochasticPool1d",
    "StochasticPool2d",
    "StochasticPool3d",
    "TDGSPool1d",
    "TDGSPool2d",
    "TDGSPool3d",
]


class _Sampled(Pool):
    """A pooler that draws in training mode, each call with a new seed from torch's default CPU generator.

    A fixed noise is a matter of one call: ``pool(x, seed=7)``.
    """

    if TYPE_CHECKING:

        def __call__(self, input: Tensor, mask: Tensor | None = None, seed: int | Tensor | None = None) -> Tensor: ...

    def forward(self, input: Tensor, mask: Tensor | None = None, seed: int | Tensor | None = None) -> Tensor:
        if is_traced(self, input):
            return record(self, input, mask=mask, seed=seed)
        return self.pool(input, mask, training=self.training, seed=seed)


class _StochasticPool(_Sampled):
    r"""Stochastic pooling; see :func:`poolnb.functional.stochastic_pool2d`.

    In training mode each output is one tap, drawn with :math:`p_i = a_i/\sum_j a_j`, :math:`a = \max(x, 0)`; in
    evaluation mode it is the mean under these probabilities, :math:`\sum_i p_i x_i`. ``torch.manual_seed`` fixes the
    draws, or ``pool(x, seed=7)`` those of one call.

    Raises:
        TypeError: a size that is no int; in a call, an input, mask or seed of the wrong type.
        ValueError: a size out of range; in a call, an input too small for one window, a seed out of range.
    """

    op = "stochastic"


class _S3Pool(_Sampled):
    r"""S3Pool; see :func:`poolnb.functional.s3_pool2d`.

    In training mode a stride-1 max map m loses random rows and columns, :math:`y_{ij} = m_{R_i C_j}` with R and C those
    that are kept; in evaluation mode it is averaged. ``torch.manual_seed`` fixes the draws, or ``pool(x, seed=7)``
    those of one call.

    Args:
        grid_size: width of the strips that rows and columns are drawn from, a multiple of ``stride``; ``None``: twice
            the stride.
        eval_mode: ``"average"``, the mean of the map over each stride cell, or ``"expectation"``, the exact mean of
            the training output.

    Raises:
        TypeError: a size that is no int; in a call, an input, mask or seed of the wrong type.
        ValueError: a ``grid_size`` that is no multiple of the stride, an unknown ``eval_mode``.
    """

    op = "s3"

    def __init__(
        self,
        kernel_size: IntOrSizes | None,
        stride: IntOrSizes | None = None,
        padding: Padding = 0,
        dilation: IntOrSizes = 1,
        ceil_mode: bool = False,
        *,
        grid_size: IntOrSizes | None = None,
        eval_mode: str = "average",
        output_size: OutputSize = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, output_size=output_size)
        no_output_size("s3", self.dims, output_size)
        if grid_size is not None:
            sizes = check_sizes(self.dims, kernel_size, stride)
            strip_sizes(grid_size, (1,) * self.dims if sizes is None else sizes[1])
        if eval_mode not in ("average", "expectation"):
            raise ValueError(f'eval_mode must be "average" or "expectation", got {eval_mode!r}')
        self.grid_size, self.eval_mode = grid_size, eval_mode

    def params(self) -> dict[str, Any]:
        return {"grid_size": self.grid_size, "eval_mode": self.eval_mode}

    def options(self) -> dict[str, Any]:
        return self.params()


class _TDGSPool(_Sampled):
    r"""Temperature-driven Gumbel-softmax pooling with a learned temperature; see :func:`poolnb.functional.tdgs_pool2d`.

    In training mode each output is one tap, drawn with the probabilities :math:`q = \mathrm{softmax}(z/(T+\epsilon))`,
    z being the taps, by default divided by their norm; in evaluation mode it is the mean under them,
    :math:`\sum_i q_i x_i`. ``torch.manual_seed`` fixes the draws, or ``pool(x, seed=7)`` those of one
    call.

    Args:
        channels: number of input channels; may be ``None`` with ``granularity="layer"``.
        output_size: spatial output size, an int or one per dimension; needed with ``granularity="position"``. With
            ``kernel_size=None`` it says which windows there are as well.
        granularity: one temperature per output position and channel, per channel, or for the layer.
        init: mean of the initial temperatures, greater than 0.
        jitter: they are drawn uniformly from init * [1 - jitter, 1 + jitter]; in [0, 1).
        positive: how the parameter becomes a temperature: ``"relu"``, as the author does, which never leaves 0 again
            once the parameter is negative, or ``"softplus"``.
        tau, hard, normalize, eps: as the function takes them.
        device, dtype: of the parameters, as torch's modules take them.

    Raises:
        TypeError: an option of the wrong type; in a call, an input of another dtype than the parameter.
        ValueError: an option out of range, a missing ``channels`` or ``output_size``; in a call, another number of
            channels or another output size.
    """

    op = "tdgs"

    def __init__(
        self,
        kernel_size: IntOrSizes | None,
        channels: int | None = None,
        output_size: OutputSize = None,
        stride: IntOrSizes | None = None,
        padding: Padding = 0,
        dilation: IntOrSizes = 1,
        ceil_mode: bool = False,
        *,
        granularity: str = "position",
        init: float = 1.0,
        jitter: float = 0.5,
        positive: str = "relu",
        tau: float = 1.0,
        hard: bool = True,
        normalize: bool = True,
        eps: float = 0.01,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        windows = output_size if kernel_size is None else None
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, output_size=windows)
        self.output_size = output_size
        shape = parameter_shape(self.dims, granularity, ("layer", "channel", "position"), channels, output_size)
        if positive not in ("relu", "softplus"):
            raise ValueError(f'positive must be "relu" or "softplus", got {positive!r}')
        self.granularity, self.positive = granularity, positive
        self.init, self.jitter = number("init", init, low=0, strict=True), number("jitter", jitter, low=0, high=1)
        if jitter == 1:
            raise ValueError("jitter must be in [0, 1), so that no temperature starts at 0, got 1")
        self.tau, self.eps = number("tau", tau, low=0, strict=True), number("eps", eps, low=0, strict=True)
        self.hard, self.normalize = flag("hard", hard), flag("normalize", normalize)
        self.made_for = shape
        #: The parameter; :meth:`current_temperature` is the temperature itself.
        self.temperature = torch.nn.Parameter(torch.empty(shape, **check_factory(device, dtype)))
        held("init", self.init, self.temperature.dtype, positive=True)
        self.reset_parameters()

    @classmethod
    def needs(cls, **params: Any) -> tuple[str, ...]:
        return needed_for(params.get("granularity", "position"))

    def reset_parameters(self) -> None:
        """Draw the initial temperatures again."""
        with torch.no_grad():
            self.temperature.uniform_(self.init * (1 - self.jitter), self.init * (1 + self.jitter))
            if self.positive == "softplus":  # its inverse, so that the temperatures start where they should
                self.temperature.add_(torch.log(-torch.expm1(-self.temperature)))

    def current_temperature(self) -> Tensor:
        """The temperature without ``eps``, at least 0."""
        raw = self.temperature
        return torch.nn.functional.softplus(raw) if self.positive == "softplus" else raw.relu()

    def params(self) -> dict[str, Any]:
        options = {"tau": self.tau, "hard": self.hard, "normalize": self.normalize, "eps": self.eps}
        return {"temperature": self.current_temperature(), **options}

    def options(self) -> dict[str, Any]:
        shape = tuple(self.temperature.shape)
        names = ("granularity", "positive", "tau", "hard", "normalize", "eps")
        return {"temperature": shape, **{n: getattr(self, n) for n in names}}


class StochasticPool1d(_StochasticPool):
    dims = 1


class StochasticPool2d(_StochasticPool):
    dims = 2


class StochasticPool3d(_StochasticPool):
    dims = 3


class S3Pool1d(_S3Pool):
    dims = 1


class S3Pool2d(_S3Pool):
    dims = 2


class S3Pool3d(_S3Pool):
    dims = 3


class TDGSPool1d(_TDGSPool):
    dims = 1


class TDGSPool2d(_TDGSPool):
    dims = 2


class TDGSPool3d(_TDGSPool):
    dims = 3
