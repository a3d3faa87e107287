"""The networks beside the recipe: a standard backbone, and the recipe in three dimensions."""

from dataclasses import replace

import pytest
import torch
from sweeps import SMALL
from torch import nn

import poolnb
from poolnb.lab import clips, data
from poolnb.lab.config import RunConfig
from poolnb.lab.errors import ConfigError
from poolnb.lab.network import build
from poolnb.lab.training import run


def built(**values):
    torch.manual_seed(0)
    return build(RunConfig(**values))


def test_resnet18_is_torchvision_s_but_for_the_resolution():
    """The same weights, but for a smaller stem and ten classes: only strides and pools differ."""
    from torchvision.models import resnet18

    ours, theirs = built(dataset="cifar10", model="resnet18", pooler="max"), resnet18(num_classes=10)
    count = sum(p.numel() for p in ours.parameters())
    assert count == sum(p.numel() for p in theirs.parameters()) - 64 * 3 * 7 * 7 + 64 * 3 * 3 * 3
    strides = {tuple(m.stride) for m in ours.modules() if isinstance(m, nn.Conv2d)}
    assert strides == {(1, 1)} and len(ours.pools) == 4
    sizes = []
    for pool in ours.pools:
        pool.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(output.shape[1:])))
    assert ours(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert sizes == [(64, 16, 16), (64, 8, 8), (128, 4, 4), (256, 2, 2)]


@pytest.mark.parametrize("pooler", ["avg", "tdgs", "gated", "attention"])
def test_resnet18_starts_from_the_same_weights_with_every_pooler(pooler):
    weights = [
        {name: value for name, value in built(dataset="mnist", model="resnet18", pooler=one).named_parameters()}
        for one in ("max", pooler)
    ]
    shared = [name for name in weights[0] if not name.startswith("pools.")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in shared)


def test_resnet20_has_the_layers_and_sizes_of_its_source():
    model = built(dataset="cifar10", model="resnet20", pooler="max")
    # 20 layers with weights: the stem, 9 blocks of 2, the output; beside them two shortcuts.
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert sum(m.kernel_size == (3, 3) for m in convolutions) == 19 and len(convolutions) == 21
    assert {m.stride for m in convolutions} == {(1, 1)}
    # He et al. give 0.27 million parameters, with shortcuts that have none.
    shortcuts = 16 * 32 + 32 * 64 + 2 * (32 + 64)
    assert sum(p.numel() for p in model.parameters()) - shortcuts == pytest.approx(0.27e6, rel=0.01)
    sizes = []
    for pool in model.pools:
        pool.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(output.shape[1:])))
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert sizes == [(16, 16, 16), (16, 8, 8), (32, 4, 4)]
    assert built(dataset="digits", model="resnet20", pooler="lip")(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    with pytest.raises(ConfigError, match="model is 'resnet20', for images"):
        built(dataset="clips", model="resnet20", pooler="max")


@pytest.mark.parametrize("pooler", ["max", "tdgs", "soft", "lip", "stochastic"])
@pytest.mark.parametrize("dataset", ["cifar10", "clips"])
def test_windows_may_overlap(pooler, dataset):
    model = built(dataset=dataset, pooler=pooler, pooler_options={"kernel_size": 3, "padding": 1})
    assert model(torch.rand(2, *data.DATASETS[dataset].shape)).shape == (2, 10)
    assert {(pool.kernel_size, pool.stride) for pool in model.pools} == {(3, 2)}


def test_windows_that_change_the_network_s_sizes_are_refused():
    with pytest.raises(ConfigError, match=r"leaves \(15, 15\) where the network has \(16, 16\)"):
        built(dataset="cifar10", pooler="max", pooler_options={"kernel_size": 3})


def test_resnet18_refuses_images_that_are_too_small_for_it():
    with pytest.raises(ConfigError, match="model is 'resnet18', for images of at least 16 x 16; these are .8, 8."):
        built(dataset="digits", model="resnet18", pooler="max")
    with pytest.raises(ConfigError, match="at least 16 x 16"):
        built(dataset="clips", model="resnet18", pooler="max")


@pytest.mark.parametrize("pooler", poolnb.list_pools())
def test_the_recipe_pools_volumes_with_every_pooler(pooler):
    model = built(dataset="clips", pooler=pooler)
    assert model(torch.rand(2, *data.DATASETS["clips"].shape)).shape == (2, 10)


def test_a_clip_is_a_window_that_moves_over_its_photograph():
    pixels = torch.arange(32 * 32).reshape(1, 32, 32, 1).expand(50, 32, 32, 3)
    filmed = clips.film(data.Samples(pixels, torch.arange(50), 255), 40)
    assert filmed.pixels.shape == (40, 8, 16, 16, 3) and torch.equal(filmed.labels, torch.arange(40))
    for clip in filmed.pixels[..., 0]:
        corners = [(int(frame[0, 0]) // 32, int(frame[0, 0]) % 32) for frame in clip]
        assert all(
            torch.equal(f, pixels[0, r : r + 16, c : c + 16, 0]) for f, (r, c) in zip(clip, corners, strict=True)
        )
        assert {corners[0][0], corners[0][1], corners[-1][0], corners[-1][1]} <= {0, 16}
        assert corners[0] != corners[-1] and len(set(corners)) == 8


@pytest.fixture
def few_photographs(monkeypatch):
    """CIFAR-10 and clips with 80 training and 20 test samples: the networks are large and the data are many."""
    whole = {name: data.load(name) for name in ("cifar10", "clips")}

    def few(name):
        train, test = whole[name].train.subset(torch.arange(80)), whole[name].test.subset(torch.arange(20))
        return data.Dataset(train, test, whole[name].sha256)

    monkeypatch.setattr(data, "load", few)


@pytest.mark.slow
@pytest.mark.skipif(bool(data.missing_files("cifar10")), reason="CIFAR-10 is not there")
@pytest.mark.parametrize(("dataset", "model"), [("clips", "recipe"), ("cifar10", "resnet18")])
def test_they_train_and_two_runs_are_equal_to_the_bit(dataset, model, few_photographs):
    config = replace(SMALL, dataset=dataset, model=model, pooler="soft", epochs=2)
    first, second = run(config, progress=False), run(config, progress=False)
    assert first.content() == second.content()
    assert first.curves["train_loss"][1] < first.curves["train_loss"][0]


@pytest.mark.parametrize("dataset", ["digits", "mnist", "clips"])
def test_strided_is_the_recipe_whose_convolutions_have_stride_2(dataset):
    model = built(dataset=dataset, pooler="strided")
    x = torch.rand(2, *data.DATASETS[dataset].shape)
    expected = x
    for conv, pool in zip(model.convs, model.pools, strict=True):
        functional = {2: nn.functional.conv2d, 3: nn.functional.conv3d}[len(conv.kernel_size)]
        strided = functional(expected, conv.weight, conv.bias, stride=2, padding=1).relu()
        cut = tuple(slice(0, length // 2) for length in expected.shape[2:])
        assert pool.output_size == expected[(..., *cut)].shape[2:]
        expected = strided[(..., *cut)]
    hidden = model.hidden(expected.flatten(1)).relu()
    assert torch.allclose(model(x), model.output(hidden), atol=1e-6)


def test_strided_has_no_options():
    with pytest.raises(ConfigError, match="pooler_options is {'beta': 2.0}, not accepted by 'strided'"):
        built(dataset="digits", pooler="strided", pooler_options={"beta": 2.0})
