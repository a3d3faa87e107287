"""Finding poolers by name, and swapping them into models."""

from __future__ import annotations

import contextlib
import copy
import random
import warnings
import weakref
from collections import deque
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import poolnb


class Small(nn.Module):
    """Pools in a sequence, in a dict, nested, shared, and one that is never called."""

    def __init__(self) -> None:
        super().__init__()
        shared = nn.MaxPool2d(2)
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, 1, ceil_mode=True))
        self.second = nn.ModuleDict({"a": shared, "b": nn.Sequential(nn.Conv2d(4, 8, 1), nn.AvgPool2d((2, 1), (2, 1)))})
        self.again = shared
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.second["a"](self.first(x))
        return self.head(self.second["b"](x))


def pools(model: nn.Module) -> dict[str, nn.Module]:
    return {n: m for n, m in model.named_modules(remove_duplicate=False) if isinstance(m, poolnb.Pool)}


def test_list_pools_names_what_create_pool_makes() -> None:
    names = poolnb.list_pools()
    assert names == sorted(names)
    x = torch.rand(2, 3, 8, 8)
    for name in names:
        module = poolnb.create_pool(name, 2, channels=3, output_size=4)
        assert module(x).shape == (2, 3, 4, 4)
    for dims in (1, 3):
        for name in names:
            module = poolnb.create_pool(name, 2, 1, dims=dims, channels=3, output_size=3)
            assert module(torch.rand(2, 3, *(4,) * dims)).shape == (2, 3, *(3,) * dims)


def test_create_pool_asks_for_what_is_needed() -> None:
    for name, granularity, message in [
        ("tdgs", "position", "tdgs needs channels and output_size"),
        ("tdgs", "channel", "tdgs needs channels"),
        ("mixed", "position", "mixed needs channels and output_size"),
        ("gem", "channel", "gem needs channels"),
    ]:
        with pytest.raises(ValueError, match=f"^{message}$"):
            poolnb.create_pool(name, 2, granularity=granularity)
    with pytest.raises(ValueError, match="auto needs channels"):
        poolnb.create_pool("auto", 2)
    assert poolnb.create_pool("tdgs", 2, granularity="layer").temperature.shape == ()


def test_replacing_keeps_geometry_places_and_modes() -> None:
    model = Small()
    model.first.eval()
    assert poolnb.replace_pooling(model, "soft", beta=2.0) == 3  # the shared one counts once
    new = pools(model)
    assert set(new) == {"first.2", "second.a", "second.b.1", "again"}
    assert new["second.a"] is new["again"]
    first, last = new["first.2"], new["second.b.1"]
    assert (first.kernel_size, first.stride, first.padding, first.ceil_mode, first.beta) == (3, 2, 1, True, 2.0)
    assert (last.kernel_size, last.stride, last.padding) == ((2, 1), (2, 1), 0)
    assert not first.training and last.training
    assert isinstance(model.head[0], nn.AdaptiveAvgPool2d)
    assert model(torch.rand(2, 3, 17, 16)).shape == (2, 2)


def test_replacing_by_max_changes_nothing() -> None:
    model = Small().eval()
    x = torch.rand(2, 3, 17, 16)
    before = model(x)
    assert poolnb.replace_pooling(model, "max", types=nn.MaxPool2d) == 2
    assert torch.equal(model(x), before)
    assert poolnb.replace_pooling(model, "avg", types=nn.AvgPool2d) == 1
    torch.testing.assert_close(model(x), before)
    assert poolnb.replace_pooling(model, "avg", types=[nn.AdaptiveAvgPool2d]) == 1
    torch.testing.assert_close(model(x), before)
    assert poolnb.replace_pooling(model, "stochastic", types=poolnb.Pool) == 4


def test_replacing_fills_in_channels_and_sizes() -> None:
    model = Small().double()
    x = torch.rand(2, 3, 17, 16, dtype=torch.float64)
    types = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
    assert poolnb.replace_pooling(model, "tdgs", types, example_input=x) == 4
    shapes = {n: tuple(m.temperature.shape) for n, m in pools(model).items()}
    assert shapes == {
        "first.2": (4, 9, 9),
        "second.a": (4, 4, 4),
        "again": (4, 4, 4),
        "second.b.1": (8, 2, 4),
        "head.0": (8, 1, 1),
    }
    assert all(m.temperature.dtype == torch.float64 for m in pools(model).values())
    model(x).sum().backward()
    assert all(m.temperature.grad is not None for m in pools(model).values())


