"""Compiled kernels against PyTorch's on what the operators' own tests do not reach: odd strides, sizes, threads."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from devices import DEVICE, torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from poolnb import functional as F
from poolnb import native
from poolnb.geometry import resolve
from poolnb.ops.examples import example_params
from poolnb.ops.registration import OPS

pytestmark = [
    pytest.mark.skipif(not native.operators(DEVICE.type), reason="no compiled kernels are active"),
    pytest.mark.device,
]

Params = dict[str, Any]
OPERATORS = tuple(native.operator_types())
every_operator = pytest.mark.parametrize("name", OPERATORS)


def _params(name: str, x: Tensor, *windows: Any) -> Params:
    return example_params(name, x, taps=resolve(x.shape[2:], *windows).taps)


def _results(name: str, x: Tensor, grad: Callable[[Tensor], Tensor], params: Params, *windows: Any) -> list[Tensor]:
    leaves = [x.detach().requires_grad_()]  # keeps the strides
    learned = {k: v.detach().requires_grad_() for k, v in params.items() if isinstance(v, Tensor) and k != "mask"}
    leaves += learned.values()
    y = getattr(F, f"{name}_pool{x.dim() - 2}d")(leaves[0], *windows, **params | learned)
    return [y.detach(), *torch.autograd.grad(y, leaves, grad(y))]


def _compare(
    name: str, x: Tensor, *windows: Any, grad: Callable[[Tensor], Tensor] | None = None, **params: Any
) -> None:
    params = params or _params(name, x, *windows)
    grad = grad or (lambda y: torch.linspace(-1, 1, y.numel(), dtype=torch.float64).to(y.dtype).view(y.shape))
    actual = _results(name, x, grad, params, *windows)
    with native.disabled():
        expected = _results(name, x, grad, params, *windows)
    rough = {torch.float16: 4e-3, torch.bfloat16: 3e-2, torch.float32: 2e-4, torch.float64: 1e-9}[x.dtype]
    for a, b in zip(actual, expected, strict=True):
        assert a.dtype == b.dtype and a.stride() == b.stride()
        torch.testing.assert_close(a, b, rtol=rough, atol=rough, equal_nan=True)


def _random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def _strided() -> Iterator[tuple[str, Tensor]]:
    x = _random(3, 19, 12, 14)
    yield "transposed", x.transpose(2, 3)
    yield "sliced", _random(3, 40, 24, 30)[:, 1:39:2, 2:22:2, 3:27:2]
    yield "flipped in memory", x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    yield "expanded", _random(1, 19, 1, 14).expand(3, 19, 12, 14)
    yield "channels sliced", _random(3, 40, 12, 14).contiguous(memory_format=torch.channels_last)[:, :19]


@every_operator
@pytest.mark.parametrize("size", [(2, 2), (4, 4), (6, 8), (8, 16), (10, 32), (9, 7), (14, 14)], ids=str)
@pytest.mark.parametrize("windows", [(2, 2, 0), (3, 2, 1), (3, 1, 1)], ids=str)
def test_small_images_of_many_channels(name: str, size: tuple[int, int], windows: tuple[int, ...]) -> None:
    x = _random(3, 37, *size)
    for images in (x, x[:, ::2], _random(3, 37, size[0], 2 * size[1])[..., : size[1]]):
        _compare(name, images, *windows)
    mask = torch.ones(3, 37, *size, dtype=torch.bool)
    mask[0, 3], mask[1, :, 0], mask[2, 5, :, 0] = False, False, False
    _compare(name, x, *windows, **_params(name, x, *windows), mask=mask)


@every_operator
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan], ids=str)
@pytest.mark.parametrize("width", [4, 8, 16])
def test_special_values_in_small_images(name: str, value: float, width: int) -> None:
    x = _random(2, 19, 8, width).abs()
    x[0, 3, 2, 1] = x[1, 18, -1, -1] = value
    _compare(name, x, 2)


@pytest.mark.parametrize("name", ["mixed", "ada", "tdgs"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("size", [(8, 4), (8, 8), (8, 14), (8, 16), (40, 36)], ids=str)
@pytest.mark.parametrize("batch", [1, 3, 17, 50])
def test_a_parameter_of_every_position(
    name: str, layout: torch.memory_format, size: tuple[int, int], batch: int
) -> None:
    """Of more than 16 images some share a unit, and the last unit has fewer."""
    x = _random(batch, 37, *size).contiguous(memory_format=layout)
    output = (37, size[0] // 2, size[1] // 2)
    parameter = torch.linspace(0.1, 0.9, math.prod(output)).view(output)
    params = {
        "mixed": {"alpha": parameter},
        "ada": {"beta": parameter},
        "tdgs": {"temperature": parameter, "training": True, "seed": 5},
    }
    _compare(name, x, 2, **params[name])
    if name != "tdgs":
        _compare(name, x, 2, **{key: parameter[:1] for key in params[name]})


@every_operator
@pytest.mark.parametrize("windows", [(2, 2, 0), (3, 2, 1)], ids=str)
def test_any_stride_of_the_input(name: str, windows: tuple[int, ...]) -> None:
    for _, x in _strided():
        _compare(name, x, *windows)


@every_operator
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_any_stride_of_the_gradient(name: str, layout: torch.memory_format) -> None:
    x = _random(2, 32, 12, 16).contiguous(memory_format=layout)
    grads: list[Callable[[Tensor], Tensor]] = [
        lambda y: torch.ones((), dtype=y.dtype).expand_as(y),  # of .sum()
        lambda y: torch.arange(float(y.size(3))).expand_as(y),
        lambda y: _random(*y.shape[::-1]).permute(3, 2, 1, 0),
        lambda y: _random(y.size(0), y.size(1), y.size(2), 2 * y.size(3))[..., ::2],
    ]
    for grad in grads:
        for windows in ((2, 2, 0), (3, 1, 1)):
            _compare(name, x, *windows, grad=grad)


@every_operator
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_other_dtypes(name: str, dtype: torch.dtype, layout: torch.memory_format) -> None:
    x = _random(2, 32, 11, 16, dtype=dtype).contiguous(memory_format=layout)
    for windows in ((2, 2, 0), (3, 2, 1), ((1, 4), (1, 4), 0)):
        _compare(name, x, *windows)


@every_operator
@pytest.mark.parametrize(
    "shape, windows",
    [
        ((0, 3, 8, 8), (2,)),
        ((1, 1, 1, 1), (1,)),
        ((1, 2, 70, 3), ((64, 2),)),
        ((1, 2, 40, 40), (40,)),
        ((2, 5, 9, 200), ((1, 150), 3, (0, 70))),
        ((1, 3, 7, 7), (2, 5, 1)),
        ((2, 17, 6, 8), ((2, 1), (2, 1), 0)),
        ((2, 300, 2, 2), (2,)),
        ((70, 16, 4, 4), (3, 1, 1, 2)),
    ],
    ids=str,
)
def test_odd_shapes(name: str, shape: tuple[int, ...], windows: tuple[Any, ...]) -> None:
    for layout in (torch.contiguous_format, torch.channels_last):
        _compare(name, _random(*shape).contiguous(memory_format=layout), *windows)


@every_operator
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan], ids=str)
def test_a_few_special_values_in_the_fast_paths(name: str, value: float) -> None:
    x = _random(2, 32, 12, 32)
    x.view(-1)[::97] = value
    for layout in (torch.contiguous_format, torch.channels_last):
        actual = x.contiguous(memory_format=layout)
        y = getattr(F, f"{name}_pool2d")(actual, 2, **example_params(name, actual))
        with native.disabled():
            expected = getattr(F, f"{name}_pool2d")(actual, 2, **example_params(name, actual))
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4, equal_nan=True)


@every_operator
@pytest.mark.parametrize(
    "size, windows",
    [
        ((70, 66), (3, 2, 1)),  # bands
        ((10, 12), (3, 2, 1, 1, True)),  # the last window ends outside
        ((9, 8), ((2, 3), 2, 1, (2, 1))),
        ((3, 3), (2, 1, 1, 3)),  # every window reaches into the padding
        ((2, 2), (2, 1, 1, 3)),  # no tap is inside
        ((6, 7, 8), (3, 2, 1)),
    ],
    ids=str,
)
@pytest.mark.parametrize("value", [0, torch.inf, torch.nan], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_padding_of_an_input_that_is_used_where_it_lies(
    name: str, size: tuple[int, ...], windows: tuple[Any, ...], value: float, dtype: torch.dtype
) -> None:
    """Channels lie together; what lies around the input is not part of it."""
    around = torch.full((2, *(n + 8 for n in size), 48), torch.nan, dtype=dtype)
    x = around.movedim(-1, 1)[(slice(None), slice(16), *(slice(4, -4) for _ in size))]
    x.copy_(_random(2, 16, *size))
    x[0, ::3, ..., -1] = value
    _compare(name, x, *windows)


# Lines that are cut into pieces, kernel size, stride and padding: apart, overlapping, with a halo and padding, dilated
# rows, windows of more taps than a table holds, windows of four taps in rows and along channels.
_LONG_LINES = [
    ((1, 2, 1, 150_001), (1, 2), (1, 2), 0),
    ((1, 1, 1, 150_001), (1, 3), 1, (0, 1)),
    ((2, 1, 3, 140_000), 3, (1, 2), 1),
    ((1, 1, 1, 200_000), (1, 1500), (1, 1000), (0, 700)),
    ((1, 1, 1, 1, 200_000), (1, 1, 200_000), None, 0),
    ((1, 3, 2, 300, 500), (2, 2, 3), (1, 1, 2), 1),
    ((1, 1, 4, 140_003), 2, 2, 0),
    ((1, 16, 2, 9000), 2, 2, 0),
    ((1, 5, 1, 40_000), (1, 5), (1, 2), (0, 2)),
]


@pytest.mark.slow
@pytest.mark.cpu
@pytest.mark.parametrize("line", _LONG_LINES, ids=str)
@every_operator
def test_a_long_line_is_worked_on_in_pieces(name: str, line: tuple[Any, ...]) -> None:
    shape, *windows = line
    x = _random(*shape)
    if x.size(1) > 3:
        x = x.contiguous(memory_format=torch.channels_last)
    ones = torch.ones_like  # sums over so many windows do not cancel
    _compare(name, x, *windows, grad=ones)
    if x.numel() <= 200_000:
        _compare(name, x, *windows, grad=ones, **_params(name, x, *windows), mask=_random(*shape) < 1)


@pytest.mark.cpu
@pytest.mark.parametrize(
    ("shape", "windows"), [((8, 32, 40, 40), (3, 2, 1)), ((1, 1, 1, 300_000), ((1, 3), 1))], ids=str
)
@every_operator
def test_the_number_of_threads_changes_no_bit(name: str, shape: tuple[int, ...], windows: tuple[Any, ...]) -> None:
    x = _random(*shape)
    resolved = resolve(shape[2:], *windows)
    params = example_params(name, x, resolved.output, taps=resolved.taps)  # else torch sums what one is spread over
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(_results(name, x, torch.ones_like, params, *windows))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("name", [n for n in OPERATORS if OPS[f"{n}_pool"].tensors])
def test_a_parameter_alone_can_want_a_gradient(name: str) -> None:
    x = _random(2, 16, 8, 8)
    key, parameter = next((k, v) for k, v in example_params(name, x).items() if isinstance(v, Tensor))
    params = {**example_params(name, x), key: parameter.clone().requires_grad_()}
    both = _results(name, x, torch.ones_like, params, 2)[2]
    y = getattr(F, f"{name}_pool2d")(x, 2, **params)
    (alone,) = torch.autograd.grad(y.sum(), params[key])
    torch.testing.assert_close(alone, both)


def test_an_endless_exponent_in_a_tensor_is_the_maximum_of_that_channel() -> None:
    x = _random(2, 3, 4, 32)
    p = torch.tensor([2.0, torch.inf, 1.0], requires_grad=True)
    x.requires_grad_()
    y = F.lp_pool2d(x, 2, norm_type=p)
    torch.testing.assert_close(y[:, 1], F.max_pool2d(x.detach().abs(), 2)[:, 1])
    grad_x, grad_p = torch.autograd.grad(y.sum(), (x, p))
    expected = torch.autograd.grad(F.lp_pool2d(x, 2, norm_type=torch.inf).sum(), x)[0]
    torch.testing.assert_close(grad_x[:, 1], expected[:, 1])
    assert grad_p.isfinite().all() and grad_p[1] == 0


@pytest.mark.slow
@pytest.mark.cpu
def test_a_process_that_forks_after_use_goes_on(tmp_path: Any) -> None:
    code = """
