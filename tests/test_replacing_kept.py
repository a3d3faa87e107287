"""What a replacement keeps, and the options of `replace_pooling`."""

from __future__ import annotations

import random
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from replacing import KINDS, OWN_KIND, Small, pools, refused
from torch import Tensor, nn

import poolnb


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("kind", ["MaxPool", "AvgPool", "LPPool"])
def test_sizes_in_every_way_that_torch_takes_them(kind: str, dims: int) -> None:
    x = torch.randn(2, 2, *(9,) * dims)
    forms = [3, (3,) * dims, [3] * dims, torch.Size([3] * dims)]
    forms = forms[:1] if (kind, dims) == ("LPPool", 1) else forms  # which torch takes as an int only
    strides = [None, 2, (2,) * dims, [2] * dims]
    for kernel in forms:
        for stride in strides:
            if kind == "LPPool":
                old = getattr(nn, f"{kind}{dims}d")(2.0, kernel, stride)
            else:
                old = getattr(nn, f"{kind}{dims}d")(kernel, stride)
            model = nn.Sequential(old)
            before = model(x)
            assert poolnb.replace_pooling(model, OWN_KIND[kind], types=type(old)) == 1
            torch.testing.assert_close(model(x), before)


@pytest.mark.parametrize("kind", [k for k in KINDS if k.startswith("Adaptive")])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_an_output_size_of_1_in_every_way(kind: str, dims: int) -> None:
    x = torch.randn(2, 2, *(5,) * dims)
    for size in (1, (1,) * dims, [1] * dims, torch.Size([1] * dims)):
        model = nn.Sequential(getattr(nn, f"{kind}{dims}d")(size))
        before = model(x)
        assert poolnb.replace_pooling(model, OWN_KIND[kind], types=type(model[0])) == 1
        torch.testing.assert_close(model(x), before)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("count", [False, True])
def test_an_average_keeps_its_values_or_is_refused(dims: int, padding: int, ceil: bool, count: bool) -> None:
    pool = getattr(nn, f"AvgPool{dims}d")
    model = nn.Sequential(pool(3, 2, padding, ceil_mode=ceil, count_include_pad=count))
    x = torch.randn(2, 2, *(8,) * dims)
    before = model(x)
    if padding and count:
        refused(model, "0 .* cannot become avg: it counts its padding", "avg")
        assert poolnb.replace_pooling(model, "soft", types=pool) == 1  # another pooler keeps the geometry
        assert model(x).shape == before.shape
    else:
        assert poolnb.replace_pooling(model, "avg", types=pool) == 1
        torch.testing.assert_close(model(x), before)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("norm", [1, 1.5, 2, 3.0, 4, torch.inf, -1.0])
@pytest.mark.parametrize("ceil", [False, True])
def test_lp_keeps_its_norm_or_is_refused(dims: int, norm: float, ceil: bool) -> None:
    pool = getattr(nn, f"LPPool{dims}d")
    model = nn.Sequential(pool(norm, 3, 2, ceil_mode=ceil))
    x = torch.randn(2, 2, *(8,) * dims)
    before = model(x)
    if norm == torch.inf or (norm in (2, 4) and not ceil):
        assert poolnb.replace_pooling(model, "lp", types=pool) == 1
        torch.testing.assert_close(model(x), before)
    else:
        refused(model, "0 .* cannot become lp: torch .* norm_type=", "lp")
        assert poolnb.replace_pooling(model, "lp", types=pool, norm_type=3.0) == 1
        assert model[0].norm_type == 3.0


def test_lp_of_ours_keeps_its_norm() -> None:
    norm = nn.Parameter(torch.tensor([1.5, 3.0]))
    model = nn.Sequential(poolnb.LpPool2d(2, norm_type=norm))
    assert poolnb.replace_pooling(model, "lp", types=poolnb.Pool) == 1
    assert model[0].norm_type is norm
    assert poolnb.replace_pooling(model, "lp", types=poolnb.Pool, norm_type=4.0) == 1
    assert model[0].norm_type == 4.0