def test_one_parameter_per_layer_needs_no_example() -> None:
    for name, options in (("gem", {}), ("tdgs", {"granularity": "layer"}), ("mixed", {"alpha": 0.3}), ("tree", {})):
        model = Small()
        assert poolnb.replace_pooling(model, name, **options) == 3
        assert model(torch.rand(2, 3, 16, 16)).shape == (2, 2)


def test_the_forward_pass_on_the_example_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4).eval(), nn.Dropout(0.5), nn.MaxPool2d(2))
    modes = [m.training for m in model.modules()]
    before, x = copy.deepcopy(model.state_dict()), torch.rand(2, 3, 8, 8)
    poolnb.replace_pooling(model, "attention", example_input=x)
    after = model.state_dict()
    assert all(torch.equal(before[n], after[n]) for n in before)
    assert all(p.grad is None for p in model.parameters())
    assert [m.training for m in model.modules()][: len(modes)] == modes
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_a_model_without_poolers_is_left_alone() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    assert poolnb.replace_pooling(model, "tdgs") == 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": "sofft"}, ValueError, "name must be one of .* got 'sofft'"),
        ({"name": "soft", "types": nn.Conv2d}, TypeError, "types must be classes among .* got .*Conv2d"),
        ({"name": "soft", "types": "MaxPool2d"}, TypeError, "types must be classes among .* got 'MaxPool2d'"),
        ({"name": "soft", "types": (nn.Module,)}, TypeError, "types must be"),
        ({"name": "soft", "sharpness": 3}, TypeError, "soft has no option 'sharpness'; it accepts .*beta"),
        ({"name": "tdgs"}, ValueError, "example_input must be given for tdgs.* got None"),
        ({"name": "auto"}, ValueError, "example_input must be given for auto.* got None"),
        (
            {"name": "s3", "types": nn.AdaptiveMaxPool2d},
            ValueError,
            r"^wide \(AdaptiveMaxPool2d.* cannot become s3: outp",
        ),
        ({"name": "soft", "types": nn.MaxPool1d}, ValueError, r"returns indices .* got tail \(MaxPool1d"),
        ({"name": "soft", "types": nn.AvgPool3d}, ValueError, r"divisor_override .* got deep \(AvgPool3d"),
        ({"name": "gated", "types": nn.AdaptiveAvgPool2d}, ValueError, "kernel_size must be given .* got None"),
        ({"name": "auto", "example_input": torch.rand(2, 3, 16, 16)}, ValueError, "does not reach idle"),
    ],
)
def test_errors_name_the_cause_and_leave_the_model_alone(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    model = Small()
    model.idle = nn.MaxPool2d(2)
    model.wide = nn.AdaptiveMaxPool2d((2, 1))
    model.tail = nn.MaxPool1d(2, return_indices=True)
    model.deep = nn.AvgPool3d(2, divisor_override=3)
    before = str(model)
    with pytest.raises(error, match=message):
        poolnb.replace_pooling(model, **arguments)
    assert str(model) == before


def test_options_are_checked_even_where_nothing_is_to_be_replaced() -> None:
    with pytest.raises(TypeError, match="soft has no option 'sharpness'; it accepts beta"):
        poolnb.replace_pooling(nn.Sequential(nn.Conv2d(3, 4, 1)), "soft", sharpness=3)


@pytest.mark.parametrize("example", [torch.rand(1, 4, 16, 16), (torch.rand(1, 3, 16, 16), 1)], ids=["shape", "count"])
def test_an_example_that_the_model_refuses_is_named(example: Any) -> None:
    model = Small()
    before, modes = str(model), [m.training for m in model.modules()]
    with pytest.raises(ValueError, match="example_input must be an input that the model accepts, but it fails: .*"):
        poolnb.replace_pooling(model, "auto", example_input=example)
    assert str(model) == before and [m.training for m in model.modules()] == modes
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_a_model_that_is_a_pool_and_one_that_is_no_module() -> None:
    with pytest.raises(ValueError, match="model must hold"):
        poolnb.replace_pooling(nn.MaxPool2d(2), "soft")
    with pytest.raises(TypeError, match="model must be a torch.nn.Module, got str"):
        poolnb.replace_pooling("resnet18", "soft")  # type: ignore[arg-type]


def test_a_pooler_may_be_called_by_keyword() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.MaxPool2d(2)

        def forward(self, x: Tensor) -> Tensor:
            return self.pool(input=x)

    model = Named()
    assert poolnb.replace_pooling(model, "auto", example_input=torch.rand(1, 3, 8, 8)) == 1
    assert model(torch.rand(2, 3, 8, 8)).shape == (2, 3, 4, 4)


def test_inputs_of_two_sizes_are_an_error() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.MaxPool2d(2)

        def forward(self, x: Tensor) -> Tensor:
            return self.pool(self.pool(x))

    model = Twice()
    with pytest.raises(ValueError, match=r"pool is called with inputs of different sizes"):
        poolnb.replace_pooling(model, "tdgs", example_input=torch.rand(1, 3, 8, 8))
    assert poolnb.replace_pooling(model, "soft") == 1


# ---- real models -----------------------------------------------------------------------------------------------------

_2D = (nn.MaxPool2d, nn.AvgPool2d)
_MODELS: dict[str, tuple[Any, tuple[int, ...], Any, int]] = {
    # name: constructor, input shape, types, how many poolers they name
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=5), (2, 3, 40, 40), _2D, 1),
    "vgg11_bn": (lambda: torchvision.models.vgg11_bn(num_classes=5, init_weights=False), (1, 3, 33, 33), _2D, 5),
    "densenet121": (lambda: torchvision.models.densenet121(num_classes=5), (2, 3, 33, 33), _2D, 4),
    "r3d_18": (
        lambda: torchvision.models.video.r3d_18(num_classes=5),
        (1, 3, 4, 24, 24),
        (nn.MaxPool3d, nn.AdaptiveAvgPool3d),
        1,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", _MODELS)
def test_torchvision_s_models(architecture: str) -> None:
    make, shape, types, count = _MODELS[architecture]
    torch.manual_seed(0)
    model, x = make(), torch.rand(shape)
    assert poolnb.replace_pooling(model, "tdgs", types, example_input=x) == count
    assert len(pools(model)) == count
    model(x).square().sum().backward()
    grads = [m.temperature.grad for m in pools(model).values()]
    assert all(g is not None and g.isfinite().all() for g in grads) and any(g.any() for g in grads)
    first = next(model.parameters()).grad
    assert first is not None and first.isfinite().all() and first.any()
    # A state_dict fits another model that went through the same call, and carries the temperatures.
    state = {n: t.clone() for n, t in model.state_dict().items() if "temperature" in n}
    assert len(state) == count
    other = make()
    poolnb.replace_pooling(other, "tdgs", types, example_input=x)
    other.load_state_dict(model.state_dict())
    model.eval(), other.eval()
    with torch.no_grad():
        assert torch.equal(model(x), other(x))
        # A second swap takes a pooler of ours for another of ours.
        assert poolnb.replace_pooling(model, "soft", types=poolnb.Pool) == count
        assert model(x).isfinite().all()


@pytest.mark.parametrize(
    "wrong", [{"channels": "x"}, {"channels": 0}, {"output_size": (1, 2, 3)}, {"output_size": 2.5}]
)
@pytest.mark.parametrize("name", poolnb.list_pools())
def test_sizes_are_checked_even_where_they_are_not_needed(name: str, wrong: dict[str, Any]) -> None:
    (argument,) = wrong
    with pytest.raises((TypeError, ValueError), match=argument):
        poolnb.create_pool(name, 2, **{"channels": 3, "output_size": (4, 4), **wrong})


def test_python_s_own_errors_name_the_function() -> None:
    with pytest.raises(TypeError, match=r"^soft_pool2d\(\) missing .*kernel_size"):
        poolnb.functional.soft_pool2d(torch.zeros(1, 3, 8, 8))


def test_an_error_in_replacing_names_the_module() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1))
    with pytest.raises(ValueError, match=r"^1 \(AdaptiveAvgPool2d.*gated"):
        poolnb.replace_pooling(model, "gated", nn.AdaptiveAvgPool2d, torch.zeros(1, 3, 8, 8))


