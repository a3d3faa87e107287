"""NaN, infinities, windows without a valid tap, and numbers at the edge of what a dtype holds."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import pytest
from cases import case, cases, examples
from devices import torch
from hypothesis import given
from hypothesis import strategies as st
from operators import TOLERANCE, Case, Operator, every_dimension, every_operator, selected
from poolers import SAMPLED
from torch import Tensor

import poolnb
from poolnb import functional as F
from poolnb import reference
from poolnb.ops.examples import example_params
from poolnb.ops.registration import OPS

pytestmark = pytest.mark.usefixtures("kernels")

# Operators that weigh taps by a softmax, or pick one: +inf wins, -inf has no part.
_SOFT_OR_MAX = ("max", "lse", "soft", "weighted", "tdgs")
soft_or_max = pytest.mark.parametrize("operator", list(selected(lambda o: o.name in _SOFT_OR_MAX)))
deterministic = pytest.mark.parametrize("operator", list(selected(lambda o: o.name not in SAMPLED)))

_SHAPES = {1: (2, 3, 8), 2: (2, 3, 6, 4), 3: (2, 3, 4, 4, 2)}


def at_rest(operator: Operator, dims: int, geometry: dict[str, Any], **options: Any) -> Case:
    """A case in evaluation mode."""
    drawn = case(operator, dims, _SHAPES[dims], geometry, **options)
    params = {k: v for k, v in drawn.params.items() if k not in ("training", "seed")}
    return Case(operator, dims, drawn.x, drawn.geometry, drawn.mask, params, True)


def gradients(drawn: Case, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    leaves = [x.clone().requires_grad_(), *(t.detach().requires_grad_() for t in drawn.tensors().values())]
    y = drawn.run(leaves[0], **dict(zip(drawn.tensors(), leaves[1:], strict=True)))
    return y, list(torch.autograd.grad(y, leaves, torch.ones_like(y)))


@every_dimension
@deterministic
@examples(25)
@given(data=st.data())
def test_special_values_equal_the_oracle(operator: Operator, dims: int, data: st.DataObject) -> None:
    drawn = data.draw(cases(operator, dims, (torch.float32, torch.float64)))
    special = st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 1e-30, -1e30])
    x = drawn.x.clone()
    for value in data.draw(st.lists(special, min_size=1, max_size=4)):
        if x.numel():
            position = torch.tensor(data.draw(st.integers(0, x.numel() - 1)))
            x[torch.unravel_index(position, x.shape)] = value
    drawn = drawn.with_input(x)
    y, expected = drawn.run(), drawn.expected()
    # A result near the top of float32 is compared as a power of ten: 1e30 times a weight is rounded in many steps.
    torch.testing.assert_close(y.double(), expected, equal_nan=True, **TOLERANCE[x.dtype])


@every_dimension
@every_operator
def test_nan_stays_in_its_window(operator: Operator, dims: int) -> None:
    drawn = at_rest(operator, dims, {"kernel_size": 2})
    x = drawn.x.clone()
    x[(0, 0, *(0,) * dims)] = math.nan
    y, reference = drawn.run(x), drawn.run()
    hit = torch.zeros(y.shape, dtype=torch.bool)
    hit[(0, 0, *(0,) * dims)] = True
    assert y[hit].isnan().all()
    torch.testing.assert_close(y[~hit], reference[~hit])


@every_dimension
@every_operator
def test_what_is_masked_has_no_effect(operator: Operator, dims: int) -> None:
    mask = torch.rand(_SHAPES[dims], generator=torch.Generator().manual_seed(1)) < 0.6
    drawn = at_rest(operator, dims, {"kernel_size": 3, "stride": 2, "padding": 1}, mask=mask)
    y, grads = gradients(drawn, drawn.x)
    for garbage in (math.nan, math.inf, -math.inf, 1e300):
        dirty = drawn.x.masked_fill(~mask, garbage)
        y_dirty, grads_dirty = gradients(drawn, dirty)
        torch.testing.assert_close(y_dirty, y)
        for actual, expected in zip(grads_dirty, grads, strict=True):
            torch.testing.assert_close(actual, expected)
    assert (grads[0][~mask] == 0).all()


@every_dimension
@every_operator
def test_a_nan_in_a_window_passes_no_gradient_to_its_masked_taps(operator: Operator, dims: int) -> None:
    shape = _SHAPES[dims]
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.6
    spoilt = mask & (torch.rand(shape, generator=torch.Generator().manual_seed(2)) < 0.2)
    for training in (False, True):
        drawn = case(operator, dims, shape, {"kernel_size": 3, "stride": 2, "padding": 1}, mask=mask)
        params = {**drawn.params, "training": training} if "training" in drawn.params else drawn.params
        if "logits" in params:
            params = {"logits": params["logits"].expand(shape).masked_fill(spoilt.roll(1, -1), math.nan)}
        drawn = Case(operator, dims, drawn.x.masked_fill(spoilt, math.nan), drawn.geometry, mask, params, True)
        y, grads = gradients(drawn, drawn.x)
        assert y.isnan().any()
        assert (grads[0][~mask] == 0).all()
        if "logits" in params:
            assert (grads[1][~mask] == 0).all()


_MAP = ("s3", "maxblur")  # made of a map whose windows overlap


@every_dimension
@pytest.mark.parametrize("operator", list(selected(lambda o: o.name not in _MAP)))
def test_a_window_without_a_valid_tap_gives_0_and_passes_no_gradient(operator: Operator, dims: int) -> None:
    mask = torch.ones(_SHAPES[dims], dtype=torch.bool)
    first = (0, 1, *(slice(0, 2),) * dims)
    mask[first] = False
    drawn = at_rest(operator, dims, {"kernel_size": 2}, mask=mask)
    y, grads = gradients(drawn, drawn.x)
    assert y[(0, 1, *(0,) * dims)] == 0
    assert (grads[0][first] == 0).all()
    assert all(g.isfinite().all() for g in grads)


@every_operator
def test_all_masked(operator: Operator) -> None:
    drawn = at_rest(operator, 2, {"kernel_size": 2}, mask=torch.zeros((), dtype=torch.bool))
    y, grads = gradients(drawn, drawn.x)
    assert (y == 0).all()
    assert all((g == 0).all() for g in grads)


@every_operator
def test_dilation_can_leave_a_window_empty(operator: Operator) -> None:
    drawn = case(operator, 1, (1, 2, 1), {"kernel_size": 2, "stride": 1, "padding": 1, "dilation": 2})
    y = drawn.run()
    assert y.shape == (1, 2, 1)
    assert (y == 0).all()


@soft_or_max
def test_infinities_of_the_soft_family_and_the_max(operator: Operator) -> None:
    drawn = at_rest(operator, 2, {"kernel_size": 2}, dtype=torch.float64)
    params = {k: (v.abs() + 0.1 if isinstance(v, Tensor) and k != "logits" else v) for k, v in drawn.params.items()}
    params = {k: (abs(v) + 0.1 if isinstance(v, float) else v) for k, v in params.items()}
    drawn = Case(operator, 2, drawn.x, drawn.geometry, None, params, True)
    x = drawn.x.clone()
    x[0, 0, 0, 0] = math.inf  # one of four
    x[0, 1, :2, :2] = -math.inf  # all four
    x[0, 2, 0, :2] = -math.inf  # two of four
    x[1, 0, 0, 0], x[1, 0, 1, 1] = math.inf, -math.inf
    y, grads = gradients(drawn, x)
    assert y[0, 0, 0, 0] == math.inf and y[0, 1, 0, 0] == -math.inf and y[1, 0, 0, 0] == math.inf
    assert y[0, 2, 0, 0].isfinite()
    assert not any(g.isnan().any() for g in grads)
    if operator.name != "lse":  # where the mean counts every tap
        alone = Case(operator, 2, x, drawn.geometry, x != -math.inf, params, True).run()
        torch.testing.assert_close(y[0, 2], alone[0, 2])


@deterministic
def test_gradients_of_infinite_input_are_not_nan(operator: Operator) -> None:
    drawn = at_rest(operator, 2, {"kernel_size": 2})
    for value in (math.inf, -math.inf):
        x = drawn.x.clone()
        x[:, :, ::2, ::2] = value
        y, grads = gradients(drawn, x)
        assert not y.isnan().any()
        assert not any(g.isnan().any() for g in grads)


@pytest.mark.parametrize("scale", [1e-30, 1e-4, 1e4, 1e15, 1e30])
@deterministic
def test_large_and_small_numbers(operator: Operator, scale: float) -> None:
    # An exponential of 1e30 overflows, a square of 1e30 does, and a square of 1e-30 underflows: none may show.
    drawn = at_rest(operator, 2, {"kernel_size": 2}, dtype=torch.float32)
    x = drawn.x.abs() * scale
    drawn = drawn.with_input(x)
    y, expected = drawn.run().double(), drawn.expected()
    torch.testing.assert_close(y / scale, expected / scale, rtol=1e-4, atol=1e-4)
    actual = gradients(drawn, x)[1][0].double()
    torch.testing.assert_close(
        actual, drawn.expected_gradients(torch.ones_like(expected))["input"], rtol=1e-3, atol=1e-3
    )


@deterministic
def test_equal_taps(operator: Operator) -> None:
    for value in (0.0, 1.0, -1.0, 3e-5):
        drawn = at_rest(operator, 2, {"kernel_size": 2})
        drawn = drawn.with_input(torch.full_like(drawn.x, value))
        y, grads = gradients(drawn, drawn.x)
        torch.testing.assert_close(y, drawn.expected())
        expected = drawn.expected_gradients(torch.ones_like(y))
        for actual, name in zip(grads, expected, strict=True):
            torch.testing.assert_close(actual, expected[name], atol=1e-7, rtol=1e-7, msg=lambda m, n=name: f"{n}: {m}")


# ---- what single operators promise -----------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [1.0, 3.0, 64.0, 300.0])
def test_gem_neither_over_nor_underflows_in_float16(p: float) -> None:
    x = torch.tensor([[[6e4, 5e4, 6.2e4, 1.0, 1e-4, 2e-4, 1.5e-4, 5e-5]]], dtype=torch.float16).requires_grad_()
    y = F.gem_pool1d(x, 4, p=p)
    wide = x.detach().double().unfold(2, 4, 4)
    peak = wide.amax(-1, keepdim=True)
    expected = peak[..., 0] * (wide / peak).pow(p).mean(-1).pow(1 / p)
    torch.testing.assert_close(y.double(), expected, rtol=2e-3, atol=0)
    y.sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0, math.inf])
def test_lp_passes_0_to_a_window_of_zeros(p: float) -> None:
    x = torch.zeros(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    y = F.lp_pool2d(x, 2, norm_type=p)
    (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    assert (y == 0).all() and (first == 0).all()
    (second,) = torch.autograd.grad(first.sum(), x)
    assert (second == 0).all()


def test_lp_second_derivative_at_a_tap_of_0() -> None:
    # y = sqrt(a^2 + b^2) at (0, 2): the second derivative by a is 1/y.
    x = torch.tensor([[[0.0, 2.0]]], dtype=torch.float64, requires_grad=True)
    hessian = torch.autograd.functional.hessian(lambda x: F.lp_pool1d(x, 2).sum(), x).reshape(2, 2)
    torch.testing.assert_close(hessian, torch.tensor([[0.5, 0.0], [0.0, 0.0]], dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("r", [0.0, 1e-30, 1e-12, -1e-8, 1e-5, 1e-3, 0.03, 0.3, -0.3, 5.0, 1e3, -1e3])
def test_lse_is_accurate_for_every_r(r: float, dtype: torch.dtype) -> None:
    x = (10 + torch.rand(1, 1, 50, generator=torch.Generator().manual_seed(2), dtype=torch.float64)).to(dtype)
    sharpness = torch.tensor(r, dtype=dtype, requires_grad=True)
    x.requires_grad_()
    y = F.lse_pool1d(x, None, r=sharpness)
    first = torch.autograd.grad(y.sum(), (x, sharpness), create_graph=True)
    (curvature,) = torch.autograd.grad(first[1], sharpness)
    wide = x.detach().double().flatten()
    wide = wide - 10
    # By cumulants where r is small, else as the formula stands.
    k1, centred = wide.mean(), wide - wide.mean()
    k2, k3 = centred.square().mean(), centred.pow(3).mean()
    k4 = centred.pow(4).mean() - 3 * k2**2
    exact = float(sharpness.detach())
    if abs(r) < 1e-2:
        expected = k1 + exact * k2 / 2 + exact**2 * k3 / 6 + exact**3 * k4 / 24
        slope, curve = k2 / 2 + exact * k3 / 3 + exact**2 * k4 / 8, k3 / 3 + exact * k4 / 4
    else:
        total = torch.logsumexp(exact * wide, 0) - math.log(50)
        weights = torch.softmax(exact * wide, 0)
        expected, tilted = total / exact, weights @ wide
        variance = weights @ (wide - tilted).square()
        slope = (tilted - expected) / exact
        curve = (variance - 2 * slope) / exact
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(y.double().flatten()[0] - 10, expected, rtol=0, atol=20 * eps)
    torch.testing.assert_close(first[1].double(), slope, rtol=1e3 * eps + 1e-7, atol=1e2 * eps)
    torch.testing.assert_close(curvature.double(), curve, rtol=1e4 * eps + 1e-4, atol=1e3 * eps)


def test_a_mean_of_both_infinities_is_nan() -> None:
    x = torch.tensor([[[math.inf, -math.inf, 1.0, 2.0]]])
    kernel = torch.ones(4)
    means = {
        "avg": F.avg_pool1d(x, 4),
        "mixed": F.mixed_pool1d(x, 4, alpha=0.5),
        "gated": F.gated_pool1d(x, 4, weight=0 * kernel),
        "tree": F.tree_pool1d(x, 4, leaves=kernel.expand(2, 4), gates=kernel.expand(1, 4)),
        "blur": F.blur_pool1d(x, 4),
        "maxblur": F.maxblur_pool1d(x, 1, 4),
        "s3, average": F.s3_pool1d(x, 1, 4),
        "s3, expectation": F.s3_pool1d(x, 1, 4, eval_mode="expectation"),
    }
    assert all(y.isnan().all() for y in means.values()), means


def test_a_mask_or_a_dilation_keeps_the_layout_of_max_and_mean() -> None:
    x = torch.randn(2, 2, 5, 7).contiguous(memory_format=torch.channels_last)
    everywhere = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    for y in (
        poolnb.functional.max_pool2d(x, 2, mask=everywhere),
        poolnb.functional.avg_pool2d(x, 2, mask=everywhere),
        poolnb.functional.avg_pool2d(x, (1, 2), 2, 0, (1, 2)),
    ):
        assert y.is_contiguous(memory_format=torch.channels_last)


def test_the_gradient_of_a_masked_max_of_endless_taps_goes_to_the_first_valid_one() -> None:
    x = torch.full((1, 1, 4), -torch.inf, requires_grad=True)
    y = poolnb.functional.max_pool1d(x, 3, padding=1, mask=torch.ones(4, dtype=torch.bool))
    assert torch.autograd.grad(y.sum(), x)[0].flatten().tolist() == [1, 0, 1, 0]


def test_mixed_with_the_whole_share_is_max_even_where_the_mean_is_undefined() -> None:
    x = torch.tensor([[[torch.inf, -torch.inf, 1.0]]])
    assert poolnb.functional.mixed_pool1d(x, 3, alpha=1.0).item() == torch.inf
    assert math.isnan(poolnb.functional.mixed_pool1d(x, 3, alpha=0.5).item())


@pytest.mark.cpu  # to look at a number on a GPU is to wait for it
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_parameters_that_are_not_finite_are_refused_as_tensors_too(value: float) -> None:
    x = torch.rand(1, 2, 4)
    for name, function in (("beta", poolnb.functional.soft_pool1d), ("r", poolnb.functional.lse_pool1d)):
        with pytest.raises(ValueError, match=f"{name} must be a finite number .*got {value:g}"):
            function(x, 2, **{name: torch.tensor(value)})


@pytest.mark.parametrize(
    "taps, logits, expected",
    [
        ([math.inf, 1.0, 2.0], [-math.inf, 0.0, 0.0], 1.5),
        ([math.inf, math.inf, 2.0], [-math.inf, 0.0, 0.0], math.inf),
        ([math.nan, -math.inf, -math.inf], [-math.inf, 0.0, 0.0], math.nan),
        ([math.inf, 1.0, 2.0], [-math.inf] * 3, 0.0),
        ([-math.inf, 1.0, 2.0], [-math.inf] * 3, -math.inf),
    ],
)
def test_a_logit_of_minus_infinity_takes_its_tap_out(taps: list[float], logits: list[float], expected: float) -> None:
    x, scores = (torch.tensor([[values]], dtype=torch.float64) for values in (taps, logits))
    wanted = torch.tensor([[[expected]]], dtype=torch.float64)
    y = F.weighted_pool1d(x, 3, logits=scores)
    torch.testing.assert_close(y, wanted, equal_nan=True)
    oracle = reference.weighted_pool(x.cpu().numpy(), 3, logits=scores.cpu().numpy())
    torch.testing.assert_close(torch.as_tensor(oracle), wanted, equal_nan=True)


# Taps of very different sizes, with what the formula gives: y, its gradient, and that of the parameter if it is asked.
_FAR_APART: list[tuple[str, dict[str, float], list[float], float, list[float], float | None]] = [
    ("soft", {"beta": 1.0}, [-3.4e38, 1, 2, 3], 2.57521, [0, -0.05179, 0.10396, 0.94783], 0.42440),
    ("soft", {"beta": 1.0}, [-1e20, 1, 2, 3], 2.57521, [0, -0.05179, 0.10396, 0.94783], 0.42440),
    ("soft", {"beta": 0.0}, [3e38, 3e38, 0, 0], 1.5e38, [0.25, 0.25, 0.25, 0.25], None),
    ("soft", {"beta": 1.0}, [3e38, 3e38, 0, 0], 3e38, [0.5, 0.5, 0, 0], None),
    ("stochastic", {}, [1e38, 3e38, 2e38, 0], 2.33333e38, [-0.05556, 0.61111, 0.27778, 0], None),
    ("tdgs", {"temperature": 0.99}, [3e38, 3e38, 3e38, 3e38], 3e38, [0.25, 0.25, 0.25, 0.25], None),
    ("lp", {"norm_type": 3.0}, [1, 1e-37, -1e-36, 0], 1, [1, 0, 0, 0], 0),
    ("lp", {"norm_type": 2.0}, [1e10, -1e-25, 1, 0], 1e10, [1, 0, 1e-10, 0], 0),
    ("lp", {"norm_type": math.inf}, [1, -3, 3, 2], 3, [0, -1, 0, 0], 0),
    ("gem", {"p": 3.0}, [1e34, 2e-6, 1, 0], 0.629961e34, [0.629961, 0, 0, 0], None),
    ("lse", {"r": 0.0}, [1e21, 0, 0, 0], 0.25e21, [0.25, 0.25, 0.25, 0.25], None),
    ("lse", {"r": 0.0}, [-1e38, 0, 0, 0], -0.25e38, [0.25, 0.25, 0.25, 0.25], None),
    ("lse", {"r": -1e-8}, [1, 2, 3, 4], 2.5, [0.25, 0.25, 0.25, 0.25], 0.625),
]


@pytest.mark.parametrize("channels", [1, 16, 24])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize(
    ("name", "params", "taps", "y", "slopes", "own_slope"),
    _FAR_APART,
    ids=[f"{c[0]}-{i}" for i, c in enumerate(_FAR_APART)],
)
def test_taps_far_apart(
    name: str,
    params: dict[str, float],
    taps: list[float],
    y: float,
    slopes: list[float],
    own_slope: float | None,
    layout: torch.memory_format,
    channels: int,
) -> None:
    x = (
        torch.tensor(taps, dtype=torch.float32)
        .view(1, 1, 2, 2)
        .repeat(1, channels, 1, 16)
        .contiguous(memory_format=layout)
        .requires_grad_()
    )
    parameters = {k: torch.tensor(v, requires_grad=True) for k, v in params.items()}
    pooled = getattr(F, f"{name}_pool2d")(x, 2, **parameters)
    grads = torch.autograd.grad(pooled.double().mean() * pooled.numel(), [x, *parameters.values()])
    expected = torch.tensor(slopes, dtype=torch.float32).view(1, 1, 2, 2).repeat(1, channels, 1, 16)
    torch.testing.assert_close(pooled, torch.full_like(pooled, y), rtol=1e-4, atol=0)
    torch.testing.assert_close(grads[0], expected, rtol=1e-4, atol=2e-5, check_stride=False)
    if own_slope is not None:
        torch.testing.assert_close(grads[1].item() / pooled.numel(), float(own_slope), rtol=1e-4, atol=1e-6)


def test_lse_of_large_numbers_in_float64_is_their_mean_without_sharpness() -> None:
    x = torch.tensor([1e14, 0, 0, 0], dtype=torch.float64).view(1, 1, 4)
    assert F.lse_pool1d(x, 4, r=torch.tensor(0.0, dtype=torch.float64)).item() == 2.5e13


# ---- products that overflow before an exponential --------------------------------------------------------------------

_EDGE = (-1.0, -0.95, -0.6, -0.3, 0.0, 0.3, 0.6, 0.95, 1.0)  # shares of the largest number
_OVERFLOWING = {
    "soft": [{"beta": v} for v in (-30.0, -2.0, 0.0, 0.7, 2.0, 1e5)],
    "lse": [{"r": v} for v in (-30.0, -2.0, 0.0, 0.7, 2.0, 1e5)],
    "tdgs": [{"temperature": v, "eps": 0.01, "normalize": n} for v in (-1.0, 0.1, 3.0) for n in (False, True)],
}


def _pairs_at_the_edge(dtype: torch.dtype) -> tuple[Tensor, float]:
    """Every window of two such taps, one after the other, and the largest number."""
    largest = torch.finfo(dtype).max
    windows = torch.tensor([*itertools.product(_EDGE, repeat=2)], dtype=torch.float64) * largest
    return windows.to(dtype).view(1, 1, -1), largest


def _exact(name: str, taps: list[Fraction], params: dict[str, Any]) -> tuple[Fraction, list[Fraction]]:
    """The result and the taps' weights, by fractions: nothing overflows, and only exp is rounded."""
    if name == "tdgs":
        factor = 1 / (max(Fraction(params["temperature"]), 0) + Fraction(params["eps"]))
        if params["normalize"] and any(taps):
            size = max(abs(x) for x in taps)
            factor /= size * Fraction(math.sqrt(sum((x / size) ** 2 for x in taps)))
    else:
        factor = Fraction(params["beta" if name == "soft" else "r"])
    top = max(taps, key=lambda x: factor * x)
    raw = [Fraction(math.exp(max(factor * (x - top), -1000))) for x in taps]
    weights = [w / sum(raw) for w in raw]
    if name == "lse":
        mean = sum(raw) / len(raw)
        return (top + Fraction(math.log(mean)) / factor if factor else sum(taps) / len(taps)), weights
    return sum((w * x for w, x in zip(weights, taps, strict=True)), Fraction(0)), weights


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", _OVERFLOWING)
def test_a_product_that_overflows_before_an_exponential(name: str, dtype: torch.dtype) -> None:
    x, largest = _pairs_at_the_edge(dtype)
    for params in _OVERFLOWING[name]:
        leaf = x.clone().requires_grad_()
        y = getattr(F, f"{name}_pool1d")(
            leaf,
            2,
            **{k: torch.tensor(v, dtype=dtype) if k not in ("eps", "normalize") else v for k, v in params.items()},
        )
        (grad,) = torch.autograd.grad(y, leaf, torch.ones_like(y))
        exact = {k: torch.tensor(v, dtype=dtype).item() if type(v) is float else v for k, v in params.items()}
        for pair, actual, slopes in zip(
            x.view(-1, 2).tolist(), y.flatten().tolist(), grad.view(-1, 2).tolist(), strict=True
        ):
            expected, weights = _exact(name, [Fraction(v) for v in pair], exact)
            assert actual == pytest.approx(float(expected), rel=1e-5, abs=1e-6 * largest), (params, pair)
            if name != "tdgs" and (
                min(weights) in (0, Fraction(1, 2)) or pair[0] == pair[1]
            ):  # elsewhere slopes are huge
                assert slopes == pytest.approx([float(w) for w in weights], abs=1e-5), (params, pair)


