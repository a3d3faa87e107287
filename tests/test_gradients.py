"""First and second derivatives: against the derived formulas of the oracle, and against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cases import case, cases, examples, laid_out, takes
from devices import torch
from hypothesis import given
from hypothesis import strategies as st
from operators import DTYPES, OPERATORS, TOLERANCE, Case, Operator, every_dimension, every_operator, selected
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from poolnb import reference

pytestmark = pytest.mark.usefixtures("kernels")

_GEOMETRIES: dict[str, dict[str, Any]] = {
    "plain": {"kernel_size": 2},
    "overlapping": {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    "dilated": {"kernel_size": 2, "stride": 1, "dilation": 2},
    "one side": {"kernel_size": 2, "stride": 1, "padding": "same"},
    "differing": {"kernel_size": None, "output_size": 4},  # windows of one length only along an axis of 6
}
_SHAPES = {1: (2, 2, 6), 2: (2, 2, 4, 3), 3: (1, 2, 3, 3, 3)}
every_geometry = pytest.mark.parametrize("geometry", _GEOMETRIES)


def differentiated(drawn: Case, grad: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """The output and the gradients of the input and every own tensor."""
    leaves = {n: t.detach().requires_grad_() for n, t in {"input": drawn.x, **drawn.tensors()}.items()}
    params = {n: t for n, t in leaves.items() if n != "input"}
    y = drawn.run(leaves["input"], **params)
    grads = torch.autograd.grad(y, list(leaves.values()), torch.ones_like(y) if grad is None else grad)
    return y, dict(zip(leaves, grads, strict=True))


def check_gradients(drawn: Case, grad: Tensor, actual: dict[str, Tensor]) -> None:
    tolerance = dict(TOLERANCE[drawn.x.dtype])
    factor = 4 * drawn.operator.gradient_tolerance
    for name, expected in drawn.expected_gradients(grad).items():
        assert actual[name].shape == expected.shape, name
        # A sum over many windows rounds in proportion to what is summed.
        scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
        limits = {"rtol": factor * tolerance["rtol"], "atol": factor * tolerance["atol"] * scale}
        torch.testing.assert_close(actual[name].double(), expected, **limits, msg=lambda m, n=name: f"{n}: {m}")


@every_dimension
@every_operator
@examples(20)
@given(data=st.data())
def test_equals_the_derived_gradient(operator: Operator, dims: int, data: st.DataObject) -> None:
    drawn = data.draw(cases(operator, dims, DTYPES))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    grad = torch.randn(drawn.run().shape, generator=generator, dtype=torch.float64).to(drawn.x.dtype)
    if drawn.batched:
        grad = laid_out(grad, data.draw(st.sampled_from(["contiguous", "channels_last", "transposed", "sliced"])))
    _, actual = differentiated(drawn, grad)
    check_gradients(drawn, grad, actual)


def smooth_case(operator: Operator, dims: int, geometry: dict[str, Any], masked: bool, seed: int = 3) -> Case:
    """A case for finite differences: distinct taps, none near 0, so that no kink is within reach."""
    shape = _SHAPES[dims]
    count = torch.Size(shape).numel()
    order = torch.randperm(count, generator=torch.Generator().manual_seed(dims)).double()
    x = (0.2 + 1.6 * order / count).reshape(shape)
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(7)) < 0.7 if masked else None
    return case(operator, dims, shape, geometry, seed=seed, mask=mask).with_input(x)


def finite_differences(drawn: Case, check: Any, **options: Any) -> None:
    # A 0-d or (C,) tensor for each own tensor, whatever form the case has drawn.
    params = {n: t.detach().double().requires_grad_() for n, t in drawn.tensors().items()}
    leaves = (drawn.x.detach().requires_grad_(), *params.values())
    names = list(params)

    def function(x: Tensor, *tensors: Tensor) -> Tensor:
        return drawn.run(x, **dict(zip(names, tensors, strict=True)))

    assert check(function, leaves, **options)


def tensor_cases(operator: Operator, dims: int, geometry: dict[str, Any], masked: bool, seed: int = 3) -> list[Case]:
    """The smooth case, with every own parameter that can be a tensor as one, in each of its forms; if there is one."""
    if not takes(operator.name, _SHAPES[dims][2:], geometry):
        return []
    drawn = smooth_case(operator, dims, geometry, masked, seed)
    floats = [n for n in operator.tensors if isinstance(drawn.params.get(n), float) and drawn.params[n] < float("inf")]
    if not floats:
        return [drawn]
    shape = (drawn.x.size(1),)
    spread = torch.linspace(0.9, 1.1, shape[0], dtype=torch.float64)
    params = {n: drawn.params[n] * spread for n in floats}
    return [Case(operator, dims, drawn.x, drawn.geometry, drawn.mask, {**drawn.params, **params}, True)]


@every_dimension
@every_geometry
@every_operator
def test_first_derivative_equals_finite_differences(operator: Operator, dims: int, geometry: str) -> None:
    for drawn in tensor_cases(operator, dims, _GEOMETRIES[geometry], masked=geometry == "overlapping"):
        finite_differences(drawn, gradcheck)


@pytest.mark.slow
@every_dimension
@every_operator
def test_second_derivative_equals_finite_differences(operator: Operator, dims: int) -> None:
    geometries = {1: ["overlapping", "differing"], 2: ["overlapping"], 3: ["plain"]}[dims]
    for geometry in geometries:
        for drawn in tensor_cases(operator, dims, _GEOMETRIES[geometry], masked=dims == 1):
            finite_differences(drawn, gradgradcheck, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("geometry", "seed"), [("plain", 6), ("overlapping", 9)])
@every_operator
def test_third_derivative_equals_finite_differences(operator: Operator, geometry: str, seed: int) -> None:
    for drawn in tensor_cases(operator, 1, _GEOMETRIES[geometry], masked=geometry == "overlapping", seed=seed):
        own = {n: t.detach().double().requires_grad_() for n, t in drawn.tensors().items()}

        def gradient(*leaves: Tensor, drawn: Case = drawn, names: Any = tuple(own)) -> tuple[Tensor, ...]:
            y = drawn.run(leaves[0], **dict(zip(names, leaves[1:], strict=True)))
            weights = torch.linspace(1, 2, y.numel(), dtype=y.dtype).view(y.shape)
            cubes = sum(leaf.pow(3).sum() for leaf in leaves)  # so that every derivative depends on every leaf
            return torch.autograd.grad((weights * y).sum() + cubes, leaves, create_graph=True)

        assert gradgradcheck(gradient, (drawn.x.detach().requires_grad_(), *own.values()), atol=1e-4)


@every_dimension
@examples(20)
@given(data=st.data())
def test_the_semi_gradient_of_soft_pooling_is_its_weights(dims: int, data: st.DataObject) -> None:
    drawn = data.draw(cases(OPERATORS["soft"], dims, DTYPES))
    half = replace(drawn, params={**drawn.params, "semi_grad": True})
    y, actual = differentiated(half)
    assert torch.equal(y, drawn.run())
    x, arguments = drawn.oracle_arguments()
    ones = np.ones(y.shape if drawn.batched else (1, *y.shape))
    expected, _ = reference.soft_pool_backward(ones, x, **arguments, semi_grad=True)
    limits = {k: 4 * v for k, v in TOLERANCE[drawn.x.dtype].items()}
    torch.testing.assert_close(actual["input"].double(), torch.as_tensor(expected).reshape(drawn.x.shape), **limits)


@every_operator
def test_gradient_of_a_sum(operator: Operator) -> None:
    # The gradient that .sum() sends has stride 0 everywhere.
    drawn = case(operator, 2, _SHAPES[2], {"kernel_size": 2, "stride": 1}, dtype=torch.float32)
    leaves = {n: t.detach().requires_grad_() for n, t in {"input": drawn.x, **drawn.tensors()}.items()}
    y = drawn.run(leaves["input"], **{n: t for n, t in leaves.items() if n != "input"})
    grads = torch.autograd.grad(y.sum(), list(leaves.values()))
    check_gradients(drawn, torch.ones_like(y), dict(zip(leaves, grads, strict=True)))


@every_operator
def test_gradient_keeps_layout_and_dtype(operator: Operator) -> None:
    for dtype in DTYPES:
        drawn = case(operator, 2, (2, 3, 4, 4), {"kernel_size": 2}, dtype=dtype, layout="channels_last")
        _, actual = differentiated(drawn)
        assert actual["input"].dtype == dtype
        assert actual["input"].is_contiguous(memory_format=torch.channels_last)
        for name, tensor in drawn.tensors().items():
            assert actual[name].dtype == tensor.dtype, name


@every_operator
def test_only_wanted_gradients_are_made(operator: Operator) -> None:
    drawn = smooth_case(operator, 2, _GEOMETRIES["overlapping"], masked=True)
    y, both = differentiated(drawn)
    for name, tensor in {"input": drawn.x, **drawn.tensors()}.items():
        leaf = tensor.detach().clone().requires_grad_()
        y = drawn.run(leaf) if name == "input" else drawn.run(drawn.x, **{name: leaf})
        (alone,) = torch.autograd.grad(y.sum(), leaf)
        torch.testing.assert_close(alone, both[name])


@every_operator
def test_gradient_is_the_same_every_time(operator: Operator) -> None:
    drawn = case(operator, 2, (4, 3, 9, 9), {"kernel_size": 3, "stride": 1, "padding": 1}, dtype=torch.float32)
    _, first = differentiated(drawn)
    for _ in range(3):
        _, again = differentiated(drawn)
        assert all(torch.equal(first[n], again[n]) for n in first)


@pytest.mark.slow
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("operator", list(selected(lambda o: o.registered)))
def test_opcheck(operator: Operator, masked: bool) -> None:
    """torch's own check of schema, fake kernel and autograd, for the op and for its gradient."""
    name = f"{operator.name}_pool"
    dims, dtype, layout = (1, torch.float64, "contiguous") if masked else (2, torch.float32, "channels_last")
    drawn = smooth_case(operator, dims, _GEOMETRIES["overlapping"], masked)
    x = laid_out(drawn.x.to(dtype), layout).requires_grad_()
    params = {n: t.to(dtype).requires_grad_() for n, t in drawn.tensors().items()}
    calls = _recorded(lambda: drawn.run(x, **params), operator.namespace)
    assert [n for n, _ in calls] == [name, f"{name}_backward"]
    for op_name, arguments in calls:
        torch.library.opcheck(getattr(getattr(torch.ops, operator.namespace), op_name).default, arguments)


def _recorded(call: Callable[[], Tensor], namespace: str = "poolnb") -> list[tuple[str, tuple[Any, ...]]]:
    """The ops of a namespace that a call and its backward run, with their arguments."""
    seen: list[tuple[str, tuple[Any, ...]]] = []

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.namespace == namespace:
                seen.append((func._schema.name.removeprefix(f"{namespace}::"), args))
            return func(*args, **(kwargs or {}))

    with Recorder():
        y = call()
        y.sum().backward()
    return [(op_name, tuple(_fresh(a) for a in args)) for op_name, args in seen]


def _fresh(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    copy = value.detach().clone()
    return copy.requires_grad_() if copy.is_floating_point() else copy
