"""What all pooling modules share."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from poolnb import functional
from poolnb.geometry import IntOrSizes

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
