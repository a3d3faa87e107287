"""Max, average and Lp pooling as modules."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from poolnb._arguments import check_range, flag, number
from poolnb.geometry import IntOrSizes, OutputSize, Padding
from poolnb.modules._base import Pool

__all__ = [
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "LpPool1d",
    "LpPool2d",
    "LpPool3d",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
]


class _MaxPool(Pool):
    r"""Max pooling, :math:`y = \max_i x_i`, with a mask and global pooling; see :func:`poolnb.functional.max_pool2d`.

    An instance is one of :class:`torch.nn.MaxPool2d` as well, so that tools which look for that class find it.

    Args:
        return_indices: a call returns ``(output, indices)``, for :class:`torch.nn.MaxUnpool2d`.

    Raises:
        TypeError: a size that is no int, a ``return_indices`` that is no bool; in a call, an input or mask of the wrong
            type.
        ValueError: a size out of range; in a call, an input too small for one window, a mask that does not broadcast.
    """

    op = "max"

    if TYPE_CHECKING:  # one tensor or two

        def __call__(self, input: Tensor, mask: Tensor | None = None) -> Any: ...

    def __init__(
        self,
        kernel_size: IntOrSizes | None,
        stride: IntOrSizes | None = None,
        padding: Padding = 0,
        dilation: IntOrSizes = 1,
        ceil_mode: bool = False,
        *,
        return_indices: bool = False,
        output_size: OutputSize = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, output_size=output_size)
        self.return_indices = flag("return_indices", return_indices)

    def params(self) -> dict[str, Any]:
        return {"return_indices": True} if self.return_indices else {}

    def options(self) -> dict[str, Any]:
        return self.params()


class _AvgPool(Pool):
    r"""Average pooling, :math:`y = \frac1n \sum_i x_i` over the n valid taps; see :func:`poolnb.functional.avg_pool2d`.

    It takes a mask, a dilation and ``kernel_size=None``, and padding never counts.

    Raises:
        TypeError: a size that is no int; in a call, an input or mask of the wrong type.
        ValueError: a size out of range; in a call, an input too small for one window, a mask that does not broadcast.
    """

    op = "avg"


class _LpPool(Pool):
    r"""Lp pooling, :math:`y = (\sum_i |x_i|^p)^{1/p}`; see :func:`poolnb.functional.lp_pool2d`.

    Args:
        norm_type: p, greater than 0; a float (``math.inf`` included), or a tensor, 0-d or (C,): a buffer, or to learn
            it a :class:`torch.nn.Parameter`.

    Raises:
        TypeError: a ``norm_type`` that is no real number, or a tensor that is not of a floating dtype.
        ValueError: a ``norm_type`` that is not greater than 0, or a tensor of another shape.
    """

    op = "lp"

    def __init__(
        self,
        kernel_size: IntOrSizes | None,
        stride: IntOrSizes | None = None,
        padding: Padding = 0,
        dilation: IntOrSizes = 1,
        ceil_mode: bool = False,
        *,
        norm_type: float | Tensor = 2.0,
        output_size: OutputSize = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, output_size=output_size)
        if isinstance(norm_type, Tensor):
            _check_norm(norm_type)
        elif norm_type != math.inf:
            number("norm_type", norm_type, low=0, strict=True)
        if isinstance(norm_type, Tensor) and not isinstance(norm_type, torch.nn.Parameter):
            self.register_buffer("norm_type", norm_type)
        else:
            self.norm_type = norm_type

    def params(self) -> dict[str, Any]:
        return {"norm_type": self.norm_type}

    def options(self) -> dict[str, Any]:
        p = self.norm_type
        return {"norm_type": tuple(p.shape) if isinstance(p, Tensor) else p}


def _check_norm(norm_type: Tensor) -> None:
    """What can be said of a tensor before an input is there."""
    if not norm_type.is_floating_point():
        raise TypeError(f"norm_type must be a real number or a tensor of a floating dtype, got dtype {norm_type.dtype}")
    if norm_type.dim() > 1 or norm_type.numel() == 0:
        raise ValueError(f"norm_type must be 0-d or have shape (C,), got shape {tuple(norm_type.shape)}")
    check_range("norm_type", norm_type, low=0, strict=True, allow_inf=True)


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
