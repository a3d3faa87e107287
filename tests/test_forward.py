"""Every operator equals the NumPy oracle, for any geometry, layout, dtype and mask."""

from __future__ import annotations

import pytest
from cases import case, cases, examples, laid_out
from devices import torch
from hypothesis import given
from hypothesis import strategies as st
from operators import OPERATORS, TOLERANCE, Operator, every_dimension, every_operator

from poolnb.geometry import memory_format, resolve

pytestmark = pytest.mark.usefixtures("kernels")

_SHAPES = {1: (2, 3, 9), 2: (2, 3, 5, 6), 3: (2, 3, 4, 3, 4)}


@every_dimension
@every_operator
@examples(30)
@given(data=st.data())
def test_equals_the_oracle(operator: Operator, dims: int, data: st.DataObject) -> None:
    drawn = data.draw(cases(operator, dims))
    y = drawn.run()
    assert y.dtype == drawn.x.dtype
    torch.testing.assert_close(y.double(), drawn.expected(), **TOLERANCE[drawn.x.dtype])


@every_dimension
@every_operator
def test_layout_of_the_input_is_kept(operator: Operator, dims: int) -> None:
    given_case = case(operator, dims, _SHAPES[dims], {"kernel_size": 2}, dtype=torch.float32)
    y = given_case.run()
    assert y.is_contiguous()
    x = laid_out(given_case.x, "channels_last")
    same = given_case.run(x)
    assert memory_format(same) == memory_format(x)
    torch.testing.assert_close(same, y)


@every_dimension
@every_operator
def test_a_sample_does_not_depend_on_its_batch(operator: Operator, dims: int) -> None:
    # Own arguments with a batch dimension are another matter, so this takes one sample per batch twice.
    given_case = case(operator, dims, (1, *_SHAPES[dims][1:]), {"kernel_size": 3, "stride": 2, "padding": 1})
    x = given_case.x
    y = given_case.run(x)
    alone = given_case.run(x.clone())
    assert torch.equal(y, alone)


@every_dimension
@every_operator
def test_global_pooling_is_one_window_over_everything(operator: Operator, dims: int) -> None:
    shape = _SHAPES[dims]
    whole = case(operator, dims, shape, {"kernel_size": None})
    as_kernel = case(operator, dims, shape, {"kernel_size": shape[2:]})
    y = whole.run()
    assert y.shape == (*shape[:2], *(1,) * dims)
    torch.testing.assert_close(y, as_kernel.run())


@every_operator
def test_an_empty_batch_gives_an_empty_result(operator: Operator) -> None:
    for dims, shape in _SHAPES.items():
        given_case = case(operator, dims, (0, *shape[1:]), {"kernel_size": 2})
        x = given_case.x.requires_grad_()
        y = given_case.run(x)
        assert y.shape == (0, shape[1], *resolve(shape[2:], 2).output)
        y.sum().backward()
        assert x.grad is not None and x.grad.shape == x.shape


@every_operator
def test_input_is_left_as_it_was(operator: Operator) -> None:
    given_case = case(operator, 2, _SHAPES[2], {"kernel_size": 3, "stride": 1, "padding": 1})
    before = {n: t.clone() for n, t in {"input": given_case.x, **given_case.tensors()}.items()}
    given_case.run()
    for name, tensor in {"input": given_case.x, **given_case.tensors()}.items():
        assert torch.equal(before[name], tensor), name


def test_the_table_holds_every_operator_with_a_function() -> None:
    import poolnb

    named = {n.removesuffix("_pool2d") for n in poolnb.functional.__all__ if n.endswith("_pool2d")}
    assert set(OPERATORS) == named - {"stats"}  # two of them beside each other


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@every_operator
def test_half_types_accumulate_in_float32(operator: Operator, dtype: torch.dtype) -> None:
    # 3000 taps near 1: a sum kept in half precision stops growing at 2048 (float16) or 256 (bfloat16).
    x = 1 + 0.1 * torch.rand(1, 1, 3000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # S3Pool and max-blur pooling add over a map of maxima, one for each position of the stride.
    of_map = operator.name in ("s3", "maxblur")
    geometry = {"kernel_size": 1, "stride": 3000} if of_map else {"kernel_size": None}
    given_case = case(operator, 1, tuple(x.shape), geometry, dtype=dtype).with_input(x.to(dtype))
    y = given_case.run()
    torch.testing.assert_close(y.double(), given_case.expected(), **TOLERANCE[dtype])
