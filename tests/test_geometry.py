"""Windows: sizes and taps are those of torch's max pooling; the output's layout is that of the input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import LAYOUTS, case, examples, geometries, laid_out
from hypothesis import given
from hypothesis import strategies as st
from operators import Operator, every_dimension, every_operator
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck, gradgradcheck

from poolnb.geometry import gather, memory_format, resolve, scatter
from poolnb.ops.adaptive import copied

_TORCH = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


@every_dimension
@examples(100)
@given(data=st.data())
def test_windows_are_those_of_torch(dims: int, data: st.DataObject) -> None:
    size, geometry = data.draw(geometries(dims))
    windows = resolve(size, **geometry)
    given_geometry = {**geometry, "kernel_size": windows.kernel}
    x = torch.randperm(torch.Size(size).numel()).double().reshape(1, 1, *size)
    expected = _TORCH[dims](x, **given_geometry)
    assert expected.shape[2:] == windows.output
    assert torch.equal(gather(x, windows, fill=-torch.inf).amax(0), expected)


@every_dimension
@examples(100)
@given(data=st.data())
def test_refuses_what_torch_refuses(dims: int, data: st.DataObject) -> None:
    def per_dim(low: int, high: int) -> tuple[int, ...]:
        return tuple(data.draw(st.lists(st.integers(low, high), min_size=dims, max_size=dims)))

    size, kernel = per_dim(1, 5), per_dim(1, 4)
    arguments: dict[str, Any] = {
        "kernel_size": kernel,
        "stride": per_dim(1, 3),
        "padding": tuple(data.draw(st.integers(0, k // 2)) for k in kernel),  # torch refuses more
        "dilation": per_dim(1, 3),
        "ceil_mode": data.draw(st.booleans()),
    }
    try:
        expected = _TORCH[dims](torch.zeros(1, 1, *size), **arguments).shape[2:]
    except RuntimeError:
        with pytest.raises(ValueError, match="input is too small"):
            resolve(size, **arguments)
    else:
        assert resolve(size, **arguments).output == expected


@every_dimension
@examples(50)
@given(data=st.data())
def test_scatter_is_the_adjoint_of_gather(dims: int, data: st.DataObject) -> None:
    size, geometry = data.draw(geometries(dims))
    windows = resolve(size, **geometry)
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    layout = data.draw(st.sampled_from(["contiguous", "channels_last", "sliced"]))
    x = laid_out(torch.randn(2, 3, *size, generator=generator, dtype=torch.float64), layout)
    taps = gather(x, windows)
    assert taps.shape == (windows.taps, 2, 3, *windows.output)
    other = torch.randn(taps.shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close((taps * other).sum(), (x * scatter(other, windows)).sum())


@every_dimension
def test_the_copies_of_taps_are_adjoint_in_every_mode(dims: int) -> None:
    size, output = (3, 2, 1)[:dims], (4, 3, 2)[:dims]
    x = torch.randn(2, 1, *size, dtype=torch.float64, requires_grad=True)

    def copies(x: torch.Tensor) -> torch.Tensor:
        return copied(x, size, output)

    assert gradcheck(copies, x, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True)
    assert gradgradcheck(copies, x, check_fwd_over_rev=True, check_rev_over_rev=True)
    torch.library.opcheck(torch.ops.poolnb.adaptive_taps.default, (x, size, output))
    taps = copies(x).detach().requires_grad_()
    torch.library.opcheck(torch.ops.poolnb.adaptive_taps_backward.default, (taps, size, output))


def test_stride_may_be_an_empty_list() -> None:
    # torch's modules and scripted models pass stride=[] for "same as kernel_size".
    assert resolve((6, 6), 2, []) == resolve((6, 6), 2)


def test_integers_of_numpy_are_integers() -> None:
    expected = resolve((8, 8), 3, (2, 1), 1, 1)
    assert resolve((8, 8), np.int64(3), (np.int32(2), 1), np.uint8(1), 1) == expected


def test_empty_windows_are_seen() -> None:
    # With dilation both taps of the middle window fall into padding.
    assert resolve((1,), 2, 1, 1, 2).has_empty_window
    assert not resolve((3,), 2, 1, 1, 1).has_empty_window


_CHANNELS_LAST = torch.channels_last


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (torch.empty(2, 3, 4, 5), torch.contiguous_format),
        (torch.empty(2, 3, 4, 5, memory_format=_CHANNELS_LAST), _CHANNELS_LAST),
        (torch.empty(2, 3, 4, 5, memory_format=_CHANNELS_LAST)[:, :2], _CHANNELS_LAST),
        (torch.empty(2, 3, 8, 9, memory_format=_CHANNELS_LAST)[:, :, ::2, 1:], _CHANNELS_LAST),
        (torch.empty(1, 3, 4, 5, memory_format=_CHANNELS_LAST), _CHANNELS_LAST),
        (torch.empty(2, 3, 4, 1, memory_format=_CHANNELS_LAST), _CHANNELS_LAST),
        # One channel or one position: both layouts fit, and plain contiguous is taken.
        (torch.empty(2, 1, 4, 5, memory_format=_CHANNELS_LAST), torch.contiguous_format),
        (torch.empty(2, 3, 1, 1, memory_format=_CHANNELS_LAST), torch.contiguous_format),
        (torch.empty(0, 3, 4, 5, memory_format=_CHANNELS_LAST), torch.contiguous_format),
        (torch.empty(2, 3, 4, 5).transpose(2, 3), torch.contiguous_format),
        (torch.empty(2, 3, 4, 5).expand(2, 3, 4, 5), torch.contiguous_format),
        (torch.empty(2, 3, 4, 5, 6, memory_format=torch.channels_last_3d), torch.channels_last_3d),
        (torch.empty(2, 3, 4), torch.contiguous_format),
    ],
)
def test_memory_format(tensor: torch.Tensor, expected: torch.memory_format) -> None:
    assert memory_format(tensor) == expected


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "shape", [(2, 3, 5, 4), (1, 3, 5, 4), (2, 1, 5, 4), (2, 3, 1, 1), (2, 3, 1, 4), (2, 3, 3, 4, 3)]
)
@every_operator
def test_fake_strides_are_the_real_ones(operator: Operator, shape: tuple[int, ...], layout: str) -> None:
    dims = len(shape) - 2
    drawn = case(operator, dims, shape, {"kernel_size": 1, "stride": 2}, dtype=torch.float32, layout=layout)
    params = drawn.tensors()
    leaves = [drawn.x.detach().requires_grad_(), *(t.detach().requires_grad_() for t in params.values())]
    real = drawn.run(leaves[0], **dict(zip(params, leaves[1:], strict=True)))
    real_grads = torch.autograd.grad(real.sum(), leaves)
    with FakeTensorMode(allow_non_fake_inputs=False) as mode:
        fakes = [mode.from_tensor(t) for t in leaves]
        fake = drawn.run(fakes[0], **dict(zip(params, fakes[1:], strict=True)))
        fake_grads = torch.autograd.grad(fake.sum(), fakes)
    for made_up, actual in zip((fake, *fake_grads), (real, *real_grads), strict=True):
        assert (made_up.shape, made_up.stride(), made_up.dtype) == (actual.shape, actual.stride(), actual.dtype)


@pytest.mark.parametrize("equal", [(2.0, 2.0), True, 2.0, (True, 2)], ids=str)
def test_what_was_asked_before_makes_no_equal_value_of_another_type_pass(equal: object) -> None:
    for kernel_size in (1, 2, (1, 2), (2, 2)):
        resolve((4, 4), kernel_size)
    with pytest.raises(TypeError, match="kernel_size must be an int"):
        resolve((4, 4), equal)  # type: ignore[arg-type]
