"""Pooling that filters before it subsamples, as modules."""

from __future__ import annotations

from typing import Any

from poolnb.geometry import IntOrSizes, OutputSize, Padding, per_dim
from poolnb.modules._base import Pool

__all__ = [
    "BlurPool1d",
    "BlurPool2d",
    "BlurPool3d",
    "MaxBlurPool1d",
    "MaxBlurPool2d",
    "MaxBlurPool3d",
]


class _BlurPool(Pool):
    r"""Blur pooling, :math:`y = \sum_i b_i x_i / \sum_i b_i` with binomial weights b.

    See :func:`poolnb.functional.blur_pool2d`. ``BlurPool2d(3, 2, padding=1)`` is the filter 1 2 1 at every second
    position.

    Raises:
        TypeError: a size that is no int; in a call, an input or mask of the wrong type.
        ValueError: a size out of range; in a call, an input too small for one window.
    """

    op = "blur"


class _MaxBlurPool(Pool):
    r"""Max-blur pooling, :math:`y = \sum_j b_j m_j / \sum_j b_j`: m is max pooling with stride 1, b a binomial filter.

    See :func:`poolnb.functional.maxblur_pool2d`.

    Args:
        blur_size: taps of the filter in every dimension, at least 1.

    Raises:
        TypeError: a size that is no int; in a call, an input or mask of the wrong type.
        ValueError: a size out of range; in a call, an input too small for one window.
    """

    op = "maxblur"

    def __init__(
        self,
        kernel_size: IntOrSizes | None,
        stride: IntOrSizes | None = None,
        padding: Padding = 0,
        dilation: IntOrSizes = 1,
        ceil_mode: bool = False,
        *,
        blur_size: int = 3,
        output_size: OutputSize = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, output_size=output_size)
        (self.blur_size,) = per_dim("blur_size", blur_size, 1, least=1)

    def params(self) -> dict[str, Any]:
        return {"blur_size": self.blur_size}

    def options(self) -> dict[str, Any]:
        return self.params()


class BlurPool1d(_BlurPool):
    dims = 1


class BlurPool2d(_BlurPool):
    dims = 2


class BlurPool3d(_BlurPool):
    dims = 3


class MaxBlurPool1d(_MaxBlurPool):
    dims = 1


class MaxBlurPool2d(_MaxBlurPool):
    dims = 2


class MaxBlurPool3d(_MaxBlurPool):
    dims = 3