def test_a_learned_pooler_is_shared_where_the_module_was() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Sequential(nn.Conv2d(3, 4, 1), nn.MaxPool2d(2))
            self.b = nn.ModuleList([self.a[1], nn.MaxPool2d(2)])

        def forward(self, x: Tensor) -> Tensor:
            return self.b[1](self.b[0](self.a(x)))

    model, x = Shared(), torch.rand(1, 3, 16, 16)
    assert poolnb.replace_pooling(model, "auto", example_input=x) == 2  # called at two sizes, with as many channels
    assert model.a[1] is model.b[0] and model.b[1] is not model.b[0]
    assert len([n for n, _ in model.named_parameters() if "alpha" in n]) == 2
    refused(Shared(), "a.1 is called with inputs of different sizes", "tdgs", example_input=x)


def test_new_parameters_are_like_those_around_them() -> None:
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.MaxPool2d(2)).double().requires_grad_(False),
        nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.MaxPool2d(2)).to("meta").eval(),
        nn.ModuleList([nn.MaxPool2d(2)]),
    )
    assert poolnb.replace_pooling(model, "gem") == 3
    frozen, meta, last = model[0][1], model[1][2], model[2][0]
    assert (frozen.p.dtype, frozen.p.requires_grad, frozen.training) == (torch.float64, False, True)
    assert (meta.p.device.type, meta.p.requires_grad, meta.training) == ("meta", True, False)
    assert (last.p.dtype, last.p.requires_grad) == (torch.float64, True)  # like the model's first


def test_a_pooler_that_learned_stays_frozen() -> None:
    model = nn.Sequential(nn.Sequential(poolnb.GeMPool2d(2).requires_grad_(False)), nn.Conv2d(1, 1, 1))
    assert poolnb.replace_pooling(model, "lse", types=poolnb.Pool) == 1
    assert not any(p.requires_grad for p in model[0].parameters())


# ---- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("first.*", {"first.2"}),
        ("*", {"first.2", "second.a", "again", "second.b.1"}),
        ("second.?", {"second.a"}),
        ("SECOND.*", set()),
        (lambda name, module: isinstance(module, nn.AvgPool2d), {"second.b.1"}),
        (lambda name, module: module.kernel_size == 3, {"first.2"}),
    ],
)
def test_where_chooses_modules(where: Any, expected: set[str]) -> None:
    model = Small()
    count = poolnb.replace_pooling(model, "auto", example_input=torch.rand(1, 3, 16, 16), where=where)
    assert set(pools(model)) == expected
    assert count == len(set(pools(model).values()))
    model(torch.rand(1, 3, 16, 16))


def test_where_passes_by_what_would_be_refused() -> None:
    model = nn.Sequential(nn.MaxPool2d(2), nn.MaxPool2d(2, return_indices=True))
    refused(model, "returns indices")
    assert poolnb.replace_pooling(model, "soft", where=lambda n, m: not m.return_indices) == 1


def test_an_example_with_keyword_arguments() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.MaxPool2d(2)

        def forward(self, x: Tensor, *, scale: float, extra: Tensor | None = None) -> Tensor:
            return scale * self.pool(x if extra is None else torch.cat([x, extra], 1))

    x = torch.rand(1, 3, 4, 4)
    for example, kwargs in ((x, {"scale": 2.0}), ((x,), {"scale": 2.0}), (None, {"x": x, "scale": 2.0})):
        model = Named()
        assert poolnb.replace_pooling(model, "auto", example_input=example, kwargs=kwargs) == 1
        assert model.pool.alpha.shape == (3,)
    assert poolnb.replace_pooling(model := Named(), "auto", example_input=x, kwargs={"scale": 1, "extra": x}) == 1
    assert model.pool.alpha.shape == (6,)
    refused(Named(), "example_input must be an input that the model accepts.*scale", "auto", example_input=x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kwargs": [1]}, r"kwargs must be a dict .* got \[1\]"),
        ({"kwargs": {1: 2}}, "kwargs must be a dict"),
        ({"where": 3}, "where must be a pattern of names or a function of name and module, got 3"),
        ({"example_input": ()}, r"example_input must be .* got \(\)"),
        ({"example_input": {"x": 1}}, "example_input must be .* go into kwargs"),
        ({"types": nn.FractionalMaxPool2d}, "types must be classes among"),
        ({"types": nn.MaxUnpool2d}, "types must be classes among"),
    ],
)
def test_options_of_a_wrong_type(options: dict[str, Any], message: str) -> None:
    model = Small()
    before = str(model)
    with pytest.raises(TypeError, match=message):
        poolnb.replace_pooling(model, "soft", **options)
    assert str(model) == before