# Maxblur's windows overlap and S3 draws over the map; gates are sums of products of taps, which cancel.
_OF_ITS_TAPS = [n for n in poolnb.list_pools() if f"{n}_pool" in OPS and n not in ("maxblur", "s3", "gated", "tree")]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", _OF_ITS_TAPS)
def test_a_window_is_the_same_beside_any_other(name: str, dtype: torch.dtype) -> None:
    """Kernels look at several windows at once, and look again where one of them needs it: not for its sake alone."""
    x, largest = _pairs_at_the_edge(dtype)
    params = example_params(name, x, taps=2)
    if "training" in params:
        params = {**params, "training": False}
    together = _result_and_slopes(name, x, params)
    for number, window in enumerate(x.split(2, -1)):
        place = slice(2 * number, 2 * number + 2)
        own = {k: v[..., place] if k == "logits" else v for k, v in params.items()}
        y, *slopes = _result_and_slopes(name, window, own)
        torch.testing.assert_close(y, together[0][..., number : number + 1], rtol=1e-5, atol=1e-6 * largest)
        for alone, beside in zip(slopes, together[1:], strict=True):
            torch.testing.assert_close(
                alone, beside[..., place], rtol=1e-5, atol=1e-6, msg=lambda m, w=window: f"{w.tolist()}: {m}"
            )


