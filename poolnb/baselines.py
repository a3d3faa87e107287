"""What a user of PyTorch would write for some of the operators, without this library: ``poolnb bench`` compares.

The plain forms use torch's own means and maxima; their exponentials and powers can overflow. The stable forms weigh the
taps of each window as their chapters do, over a view of all windows. Windows of ``None`` are the whole input.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Windows = tuple[int, int, int] | None  # kernel size, stride and padding, the same for both axes
Pool = Callable[..., Tensor]  # (input, windows, *parameters)


def maximum(x: Tensor, windows: Windows) -> Tensor:
    """torch's own max pooling."""
    return x.amax((2, 3), keepdim=True) if windows is None else F.max_pool2d(x, *windows)


def mean(x: Tensor, windows: Windows) -> Tensor:
    """torch's own average pooling, of valid taps."""
    return x.mean((2, 3), keepdim=True) if windows is None else F.avg_pool2d(x, *windows, count_include_pad=False)


def _taps(x: Tensor, windows: Windows, value: float) -> Tensor:
    """(N, C, H, W) -> (N, C, *output, taps), ``value`` in the padding."""
    if windows is None:
        return x.flatten(2)[:, :, None, None]
    kernel, stride, padding = windows
    if padding:
        x = F.pad(x, (padding,) * 4, value=value)
    return x.unfold(2, kernel, stride).unfold(3, kernel, stride).flatten(4)


def _count(x: Tensor, windows: Windows) -> Tensor:
    """How many taps of each window are valid."""
    return _taps(torch.ones_like(x[:1, :1]), windows, 0.0).sum(-1)


def _channels(parameter: Tensor, x: Tensor) -> Tensor:
    return parameter.to(x.dtype).view(1, -1, 1, 1)


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


def lp(x: Tensor, windows: Windows, p: Tensor) -> Tensor:
    p = _channels(p, x)
    return (mean(x.abs().pow(p), windows) * _count(x, windows)).pow(1 / p)


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
