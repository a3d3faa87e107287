"""The modules of the deterministic operators: parameters, their first values, what they refuse."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from poolers import LEARNED
from torch import Tensor

import poolnb
from poolnb import functional as F
from poolnb import reference

pytestmark = [pytest.mark.usefixtures("kernels"), pytest.mark.cpu]  # what they compute: test_integration.py

_SHAPES = {1: (2, 4, 8), 2: (2, 4, 6, 8), 3: (2, 4, 4, 6, 2)}
every_dimension = pytest.mark.parametrize("dims", [1, 2, 3])


def sample(dims: int) -> Tensor:
    return torch.rand(_SHAPES[dims], generator=torch.Generator().manual_seed(dims))


def shapes(pool: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {n: tuple(p.shape) for n, p in pool.named_parameters()}


@every_dimension
def test_parameters_have_their_names_and_shapes(dims: int) -> None:
    def made(name: str, **params: object) -> dict[str, tuple[int, ...]]:
        return shapes(poolnb.create_pool(name, 2, dims=dims, channels=4, **params))

    taps, per_position = 2**dims, tuple(n // 2 for n in _SHAPES[dims][2:])
    assert made("auto") == {"alpha": (4,)}
    assert made("gem") == {"p": ()} and made("gem", granularity="channel") == {"p": (4,)}
    assert made("lse") == {"r": ()} and made("lse", granularity="channel") == {"r": (4,)}
    assert made("mixed") == {"lam": ()} and made("mixed", granularity="channel") == {"lam": (4,)}
    assert made("mixed", granularity="position", output_size=per_position) == {"lam": (4, *per_position)}
    assert made("gated") == {"weight": (taps,)} and made("gated", bias=True) == {"weight": (taps,), "bias": ()}
    assert made("gated", granularity="channel", bias=True) == {"weight": (4, taps), "bias": (4,)}
    assert made("tree") == {"leaves": (4, taps), "gates": (3, taps)}
    assert made("tree", n_leaves=2) == {"leaves": (2, taps), "gates": (1, taps)}
    for fixed in ("avg", "lp", "max", "soft", "swap"):
        assert made(fixed) == {}


@every_dimension
@pytest.mark.parametrize("name", [n for n in LEARNED if n != "tdgs"])
def test_every_parameter_learns(name: str, dims: int) -> None:
    torch.manual_seed(0)
    pool = poolnb.create_pool(name, 2, dims=dims, channels=4)
    optimizer = torch.optim.SGD(pool.parameters(), lr=0.1)
    x, target = sample(dims), F.__dict__[f"max_pool{dims}d"](sample(dims), 2)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (pool(x) - target).square().mean()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in pool.parameters())
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", [n for n in LEARNED if n != "tdgs"])
def test_reset_parameters_starts_again(name: str) -> None:
    torch.manual_seed(0)
    pool = poolnb.create_pool(name, 2, channels=4)
    before = {n: t.clone() for n, t in pool.state_dict().items()}
    with torch.no_grad():
        for p in pool.parameters():
            p.add_(1)
    torch.manual_seed(0)
    pool.reset_parameters()
    assert all(torch.equal(before[n], t) for n, t in pool.state_dict().items())


def test_first_values() -> None:
    assert float(poolnb.GeMPool2d(2).p) == 3 and float(poolnb.GeMPool2d(2, p=2.5).p) == 2.5
    assert float(poolnb.LSEPool2d(2, r=5.0).r) == 5
    assert float(poolnb.MixedPool2d(2).lam) == 0
    assert math.isclose(float(poolnb.MixedPool2d(2, alpha=0.9).lam.sigmoid()), 0.9, rel_tol=1e-6)
    assert (poolnb.AutoPool2d(2, channels=3).alpha == 0).all()


def test_modules_call_the_function_of_their_name() -> None:
    x = sample(2)
    mask = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.7
    geometry = {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 2, "ceil_mode": True}
    gated = poolnb.GatedPool2d(**geometry, bias=True)
    tree = poolnb.TreePool2d(**geometry, n_leaves=2)
    pairs = [
        (poolnb.LpPool2d(**geometry, norm_type=3.0), F.lp_pool2d, {"norm_type": 3.0}),
        (poolnb.LpPool2d(**geometry, norm_type=math.inf), F.lp_pool2d, {"norm_type": math.inf}),
        (poolnb.GeMPool2d(**geometry, p=2.0, eps=0.1), F.gem_pool2d, {"p": 2.0, "eps": 0.1}),
        (poolnb.LSEPool2d(**geometry, r=2.0), F.lse_pool2d, {"r": 2.0}),
        (poolnb.SoftPool2d(**geometry, beta=2.0), F.soft_pool2d, {"beta": 2.0}),
        (poolnb.MixedPool2d(**geometry, alpha=0.25), F.mixed_pool2d, {"alpha": 0.25}),
        (gated, F.gated_pool2d, {"weight": gated.weight, "bias": gated.bias}),
        (tree, F.tree_pool2d, {"leaves": tree.leaves, "gates": tree.gates}),
        (poolnb.MaxPool2d(**geometry), F.max_pool2d, {}),
        (poolnb.AvgPool2d(**geometry), F.avg_pool2d, {}),
    ]
    for pool, function, params in pairs:
        torch.testing.assert_close(pool(x, mask), function(x, **geometry, **params, mask=mask))
        torch.testing.assert_close(pool(x[0]), function(x[0], **geometry, **params))


def test_a_norm_that_is_not_learned_is_a_buffer() -> None:
    pool = poolnb.LpPool2d(2, norm_type=torch.tensor([1.0, 2.0, 3.0, math.inf]))
    assert list(pool.state_dict()) == ["norm_type"] and not list(pool.parameters())
    assert pool.double()(sample(2).double()).dtype == torch.float64


def test_a_norm_can_be_learned() -> None:
    pool = poolnb.LpPool2d(2, norm_type=torch.nn.Parameter(torch.full((4,), 2.0)))
    pool(sample(2)).sum().backward()
    assert shapes(pool) == {"norm_type": (4,)} and pool.norm_type.grad is not None


def test_max_pool_is_one_of_torch_s() -> None:
    for dims in (1, 2, 3):
        pool = getattr(poolnb, f"MaxPool{dims}d")(2)
        assert isinstance(pool, getattr(torch.nn, f"MaxPool{dims}d"))
        assert torch.equal(pool(sample(dims)), getattr(torch.nn, f"MaxPool{dims}d")(2)(sample(dims)))


# ---- weights from the input ------------------------------------------------------------------------------------------


def trained(name: str, dims: int) -> torch.nn.Module:
    torch.manual_seed(1)
    pool = poolnb.create_pool(name, 2, dims=dims, channels=4)
    with torch.no_grad():
        for p in pool.parameters():
            p.add_(0.5 * torch.randn_like(p))
    return pool


@every_dimension
@pytest.mark.parametrize("name", ["attention", "lip"])
def test_masked_values_do_not_reach_the_logits(name: str, dims: int) -> None:
    pool, x = trained(name, dims), sample(dims)
    mask = torch.rand(x.shape[0], 1, *x.shape[2:], generator=torch.Generator().manual_seed(3)) < 0.7
    results = []
    for garbage in (0.0, 1e6, math.nan, math.inf):
        pool.zero_grad()
        leaf = x.masked_fill(~mask, garbage).requires_grad_()
        y = pool(leaf, mask)
        y.sum().backward()
        results.append([y, leaf.grad, *(p.grad for p in pool.parameters())])
    for other in results[1:]:
        for actual, expected in zip(other, results[0], strict=True):
            torch.testing.assert_close(actual, expected)


@every_dimension
@pytest.mark.parametrize("name", ["attention", "lip"])
def test_logits_are_what_the_formula_says(name: str, dims: int) -> None:
    pool, x = trained(name, dims), sample(dims)
    if name == "attention":
        channels_last = x.movedim(1, -1)
        hidden = torch.tanh(channels_last @ pool.V.weight.flatten(1).T + pool.V.bias)
        expected = (hidden @ pool.w.weight.flatten()).unsqueeze(1)
    else:
        features = pool.convolution(x).flatten(2)
        normal = torch.nn.functional.instance_norm(features, weight=pool.weight, bias=pool.bias)
        expected = (12 * normal.sigmoid()).reshape(x.shape)
    torch.testing.assert_close(pool.logits(x), expected)
    function = getattr(F, f"weighted_pool{dims}d")
    torch.testing.assert_close(pool(x), function(x, 2, logits=expected))


@pytest.mark.parametrize("gated", [False, True])
def test_attention_over_everything(gated: bool) -> None:
    pool = poolnb.AttentionPool2d(None, channels=4, gated=gated)
    assert (pool.U is not None) == gated
    assert pool(sample(2)).shape == (2, 4, 1, 1)


def test_lip_takes_a_single_position() -> None:
    x = torch.rand(1, 4, 1, 1)
    torch.testing.assert_close(
        trained("lip", 2)(torch.nn.functional.pad(x, (0, 1, 0, 1))).shape, torch.Size([1, 4, 1, 1])
    )
    torch.testing.assert_close(poolnb.LIPPool2d(1, channels=4)(x), x)


# ---- what they refuse ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        pytest.param("auto", {"channels": 0}, "channels must be at least 1.*got 0", id="no channel"),
        pytest.param("auto", {"channels": 2.0}, "channels must be an int.*got 2.0", id="channels that are no int"),
        pytest.param("gem", {"p": 0}, "p must be a finite number greater than 0, got 0", id="an exponent of 0"),
        pytest.param("gem", {"eps": 0.0}, "eps must be .*greater than 0, got 0.0", id="an eps of 0"),
        pytest.param(
            "gem",
            {"granularity": "position"},
            'granularity must be "layer" or "channel", got',
            id="GeM has no parameter per position",
        ),
        pytest.param("lse", {"r": math.inf}, "r must be a finite number, got inf", id="an infinite sharpness"),
        pytest.param("lp", {"norm_type": -1.0}, "norm_type must be .*got -1.0", id="a negative norm"),
        pytest.param("lp", {"norm_type": "2"}, "norm_type must be a real number, got '2'", id="a norm as text"),
        pytest.param("soft", {"beta": "1"}, "beta must be a real number, got '1'", id="beta as text"),
        pytest.param("soft", {"semi_grad": 1}, "semi_grad must be a bool, got 1", id="semi_grad as a number"),
        pytest.param("mixed", {"alpha": 1.0}, r"alpha must be a finite number in \(0, 1\).*got 1", id="a share of 1"),
        pytest.param("mixed", {"alpha": 0.0}, "alpha must be .*got 0.0", id="a share of 0"),
        pytest.param(
            "mixed", {"granularity": "pixel"}, "granularity must be .*got 'pixel'", id="an unknown granularity"
        ),
        pytest.param(
            "gated", {"kernel_size": None}, "kernel_size must be given .*got None", id="a gate without a window size"
        ),
        pytest.param("gated", {"bias": 1}, "bias must be a bool, got 1", id="bias as a number"),
        pytest.param(
            "tree", {"kernel_size": None}, "kernel_size must be given .*got None", id="a tree without a window size"
        ),
        pytest.param("tree", {"n_leaves": 3}, "n_leaves must be 2 or 4, got 3", id="three leaves"),
        pytest.param(
            "lp",
            {"norm_type": torch.tensor(-2.0)},
            "norm_type must be .*greater than 0 in every entry, got -2",
            id="a negative norm in a tensor",
        ),
        pytest.param(
            "lp",
            {"norm_type": torch.tensor([2.0, math.nan])},
            "norm_type must be .* got a NaN",
            id="a norm of NaN in a tensor",
        ),
        pytest.param(
            "lp",
            {"norm_type": torch.ones(2, 1)},
            r"norm_type must be 0-d or have shape \(C,\), got shape \(2, 1\)",
            id="a norm of two dimensions",
        ),
        pytest.param(
            "lp",
            {"norm_type": torch.ones(0)},
            r"norm_type must be 0-d .* got shape \(0,\)",
            id="a norm without entries",
        ),
        pytest.param(
            "lp",
            {"norm_type": torch.ones(4, dtype=torch.int64)},
            "norm_type must be .* got dtype torch.int64",
            id="a norm of integers",
        ),
        pytest.param(
            "s3",
            {"grid_size": 3},
            "grid_size must be a multiple of stride .* got 3, stride=.2, 2.",
            id="a grid that the stride does not divide",
        ),
        pytest.param(
            "s3",
            {"grid_size": (2, 3)},
            r"grid_size must be a multiple of stride .* got \(2, 3\)",
            id="a grid that one stride does not divide",
        ),
        pytest.param(
            "s3", {"grid_size": 0, "kernel_size": None}, "grid_size must be at least 1.*got 0", id="an empty grid"
        ),
        pytest.param("s3", {"grid_size": "4"}, "grid_size must be an int .*got '4'", id="a grid as text"),
        pytest.param(
            "s3",
            {"eval_mode": "mean"},
            'eval_mode must be "average" or "expectation", got .mean',
            id="an unknown eval_mode",
        ),
        pytest.param(
            "gem",
            {"granularity": ["layer"]},
            r'granularity must be "layer" or "channel", got \[.layer.\]',
            id="GeM's granularity as a list",
        ),
        pytest.param(
            "mixed",
            {"granularity": ["layer"]},
            r'granularity must be .*"position", got \[.layer.\]',
            id="mixed's granularity as a list",
        ),
        pytest.param("gated", {"granularity": {}}, "granularity must be .* got {}", id="gated's granularity as a dict"),
        pytest.param(
            "tdgs",
            {"granularity": ["layer"]},
            r"granularity must be .* got \[.layer.\]",
            id="TDGS's granularity as a list",
        ),
        pytest.param("lip", {"logit_kernel": 2}, "logit_kernel must be odd, got 2", id="an even logit kernel"),
        pytest.param("lip", {"scale": 0}, "scale must be .*got 0", id="a scale of 0"),
        pytest.param("attention", {"hidden": 0}, "hidden must be at least 1.*got 0", id="no hidden row"),
        pytest.param("attention", {"gated": None}, "gated must be a bool, got None", id="gated as None"),
    ],
)
def test_bad_options(name: str, params: dict[str, object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        poolnb.create_pool(name, **{"kernel_size": 2, "channels": 4, **params})


@pytest.mark.parametrize("name", ["attention", "auto", "lip"])
def test_channels_have_to_be_known(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} needs channels"):
        poolnb.create_pool(name, 2)


def test_granularity_says_what_it_needs() -> None:
    for name in ("gem", "lse", "mixed", "gated"):
        with pytest.raises(ValueError, match="channels"):
            poolnb.create_pool(name, 2, granularity="channel")
    with pytest.raises(ValueError, match="output_size"):
        poolnb.create_pool("mixed", 2, channels=3, granularity="position")


_PER_CHANNEL = {
    "attention": {},
    "auto": {},
    "gated": {"granularity": "channel"},
    "gem": {"granularity": "channel"},
    "lip": {},
    "lse": {"granularity": "channel"},
    "mixed": {"granularity": "channel"},
    "tdgs": {"granularity": "channel"},
}


@pytest.mark.parametrize("name", _PER_CHANNEL)
def test_another_number_of_channels_is_an_error(name: str) -> None:
    pool = poolnb.create_pool(name, 2, channels=3, **_PER_CHANNEL[name])
    message = r"input must have 3 channels, as channels=3 says, got shape "
    with pytest.raises(ValueError, match=message + r"\(2, 4, 6, 8\)"):
        pool(sample(2))
    with pytest.raises(ValueError, match=message + r"\(4, 6, 8\)"):
        pool(sample(2)[0])


@pytest.mark.parametrize("name", ["mixed", "tdgs"])
def test_another_output_size_is_an_error(name: str) -> None:
    pool = poolnb.create_pool(name, 2, channels=4, output_size=(3, 3), granularity="position")
    with pytest.raises(
        ValueError, match=r"input must give an output of size \(3, 3\), as output_size says, got \(3, 4\)"
    ):
        pool(sample(2))
    assert pool(sample(2)[..., :7]).shape == (2, 4, 3, 3)


@pytest.mark.parametrize("name", LEARNED)
def test_parameters_of_another_dtype_or_device_are_an_error(name: str) -> None:
    pool = poolnb.create_pool(name, 2, channels=4, output_size=(3, 4))
    one = next(n for n, _ in pool.named_parameters())
    message = f"parameter {one} must have dtype float64 beside an input of torch.float64, got torch.float32"
    with pytest.raises(TypeError, match=message):
        pool(sample(2).double())
    with pytest.raises(ValueError, match=f"parameter {one} must be on input's device meta, got cpu"):
        pool(sample(2).to("meta"))
    half = pool.eval()(sample(2).half())
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), pool(sample(2)), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", poolnb.list_pools())
def test_an_empty_batch_raises_no_warning(name: str) -> None:
    pool, x = poolnb.create_pool(name, 2, channels=4, output_size=(3, 4)), sample(2)[:0].requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = pool(x)
        y.sum().backward()
    assert y.shape == (0, 4, 3, 4) and x.grad is not None


@pytest.mark.parametrize("name", poolnb.list_pools())
def test_repr_can_be_read(name: str) -> None:
    text = repr(poolnb.create_pool(name, 3, 2, padding=1, channels=4, output_size=2))
    assert "kernel_size=3, stride=2, padding=1" in text and "dilation" not in text


@pytest.mark.parametrize(
    ("name", "params", "argument"),
    [
        ("gem", {"p": 1e39}, "p"),
        ("lse", {"r": -1e39}, "r"),
        ("tdgs", {"init": 1e39}, "init"),
        ("tdgs", {"init": 1e-39}, "init"),
    ],
)
def test_a_number_beyond_the_parameter_s_dtype_is_named(name: str, params: dict[str, float], argument: str) -> None:
    options = {"granularity": "layer", **params}
    with pytest.raises(ValueError, match=f"^{argument} must be in .* the range of float32, got"):
        poolnb.create_pool(name, 2, **options)
    assert poolnb.create_pool(name, 2, dtype=torch.float64, **options)(torch.rand(1, 1, 4, 4).double()).shape == (
        1,
        1,
        2,
        2,
    )


# ---- statistics pooling ----------------------------------------------------------------------------------------------


@every_dimension
def test_stats_pool_is_mean_and_spread_beside_each_other(dims: int) -> None:
    x = torch.randn(2, 3, *(7, 6, 5)[:dims], generator=torch.Generator().manual_seed(0))
    mask = torch.rand(2, 1, *x.shape[2:], generator=torch.Generator().manual_seed(1)) < 0.7
    kind, std, avg = (getattr(poolnb, f"{name}Pool{dims}d") for name in ("Stats", "Std", "Avg"))
    plain, attentive = kind(3, 2, padding=1), kind(3, 2, padding=1, attention=True, channels=3)
    expected = torch.cat([avg(3, 2, padding=1)(x, mask), std(3, 2, padding=1)(x, mask)], 1)
    torch.testing.assert_close(plain(x, mask), expected)
    torch.testing.assert_close(attentive(x, mask), expected)
    torch.testing.assert_close(plain(x[0]), plain(x)[0])
    attentive(x, mask).square().sum().backward()
    assert attentive.attention.w.weight.grad.abs().sum() > 0
    assert attentive.half()(x.half(), mask).dtype == torch.float16


def test_stats_pool_equals_its_oracle() -> None:
    x, logits = (torch.randn(2, c, 5, 6, dtype=torch.float64, requires_grad=True) for c in (3, 1))
    grad = torch.randn(2, 6, 3, 3, dtype=torch.float64)
    for params in ({}, {"logits": logits}):
        y = F.stats_pool2d(x, 3, 2, 1, **params)
        grads = torch.autograd.grad(y, [x, *params.values()], grad)
        plain = {n: t.detach().numpy() for n, t in params.items()}
        torch.testing.assert_close(y.detach().numpy(), reference.stats_pool(x.detach().numpy(), 3, 2, 1, **plain))
        expected = reference.stats_pool_backward(grad.numpy(), x.detach().numpy(), 3, 2, 1, **plain)
        for actual, wanted in zip(grads, expected, strict=False):
            torch.testing.assert_close(actual.numpy(), wanted)


def test_stats_pool_of_a_sequence_does_not_see_what_its_mask_hides() -> None:
    layer = poolnb.StatsPool1d(None, attention=True, channels=2)
    torch.nn.init.ones_(layer.attention.w.weight)
    x = torch.randn(1, 2, 9, generator=torch.Generator().manual_seed(0))
    longer = torch.cat([x, torch.full((1, 2, 4), torch.nan)], 2)
    torch.testing.assert_close(layer(longer, torch.arange(13) < 9), layer(x))
    layer.reset_parameters()
    torch.testing.assert_close(layer(x), poolnb.StatsPool1d(None)(x))


def test_stats_pool_takes_no_other_pool_s_place() -> None:
    assert "stats" not in poolnb.list_pools()
    model = torch.nn.Sequential(poolnb.StatsPool2d(2))
    with pytest.raises(ValueError, match="changes the number of channels cannot be replaced, got 0 "):
        poolnb.replace_pooling(model, "max", types=poolnb.Pool)
    with pytest.raises(ValueError, match="channels must be given with attention=True, got None"):
        poolnb.StatsPool2d(2, attention=True)
    with pytest.raises(TypeError, match="attention must be a bool, got 1"):
        poolnb.StatsPool2d(2, attention=1)