import os, torch
import poolnb.functional as F
torch.set_num_threads(1)
x = torch.randn(4, 8, 32, 32)
y = F.soft_pool2d(x, 2)
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(F.soft_pool2d(x, 2), y) else 3)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


# Parameters are small; what is kept for backward shows in the saved tensors.
@every_operator
def test_nothing_of_the_inputs_size_is_saved_besides_the_inputs(name: str) -> None:
    x = _random(2, 16, 32, 32).requires_grad_()
    params = example_params(name, x)
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        getattr(F, f"{name}_pool2d")(x, 2, **params)
    given = {x.data_ptr(), *(v.data_ptr() for v in params.values() if isinstance(v, Tensor))}
    assert all(t.data_ptr() in given or t.numel() < x.numel() / 8 for t in saved)


def _peaks(names: Sequence[str], shape: tuple[int, ...], windows: Any) -> dict[str, float]:
    """The peak of a process's memory after each operator, forward and backward, beyond input and gradient, in MiB."""
    code = f"""
import json, resource, sys, torch
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1] / "helpers")]!r}
from poolnb.ops.examples import example_params
from test_compiled import _params, _results
torch.set_num_threads(2)
small = torch.randn(1, 16, 32, 32)
for name in {names!r}: _results(name, small, torch.ones_like, example_params(name, small), 2)
x = torch.randn({shape!r})
grad = torch.ones(*x.shape[:2], *(n // k for n, k in zip(x.shape[2:], {windows!r})))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
start, peaks = peak(), {{}}
for name in {names!r}:
    _results(name, x, lambda y: grad, _params(name, x, {windows!r}), {windows!r})
    peaks[name] = peak() - start
print(json.dumps(peaks))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _gradients(name: str) -> int:
    """Of the input's size."""
    return 1 + any(form.as_input for form in OPS[f"{name}_pool"].tensors.values())