def _result_and_slopes(name: str, x: Tensor, params: dict[str, Any]) -> list[Tensor]:
    """The result, and the gradients of the input and of logits."""
    leaves = {"input": x, **{k: v for k, v in params.items() if k == "logits"}}
    leaves = {k: v.detach().clone().requires_grad_() for k, v in leaves.items()}
    y = getattr(F, f"{name}_pool1d")(leaves["input"], 2, **params | {k: v for k, v in leaves.items() if k != "input"})
    return [y.detach(), *torch.autograd.grad(y, [*leaves.values()], torch.ones_like(y))]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_std_neither_over_nor_underflows(dtype: torch.dtype) -> None:
    top, small = {torch.float16: (6e4, 1e-4), torch.float64: (1e308, 1e-140)}.get(dtype, (3e38, 1e-16))
    x = torch.tensor([[[-top, top, top, top, top, top, small, 3 * small]]], dtype=dtype).requires_grad_()
    y = F.std_pool1d(x, 2, eps=1e-300 if dtype == torch.float64 else 2e-38)
    expected = torch.tensor([[[top, 0.0, 0.0, small]]], dtype=torch.float64)
    assert y.isfinite().all()
    torch.testing.assert_close(y.double(), expected, rtol=1e-2, atol=small / 100)
    (grad,) = torch.autograd.grad(y.sum(), x)
    slopes = torch.tensor([[[-0.5, 0.5, 0, 0, 0, 0, -0.5, 0.5]]], dtype=torch.float64)
    torch.testing.assert_close(grad.double(), slopes, rtol=1e-2, atol=1e-3)


