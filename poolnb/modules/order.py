"""Order statistics as modules: rank pooling and quantiles."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from poolnb._arguments import check_range, number
from poolnb.geometry import IntOrSizes, OutputSize, Padding
from poolnb.modules._base import Device, Pool, check_factory, count_taps, parameter_shape

__all__ = [
    "QuantilePool1d",
    "QuantilePool2d",
    "QuantilePool3d",
    "RankPool1d",
    "RankPool2d",
    "RankPool3d",
]


class _RankPool(Pool):
    r"""Rank pooling with learned weights, :math:`y = \sum_{r \le n} w_r x_{(r)} / \sum_{r \le n} w_r`.

    See :func:`poolnb.functional.rank_pool2d`.

    The parameter is ``theta``, with :math:`w = \mathrm{softmax}(\mathrm{theta})` over the ranks; it is 0 at first, so
    that the layer starts as the mean.

    Args:
        kernel_size: has to be given, since every rank has a weight.
        granularity: ``"layer"``, the same weights for all channels, or ``"channel"``, one row for each.
        channels: number of input channels; needed with ``granularity="channel"``.
        device, dtype: of the parameters, as torch's modules take them.

    Raises:
        TypeError: a size that is no int; in a call, an input of another dtype than the parameter.
        ValueError: no ``kernel_size``, or an option out of range; in a call, another number of channels.
    """

    op = "rank"

    def __init__(
        self,
        kernel_size: IntOrSizes | None,
        stride: IntOrSizes | None = None,
        padding: Padding = 0,
        dilation: IntOrSizes = 1,
        ceil_mode: bool = False,
        *,
        granularity: str = "layer",
        channels: int | None = None,
        output_size: OutputSize = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, output_size=output_size)
        shape = parameter_shape(self.dims, granularity, ("layer", "channel"), channels)
        self.granularity, self.channels, self.made_for = granularity, channels, shape
        taps, factory = count_taps(self.dims, kernel_size), check_factory(device, dtype)
        self.theta = torch.nn.Parameter(torch.empty(*shape, taps, **factory))
        self.reset_parameters()

    @classmethod
    def needs(cls, **params: Any) -> tuple[str, ...]:
        return ("channels",) if params.get("granularity") == "channel" else ()

    def reset_parameters(self) -> None:
        """Give all ranks the same weight again."""
        torch.nn.init.zeros_(self.theta)

    def params(self) -> dict[str, Any]:
        return {"weight": self.theta.softmax(-1)}

    def options(self) -> dict[str, Any]:
        return {"granularity": self.granularity} if self.granularity == "layer" else {"channels": self.channels}


class _QuantilePool(Pool):
    r"""Quantile pooling: :math:`y = (1 - f)\,a + f\,b` between the two taps beside rank :math:`q (n - 1)`.

    See :func:`poolnb.functional.quantile_pool2d`.

    Args:
        q: in [0, 1]; 0 gives the min, 0.5 the median, 1 the max. A float, or a tensor, 0-d or (C,): a buffer, or to
            learn it a :class:`torch.nn.Parameter`.

    Raises:
        TypeError: a ``q`` that is no real number, or a tensor that is not of a floating dtype.
        ValueError: a ``q`` that is not in [0, 1], or a tensor of another shape.
    """

    op = "quantile"

    def __init__(
        self,
        kernel_size: IntOrSizes | None,
        stride: IntOrSizes | None = None,
        padding: Padding = 0,
        dilation: IntOrSizes = 1,
        ceil_mode: bool = False,
        *,
        q: float | Tensor = 0.5,
        output_size: OutputSize = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, output_size=output_size)
        if isinstance(q, Tensor):
            _check_quantile(q)
        else:
            number("q", q, low=0, high=1)
        if isinstance(q, Tensor) and not isinstance(q, torch.nn.Parameter):
            self.register_buffer("q", q)
        else:
            self.q = q

    def params(self) -> dict[str, Any]:
        return {"q": self.q}

    def options(self) -> dict[str, Any]:
        return {"q": tuple(self.q.shape) if isinstance(self.q, Tensor) else self.q}


def _check_quantile(q: Tensor) -> None:
    """What can be said of a tensor before an input is there."""
    if not q.is_floating_point():
        raise TypeError(f"q must be a real number or a tensor of a floating dtype, got dtype {q.dtype}")
    if q.dim() > 1 or q.numel() == 0:
        raise ValueError(f"q must be 0-d or have shape (C,), got shape {tuple(q.shape)}")
    check_range("q", q, low=0, high=1)


class RankPool1d(_RankPool):
    dims = 1


class RankPool2d(_RankPool):
    dims = 2


class RankPool3d(_RankPool):
    dims = 3


class QuantilePool1d(_QuantilePool):
    dims = 1


class QuantilePool2d(_QuantilePool):
    dims = 2


class QuantilePool3d(_QuantilePool):
    dims = 3
