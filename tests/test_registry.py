"""Finding poolers by name, and swapping them into models."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torchvision
from replacing import Small, pools
from torch import Tensor, nn

import poolnb


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
