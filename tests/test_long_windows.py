"""Windows of very many taps: float32 keeps its digits, values and gradients; and geometries far beyond their input."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as TF
from cases import case, laid_out
from operators import Case, Operator, every_dimension, every_operator, selected
from torch import Tensor

import poolnb.functional as F
from poolnb.geometry import resolve

pytestmark = pytest.mark.usefixtures("kernels")

# Global windows, and windows of which hundreds share a tap.
_LONG: dict[int, list[tuple[tuple[int, ...], dict[str, Any]]]] = {
    1: [((1, 2, 2**17), {"kernel_size": None}), ((1, 1, 3000), {"kernel_size": 1500, "stride": 2, "padding": 700})],
    2: [((1, 2, 300, 400), {"kernel_size": None}), ((2, 3, 60, 60), {"kernel_size": 30, "stride": 2})],
    3: [((1, 20, 40, 30, 20), {"kernel_size": None}), ((1, 2, 14, 14, 14), {"kernel_size": 9, "stride": 1})],
}


def differentiated(drawn: Case) -> dict[str, Tensor]:
    leaves = {n: t.detach().requires_grad_() for n, t in {"input": drawn.x, **drawn.tensors()}.items()}
    y = drawn.run(leaves["input"], **{n: t for n, t in leaves.items() if n != "input"})
    grads = torch.autograd.grad(y, list(leaves.values()), torch.linspace(1, 2, y.numel()).view(y.shape).to(y.dtype))
    return {"output": y.detach(), **dict(zip(leaves, grads, strict=True))}


def widened(drawn: Case) -> Case:
    """The same numbers in float64."""
    params = {n: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v for n, v in drawn.params.items()}
    return replace(drawn, x=drawn.x.double(), params=params)


def long_cases(operator: Operator, dims: int, dtype: torch.dtype) -> list[Case]:
    drawn = []
    for shape, geometry in _LONG[dims]:
        taps = resolve(shape[2:], **geometry).taps
        for layout, masked in (("contiguous", False), ("channels_last", True)):
            mask = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.7 if masked else None
            each = case(operator, dims, shape, geometry, dtype=dtype, mask=mask, layout=layout)
            params = dict(each.params)
            for name in ("weight", "leaves", "gates"):  # filters of so many taps leave a sigmoid some slope
                if name in params:
                    params[name] = params[name] / taps**0.5
            if operator.name == "s3":  # the chances of a strip of so many starts are large fractions
                params |= {"training": False, "eval_mode": "average", "grid_size": None}
            drawn.append(replace(each, params=params))
    return drawn


@every_dimension
@every_operator
def test_long_windows_keep_the_digits_of_float32(operator: Operator, dims: int) -> None:
    for drawn in long_cases(operator, dims, torch.float32):
        expected = differentiated(widened(drawn))
        for what, value in differentiated(drawn).items():
            scale = float(expected[what].abs().max())
            error = float((value.double() - expected[what]).abs().max())
            assert error <= 1e-5 * scale, f"{what}: {error / scale:.1e} of {scale:.3g}, {drawn.geometry}"


@every_operator
def test_long_windows_of_half_types_are_right_up_to_their_rounding(operator: Operator) -> None:
    for drawn in long_cases(operator, 2, torch.bfloat16):
        expected = widened(drawn).run()
        torch.testing.assert_close(drawn.run().double(), expected, rtol=2**-8, atol=2**-8 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["avg", "lp", "soft", "mixed", "weighted", "lse", "gem", "ada", "edscw"])
def test_more_taps_than_float32_can_count(name: str) -> None:
    taps = 2**24 + 2**18
    ones = torch.ones(1, 1, taps)
    params = {"logits": torch.zeros(1, 1, 1).expand(ones.shape)} if name == "weighted" else {}
    expected = taps**0.5 if name == "lp" else 1.0
    with torch.no_grad():
        assert getattr(F, f"{name}_pool1d")(ones, None, **params).item() == pytest.approx(expected, rel=1e-5)


@every_dimension
@pytest.mark.parametrize("operator", list(selected(lambda o: not o.numbered)))
def test_kernels_far_larger_than_the_input_equal_those_that_cover_it(operator: Operator, dims: int) -> None:
    shape = (1, 2, *(5, 4, 3)[:dims])
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(3)) < 0.8
    drawn = case(operator, dims, shape, {"kernel_size": None}, mask=mask)
    params = {k: v for k, v in drawn.params.items() if k not in ("training", "seed")}
    params |= {"mixed": {"alpha": 0.3}, "ada": {"beta": 0.3}}.get(operator.name, {})
    drawn = replace(drawn, params=params)
    far = replace(drawn, geometry={"kernel_size": 2**20, "stride": 2**31 - 1, "padding": 2**19})
    for x in (drawn.x, laid_out(drawn.x, "channels_last")):
        expected, actual = (differentiated(each.with_input(x)) for each in (drawn, far))
        for what in expected:
            torch.testing.assert_close(actual[what], expected[what])


@pytest.mark.parametrize("operator", list(selected(lambda o: o.numbered)))
def test_windows_of_numbered_taps_that_are_nearly_all_padding_are_refused(operator: Operator) -> None:
    taps = 2**17
    params = {
        "gated": {"weight": torch.zeros(taps)},
        "rank": {"weight": torch.ones(taps)},
        "tree": {"leaves": torch.zeros(2, taps), "gates": torch.zeros(1, taps)},
        "tdgs": {"temperature": 1.0},
    }.get(operator.name, {})
    with pytest.raises(ValueError, match="kernel_size must give at most 64 taps per input position"):
        operator.function(1)(torch.zeros(1, 1, 8), taps, 1, taps // 2, **params)


_MEMORY = """
import resource, sys, torch
sys.path.insert(0, "tests/helpers")
import poolnb.functional
from cases import case
from operators import OPERATORS
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
def run(operator, dims, stride, channels):
    shape = (1, channels, *(8, 9, 10)[:dims])
    drawn = case(operator, dims, shape, {"kernel_size": 2, "stride": stride}, dtype=torch.float32)
    if operator.name == "s3": drawn.params["grid_size"] = None
    x = drawn.x.requires_grad_()
    y = drawn.run(x)
    y.sum().backward()
