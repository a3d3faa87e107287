"""Max and average pooling as modules."""

from __future__ import annotations

import torch

from poolnb.modules._base import Pool


class _MaxPool(Pool):
    """Max pooling with a mask and global pooling; see :func:`poolnb.functional.max_pool2d`.

    An instance is one of :class:`torch.nn.MaxPool2d` as well, so that tools which look for that class find it.
    """

    op = "max"
    return_indices = False  # the one attribute of torch's class that has no counterpart here


class _AvgPool(Pool):
    """Average pooling over valid taps, with a mask and global pooling; see :func:`poolnb.functional.avg_pool2d`."""

    op = "avg"


class MaxPool1d(_MaxPool, torch.nn.MaxPool1d):
    dims = 1


class MaxPool2d(_MaxPool, torch.nn.MaxPool2d):
    dims = 2


class MaxPool3d(_MaxPool, torch.nn.MaxPool3d):
    dims = 3


class AvgPool1d(_AvgPool):
    dims = 1


class AvgPool2d(_AvgPool):
    dims = 2


class AvgPool3d(_AvgPool):
    dims = 3
