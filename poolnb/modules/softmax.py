"""Softmax-weighted pooling as modules."""

from __future__ import annotations

from typing import Any

import torch

from poolnb._arguments import flag, number
from poolnb.geometry import IntOrSizes, OutputSize, Padding
from poolnb.modules._base import Device, Pool, check_factory, parameter_shape

__all__ = [
    "AutoPool1d",
    "AutoPool2d",
    "AutoPool3d",
    "SWAP1d",
    "SWAP2d",
    "SWAP3d",
    "SoftPool1d",
    "SoftPool2d",
    "SoftPool3d",
]


class _SoftPool(Pool):
    r"""SoftPool, or SWAP: :math:`y = \sum_i w_i x_i`, :math:`w = \mathrm{softmax}(\beta x)` in the window.

    See :func:`poolnb.functional.soft_pool2d`.

    Args:
        beta: inverse temperature, a float. For a learned one see AutoPool.
        semi_grad: use the weights alone as the derivative, as the CUDA code published with SoftPool does.

    Raises:
        TypeError: a ``beta`` that is no number, a ``semi_grad`` that is no bool.
        ValueError: a ``beta`` that is not finite.
    """

    op = "soft"

    def __init__(
        self,
        kernel_size: IntOrSizes | None,
        stride: IntOrSizes | None = None,
        padding: Padding = 0,
        dilation: IntOrSizes = 1,
        ceil_mode: bool = False,
        *,
        beta: float = 1.0,
        semi_grad: bool = False,
        output_size: OutputSize = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, output_size=output_size)
        self.beta, self.semi_grad = number("beta", beta), flag("semi_grad", semi_grad)

    def params(self) -> dict[str, Any]:
        return {"beta": self.beta, "semi_grad": self.semi_grad}

    def options(self) -> dict[str, Any]:
        return self.params()


class _AutoPool(Pool):
    r"""AutoPool (McFee et al. 2018): softmax-weighted pooling with a learned sharpness per channel.

    :math:`y = \sum_i w_i x_i`, :math:`w = \mathrm{softmax}(\alpha x)`. At alpha = 0, where it starts, this is the mean,
    at 1 SoftPool, and for large alpha the max. See :func:`poolnb.functional.soft_pool2d`, where alpha is called beta.
    The paper pools a whole recording: ``kernel_size=None``, with a mask for sequences of different lengths.

    Args:
        channels: number of input channels, a keyword. One alpha is learned for each.
        device, dtype: of the parameters, as torch's modules take them.

    Raises:
        TypeError: a ``channels`` that is no int; in a call, an input of another dtype than the parameter.
        ValueError: a ``channels`` below 1; in a call, another number of channels.
    """

    op = "soft"

    def __init__(
        self,
        kernel_size: IntOrSizes | None,
        stride: IntOrSizes | None = None,
        padding: Padding = 0,
        dilation: IntOrSizes = 1,
        ceil_mode: bool = False,
        *,
        channels: int,
        output_size: OutputSize = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, output_size=output_size)
        self.made_for = parameter_shape(self.dims, "channel", ("channel",), channels)
        self.alpha = torch.nn.Parameter(torch.empty(self.made_for, **check_factory(device, dtype)))
        self.channels = channels
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as the mean again."""
        torch.nn.init.zeros_(self.alpha)

    def params(self) -> dict[str, Any]:
        return {"beta": self.alpha}

    def options(self) -> dict[str, Any]:
        return {"channels": self.channels}


class SoftPool1d(_SoftPool):
    dims = 1


class SoftPool2d(_SoftPool):
    dims = 2


class SoftPool3d(_SoftPool):
    dims = 3


# The same operator under its other name.
SWAP1d, SWAP2d, SWAP3d = SoftPool1d, SoftPool2d, SoftPool3d


class AutoPool1d(_AutoPool):
    dims = 1


class AutoPool2d(_AutoPool):
    dims = 2


class AutoPool3d(_AutoPool):
    dims = 3
