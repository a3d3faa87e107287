"""Noise that is a function of (seed, logical position): Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers").

No state, no order, no layout: the same seed gives the same noise on every device, in every memory layout, eager and
compiled, and a backward pass computes it again instead of keeping it. This is the specification that a compiled kernel
follows bit for bit.

- Key: the seed as an unsigned 64-bit number, ``(low 32 bits, high 32 bits)``.
- Counter: ``(low 32 bits of block, high 32 bits of block, draw, stream)``. ``stream`` tells the operators apart:
  ``STOCHASTIC``, ``TDGS`` and ``S3`` below.
- Position of a window: its row-major index in (N, C, *output), whatever the memory layout.
- One number per position (:func:`uniform`): ``block = position // 4``, ``draw`` 0 or as the operator says, output word
  ``position % 4``.
- One number per tap of a window (:func:`tap_uniform`): ``block = position``, ``draw = tap // 4``, output word
  ``tap % 4``.
- From a word to a number: ``((word >> 9) + 0.5) * 2**-23``. All numbers are multiples of 2**-24 from 2**-24 to
  1 - 2**-24, so they are exact in float32 and float64, the same in both, and never 0 or 1.

Words are held in int64 tensors: PyTorch has few operations on unsigned integers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

STOCHASTIC, TDGS, S3 = 1, 2, 3

_MASK = 0xFFFFFFFF
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_KEY_STEPS = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10
_CHUNK = 2**15  # counters at a time on a CPU: the intermediate words stay in its cache

Counter = tuple[Tensor, Tensor, Tensor, Tensor]


class Seed(NamedTuple):
    """A seed, and which sample of its batch is the first one here: a batch may be worked on in parts."""

    key: Tensor  # int64, 0-d
    sample: int = 0


def philox(counter: Counter, key: tuple[Tensor, Tensor]) -> Counter:
    """The four output words of every counter. All hold 32-bit words in int64; the counter's words broadcast."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        # The low 64 bits of a product are right although int64 wraps. The upper half of c1 and c3 is not cleared: they
        # only enter the exclusive or, whose result is cut to 32 bits.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1 = (p1 >> 32).bitwise_xor(c1 ^ k0).bitwise_and_(_MASK), p1
        c2, c3 = (p0 >> 32).bitwise_xor(c3 ^ k1).bitwise_and_(_MASK), p0
        k0, k1 = (k0 + _KEY_STEPS[0]) & _MASK, (k1 + _KEY_STEPS[1]) & _MASK
    return c0, c1 & _MASK, c2, c3 & _MASK


def uniform(
    seed: Tensor, count: int, stream: int, *, draws: int = 1, first: int = 0, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Numbers in (0, 1) for ``count`` positions from ``first`` on, one per draw: (draws, count), float32 or float64."""
    blocks = range(first // 4, (first + count + 3) // 4)
    numbers = _numbers(seed, blocks, draws, stream, dtype, device)
    return numbers.transpose(1, 2).flatten(1)[:, first % 4 :][:, :count]


def tap_uniform(
    seed: Tensor, taps: int, count: int, stream: int, *, first: int = 0, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """One number in (0, 1) per tap of ``count`` windows from ``first`` on: shape (taps, count), float32 or float64."""
    blocks = range(first, first + count)
    return _numbers(seed, blocks, (taps + 3) // 4, stream, dtype, device).flatten(0, 1)[:taps]


def _numbers(seed: Tensor, blocks: range, draws: int, stream: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The four numbers of every (draw, block): shape (draws, 4, blocks)."""
    key = seed & _MASK, (seed >> 32) & _MASK
    last = torch.full((), stream, device=device)
    block = torch.arange(blocks.start, blocks.stop, device=device)
    chunks = block.split(_CHUNK) if device.type == "cpu" else [block]
    draw = torch.arange(draws, device=device).unsqueeze(1)
    quads = [philox((b & _MASK, b >> 32, draw, last), key) for b in chunks]
    numbers = [((torch.stack(quad, 1) >> 9).to(dtype) + 0.5) * 2.0**-23 for quad in quads]
    return torch.cat(numbers, -1)
