"""``torch.ops.poolnb.*`` called directly: a wrong argument is one exception that names it, with all kernels."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from itertools import count
from typing import Any

import pytest
import torch
from raw_calls import COPY, GEOMETRY, POOL_OPS, Arguments, call, faults, right_arguments, schemas
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad

from poolnb import native

_REFUSED = (RuntimeError, ValueError, TypeError, NotImplementedError)
_EVERY = [f"{n}{way}" for n in (*POOL_OPS, COPY) for way in ("", "_backward")]
_ROUNDS = 2  # right calls per op, each of which is made wrong in every way


def test_every_op_is_tried() -> None:
    assert set(schemas()) == {f"{n}{way}" for n in (*POOL_OPS, COPY) for way in ("", "_backward")} | {"draw_seed"}


def blamed(argument: str, what: str, names: list[str]) -> list[str]:
    """What the message may name: sizes follow from each other, and others are judged beside the input."""
    if argument in ("size", *GEOMETRY) and "size" in names:  # of a copy, whose input they say the size of
        return ["size", "output_size", "input"]
    if argument in GEOMETRY:
        return [*GEOMETRY, "grid_size"]
    return names if argument == "input" and (what.startswith(("a spatial", "shape", "torch."))) else [argument]


def complaints(name: str, number: int) -> list[str]:
    """What is wrong with the answers to wrong calls of an op."""
    found = []
    arguments = right_arguments(name, random.Random(f"{name} {number}"))
    names = [a.name for a in schemas()[name].arguments]
    for argument, what, wrong in faults(name, arguments):
        try:
            call(name, wrong)
            found.append(f"{name}, case {number}: {argument} = {what} is accepted")
        except _REFUSED as error:
            if not any(n in str(error) for n in blamed(argument, what, names)):
                found.append(f"{name}, case {number}: {argument} = {what} gives {type(error).__name__}: {error}")
    return found


@pytest.mark.cpu
@pytest.mark.parametrize("kernels", ["0", "1"], ids=["pytorch", "compiled"])
def test_a_wrong_argument_is_named(kernels: str) -> None:
    """In a process of its own: what is not refused may end it."""
    program = "import test_raw_ops; test_raw_ops.main()"
    environment = {**os.environ, "POOLNB_NATIVE": kernels}
    environment["PYTHONPATH"] = os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)])
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-300:]}\n{done.stderr[-3000:]}"
    *_, last = done.stdout.splitlines()
    assert json.loads(last) == []


def main() -> None:
    names = [n for n in schemas() if n != "draw_seed"]
    found = []
    for name in names:
        print(name, flush=True)
        for number in range(_ROUNDS):
            found += complaints(name, number)
    print(json.dumps(found))


@pytest.mark.skipif(not native.operators(), reason="no compiled kernels are active")
@pytest.mark.parametrize("name", [n for n in POOL_OPS if n.removesuffix("_pool") in native.names()])
def test_both_sets_of_kernels_say_the_same(name: str) -> None:
    arguments = right_arguments(name, random.Random(3))
    compared = 0
    for _, _, wrong in faults(name, arguments):
        said = _message(name, wrong)
        with native.disabled():
            expected = _message(name, wrong)
        if "must" in said and "must" in expected:  # torch's own words come before ours
            assert said == expected or "got" in said and said.split(", got")[0] == expected.split(", got")[0]
            compared += 1
    assert compared > 20


def _message(name: str, arguments: dict[str, Any]) -> str:
    with pytest.raises(_REFUSED) as caught:
        call(name, arguments)
    return str(caught.value)


@pytest.mark.parametrize("name", _EVERY)
def test_traces_refuse_the_same(name: str) -> None:
    """The fake kernel, which `torch.compile` asks."""
    arguments = right_arguments(name, random.Random(name))
    _fake(name, arguments)
    for argument, what, wrong in faults(name, arguments):
        tensors = [v for v in wrong.values() if isinstance(v, Tensor)]
        if any(t.layout != torch.strided or t.device.type == "meta" for t in tensors) or "cut" in what:
            continue
        try:
            _fake(name, wrong)
        except _REFUSED:
            continue
        raise AssertionError(f"{argument} = {what} is accepted")


def _usable(name: str) -> Arguments:
    """Right arguments with finite numbers in float64, and no noise."""
    drawn = (right_arguments(name, random.Random(f"{name} {i}")) for i in count())
    given = next(a for a in drawn if a["input"].numel() and a.get("param_grads", True))
    floats = {n: v for n, v in given.items() if isinstance(v, Tensor) and v.is_floating_point()}
    wide = {n: v.double().nan_to_num(0.5, 0.75, 0.25).contiguous() for n, v in floats.items()}
    return {**given, **wide, **({"seed": None} if "seed" in given else {})}


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("name", _EVERY)
def test_a_tangent_is_not_forgotten(name: str) -> None:
    """As in an exported program, which holds the op alone."""
    arguments = _usable(name)
    own = {n: v for n, v in arguments.items() if isinstance(v, Tensor) and v.is_floating_point()}
    moved = {n: torch.rand_like(v) for n, v in own.items()}
    with forward_ad.dual_level():
        duals = {n: forward_ad.make_dual(v, moved[n]) for n, v in own.items()}
        pushed = [forward_ad.unpack_dual(y).tangent for y in _results(name, {**arguments, **duals})]
    leaves = {n: v.clone().requires_grad_() for n, v in own.items()}
    every = zip(_results(name, {**arguments, **leaves}), pushed, strict=True)
    results, pushed = zip(*((y, t) for y, t in every if y.numel() and y.requires_grad), strict=True)
    back = [torch.rand_like(y) for y in results]
    pulled = torch.autograd.grad(results, list(leaves.values()), back, allow_unused=True)
    forwards = sum((b * t).sum() for b, t in zip(back, pushed, strict=True))
    backwards = sum((g * moved[n]).sum() for g, n in zip(pulled, own, strict=True) if g is not None)
    torch.testing.assert_close(forwards, backwards)


@pytest.mark.parametrize("name", _EVERY)
def test_an_op_alone_has_no_derivative_in_torch_func(name: str) -> None:
    arguments = _usable(name)
    x = arguments["input"]

    def total(x: Tensor) -> Tensor:
        return sum(y.sum() for y in _results(name, {**arguments, "input": x}))

    for differentiate in (torch.func.grad(total), lambda x: torch.func.jvp(total, (x,), (x,))):
        with pytest.raises(NotImplementedError, match=f"torch.ops.poolnb.{name}: call poolnb's function"):
            differentiate(x)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("name", _EVERY)
def test_an_op_alone_can_be_mapped(name: str) -> None:
    arguments = _usable(name)
    changing = "grad" if "grad" in arguments else "input"
    many = torch.stack([arguments[changing], 0.5 * arguments[changing]])
    mapped = torch.func.vmap(lambda x: call(name, {**arguments, changing: x}))(many)
    alone = [call(name, {**arguments, changing: x}) for x in many]
    expected = torch.utils._pytree.tree_map(lambda *each: torch.stack(each), *alone)
    torch.testing.assert_close(mapped, expected)


def _results(name: str, arguments: Arguments) -> tuple[Tensor, ...]:
    result = call(name, arguments)
    return result if isinstance(result, tuple) else (result,)


def _fake(name: str, arguments: dict[str, Any]) -> Any:
    with FakeTensorMode() as mode:
        return call(name, {k: mode.from_tensor(v) if isinstance(v, Tensor) else v for k, v in arguments.items()})
