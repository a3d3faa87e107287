"""The networks that runs train. A model takes the image shape and a pooler; it scores ten classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import poolnb
from poolnb.lab.data import CLASSES
from poolnb.lab.errors import ConfigError

Size = tuple[int, ...]
PoolMaker = Callable[[int, Size], nn.Module]


class Recipe(nn.Module):
    """Three times conv 3x3 - ReLU - pool 2x2, with 16, 32 and 64 channels, then 128 hidden units and the classes.

    The network of the TDGS author's experiments; of volumes, the same with 3x3x3 and 2x2x2. `make_pool(channels,
    output_size)` gives the pooling modules. Input: float (N, C, *size), every size >= 8; output: (N, 10) scores.
    """

    def __init__(self, shape: tuple[int, ...], make_pool: PoolMaker, dropout: float = 0.0) -> None:
        super().__init__()
        channels, *size = shape
        convolution = {2: nn.Conv2d, 3: nn.Conv3d}[len(size)]
        widths = (16, 32, 64)
        # Every layer but the pools first: so that with one seed all poolers start from the same weights.
        inputs = (channels, *widths[:-1])
        self.convs = nn.ModuleList(convolution(i, o, 3, padding=1) for i, o in zip(inputs, widths, strict=True))
        sizes = _halved(size, 3)
        self.hidden = nn.Linear(widths[-1] * torch.Size(sizes[-1]).numel(), 128)
        self.output = nn.Linear(128, CLASSES)
        self.dropout = nn.Dropout(dropout)
        self.pools = nn.ModuleList(make_pool(width_, size) for width_, size in zip(widths, sizes, strict=True))

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for conv, pool in zip(self.convs, self.pools, strict=True):
            x = pool(conv(x).relu_())
        x = self.hidden(self.dropout(x.flatten(1))).relu_()
        logits: Tensor = self.output(self.dropout(x))
        return logits


class ResNet18(nn.Module):
    """torchvision's ResNet-18 for small images, its resolution lowered by pools alone.

    The stem is a 3x3 convolution of stride 1, and every stage begins with a pool 2x2: the first in place of the stem's
    max pool, the others in place of the stride of the stage's first convolution and shortcut. Four pools, then; the
    network's own average over all positions at the end stays. Input: (N, C, H, W) with H, W >= 16; output: (N, 10).
    """

    def __init__(self, shape: tuple[int, ...], make_pool: PoolMaker, dropout: float = 0.0) -> None:
        from torchvision.models import resnet18

        super().__init__()
        channels, *size = shape
        if len(size) != 2 or min(size) < 16:
            raise ConfigError(f"model is 'resnet18', for images of at least 16 x 16; these are {size}")
        net = resnet18(num_classes=CLASSES)
        self.stem = nn.Sequential(nn.Conv2d(channels, 64, 3, padding=1, bias=False), net.bn1, net.relu)
        self.stages = nn.ModuleList((net.layer1, net.layer2, net.layer3, net.layer4))
        for stage in self.stages[1:]:
            first: Any = stage[0]  # type: ignore[index]
            first.conv1.stride = first.downsample[0].stride = (1, 1)
        self.output = nn.Sequential(nn.Dropout(dropout), net.fc)
        sizes = _halved(size, 4)
        self.pools = nn.ModuleList(
            make_pool(width, size) for width, size in zip((64, 64, 128, 256), sizes, strict=True)
        )

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for pool, stage in zip(self.pools, self.stages, strict=True):
            x = stage(pool(x))
        logits: Tensor = self.output(x.mean((2, 3)))
        return logits


class ResNet20(nn.Module):
    """The ResNet-20 that was made for CIFAR-10 (He et al., 2016), its resolution lowered by pools alone.

    A 3x3 convolution to 16 channels, then three stages of three blocks with 16, 32 and 64 channels. Every stage begins
    with a pool 2x2: the first as in `ResNet18`, the others in place of a stride. A block that widens has a 1x1
    convolution as its shortcut. Input: (N, C, H, W) with H, W >= 8; output: (N, 10).
    """

    def __init__(self, shape: tuple[int, ...], make_pool: PoolMaker, dropout: float = 0.0) -> None:
        from torchvision.models.resnet import BasicBlock

        super().__init__()
        channels, *size = shape
        if len(size) != 2:
            raise ConfigError(f"model is 'resnet20', for images; these samples are {size}")
        widths = (16, 32, 64)
        self.stem = nn.Sequential(nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        stages = []
        for before, width in zip((16, *widths), widths, strict=False):
            shortcut = nn.Sequential(nn.Conv2d(before, width, 1, bias=False), nn.BatchNorm2d(width))
            first = BasicBlock(before, width, downsample=None if before == width else shortcut)
            stages.append(nn.Sequential(first, BasicBlock(width, width), BasicBlock(width, width)))
        self.stages = nn.ModuleList(stages)
        self.output = nn.Sequential(nn.Dropout(dropout), nn.Linear(widths[-1], CLASSES))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        sizes = _halved(size, 3)
        self.pools = nn.ModuleList(make_pool(width, size) for width, size in zip((16, 16, 32), sizes, strict=True))

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for pool, stage in zip(self.pools, self.stages, strict=True):
            x = stage(pool(x))
        logits: Tensor = self.output(x.mean((2, 3)))
        return logits


def _halved(size: list[int], times: int) -> list[Size]:
    """The sizes after one, two, ... pools of width 2."""
    return [tuple(length >> step for length in size) for step in range(1, times + 1)]


class EverySecond(nn.Module):
    """What a strided convolution puts in the place of a pool: every second value per dimension of the layer before.

    That is the layer before with stride 2, whose output it then has to the bit. All values are computed here, so the
    time of a step is not that of a strided convolution. Input: (N, C, *size); output: (N, C, *output_size).
    """

    def __init__(self, output_size: Size) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, x: Tensor) -> Tensor:
        for dim, length in enumerate(self.output_size, 2):
            x = x.narrow(dim, 0, 2 * length).unflatten(dim, (length, 2)).select(dim + 1, 0)
        return x


STRIDED = "strided"
POOLERS = (*poolnb.list_pools(), STRIDED)

MODELS: dict[str, Callable[[tuple[int, ...], PoolMaker, float], nn.Module]] = {
    "recipe": Recipe,
    "resnet18": ResNet18,
    "resnet20": ResNet20,
}


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
