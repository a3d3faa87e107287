"""The map of maxima under S3 and max-blur pooling: the compiled kernels beside the steps of PyTorch's."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from poolnb import functional as F
from poolnb import native

compiled = pytest.mark.skipif(not native.operators(), reason="no compiled kernels are active")
_OPS = torch.ops.poolnb

_CALLS: dict[str, dict[str, Any]] = {
    "s3 training": {"training": True, "seed": 5},
    "s3 average": {},
    "s3 expectation": {"eval_mode": "expectation"},
    "maxblur": {},
}
_SIZES = {1: [(17,), (40,)], 2: [(9, 17), (11, 33), (5, 5)], 3: [(5, 7, 19), (3, 4, 6)]}
_WINDOWS = [(2, 2, 0), (3, 2, 1), (2, 1, 1), (3, 1, 1), (1, 2, 0), (3, 3, 2)]
_LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}


def _pool(name: str, dims: int, windows: tuple[int, int, int]) -> Callable[[Tensor], Tensor]:
    function = getattr(F, f"{name.split()[0]}_pool{dims}d")
    return lambda x: function(x, *windows, **_CALLS[name])


def _input(size: tuple[int, ...], channels: int, dtype: torch.dtype, number: int) -> Tensor:
    """Plain numbers, then many equal ones, then infinities and NaN among them."""
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(2, channels, *size, generator=generator)
    if number % 3 == 1:
        x = x.round()
    if number % 3 == 2:
        x.view(-1)[::7], x.view(-1)[::5], x.view(-1)[::31] = -math.inf, math.inf, math.nan
    return x.to(dtype)


def _both(call: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    leaf = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = call(leaf)
    grad = torch.linspace(-1, 1, y.numel()).view(y.shape).to(x.dtype)
    return [y.detach(), *torch.autograd.grad(y, leaf, grad)]


@compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("name", _CALLS)
def test_both_sets_of_kernels_agree(name: str, dims: int, dtype: torch.dtype) -> None:
    half = dtype in (torch.float16, torch.bfloat16)
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if half else {"rtol": 1e-5, "atol": 1e-5}
    cases = product(_SIZES[dims], _WINDOWS, (1, 3, 19, 40), ("plain", "last", "sliced"))
    for number, (size, windows, channels, layout) in enumerate(cases):
        x = _input(size, channels, dtype, number)
        if layout == "last" and dims in _LAYOUTS:
            x = x.contiguous(memory_format=_LAYOUTS[dims])
        if layout == "sliced":
            x = torch.stack([x, x], -1)[..., 0]
        call = _pool(name, dims, windows)
        ours = _both(call, x)
        with native.disabled():
            expected = _both(call, x)
        for a, b in zip(ours, expected, strict=True):
            torch.testing.assert_close(a, b, equal_nan=True, **tolerance)
            assert a.stride() == b.stride()


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("name", ["s3 training", "maxblur"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_tap_of_minus_infinity_counts_beside_padding(name: str, dtype: torch.dtype) -> None:
    """The window at the edge holds padding and one tap: its gradient belongs to the tap."""
    x = torch.full((1, 1, 5), -math.inf, dtype=dtype, requires_grad=True)
    y = _pool(name, 1, (2, 1, 1))(x)
    assert y.isneginf().all()
    (grad,) = torch.autograd.grad(y, x, torch.ones_like(y))
    torch.testing.assert_close(grad.sum(), torch.tensor(float(y.numel()), dtype=dtype), rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("kernels")
def test_a_tap_of_minus_infinity_counts_beside_masked_ones() -> None:
    x = torch.tensor([[[math.nan, -math.inf, 1.0, 2.0]]], requires_grad=True)
    mask = torch.tensor([[[False, True, True, True]]])
    y = F.s3_pool1d(x, 2, 1, grid_size=1, training=True, seed=0, mask=mask)
    (grad,) = torch.autograd.grad(y, x, torch.ones_like(y))
    assert y.tolist() == [[[-math.inf, 1.0, 2.0]]] and grad.tolist() == [[[0.0, 1.0, 1.0, 1.0]]]


_X, _STARTS = torch.rand(2, 3, 5, 6), torch.arange(9)
_RIGHT = {
    "_max_map": [_X, _STARTS % 5, [2, 2], [4, 5]],
    "_max_map_backward": [torch.rand(2, 3, 4, 5), _X, _STARTS % 5, [2, 2], [4, 5]],
    "_s3_starts": [torch.tensor(3), [8, 8], [4, 4], [2, 2], [4, 4]],
}
_WRONG = {
    "_max_map": [
        (0, _X.int(), "input"),
        (0, _X[0, 0], "input"),
        (1, _STARTS[:8] % 5, "starts"),
        (1, _STARTS.int() % 5, "starts"),
        (1, torch.stack([_STARTS % 5] * 2, 1)[:, 0], "starts"),
        (1, _STARTS + 5, "starts"),
        (1, _STARTS % 5 - 2, "starts"),
        (2, [2], "kernel_size"),
        (2, [0, 2], "kernel_size"),
        (3, [4, 5, 1], "output_size"),
        (3, [-4, 13], "output_size"),
    ],
    "_max_map_backward": [
        (0, torch.rand(2, 3, 4, 4), "grad"),
        (0, torch.rand(2, 3, 4, 5).double(), "grad"),
        (0, torch.rand(2, 3, 4, 10)[..., ::2], "grad"),
        (1, _X.transpose(2, 3).contiguous().transpose(2, 3), "input"),
    ],
    "_s3_starts": [
        (0, torch.tensor(3.0), "seed"),
        (0, torch.tensor([3]), "seed"),
        (1, [8, 9], "counts"),
        (1, [6, 8], "counts"),
        (2, [4], "output_size"),
        (3, [0, 2], "stride"),
        (4, [3, 4], "grid_size"),
    ],
}


@compiled
@pytest.mark.parametrize(
    ("op", "at", "wrong", "name"), [(op, *rest) for op, faults in _WRONG.items() for rest in faults]
)
def test_a_wrong_argument_of_a_part_is_named(op: str, at: int, wrong: Any, name: str) -> None:
    arguments = list(_RIGHT[op])
    getattr(_OPS, op)(*arguments)
    arguments[at] = wrong
    with pytest.raises(RuntimeError, match=name):
        getattr(_OPS, op)(*arguments)


@compiled
def test_the_compiled_draw_is_that_of_philox() -> None:
    """The list of kept starts: a kernel of 1 on 0, 1, 2, ...."""
    x = torch.arange(30.0).expand(1, 1, 30)
    for stride, grid, seed in product((1, 2, 3), (1, 2, 4), range(5)):
        kept = F.s3_pool1d(x, 1, stride, grid_size=stride * grid, training=True, seed=seed)
        with native.disabled():
            expected = F.s3_pool1d(x, 1, stride, grid_size=stride * grid, training=True, seed=seed)
        assert torch.equal(kept, expected)


@compiled
@pytest.mark.parametrize("name", _CALLS)
def test_an_empty_batch_is_as_empty_as_by_the_steps(name: str) -> None:
    for x in (
        torch.zeros(0, 2, 8, 16)[..., ::2],
        torch.zeros(0, 2, 8, 8).contiguous(memory_format=torch.channels_last),
    ):
        assert [t.shape for t in _both(_pool(name, 2, (2, 2, 0)), x)] == [(0, 2, 4, 4), (0, 2, 8, 8)]
