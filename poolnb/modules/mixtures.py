"""Learned mixtures as modules: mixed, gated and tree pooling (Lee, Gallagher and Tu 2016), adaptive pooling."""

from __future__ import annotations

import math
from typing import Any

import torch

from poolnb._arguments import flag, number
from poolnb.geometry import IntOrSizes, OutputSize, Padding
from poolnb.modules._base import Device, Pool, check_factory, count_taps, needed_for, parameter_shape

__all__ = [
    "AdaPool1d",
    "AdaPool2d",
    "AdaPool3d",
    "EDSCWPool1d",
    "EDSCWPool2d",
    "EDSCWPool3d",
    "GatedPool1d",
    "GatedPool2d",
    "GatedPool3d",
    "MixedPool1d",
    "MixedPool2d",
    "MixedPool3d",
    "TreePool1d",
    "TreePool2d",
    "TreePool3d",
]


class _LearnedShare(Pool):
    """Two poolings, mixed by a share in (0, 1) that is learned as its logit ``lam``."""

    share: str  # the share's name among the operator's arguments

    def _learn(
        self,
        first: float,
        granularity: str,
        channels: int | None,
        output_size: OutputSize,
        device: Device,
        dtype: torch.dtype | None,
    ) -> None:
        shape = parameter_shape(self.dims, granularity, ("layer", "channel", "position"), channels, output_size)
        setattr(self, self.share, number(self.share, first, low=0, high=1, strict=True))
        self.granularity, self.channels, self.output_size, self.made_for = granularity, channels, output_size, shape
        self.lam = torch.nn.Parameter(torch.empty(shape, **check_factory(device, dtype)))
        self.reset_parameters()

    @classmethod
    def needs(cls, **params: Any) -> tuple[str, ...]:
        return needed_for(params.get("granularity", "layer"))

    def reset_parameters(self) -> None:
        """Give the share its first value again."""
        first = getattr(self, self.share)
        torch.nn.init.constant_(self.lam, math.log(first / (1 - first)))

    def params(self) -> dict[str, Any]:
        return {self.share: self.lam.sigmoid()}

    def options(self) -> dict[str, Any]:
        shown = {self.share: getattr(self, self.share), "granularity": self.granularity}
        return shown if self.granularity == "layer" else {**shown, "lam": tuple(self.lam.shape)}


class _MixedPool(_LearnedShare):
    r"""Mixed pooling with a learned share, :math:`y = \alpha \max_i x_i + (1-\alpha) \frac1n \sum_i x_i`.

    The parameter is ``lam``, with :math:`\alpha = \sigma(\mathrm{lam})`. See :func:`poolnb.functional.mixed_pool2d`.

    Args:
        alpha: first value of the share, in (0, 1).
        granularity: one share for the ``"layer"``, per ``"channel"``, or per channel and output ``"position"``.
        channels: number of input channels; needed with ``"channel"`` and ``"position"``.
        output_size: spatial output size, an int or one per dimension; needed with ``"position"``. With
            ``kernel_size=None`` it says which windows there are as well.
        device, dtype: of the parameters, as torch's modules take them.

    Raises:
        TypeError: an option of the wrong type; in a call, an input of another dtype than the parameter.
        ValueError: an option out of range; in a call, another number of channels or another output size.
    """

    op, share = "mixed", "alpha"

    def __init__(
        self,
        kernel_size: IntOrSizes | None,
        stride: IntOrSizes | None = None,
        padding: Padding = 0,
        dilation: IntOrSizes = 1,
        ceil_mode: bool = False,
        *,
        alpha: float = 0.5,
        granularity: str = "layer",
        channels: int | None = None,
        output_size: OutputSize = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        windows = output_size if kernel_size is None else None
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, output_size=windows)
        self._learn(alpha, granularity, channels, output_size, device, dtype)


