"""An operator of another package: the midrange, (max + min) / 2, made of `poolnb.extension` alone.

It has what poolnb's own have, by the same tests: those of the other files, called with its row.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import test_forward
import test_gradients
import test_transforms
import torch
from cases import cases, examples
from hypothesis import given
from hypothesis import strategies as st
from operators import DTYPES, TOLERANCE, Operator, every_dimension
from torch import Tensor, nn

import poolnb
from poolnb import extension as ext
from poolnb.modules import POOLS
from poolnb.reference.windows import Windows, over_windows, pool, pool_backward

# ---- the operator ----------------------------------------------------------------------------------------------------


def _extremes(windows: ext.Geometry, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The taps, the numbers of the largest and of the smallest one of every window, and which windows have one."""
    taps, valid = ext.open_windows(x, mask, windows)
    if valid is None:
        return taps, taps.argmax(0), taps.argmin(0), None
    high, low = (taps.masked_fill(~valid, end) for end in (-torch.inf, torch.inf))
    return taps, high.argmax(0), low.argmin(0), valid.any(0)


def _middle(taps: Tensor, high: Tensor, low: Tensor, some: Tensor | None) -> Tensor:
    top, bottom = (taps.gather(0, i.unsqueeze(0)).squeeze(0) for i in (high, low))
    y = top / 2 + bottom / 2
    return y if some is None else y.where(some, 0)


def _forward(windows: ext.Geometry, x: Tensor, mask: Tensor | None) -> Tensor:
    return _middle(*_extremes(windows, x, mask))


