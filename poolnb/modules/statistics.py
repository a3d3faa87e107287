"""Statistics of a window, as modules."""

from __future__ import annotations

from typing import Any

from poolnb._arguments import number
from poolnb.geometry import IntOrSizes
from poolnb.modules._base import Pool

__all__ = [
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
        padding: IntOrSizes = 0,
        dilation: IntOrSizes = 1,
        ceil_mode: bool = False,
        *,
        eps: float = 1e-5,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode)
        self.eps = number("eps", eps, low=0, strict=True)

    def own(self) -> dict[str, Any]:
        return {"eps": self.eps}

    def options(self) -> dict[str, Any]:
        return self.own()


class StdPool1d(_StdPool):
    dims = 1


class StdPool2d(_StdPool):
    dims = 2


class StdPool3d(_StdPool):
    dims = 3