class _GatedPool(Pool):
    r"""Gated pooling: :math:`y = s \max_i x_i + (1-s) \frac1n \sum_i x_i`, :math:`s = \sigma(\sum_i w_i x_i + b)`.

    See :func:`poolnb.functional.gated_pool2d`.

    The parameters are ``weight``, drawn from a normal distribution of standard deviation 0.1, and ``bias``, 0 at first.

    Args:
        kernel_size: has to be given, since every tap has a weight.
        granularity: ``"layer"``, one mask as in the paper, or ``"channel"``, one for each.
        channels: number of input channels; needed with ``granularity="channel"``.
        bias: learn an offset of the gate as well, which the paper does not have.
        device, dtype: of the parameters, as torch's modules take them.

    Raises:
        TypeError: an option of the wrong type; in a call, an input of another dtype than the parameters.
        ValueError: no ``kernel_size``, or an option out of range; in a call, another number of channels.
    """

    op = "gated"

    def __init__(
        self,
        kernel_size: IntOrSizes | None,
        stride: IntOrSizes | None = None,
        padding: Padding = 0,
        dilation: IntOrSizes = 1,
        ceil_mode: bool = False,
        *,
        granularity: str = "layer",
        channels: int | None = None,
        bias: bool = False,
        output_size: OutputSize = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, output_size=output_size)
        shape = parameter_shape(self.dims, granularity, ("layer", "channel"), channels)
        self.granularity, self.channels, self.made_for = granularity, channels, shape
        factory = check_factory(device, dtype)
        self.weight = torch.nn.Parameter(torch.empty(*shape, count_taps(self.dims, kernel_size), **factory))
        self.bias = torch.nn.Parameter(torch.empty(shape, **factory)) if flag("bias", bias) else None
        self.reset_parameters()

    @classmethod
    def needs(cls, **params: Any) -> tuple[str, ...]:
        return ("channels",) if params.get("granularity") == "channel" else ()

    def reset_parameters(self) -> None:
        """Draw the weights again."""
        torch.nn.init.normal_(self.weight, std=0.1)
        if self.bias is not None:
            torch.nn.init.zeros_(self.bias)

    def params(self) -> dict[str, Any]:
        return {"weight": self.weight, "bias": self.bias}

    def options(self) -> dict[str, Any]:
        given = {"granularity": self.granularity} if self.granularity == "layer" else {"channels": self.channels}
        return {**given, "bias": self.bias is not None}


