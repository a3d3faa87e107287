"""Short films of real photographs: what pooling in space and time is tried on.

No film is among the data of this project. A clip is what a camera sees that moves over one photograph of CIFAR-10: a
window of half its width and height goes in eight equal steps from one random corner to the opposite one, or along a
side. Real pixels, then, and a made-up motion.
"""

from __future__ import annotations

import torch

from poolnb.lab.samples import Samples

FRAMES = 8
WINDOW = 16


def film(photographs: Samples, count: int) -> Samples:
    """Clips (count, 8, 16, 16, 3) of the first `count` photographs, with their labels; always the same ones."""
    photographs = photographs.subset(torch.arange(count))
    reach = photographs.pixels.shape[1] - WINDOW
    generator = torch.Generator().manual_seed(20_201_207)
    ends = torch.randint(0, 2, (count, 2, 2), generator=generator) * reach  # (clip, first or last frame, row or column)
    ends[:, 1] = torch.where((ends[:, 0] == ends[:, 1]).all(1, keepdim=True), reach - ends[:, 0], ends[:, 1])
    share = torch.linspace(0, 1, FRAMES)[None, :, None]
    corners = (ends[:, :1] * (1 - share) + ends[:, 1:] * share).round().long()  # (clip, frame, row or column)
    inside = torch.arange(WINDOW)
    rows = (corners[:, :, 0, None] + inside)[:, :, :, None]
    columns = (corners[:, :, 1, None] + inside)[:, :, None, :]
    clip = torch.arange(count)[:, None, None, None]
    return Samples(photographs.pixels[clip, rows, columns].contiguous(), photographs.labels, photographs.largest)