# ---- modules that look like a pool and are something else ------------------------------------------------------------

_KINDS = ("MaxPool", "AvgPool", "LPPool", "AdaptiveMaxPool", "AdaptiveAvgPool")
_TORCH = [(kind, dims) for kind in _KINDS for dims in (1, 2, 3)]
_OWN_KIND = {"MaxPool": "max", "AdaptiveMaxPool": "max", "AvgPool": "avg", "AdaptiveAvgPool": "avg", "LPPool": "lp"}


def torch_pool(kind: str, dims: int, cls: type | None = None, **options: Any) -> nn.Module:
    cls = cls or getattr(nn, f"{kind}{dims}d")
    sizes = (1,) if kind.startswith("Adaptive") else (2.0, 3) if kind == "LPPool" else (3,)
    return cls(*sizes, **options)


def refused(model: nn.Module, match: str, name: str = "soft", **options: Any) -> None:
    """The call fails with this message and leaves the model as it was, one module per name."""
    options.setdefault("types", tuple(getattr(nn, f"{kind}{dims}d") for kind, dims in _TORCH))
    before = dict(model.named_modules(remove_duplicate=False))
    with pytest.raises(ValueError, match=match):
        poolnb.replace_pooling(model, name, **options)
    after = dict(model.named_modules(remove_duplicate=False))
    assert list(before) == list(after) and all(before[n] is after[n] for n in before)