def test_taps_without_weight_decide_no_scale_of_a_weighted_std() -> None:
    x = torch.tensor([[[1e30, 1e30, -3.0, 0.0, 1.0, 1e14]]])
    logits = torch.tensor([[[0.0, 0.0, -math.inf, 0.0, 0.0, -200.0]]])
    y = F.weighted_std_pool1d(x, 3, logits=logits, eps=1e-6)
    torch.testing.assert_close(y, torch.tensor([[[1e-3, math.sqrt(0.25 + 1e-6)]]]))
    padded = F.weighted_std_pool1d(x[..., :1], 3, padding=1, logits=logits[..., :1], eps=1e-6)
    torch.testing.assert_close(padded, torch.tensor([[[1e-3]]]))
    beside = torch.tensor([[[math.inf, math.nan, 0.0]]])
    assert F.weighted_std_pool1d(beside, 3, logits=torch.zeros(1, 1, 3)).isnan().all()


def test_std_of_an_infinity_has_the_slopes_of_its_limit() -> None:
    x = torch.tensor([[[math.inf, 1.0, 2.0, -3.0], [math.inf, -math.inf, 0.0, 0.0]]], dtype=torch.float64)
    x.requires_grad_()
    y = F.std_pool1d(x, 4)
    (grad,) = torch.autograd.grad(y.sum(), x)
    far = torch.tensor([[[1e12, 0, 0, 0], [1e12, -1e12, 0, 0]]], dtype=torch.float64).requires_grad_()
    (limit,) = torch.autograd.grad(F.std_pool1d(far, 4).sum(), far)
    assert (y == math.inf).all()
    torch.testing.assert_close(grad, limit)


