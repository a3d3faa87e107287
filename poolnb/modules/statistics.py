"""Statistics of a window, as modules."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from poolnb._arguments import flag, number
from poolnb.geometry import IntOrSizes, OutputSize, Padding
from poolnb.modules._base import Device, Pool, check_factory, is_traced, record
from poolnb.modules.attention import AttentionPool1d, AttentionPool2d, AttentionPool3d, as_logits, shown

__all__ = [
    "StatsPool1d",
    "StatsPool2d",
    "StatsPool3d",
    "StdPool1d",
    "StdPool2d",
    "StdPool3d",
]


class _StdPool(Pool):
    r"""Standard deviation of the n valid taps, :math:`y = \sqrt{\frac1n \sum_i (x_i - m)^2 + \epsilon}`, m their mean.

    See :func:`poolnb.functional.std_pool2d`.

    Args:
        eps: added to the variance; greater than 0.

    Raises:
        TypeError: an option that is no number; in a call, an input or mask of the wrong type.
        ValueError: an option out of range; in a call, an input too small for one window.
    """

    op = "std"

    def __init__(
        self,
        kernel_size: IntOrSizes | None,
        stride: IntOrSizes | None = None,
        padding: Padding = 0,
        dilation: IntOrSizes = 1,
        ceil_mode: bool = False,
        *,
        eps: float = 1e-5,
        output_size: OutputSize = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, output_size=output_size)
        self.eps = number("eps", eps, low=0, strict=True)

    def params(self) -> dict[str, Any]:
        return {"eps": self.eps}

    def options(self) -> dict[str, Any]:
        return self.params()


class _StatsPool(Pool):
    r"""Statistics pooling: the mean :math:`m` of every window beside its standard deviation, C channels to 2C.

    See :func:`poolnb.functional.stats_pool2d`. Over all frames of a sequence, ``kernel_size=None`` and a mask, it is
    the layer of x-vectors (Snyder et al. 2018). With ``attention=True`` it is the attentive form of Okabe et al.
    (2018): mean and standard deviation under the weights of attention pooling, one logit per position, shared by the
    channels. They start equal, so that the layer starts as the plain one. :func:`poolnb.list_pools` leaves it out: it
    cannot take the place of a pool that keeps the number of channels.

    Args:
        attention: weigh the positions by a network, that of :class:`AttentionPool2d`.
        channels: number of input channels; needed with ``attention=True``.
        hidden: rows of the network's first layer; ``None``: half of the channels.
        eps: added to the variance; greater than 0.
        device, dtype: of the parameters, as torch's modules take them.

    Raises:
        TypeError: an option of the wrong type; in a call, an input of another dtype than the parameters.
        ValueError: an option out of range; in a call, another number of channels.
    """

    op, listed = "stats", False

    def __init__(
        self,
        kernel_size: IntOrSizes | None,
        stride: IntOrSizes | None = None,
        padding: Padding = 0,
        dilation: IntOrSizes = 1,
        ceil_mode: bool = False,
        *,
        attention: bool = False,
        channels: int | None = None,
        hidden: int | None = None,
        eps: float = 1e-5,
        output_size: OutputSize = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, output_size=output_size)
        self.eps = number("eps", eps, low=0, strict=True)
        factory = check_factory(device, dtype)
        self.attention = None
        if flag("attention", attention):
            if channels is None:
                raise ValueError("channels must be given with attention=True, got None")
            network = (AttentionPool1d, AttentionPool2d, AttentionPool3d)[self.dims - 1]
            self.attention = network(kernel_size, channels=channels, hidden=hidden, **factory)
            self.made_for = self.attention.made_for

    def reset_parameters(self) -> None:
        """Weigh all positions alike again."""
        if self.attention is not None:
            self.attention.reset_parameters()

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        if is_traced(self, input):
            return record(self, input, mask=mask)
        if self.attention is None:
            return self.pool(input, mask)
        # Parameters of float32 beside a half type are computed with in float32, as everywhere.
        x = shown(self.dims, input, *self.geometry(), mask, next(self.parameters()).dtype)
        self.check_fit(input)
        return self.pool(input, mask, logits=as_logits(self.attention.logits(x, mask), input))

    def params(self) -> dict[str, Any]:
        return {"eps": self.eps}

    def options(self) -> dict[str, Any]:
        if self.attention is None:
            return self.params()
        return {
            "attention": True,
            "channels": self.attention.channels,
            "hidden": self.attention.hidden,
            **self.params(),
        }


class StatsPool1d(_StatsPool):
    dims = 1


class StatsPool2d(_StatsPool):
    dims = 2


class StatsPool3d(_StatsPool):
    dims = 3


class StdPool1d(_StdPool):
    dims = 1


class StdPool2d(_StdPool):
    dims = 2


class StdPool3d(_StdPool):
    dims = 3
