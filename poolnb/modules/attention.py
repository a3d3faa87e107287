"""Weighted pooling as modules that compute the weights from the input: LIP and attention pooling."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from poolnb._arguments import check, flag, number
from poolnb.functional._dimensions import overridable
from poolnb.geometry import IntOrSizes, OutputSize, Padding, per_dim
from poolnb.modules._base import Device, Pool, check_factory, is_traced, record
from poolnb.ops.checks import ACC_DTYPES
from poolnb.ops.taps import all_finite, finite

__all__ = [
    "AttentionPool1d",
    "AttentionPool2d",
    "AttentionPool3d",
    "LIPPool1d",
    "LIPPool2d",
    "LIPPool3d",
]


class _Weighted(Pool):
    """Weighted pooling whose logits are a function of the input. Masked positions do not reach that function."""

    op = "weighted"

    def logits(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits of a batched input: in its shape, or (N, 1, *spatial). The mask broadcasts to the input."""
        raise NotImplementedError

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        if is_traced(self, input):
            return record(self, input, mask=mask)
        # Parameters of float32 beside a half type are computed with in float32, as everywhere.
        x = shown(self.dims, input, *self.geometry(), mask, next(self.parameters()).dtype)
        self.check_fit(input)
        return self.pool(input, mask, logits=as_logits(self.logits(x, mask), input))

    def options(self) -> dict[str, Any]:
        return {"channels": self.channels}


@overridable
def shown(dims: int, input: Tensor, *arguments: Any) -> Tensor:
    """What the network sees: the checked input with a batch dimension, in the network's dtype.

    It is 0 at masked positions, and where it is infinite: an infinite tap has all of the weight or none, whatever its
    logit, and the logits of others are not to be inf - inf.
    """
    *geometry_and_mask, dtype = arguments
    call = check(dims, input, *geometry_and_mask)
    x = call.input if call.mask is None else call.input.masked_fill(~call.mask, 0)
    return (x if all_finite(x) else finite(x)).to(dtype)


@overridable
def as_logits(answer: Tensor, input: Tensor) -> Tensor:
    """The network's answer in the dtype of sums, which autocast may have left, and batched where the input is."""
    logits = answer.to(ACC_DTYPES[input.dtype])
    return logits if input.dim() == logits.dim() else logits.squeeze(0)