def _of_tables(name: str) -> int:
    """Of a window's size: weights, their gradient, its sums and their parts; as much again for ranks of taps."""
    entries = 7 if name == "tree" else 1  # of a tap, in the examples
    return 4 * (1 + entries) * any(form.per_tap for form in OPS[f"{name}_pool"].tensors.values())


@pytest.mark.slow
@pytest.mark.cpu
@every_operator
def test_peak_memory(name: str) -> None:
    """Beyond the input: the output, the input's gradients, a gradient per window, and a fixed small amount."""
    (peak,) = _peaks([name], (16, 16, 256, 256), (2, 2)).values()  # 64 MiB
    assert peak < 64 * _gradients(name) + 16 + 16 + 12


@pytest.mark.slow
@pytest.mark.cpu
def test_peak_memory_of_a_long_line() -> None:
    """The same; of a window as long as the line a copy of the line and of its gradient, too."""
    names = sorted(OPERATORS, key=_gradients)  # peaks never fall: those of the least memory go first
    for name, peak in _peaks(names, (1, 1, 1, 2**24), (1, 2)).items():
        assert peak < 64 * _gradients(name) + 32 + 32 + 12, name
    names = sorted(OPERATORS, key=lambda name: 2 * _gradients(name) + _of_tables(name))
    for name, peak in _peaks(names, (1, 1, 1, 2**23), (1, 2**23)).items():
        assert peak < 32 * (2 * _gradients(name) + _of_tables(name)) + 32 + 32 + 12, name  # the last: noise


