"""Softmax-weighted pooling as modules."""

from __future__ import annotations

from typing import Any

from poolnb.geometry import IntOrSizes
from poolnb.modules._base import Pool


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


class SoftPool1d(_SoftPool):
    dims = 1


class SoftPool2d(_SoftPool):
    dims = 2


class SoftPool3d(_SoftPool):
    dims = 3


# The same operator under its other name.
SWAP1d, SWAP2d, SWAP3d = SoftPool1d, SoftPool2d, SoftPool3d
