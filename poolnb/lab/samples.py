"""Images and labels, as data sets hold them and runs train on them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Samples:
    """Images and labels on one device.

    `pixels` is uint8 (N, H, W, C) or (N, D, H, W, C), so that a batch of it, seen as (N, C, ...), is channels_last.
    `labels` is int64 (N,). `largest` is the pixel value that becomes 1.0.
    """

    pixels: Tensor
    labels: Tensor
    largest: int

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, index: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Images as float32 (B, C, ...) in [0, 1], channels_last, and their labels."""
        pixels = self.pixels[index].movedim(-1, 1)
        return pixels.to(torch.float32).mul_(1 / self.largest), self.labels[index]

    def subset(self, index: Tensor) -> Samples:
        return Samples(self.pixels[index], self.labels[index], self.largest)

    def to(self, device: torch.device) -> Samples:
        return Samples(self.pixels.to(device), self.labels.to(device), self.largest)
