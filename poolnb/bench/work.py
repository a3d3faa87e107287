"""The work list of ``poolnb bench``: inputs, windows and operators, and the least bytes that each has to move."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from poolnb import baselines, native
from poolnb.ops.examples import example_params
from poolnb.ops.registration import OPS

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}
LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}  # by a tensor's dimensions


class Work(NamedTuple):
    """Windows, and the input that they are measured on if no other is given."""

    shape: tuple[int, ...]
    kernel: int | None = None
    stride: int = 1
    padding: int = 0
    masked: bool = False

    def windows(self, x: Tensor) -> baselines.Windows:
        """On an input; a mask counts the first positions, of every sequence another number."""
        if not self.masked:
            return baselines.Windows(self.kernel, self.stride, self.padding)
        lengths = torch.linspace(0.25, 1, x.size(0)).mul(x.size(2)).long().view(-1, 1, 1)
        return baselines.Windows(mask=(torch.arange(x.size(2)) < lengths).to(x.device))


_EARLY = (32, 64, 56, 56)  # a layer of a usual network: 64 channels early, 2048 at its end
WORK = {
    "k2s2": Work(_EARLY, 2, 2, 0),
    "k3s2p1": Work(_EARLY, 3, 2, 1),
    "k3s1p1": Work(_EARLY, 3, 1, 1),
    "k7s1p3": Work(_EARLY, 7, 1, 3),
    "global": Work((32, 2048, 7, 7)),
    "masked": Work((32, 128, 2000), masked=True),
    "3d-k2s2": Work((8, 64, 16, 28, 28), 2, 2, 0),
}


@dataclass(frozen=True)
class Setting:
    """One input and one set of windows."""

    shape: tuple[int, ...]
    windows: str
    dtype: str
    layout: str
    device: str

    @property
    def dims(self) -> int:
        return len(self.shape) - 2

    def input(self) -> Tensor:
        generator = torch.Generator(self.device).manual_seed(0)
        x = torch.randn(self.shape, generator=generator, device=self.device).to(DTYPES[self.dtype])
        return x if self.layout == "nchw" else x.contiguous(memory_format=CHANNELS_LAST[x.dim()])


def parameters(name: str, setting: Setting, output: Sequence[int]) -> dict[str, Any]:
    """Every parameter learned; those of soft and lp have one value, and auto is soft with a learned one."""
    if name in ("soft", "lp"):
        return {}
    x, kernel = setting.input(), WORK[setting.windows].kernel
    taps = math.prod(x.shape[2:]) if kernel is None else kernel**setting.dims
    params = example_params(base(name), x, output, usual=True, taps=taps)
    return {key: value.requires_grad_() if isinstance(value, Tensor) else value for key, value in params.items()}


def base(name: str) -> str:
    return "soft" if name == "auto" else name


OPERATORS = (*native.operator_types(), "auto", *native.OF_PARTS)


def least_bytes(setting: Setting, name: str, direction: str) -> int:
    """Forward reads the input and writes the output; backward reads both and writes the input's gradient."""
    x = torch.empty(setting.shape, device="meta", dtype=DTYPES[setting.dtype])
    size = x.nbytes
    if name == "copy_":
        return 2 * size
    out = baselines.maximum(x, replace(WORK[setting.windows].windows(x), mask=None)).nbytes
    second = size if _second_input(name) else 0
    return size + second + out if direction == "forward" else 2 * (size + second) + out


def _second_input(name: str) -> bool:
    """Whether an operator reads a second tensor of the input's size."""
    return name in OPERATORS and any(form.as_input for form in OPS[f"{base(name)}_pool"].tensors.values())
