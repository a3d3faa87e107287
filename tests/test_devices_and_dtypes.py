"""Parameters are made where and as ``device`` and ``dtype`` say, as torch's modules have it."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from operators import DTYPES
from poolers import every_pooler
from torch import nn

import poolnb


def make(name: str, seed: int = 0, **factory: Any) -> nn.Module:
    torch.manual_seed(seed)
    return poolnb.create_pool(name, 2, channels=4, output_size=3, **factory)


@every_pooler
def test_poolers_that_learn_take_both_and_others_neither(name: str) -> None:
    pool = make(name)
    taken = {"device", "dtype"} & set(inspect.signature(type(pool)).parameters)
    assert taken == ({"device", "dtype"} if list(pool.parameters()) else set())


@every_pooler
@pytest.mark.parametrize("dtype", DTYPES)
def test_parameters_are_on_the_device_and_of_the_dtype(name: str, dtype: torch.dtype) -> None:
    for parameter in make(name, device="meta", dtype=dtype).parameters():
        assert parameter.is_meta and parameter.dtype == dtype
    x = torch.rand(2, 4, 6, 6).to(dtype)
    assert make(name, dtype=dtype)(x).dtype == dtype


@every_pooler
def test_a_pooler_made_without_memory_starts_as_any_other_once_it_has_some(name: str) -> None:
    late = make(name, device="meta").to_empty(device="cpu")
    torch.manual_seed(0)
    for module in late.modules():
        if module is late and list(late.parameters()):
            module.reset_parameters()  # type: ignore[operator]
    for parameter, expected in zip(late.parameters(), make(name).parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, rtol=0, atol=0)


@every_pooler
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"dtype": torch.int64}, TypeError, "dtype must be one of .*float64, got torch.int64"),
        ({"dtype": "float32"}, TypeError, "dtype must be one of .*float64, got 'float32'"),
        ({"device": "nowhere"}, RuntimeError, "device must be one that torch.device accepts, got 'nowhere'"),
        ({"device": 1.5}, TypeError, "device must be one that torch.device accepts, got 1.5"),
    ],
    ids=["integer dtype", "dtype by name", "unknown device", "no device"],
)
def test_faults_are_named(name: str, wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(name, **wrong)
    with pytest.raises(error, match=message):
        poolnb.replace_pooling(nn.Sequential(nn.MaxPool2d(2)), name, **wrong)


@pytest.mark.parametrize("around", [[], [nn.Conv2d(3, 4, 1).double()]], ids=["alone", "beside float64"])
def test_replacing_makes_parameters_as_asked(around: list[nn.Module]) -> None:
    model = nn.Sequential(*around, nn.MaxPool2d(2))
    poolnb.replace_pooling(model, "gem", dtype=torch.float16)
    assert [p.dtype for p in model[-1].parameters()] == [torch.float16]
    poolnb.replace_pooling(model, "lse", types=poolnb.GeMPool2d, device="meta")
    (parameter,) = model[-1].parameters()
    assert parameter.is_meta and parameter.dtype == (torch.float64 if around else torch.float16)
