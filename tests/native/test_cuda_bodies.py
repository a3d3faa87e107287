"""The CUDA kernels without a GPU: their bodies run on the CPU under sanitizers, over random geometries."""

from __future__ import annotations

import math
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
from units import OPERATORS, SANITIZERS, compiled

from poolnb import native
from poolnb.geometry import Geometry, resolve
from poolnb.ops.checks import Sizes
from poolnb.ops.registration import OPS

_HERE = Path(__file__).parent
_CASES = 24  # per operator
_OF_FILTERS = ("leaves", "gates")  # tables of one row per filter, which all channels share
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # as ext/geometry.h numbers them
_CLOSE = dict(zip(_DTYPES, (2e-3, 1.6e-2, 2e-4, 1e-8), strict=True))

needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")


@dataclass
class Case:
    operator: str
    windows: Geometry
    x: Tensor
    mask: Tensor | None
    params: list[Tensor]  # parameters in the output's shape, the second input in the input's, or tables
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
        stride, dilation = ([rng.choice(some) for _ in kernel] for some in ([1, 2, 3], [1, 1, 2]))
        sides = [
            (rng.randint(0, d * (k - 1)), rng.randint(0, d * (k - 1))) for k, d in zip(kernel, dilation, strict=True)
        ]
        padding = rng.choice([[k // 2 for k in kernel], sides, "same"])
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

    op = OPS[f"{operator}_pool"]
    sizes = Sizes(n, c, tuple(size), math.prod(kernel), windows.output)
    params: list[Tensor] = []
    for form in op.tensors.values():
        shape = [rng.choice(accepted) for accepted in form.shape(sizes, params)]
        values = torch.rand(shape, generator=generator, dtype=torch.float64)
        stored = dtype if form.as_input and wide < 2 else sums
        params.append((form.low + (form.high - form.low) * values).to(stored))
    attributes = [
        rng.random() < 0.5 if isinstance(usual, bool) else usual * rng.choice([1, 0.5])
        for usual in op.attributes.values()
    ]
    drawn = op.sampled and rng.random() < 0.6
    seed = rng.randrange(-(2**63), 2**63) if drawn else None
    grad = torch.randn(output, generator=generator, dtype=torch.float64).to(dtype)
    return Case(operator, windows, x, mask, params, seed, attributes, rng.random() < 0.5, grad, wide)


def _expected(case: Case) -> list[Tensor]:
    """Output and gradients from the PyTorch kernels."""
    op = OPS[f"{case.operator}_pool"]
    leaves = [t.clone().requires_grad_() for t in (case.x, *case.params)]
    seed = [None if case.seed is None else torch.tensor(case.seed)] if op.sampled else []
    with native.disabled():
        y = op(leaves[0], case.mask, case.windows, *leaves[1:], *seed, *case.attributes)
        return [y.detach(), *torch.autograd.grad(y, leaves, case.grad)]


def _three(values: tuple[int, ...], fill: int) -> list[int]:
    return [fill] * (3 - len(values)) + list(values)


def _encoded(case: Case) -> bytes:
    w = case.windows
    axes = [_three(w.size, 1), _three(w.kernel, 1), _three(w.stride, 1), _three(w.padding, 0)]
    axes += [_three(w.dilation, 1), _three(w.output, 1)]
    head = [OPERATORS.index(case.operator), _DTYPES.index(case.x.dtype), case.wide, case.last, *sum(axes, [])]
    head += [*case.x.shape[:2], case.mask is not None, case.seed is not None, case.seed or 0]
    tabled = _has_tables(case.operator)
    if tabled:
        for name, p in zip(OPS[f"{case.operator}_pool"].tensors, case.params, strict=True):
            head += [p.size(0) if name in _OF_FILTERS else 1, p.size(1) if p.dim() > 1 else 1]
    options = [float(a) for a in case.attributes]
    second = _has_second_input(case.operator)
    tensors = [case.x, *([case.params[0].expand_as(case.x)] if second else [])]
    tensors += [case.mask] if case.mask is not None else []
    tensors += [] if second else case.params if tabled else [_full(p, case) for p in case.params]
    parts = [np.array(head, dtype=np.int64), np.array(options)]
    parts += [t.double().contiguous().numpy() for t in (*tensors, case.grad)]
    return b"".join(part.tobytes() for part in parts)


def _has_second_input(operator: str) -> bool:
    return any(form.as_input for form in OPS[f"{operator}_pool"].tensors.values())


def _has_tables(operator: str) -> bool:
    return any(form.per_tap for form in OPS[f"{operator}_pool"].tensors.values())


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
    folder = tmp_path_factory.mktemp("emulate")
    return compiled(_HERE / "emulate.cpp", folder, "-O0", *SANITIZERS, "-Wno-unknown-pragmas")


@needs_compiler
@pytest.mark.parametrize("name", OPERATORS)
def test_bodies_equal_the_pytorch_kernels(name: str, emulator: Path, tmp_path: Path) -> None:
    cases = [_case(name, number) for number in range(_CASES)]
    (tmp_path / "cases").write_bytes(b"".join(map(_encoded, cases)))
    done = subprocess.run([emulator, tmp_path / "cases", tmp_path / "results"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    results = torch.from_numpy(np.fromfile(tmp_path / "results"))
    second = _has_second_input(name)
    for number, case in enumerate(cases):
        for what, expected in enumerate(_expected(case)):
            # Gradients of parameters come per window.
            shape = case.grad.shape if what > 1 and not second else case.x.shape if what else expected.shape
            if what > 1 and _has_tables(name):  # those of tables are summed
                shape = expected.shape
            actual, results = results[: shape.numel()].view(shape), results[shape.numel() :]
            if shape != expected.shape:
                actual = _summed(actual, expected)
            close, text = _CLOSE[case.x.dtype], f"case {number}, result {what}: "
            torch.testing.assert_close(
                actual, expected.double(), equal_nan=True, rtol=close, atol=close, msg=lambda m, t=text: t + m
            )
    assert results.numel() == 0


@needs_compiler
def test_indices_are_divided_without_a_division(tmp_path: Path) -> None:
    done = subprocess.run([compiled(_HERE / "divider.cpp", tmp_path, "-O2")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
