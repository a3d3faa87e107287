"""Parameters and sizes far from the usual: the formula still holds, in every order of taps that has a kernel."""

from __future__ import annotations

import itertools
import math
from decimal import Decimal, localcontext
from typing import Any

import pytest
from devices import torch
from torch import Tensor

import poolnb
import poolnb.functional as F
from poolnb import reference

pytestmark = pytest.mark.usefixtures("kernels")

_LAYOUTS: list[tuple[str, int, torch.memory_format]] = [
    ("2x2", 1, torch.contiguous_format),
    ("2x2", 16, torch.channels_last),
    ("2x2", 24, torch.channels_last),
    ("global", 3, torch.contiguous_format),
    ("global", 16, torch.channels_last),
    ("3x3 by 1", 2, torch.contiguous_format),
    ("3x3 by 1", 16, torch.channels_last),
]
_GEOMETRY: dict[str, tuple[Any, ...]] = {"2x2": (2,), "global": (None,), "3x3 by 1": (3, 1, 1)}
every_layout = pytest.mark.parametrize(("windows", "channels", "layout"), _LAYOUTS, ids=str)


def _windows_of(x: Tensor, windows: str) -> list[Tensor]:
    """The taps of every window of one channel, (H, W), row by row."""
    if windows == "global":
        return [x.flatten()]
    height, width = x.shape
    size, stride, pad = (2, 2, 0) if windows == "2x2" else (3, 1, 1)
    rows, columns = range(-pad, height + pad - size + 1, stride), range(-pad, width + pad - size + 1, stride)
    return [x[max(r, 0) : r + size, max(c, 0) : c + size].flatten() for r in rows for c in columns]


# ---- power means -----------------------------------------------------------------------------------------------------


def _power_mean(taps: list[float], p: float, mean: bool) -> tuple[float, list[float], float]:
    """y of sizes above 0, its slopes by them and by p, to 300 digits."""
    with localcontext(prec=300):
        sizes, exponent = [Decimal(t) for t in taps], Decimal(p)
        top, share = max(sizes), Decimal(1) / (len(sizes) if mean else 1)
        logs = [(a / top).ln() for a in sizes]
        powers = [(exponent * log).exp() for log in logs]
        total = sum(powers) * share
        entropy = sum(e * log for e, log in zip(powers, logs, strict=True)) / sum(powers)
        y = top * (total.ln() / exponent).exp()
        slopes = [float(e * share / total * y / a) for e, a in zip(powers, sizes, strict=True)]
        return float(y), slopes, float(y / exponent * (entropy - total.ln() / exponent))


def _expected(x: Tensor, p: float, mean: bool, windows: str) -> tuple[Tensor, Tensor, float]:
    """y of every window, and the gradients of their sum by the taps and by p."""
    results, by_exponent = [], 0.0
    leaf = x.clone().requires_grad_()
    for taps in _windows_of(leaf, windows):
        y, by_taps, by_p = _power_mean(taps.tolist(), p, mean)
        results.append(y)
        by_exponent += by_p
        taps.backward(torch.tensor(by_taps, dtype=torch.float64))
    return torch.tensor(results, dtype=torch.float64), leaf.grad, by_exponent


@every_layout
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("p", [1e-30, 1e-8, 1e-5, 1e-3, 0.03, 0.2, 0.3, 0.7])
def test_gem_near_the_geometric_mean(
    p: float, dtype: torch.dtype, windows: str, channels: int, layout: torch.memory_format
) -> None:
    one = torch.rand(4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype) * 1.5 + 0.1
    one[0, :2] = torch.tensor([1e-6, 2e4])
    x = one.expand(1, channels, 4, 6).contiguous(memory_format=layout).requires_grad_()
    exponent = torch.tensor(p, dtype=dtype, requires_grad=True)
    y = F.gem_pool2d(x, *_GEOMETRY[windows], p=exponent, eps=1e-7)
    grad_x, grad_p = torch.autograd.grad(y.sum(), [x, exponent])
    values, slopes, by_p = _expected(one.double(), exponent.item(), True, windows)
    exact = 2e-4 if dtype == torch.float32 else 1e-11
    torch.testing.assert_close(y[0, -1].flatten().double(), values, rtol=exact / 10, atol=0)
    torch.testing.assert_close(grad_x[0, -1].double(), slopes, rtol=exact, atol=0, check_stride=False)
    torch.testing.assert_close(grad_p.item() / channels, by_p, rtol=exact, atol=0)
    if windows == "2x2" and dtype == torch.float64:  # what other tests compare with
        of_numpy = reference.gem_pool(one.cpu().numpy()[None, None], 2, p=p, eps=1e-7)
        torch.testing.assert_close(torch.as_tensor(of_numpy).flatten(), values.cpu(), rtol=1e-11, atol=0)
        ones = torch.ones(1, 1, 2, 3).numpy()
        by_numpy = reference.gem_pool_backward(ones, one.cpu().numpy()[None, None], 2, p=p, eps=1e-7)[1]
        assert by_numpy.item() == pytest.approx(by_p, rel=1e-9)


