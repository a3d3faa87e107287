"""Modules that look like a pool and are something else: `replace_pooling` refuses them and leaves the model alone."""

from __future__ import annotations

import contextlib
import copy
import weakref
from collections import deque
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from replacing import KINDS, OWN_KIND, TORCH, refused, torch_pool
from torch import Tensor, nn

import poolnb


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
@pytest.mark.parametrize(("kind", "dims"), TORCH)
def test_a_subclass_with_methods_of_its_own_is_refused(kind: str, dims: int, what: str) -> None:
    parent = getattr(nn, f"{kind}{dims}d")
    strange = type("Strange", (parent,), _SUBCLASSES[what])
    plain, odd = torch_pool(kind, dims), torch_pool(kind, dims, strange)
    model = nn.Sequential(plain, odd)
    refused(model, f"its class defines {next(iter(_SUBCLASSES[what]))}: 1 \\(Strange")
    mixed_in = type("Strange", (parent, type("Mixin", (), _SUBCLASSES[what])), {})
    refused(nn.Sequential(torch_pool(kind, dims, mixed_in)), "its class defines")


@pytest.mark.parametrize(("kind", "dims"), TORCH)
def test_a_subclass_that_only_fixes_sizes_is_replaced(kind: str, dims: int) -> None:
    class Fixed(getattr(nn, f"{kind}{dims}d")):  # type: ignore[misc]
        """Sizes of its own."""

        __constants__ = ["kernel_size"]

        def __init__(self) -> None:
            super().__init__(*((1,) if kind.startswith("Adaptive") else (2.0, 3) if kind == "LPPool" else (3,)))

    model, x = nn.Sequential(Fixed()), torch.rand(1, 2, *(6,) * dims)
    before = model(x)
    assert poolnb.replace_pooling(model, OWN_KIND[kind], types=getattr(nn, f"{kind}{dims}d")) == 1
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


@pytest.mark.parametrize("kind", [k for k in KINDS if "Max" in k])
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("name", ["avg", "soft"])
def test_returned_indices_are_refused(kind: str, dims: int, name: str) -> None:
    refused(nn.Sequential(torch_pool(kind, dims, return_indices=True)), "returns indices .* 0", name)


@pytest.mark.parametrize("kind", [k for k in KINDS if k.startswith("Adaptive")])
@pytest.mark.parametrize("size", [2, (1, 2), [1, 2], torch.Size([2, 1]), None, (None, 1)], ids=str)
def test_every_output_size_is_kept(kind: str, size: Any) -> None:
    model, x = nn.Sequential(getattr(nn, f"{kind}2d")(size)), torch.rand(2, 3, 5, 4)
    expected = x if size is None else model(x)  # which torch's modules document, and fail with
    assert poolnb.replace_pooling(model, OWN_KIND[kind], types=type(model[0])) == 1
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


@pytest.mark.parametrize("name", ["blur", "maxblur", "s3"])
def test_a_pooler_that_refuses_the_windows_of_the_example_replaces_nothing(name: str) -> None:
    model, x = nn.Sequential(nn.AdaptiveAvgPool2d(5)), torch.rand(2, 3, 7, 7)
    why = r"0 \(AdaptiveAvgPool2d\(output_size=5\)\) cannot become .*: output_size must"
    refused(model, why, name, example_input=x, types=nn.AdaptiveAvgPool2d)


def test_an_output_size_beside_a_kernel_is_refused() -> None:
    for name in ("soft", "ada", "blur"):
        why = "0 .* output_size must be left out beside a kernel_size, got 3"
        refused(nn.Sequential(nn.MaxPool2d(2)), why, name, output_size=3)
    model = nn.Sequential(nn.MaxPool2d(2))
    options = {"granularity": "position", "channels": 3, "output_size": 4}
    assert poolnb.replace_pooling(model, "ada", **options) == 1 and model[0].made_for == (3, 4, 4)
