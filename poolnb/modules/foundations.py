"""Max, average and Lp pooling as modules."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from poolnb._arguments import number
from poolnb.geometry import IntOrSizes
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


class _LpPool(Pool):
    """Lp pooling; see :func:`poolnb.functional.lp_pool2d`.

    Args:
        norm_type: p, greater than 0; a float (``math.inf`` included), or a :class:`torch.nn.Parameter`, 0-d or (C,), to
            learn it.
    """

    op = "lp"

    def __init__(
        self,
        kernel_size: IntOrSizes | None,
        stride: IntOrSizes | None = None,
        padding: IntOrSizes = 0,
        dilation: IntOrSizes = 1,
        ceil_mode: bool = False,
        *,
        norm_type: float | Tensor = 2.0,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode)
        if not isinstance(norm_type, Tensor) and norm_type != math.inf:
            number("norm_type", norm_type, low=0, strict=True)
        self.norm_type = norm_type

    def own(self) -> dict[str, Any]:
        return {"norm_type": self.norm_type}

    def options(self) -> dict[str, Any]:
        p = self.norm_type
        return {"norm_type": tuple(p.shape) if isinstance(p, Tensor) else p}


class MaxPool1d(_MaxPool, torch.nn.MaxPool1d):  # type: ignore[misc]
    dims = 1


class MaxPool2d(_MaxPool, torch.nn.MaxPool2d):  # type: ignore[misc]
    dims = 2


class MaxPool3d(_MaxPool, torch.nn.MaxPool3d):  # type: ignore[misc]
    dims = 3


class AvgPool1d(_AvgPool):
    dims = 1


class AvgPool2d(_AvgPool):
    dims = 2


class AvgPool3d(_AvgPool):
    dims = 3


class LpPool1d(_LpPool):
    dims = 1


class LpPool2d(_LpPool):
    dims = 2


class LpPool3d(_LpPool):
    dims = 3