def _own_forward(self: nn.Module, x: Tensor) -> Tensor:
    return 2 * type(self).__mro__[1].forward(self, x)


_SUBCLASSES = {
    "forward": {"forward": _own_forward},
    "call": {"__call__": lambda self, x: 2 * nn.Module.__call__(self, x)},
    "inner call": {"_call_impl": lambda self, x: 2 * nn.Module._call_impl(self, x)},
    "method": {"halve": lambda self, x: x / 2},
    "property": {"scale": property(lambda self: 2)},
    "constant": {"scale": 2},
    "size": {"ceil_mode": property(lambda self: False, lambda self, value: None)},
    "train": {"train": lambda self, mode=True: nn.Module.train(self, False)},
}


@pytest.mark.parametrize("what", _SUBCLASSES)
@pytest.mark.parametrize(("kind", "dims"), _TORCH)
def test_a_subclass_with_methods_of_its_own_is_refused(kind: str, dims: int, what: str) -> None:
    parent = getattr(nn, f"{kind}{dims}d")
    strange = type("Strange", (parent,), _SUBCLASSES[what])
    plain, odd = torch_pool(kind, dims), torch_pool(kind, dims, strange)
    model = nn.Sequential(plain, odd)
    refused(model, f"its class defines {next(iter(_SUBCLASSES[what]))}: 1 \\(Strange")
    mixed_in = type("Strange", (parent, type("Mixin", (), _SUBCLASSES[what])), {})
    refused(nn.Sequential(torch_pool(kind, dims, mixed_in)), "its class defines")


@pytest.mark.parametrize(("kind", "dims"), _TORCH)
def test_a_subclass_that_only_fixes_sizes_is_replaced(kind: str, dims: int) -> None:
    class Fixed(getattr(nn, f"{kind}{dims}d")):  # type: ignore[misc]
        """Sizes of its own."""

        __constants__ = ["kernel_size"]

        def __init__(self) -> None:
            super().__init__(*((1,) if kind.startswith("Adaptive") else (2.0, 3) if kind == "LPPool" else (3,)))

    model, x = nn.Sequential(Fixed()), torch.rand(1, 2, *(6,) * dims)
    before = model(x)
    assert poolnb.replace_pooling(model, _OWN_KIND[kind], types=getattr(nn, f"{kind}{dims}d")) == 1
    torch.testing.assert_close(model(x), before)