@every_operator
def test_offsets_beyond_32_bits(name: str) -> None:
    far = 2**31 + 8
    memory = torch.empty(far + 128, dtype=torch.float16)  # 4 GiB, on a CPU never touched, but for two pages
    x = memory.as_strided((2, 2, 8, 4), (32, far, 4, 1))
    x.copy_(_random(2, 2, 8, 4))
    _compare(name, x, 2)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("scale", [1, 1e-25, 1e25, 2.0**-40, 2.0**40, 0])
@pytest.mark.parametrize("twos", [64, 40, None], ids=["everywhere", "in some channels", "a number"])
@pytest.mark.parametrize("windows", [(2,), (3, 2, 1), (3, 1, 1), (7, 1, 3), (None,)], ids=str)
def test_lp_of_squares(layout: torch.memory_format, scale: float, twos: int | None, windows: tuple[Any, ...]) -> None:
    """An exponent of 2 goes a shorter way, which squares of such sizes leave again."""
    exponents = torch.full((64,), 2.0)
    exponents[twos or 64 :] = 3
    params = {"norm_type": exponents if twos else 2.0}
    x = _random(2, 64, 8, 32).contiguous(memory_format=layout)
    x[:, ::2] *= scale
    x[:, :, :2] = 0  # windows of zeros
    for dtype, rough in ((torch.float32, 2e-5), (torch.bfloat16, 2e-2)):
        actual = _results("lp", x.to(dtype), torch.ones_like, params, *windows)
        with native.disabled():
            expected = _results("lp", x.to(dtype), torch.ones_like, params, *windows)
        for a, b in zip(actual, expected, strict=True):
            for channels in (slice(0, None, 2), slice(1, None, 2)):  # the scaled ones are held against their own size
                one, other = (t.movedim(min(1, t.dim() - 1), 0)[channels].double() for t in (a, b))
                torch.testing.assert_close(one, other, rtol=rough, atol=rough * float(other.abs().max()))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("value", [1e12, 1e25, 1e38, 1e-25, torch.inf, torch.nan], ids=str)
