"""The networks that runs train. A model takes the image shape and a pooler; it scores ten classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import poolnb

from .config import ConfigError, RunConfig
from .data import CLASSES, DATASETS

PoolMaker = Callable[[int, tuple[int, int]], nn.Module]


class Recipe(nn.Module):
    """Three times conv 3x3 - ReLU - pool 2x2, with 16, 32 and 64 channels, then 128 hidden units and the classes.

    The network of the TDGS author's experiments. `make_pool(channels, output_size)` gives the pooling modules.
    Input: float (N, C, H, W) with H, W >= 8; output: (N, 10) scores.
    """

    def __init__(self, shape: tuple[int, int, int], make_pool: PoolMaker, dropout: float = 0.0) -> None:
        super().__init__()
        channels, height, width = shape
        widths = (16, 32, 64)
        # Every layer but the pools first: so that with one seed all poolers start from the same weights.
        inputs = (channels, *widths[:-1])
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in zip(inputs, widths, strict=True))
        sizes = [(height >> step, width >> step) for step in (1, 2, 3)]
        self.hidden = nn.Linear(widths[-1] * sizes[-1][0] * sizes[-1][1], 128)
        self.output = nn.Linear(128, CLASSES)
        self.dropout = nn.Dropout(dropout)
        self.pools = nn.ModuleList(make_pool(width_, size) for width_, size in zip(widths, sizes, strict=True))

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for conv, pool in zip(self.convs, self.pools, strict=True):
            x = pool(conv(x).relu_())
        x = self.hidden(self.dropout(x.flatten(1))).relu_()
        return self.output(self.dropout(x))


def recipe(config: RunConfig) -> nn.Module:
    """The `Recipe` network with the pooler of `config`."""

    def make_pool(channels: int, output_size: tuple[int, int]) -> nn.Module:
        return poolnb.create_pool(
            config.pooler, 2, 2, channels=channels, output_size=output_size, **config.pooler_options
        )

    return Recipe(DATASETS[config.dataset].shape, make_pool, config.dropout)


MODELS: dict[str, Callable[[RunConfig], nn.Module]] = {"recipe": recipe}


def build(config: RunConfig) -> nn.Module:
    """The network of `config` on the CPU, its weights drawn from torch's default generator. Raises `ConfigError`."""
    try:
        return MODELS[config.model](config)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"pooler_options is {config.pooler_options!r}, not accepted by {config.pooler!r}: {error}"
        ) from error


def pooling_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The pooling modules of `model` that learn something, by name."""
    pools: Any = getattr(model, "pools", ())
    return {f"pool{number}": pool for number, pool in enumerate(pools, 1) if any(True for _ in pool.parameters())}


@torch.no_grad()
def pooling_parameters(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the learned pooling parameters, by name such as `pool1.temperature`."""
    return {
        f"{pool}.{name}": value.detach().cpu().clone()
        for pool, module in pooling_modules(model).items()
        for name, value in module.named_parameters()
    }
