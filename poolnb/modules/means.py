"""Means between average and max, as modules that learn where they stand."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from poolnb._arguments import held, number
from poolnb.geometry import IntOrSizes, OutputSize, Padding
from poolnb.modules._base import Device, Pool, check_factory, parameter_shape

__all__ = [
    "GeMPool1d",
    "GeMPool2d",
    "GeMPool3d",
    "LSEPool1d",
    "LSEPool2d",
    "LSEPool3d",
]


class _LearnedMean(Pool):
    """A mean with one learned parameter, for the layer or per channel."""

    parameter: ClassVar[str]

    @classmethod
    def needs(cls, **params: Any) -> tuple[str, ...]:
        return ("channels",) if params.get("granularity") == "channel" else ()

    def _learn(self, start: float, granularity: str, channels: int | None, factory: dict[str, Any]) -> None:
        shape = parameter_shape(self.dims, granularity, ("layer", "channel"), channels)
        self.granularity, self.channels, self.start, self.made_for = granularity, channels, start, shape
        parameter = torch.nn.Parameter(torch.empty(shape, **factory))
        held(self.parameter, start, parameter.dtype)
        setattr(self, self.parameter, parameter)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Give the parameter its first value again."""
        torch.nn.init.constant_(getattr(self, self.parameter), self.start)

    def params(self) -> dict[str, Any]:
        return {self.parameter: getattr(self, self.parameter)}

    def options(self) -> dict[str, Any]:
        given = {"granularity": self.granularity} if self.granularity == "layer" else {"channels": self.channels}
        return {self.parameter: self.start, **given}


class _LSEPool(_LearnedMean):
    r"""Log-sum-exp pooling with a learned sharpness, :math:`y = \frac1r \ln \frac1n \sum_i e^{r x_i}`.

    See :func:`poolnb.functional.lse_pool2d`.

    Args:
        r: first value of the parameter ``r``: 0 is the mean, large values approach the max. Pinheiro and Collobert
            (2015) keep 5 fixed: ``pool.r.requires_grad_(False)`` does.
        granularity: ``"layer"``, one r, or ``"channel"``, one for each.
        channels: number of input channels; needed with ``granularity="channel"``.
        device, dtype: of the parameters, as torch's modules take them.

    Raises:
        TypeError: an option that is no number; in a call, an input of another dtype than the parameter.
        ValueError: an option out of range; in a call, another number of channels.
    """

    op, parameter = "lse", "r"

    def __init__(
        self,
        kernel_size: IntOrSizes | None,
        stride: IntOrSizes | None = None,
        padding: Padding = 0,
        dilation: IntOrSizes = 1,
        ceil_mode: bool = False,
        *,
        r: float = 1.0,
        granularity: str = "layer",
        channels: int | None = None,
        output_size: OutputSize = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, output_size=output_size)
        self._learn(number("r", r), granularity, channels, check_factory(device, dtype))


class _GeMPool(_LearnedMean):
    r"""Generalised-mean pooling with a learned exponent, :math:`y = (\frac1n \sum_i \max(x_i, \epsilon)^p)^{1/p}`.

    See :func:`poolnb.functional.gem_pool2d`.

    Args:
        p: first value of the parameter ``p``, greater than 0: 1 is the mean, large values approach the max.
        eps: smaller taps are raised to it; greater than 0.
        granularity: ``"layer"``, one p, or ``"channel"``, one for each.
        channels: number of input channels; needed with ``granularity="channel"``.
        device, dtype: of the parameters, as torch's modules take them.

    Raises:
        TypeError: an option that is no number; in a call, an input of another dtype than the parameter.
        ValueError: an option out of range; in a call, another number of channels.
    """

    op, parameter = "gem", "p"

    def __init__(
        self,
        kernel_size: IntOrSizes | None,
        stride: IntOrSizes | None = None,
        padding: Padding = 0,
        dilation: IntOrSizes = 1,
        ceil_mode: bool = False,
        *,
        p: float = 3.0,
        eps: float = 1e-6,
        granularity: str = "layer",
        channels: int | None = None,
        output_size: OutputSize = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, output_size=output_size)
        self.eps = number("eps", eps, low=0, strict=True)
        self._learn(number("p", p, low=0, strict=True), granularity, channels, check_factory(device, dtype))

    def params(self) -> dict[str, Any]:
        return {**super().params(), "eps": self.eps}

    def options(self) -> dict[str, Any]:
        return {**super().options(), "eps": self.eps}


class LSEPool1d(_LSEPool):
    dims = 1


class LSEPool2d(_LSEPool):
    dims = 2


class LSEPool3d(_LSEPool):
    dims = 3


class GeMPool1d(_GeMPool):
    dims = 1


class GeMPool2d(_GeMPool):
    dims = 2


class GeMPool3d(_GeMPool):
    dims = 3
