"""The tests' own switch of kernels: it decides which ones run, and spares operators that have one set only."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from devices import DEVICE, torch
from hypothesis import given
from hypothesis import strategies as st
from operators import OPERATORS, Operator, every_operator
from torch import Tensor

from poolnb import functional as F
from poolnb import native
from poolnb.ops.soft import soft_pool


def calls_of_the_pytorch_kernel(run: Callable[[], Tensor]) -> int:
    calls = 0
    forward = soft_pool.forward

    def counted(*arguments: Any) -> Tensor:
        nonlocal calls
        calls += 1
        return forward(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(soft_pool, "forward", counted)
        run()
    return calls


@given(size=st.integers(2, 9))
def test_the_switch_decides_which_kernel_runs(kernels: str, size: int) -> None:
    x = torch.rand(1, 2, size)
    assert bool(native.operators(DEVICE.type)) == (kernels == "compiled")
    assert calls_of_the_pytorch_kernel(lambda: F.soft_pool1d(x, 2)) == (kernels == "pytorch")


@every_operator
def test_an_operator_is_tested_with_the_kernels_that_it_has(kernels: str, operator: Operator) -> None:
    assert kernels == "pytorch" or operator.name in native.operators(DEVICE.type)


def test_a_gradient_goes_by_the_name_of_its_op() -> None:
    x = torch.randn(1, 2, 4, 4, requires_grad=True)
    assert "soft_pool" in F.soft_pool2d(x, 2).grad_fn.name()  # type: ignore[union-attr]


@pytest.mark.slow
@pytest.mark.cpu
def test_an_operator_without_compiled_kernels_is_tested_once() -> None:
    options = ["--collect-only", "-q", "-p", "no:cacheprovider", "--rootdir", str(Path(__file__).parents[1])]
    command = [sys.executable, "-m", "pytest", *options, "-k", "with_the_kernels_that_it_has", __file__]
    listed = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1]).stdout
    compiled = native.operators() or OPERATORS
    for name in OPERATORS:
        sets = [s for s in ("pytorch", "compiled") if f"[{s}-{name}]" in listed or f"[{name}-{s}]" in listed]
        assert sets == (["pytorch", "compiled"] if name in compiled else ["pytorch"]), listed