for operator in OPERATORS.values(): run(operator, 2, 3, 1)  # what the first call takes
before, most = peak(), 0
for name, operator in OPERATORS.items():
    for dims in (1, 2, 3):
        for stride in (3000, 2**30 - 1):
            for channels in (1, 20):
                run(operator, dims, stride, channels)
                more = peak() - before
                if more > 64 << 10: raise SystemExit(f"{name} {dims} {stride} {channels}: {more} kB")
"""


def test_far_strides_take_no_memory(kernels: str) -> None:
    environment = {**os.environ, "POOLNB_NATIVE": "1" if kernels == "compiled" else "0", "OMP_NUM_THREADS": "1"}
    folder = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", _MEMORY], capture_output=True, text=True, env=environment, cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]


@every_dimension
def test_strides_up_to_the_largest_are_those_of_torch(dims: int) -> None:
    x = torch.randn(2, 3, *(6, 7, 8)[:dims])
    for stride in (2**30, 2**31 - 1):
        expected = getattr(TF, f"max_pool{dims}d")(x, 3, stride, 1)
        assert torch.equal(getattr(F, f"max_pool{dims}d")(x, 3, stride, 1), expected)
        y = getattr(F, f"lp_pool{dims}d")(x, 3, stride, 1, norm_type=torch.inf)
        assert torch.equal(getattr(F, f"s3_pool{dims}d")(x, 3, stride, 1), getattr(F, f"s3_pool{dims}d")(x, 3, 1000, 1))
        first = x[(..., *(slice(0, 2),) * dims)].abs().flatten(2).amax(2)
        torch.testing.assert_close(y.flatten(2).squeeze(2), first)
