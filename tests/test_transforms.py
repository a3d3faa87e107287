"""torch.func: a vmapped call is the loop over its entries, whichever are mapped. And calls that are recorded."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from cases import case, takes
from devices import torch
from operators import Case, Operator, every_operator
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

pytestmark = pytest.mark.usefixtures("kernels")

_ENTRIES = 3
_OVERLAPPING = {"kernel_size": 3, "stride": 2, "padding": 1}


def mapped(drawn: Case) -> dict[str, Tensor]:
    """Input and own tensors, each stacked to a few different entries."""
    leaves = {"input": drawn.x, **drawn.tensors()}
    return {n: torch.stack([t * (1 - 0.1 * i) for i in range(_ENTRIES)]) for n, t in leaves.items()}


def cases_of(operator: Operator, shape: tuple[int, ...] = (2, 3, 5, 4), geometry: Any = _OVERLAPPING) -> list[Case]:
    """Two cases: with what the own arguments turn out to be for two seeds, in evaluation mode."""
    result = []
    for seed in (1, 5):
        drawn = case(operator, 2, shape, dict(geometry), seed=seed)
        params = {n: v for n, v in drawn.params.items() if n not in ("training", "seed")}
        result.append(Case(operator, 2, drawn.x, drawn.geometry, None, params, True))
    return result


@every_operator
def test_vmap_is_a_loop(operator: Operator) -> None:
    for drawn in cases_of(operator):
        stacked = mapped(drawn)
        names = list(stacked)

        def call(*tensors: Tensor, names: list[str] = names, drawn: Case = drawn) -> Tensor:
            named = dict(zip(names, tensors, strict=True))
            return drawn.run(named.pop("input"), **named)

        for chosen in product([True, False], repeat=len(names)):
            if not any(chosen):
                continue
            dims = tuple(0 if c else None for c in chosen)
            arguments = [stacked[n] if c else stacked[n][0] for n, c in zip(names, chosen, strict=True)]
            expected = [
                call(*(stacked[n][i if c else 0] for n, c in zip(names, chosen, strict=True))) for i in range(_ENTRIES)
            ]
            torch.testing.assert_close(torch.func.vmap(call, dims)(*arguments), torch.stack(expected))


@every_operator
def test_gradients_per_entry(operator: Operator) -> None:
    for drawn in cases_of(operator):
        stacked = mapped(drawn)
        names = list(stacked)

        def total(*tensors: Tensor, names: list[str] = names, drawn: Case = drawn) -> Tensor:
            named = dict(zip(names, tensors, strict=True))
            return drawn.run(named.pop("input"), **named).square().sum()

        everything = tuple(range(len(names)))
        together = torch.func.vmap(torch.func.grad(total, everything))(*stacked.values())
        for i in range(_ENTRIES):
            leaves = [t[i].clone().requires_grad_() for t in stacked.values()]
            alone = torch.autograd.grad(total(*leaves), leaves)
            for actual, expected in zip(together, alone, strict=True):
                torch.testing.assert_close(actual[i], expected)


@every_operator
def test_second_derivative_of_the_input(operator: Operator) -> None:
    for drawn in cases_of(operator, (1, 1, 3, 3), {"kernel_size": 2, "stride": 1}):

        def total(x: Tensor, drawn: Case = drawn) -> Tensor:
            return drawn.run(x).square().sum()

        twice = torch.func.jacrev(torch.func.grad(total))(drawn.x)
        torch.testing.assert_close(twice, torch.autograd.functional.hessian(total, drawn.x))


@every_operator
def test_dual_numbers_through_a_gradient(operator: Operator) -> None:
    """Forward over reverse, outside torch.func."""
    for geometry in ({"kernel_size": 2, "stride": 1}, {"kernel_size": None, "output_size": 2}):
        if not takes(operator.name, (3, 3), geometry):
            continue
        drawn = cases_of(operator, (1, 2, 3, 3), geometry)[1]
        leaves = [t.detach().double().requires_grad_() for t in (drawn.x, *drawn.tensors().values())]
        moved = [0.5 + torch.rand_like(t) for t in leaves]

        def slopes(leaves: list[Tensor], drawn: Case = drawn, **options: bool) -> tuple[Tensor, ...]:
            y = drawn.run(leaves[0], **dict(zip(drawn.tensors(), leaves[1:], strict=True)))
            return torch.autograd.grad(y.pow(3).sum(), leaves, **options)

        products = sum((g * m).sum() for g, m in zip(slopes(leaves, create_graph=True), moved, strict=True))
        expected = torch.autograd.grad(products, leaves)
        with forward_ad.dual_level():
            duals = [forward_ad.make_dual(t, m) for t, m in zip(leaves, moved, strict=True)]
            pushed = [forward_ad.unpack_dual(g).tangent for g in slopes(duals)]
        torch.testing.assert_close(pushed, list(expected))


@every_operator
def test_functionalize_changes_nothing(operator: Operator) -> None:
    drawn = cases_of(operator)[1]
    x = drawn.x.requires_grad_()
    y, same = drawn.run(x), torch.func.functionalize(drawn.run)(x)
    torch.testing.assert_close([same, *torch.autograd.grad(same.sum(), x)], [y, *torch.autograd.grad(y.sum(), x)])
    if operator.name not in ("max", "avg"):  # torch's ops, whose gradients it knows
        with pytest.raises(NotImplementedError, match="outside torch.func.functionalize"):
            torch.func.functionalize(torch.func.grad(lambda x: drawn.run(x).sum()))(x)


@pytest.mark.slow
@every_operator
@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node")
def test_a_call_can_be_recorded(operator: Operator) -> None:
    """Without a look at values that are not there yet, of input and parameters."""
    drawn = cases_of(operator, geometry={"kernel_size": 2, "stride": 1})[1]

    def call(leaves: dict[str, Tensor]) -> Tensor:
        return drawn.run(leaves["input"], **{n: t for n, t in leaves.items() if n != "input"})

    leaves = {"input": drawn.x, **drawn.tensors()}
    y, other = call(leaves), {n: 0.9 * t for n, t in leaves.items()}
    for mode in ("real", "fake", "symbolic"):
        torch.testing.assert_close(make_fx(call, tracing_mode=mode)(leaves)(other), call(other))
    with FakeTensorMode() as fakes:
        fake = call({n: fakes.from_tensor(t) for n, t in leaves.items()})
    with FakeTensorMode(allow_non_fake_inputs=True) as fakes:
        beside = call({**leaves, "input": fakes.from_tensor(drawn.x)})
    assert fake.shape == beside.shape == y.shape and fake.stride() == beside.stride() == y.stride()
    same, pushed = torch.func.linearize(call, leaves)
    torch.testing.assert_close(same, y)
    torch.testing.assert_close(pushed(other), torch.func.jvp(call, (leaves,), (other,))[1])
