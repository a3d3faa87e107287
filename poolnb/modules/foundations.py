"""Max and average pooling as modules."""

from __future__ import annotations

from poolnb.modules._base import Pool


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
