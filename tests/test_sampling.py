"""The sampled operators: their seeds, their draws, and what the mean of the draws is."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from cases import case, cases, examples
from devices import DEVICE, torch
from hypothesis import given
from hypothesis import strategies as st
from operators import OPERATORS, TOLERANCE, Case, every_dimension
from poolers import SAMPLED
from sampled import SHAPES, deviation, every_sampled, pool, randn
from scipy import stats
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import poolnb
from poolnb import functional as F
from poolnb import reference

pytestmark = pytest.mark.usefixtures("kernels")


# ---- seeds -----------------------------------------------------------------------------------------------------------


@every_dimension
@every_sampled
def test_the_same_noise_in_every_layout_and_dtype(name: str, dims: int) -> None:
    x = randn(*SHAPES[dims])
    y = pool(name, x, 2, 1, training=True, seed=5)
    last = x.movedim(1, -1).contiguous().movedim(-1, 1)
    assert torch.equal(pool(name, last, 2, 1, training=True, seed=5), y)
    assert torch.equal(pool(name, x.float(), 2, 1, training=True, seed=5), y.float())
    assert torch.equal(
        pool(name, x[..., ::2], 2, 1, training=True, seed=5),
        pool(name, x[..., ::2].clone(), 2, 1, training=True, seed=5),
    )


@every_sampled
def test_a_seed_is_an_int_or_a_tensor(name: str) -> None:
    x = randn(2, 3, 8, 8)
    draws = [pool(name, x, 2, training=True, seed=s) for s in (4, torch.tensor(4), 5, -4, 4 + 2**32)]
    assert torch.equal(draws[0], draws[1])
    for one, other in combinations(draws[1:], 2):
        assert not torch.equal(one, other)


@every_sampled
def test_without_a_seed_torch_s_generator_decides(name: str) -> None:
    x = randn(2, 3, 8, 8)
    torch.manual_seed(3)
    first, second = pool(name, x, 2, training=True), pool(name, x, 2, training=True)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(pool(name, x, 2, training=True), first)
    assert torch.equal(pool(name, x, 2, training=True), second)


@every_sampled
def test_evaluation_draws_nothing(name: str) -> None:
    x, before = randn(2, 3, 8, 8), torch.get_rng_state()
    y = pool(name, x, 2)
    assert torch.equal(pool(name, x, 2, seed=3), y)
    assert torch.equal(torch.get_rng_state(), before)


@every_sampled
def test_noise_goes_with_the_position_in_the_batch(name: str) -> None:
    x = randn(4, 3, 8, 8)
    y = pool(name, x, 2, training=True, seed=1)
    # The first entries, and an unbatched input, are as they would be alone; the noise of the others is their own.
    assert torch.equal(pool(name, x[:2], 2, training=True, seed=1), y[:2])
    unbatched = getattr(F, f"{name}_pool2d")
    params = {"temperature": 0.7} if name == "tdgs" else {}
    assert torch.equal(unbatched(x[0], 2, training=True, seed=1, **params), y[0])
    same = pool(name, x[:1].expand(4, -1, -1, -1), 2, training=True, seed=1)
    shared = torch.equal(same[0], same[1])
    assert shared == (name == "s3")  # S3Pool draws rows and columns for the whole batch


# ---- derivatives and special values: what the common tests leave out -------------------------------------------------


@every_dimension
@examples(40)
@given(data=st.data())
def test_hard_tdgs_equals_the_oracle(dims: int, data: st.DataObject) -> None:
    drawn = data.draw(cases(OPERATORS["tdgs"], dims, (torch.float64,)))
    params = {**drawn.params, "training": True, "hard": True, "tau": data.draw(st.sampled_from([0.3, 1.0, 2.5]))}
    drawn = Case(drawn.operator, dims, drawn.x, drawn.geometry, drawn.mask, params, drawn.batched)
    leaves = {n: t.detach().requires_grad_() for n, t in {"input": drawn.x, **drawn.tensors()}.items()}
    y = drawn.run(leaves["input"], **{n: t for n, t in leaves.items() if n != "input"})
    torch.testing.assert_close(y, drawn.expected(), **TOLERANCE[torch.float64])
    grad = randn(*y.shape, seed=data.draw(st.integers(0, 1000)))
    actual = torch.autograd.grad(y, list(leaves.values()), grad)
    expected = drawn.expected_gradients(grad)
    for name, value in zip(leaves, actual, strict=True):
        torch.testing.assert_close(value, expected[name], rtol=1e-7, atol=1e-8)


_MODES = [
    ("stochastic", {}),
    ("s3", {}),
    ("s3", {"eval_mode": "expectation", "grid_size": 6}),
    ("tdgs", {"hard": False, "tau": 0.6}),
    ("tdgs", {"hard": False, "normalize": False}),
]


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(("name", "params"), _MODES, ids=[f"{n}-{'-'.join(o)}" for n, o in _MODES])
def test_derivatives_equal_finite_differences(name: str, params: dict[str, Any], training: bool) -> None:
    # Distinct taps away from 0, some negative: no kink within reach.
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1)).double()
    x = (0.15 + order / 25 - (order % 3 == 0) * 3).reshape(1, 2, 5, 5).requires_grad_()
    temperature = torch.tensor([0.5, 0.9], dtype=torch.float64, requires_grad=True)
    leaves = (x, temperature) if name == "tdgs" else (x,)

    def function(x: Tensor, *temperature: Tensor) -> Tensor:
        more = {"temperature": temperature[0]} if temperature else {}
        return pool(name, x, 3, 2, 1, training=training, seed=9, **params, **more)

    assert gradcheck(function, leaves)
    assert gradgradcheck(function, leaves, atol=1e-4)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@every_sampled
@examples(40)
@given(data=st.data())
def test_special_values_equal_the_oracle(name: str, training: bool, data: st.DataObject) -> None:
    dtypes = (torch.float32, torch.float64)
    drawn = data.draw(cases(OPERATORS[name], data.draw(st.sampled_from([1, 2])), dtypes, least_batch=1))
    special = st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 1e-30, -1e30, 1e30])
    x = drawn.x.clone(memory_format=torch.contiguous_format)
    for value in data.draw(st.lists(special, min_size=1, max_size=4)):
        x.view(-1)[data.draw(st.integers(0, x.numel() - 1))] = value
    params = {**drawn.params, "training": training}
    drawn = Case(drawn.operator, drawn.dims, x, drawn.geometry, drawn.mask, params, drawn.batched)
    y, expected = drawn.run(), drawn.expected()
    tolerance = TOLERANCE[x.dtype]
    torch.testing.assert_close(y.double(), expected, rtol=tolerance["rtol"], atol=1e-4, equal_nan=True)
    if not x.isnan().any():
        leaf = x.clone().requires_grad_()
        out = drawn.run(leaf)
        (grad,) = torch.autograd.grad(out, leaf, torch.ones_like(out))
        assert not grad.isnan().any()


@every_sampled
def test_negative_infinity_is_never_drawn_beside_a_number(name: str) -> None:
    x = torch.full((1, 1, 1, 400), -1.0)
    x[..., ::2] = -math.inf
    for training in (True, False):
        y = pool(name, x, (1, 2), training=training, seed=0)
        assert (y == -1).all(), name
        cold = pool(name, torch.full((1, 1, 2, 2), -math.inf), 2, training=training, seed=0)
        assert (cold == -math.inf).all()


# ---- draws and their mean --------------------------------------------------------------------------------------------

_N = 20_000


@pytest.mark.parametrize("sign", ["mixed", "negative"])
def test_stochastic_draws_have_the_evaluation_s_mean(sign: str) -> None:
    x = randn(1, 2, 4, 6, seed=2)
    x = x if sign == "mixed" else -x.abs()
    mean = F.stochastic_pool2d(x, 2)[0]
    second = F.stochastic_pool2d(x, 2)  # the variance needs the probabilities: of x^2 under those of x
    taps = x.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    positive = taps.relu()
    p = torch.where(positive.sum(-1, keepdim=True) > 0, positive, torch.ones_like(taps))
    p = p / p.sum(-1, keepdim=True)
    variance = ((p * taps.square()).sum(-1) - second.square())[0]
    draws = F.stochastic_pool2d(x.expand(_N, -1, -1, -1), 2, training=True, seed=21)
    assert deviation(draws, mean, variance) < 6  # 12 outputs: 12 * 2e-9


def test_stochastic_draws_taps_in_proportion() -> None:
    x = torch.tensor([3.0, -1.0, 1.0, 2.0, 0.0, 4.0])
    y = F.stochastic_pool1d(x.expand(_N, 1, 6), 6, training=True, seed=4).flatten()
    values, counts = y.unique(return_counts=True)
    assert values.tolist() == [1.0, 2.0, 3.0, 4.0]  # never a tap that is not positive
    assert stats.chisquare(counts.cpu().numpy(), np.array([1, 2, 3, 4]) / 10 * _N).pvalue > 1e-6


def test_stochastic_draws_uniformly_without_a_positive_tap() -> None:
    x = torch.tensor([-3.0, 0.0, -math.inf, -2.0])
    y = F.stochastic_pool1d(x.expand(_N, 1, 4), 4, training=True, seed=4).flatten()
    values, counts = y.unique(return_counts=True)
    assert values.tolist() == [-3.0, -2.0, 0.0]
    assert stats.chisquare(counts.cpu().numpy()).pvalue > 1e-6


@pytest.mark.parametrize("normalize", [True, False])
def test_hard_tdgs_draws_have_the_evaluation_s_mean(normalize: bool) -> None:
    # The largest logit plus Gumbel noise is a draw from the softmax, whatever tau.
    x = randn(1, 2, 4, 6, seed=2)
    params = {"temperature": torch.tensor([0.3, 1.1], dtype=torch.float64), "normalize": normalize}
    mean = F.tdgs_pool2d(x, 2, **params)[0]
    draws = F.tdgs_pool2d(x.expand(_N, -1, -1, -1), 2, **params, tau=0.4, training=True, seed=5)
    taps = x.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    z = taps / taps.norm(dim=-1, keepdim=True) if normalize else taps
    p = (z / (params["temperature"].view(-1, 1, 1, 1) + 0.01)).softmax(-1)
    variance = ((p * taps.square()).sum(-1) - (p * taps).sum(-1).square())[0]
    torch.testing.assert_close((p * taps).sum(-1)[0], mean)
    assert deviation(draws, mean, variance) < 6  # 12 outputs


def test_soft_tdgs_tends_to_the_hard_draw() -> None:
    x = randn(1, 2, 6, 6)
    hard = F.tdgs_pool2d(x, 2, temperature=0.5, training=True, seed=1)
    soft = F.tdgs_pool2d(x, 2, temperature=0.5, training=True, seed=1, hard=False, tau=1e-3)
    torch.testing.assert_close(soft, hard, rtol=1e-3, atol=1e-3)


def test_tdgs_goes_from_the_max_to_the_mean() -> None:
    x = randn(2, 2, 6, 6).relu()
    cold = F.tdgs_pool2d(x, 2, temperature=0.0, eps=1e-4)
    torch.testing.assert_close(cold, F.max_pool2d(x, 2), rtol=0, atol=1e-6)
    hot = F.tdgs_pool2d(x, 2, temperature=1e9)
    torch.testing.assert_close(hot, F.avg_pool2d(x, 2), rtol=0, atol=1e-6)


def test_tdgs_at_temperature_1_cannot_reach_the_max() -> None:
    # With the norm divided out, one positive tap among four has logit 1/(1 + eps) and the others 0.
    x = torch.tensor([[[[100.0, 0.0], [0.0, 0.0]]]])
    share = float(F.tdgs_pool2d(x, 2, temperature=1.0)) / 100
    peak = math.exp(1 / 1.01)
    assert share == pytest.approx(peak / (peak + 3), rel=1e-6)
    assert share < math.e / (math.e + 3) < 0.4755


def test_tdgs_of_zeros_has_equal_weights_and_a_bounded_gradient() -> None:
    x = torch.zeros(1, 1, 2, 2, requires_grad=True)
    y = F.tdgs_pool2d(x, 2, temperature=0.1)
    y.backward()
    assert y.item() == 0 and torch.equal(x.grad, torch.full_like(x, 0.25))


# ---- symmetries ------------------------------------------------------------------------------------------------------


@every_sampled
def test_a_shift_by_the_grid_shifts_the_evaluation(name: str) -> None:
    x = randn(1, 2, 16, 16)
    y, shifted = pool(name, x, 2), pool(name, x.roll((4, 8), (2, 3)), 2)
    inside = (slice(None), slice(None), slice(2, -1), slice(4, -1))
    torch.testing.assert_close(shifted[inside], y.roll((2, 4), (2, 3))[inside])


@pytest.mark.parametrize("name", ["stochastic", "tdgs"])
def test_the_order_of_taps_does_not_matter_in_evaluation(name: str) -> None:
    x = randn(2, 3, 8)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(pool(name, x[..., order], None), pool(name, x, None))


@pytest.mark.parametrize("name", SAMPLED)
def test_samples_may_be_permuted_in_evaluation(name: str) -> None:
    x = randn(5, 3, 8, 8)
    order = torch.tensor([3, 0, 4, 1, 2])
    assert torch.equal(pool(name, x[order], 2), pool(name, x, 2)[order])


# ---- transforms ------------------------------------------------------------------------------------------------------


@every_sampled
def test_vmap_gives_each_entry_what_a_call_of_its_own_gives(name: str) -> None:
    x, seeds = randn(3, 2, 2, 6, 6), torch.tensor([4, 5, 6])

    def call(x: Tensor, seed: Tensor) -> Tensor:
        return pool(name, x, 2, training=True, seed=seed)

    y = torch.vmap(call)(x, seeds)
    assert torch.equal(y, torch.stack([call(a, s) for a, s in zip(x, seeds, strict=True)]))
    same = torch.vmap(call, (0, None))(x, seeds[0])
    assert torch.equal(same, torch.stack([call(a, seeds[0]) for a in x]))
    # The gradient sees the same noise as the value.
    slope = torch.func.grad(lambda a, s: call(a, s).square().sum())
    each = torch.stack([slope(a, s) for a, s in zip(x, seeds, strict=True)])
    torch.testing.assert_close(torch.vmap(slope)(x, seeds), each)


@every_sampled
def test_vmap_without_a_seed_follows_its_randomness(name: str) -> None:
    x = randn(1, 1, 2, 8, 8).expand(3, -1, -1, -1, -1)

    def call(x: Tensor) -> Tensor:
        return pool(name, x, 2, training=True)

    with pytest.raises(RuntimeError, match="randomness"):
        torch.vmap(call)(x)
    same, different = torch.vmap(call, randomness="same")(x), torch.vmap(call, randomness="different")(x)
    assert torch.equal(same[0], same[1])
    assert not torch.equal(different[0], different[1])


# ---- modules ---------------------------------------------------------------------------------------------------------


@every_dimension
@every_sampled
def test_modules_draw_in_training_mode_only(name: str, dims: int) -> None:
    x = randn(*SHAPES[dims], dtype=torch.float32)
    sizes = tuple((n - 2) // 2 + 1 for n in x.shape[2:])
    module = poolnb.create_pool(name, 2, dims=dims, channels=3, output_size=sizes).to(DEVICE)
    assert module.training
    assert torch.equal(module(x, seed=3), module(x, seed=3))
    torch.manual_seed(0)
    first = module(x)
    torch.manual_seed(0)
    assert torch.equal(module(x), first)
    module.eval()
    assert torch.equal(module(x), module(x))
    params = module.params()
    assert torch.equal(module(x), pool(name, x, 2, **params))


@pytest.mark.parametrize("positive", ["relu", "softplus"])
@pytest.mark.parametrize(("granularity", "shape"), [("position", (4, 5, 6)), ("channel", (4,)), ("layer", ())])
def test_tdgs_temperatures_start_where_they_are_told(granularity: str, shape: tuple[int, ...], positive: str) -> None:
    make = dict(granularity=granularity, init=2.0, jitter=0.25, positive=positive)
    module = poolnb.TDGSPool2d(2, 4, (5, 6), **make).to(DEVICE)
    assert module.temperature.shape == shape
    t = module.current_temperature()
    assert (t >= 1.5 - 1e-5).all() and (t <= 2.5 + 1e-5).all()
    x = randn(2, 4, 10, 12, dtype=torch.float32)
    module.eval()
    torch.testing.assert_close(module(x), F.tdgs_pool2d(x, 2, temperature=t))
    assert f"temperature={shape}" in repr(module) and granularity in repr(module)


def test_tdgs_initial_temperatures_are_spread_over_their_range() -> None:
    torch.manual_seed(0)
    t = poolnb.TDGSPool2d(2, 64, 16).current_temperature().detach().flatten().double().cpu().numpy()
    assert stats.kstest(t, "uniform", args=(0.5, 1.0)).pvalue > 1e-6
    assert t.min() < 0.51 and t.max() > 1.49


def test_a_negative_temperature_never_recovers_under_relu_but_does_under_softplus() -> None:
    x = randn(2, 3, 4, 4, dtype=torch.float32)
    for positive, moves in (("relu", False), ("softplus", True)):
        module = poolnb.TDGSPool2d(2, 3, granularity="channel", positive=positive).to(DEVICE)
        with torch.no_grad():
            module.temperature.fill_(-1.0)
        module(x, seed=1).square().sum().backward()
        assert bool(module.temperature.grad.abs().sum() > 0) == moves


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"granularity": "pixel"}, "granularity"),
        ({"granularity": "position", "output_size": None}, "output_size"),
        ({"granularity": "channel", "channels": None}, "channels"),
        ({"channels": 0}, "channels"),
        ({"channels": 2.5}, "channels"),
        ({"output_size": (2, 2, 2)}, "output_size"),
        ({"init": 0.0}, "init"),
        ({"init": "1"}, "init"),
        ({"jitter": 1}, "jitter"),
        ({"jitter": -0.1}, "jitter"),
        ({"positive": "exp"}, "positive"),
        ({"tau": 0}, "tau"),
        ({"eps": -1.0}, "eps"),
        ({"hard": 1}, "hard"),
        ({"normalize": None}, "normalize"),
    ],
)
def test_tdgs_modules_name_a_bad_option(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=rf"\b{message}\b.*got"):
        poolnb.TDGSPool2d(2, **{"channels": 3, "output_size": 2, **options})


def test_the_oracle_wants_a_seed_to_draw() -> None:
    for name in SAMPLED:
        params = {"temperature": 1.0} if name == "tdgs" else {}
        with pytest.raises(ValueError, match="seed"):
            getattr(reference, f"{name}_pool")(np.ones((1, 1, 4)), 2, training=True, **params)


def test_cases_of_the_common_tests_hold_both_modes() -> None:
    for name in SAMPLED:
        modes = {case(OPERATORS[name], 1, (1, 1, 4), {"kernel_size": 2}, seed=s).params["training"] for s in range(20)}
        assert modes == {True, False}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("tau", [1.0, 0.5])
@pytest.mark.parametrize("level", [1e6, -1e20, 1e30])
@pytest.mark.parametrize("taps", [1, 3, 4])
def test_noise_decides_between_equal_taps_of_any_size(
    taps: int, level: float, tau: float, layout: torch.memory_format
) -> None:
    """TDGS without the norm looks at differences: those between equal taps are 0, however large they are."""
    mask = (torch.arange(4) < taps).view(1, 1, 2, 2).repeat(1, 1, 3, 16)

    def gradients(value: float) -> tuple[Tensor, ...]:
        x = torch.full((2, 16, 6, 32), value).contiguous(memory_format=layout).requires_grad_()
        t = torch.tensor(0.7, requires_grad=True)
        y = F.tdgs_pool2d(x, 2, temperature=t, tau=tau, hard=False, normalize=False, training=True, seed=8, mask=mask)
        torch.testing.assert_close(y, torch.full_like(y, value))
        return torch.autograd.grad(y, [x, t], torch.ones_like(y))

    expected, actual = gradients(0.0), gradients(level)
    torch.testing.assert_close(actual[0], expected[0], rtol=1e-4, atol=1e-5)
    assert actual[1] == expected[1] == 0