def test_the_example_leaves_buffers_and_random_numbers_alone() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("last", torch.zeros(1, 2, 2, 2))
            self.pool = nn.MaxPool2d(2)

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            self.last = self.pool(x + torch.rand_like(x) + random.random() + np.random.rand())
            return self.last

    model, x = Counting(), torch.rand(1, 2, 4, 4)
    torch.manual_seed(0)
    states = torch.get_rng_state(), random.getstate(), str(np.random.get_state())
    assert poolnb.replace_pooling(model, "auto", example_input=x) == 1
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), str(np.random.get_state())) == states[1:]
    assert not model.calls and not model.last.any()


# ---- pools that are functions ----------------------------------------------------------------------------------------

_FUNCTIONAL = {
    "max_pool2d": lambda x: nn.functional.max_pool2d(x, 2),
    "max_pool2d, torch": lambda x: torch.max_pool2d(x, 2),
    "max_pool2d, indices": lambda x: nn.functional.max_pool2d(x, 2, return_indices=True)[0],
    "avg_pool2d": lambda x: nn.functional.avg_pool2d(x, 2),
    "lp_pool2d": lambda x: nn.functional.lp_pool2d(x, 2, 2),
    "adaptive_avg_pool2d": lambda x: nn.functional.adaptive_avg_pool2d(x, 1),
    "adaptive_max_pool2d": lambda x: nn.functional.adaptive_max_pool2d(x, 1),
    "max_pool1d": lambda x: nn.functional.max_pool1d(x[0], 2),
    "avg_pool3d": lambda x: nn.functional.avg_pool3d(x[:, None], 2),
}


class Functional(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function, self.pool = function, nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.pool(x))


@pytest.mark.parametrize("example", [None, torch.rand(1, 3, 8, 8)], ids=["traced", "example"])
@pytest.mark.parametrize("what", _FUNCTIONAL)
def test_pools_that_are_functions_are_named_once(what: str, example: Tensor | None) -> None:
    model = nn.Sequential(nn.Identity(), Functional(_FUNCTIONAL[what]))
    with pytest.warns(UserWarning, match=f"leaves pools .*: {what.partition(',')[0]} in 1$") as found:
        assert poolnb.replace_pooling(model, "soft", example_input=example) == 1
    assert len(found) == 1 and found[0].filename == __file__


@pytest.mark.parametrize("example", [None, torch.rand(1, 3, 8, 8)], ids=["traced", "example"])
@pytest.mark.parametrize("types", [nn.MaxPool2d, nn.AvgPool2d], ids=["replaced", "left"])
def test_modules_are_no_functions(types: Any, example: Tensor | None, recwarn: pytest.WarningsRecorder) -> None:
    model = nn.Sequential(Functional(lambda x: x.mean((2, 3), keepdim=True)), nn.AdaptiveAvgPool2d(1))
    poolnb.replace_pooling(model, "soft", types=types, example_input=example)
    poolnb.replace_pooling(model, "soft", types=nn.AdaptiveAvgPool2d, example_input=example)
    poolnb.replace_pooling(model, "avg", types=poolnb.Pool, example_input=example)
    assert not recwarn.list


def test_a_warning_that_is_an_error_leaves_the_model_alone() -> None:
    model = Functional(_FUNCTIONAL["max_pool2d"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="leaves pools that are functions"):
            poolnb.replace_pooling(model, "soft")
    assert type(model.pool) is nn.MaxPool2d


def test_a_trace_leaves_no_mark_on_the_model() -> None:
    class Dreaming(nn.Module):
        """A forward that keeps what it saw, and that no trace follows to its end."""

        def __init__(self) -> None:
            super().__init__()
            self.pool, self.last = nn.MaxPool2d(2), None
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            self.last = nn.functional.avg_pool2d(x, 2)
            if self.last.sum() > 0:
                return self.pool(self.last)
            return self.last

    model = Dreaming()
    with pytest.warns(UserWarning, match="avg_pool2d in the model's own forward"):
        assert poolnb.replace_pooling(model, "soft") == 1
    assert model.last is None and not model.calls and model.training