class _LIPPool(_Weighted):
    r"""Local importance pooling (Gao et al. 2019): a small network says how much each input element counts.

    :math:`y = \sum_i w_i x_i` with :math:`w = \mathrm{softmax}(l)` over the window and
    :math:`l = 12\,\sigma(\gamma \hat{c} + \beta)`, :math:`\hat{c}` being a convolution of the input, normalised per
    sample and channel; gamma (``weight``) and beta (``bias``) are learned. gamma starts at 0, so that all logits are
    equal and the layer starts as the mean. With a mask the normalisation counts valid positions only.
    See :func:`poolnb.functional.weighted_pool2d`.

    Args:
        channels: number of input channels, a keyword.
        logit_kernel: kernel size of the convolution, odd.
        scale: the largest logit, 12 in the formula; no weight exceeds another of its window by more than exp(scale).
        device, dtype: of the parameters, as torch's modules take them.

    Raises:
        TypeError: an option of the wrong type; in a call, an input of another dtype than the parameters.
        ValueError: an option out of range, such as an even ``logit_kernel``; in a call, another number of channels.
    """

    def __init__(
        self,
        kernel_size: IntOrSizes | None,
        stride: IntOrSizes | None = None,
        padding: Padding = 0,
        dilation: IntOrSizes = 1,
        ceil_mode: bool = False,
        *,
        channels: int,
        logit_kernel: int = 3,
        scale: float = 12.0,
        output_size: OutputSize = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, output_size=output_size)
        (self.channels,) = self.made_for = per_dim("channels", channels, 1, least=1)
        (width,) = per_dim("logit_kernel", logit_kernel, 1, least=1)
        if width % 2 == 0:
            raise ValueError(f"logit_kernel must be odd, got {width}")
        self.scale = number("scale", scale, low=0, strict=True)
        factory = check_factory(device, dtype)
        convolution = getattr(nn, f"Conv{self.dims}d")
        shape = (self.channels, self.channels, width)
        self.convolution = convolution(*shape, padding=width // 2, bias=False, **factory)
        self.weight = nn.Parameter(torch.zeros(self.channels, **factory))
        self.bias = nn.Parameter(torch.zeros(self.channels, **factory))

    def reset_parameters(self) -> None:
        """Start as the mean again."""
        self.convolution.reset_parameters()
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def logits(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        normal = _normalised(self.convolution(input), mask)
        shape = (-1, *(1,) * self.dims)
        return self.scale * torch.sigmoid(normal * self.weight.view(shape) + self.bias.view(shape))

    def options(self) -> dict[str, Any]:
        return {"channels": self.channels, "scale": self.scale}


@overridable
def _normalised(x: Tensor, mask: Tensor | None, eps: float = 1e-5) -> Tensor:
    """Mean 0 and variance 1 over the valid positions of every sample and channel; for a single position 0."""
    x = x.to(ACC_DTYPES[x.dtype])
    axes = tuple(range(2, x.dim()))
    if mask is None:
        centred = x - x.mean(axes, keepdim=True)
        return centred * (centred.square().mean(axes, keepdim=True) + eps).rsqrt()
    count = mask.expand_as(x).sum(axes, keepdim=True).clamp(min=1)
    centred = x - x.masked_fill(~mask, 0).sum(axes, keepdim=True) / count
    return centred * (centred.masked_fill(~mask, 0).square().sum(axes, keepdim=True) / count + eps).rsqrt()


class _AttentionPool(_Weighted):
    r"""Attention pooling (Ilse et al. 2018): one logit per position, shared by the channels.

    :math:`y = \sum_i a_i x_i` with :math:`a = \mathrm{softmax}(l)` over the window and :math:`l = w^T \tanh(V x)`, or
    :math:`l = w^T (\tanh(V x) \odot \sigma(U x))` with ``gated=True``, x being the channels at one position; V and U
    have offsets. w starts at 0, so that the layer starts as the mean. See :func:`poolnb.functional.weighted_pool2d`;
    the paper pools everything, which is ``kernel_size=None``.

    Args:
        channels: number of input channels, a keyword.
        hidden: rows of V; ``None``: half of the channels.
        gated: add the sigmoid branch.
        device, dtype: of the parameters, as torch's modules take them.

    Raises:
        TypeError: an option of the wrong type; in a call, an input of another dtype than the parameters.
        ValueError: an option out of range; in a call, another number of channels.
    """

    def __init__(
        self,
        kernel_size: IntOrSizes | None,
        stride: IntOrSizes | None = None,
        padding: Padding = 0,
        dilation: IntOrSizes = 1,
        ceil_mode: bool = False,
        *,
        channels: int,
        hidden: int | None = None,
        gated: bool = False,
        output_size: OutputSize = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, output_size=output_size)
        (self.channels,) = self.made_for = per_dim("channels", channels, 1, least=1)
        (self.hidden,) = per_dim("hidden", max(self.channels // 2, 1) if hidden is None else hidden, 1, least=1)
        self.gated = flag("gated", gated)
        factory = check_factory(device, dtype)
        convolution = getattr(nn, f"Conv{self.dims}d")
        self.V = convolution(self.channels, self.hidden, 1, **factory)
        self.U = convolution(self.channels, self.hidden, 1, **factory) if gated else None
        self.w = convolution(self.hidden, 1, 1, bias=False, **factory)
        nn.init.zeros_(self.w.weight)

    def reset_parameters(self) -> None:
        """Start as the mean again."""
        for branch in (self.V, self.U):
            if branch is not None:
                branch.reset_parameters()
        nn.init.zeros_(self.w.weight)

    def logits(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        features = torch.tanh(self.V(input))
        if self.U is not None:
            features = features * torch.sigmoid(self.U(input))
        answer: Tensor = self.w(features)
        return answer

    def options(self) -> dict[str, Any]:
        return {"channels": self.channels, "hidden": self.hidden, "gated": self.gated}


class LIPPool1d(_LIPPool):
    dims = 1


class LIPPool2d(_LIPPool):
    dims = 2


class LIPPool3d(_LIPPool):
    dims = 3


class AttentionPool1d(_AttentionPool):
    dims = 1


class AttentionPool2d(_AttentionPool):
    dims = 2


class AttentionPool3d(_AttentionPool):
    dims = 3
