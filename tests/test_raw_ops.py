"""``torch.ops.poolnb.*`` called directly: a wrong argument is one exception that names it, with all kernels."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from typing import Any

import pytest
import torch
from raw_calls import COPY, GEOMETRY, POOL_OPS, call, faults, right_arguments, schemas
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from poolnb import native

_REFUSED = (RuntimeError, ValueError, TypeError, NotImplementedError)
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


@pytest.mark.parametrize("name", [f"{n}{way}" for n in (*POOL_OPS, COPY) for way in ("", "_backward")])
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


def _fake(name: str, arguments: dict[str, Any]) -> Any:
    with FakeTensorMode() as mode:
        return call(name, {k: mode.from_tensor(v) if isinstance(v, Tensor) else v for k, v in arguments.items()})
