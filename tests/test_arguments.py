"""Bad arguments: each is one TypeError or ValueError that names the argument and says what it got."""

from __future__ import annotations

import random
import re
from typing import Any

import numpy as np
import pytest
import torch
from operators import DIMS, Operator, Setting, every_dimension, every_operator

import poolnb
from poolnb.geometry import resolve

_SHAPES = {1: (2, 3, 6), 2: (2, 3, 6, 5), 3: (2, 3, 6, 5, 4)}
Fault = tuple[dict[str, Any], str]  # arguments that replace the good ones, the name to be blamed


def setting_of(dims: int, dtype: torch.dtype = torch.float32) -> Setting:
    return Setting(_SHAPES[dims], resolve(_SHAPES[dims][2:], 2), dtype, True, random.Random(0))


def bad_inputs(dims: int) -> list[Fault]:
    x = torch.zeros(_SHAPES[dims])
    values: list[Any] = [
        None,
        1.0,
        x.tolist(),
        x.numpy(),
        x.int(),
        x.bool(),
        x.to(torch.complex64),
        x.to(torch.float8_e5m2),
        x.to_sparse(),
        x[0, 0],
        x.unsqueeze(0),
        x[:, :0],
        x[..., :0],
        torch.tensor(1.0),
    ]
    return [({"input": v}, "input") for v in values]


def bad_geometry(dims: int) -> list[Fault]:
    sizes: list[Any] = ["2", 1.5, True, (2,) * (dims + 1), (1.0,) * dims, {2}, torch.tensor(2), 2**70, np.ones(dims)]
    faults: list[Fault] = [
        ({name: v}, name) for name in ("kernel_size", "stride", "padding", "dilation") for v in sizes
    ]
    faults += [({"kernel_size": v}, "kernel_size") for v in (0, -1, (2,) * (dims - 1) + (0,), (), [])]
    faults += [({"stride": v}, "stride") for v in (0, -2)]
    faults += [({"padding": v}, "padding") for v in (-1, 2, None, ())]
    faults += [({"dilation": v}, "dilation") for v in (0, -1, None, ())]
    faults += [({"ceil_mode": v}, "ceil_mode") for v in (1, 0, None, "True")]
    faults += [({"kernel_size": 7}, "input"), ({"dilation": 9}, "input")]
    faults += [
        ({"kernel_size": None, "stride": 2}, "stride"),
        ({"kernel_size": None, "padding": 1}, "padding"),
        ({"kernel_size": None, "dilation": 2}, "dilation"),
    ]
    return faults


def bad_masks(dims: int) -> list[Fault]:
    shape = _SHAPES[dims]
    good = torch.ones(shape, dtype=torch.bool)
    values: list[Any] = [
        True,
        good.tolist(),
        good.numpy(),
        good.float(),
        good.int(),
        good[..., :-1],
        torch.cat([good, good]),
        good.unsqueeze(0),
        torch.ones(shape, dtype=torch.bool, device="meta"),
    ]
    return [({"mask": v}, "mask") for v in values]


def faults_of(operator: Operator, dims: int) -> list[Fault]:
    return [*bad_inputs(dims), *bad_geometry(dims), *bad_masks(dims), *operator.bad(setting_of(dims))]


def good_arguments(operator: Operator, dims: int) -> dict[str, Any]:
    setting = setting_of(dims)
    params = operator.params(setting)
    return {"input": torch.rand(_SHAPES[dims]), "kernel_size": 2, **params}


@every_dimension
@every_operator
def test_each_fault_is_one_clear_error(operator: Operator, dims: int) -> None:
    function, good = operator.function(dims), good_arguments(operator, dims)
    function(**good)
    faults = faults_of(operator, dims)
    assert len({name for _, name in faults}) >= 7 and len(faults) >= 12
    for wrong, name in faults:
        with pytest.raises((TypeError, ValueError)) as caught:
            function(**{**good, **wrong})
        message = str(caught.value)
        assert re.search(rf"\b{name}\b", message), (wrong, message)
        assert re.search(r"\bgot\b|too small for one window: spatial size", message), (wrong, message)
        assert re.search(r"\bmust\b", message), (wrong, message)  # what it accepts


@every_operator
def test_unknown_and_missing_arguments_are_named(operator: Operator) -> None:
    for dims in DIMS:
        function, good = operator.function(dims), good_arguments(operator, dims)
        with pytest.raises(TypeError, match="surprise"):
            function(**good, surprise=1)
        with pytest.raises(TypeError, match="kernel_size"):
            function(good["input"])


@every_operator
def test_a_fault_is_found_before_any_work(operator: Operator) -> None:
    # A meta tensor holds no values: an error that needed them would be another one.
    good = good_arguments(operator, 2)
    x = torch.empty(_SHAPES[2], device="meta")
    with pytest.raises(ValueError, match="padding"):
        operator.function(2)(**{**good, "input": x, "padding": 5})


@pytest.mark.parametrize("name", poolnb.list_pools())
def test_modules_refuse_unknown_options(name: str) -> None:
    with pytest.raises(TypeError, match="'surprise'.*accepts.*padding"):
        poolnb.create_pool(name, 2, 2, channels=3, output_size=3, surprise=1)


def test_create_pool_names_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="name must be one of .*soft.*got 'sofft'"):
        poolnb.create_pool("sofft", 2)
    with pytest.raises(ValueError, match="dims must be 1, 2 or 3, got 4"):
        poolnb.create_pool("soft", 2, dims=4)
    with pytest.raises(ValueError, match="name must be one of .*got 3"):
        poolnb.create_pool(3, 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"name must be one of .*got \[\]"):
        poolnb.create_pool([], 2)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", poolnb.list_pools())
def test_modules_check_their_geometry_when_made(name: str) -> None:
    for option, value in (("kernel_size", 0), ("stride", -1), ("padding", -1), ("dilation", 0), ("ceil_mode", 1)):
        arguments = {"kernel_size": 2, "stride": 2, option: value}
        with pytest.raises((TypeError, ValueError), match=option):
            poolnb.create_pool(name, **arguments, channels=3, output_size=3)
