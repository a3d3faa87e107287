"""Example arguments of any operator, from what its row says: its kernels are compared, counted and timed with them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from poolnb.ops.checks import ACC_DTYPES, Form, Sizes
from poolnb.ops.registration import OPS


def example_params(
    name: str, x: Tensor, output: Sequence[int] | None = None, usual: bool = False, taps: int = 4
) -> dict[str, Any]:
    """Parameters of the function ``<name>_pool``: its tensors, and of an operator that draws training and a seed.

    Args:
        name: of the operator, such as ``"soft"``.
        x: (N, C, *spatial), the input.
        output: the output's spatial size, for parameters that may have an entry per position; ``None``: per channel.
        usual: every parameter at its usual value, instead of values over its range, from the first channel to the last.
        taps: of a window, for parameters that have an entry for each; their values go over the range in every row, in
            each from another value on.
    """
    op = OPS[f"{name}_pool"]
    tensors: dict[str, Tensor] = {}
    for name, form in op.tensors.items():
        tensors[name] = _tensor(form, x, output, usual, taps, [*tensors.values()])
    return {**tensors, "training": True, "seed": 5} if op.sampled else tensors


def _tensor(
    form: Form, x: Tensor, output: Sequence[int] | None, usual: bool, taps: int, before: Sequence[Tensor]
) -> Tensor:
    if form.as_input:
        return x.detach().flip(-1)
    low, high = (form.usual, form.usual) if usual else (form.low, form.high)
    dtype = ACC_DTYPES[x.dtype]
    spatial = x.dim() - 2
    if form.per_tap:
        sizes = Sizes(x.size(0), x.size(1), tuple(x.shape[2:]), taps, (1,) * spatial)
        rows = max(form.shape(sizes, before)[0])
        values = torch.linspace(low, high, taps, dtype=dtype, device=x.device)
        return torch.stack([values.roll(row) for row in range(rows)])
    values = torch.linspace(low, high, x.size(1), dtype=dtype, device=x.device)
    sizes = Sizes(x.size(0), x.size(1), tuple(x.shape[2:]), math.prod(x.shape[2:]), tuple(output or (1,) * spatial))
    n_dims = len(form.shape(sizes, ()))
    if n_dims == 1 or (n_dims == 1 + spatial and output is None):
        return values
    per_channel = values.view(-1, *(1,) * spatial)
    return per_channel.unsqueeze(0) if output is None or n_dims > 1 + spatial else per_channel.repeat(1, *output)
