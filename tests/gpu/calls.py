"""A small table of calls, forward and backward, for compute-sanitizer: every operator, kernel and stored type."""

from __future__ import annotations

import argparse
from typing import Any

import torch

from poolnb import functional as F
from poolnb import native
from poolnb.geometry import resolve
from poolnb.ops.examples import example_params

WINDOWS = [(2, 2, 0), (3, 2, 1), (3, 1, 1, 2), ((1, 3), (2, 1), 0)]  # tiling, overlapping, dilated, with gaps


def main() -> None:
    parser = argparse.ArgumentParser(description="Every kernel once.")
    parser.add_argument("--device", default="cuda")
    device = parser.parse_args().device
    operators = tuple(native.operator_types())
    missing = set(operators) - set(native.names(device)) if device != "cpu" else set()
    assert not missing, f"no compiled kernels of {sorted(missing)}"
    count = 0
    for name in operators:
        for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
            for layout in (torch.contiguous_format, torch.channels_last):
                for windows in WINDOWS:
                    call(name, dtype, layout, windows, device)
                    count += 1
    if device == "cuda":
        torch.cuda.synchronize()
    print(f"{count} calls")


def call(name: str, dtype: torch.dtype, layout: torch.memory_format, windows: Any, device: str) -> None:
    """What the kernels read is made on the CPU and copied: to compute-sanitizer all of it has been written."""
    x = torch.randn(2, 5, 9, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    params = example_params(name, x, taps=resolve(x.shape[2:], *windows).taps)
    params = {k: v.to(device).requires_grad_() if isinstance(v, torch.Tensor) else v for k, v in params.items()}
    x = x.contiguous(memory_format=layout).to(device).requires_grad_()
    y = getattr(F, f"{name}_pool2d")(x, *windows, **params)
    grad = torch.linspace(-1, 1, y.numel()).to(dtype).view(y.shape).to(device)
    leaves = [x, *(v for v in params.values() if isinstance(v, torch.Tensor))]
    torch.autograd.grad(y, leaves, grad)


if __name__ == "__main__":
    main()
