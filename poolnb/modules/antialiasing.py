"""Pooling that filters before it subsamples, as modules."""

from __future__ import annotations

from poolnb.modules._base import Pool

__all__ = [
    "BlurPool1d",
    "BlurPool2d",
    "BlurPool3d",
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


class BlurPool1d(_BlurPool):
    dims = 1


class BlurPool2d(_BlurPool):
    dims = 2


class BlurPool3d(_BlurPool):
    dims = 3
