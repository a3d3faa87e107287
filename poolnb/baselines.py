"""What a user of PyTorch would write for some of the operators, without this library: ``poolnb bench`` compares.

The plain forms use torch's own means and maxima; their exponentials and powers can overflow. The stable forms weigh the
taps of each window as their chapters do, over a view of all windows. Inputs have one, two or three spatial dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_MAX: dict[int, Any] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVG: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


@dataclass(frozen=True)
class Windows:
    """Kernel size, stride and padding, the same for all axes, or one window over everything.

    Of that one a ``mask`` that broadcasts to the input says which positions count.
    """

    kernel: int | None = None
    stride: int = 1
    padding: int = 0
    mask: Tensor | None = None

    @property
    def geometry(self) -> tuple[int | None, ...]:
        """As a pool takes it."""
        return (None,) if self.kernel is None else (self.kernel, self.stride, self.padding)


Pool = Callable[..., Tensor]  # (input, windows, *parameters)


def _dims(x: Tensor) -> int:
    return x.dim() - 2


def _axes(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.dim()))


def maximum(x: Tensor, windows: Windows) -> Tensor:
    """torch's own max pooling."""
    if windows.kernel is not None:
        y: Tensor = _MAX[_dims(x)](x, *windows.geometry)
        return y
    return (x if windows.mask is None else x.masked_fill(~windows.mask, -torch.inf)).amax(_axes(x), keepdim=True)


def mean(x: Tensor, windows: Windows) -> Tensor:
    """torch's own average pooling, of valid taps."""
    if windows.kernel is not None:
        y: Tensor = _AVG[_dims(x)](x, *windows.geometry, count_include_pad=False)
        return y
    if windows.mask is None:
        return x.mean(_axes(x), keepdim=True)
    return (x * windows.mask).sum(_axes(x), keepdim=True) / windows.mask.sum(_axes(x), keepdim=True)


def _taps(x: Tensor, windows: Windows, value: float) -> Tensor:
    """(N, C, *spatial) -> (N, C, *output, taps), ``value`` in the padding and where the mask says so."""
    dims = _dims(x)
    if windows.kernel is None:
        x = x if windows.mask is None else x.masked_fill(~windows.mask, value)
        return x.reshape(*x.shape[:2], *(1,) * dims, -1)
    if windows.padding:
        x = F.pad(x, (windows.padding,) * (2 * dims), value=value)
    for axis in _axes(x):
        x = x.unfold(axis, windows.kernel, windows.stride)
    return x.flatten(2 + dims)


def _count(x: Tensor, windows: Windows) -> Tensor:
    """How many taps of each window are valid."""
    return _taps(torch.ones_like(x[:1, :1] if windows.mask is None else x[:, :1]), windows, 0.0).sum(-1)


def _channels(parameter: Tensor, x: Tensor) -> Tensor:
    return parameter.to(x.dtype).view(1, -1, *(1,) * _dims(x))


def _weighted(x: Tensor, logits: Tensor, windows: Windows) -> Tensor:
    weights = _taps(logits, windows, -torch.inf).softmax(-1)
    return (weights * _taps(x, windows, 0.0)).sum(-1)


def soft(x: Tensor, windows: Windows) -> Tensor:
    e = x.exp()
    return mean(x * e, windows) / mean(e, windows)


def soft_stable(x: Tensor, windows: Windows) -> Tensor:
    return _weighted(x, x, windows)


def auto(x: Tensor, windows: Windows, beta: Tensor) -> Tensor:
    e = (_channels(beta, x) * x).exp()
    return mean(x * e, windows) / mean(e, windows)


def auto_stable(x: Tensor, windows: Windows, beta: Tensor) -> Tensor:
    return _weighted(x, _channels(beta, x) * x, windows)


def lse(x: Tensor, windows: Windows, r: Tensor) -> Tensor:
    r = _channels(r, x)
    return mean((r * x).exp(), windows).log() / r


def lse_stable(x: Tensor, windows: Windows, r: Tensor) -> Tensor:
    r = _channels(r, x)
    return (_taps(r * x, windows, -torch.inf).logsumexp(-1) - _count(x, windows).log()) / r


def gem(x: Tensor, windows: Windows, p: Tensor) -> Tensor:
    p = _channels(p, x)
    return mean(x.clamp(min=1e-6).pow(p), windows).pow(1 / p)


def lp(x: Tensor, windows: Windows) -> Tensor:
    """With p = 2, as torch's own, which knows no padding and no mask."""
    whole = windows.kernel is not None and not windows.padding
    count = _taps(x[:1, :1], windows, 0.0).size(-1) if whole else _count(x, windows)
    return (mean(x.square(), windows) * count).sqrt()


def mixed(x: Tensor, windows: Windows, alpha: Tensor) -> Tensor:
    alpha = _channels(alpha, x)
    return alpha * maximum(x, windows) + (1 - alpha) * mean(x, windows)


def weighted(x: Tensor, windows: Windows, logits: Tensor) -> Tensor:
    e = logits.exp()
    return mean(x * e, windows) / mean(e, windows)


def weighted_stable(x: Tensor, windows: Windows, logits: Tensor) -> Tensor:
    return _weighted(x, logits, windows)


# By operator, as `poolnb bench` names them: the plain form, and the stable one where there is one.
PLAIN: dict[str, Pool] = {
    "soft": soft,
    "auto": auto,
    "lse": lse,
    "gem": gem,
    "lp": lp,
    "mixed": mixed,
    "weighted": weighted,
}
STABLE: dict[str, Pool] = {"soft": soft_stable, "auto": auto_stable, "lse": lse_stable, "weighted": weighted_stable}