@pytest.mark.parametrize("name", ["edscw", "ada"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("taps", [40, 600])
@pytest.mark.parametrize("order", ["by turns", "halves"])
def test_a_mean_whose_sum_overflows_both_ways_is_a_number(name: str, dtype: torch.dtype, taps: int, order: str) -> None:
    """Partial sums of largest numbers of both signs reach both infinities, and their sum would be NaN."""
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64)
    signs = signs.repeat(taps // 2) if order == "by turns" else signs.repeat_interleave(taps // 2)
    x = (0.9 * torch.finfo(dtype).max * signs).to(dtype)
    x = x[None, None].requires_grad_()
    y = getattr(F, f"{name}_pool1d")(x, None)
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert y.isfinite().all() and grad.isfinite().all()
    if name == "edscw":  # all magnitudes are equal, and so are the weights
        torch.testing.assert_close(grad, torch.full_like(grad, 1 / taps), rtol=1e-2, atol=0)


@pytest.mark.parametrize("name", ["maxblur", "s3", "max", "mixed"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_the_lowest_number_is_a_tap_like_any_other(name: str, dtype: torch.dtype) -> None:
    """It fills what `masked_fill(finfo.min)` has left out, and must not be taken for padding."""
    options = {"training": False} if name == "s3" else {}
    mask = torch.tensor([True, True, False, True, True, True])
    for where in ({"padding": 1}, {"mask": mask}):
        received = []
        for value in (torch.finfo(dtype).min, -2.0):
            x = torch.full((1, 1, 6), value, dtype=dtype).requires_grad_()
            y = getattr(F, f"{name}_pool1d")(x, 3, 2, **where, **options)
            received.append(torch.autograd.grad(y.sum(), x)[0].sum())
        assert received[0] == received[1] > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("windows", [(None,), (7, 1), (2, 2)], ids=["global", "overlapping", "disjoint"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_an_lp_norm_that_overflows_is_infinite(
    dtype: torch.dtype, windows: tuple[Any, ...], channels_last: bool
) -> None:
    """With 0 < p < 1 it grows with the number of taps to the power of 1 / p."""
    x = torch.ones(2, 32, 14, 14, dtype=dtype)
    x = x.to(memory_format=torch.channels_last) if channels_last else x
    x.requires_grad_()
    y = F.lp_pool2d(x, *windows, norm_type=0.001)
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert (y == math.inf).all() and (grad == math.inf).all()


@every_dimension
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_largest_of_taps_of_minus_infinity_is_the_first_of_its_window(
    dims: int, padding: int, channels_last: bool
) -> None:
    x = torch.full((2, 3, *(6,) * dims), -math.inf)
    layout = {2: torch.channels_last, 3: torch.channels_last_3d}.get(dims) if channels_last else None
    x = x.to(memory_format=layout) if layout else x
    x.requires_grad_()
    places = torch.arange(6**dims, dtype=torch.float64).view(1, 1, *(6,) * dims)
    y, indices = getattr(F, f"max_pool{dims}d")(x, 2, 2, padding, return_indices=True)
    (grad,) = torch.autograd.grad(y.sum(), x)
    first = -getattr(F, f"max_pool{dims}d")(-places, 2, 2, padding)
    assert torch.equal(indices, first.long().expand_as(indices))
    assert torch.equal(grad, torch.zeros_like(x).flatten(2).scatter(2, indices.flatten(2), 1.0).view_as(x))
    assert indices.stride() == y.stride()


@pytest.mark.parametrize("name", ["edscw", "ada"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("taps", [3, 300])
def test_a_nearness_to_a_mean_has_its_slope_at_the_largest_numbers(name: str, dtype: torch.dtype, taps: int) -> None:
    """The difference of a tap and the result overflows; its share of the larger of tap and mean does not."""
    signs = torch.tensor([0.9, 0.9, -0.9], dtype=dtype).repeat(taps // 3)[None, None]
    params = {"beta": 1.0} if name == "ada" else {}
    slopes = []
    for size in (1.0, torch.finfo(dtype).max):
        x = (signs * size).requires_grad_()
        y = getattr(F, f"{name}_pool1d")(x, None, **params)
        slopes.append(torch.autograd.grad(y.sum(), x)[0])
    torch.testing.assert_close(slopes[1], slopes[0])


@pytest.mark.parametrize("name", ["mixed", "avg", "stats"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_a_masked_mean_of_largest_numbers_is_a_number(name: str, dtype: torch.dtype) -> None:
    size = 0.9 * torch.finfo(dtype).max
    mask = torch.arange(300) < 290
    for signs in ([1.0, 1.0], [1.0, -1.0]):
        x = (torch.tensor(signs, dtype=torch.float64).repeat(150) * size).to(dtype)[None, None]
        y = getattr(F, f"{name}_pool1d")(x, None, mask=mask, **({"alpha": 0.0} if name == "mixed" else {}))
        expected = torch.tensor(size * (sum(signs) / 2), dtype=torch.float64)
        torch.testing.assert_close(y[0, 0, 0].double(), expected, rtol=1e-2, atol=1e-2 * size)


@pytest.mark.parametrize("windows", [(3,), (2, 1), (None,)], ids=["disjoint", "overlapping", "global"])
def test_the_slope_of_lse_by_a_tiny_r_is_a_number(windows: tuple[Any, ...]) -> None:
    x, slopes = torch.tensor([[[1e20, 1e21, 3e20]]]), []
    for dtype in (torch.float32, torch.float64):
        r = torch.tensor(1e-16, dtype=dtype, requires_grad=True)
        slopes.append(torch.autograd.grad(F.lse_pool1d(x.to(dtype), *windows, r=r).sum(), r)[0].double())
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-5, atol=0)


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 2.0, 3.0])
@pytest.mark.parametrize("windows", [(2,), (2, 1), (None,)], ids=["disjoint", "overlapping", "global"])
def test_the_slope_of_lp_by_p_is_0_beside_a_tap_of_0_and_where_the_norm_overflows(
    p: float, windows: tuple[Any, ...]
) -> None:
    for taps, expected in (([0.0, 3e38], 0.0), ([3.4e38, 3.4e38], 0.0 if p < 1 else None)):
        norm = torch.tensor(p, requires_grad=True)
        y = F.lp_pool1d(torch.tensor([[taps]]), *windows, norm_type=norm)
        (slope,) = torch.autograd.grad(y.sum(), norm)
        assert not slope.isnan() and (expected is None or slope == expected)
