"""Windows beyond torch's max pooling: padding before and after, SAME, and an output size in the place of a kernel.

Values and derivatives of every operator are in the tables of random cases and of finite differences. Here are the
equalities with torch, what an output size goes through besides, and what is refused.
"""

from __future__ import annotations

import copy
import math
import random
from itertools import product
from typing import Any

import pytest
import torch.nn.functional as TF
from cases import case, laid_out, takes
from devices import DEVICE, torch
from operators import Case, Operator, every_dimension, every_operator
from opinfo import samples
from torch import Tensor, nn

import poolnb
import poolnb.functional as F
from poolnb import reference
from poolnb.geometry import adaptive_equal, adaptive_kernel, memory_format, resolve

pytestmark = pytest.mark.usefixtures("kernels")

_SHAPES = {1: (2, 3, 7), 2: (2, 3, 7, 5), 3: (1, 2, 5, 4, 7)}
_ASKED: dict[int, list[Any]] = {1: [3, 9], 2: [3, (4, 3), (None, 4), (9, 1)], 3: [3, (2, None, 5)]}


def function(name: str, dims: int) -> Any:
    return getattr(F, f"{name}_pool{dims}d")


# ---- padding ---------------------------------------------------------------------------------------------------------


def padded_by_hand(
    x: Tensor, kernel: int, stride: int, dilation: int, pairs: list[tuple[int, int]]
) -> dict[str, Tensor]:
    """Max and mean over what `F.pad` gives: -inf for the max; for the mean 0, divided by how many taps are inside."""
    dims = x.dim() - 2
    amounts = [side for pair in reversed(pairs) for side in pair]
    most = getattr(TF, f"max_pool{dims}d")(TF.pad(x, amounts, value=-math.inf), kernel, stride, 0, dilation)
    if dilation > 1:
        return {"max": most}
    average = getattr(TF, f"avg_pool{dims}d")
    inside = average(TF.pad(torch.ones_like(x), amounts), kernel, stride)
    return {"max": most, "avg": average(TF.pad(x, amounts), kernel, stride) / inside}