def _backward(windows: ext.Geometry, param_grads: bool, grad: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
    taps, high, low, some = _extremes(windows, x, mask)
    slopes = (ext.one_hot(taps, high) + ext.one_hot(taps, low)) / 2
    slopes = ext.spoilt(slopes, _middle(taps, high, low, some))
    return ext.scatter(ext.to_acc_dtype(grad) * (slopes if some is None else slopes * some), windows)


_op = ext.PoolOp("midrange_pool", _forward, _backward, namespace="poolnb_test")


def _midrange_pool(
    dims: int,
    input: Tensor,
    kernel_size: ext.IntOrSizes | None,
    stride: ext.IntOrSizes | None = None,
    padding: ext.Padding = 0,
    dilation: ext.IntOrSizes = 1,
    ceil_mode: bool = False,
    *,
    output_size: ext.OutputSize = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The middle between the largest and the smallest valid tap."""
    call = ext.check(dims, input, kernel_size, stride, padding, dilation, ceil_mode, mask, output_size)
    return call.finish(_op(call.input, call.mask, call.trimmed))


midrange_pool1d, midrange_pool2d, midrange_pool3d = ext.by_dimension(_midrange_pool)


class _MidrangePool(ext.Pool):
    op, functions = "midrange", (midrange_pool1d, midrange_pool2d, midrange_pool3d)


class MidrangePool1d(_MidrangePool):
    dims = 1


class MidrangePool2d(_MidrangePool):
    dims = 2


class MidrangePool3d(_MidrangePool):
    dims = 3


# ---- its oracle ------------------------------------------------------------------------------------------------------


def _slopes(taps: np.ndarray) -> np.ndarray:
    slopes = np.zeros_like(taps)
    slopes[taps.argmax()] += 0.5
    slopes[taps.argmin()] += 0.5
    return slopes


@over_windows
def midrange_pool(x: np.ndarray, windows: Windows, *, mask: Any = None) -> np.ndarray:
    return pool(x, mask, windows, lambda taps, c: (taps.max() + taps.min()) / 2)


@over_windows
def midrange_pool_backward(grad: np.ndarray, x: np.ndarray, windows: Windows, *, mask: Any = None) -> np.ndarray:
    return pool_backward(grad, x, mask, windows, lambda taps, c: (_slopes(taps), 0.0))[0]


_HERE = sys.modules[__name__]
MIDRANGE = Operator("midrange", averaging=True, kinks=True, library=_HERE, oracle=_HERE, namespace="poolnb_test")


# ---- what it has -----------------------------------------------------------------------------------------------------


@every_dimension
@examples(30)
@given(data=st.data())
def test_it_equals_its_oracle(dims: int, data: st.DataObject) -> None:
    drawn = data.draw(cases(MIDRANGE, dims, DTYPES))
    y = drawn.run()
    assert y.dtype == drawn.x.dtype
    torch.testing.assert_close(y.double(), drawn.expected(), **TOLERANCE[drawn.x.dtype])
    grad = torch.linspace(-1, 1, y.numel()).view(y.shape).to(y.dtype)
    test_gradients.check_gradients(drawn, grad, test_gradients.differentiated(drawn, grad)[1])


_SHARED = [
    test_forward.test_layout_of_the_input_is_kept,
    test_forward.test_a_sample_does_not_depend_on_its_batch,
    test_forward.test_global_pooling_is_one_window_over_everything,
    test_gradients.test_second_derivative_equals_finite_differences,
]


@every_dimension
@pytest.mark.parametrize("check", _SHARED, ids=lambda check: check.__name__)
def test_the_tests_of_poolnb_s_own_hold(check: Any, dims: int) -> None:
    check(MIDRANGE, dims)


@every_dimension
@test_gradients.every_geometry
def test_its_gradient_is_that_of_finite_differences(dims: int, geometry: str) -> None:
    test_gradients.test_first_derivative_equals_finite_differences(MIDRANGE, dims, geometry)


def test_opcheck() -> None:
    for masked in (False, True):
        test_gradients.test_opcheck(MIDRANGE, masked)


def test_vmap_is_a_loop() -> None:
    test_transforms.test_vmap_is_a_loop(MIDRANGE)
    test_transforms.test_gradients_per_entry(MIDRANGE)


def test_forward_mode_is_the_transpose_of_backward() -> None:
    x, t = torch.randn(2, 1, 2, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y, pushed = torch.func.jvp(lambda x: midrange_pool2d(x, 2), (x,), (t,))
    grad = torch.randn(y.shape, dtype=torch.float64)
    (pulled,) = torch.func.vjp(lambda x: midrange_pool2d(x, 2), x)[1](grad)
    torch.testing.assert_close((pushed * grad).sum(), (pulled * t).sum())


def test_torch_compile_and_export_take_it_whole() -> None:
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    compiled = torch.compile(MidrangePool2d(3, 2, padding=1), backend="aot_eager", fullgraph=True)
    y = compiled(x)
    torch.testing.assert_close(y, midrange_pool2d(x, 3, 2, 1))
    y.sum().backward()
    torch.testing.assert_close(x.grad, torch.autograd.grad(midrange_pool2d(x, 3, 2, 1).sum(), x)[0])
    program = torch.export.export(MidrangePool2d(2), (x,))
    assert "poolnb_test.midrange_pool" in str(program.graph)
    torch.testing.assert_close(program.module()(x), midrange_pool2d(x, 2))


def test_a_nan_and_a_window_without_a_tap() -> None:
    x = torch.tensor([[[1.0, torch.nan, 3.0, 5.0]]], requires_grad=True)
    y = midrange_pool1d(x, 2, mask=torch.tensor([True, True, False, False]))
    (grad,) = torch.autograd.grad(y, x, torch.ones_like(y))
    assert y[0, 0, 0].isnan() and y[0, 0, 1] == 0
    assert grad[0, 0, :2].isnan().all() and (grad[0, 0, 2:] == 0).all()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        pytest.param({"input": torch.ones(1, 1, 4, dtype=torch.int64)}, "input", id="an input of integers"),
        pytest.param({"kernel_size": 0}, "kernel_size", id="a window without taps"),
        pytest.param({"padding": 2}, "padding", id="more padding than half of the window"),
        pytest.param({"mask": torch.ones(4)}, "mask", id="a mask of floats"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises((TypeError, ValueError), match=named):
        midrange_pool1d(**{"input": torch.ones(1, 1, 4), "kernel_size": 2, **arguments})


# ---- its name --------------------------------------------------------------------------------------------------------


@pytest.fixture
def registered() -> Iterator[None]:
    ext.register_pool("midrange", MidrangePool1d, MidrangePool2d, MidrangePool3d)
    yield
    del POOLS["midrange"]


@pytest.mark.usefixtures("registered")
def test_the_registry_makes_it_and_puts_it_into_models() -> None:
    assert "midrange" in poolnb.list_pools()
    layer = poolnb.create_pool("midrange", 3, 2, dims=1, padding=1)
    assert isinstance(layer, MidrangePool1d) and layer.extra_repr() == "kernel_size=3, stride=2, padding=1"
    assert isinstance(pickle.loads(pickle.dumps(layer)), MidrangePool1d)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2))
    assert poolnb.replace_pooling(model, "midrange") == 1 and isinstance(model[1], MidrangePool2d)
    x = torch.randn(1, 1, 8, 8)
    torch.testing.assert_close(model(x), midrange_pool2d(model[0](x), 2))


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        pytest.param((3, MidrangePool1d), TypeError, "name must be a string, got 3", id="a name that is no string"),
        pytest.param(("midrange", MidrangePool1d), ValueError, "no pooler has, got 'midrange'", id="a taken name"),
        pytest.param(("other", nn.MaxPool2d), TypeError, "must be subclasses of poolnb.Pool", id="another class"),
        pytest.param(("other",), ValueError, "classes must be at least one.*got none", id="no class"),
        pytest.param(
            ("other", MidrangePool1d, MidrangePool1d), ValueError, "another number of dimensions", id="the same twice"
        ),
    ],
)
def test_a_name_is_given_once(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ext.register_pool(*arguments)
    assert "other" not in poolnb.list_pools()


def test_a_pooler_of_some_dimensions_says_which() -> None:
    try:
        ext.register_pool("flat", MidrangePool2d)
        with pytest.raises(ValueError, match="dims must be one of 2 for flat, got 3"):
            poolnb.create_pool("flat", 2, dims=3)
    finally:
        del POOLS["flat"]