@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("windows", [(2,), (3, 2, 1), (3, 1, 1), (7, 1, 3), (None,)], ids=str)
def test_lp_of_squares_with_one_tap_of_another_size(
    layout: torch.memory_format, value: float, learned: bool, windows: tuple[Any, ...]
) -> None:
    """Alone among ordinary taps, inside of a band of rows and at its edges."""
    params = {"norm_type": torch.full((16,), 2.0) if learned else 2.0}
    x = 5 * _random(1, 16, 64, 64)
    for channel in range(16):
        x[0, channel, 4 * channel : 4 * channel + 2, 3 * channel] = value
    x = x.contiguous(memory_format=layout)
    actual = _results("lp", x, torch.ones_like, params, *windows)
    with native.disabled():
        expected = _results("lp", x, torch.ones_like, params, *windows)
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-4, equal_nan=True)


@every_operator
@pytest.mark.parametrize("windows", [(2,), (3, 2)], ids=str)
def test_a_gradient_that_shares_the_inputs_memory(name: str, windows: tuple[int, ...]) -> None:
    """The output's gradient may begin where the input does; bands behind the first were read from a wrong place."""
    x = _random(1, 16, 65, 64).contiguous(memory_format=torch.channels_last)
    params = _params(name, x, *windows)
    leaf = x.detach().requires_grad_()
    y = getattr(F, f"{name}_pool2d")(leaf, *windows, **params)
    shared = x[:, :, : y.size(2), : y.size(3)]
    found, own = (torch.autograd.grad(y, leaf, g, retain_graph=True)[0] for g in (shared, shared.clone()))
    torch.testing.assert_close(found, own)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("own_layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("shape", [(20, 32, 4, 4), (1, 32, 4, 4), (20, 1, 4, 4), (20, 32, 1, 1)], ids=str)
def test_gradients_lie_as_traces_expect(
    layout: torch.memory_format, own_layout: torch.memory_format, shape: tuple[int, ...]
) -> None:
    """What `torch.compile` plans with is the fake kernel's word on strides."""
    x = _random(20, 32, 8, 8).contiguous(memory_format=layout)
    alpha = torch.rand(shape).contiguous(memory_format=own_layout)
    grad = _random(20, 32, 4, 4)
    arguments = (True, grad, x, None, alpha, [2, 2], [2, 2], [0, 0], [1, 1], [4, 4])
    actual = torch.ops.poolnb.mixed_pool_backward(*arguments)
    with FakeTensorMode() as mode:
        traced = [mode.from_tensor(a) if isinstance(a, Tensor) else a for a in arguments]
        expected = torch.ops.poolnb.mixed_pool_backward(*traced)
    assert [a.stride() for a in actual] == [e.stride() for e in expected]


# Operators whose windows are sums over taps, where windows share taps or are all of the input: shape, windows. Vectors
# with a tail of one number, fewer numbers than a vector, small images, bands, far taps, three axes, long lines.
_SUMMED = ("soft", "lse", "gem", "lp", "weighted", "stochastic")
_SHARED = [
    ((3, 5, 17, 33), (3, 2, 1)),
    ((2, 33, 9, 11), (3, 1, 1)),
    ((2, 20, 16, 18), (7, 1, 3)),
    ((1, 3, 40, 37), ((5, 3), 1, (2, 1))),
    ((2, 3, 30, 40), ((3, 5), (1, 2), (1, 2), (2, 1))),
    ((1, 20, 6, 7, 9), (3, 1, 1)),
    ((2, 3, 400), (9, 2, 4)),
    ((2, 70, 7, 7), (None,)),
    ((2, 19, 4, 4), (None,)),
    ((3, 128, 5, 5), (None,)),
    ((17, 320, 3, 3), (None,)),
    ((2, 18, 257), (None,)),
    ((1, 2, 5000), (None,)),
]
summed = pytest.mark.parametrize("name", _SUMMED)
shared = pytest.mark.parametrize("windows", _SHARED, ids=str)


def _summed(name: str, x: Tensor, windows: Any) -> Params:
    """Parameters for which normal numbers are within reach, or not by far, from channel to channel."""
    channels = x.size(1)
    return {
        "soft": {"beta": torch.linspace(-2, 3, channels)},
        "lse": {"r": torch.linspace(0.3, 3, channels)},
        "gem": {"p": torch.linspace(1.5, 4, channels)},
        "lp": {"norm_type": torch.linspace(1, 3, channels)},
        "weighted": {"logits": _random(*x.shape[::-1]).permute(*range(x.dim() - 1, -1, -1))},
        "stochastic": {"training": False},
    }[name]


def _compare_with_float64(name: str, x: Tensor, windows: tuple[Any, ...], params: Params, learns: bool = True) -> None:
    def wide(value: Any) -> Any:
        return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value

    def results(x: Tensor, params: Params) -> list[Tensor]:
        x = x.detach().requires_grad_()
        tensors = {k: v for k, v in params.items() if isinstance(v, Tensor) and k != "mask"} if learns else {}
        leaves = {k: v.detach().requires_grad_() for k, v in tensors.items()}
        y = getattr(F, f"{name}_pool{x.dim() - 2}d")(x, *windows, **params | leaves)
        grad = torch.linspace(1, 2, y.numel(), dtype=torch.float64).to(y.dtype).view(y.shape)
        return [y.detach(), *torch.autograd.grad(y, [x, *leaves.values()], grad)]

    actual = results(x, params)
    with native.disabled():
        expected = results(x.double(), {k: wide(v) for k, v in params.items()})
    for a, e in zip(actual, expected, strict=True):
        assert torch.equal(a.isnan(), e.isnan()) and torch.equal(a.isinf(), e.isinf())
        finite = e.isfinite()
        error = (a.double() - e)[finite].abs().max()
        assert error <= 1e-5 * e[finite].abs().max(), f"{error / e[finite].abs().max():.1e}"


@summed
@shared
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels last"])
def test_sums_over_taps_keep_their_digits(name: str, windows: Any, last: bool) -> None:
    """Masks of every tensor, and one that all channels share; with the gradient of the parameter and without."""
    shape, windows = windows
    x = _random(*shape)
    if last:
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    params = _summed(name, x, windows)
    masks = [None, _random(*shape) < 0.7, _random(shape[0], 1, *shape[2:]) < 0.7]
    for mask in masks[1:]:
        mask[0, ..., : shape[-1] // 2] = False  # windows without a tap
    squares = [{"norm_type": torch.full((shape[1],), 2.0)}] if name == "lp" else []
    for own, mask, learns in itertools.product([params, *squares], masks, (False, True)):
        dirty = x if mask is None else x.masked_fill(~mask, torch.nan)
        _compare_with_float64(name, dirty, windows, own | ({} if mask is None else {"mask": mask}), learns)


@summed
@pytest.mark.parametrize("windows", _SHARED[1::3], ids=str)
@pytest.mark.parametrize("change", ["scaled", "shifted", "far in one image", "infinite", "-infinite", "nan", "tiny"])
def test_what_sums_cannot_hold_goes_window_by_window(name: str, windows: Any, change: str) -> None:
    """Some images and channels are within reach of the sums, others just beyond or far beyond."""
    shape, windows = windows
    x = _random(*shape)
    params = _summed(name, x, windows)
    at = (-1, 1, *(2,) * (x.dim() - 2))
    if change == "scaled":
        x[:, ::2] *= 5.3
    elif change == "shifted":
        x[0] += 30
    elif change == "tiny":
        x[0] *= 1e-20
    else:
        x[at] = {"far in one image": 3e4, "infinite": torch.inf, "-infinite": -torch.inf, "nan": torch.nan}[change]
    for layout in (x, x.movedim(1, -1).contiguous().movedim(-1, 1)):
        _compare_with_float64(name, layout, windows, params, learns=change == "scaled")


@summed
@pytest.mark.parametrize("windows", [(3, 1, 1), (3, 2, 1), (7, 1, 3), (None,)], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("size", [1e-21, 1e-30, 1e-33, 1e-34])
@pytest.mark.parametrize("features", ["large", "small"])
def test_a_small_gradient_keeps_its_digits(
    name: str, windows: tuple[Any, ...], layout: torch.memory_format, size: float, features: str
) -> None:
    """Over a large sum, or times a small feature, it may be no normal number; what is made of it may be one again."""
    large = {"lp": 1e11, "gem": 1e6, "stochastic": 1e12, "weighted": 1}.get(name, 25.0)
    scale = large if features == "large" else 1e-8
    x = (scale * (1 + torch.rand(2, 32, 16, 16)) / 2).contiguous(memory_format=layout)
    params = _summed(name, x, windows)
    if name == "gem":
        params["eps"] = 1e-9
    if name == "weighted":
        params["logits"] = (25 + torch.randn_like(x)).contiguous(memory_format=layout)
    grads = []
    for dtype in (torch.float32, torch.float64):
        given = {"x": x, **{k: v for k, v in params.items() if name == "weighted"}}
        leaves = {k: v.to(dtype).clone().requires_grad_() for k, v in given.items()}
        own = {k: v.to(dtype) if isinstance(v, Tensor) else v for k, v in params.items()}
        one, *_ = leaves.values()
        y = getattr(F, f"{name}_pool2d")(one, *windows, **own | {k: v for k, v in leaves.items() if k != "x"})
        g = size * torch.linspace(1, 2, y.numel(), dtype=dtype).view(y.shape)
        grads.append(torch.autograd.grad(y, list(leaves.values()), g))
    for found, expected in zip(*grads, strict=True):
        if expected.abs().max() > 1e-36:  # normal numbers, with digits to spare
            assert (found - expected).abs().max() <= 2e-5 * expected.abs().max()


@pytest.mark.cpu
@summed
def test_a_block_beside_one_that_goes_window_by_window_is_as_alone(name: str) -> None:
    x = _random(2, 3, 20, 24)
    for windows in ((3, 1, 1), (None,)):
        params = _summed(name, x, windows)
        spoilt = x.clone()
        spoilt[1] = torch.nan
        clean, beside = (_results(name, each, torch.ones_like, params, *windows)[:2] for each in (x, spoilt))
        for a, b in zip(clean, beside, strict=True):
            assert torch.equal(a[0], b[0])
        assert beside[0][1].isnan().all()


@pytest.mark.cpu
@pytest.mark.parametrize("name", ["soft", "lse", "gem", "lp"])
def test_a_channel_beside_one_that_goes_window_by_window_learns_as_alone(name: str) -> None:
    for shape in ((1, 3, 20, 12), (1, 3, 20, 24)):  # by blocks, by rows
        x = _random(*shape)
        params = _summed(name, x, (3, 1, 1))
        spoilt = x.clone()
        spoilt[:, 0] = torch.nan
        clean, beside = (_results(name, each, torch.ones_like, params, 3, 1, 1)[2] for each in (x, spoilt))
        assert torch.equal(clean[1:], beside[1:]) and beside[0].isnan()


@pytest.mark.cpu
@every_operator
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_gradient_larger_than_the_caches_is_that_of_its_images(name: str, dtype: torch.dtype) -> None:
    """With 2 x 2 and channels last it is written past the caches."""
    one, images = _random(1, 64, 32, 32, dtype=dtype), 2**24 // (64 * 32 * 32 * dtype.itemsize) + 1
    x = one.repeat(images, 1, 1, 1).add_(torch.linspace(-1, 1, images).view(-1, 1, 1, 1))
    x = x.contiguous(memory_format=torch.channels_last)
    params = _params(name, x, 2)

    def gradients(images: slice) -> Sequence[Tensor]:
        cut = {k: v[images] if isinstance(v, Tensor) and v.shape == x.shape else v for k, v in params.items()}
        leaves = {
            k: v.detach().requires_grad_() for k, v in {"input": x[images], **cut}.items() if isinstance(v, Tensor)
        }
        y = getattr(F, f"{name}_pool2d")(kernel_size=2, **cut | leaves)
        gradients = torch.autograd.grad(y, list(leaves.values()), y.detach().sin())
        return [g for g, leaf in zip(gradients, leaves.values(), strict=True) if leaf.shape == x[images].shape]

    whole = gradients(slice(None))
    last = 16 if OPS[f"{name}_pool"].sampled else images  # others of a smaller batch draw otherwise
    for part in (slice(begin, begin + 16) for begin in range(0, last, 16)):
        for all_images, some in zip(whole, gradients(part), strict=True):
            assert torch.equal(all_images[part], some)


@pytest.mark.cpu
@pytest.mark.parametrize("p", [0.67, 1.96])
def test_what_is_no_window_adds_nothing_to_the_gradient_of_a_parameter(p: float) -> None:
    """Between the rows of a block lie sums that no window has; for these exponents some were NaN."""
    _compare_with_float64("gem", _random(1, 3, 12, 9), (2, 1, 1), {"p": torch.full((3,), p)})


@pytest.mark.parametrize("name", ["mixed", "ada"])
def test_a_parameter_expanded_along_the_batch_has_a_gradient_for_every_image(name: str) -> None:
    x = _random(18, 2, 4, 8)
    shares = torch.linspace(0, 1, 8, device=x.device).view(1, 1, 2, 4).expand(18, 1, 2, 4)
    key = {"mixed": "alpha", "ada": "beta"}[name]

    def gradients() -> list[Tensor]:
        leaf = shares.detach().requires_grad_()
        y = getattr(F, f"{name}_pool2d")(x, 2, **{key: leaf})
        return list(torch.autograd.grad(y.square().sum(), leaf))

    (ours,) = gradients()
    with native.disabled():
        (expected,) = gradients()
    assert ours.shape == shares.shape
    torch.testing.assert_close(ours, expected)


def test_rows_shorter_than_a_vector_with_infinities() -> None:
    """Lanes behind the last window of a folded problem belong to no channel: their weights are not looked at."""
    x = torch.full((1, 8, 16, 22), math.inf, device=DEVICE)
    weight = torch.rand(8, 4, device=DEVICE)
    assert F.rank_pool2d(x, 2, weight=weight).isposinf().all()
