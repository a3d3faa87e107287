"""Photographs and feature maps for the chapters. Everything ships with scikit-image or is computed: no download."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

PHOTOGRAPHS = ("camera", "astronaut", "chelsea", "coffee", "rocket")


def photograph(name: str = "camera", colour: bool = False) -> np.ndarray:
    """A photograph that ships inside scikit-image, as float64 in [0, 1].

    Shape (height, width), or (height, width, 3) with `colour`. Grey values are the luma of ITU-R BT.601.
    """
    from skimage import data

    if name not in PHOTOGRAPHS:
        raise ValueError(f"name must be one of {PHOTOGRAPHS}, got {name!r}")
    pixels = np.asarray(getattr(data, name)(), dtype=np.float64) / 255
    if colour:
        return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    return pixels if pixels.ndim == 2 else pixels @ np.array([0.299, 0.587, 0.114])


def filter_bank() -> dict[str, Tensor]:
    """Eight fixed 3x3 filters, float32: the edges of a step in eight directions.

    They stand in for a first convolution, so that a chapter can show a real feature map without training one.
    """
    smooth, step = torch.tensor([1.0, 2.0, 1.0]), torch.tensor([-1.0, 0.0, 1.0])
    right, down = torch.outer(smooth, step) / 8, torch.outer(step, smooth) / 8
    diagonal, other = (right + down) / 2**0.5, (right - down) / 2**0.5
    half = {"right": right, "down": down, "down-right": diagonal, "up-right": other}
    opposite = {"left": -right, "up": -down, "up-left": -diagonal, "down-left": -other}
    return half | opposite


def feature_maps(image: np.ndarray, relu: bool = True) -> Tensor:
    """The filter bank's answer to a (height, width) image: float32 of shape (1, 8, height - 2, width - 2).

    With `relu`, negative answers are cut to 0, as a convolution layer's activation does.
    """
    if image.ndim != 2:
        raise ValueError(f"image must have two dimensions, got shape {image.shape}")
    weight = torch.stack(list(filter_bank().values()))[:, None]
    answer = F.conv2d(torch.as_tensor(image, dtype=torch.float32)[None, None], weight)
    return F.relu(answer) if relu else answer