@every_dimension
def test_same_is_what_tensorflow_and_timm_have(dims: int) -> None:
    for n, kernel, stride, dilation in product((1, 4, 7), (1, 2, 3, 5), (1, 2, 3), (1, 2)):
        size = (n, n + 1, n)[:dims]
        x = torch.randn(2, 3, *size, dtype=torch.float64)
        totals = [max((math.ceil(m / stride) - 1) * stride + (kernel - 1) * dilation + 1 - m, 0) for m in size]
        pairs = [(total // 2, total - total // 2) for total in totals]
        for name, expected in padded_by_hand(x, kernel, stride, dilation, pairs).items():
            y = function(name, dims)(x, kernel, stride, "same", dilation)
            assert y.shape[2:] == tuple(math.ceil(m / stride) for m in size)
            if name == "max" and dilation > 1:  # a window may miss the input: 0 here
                expected = expected.masked_fill(expected == -math.inf, 0)
            torch.testing.assert_close(y, expected)


@every_dimension
def test_pairs_are_what_f_pad_gives(dims: int) -> None:
    rng = random.Random(dims)
    for _ in range(20):
        kernel, stride = rng.randint(1, 5), rng.randint(1, 3)
        pairs = [(rng.randrange(kernel), rng.randrange(kernel)) for _ in range(dims)]
        x = torch.randn(1, 2, *(rng.randint(5, 7) for _ in range(dims)), dtype=torch.float64)
        for name, expected in padded_by_hand(x, kernel, stride, 1, pairs).items():
            torch.testing.assert_close(function(name, dims)(x, kernel, stride, pairs), expected)


def test_one_number_is_for_both_sides() -> None:
    for padding in (1, (1,), (1, 1), ((1, 1), (1, 1)), [[1, 1], (1, 1)]):
        assert resolve((6, 5), 3, 2, padding) == resolve((6, 5), 3, 2, 1)
    assert resolve((6,), 3, 2, ((1, 1),)) == resolve((6,), 3, 2, 1)
    assert resolve((6, 5), 3, 2, (1, 2)) == resolve((6, 5), 3, 2, ((1, 1), (2, 2)))


@every_operator
def test_windows_that_take_memory_for_nothing_are_refused(operator: Operator) -> None:
    drawn = case(operator, 1, (1, 1, 4), {"kernel_size": 2})
    params = {**drawn.params, **({"grid_size": None} if operator.name == "s3" else {})}
    with pytest.raises(ValueError, match="padding must leave windows that reach over at most 64 positions"):
        operator.function(1)(drawn.x, 2, 2**29, 2**29, 2**29, **params)


# ---- an output size --------------------------------------------------------------------------------------------------


def test_what_is_known_of_windows_without_counting_them() -> None:
    for n, o in product(range(1, 30), range(1, 40)):
        starts = [i * n // o for i in range(o)]
        lengths = [-(-(i + 1) * n // o) - start for i, start in enumerate(starts)]
        steps = {b - a for a, b in zip(starts, starts[1:], strict=False)} or {max(lengths)}
        kernel, step = adaptive_kernel(n, o)
        assert kernel == max(lengths)
        assert adaptive_equal(n, o) == (len(set(lengths)) == 1)
        even = len(set(lengths)) == len(steps) == 1 and steps != {0}
        assert (step in steps) if even else step is None, (n, o)


@every_dimension
@pytest.mark.parametrize("name", ["max", "avg"])
def test_equals_torch_on_all_its_samples(name: str, dims: int) -> None:
    given_to_torch = list(samples(f"adaptive_{name}_pool{dims}d", DEVICE))
    assert given_to_torch
    for sample in given_to_torch:
        asked = sample.args[0] if sample.args else sample.kwargs["output_size"]
        mask = torch.ones((1,) * dims, dtype=torch.bool)
        for given in (None, mask):  # torch's own on a CPU, and ours
            expected = getattr(TF, f"adaptive_{name}_pool{dims}d")(sample.input, asked)
            y = function(name, dims)(sample.input, None, output_size=asked, mask=given)
            torch.testing.assert_close(y, expected)
            grads = [torch.autograd.grad(z.square().sum(), sample.input)[0] for z in (y, expected)]
            torch.testing.assert_close(*grads)


@every_dimension
@every_operator
def test_equal_windows_are_those_of_a_kernel(operator: Operator, dims: int) -> None:
    size = (6, 4, 8)[:dims]
    for asked, geometry in (
        (2, {"kernel_size": [n // 2 for n in size]}),
        ([n - 1 for n in size], {"kernel_size": 2, "stride": 1}),
    ):
        windows = resolve(size, None, output_size=asked)
        assert windows == resolve(size, **geometry)
        if takes(operator.name, size, {"kernel_size": None, "output_size": asked}):
            drawn = case(operator, dims, (2, 3, *size), geometry)
            asking = Case(
                operator, dims, drawn.x, {"kernel_size": None, "output_size": asked}, None, drawn.params, True
            )
            assert torch.equal(asking.run(), drawn.run())


@every_dimension
@every_operator
def test_dtype_layout_and_batch_are_kept(operator: Operator, dims: int) -> None:
    for asked in _ASKED[dims]:
        geometry = {"kernel_size": None, "output_size": asked}
        if not takes(operator.name, _SHAPES[dims][2:], geometry):
            continue
        drawn = case(operator, dims, _SHAPES[dims], geometry, dtype=torch.float32)
        params = {k: v for k, v in drawn.params.items() if k not in ("training", "seed", "logits", "alpha")}
        params |= {"logits": drawn.x.flip(-1)} if "logits" in operator.tensors else {}
        drawn = Case(operator, dims, drawn.x, geometry, None, params, True)
        y = drawn.run()
        last = laid_out(drawn.x, "channels_last").requires_grad_()
        same = drawn.run(last)
        assert memory_format(same) == memory_format(last)
        torch.testing.assert_close(same, y)
        (grad,) = torch.autograd.grad(same.sum(), last)
        assert memory_format(grad) == memory_format(last) or not operator.registered  # torch forgets it in 3-D
        alone = drawn.run(drawn.x[0], **({"logits": params["logits"][0]} if "logits" in params else {}))
        torch.testing.assert_close(alone, y[0])
        assert drawn.run(drawn.x.double(), **{n: t.double() for n, t in drawn.tensors().items()}).dtype == torch.float64


@every_operator
def test_a_number_for_every_tap_or_a_stride_needs_equal_windows(operator: Operator) -> None:
    geometry: dict[str, Any] = {"kernel_size": None, "output_size": 3}
    if takes(operator.name, (7,), geometry) and takes(operator.name, (8,), geometry):
        return
    params = case(operator, 1, (1, 2, 6), {"kernel_size": 3}).params
    with pytest.raises(ValueError, match="output_size must (give windows of equal size|be None or 1)"):
        operator.function(1)(torch.zeros(1, 2, 8), None, output_size=3, **params)


def pooler(name: str) -> poolnb.Pool:
    params = {"channels": 3} if name in ("auto", "attention", "lip") else {}
    if name == "tdgs":
        params = {"channels": 3, "granularity": "position"}
    return poolnb.create_pool(name, None, output_size=(3, 4), **params).eval()


@pytest.mark.parametrize("name", ["max", "avg", "soft", "attention", "tdgs"])
def test_in_torch_func_and_copies(name: str) -> None:
    module, x = pooler(name).to(DEVICE), torch.randn(3, 3, 7, 5)
    y = module(x)
    assert y.shape == (3, 3, 3, 4)
    torch.testing.assert_close(copy.deepcopy(module)(x), y)
    torch.testing.assert_close(torch.fx.symbolic_trace(nn.Sequential(module))(x), y)
    torch.testing.assert_close(torch.vmap(module)(x.unsqueeze(1)).squeeze(1), y)
    slope = torch.func.grad(lambda x: module(x).square().sum())
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(module(leaf).square().sum(), leaf)
    torch.testing.assert_close(slope(x), expected)
    torch.testing.assert_close(torch.vmap(slope)(x.unsqueeze(1)).squeeze(1), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["max", "attention"])
def test_in_torch_compile_and_export(name: str) -> None:
    module, x = pooler(name).to(DEVICE), torch.randn(3, 3, 7, 5)
    leaf = x.clone().requires_grad_()
    y = module(leaf)
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(leaf), y)
    slopes = [torch.autograd.grad(f(leaf).square().sum(), leaf)[0] for f in (compiled, module)]
    torch.testing.assert_close(*slopes)
    masked = compiled(x, mask=x > 0)
    torch.testing.assert_close(masked, module(x, mask=x > 0))
    free = {"input": {0: torch.export.Dim("batch", min=1, max=64)}}
    program = torch.export.export(module, (x,), dynamic_shapes=free).module()
    torch.testing.assert_close(program(x[:2]), y[:2])


@pytest.mark.slow
@pytest.mark.cpu
@pytest.mark.parametrize("padding", ["same", ((1, 0), (2, 1))], ids=str)
@pytest.mark.parametrize("name", ["max", "soft"])
def test_a_size_stays_free_in_an_export(name: str, padding: Any) -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = poolnb.create_pool(name, 3, 2, padding=padding)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.pool(x), self.pool(x, mask=x > 0)

    free = {2: torch.export.Dim("height", min=4, max=64), 3: torch.export.Dim("width", min=4, max=64)}
    program = torch.export.export(Masked(), (torch.randn(2, 3, 9, 10),), dynamic_shapes=({0: None} | free,)).module()
    for size in ((9, 10), (8, 8), (11, 7)):
        x = torch.randn(2, 3, *size)
        torch.testing.assert_close(program(x), Masked()(x))


@pytest.mark.slow
def test_a_free_size_is_compiled_once_for_each_kind_of_windows() -> None:
    torch._dynamo.reset()
    module = pooler("soft")
    dynamic = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
    for size in ((7, 5), (6, 8), (9, 4)):
        other = torch.randn(2, 3, *size)
        torch.testing.assert_close(dynamic(other), module(other))


def test_a_gradient_is_the_same_every_time() -> None:
    x = torch.randn(4, 3, 50, 41, requires_grad=True)
    first, *others = (
        torch.autograd.grad(F.soft_pool2d(x, None, output_size=(7, 60)).square().sum(), x) for _ in range(3)
    )
    assert all(torch.equal(first[0], other[0]) for other in others)


def test_noise_is_by_window() -> None:
    # The window and the tap's number in it decide, so that more channels or samples change nothing.
    x = torch.rand(2, 3, 7, 5)
    options: dict[str, Any] = {"output_size": (3, 4), "training": True, "seed": 7}
    for name, params in (("stochastic", {}), ("tdgs", {"temperature": 1.0})):
        whole = function(name, 2)(x, None, **options, **params)
        torch.testing.assert_close(function(name, 2)(x[:1], None, **options, **params), whole[:1])


# ---- indices ---------------------------------------------------------------------------------------------------------

_WINDOWS: list[dict[str, Any]] = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    {"kernel_size": 2, "stride": 2, "padding": "same", "dilation": 2},
    {"kernel_size": 2, "stride": 3, "padding": ((1, 0),)},
    {"kernel_size": None},
    {"kernel_size": None, "output_size": 3},
    {"kernel_size": None, "output_size": 9},
]


@every_dimension
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("number", range(len(_WINDOWS)))
def test_indices_are_those_of_the_oracle_and_fit_max_unpool(number: int, masked: bool, dims: int) -> None:
    windows = dict(_WINDOWS[number])
    if isinstance(windows.get("padding"), tuple):
        windows["padding"] *= dims
    x = 1 + torch.rand(_SHAPES[dims], generator=torch.Generator().manual_seed(number), dtype=torch.float64)
    mask = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.4 if masked else None
    y, indices = function("max", dims)(x, **windows, mask=mask, return_indices=True)
    torch.testing.assert_close(y, function("max", dims)(x, **windows, mask=mask))
    expected = reference.max_pool(
        x.numpy(force=True), **windows, mask=None if mask is None else mask.numpy(force=True), return_indices=True
    )
    assert indices.dtype == torch.int64
    # The kernel says nothing but which sizes torch takes: at stride 1 that of the input alone.
    kernel = tuple(n - o + 1 for n, o in zip(x.shape[2:], y.shape[2:], strict=True))
    assert torch.equal(indices, torch.as_tensor(expected[1])) and torch.equal(y, torch.as_tensor(expected[0]))
    back = getattr(TF, f"max_unpool{dims}d")(y, indices, kernel, 1, output_size=x.shape[2:])
    chosen = torch.zeros_like(x).flatten(2).scatter(2, indices.flatten(2), y.flatten(2)).view_as(x)
    assert torch.equal(back, torch.where(back != 0, x, 0))  # every place holds its number, or nothing
    assert torch.equal(back, chosen)
    if mask is not None:  # and none that a window has chosen was overwritten
        for n, c in product(*map(range, x.shape[:2])):
            kept = set(indices[n, c][y[n, c] != 0].tolist())
            assert set(back[n, c].flatten().nonzero().flatten().tolist()) == kept


def test_indices_without_a_batch_dimension_and_in_a_module() -> None:
    x = torch.randn(2, 6, 7)
    for params in ({"kernel_size": 2}, {"kernel_size": None, "output_size": (2, 3)}):
        pool = poolnb.MaxPool2d(**params, return_indices=True)
        y, indices = pool(x)
        assert y.shape == indices.shape == (2, *y.shape[1:])
        assert torch.equal(x.flatten(1).gather(1, indices.flatten(1)), y.flatten(1))
        assert "return_indices=True" in repr(pool)
    with pytest.raises(TypeError, match="return_indices must be a bool, got 1"):
        poolnb.MaxPool2d(2, return_indices=1)  # type: ignore[arg-type]


# ---- modules and what is refused -------------------------------------------------------------------------------------


def test_modules_show_and_pass_on_their_output_size() -> None:
    x = torch.randn(2, 3, 7, 5)
    pool = poolnb.SoftPool2d(None, output_size=(3, None))
    assert "output_size=(3, None)" in repr(pool)
    assert torch.equal(pool(x), F.soft_pool2d(x, None, output_size=(3, None)))
    mixed = poolnb.MixedPool2d(None, granularity="position", channels=3, output_size=(3, 4)).to(DEVICE)
    assert mixed(x).shape == (2, 3, 3, 4) and mixed.lam.shape == (3, 3, 4)
    with pytest.raises(ValueError, match="input must give an output of size"):
        poolnb.MixedPool2d(2, granularity="position", channels=3, output_size=(3, 4)).to(DEVICE)(x)


@pytest.mark.parametrize("name", poolnb.list_pools())
def test_poolers_refuse_an_output_size_beside_a_kernel(name: str) -> None:
    cls = poolnb.registry.pool_class(name, 2)
    needed = {n: 3 for n in cls.needs()}
    if name in ("ada", "mixed", "tdgs"):  # theirs may be that of a parameter
        return
    with pytest.raises(ValueError, match="output_size must be None"):
        cls(2, **{**needed, "output_size": 3})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"padding": 3}, "padding must be less than the extent of a window, .* = \\(3, 3\\), got 3"),
        ({"padding": ((1, 3), (0, 0))}, "padding must be less than the extent of a window"),
        ({"padding": ((1, 1),)}, "padding must be 2 pairs"),
        ({"padding": ((1, 1), 1)}, "padding must be 2 pairs"),
        ({"padding": ((1, 1, 1), (1, 1, 1))}, "padding must be 2 pairs"),
        ({"padding": ((1, -1), (1, 1))}, "padding must be at least 0"),
        ({"padding": ((1, 1.5), (1, 1))}, "padding must be ints in every pair, got"),
        ({"padding": "valid"}, "padding must be \"same\" where it is a string, got 'valid'"),
        (
            {"padding": ((-1, 0), (0, 1))},
            r"padding must be at least 0 and .* in every pair, got \(\(-1, 0\), \(0, 1\)\)",
        ),
        ({"padding": (1, 1, 1)}, "padding must be an int, a sequence of 2 ints or of 2 pairs"),
        ({"output_size": 2}, "output_size must be None beside a kernel_size, got 2 and 3"),
        ({"kernel_size": None, "output_size": 0}, "output_size must be at least 1"),
        ({"kernel_size": None, "output_size": (1, 2, 3)}, "output_size must be an int or a sequence of 2 ints"),
        ({"kernel_size": None, "output_size": 2.0}, "output_size must be an int or a sequence of 2 ints or None"),
        ({"kernel_size": None, "output_size": True}, "output_size must be an int or a sequence of 2 ints or None"),
        ({"kernel_size": None, "output_size": 2, "stride": 2}, "stride must be left at None"),
        ({"kernel_size": None, "output_size": 2, "padding": "same"}, "padding must be left at 0"),
        ({"kernel_size": None, "output_size": 2**20}, "output_size must give at most 64 taps per input position"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], message: str) -> None:
    given = {"kernel_size": 3, **arguments}
    with pytest.raises((TypeError, ValueError), match=message):
        resolve((7, 6), **given)
    with pytest.raises((TypeError, ValueError), match=message):
        F.soft_pool2d(torch.zeros(1, 1, 7, 6), **given)
    if "64" not in message:
        with pytest.raises((TypeError, ValueError), match=message):
            poolnb.SoftPool2d(**given)


def test_one_dimension_tells_a_pair_from_numbers_per_axis() -> None:
    x = torch.randn(1, 1, 7)
    assert F.max_pool1d(x, 3, 1, ((2, 0),)).shape == (1, 1, 7)
    with pytest.raises(ValueError, match=r"padding must be .* or of 1 pairs \(before, after\)"):
        F.max_pool1d(x, 3, 1, (2, 0))


# ---- in place of torch's own -----------------------------------------------------------------------------------------


@every_dimension
@pytest.mark.parametrize("kind", ["Avg", "Max"])
def test_adaptive_pools_of_any_size_are_replaced(kind: str, dims: int) -> None:
    x = torch.randn(2, 3, *(7, 5, 6)[:dims])
    for asked in (3, 1, (2, None, 4)[:dims]):
        old = getattr(nn, f"Adaptive{kind}Pool{dims}d")(asked if dims > 1 or isinstance(asked, int) else 2)
        model = nn.Sequential(old)
        assert poolnb.replace_pooling(model, kind.lower(), types=type(old)) == 1
        torch.testing.assert_close(model(x), old(x))
        model = nn.Sequential(model[0])
        poolnb.replace_pooling(model, "soft", types=poolnb.Pool)
        assert model(x).shape == old(x).shape
        model = nn.Sequential(old)
        poolnb.replace_pooling(model, "tdgs", types=type(old), example_input=x)
        assert model.to(DEVICE)(x).shape == old(x).shape


@every_dimension
def test_max_replaces_pools_that_return_indices(dims: int) -> None:
    x = torch.randn(2, 3, *(6, 7, 8)[:dims])
    for old in (
        getattr(nn, f"MaxPool{dims}d")(2, return_indices=True),
        getattr(nn, f"AdaptiveMaxPool{dims}d")(4, True),
    ):
        model = nn.Sequential(old)
        poolnb.replace_pooling(model, "max", types=type(old))
        assert isinstance(model[0], poolnb.registry.pool_class("max", dims))
        for actual, expected in zip(model(x), old(x), strict=True):
            assert torch.equal(actual, expected)
        with pytest.raises(ValueError, match="returns indices can be replaced by max alone"):
            poolnb.replace_pooling(nn.Sequential(old), "soft", types=type(old))