def test_a_subclass_of_a_pooler_of_ours_is_refused_too() -> None:
    class Doubled(poolnb.SoftPool2d):
        def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
            return 2 * super().forward(input, mask)

    refused(nn.Sequential(Doubled(2)), "its class defines forward: 0", "avg", types=poolnb.Pool)


def test_a_pooler_made_from_the_base_class_can_be_replaced() -> None:
    class Operator(poolnb.Pool):
        op, dims = "soft", 2

        def params(self) -> dict[str, Any]:
            return {"beta": 2.0}

    model = nn.Sequential(Operator(2, padding=1))
    assert poolnb.replace_pooling(model, "avg", types=poolnb.Pool) == 1
    assert isinstance(model[0], poolnb.AvgPool2d) and model[0].padding == 1


@pytest.mark.parametrize("kind", [k for k in _KINDS if "Max" in k])
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("name", ["avg", "soft"])
def test_returned_indices_are_refused(kind: str, dims: int, name: str) -> None:
    refused(nn.Sequential(torch_pool(kind, dims, return_indices=True)), "returns indices .* 0", name)


@pytest.mark.parametrize("kind", [k for k in _KINDS if k.startswith("Adaptive")])
@pytest.mark.parametrize("size", [2, (1, 2), [1, 2], torch.Size([2, 1]), None, (None, 1)], ids=str)
def test_every_output_size_is_kept(kind: str, size: Any) -> None:
    model, x = nn.Sequential(getattr(nn, f"{kind}2d")(size)), torch.rand(2, 3, 5, 4)
    expected = x if size is None else model(x)  # which torch's modules document, and fail with
    assert poolnb.replace_pooling(model, _OWN_KIND[kind], types=type(model[0])) == 1
    torch.testing.assert_close(model(x), expected)


def test_what_was_put_on_one_module_is_refused_or_kept() -> None:
    def pool() -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(2, 2, 1), nn.MaxPool2d(2))

    model = pool()
    model[1].forward = lambda x: 2 * x
    refused(model, "it has its own forward: 1")
    model = pool()
    model[1].compile(backend="eager")
    refused(model, "it has its own _compiled_call_impl: 1")
    model = pool()
    model[1].register_buffer("count", torch.zeros(()))
    refused(model, "it holds a buffer count: 1")
    model = pool()
    model[1].register_parameter("scale", nn.Parameter(torch.zeros(())))
    refused(model, "it holds a parameter scale: 1")
    model = pool()
    model[1].add_module("inner", nn.ReLU())
    refused(model, "it holds a module inner: 1")
    model = pool()
    model[1].register_state_dict_post_hook(lambda *_: None)
    refused(model, "hooks on its state_dict: 1")
    model = pool()
    model[1].register_load_state_dict_pre_hook(lambda *_: None)
    refused(model, "hooks on its state_dict: 1")
    model = pool()
    model[1].beta = "layer 7"
    refused(model, "1 .* cannot become soft: its attribute beta has another meaning there")
    model = pool()
    model[1].number, model[1].source = 7, -1  # as libraries that walk over a list of layers do
    assert poolnb.replace_pooling(model, "soft") == 1
    assert (model[1].number, model[1].source) == (7, -1)


@pytest.mark.parametrize("wrap", [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm], ids=["new", "old"])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_parametrised_poolers(wrap: Any) -> None:
    model = nn.Sequential(wrap(poolnb.GatedPool2d(2, channels=3, granularity="channel")))
    refused(model, "0 \\(", "avg", types=poolnb.Pool)
    model = nn.Sequential(wrap(nn.Conv2d(3, 3, 1)), nn.MaxPool2d(2))
    x = torch.rand(1, 3, 4, 4)
    before = model(x)
    assert poolnb.replace_pooling(model, "max", example_input=x) == 1
    assert torch.equal(model(x), before)