@every_layout
@pytest.mark.parametrize("name", ["gem", "lp"])
@pytest.mark.parametrize("p", [40.0, 1e3, 2e4, 1e6, 1e7, 1e10, 1e30])
def test_power_means_of_a_large_exponent(
    p: float, name: str, windows: str, channels: int, layout: torch.memory_format
) -> None:
    one = torch.tensor([[1.54, 0.29, 0.67, 0.1], [0.67, 0.1, 1.54, 0.29]]) * 1e20
    x = one.expand(1, channels, 2, 4).contiguous(memory_format=layout).requires_grad_()
    key = "p" if name == "gem" else "norm_type"
    exponent = torch.tensor(p, requires_grad=True)
    y = getattr(F, f"{name}_pool2d")(x, *_GEOMETRY[windows], **{key: exponent})
    grad_x, grad_p = torch.autograd.grad(y.sum(), [x, exponent])
    values, slopes, by_p = _expected(one.double(), exponent.item(), name == "gem", windows)
    torch.testing.assert_close(y[0, -1].flatten().double(), values, rtol=1e-5, atol=0)
    torch.testing.assert_close(grad_x[0, -1].double(), slopes, rtol=1e-4, atol=1e-5, check_stride=False)
    torch.testing.assert_close(grad_p.item() / channels, by_p, rtol=1e-3, atol=1e-6 * abs(values.max().item()))


@pytest.mark.parametrize("p", [1e-30, 1e-14, 1e-8, 1e-6, 1e-4, 1e-2, 0.2, 0.3])
def test_second_derivatives_of_gem_near_the_geometric_mean(p: float) -> None:
    taps = [0.3, 1.0, 2.0, 0.7]
    x = torch.tensor([[taps]], requires_grad=True)
    exponent = torch.tensor(p, requires_grad=True)
    first = torch.autograd.grad(F.gem_pool1d(x, 4, p=exponent).sum(), [x, exponent], create_graph=True)
    by_x = torch.autograd.grad(first[1], [x, exponent], retain_graph=True)
    by_p = torch.autograd.grad(first[0].sum(), [exponent])[0]
    exact = torch.tensor(taps).double().tolist()
    step = 1e-4  # below 0 the formula goes on

    def at(number: int, moved: float) -> tuple[float, list[float], float]:
        nudged = [a + moved * (i == number) for i, a in enumerate(exact)]
        return _power_mean(nudged, exponent.item() + (moved if number == 4 else 0), True)

    assert by_x[1].item() == pytest.approx((at(4, step)[2] - at(4, -step)[2]) / (2 * step), rel=1e-3)
    mixed = [(at(i, step)[2] - at(i, -step)[2]) / (2 * step) for i in range(4)]
    torch.testing.assert_close(
        by_x[0].flatten().double().cpu(), torch.tensor(mixed).double().cpu(), rtol=1e-3, atol=1e-5
    )
    assert by_p.item() == pytest.approx(sum(mixed), rel=1e-3)


