"""A large batch is worked on in parts, because the PyTorch kernels hold the taps of all windows that they work on.

Those of windows of 7 x 7 at stride 1, for example, are 49 times the input.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from poolnb.geometry import Geometry
from poolnb.ops.checks import ACC_DTYPES
from poolnb.ops.philox import Seed

_CPU_BYTES, _GPU_BYTES = 2**23, 2**28  # of taps; a few times as much is in use at once


def samples_at_once(x: Tensor, windows: Geometry, mask: Tensor | None = None) -> int:
    """How many samples of (N, C, *size) the taps' bytes allow at once, at least one."""
    sample = windows.taps * x.size(1) * math.prod(windows.output) * ACC_DTYPES[x.dtype].itemsize
    return max(1, (_CPU_BYTES if x.device.type == "cpu" else _GPU_BYTES) // max(1, sample))


def batch_parts(x: Tensor, step: int) -> Iterator[slice]:
    """The batch dimension of (N, C, *size) in slices of so many samples."""
    return (slice(start, start + step) for start in range(0, x.size(0), step))


def part_of(arg: Any, part: slice, batched: bool = True) -> Any:
    """One part of a tensor that has the batch dimension if ``batched``, unless all samples share its one entry there.

    A seed is told where the part begins.
    """
    if isinstance(arg, Seed):
        return arg._replace(sample=part.start)
    return arg[part] if batched and isinstance(arg, Tensor) and arg.size(0) > 1 else arg