@pytest.mark.parametrize("name", poolnb.list_pools())
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_every_pooler_of_ours_is_as_its_class(name: str, dims: int) -> None:
    given = poolnb.create_pool(name, 2, dims=dims, channels=3, output_size=2)
    model = nn.Sequential(copy.deepcopy(given))
    assert poolnb.replace_pooling(model, name, types=poolnb.Pool) == 1
    assert str(model[0]) == str(given)  # it was that pooler already
    old = model[0]
    other = "avg" if name != "avg" else "max"
    assert poolnb.replace_pooling(model, other, types=poolnb.Pool) == 1
    assert model[0] is not old and not vars(model[0]).keys() - vars(poolnb.create_pool(other, 2, dims=dims)).keys()


def test_hooks_go_over_to_the_new_module() -> None:
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.MaxPool2d(2))
    seen: list[str] = []
    handles = [
        model[1].register_forward_pre_hook(lambda m, a: seen.append("before")),
        model[1].register_forward_hook(lambda m, a, kw, y: seen.append(type(m).__name__), with_kwargs=True),
        model[1].register_forward_hook(lambda m, a, y: 2 * y),
        model[1].register_full_backward_pre_hook(lambda m, g: seen.append("grad of output")),
        model[1].register_full_backward_hook(lambda m, g, h: seen.append("grad of input")),
    ]
    x = torch.rand(1, 2, 4, 4)
    before = model(x)
    seen.clear()
    assert poolnb.replace_pooling(model, "max") == 1
    after = model(x)
    after.sum().backward()
    assert torch.equal(before, after)
    assert seen == ["before", "MaxPool2d", "grad of output", "grad of input"]
    for handle in handles:
        handle.remove()
    seen.clear()
    torch.testing.assert_close(2 * model(x), after)
    assert not seen


def test_a_module_that_is_also_kept_elsewhere_is_refused() -> None:
    class Listed(nn.Module):
        def __init__(self, keep: str) -> None:
            super().__init__()
            self.pool = nn.MaxPool2d(2)
            kept = {"list": [self.pool], "dict": {"a": (self.pool,)}, "method": self.pool.forward}
            kept |= {"deque": deque([self.pool]), "partial": partial(F.relu, self.pool), "called": partial(self.pool)}
            self.steps = kept[keep]

    for keep in ("list", "dict", "method", "deque", "partial", "called"):
        refused(nn.Sequential(Listed(keep)), r"0\.pool .* is held by 0\.steps as well")


class _Slotted:
    __slots__ = ("empty", "pool")


def _slotted(pool: nn.Module) -> _Slotted:
    slotted = _Slotted()
    slotted.pool = pool
    return slotted


_KEEPERS: dict[str, Any] = {
    "object": lambda pool: SimpleNamespace(a=[pool]),
    "slot": _slotted,
    "closure": lambda pool: lambda x: pool(x),
    "default": lambda pool: lambda x, pool=pool: pool(x),
    "weak": lambda pool: weakref.ref(pool),
    "decorated": lambda pool: cache(lambda x: pool(x)),
}


@pytest.mark.parametrize("keep", [*_KEEPERS, "class", "property"])
def test_a_module_that_functions_and_objects_keep_is_refused(keep: str) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.MaxPool2d(2)
            if keep in _KEEPERS:
                self.steps = _KEEPERS[keep](self.pool)

        def forward(self, x: Tensor) -> Tensor:
            return self.pool(x)

    model = Model()
    if keep not in _KEEPERS:
        Model.steps = [model.pool] if keep == "class" else property(lambda self, pool=model.pool: pool)
    refused(model, r"pool \(MaxPool2d.* is held by steps as well")
    assert poolnb.replace_pooling(nn.Sequential(nn.MaxPool2d(2)), "soft") == 1


def test_what_a_hook_looks_at_hinders_no_replacement() -> None:
    model, seen = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), []
    pool = model[1]
    model[0].register_forward_hook(lambda *_: seen.append(pool.kernel_size))
    assert poolnb.replace_pooling(model, "soft") == 1


_KEPT: list[nn.Module] = []


