"""What operators have in common: limits, symmetries, bounds."""

from __future__ import annotations

import pytest
from cases import case
from devices import DEVICE, torch
from operators import Case, Operator, every_dimension, every_operator, selected
from poolers import SAMPLED
from torch import Tensor

import poolnb
from poolnb import functional as F

pytestmark = pytest.mark.usefixtures("kernels")

_SHAPES = {1: (2, 3, 9), 2: (2, 3, 7, 6), 3: (2, 3, 5, 4, 5)}
_GEOMETRY = {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}


def sample(dims: int, low: float = -2.0, high: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(dims)
    return low + (high - low) * torch.rand(_SHAPES[dims], generator=generator, dtype=torch.float64)


def pooled(name: str, dims: int, x: Tensor, **params: object) -> Tensor:
    mask = torch.rand(_SHAPES[dims], generator=torch.Generator().manual_seed(5)) < 0.8
    return getattr(F, f"{name}_pool{dims}d")(x, **_GEOMETRY, **params, mask=mask)


def same(actual: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@every_dimension
def test_soft_goes_from_the_min_through_the_mean_to_the_max(dims: int) -> None:
    x = sample(dims)
    same(pooled("soft", dims, x, beta=0.0), pooled("avg", dims, x))
    same(pooled("soft", dims, x, beta=1e5), pooled("max", dims, x))
    same(pooled("soft", dims, x, beta=-1e5), -pooled("max", dims, -x))


@every_dimension
def test_lse_goes_from_the_min_through_the_mean_to_the_max(dims: int) -> None:
    x = sample(dims)
    same(pooled("lse", dims, x, r=0.0), pooled("avg", dims, x))
    same(pooled("lse", dims, x, r=1e-13), pooled("avg", dims, x))
    same(pooled("lse", dims, x, r=1e6), pooled("max", dims, x), 1e-5)
    same(pooled("lse", dims, x, r=-1e6), -pooled("max", dims, -x), 1e-5)
    same(pooled("lse", dims, x, r=-0.7), -pooled("lse", dims, -x, r=0.7))


@pytest.mark.parametrize("kernel", [2, 3, 4, 5])
@pytest.mark.parametrize("r", [0.0, 1e-7, 2e-6, -2e-6, 1e-3, 0.3, -1.0, 5.0, 50.0, -1e3])
@pytest.mark.parametrize("channels_last", [False, True])
def test_lse_of_float32_keeps_its_digits_at_every_r(kernel: int, r: float, channels_last: bool) -> None:
    """Value, gradient and the slope by r, as far as rounding of the taps allows, for large and small taps."""
    generator = torch.Generator().manual_seed(kernel)
    for size in (1e-4, 1.0, 1e3):
        x = size * torch.randn(2, 16, 20, 20, generator=generator).to(DEVICE)
        x[..., ::3] = x[..., :1]  # windows with taps that are equal
        if channels_last:
            x = x.to(memory_format=torch.channels_last)
        found, expected = ((*_lse_of(x.to(dtype), kernel, r),) for dtype in (torch.float32, torch.float64))
        for a, e, scale in zip(found, expected, (size, 1, size * size), strict=True):
            torch.testing.assert_close(a.double(), e, rtol=1e-5, atol=1e-6 * scale)


def _lse_of(x: Tensor, kernel: int, r: float) -> tuple[Tensor, Tensor, Tensor]:
    x, rate = x.requires_grad_(), torch.full((16,), r, dtype=x.dtype, device=x.device, requires_grad=True)
    y = F.lse_pool2d(x, kernel, r=rate)
    return y, *torch.autograd.grad(y.sum(), (x, rate))


@every_dimension
def test_gem_goes_from_the_mean_to_the_max(dims: int) -> None:
    x = sample(dims, 0.1, 2.0)
    same(pooled("gem", dims, x, p=1.0), pooled("avg", dims, x))
    same(pooled("gem", dims, x, p=1e7), pooled("max", dims, x), 1e-5)


@every_dimension
def test_lp_is_a_sum_of_absolute_values_or_their_max(dims: int) -> None:
    x = sample(dims)
    largest = pooled("max", dims, x.abs())
    same(pooled("lp", dims, x, norm_type=float("inf")), largest)
    same(pooled("lp", dims, x, norm_type=1e7), largest, 1e-5)
    same(pooled("lp", dims, x, norm_type=torch.tensor(float("inf"), dtype=torch.float64)), largest)
    for p in (1e15, 1e30):
        same(pooled("lp", dims, x, norm_type=p), largest)
        same(pooled("gem", dims, x.abs() + 0.1, p=p), pooled("max", dims, x.abs() + 0.1))
    count = pooled("lp", dims, torch.ones_like(x), norm_type=1.0)
    same(pooled("lp", dims, x, norm_type=1.0), count * pooled("avg", dims, x.abs()))


def test_lp_is_torch_s_where_that_is_right() -> None:
    x = sample(2, 0.1, 2.0)  # torch's takes no absolute value for odd p
    for p in (1.0, 2.0, 3.0):
        same(F.lp_pool2d(x, 2, norm_type=p), torch.nn.functional.lp_pool2d(x, p, 2))


@every_dimension
def test_mixed_lies_between_mean_and_max(dims: int) -> None:
    x = sample(dims)
    same(pooled("mixed", dims, x, alpha=0.0), pooled("avg", dims, x))
    assert torch.equal(pooled("mixed", dims, x, alpha=1.0), pooled("max", dims, x))
    middle = (pooled("avg", dims, x) + pooled("max", dims, x)) / 2
    same(pooled("mixed", dims, x), middle)
    same(pooled("gated", dims, x, weight=torch.zeros(3**dims, dtype=torch.float64)), middle)
    saturated = torch.zeros(3, 3**dims, dtype=torch.float64)
    same(pooled("gated", dims, x, weight=saturated, bias=1000.0), pooled("max", dims, x))
    same(pooled("gated", dims, x, weight=saturated, bias=-1000.0), pooled("avg", dims, x))


@every_dimension
def test_weighted_by_the_input_is_soft(dims: int) -> None:
    x = sample(dims)
    same(pooled("weighted", dims, x, logits=1.7 * x), pooled("soft", dims, x, beta=1.7))
    same(pooled("weighted", dims, x, logits=torch.zeros_like(x)), pooled("avg", dims, x))
    shared = sample(dims)[:, :1]
    same(pooled("weighted", dims, x, logits=shared), pooled("weighted", dims, x, logits=shared.expand_as(x).clone()))


@every_dimension
def test_a_tree_of_equal_leaves_is_that_leaf(dims: int) -> None:
    x, taps = sample(dims), 3**dims
    leaf = torch.linspace(-1, 1, taps, dtype=torch.float64)
    gates = torch.randn(3, taps, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    convolution = getattr(torch.nn.functional, f"conv{dims}d")
    filters = leaf.reshape(1, 1, *(3,) * dims).expand(3, 1, *(3,) * dims)
    expected = convolution(x, filters, stride=2, padding=1, groups=3)
    y = getattr(F, f"tree_pool{dims}d")(x, 3, 2, 1, leaves=leaf.expand(4, taps), gates=gates)
    same(y, expected)
    two = getattr(F, f"tree_pool{dims}d")(x, 3, 2, 1, leaves=leaf.expand(2, taps), gates=gates[:1])
    same(two, expected)


def test_a_tree_with_closed_gates_picks_the_leaf_that_they_name() -> None:
    x = sample(2, 0.5, 1.5)
    leaves = torch.eye(4, dtype=torch.float64)
    opened = torch.full((4,), 1e4, dtype=torch.float64)
    for leaf, signs in enumerate([(1, 1, 0), (1, -1, 0), (-1, 0, 1), (-1, 0, -1)]):
        gates = torch.stack([s * opened for s in signs])
        same(F.tree_pool2d(x, 2, leaves=leaves, gates=gates), x[:, :, leaf // 2 : 6 : 2, leaf % 2 :: 2])


@every_dimension
@pytest.mark.parametrize("name", ["auto", "lip", "attention"])
def test_learned_weights_start_as_the_mean(name: str, dims: int) -> None:
    x = sample(dims).float()
    pool = poolnb.create_pool(name, 3, 2, padding=1, dims=dims, channels=3).to(DEVICE)
    average = poolnb.create_pool("avg", 3, 2, padding=1, dims=dims)
    mask = torch.rand(_SHAPES[dims], generator=torch.Generator().manual_seed(5)) < 0.8
    same(pool(x), average(x), 1e-5)
    same(pool(x, mask), average(x, mask), 1e-5)


def test_autopool_at_1_is_softpool() -> None:
    x = sample(2).float()
    pool = poolnb.AutoPool2d(2, channels=3).to(DEVICE)
    torch.nn.init.ones_(pool.alpha)
    same(pool(x), poolnb.SoftPool2d(2)(x), 1e-6)
    assert poolnb.SWAP2d is poolnb.SoftPool2d


# ---- symmetries ------------------------------------------------------------------------------------------------------

symmetric = pytest.mark.parametrize("operator", list(selected(lambda o: not o.numbered and o.name not in SAMPLED)))


def positionless(operator: Operator, dims: int, geometry: dict[str, object]) -> Case:
    """A case whose own arguments do not depend on the position: whatever does is reduced to a number per channel."""
    drawn = case(operator, dims, _SHAPES[dims], geometry)
    params = {
        n: (t.flatten()[0] if isinstance(t, Tensor) and n not in ("logits", "weight") else t)
        for n, t in drawn.params.items()
    }
    return Case(operator, dims, drawn.x, drawn.geometry, None, params, True)


@every_dimension
@symmetric
def test_the_order_of_a_window_does_not_matter(operator: Operator, dims: int) -> None:
    drawn = positionless(operator, dims, {"kernel_size": None})
    order = torch.randperm(drawn.x[0, 0].numel(), generator=torch.Generator().manual_seed(0))

    def shuffled(t: Tensor) -> Tensor:
        return t.flatten(2)[..., order].reshape(t.shape)

    params = {n: shuffled(t) for n, t in drawn.params.items() if n == "logits"}
    same(drawn.run(shuffled(drawn.x), **params), drawn.run())


@every_dimension
@symmetric
def test_a_shift_by_the_stride_shifts_the_output(operator: Operator, dims: int) -> None:
    drawn = positionless(operator, dims, {"kernel_size": 2, "stride": 2})
    params = {n: t[..., 2:] for n, t in drawn.params.items() if n == "logits"}
    y, shifted = drawn.run(), drawn.run(drawn.x[..., 2:], **params)
    same(shifted, y[..., 1:])


_SHIFTED = pytest.mark.parametrize(
    "operator", list(selected(lambda o: o.name in ("max", "avg", "soft", "lse", "weighted", "mixed")))
)


@every_dimension
@_SHIFTED
def test_adding_a_number_adds_it_to_the_output(operator: Operator, dims: int) -> None:
    drawn = positionless(operator, dims, {"kernel_size": 2, "stride": 1})
    same(drawn.run(drawn.x + 3.5), drawn.run() + 3.5)


@every_dimension
@pytest.mark.parametrize("operator", list(selected(lambda o: o.averaging)))
def test_an_average_lies_between_min_and_max(operator: Operator, dims: int) -> None:
    drawn = case(operator, dims, _SHAPES[dims], dict(_GEOMETRY))
    largest = getattr(F, f"max_pool{dims}d")
    high, low = largest(drawn.x, **_GEOMETRY), -largest(-drawn.x, **_GEOMETRY)
    modes = [{"training": True}, {"training": False}] if operator.name in SAMPLED else [{}]
    for mode in modes:
        y = drawn.run(**mode)
        assert (y <= high + 1e-12).all() and (y >= low - 1e-12).all()


@every_dimension
@every_operator
def test_channels_do_not_mix(operator: Operator, dims: int) -> None:
    drawn = case(operator, dims, _SHAPES[dims], dict(_GEOMETRY))
    x = drawn.x.clone()
    x[:, 1] += 1
    y, changed = drawn.run(), drawn.run(x)
    assert torch.equal(y[:, 0], changed[:, 0]) and torch.equal(y[:, 2], changed[:, 2])


# ---- what single operators promise -----------------------------------------------------------------------------------


@every_dimension
def test_std_is_indifferent_to_a_shift_and_scales(dims: int) -> None:
    x = sample(dims)
    y = pooled("std", dims, x, eps=1e-14)
    same(pooled("std", dims, x + 3.5, eps=1e-14), y, 1e-6)
    same(pooled("std", dims, -2 * x, eps=4e-14), 2 * y)
    high, low = pooled("max", dims, x), -pooled("max", dims, -x)
    assert (y <= (high - low) / 2 + 1e-6).all()
    moments = pooled("avg", dims, x * x) - pooled("avg", dims, x).square()
    same(y.square(), moments + 1e-14 * (y > 0))


@every_dimension
def test_blur_of_two_taps_is_the_mean_and_of_many_a_convolution(dims: int) -> None:
    x = sample(dims)
    blur, average = (getattr(F, f"{name}_pool{dims}d") for name in ("blur", "avg"))
    same(blur(x, 2), average(x, 2))
    row = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64) / 4
    weight = row
    for _ in range(dims - 1):
        weight = weight.unsqueeze(-1) * row
    convolution = getattr(torch.nn.functional, f"conv{dims}d")
    same(blur(x, 3, 1), convolution(x, weight.expand(3, 1, *(3,) * dims), groups=3))
    ones = torch.ones_like(x)
    same(pooled("blur", dims, ones), pooled("avg", dims, ones))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_blur_of_a_long_window_knows_its_far_taps(dtype: torch.dtype) -> None:
    taps = 2000
    x = torch.linspace(-1, 1, taps, dtype=torch.float64).to(dtype).view(1, 1, taps)
    same(F.blur_pool1d(x, None).double(), torch.zeros(1, 1, 1, dtype=torch.float64), 2e-3)
    first = torch.arange(taps) < 2  # weights 1 and 1999, 1e-600 of the largest
    y = F.blur_pool1d(x, None, mask=first).double()
    wide = x.double().flatten()
    same(y.flatten(), (wide[:1] + 1999 * wide[1:2]) / 2000, 2e-3 if dtype == torch.float16 else 1e-6)


@every_dimension
def test_maxblur_is_a_blur_of_a_max_map(dims: int) -> None:
    x = sample(dims)[(..., *(slice(0, 4),) * dims)]
    maxblur, blur, largest = (getattr(F, f"{name}_pool{dims}d") for name in ("maxblur", "blur", "max"))
    whole = torch.nn.functional.pad(x, (0, 1) * dims, value=-torch.inf)
    same(maxblur(x, 2), blur(largest(whole, 2, 1), 3, 2, 1))
    same(maxblur(x, 2, blur_size=1), largest(x, 2))
    assert maxblur(x, 2, 1, blur_size=4).shape == largest(x, 2, 1).shape


_ORDERED = [{"kernel_size": 2, "stride": 2}, {"kernel_size": 3, "stride": 2}, {"kernel_size": None}]
every_window = pytest.mark.parametrize("windows", _ORDERED, ids=str)
every_precision = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def opened(x: Tensor, kernel_size: int | None, stride: int = 1) -> Tensor:
    """The taps of every window, (N, C, *output, taps)."""
    dims = x.dim() - 2
    for axis in range(2, 2 + dims):
        x = x.unfold(axis, kernel_size or x.size(axis), stride)
    return x.flatten(-dims)


def with_gradients(y: Tensor, *leaves: Tensor) -> list[Tensor]:
    grad = torch.linspace(0.5, 2, y.numel(), dtype=y.dtype).view(y.shape)
    return [y.detach(), *torch.autograd.grad(y, leaves, grad, retain_graph=True)]


@every_dimension
@every_window
@every_precision
def test_rank_is_max_min_mean_median_and_the_mean_of_the_largest(
    dims: int, windows: dict[str, int], dtype: torch.dtype
) -> None:
    x = sample(dims).to(dtype).requires_grad_()
    taps = opened(x, **windows)
    ranked, n = taps.sort(descending=True).values, taps.size(-1)
    last = torch.eye(n, dtype=dtype)
    for weight, expected in (
        (last[0], taps.amax(-1)),
        (last[-1], taps.amin(-1)),
        (torch.full((n,), 0.7), taps.mean(-1)),
        (last[n // 2], taps.median(-1).values if n % 2 else ranked[..., n // 2]),
        (last[:2].sum(0), ranked[..., :2].mean(-1)),
        (torch.linspace(0.1, 1, n).square(), None),
    ):
        w = weight.to(dtype).requires_grad_()
        y = getattr(F, f"rank_pool{dims}d")(x, **windows, weight=w)
        if expected is None:
            expected = (ranked * w).sum(-1) / w.sum()
            for a, b in zip(with_gradients(y, x, w), with_gradients(expected, x, w), strict=True):
                same(a, b.reshape(a.shape), 1e-5 if dtype == torch.float32 else 1e-9)
            continue
        for a, b in zip(with_gradients(y, x), with_gradients(expected, x), strict=True):
            same(a, b.reshape(a.shape), 1e-5 if dtype == torch.float32 else 1e-9)


@every_dimension
@every_window
@every_precision
def test_quantile_is_torch_s(dims: int, windows: dict[str, int], dtype: torch.dtype) -> None:
    x = sample(dims).to(dtype).requires_grad_()
    taps = opened(x, **windows)
    for q in (0.0, 0.1, 0.25, 0.5, 0.8, 1.0):
        at = torch.tensor(q, dtype=dtype, requires_grad=True)
        y = getattr(F, f"quantile_pool{dims}d")(x, **windows, q=at)
        between = q * (taps.size(-1) - 1) % 1 != 0  # at a tap the derivative by q jumps
        leaves = (x, at) if between else (x,)
        expected = torch.quantile(taps, at, dim=-1)
        for a, b in zip(with_gradients(y, *leaves), with_gradients(expected, *leaves), strict=True):
            same(a, b.reshape(a.shape), 1e-5 if dtype == torch.float32 else 1e-9)


@every_precision
def test_equal_taps_are_ranked_in_their_order(dtype: torch.dtype) -> None:
    """In windows of few taps, of more, and of very many."""
    for n in (4, 9, 40, 1500):
        x = torch.arange(n).remainder(3).to(dtype).expand(2, 20, n).clone().requires_grad_()
        weight = torch.linspace(1, 2, n).to(dtype)
        order = sorted(range(n), key=lambda i: (-(i % 3), i))
        expected = torch.empty(n, dtype=dtype).index_put((torch.tensor(order),), weight / weight.sum())
        (slope,) = torch.autograd.grad(F.rank_pool1d(x, None, weight=weight).sum(), x)
        same(slope, expected.expand_as(slope), 1e-6)
        (slope,) = torch.autograd.grad(F.quantile_pool1d(x, None, q=1.0).sum(), x)
        assert torch.equal(slope, torch.eye(n, dtype=dtype)[2].expand_as(slope))
