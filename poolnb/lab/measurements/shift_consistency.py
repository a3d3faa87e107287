"""How often a trained network keeps its answer when the picture moves, as Zhang (2019) measures it.

A picture is moved round, by 0 to 3 pixels down and right: what leaves at one side comes in at the other. `consistency`
is the share of pairs of those 16 views that the network puts into the same class, the mean over pictures.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from poolnb.lab.config import RunConfig
from poolnb.lab.training import prepared

MOVES = 4  # positions along each axis
PICTURES = 2000  # of the test set, the first ones
_OVERLAPPING = {"kernel_size": 3, "padding": 1}
# What pools by 2: windows of 2 x 2, and those that overlap, plain mean and filter.
POOLS: dict[str, tuple[str, dict[str, Any]]] = {
    "max": ("max", {}),
    "avg": ("avg", {}),
    "soft": ("soft", {}),
    "avg of 3 x 3": ("avg", _OVERLAPPING),
    "blur of 3 x 3": ("blur", _OVERLAPPING),
    "maxblur": ("maxblur", {}),
}
_RUN = {"dataset": "cifar10", "limit": 20_000, "epochs": 6, "schedule": "linear", "learning_rate": 2e-3}
PLAN = [
    {**_RUN, "pooler": pooler, "pooler_options": options, "seed": seed}
    for seed in range(5)
    for pooler, options in POOLS.values()
]


def measure(parameters: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Train as `parameters` say; `consistency` and `accuracy` on test pictures, both as shares."""
    config = RunConfig(**parameters, device="cpu")
    with prepared(config) as job:
        job.train(progress=False, on_epoch=None)
        images, labels = job.samples["test"].batch(slice(PICTURES))
        classes = _classes(job.model, images)
        accuracy = float((classes[0] == labels).double().mean())
    return {"consistency": consistency(classes), "accuracy": accuracy}, job.hashes


def consistency(classes: Tensor) -> float:
    """The share of pairs of views in the same class; ``classes`` is (views, pictures)."""
    views = len(classes)
    same = (classes[:, None] == classes[None]).sum((0, 1)) - views  # ordered pairs of different views, per picture
    return float(same.double().mean()) / (views * (views - 1))


@torch.no_grad()
def _classes(model: nn.Module, images: Tensor) -> Tensor:
    """The class of every view of every picture, (views, pictures); the first view is the picture itself."""
    model.eval()
    moves = [(down, right) for down in range(MOVES) for right in range(MOVES)]
    return torch.stack([_predicted(model, images.roll(move, (-2, -1))) for move in moves])


def _predicted(model: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([model(batch).argmax(1) for batch in images.split(500)])
