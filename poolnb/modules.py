"""The poolers as ``torch.nn`` modules. Each holds its geometry and calls the function of the same name."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from poolnb import functional
from poolnb.geometry import IntOrSizes

__all__ = [
    f"{name}{dims}d" for name in ("MaxPool", "AvgPool", "SoftPool", "SWAP") for dims in (1, 2, 3)
]

_GEOMETRY_DEFAULTS: dict[str, Any] = {"stride": None, "padding": 0, "dilation": 1, "ceil_mode": False}


class Pool(torch.nn.Module):
    """Base of the poolers: geometry, ``extra_repr``, and the call of the operator's function.

    A subclass names its operator in ``op``, its number of spatial dimensions in ``dims``, and gives the operator's own
    arguments in :meth:`own`.
    """

    op: ClassVar[str]
    dims: ClassVar[int]

    def __init__(
        self,
        kernel_size: IntOrSizes | None,
        stride: IntOrSizes | None = None,
        padding: IntOrSizes = 0,
        dilation: IntOrSizes = 1,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.dilation, self.ceil_mode = dilation, ceil_mode

    def own(self) -> dict[str, Any]:
        """The operator's own arguments for the next call."""
        return {}

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        function = getattr(functional, f"{self.op}_pool{self.dims}d")
        geometry = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)
        return function(input, *geometry, **self.own(), mask=mask)

    def options(self) -> dict[str, Any]:
        """What :meth:`extra_repr` shows besides the geometry."""
        return {}

    def extra_repr(self) -> str:
        given = {k: getattr(self, k) for k, default in _GEOMETRY_DEFAULTS.items() if getattr(self, k) != default}
        shown = {"kernel_size": self.kernel_size, **given, **self.options()}
        return ", ".join(f"{k}={v!r}" for k, v in shown.items())


class _SoftPool(Pool):
    """Softmax-weighted pooling with a fixed ``beta``; see :func:`poolnb.functional.soft_pool2d`.

    Args:
        beta: inverse temperature, a float. For a learned one see AutoPool.
        semi_grad: use the weights alone as the derivative, as the CUDA code published with SoftPool does.
    """

    op = "soft"

    def __init__(
        self,
        kernel_size: IntOrSizes | None,
        stride: IntOrSizes | None = None,
        padding: IntOrSizes = 0,
        dilation: IntOrSizes = 1,
        ceil_mode: bool = False,
        *,
        beta: float = 1.0,
        semi_grad: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode)
        self.beta, self.semi_grad = beta, semi_grad

    def own(self) -> dict[str, Any]:
        return {"beta": self.beta, "semi_grad": self.semi_grad}

    def options(self) -> dict[str, Any]:
        return self.own()


class _MaxPool(Pool):
    """Max pooling with a mask and global pooling; see :func:`poolnb.functional.max_pool2d`."""

    op = "max"


class _AvgPool(Pool):
    """Average pooling over valid taps, with a mask and global pooling; see :func:`poolnb.functional.avg_pool2d`."""

    op = "avg"


class MaxPool1d(_MaxPool):
    dims = 1


class MaxPool2d(_MaxPool):
    dims = 2


class MaxPool3d(_MaxPool):
    dims = 3


class AvgPool1d(_AvgPool):
    dims = 1


class AvgPool2d(_AvgPool):
    dims = 2


class AvgPool3d(_AvgPool):
    dims = 3


class SoftPool1d(_SoftPool):
    dims = 1


class SoftPool2d(_SoftPool):
    dims = 2


class SoftPool3d(_SoftPool):
    dims = 3


# The same operator under its other name.
SWAP1d, SWAP2d, SWAP3d = SoftPool1d, SoftPool2d, SoftPool3d
