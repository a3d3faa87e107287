"""The CUDA kernels without a GPU: their bodies run on the CPU under sanitizers, over random geometries."""

from __future__ import annotations

import random
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from poolnb import native, ops
from poolnb.geometry import Geometry, resolve

_HERE = Path(__file__).parent
_OPERATORS = ("gem", "lp", "lse", "mixed", "soft", "stochastic", "tdgs", "weighted")
_CASES = 24  # per operator
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # as ext/geometry.h numbers them
_CLOSE = dict(zip(_DTYPES, (2e-3, 1.6e-2, 2e-4, 1e-8), strict=True))

needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")


@dataclass
class Case:
    operator: str
    windows: Geometry
    x: Tensor
    mask: Tensor | None
    own: list[Tensor]  # parameters in the output's shape, the second input in the input's
    seed: int | None
    attributes: list[Any]
    last: bool
    grad: Tensor
    wide: int  # beside a half type: 1 if the second input's gradient is stored as sums are, 2 if that input is too


def _case(operator: str, number: int) -> Case:
    rng = random.Random(f"{operator} {number}")
    generator = torch.Generator().manual_seed(number)
    dims = rng.choice([1, 2, 2, 3])
    size = [rng.randint(3, 9) for _ in range(dims)]
    while True:
        kernel = [rng.randint(1, 3) for _ in range(dims)]
        pick = [[rng.randint(1, 3), rng.randint(0, k // 2), rng.choice([1, 1, 2])] for k in kernel]
        stride, padding, dilation = (list(column) for column in zip(*pick, strict=True))
        try:
            windows = resolve(size, kernel, stride, padding, dilation, rng.random() < 0.3)
            break
        except ValueError:  # the dilated kernel does not fit
            continue
    dtype = rng.choice(_DTYPES)
    sums, wide = torch.promote_types(dtype, torch.float32), rng.choice([0, 1, 2])
    n, c = rng.choice([1, 2]), rng.choice([1, 3, 5])
    x = torch.randn(n, c, *size, generator=generator, dtype=torch.float64).to(dtype)
    if rng.random() < 0.3:
        x.view(-1)[:: rng.randint(5, 11)] = rng.choice([torch.inf, -torch.inf, torch.nan, 0.0])
    mask = torch.rand(n, c, *size, generator=generator) < 0.7 if rng.random() < 0.4 else None
    output = (n, c, *windows.output)

    def parameter(low: float, high: float) -> Tensor:
        return (low + (high - low) * torch.rand(c, generator=generator, dtype=torch.float64)).to(sums)

    own: list[Tensor] = {
        "gem": lambda: [parameter(0.5, 5)],
        "lp": lambda: [parameter(1.2, 4)],
        "lse": lambda: [parameter(-2, 3)],
        "mixed": lambda: [parameter(0, 1).view(1, -1, *(1,) * dims)],
        "soft": lambda: [parameter(-2, 3)],
        "stochastic": lambda: [],
        "tdgs": lambda: [torch.rand(output[1:], generator=generator, dtype=torch.float64).to(sums) + 0.3],
        "weighted": lambda: [_logits(x.shape, generator, dtype, sums, wide)],
    }[operator]()
    attributes: list[Any] = {
        "gem": [rng.choice([1e-6, 0.1])],
        "soft": [rng.random() < 0.3],
        "tdgs": [rng.choice([1.0, 0.5]), rng.random() < 0.5, rng.random() < 0.6, 0.01],
    }.get(operator, [])
    drawn = operator in ("stochastic", "tdgs") and rng.random() < 0.6
    seed = rng.randrange(-(2**63), 2**63) if drawn else None
    grad = torch.randn(output, generator=generator, dtype=torch.float64).to(dtype)
    return Case(operator, windows, x, mask, own, seed, attributes, rng.random() < 0.5, grad, wide)


def _logits(shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype, sums: Any, wide: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(sums if wide == 2 else dtype)


def _expected(case: Case) -> list[Tensor]:
    """Output and gradients from the PyTorch kernels."""
    op = getattr(ops, f"{case.operator}_pool")
    sampled = case.operator in ("stochastic", "tdgs")
    leaves = [t.clone().requires_grad_() for t in (case.x, *case.own)]
    seed = [None if case.seed is None else torch.tensor(case.seed)] if sampled else []
    with native.disabled():
        y = op(leaves[0], case.mask, case.windows, *leaves[1:], *seed, *case.attributes)
        return [y.detach(), *torch.autograd.grad(y, leaves, case.grad)]


def _three(values: tuple[int, ...], fill: int) -> list[int]:
    return [fill] * (3 - len(values)) + list(values)


def _encoded(case: Case) -> bytes:
    w = case.windows
    axes = [_three(w.size, 1), _three(w.kernel, 1), _three(w.stride, 1), _three(w.padding, 0)]
    axes += [_three(w.dilation, 1), _three(w.output, 1)]
    head = [_OPERATORS.index(case.operator), _DTYPES.index(case.x.dtype), case.wide, case.last, *sum(axes, [])]
    head += [*case.x.shape[:2], case.mask is not None, case.seed is not None, case.seed or 0]
    options = [float(a) for a in case.attributes] + [0.0] * (4 - len(case.attributes))
    weighted = case.operator == "weighted"
    tensors = [case.x, *(case.own if weighted else []), *([case.mask] if case.mask is not None else [])]
    tensors += [] if weighted else [_full(p, case) for p in case.own]
    parts = [np.array(head, dtype=np.int64), np.array(options)]
    parts += [t.double().contiguous().numpy() for t in (*tensors, case.grad)]
    return b"".join(part.tobytes() for part in parts)


def _full(parameter: Tensor, case: Case) -> Tensor:
    aligned = parameter.view(-1, *(1,) * case.windows.dims) if parameter.dim() == 1 else parameter
    return aligned.expand(case.grad.shape)


def _summed(grad: Tensor, like: Tensor) -> Tensor:
    """A gradient per window, summed to the parameter's shape."""
    if like.dim() == 1:
        return grad.transpose(0, 1).flatten(1).sum(1)
    return grad.sum_to_size(like.shape)


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("emulate") / "emulate"
    flags = ["-std=c++20", "-O0", "-ffp-contract=off", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command = ["c++", *flags, "-Wno-unknown-pragmas", str(_HERE / "emulate.cpp"), "-o", str(program)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-4000:]
    return program


@needs_compiler
@pytest.mark.parametrize("name", _OPERATORS)
def test_bodies_equal_the_pytorch_kernels(name: str, emulator: Path, tmp_path: Path) -> None:
    cases = [_case(name, number) for number in range(_CASES)]
    (tmp_path / "cases").write_bytes(b"".join(map(_encoded, cases)))
    done = subprocess.run([emulator, tmp_path / "cases", tmp_path / "results"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    results = torch.from_numpy(np.fromfile(tmp_path / "results"))
    for number, case in enumerate(cases):
        for what, expected in enumerate(_expected(case)):
            # Gradients of parameters come per window.
            shape = expected.shape if what < 2 or name == "weighted" else case.grad.shape
            actual, results = results[: shape.numel()].view(shape), results[shape.numel() :]
            if shape != expected.shape:
                actual = _summed(actual, expected)
            if case.mask is not None and what == 1:  # a window with a NaN passes nothing on to what is masked
                actual, expected = actual.where(case.mask, 0), expected.where(case.mask, 0)
            close, text = _CLOSE[case.x.dtype], f"case {number}, result {what}: "
            torch.testing.assert_close(
                actual, expected.double(), equal_nan=True, rtol=close, atol=close, msg=lambda m, t=text: t + m
            )
    assert results.numel() == 0