class _TreePool(Pool):
    r"""Tree pooling: learned filters :math:`\langle v_j, x\rangle`, blended by gates :math:`\sigma(\langle\omega,
    x\rangle)` on their way up a binary tree. See :func:`poolnb.functional.tree_pool2d`.

    The parameters are ``leaves`` and ``gates``, shared by all channels. Leaves start as the mean plus noise, gates as
    noise, from a normal distribution of standard deviation 0.1; so the layer starts near average pooling.

    Args:
        kernel_size: has to be given, since every tap has a weight.
        n_leaves: 2 or 4.
        device, dtype: of the parameters, as torch's modules take them.

    Raises:
        TypeError: a size that is no int; in a call, an input of another dtype than the parameters.
        ValueError: no ``kernel_size``, or an option out of range.
    """

    op = "tree"

    def __init__(
        self,
        kernel_size: IntOrSizes | None,
        stride: IntOrSizes | None = None,
        padding: Padding = 0,
        dilation: IntOrSizes = 1,
        ceil_mode: bool = False,
        *,
        n_leaves: int = 4,
        output_size: OutputSize = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, output_size=output_size)
        if n_leaves not in (2, 4) or not isinstance(n_leaves, int):
            raise ValueError(f"n_leaves must be 2 or 4, got {n_leaves!r}")
        taps, factory = count_taps(self.dims, kernel_size), check_factory(device, dtype)
        self.leaves = torch.nn.Parameter(torch.empty(n_leaves, taps, **factory))
        self.gates = torch.nn.Parameter(torch.empty(n_leaves - 1, taps, **factory))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw leaves and gates again."""
        torch.nn.init.normal_(self.leaves, mean=1 / self.leaves.size(1), std=0.1)
        torch.nn.init.normal_(self.gates, std=0.1)

    def params(self) -> dict[str, Any]:
        return {"leaves": self.leaves, "gates": self.gates}

    def options(self) -> dict[str, Any]:
        return {"n_leaves": self.leaves.size(0)}


class _AdaPool(_LearnedShare):
    r"""Adaptive pooling with a learned share, :math:`y = \beta \sum_i u_i x_i + (1-\beta) \sum_i w_i x_i`.

    u weighs taps by how near they are to their mean, w by how large they are. See
    :func:`poolnb.functional.ada_pool2d`.

    The parameter is ``lam``, with :math:`\beta = \sigma(\mathrm{lam})`.

    Args:
        beta: first value of the share, in (0, 1).
        granularity: one share for the ``"layer"``, per ``"channel"``, or per channel and output ``"position"``.
        channels: number of input channels; needed with ``"channel"`` and ``"position"``.
        output_size: spatial output size, an int or one per dimension; needed with ``"position"``.
        semi_grad: hold the weights constant in the gradient, as the published code does.
        device, dtype: of the parameters, as torch's modules take them.

    Raises:
        TypeError: an option of the wrong type; in a call, an input of another dtype than the parameter.
        ValueError: an option out of range; in a call, another number of channels or another output size.
    """

    op, share = "ada", "beta"

    def __init__(
        self,
        kernel_size: IntOrSizes | None,
        stride: IntOrSizes | None = None,
        padding: Padding = 0,
        dilation: IntOrSizes = 1,
        ceil_mode: bool = False,
        *,
        beta: float = 0.5,
        granularity: str = "layer",
        channels: int | None = None,
        output_size: OutputSize = None,
        semi_grad: bool = False,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        windows = output_size if kernel_size is None else None
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, output_size=windows)
        self._learn(beta, granularity, channels, output_size, device, dtype)
        self.semi_grad = flag("semi_grad", semi_grad)

    def params(self) -> dict[str, Any]:
        return {**super().params(), "semi_grad": self.semi_grad}

    def options(self) -> dict[str, Any]:
        return {**super().options(), "semi_grad": self.semi_grad}


class _EDSCWPool(Pool):
    r"""Adaptive pooling by nearness alone: :math:`y = \sum_i u_i x_i`, u the softmax of how near the taps are to their
    mean. See :func:`poolnb.functional.edscw_pool2d`.

    Args:
        semi_grad: hold the weights constant in the gradient, as the published code does.

    Raises:
        TypeError: an option of the wrong type.
        ValueError: a size out of range.
    """

    op = "edscw"

    def __init__(
        self,
        kernel_size: IntOrSizes | None,
        stride: IntOrSizes | None = None,
        padding: Padding = 0,
        dilation: IntOrSizes = 1,
        ceil_mode: bool = False,
        *,
        semi_grad: bool = False,
        output_size: OutputSize = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, output_size=output_size)
        self.semi_grad = flag("semi_grad", semi_grad)

    def params(self) -> dict[str, Any]:
        return {"semi_grad": self.semi_grad}

    def options(self) -> dict[str, Any]:
        return self.params()


class MixedPool1d(_MixedPool):
    dims = 1


class MixedPool2d(_MixedPool):
    dims = 2


class MixedPool3d(_MixedPool):
    dims = 3


class GatedPool1d(_GatedPool):
    dims = 1


class GatedPool2d(_GatedPool):
    dims = 2


class GatedPool3d(_GatedPool):
    dims = 3


class TreePool1d(_TreePool):
    dims = 1


class TreePool2d(_TreePool):
    dims = 2


class TreePool3d(_TreePool):
    dims = 3


class AdaPool1d(_AdaPool):
    dims = 1


class AdaPool2d(_AdaPool):
    dims = 2


class AdaPool3d(_AdaPool):
    dims = 3


class EDSCWPool1d(_EDSCWPool):
    dims = 1


class EDSCWPool2d(_EDSCWPool):
    dims = 2


class EDSCWPool3d(_EDSCWPool):
    dims = 3
