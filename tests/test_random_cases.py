"""Random calls of every operator, with the PyTorch kernels and the compiled ones, against the NumPy oracle.

Any geometry, dimension, dtype, layout and mask; special values and long windows among them. Gradients of finite input
are compared with the oracle's; where something is not finite, those of the two sets of kernels with each other. An
ordinary run does some 1,000 cases; ``POOLNB_RANDOM_CASES=20000`` does more. A case is its operator and its number.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
from typing import Any

import pytest
import torch
from cases import LAYOUTS, case, takes
from operators import DIMS, DTYPES, OPERATORS, TOLERANCE, Case
from torch import Tensor

from poolnb import native
from poolnb.geometry import resolve

_COUNT = int(os.environ.get("POOLNB_RANDOM_CASES", "1000"))
_LARGEST_AXIS = {1: 11, 2: 7, 3: 4}
_LONG_AXIS = {1: 1500, 2: 40, 3: 11}


def geometry_of(rng: random.Random, name: str, dims: int, long: bool) -> tuple[tuple[int, ...], dict[str, Any]]:
    """A spatial size and a geometry that gives at least one window, and a few of them where they are long."""
    while True:
        largest = (_LONG_AXIS if long else _LARGEST_AXIS)[dims]
        size = tuple(rng.randint(largest // 2 if long else 1, largest) for _ in range(dims))
        if rng.random() < 0.3:
            geometry = {"kernel_size": None, "output_size": asked_size(rng, size, long)}
            if takes(name, size, geometry):
                return size, geometry
            continue
        kernel = [rng.randint(1, 2 * n if rng.random() < 0.1 else n) for n in size]
        if not long:
            kernel = [min(k, 4) for k in kernel]
        geometry: dict[str, Any] = {
            "kernel_size": kernel,
            "stride": [rng.choice([1, 2, 3, k, k, k + 1, 2**29]) for k in kernel],
            "dilation": [rng.choice([1, 1, 2, 3]) for _ in kernel],
            "ceil_mode": rng.random() < 0.3,
        }
        geometry["padding"] = padding_of(rng, kernel, geometry["dilation"])
        with contextlib.suppress(ValueError):  # the dilated kernel does not fit
            windows = resolve(size, **geometry)
            if windows.taps * math.prod(windows.output) < 20_000:
                return size, geometry


def asked_size(rng: random.Random, size: tuple[int, ...], long: bool) -> Any:
    """Windows that an output size asks for: one, equal or different ones, more than there are positions."""
    if rng.random() < 0.4:
        return rng.choice([None, 1])
    return [rng.choice([None, 1, 2, rng.randint(1, 3 if long else n + 2)]) for n in size]


def padding_of(rng: random.Random, kernel: list[int], dilation: list[int]) -> Any:
    largest = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    kind = rng.choice(["none", "torch's", "both sides", "pairs", "same"])
    if kind in ("none", "same"):
        return {"none": 0, "same": "same"}[kind]
    if kind == "pairs":
        return [(rng.randint(0, n), rng.randint(0, n)) for n in largest]
    return [rng.randint(0, n if kind == "both sides" else k // 2) for n, k in zip(largest, kernel, strict=True)]


def special_values(rng: random.Random, x: Tensor) -> Tensor:
    """``x`` with a few of its numbers replaced by such as need the safe path."""
    info = torch.finfo(x.dtype)
    # As far from ordinary numbers as a quotient of sizes may be.
    huge = {torch.float16: 1e4, torch.float64: 1e150}.get(x.dtype, 1e30)
    x = x.clone()
    for value in rng.choices([math.nan, math.inf, -math.inf, 0.0, -0.0, info.tiny / 8, huge, -huge / 3], k=3):
        for _ in range(rng.choice([1, 1, 3])):
            x[torch.unravel_index(torch.tensor(rng.randrange(x.numel())), x.shape)] = value
    return x


def random_case(name: str, number: int) -> tuple[Case, bool]:
    """A case, and whether all its input is finite and of ordinary size."""
    rng = random.Random(f"{name} {number}")
    dims, dtype, long = rng.choice(DIMS), rng.choice(DTYPES), rng.random() < 0.1
    size, geometry = geometry_of(rng, name, dims, long)
    shape = (rng.choice([1, 2]), rng.choice([1, 3, 20] if not long else [1, 2]), *size)
    generator = torch.Generator().manual_seed(number)
    mask = None
    if rng.random() < 0.4:
        mask_shape = tuple(rng.choice([1, n]) for n in shape)
        mask = torch.rand(mask_shape, generator=generator) < rng.choice([0.3, 0.7, 0.9])
    drawn = case(
        OPERATORS[name],
        dims,
        shape,
        geometry,
        seed=number,
        dtype=dtype,
        mask=mask,
        layout=rng.choice(LAYOUTS),
        batched=True,
        ties=rng.random() < 0.3,
    )
    plain = rng.random() < 0.6
    return (drawn if plain else drawn.with_input(special_values(rng, drawn.x))), plain


def both_sets() -> list[Any]:
    return [native.disabled, *([contextlib.nullcontext] if native.available() else [])]


def differentiated(drawn: Case, grad: Tensor) -> dict[str, Tensor]:
    leaves = {n: t.detach().requires_grad_() for n, t in {"input": drawn.x, **drawn.tensors()}.items()}
    y = drawn.run(leaves["input"], **{n: t for n, t in leaves.items() if n != "input"})
    return {"output": y.detach(), **dict(zip(leaves, torch.autograd.grad(y, list(leaves.values()), grad), strict=True))}


def check(drawn: Case, plain: bool) -> None:
    tolerance = TOLERANCE[drawn.x.dtype]
    expected = {"output": drawn.expected()}
    grad = torch.linspace(-1, 1, expected["output"].numel(), dtype=torch.float64).view(expected["output"].shape)
    grad = grad.to(drawn.x.dtype)
    if plain:
        expected |= drawn.expected_gradients(grad)
    for kernels in both_sets():
        with kernels():
            results = differentiated(drawn, grad)
        for what, value in results.items():
            factor = 1 if what == "output" else 4 * drawn.operator.gradient_tolerance
            like = expected.setdefault(what, value)  # of special input: the other set's gradient
            finite = like[like.isfinite()]
            scale = max(1.0, float(finite.abs().max())) if finite.numel() and what != "output" else 1.0
            if what not in ("output", "input"):  # a parameter's gradient is of the size of the taps
                scale = max(scale, float(drawn.x.nan_to_num(0, 0, 0).abs().max()))
            torch.testing.assert_close(
                value.double(),
                like.to(value.dtype).double(),  # past the dtype's largest number: inf
                rtol=factor * tolerance["rtol"],
                atol=factor * scale * tolerance["atol"],
                equal_nan=True,
                msg=lambda m, w=what, k=kernels: f"{w}, {k.__name__}: {m}",
            )


@pytest.mark.parametrize("name", OPERATORS)
def test_random_cases(name: str) -> None:
    wrong = []
    for number in range(math.ceil(_COUNT / len(OPERATORS))):
        drawn, plain = random_case(name, number)
        try:
            check(drawn, plain)
        except AssertionError as error:
            wrong.append(f"{name} {number}, {drawn.geometry}, {drawn.x.dtype}, special={not plain}: {error}")
    assert not wrong, f"{len(wrong)} wrong:\n" + "\n\n".join(wrong[:5])