@pytest.mark.parametrize("as_tensor", [False, True])
def test_second_derivatives_of_an_endless_exponent_are_nothing(as_tensor: bool) -> None:
    x = torch.tensor([[[0.3, 1.0, -2.0, 0.7]]], requires_grad=True)
    norm = torch.tensor(math.inf) if as_tensor else math.inf
    (first,) = torch.autograd.grad(F.lp_pool1d(x, 4, norm_type=norm).square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    torch.testing.assert_close(second, torch.tensor([[[0.0, 0.0, -16.0, 0.0]]]))


@pytest.mark.parametrize("p", [1e-30, 1e-6, 1e-3, 0.2])
def test_lp_of_one_tap_does_not_depend_on_p(p: float) -> None:
    x = torch.tensor([[[0.0, 5.3, 0.0, 0.0]]])
    exponent = torch.tensor(p, requires_grad=True)
    y = F.lp_pool1d(x, 4, norm_type=exponent)
    y.sum().backward()
    assert y.item() == pytest.approx(5.3)
    assert exponent.grad.item() == 0


@pytest.mark.parametrize("p", [1e-36, 1e-30, 1e-3])
def test_lp_of_several_taps_and_a_small_exponent_is_infinite_and_has_no_slope(p: float) -> None:
    x = torch.tensor([[[1.0, 2.0, 3.0]]])
    exponent = torch.tensor(p, requires_grad=True)
    y = F.lp_pool1d(x, 3, norm_type=exponent)
    y.sum().backward()
    assert y.item() == math.inf
    assert exponent.grad.item() == 0


@pytest.mark.parametrize("as_tensor", [False, True])
def test_an_endless_exponent_takes_the_first_largest_size_and_passes_nan_on(as_tensor: bool) -> None:
    norm = torch.tensor(math.inf) if as_tensor else math.inf
    x = torch.tensor([[[0.1, -0.7, 0.7, 0.7, 1.0, math.nan, 1.0, 2.0]]], requires_grad=True)
    y = F.lp_pool1d(x, 4, norm_type=norm)
    (grad,) = torch.autograd.grad(y.sum(), x)
    wanted = torch.tensor([[[0, -1, 0, 0, *[math.nan] * 4]]])
    torch.testing.assert_close(y, torch.tensor([[[0.7, math.nan]]]), equal_nan=True)
    torch.testing.assert_close(grad, wanted, equal_nan=True)


# ---- sums and differences that overflow ------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 16])
@pytest.mark.parametrize("name", ["mixed", "gated"])
def test_the_mean_of_many_large_taps_of_both_signs(name: str, channels: int) -> None:
    taps = torch.cat([torch.full((128,), 3e38), torch.full((128,), -3e38)]).view(1, 1, 16, 16)
    x = taps.expand(1, channels, 16, 16).contiguous(memory_format=torch.channels_last)
    params: dict[str, Any] = {"alpha": 0.5}
    if name == "gated":
        params = {"weight": torch.zeros(channels, 256), "bias": torch.zeros(channels)}
    y = getattr(F, f"{name}_pool2d")(x, None, **params)
    torch.testing.assert_close(y, torch.full_like(y, 1.5e38))


@pytest.mark.parametrize("channels", [1, 16])
@pytest.mark.parametrize("size", [1e3, 1e18, 1e20, 1e30, 1e38])
def test_a_closed_gate_passes_nothing_on(size: float, channels: int) -> None:
    x = (torch.tensor([1.0, 2.0]).repeat(channels, 1) * size).view(1, channels, 1, 2).requires_grad_()
    weight, bias = torch.full((channels, 2), -1.0, requires_grad=True), torch.zeros(channels, requires_grad=True)
    y = F.gated_pool2d(x, (1, 2), weight=weight, bias=bias)
    grad_x, grad_weight, grad_bias = torch.autograd.grad(y.sum(), [x, weight, bias])
    assert not grad_weight.any() and not grad_bias.any()
    torch.testing.assert_close(grad_x, torch.full_like(grad_x, 0.5))
    leaves, gates = torch.eye(2).requires_grad_(), torch.full((1, 2), -1.0, requires_grad=True)
    y = F.tree_pool2d(x, (1, 2), leaves=leaves, gates=gates)
    grad_x, grad_leaves, grad_gates = torch.autograd.grad(y.sum(), [x, leaves, gates])
    torch.testing.assert_close(grad_x, torch.tensor([0.0, 1.0]).expand_as(grad_x))
    assert not grad_gates.any() and not grad_leaves[0].any()


_EDGE = [
    [-3e38, 3e38, 3e38, 3e38],
    [3e38, -3e38, -3e38, -3e38],
    [3e38, -3e38, 0.0, 1.0],
    [-3.4e38, 3.4e38, -3.4e38, 3.4e38],
]


@every_layout
@pytest.mark.parametrize("taps", _EDGE, ids=str)
@pytest.mark.parametrize("name", ["soft", "weighted", "ada", "edscw", "gated", "tree", "mixed", "tdgs", "lse"])
def test_gradients_where_taps_are_the_largest_number_apart(
    name: str, taps: list[float], windows: str, channels: int, layout: torch.memory_format
) -> None:
    x = torch.tensor(taps).view(1, 1, 2, 2).repeat(1, channels, 1, 2).contiguous(memory_format=layout)
    size = {"2x2": 4, "global": 8, "3x3 by 1": 9}[windows]
    # Gates are closed or wide open: the difference that they would pass on may overflow.
    params: dict[str, dict[str, Any]] = {
        "soft": {"beta": torch.tensor(0.0)},
        "weighted": {"logits": torch.zeros_like(x)},
        "gated": {"weight": torch.full((channels, size), -1.0), "bias": torch.full((channels,), -1e4)},
        "tree": {"leaves": torch.ones(2, size) / size, "gates": torch.full((1, size), 1.0)},
        "mixed": {"alpha": 0.5},
        "tdgs": {"temperature": 1.0},
        "lse": {"r": 0.0},
    }
    call = params.get(name, {})
    # Other slopes, and the sum of several windows', may overflow.
    wanted = "gates" if name == "tree" else "logits" if windows != "3x3 by 1" else ""
    leaves = {k: v.requires_grad_() for k, v in call.items() if k == wanted}
    x.requires_grad_()
    y = getattr(F, f"{name}_pool2d")(x, *_GEOMETRY[windows], **call)
    assert y.isfinite().all()
    for grad in torch.autograd.grad(y.sum(), [x, *leaves.values()]):
        assert grad.isfinite().all(), grad


@pytest.mark.parametrize("channels", [1, 16])
def test_equal_weights_share_what_is_the_largest_number_apart(channels: int) -> None:
    x = torch.tensor(_EDGE[0]).repeat(channels, 1).view(1, channels, 1, 4).requires_grad_()
    quarter = torch.full_like(x, 0.25)
    (grad,) = torch.autograd.grad(F.soft_pool2d(x, (1, 4), beta=0.0).sum(), x)
    torch.testing.assert_close(grad, quarter)
    logits = torch.zeros_like(x, requires_grad=True)
    grad, by_logits = torch.autograd.grad(F.weighted_pool2d(x, (1, 4), logits=logits).sum(), [x, logits])
    torch.testing.assert_close(grad, quarter)
    wanted = torch.tensor([-1.125e38, 0.375e38, 0.375e38, 0.375e38]).expand_as(x)
    torch.testing.assert_close(by_logits, wanted)


# ---- infinite taps ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gated", "rank"])
def test_second_derivatives_beside_minus_infinity(name: str) -> None:
    x = torch.tensor([[[-math.inf, 1.0, 2.0, 0.5, 1.5, 2.5, 0.25, 3.0]]], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([[0.5, 0.25, 0.125, 0.0]], dtype=torch.float64, requires_grad=True)
    bias = {"bias": torch.zeros(1, dtype=torch.float64)} if name == "gated" else {}
    y = getattr(F, f"{name}_pool1d")(x, 4, weight=weight, **bias)
    first = torch.autograd.grad(y[..., 1:].square().sum(), [x, weight], create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), [x, weight])
    alone = x.detach()[..., 4:].clone().requires_grad_()
    y = getattr(F, f"{name}_pool1d")(alone, 4, weight=weight, **bias)
    first = torch.autograd.grad(y.square().sum(), [alone, weight], create_graph=True)
    expected = torch.autograd.grad(sum(g.square().sum() for g in first), [alone, weight])
    torch.testing.assert_close(second[0][..., 4:], expected[0])
    torch.testing.assert_close(second[1], expected[1])
    assert not second[0][..., :4].any()


@pytest.mark.parametrize("pool", [poolnb.LIPPool2d, poolnb.AttentionPool2d])
def test_infinite_taps_leave_the_windows_beside_them_alone(pool: Any) -> None:
    torch.manual_seed(0)
    layer = pool(2, channels=2)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn_like(parameter))
    x = torch.randn(1, 2, 4, 6)
    x[0, :, 0, 0] = -math.inf
    zero = layer(x.masked_fill(x.isinf(), 0))
    y = layer(x)
    torch.testing.assert_close(y[..., 1:], zero[..., 1:])
    assert y.isfinite().all()


def test_lip_normalises_by_valid_positions_however_large_the_others_are() -> None:
    torch.manual_seed(0)
    layer = poolnb.LIPPool2d(2, channels=1)
    with torch.no_grad():
        layer.weight.fill_(1)
    x, mask = torch.randn(1, 1, 4, 6), torch.ones(1, 1, 4, 6, dtype=torch.bool)
    x[..., 0] = 1e20
    mask[..., 1] = False
    assert layer(x, mask).isfinite().all()


# ---- draws -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_tau_does_not_change_a_hard_draw(temperature: float, dtype: torch.dtype, channels: int) -> None:
    x = torch.randn(2, channels, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    draws = [
        F.tdgs_pool2d(x, 2, temperature=temperature, tau=tau, hard=True, training=True, seed=7)
        for tau in (0.5, 2.0, 1e3, 1e6, 1e30)
    ]
    for one, other in itertools.pairwise(draws):
        assert torch.equal(one, other)