def test_a_module_that_is_called_from_elsewhere_is_refused() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.MaxPool2d(2)
            _KEPT[:] = [self.pool]

        def forward(self, x: Tensor) -> Tensor:
            return _KEPT[0](x)

    model, x = Model(), torch.rand(1, 3, 8, 8)
    hooks = model.pool.register_forward_hook(lambda *_: None)
    for name in ("soft", "auto"):
        refused(model, r"pool \(MaxPool2d.* is called from somewhere else than its place", name, example_input=x)
    assert list(model.pool._forward_hooks) == [hooks.id] and not model.pool._forward_pre_hooks
    assert poolnb.replace_pooling(nn.Sequential(nn.MaxPool2d(2)), "auto", example_input=x) == 1


class _Counting(nn.Module):
    """Buffers of every kind, all changed by a call: in place, anew, removed, added."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("counted", torch.zeros(3))
        self.register_buffer("renewed", torch.zeros(3))
        self.register_buffer("sparse", torch.eye(3).to_sparse())
        self.register_buffer("spread", torch.zeros(1).expand(3))
        self.register_buffer("gone", torch.zeros(1))
        self.register_buffer("nothing", None)
        self.noise = torch.Generator()

    def forward(self, x: Tensor) -> Tensor:
        self.counted += 1
        self.renewed = self.renewed + 1
        self.sparse = self.sparse * 2
        self.spread = self.spread + 1
        del self.gone
        self.register_buffer("late", torch.ones(1))
        self.nothing = torch.rand(3, generator=self.noise) + torch.rand(3)
        return x


class _Scripted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("counted", torch.zeros(3))
        self.register_buffer("renewed", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        self.counted += 1
        self.renewed = self.renewed + 1
        return x


class _Raising(nn.Module):
    def __init__(self, error: BaseException | None) -> None:
        super().__init__()
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        if self.error is not None:
            raise self.error
        return x


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("error", [None, RuntimeError("no"), KeyboardInterrupt()], ids=repr)
def test_a_model_is_as_it_was_whatever_it_holds_and_raises(error: BaseException | None) -> None:
    parts = [_Counting(), torch.jit.script(_Scripted()), nn.BatchNorm2d(3).eval(), nn.Dropout(), nn.MaxPool2d(2)]
    model = nn.Sequential(*parts, nn.LazyBatchNorm2d(), _Raising(error))
    plain = {n: b for n, b in model.named_buffers() if not n.startswith("5.")}  # the lazy ones get their sizes
    values = {n: (b.to_dense() if b.is_sparse else b).clone() for n, b in plain.items()}
    x = torch.rand(2, 3, 8, 8)
    modes, noise, params = [m.training for m in model.modules()], torch.get_rng_state(), model[0].noise.get_state()
    with contextlib.suppress(ValueError, KeyboardInterrupt):
        assert poolnb.replace_pooling(model, "auto", example_input=x) == 1 and error is None
    assert isinstance(model[4], nn.MaxPool2d) == (error is not None)
    after = dict(model.named_buffers())
    assert [n for n in after if not n.startswith("5.")] == list(values)
    for name, value in values.items():
        assert torch.equal(after[name].to_dense() if after[name].is_sparse else after[name], value), name
        assert after[name] is plain[name] or name.startswith("1."), name
    assert model[0].nothing is None and [m.training for m in model.modules()] == modes
    assert torch.equal(noise, torch.get_rng_state()) and torch.equal(params, model[0].noise.get_state())
    assert not any(m._forward_hooks for m in model.modules() if not isinstance(m, torch.jit.ScriptModule))


# ---- what a replacement keeps ----------------------------------------------------------------------------------------


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
            assert poolnb.replace_pooling(model, _OWN_KIND[kind], types=type(old)) == 1
            torch.testing.assert_close(model(x), before)


@pytest.mark.parametrize("kind", [k for k in _KINDS if k.startswith("Adaptive")])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_an_output_size_of_1_in_every_way(kind: str, dims: int) -> None:
    x = torch.randn(2, 2, *(5,) * dims)
    for size in (1, (1,) * dims, [1] * dims, torch.Size([1] * dims)):
        model = nn.Sequential(getattr(nn, f"{kind}{dims}d")(size))
        before = model(x)
        assert poolnb.replace_pooling(model, _OWN_KIND[kind], types=type(model[0])) == 1
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
