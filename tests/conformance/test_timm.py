"""Windows of padding "same" and blur pooling beside the modules of timm, where that is installed."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch.nn import functional as F

import poolnb.functional as pool

layers = pytest.importorskip("timm.layers")

SIZES = ((7, 7), (8, 8), (5, 12), (13, 6))


def inside(size: int, kernel: int, stride: int, before: int, outputs: int) -> torch.Tensor:
    """Whether the window of each output lies in the input."""
    start = torch.arange(outputs) * stride - before
    return (start >= 0) & (start + kernel <= size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dilation", [1, 2])
def test_max_of_padding_same(size: tuple[int, int], dilation: int) -> None:
    from timm.layers.pool2d_same import MaxPool2dSame

    for kernel, stride in product((1, 2, 3, 5), (1, 2, 3)):
        x = torch.randn(2, 3, *size)
        expected = MaxPool2dSame(kernel, stride, dilation=dilation)(x)
        found = pool.max_pool2d(x, kernel, stride, "same", dilation)
        missed = expected == -torch.inf  # a window beside the input: 0 here
        assert torch.equal(found, expected.masked_fill(missed, 0))
        assert dilation > 1 or not missed.any()


@pytest.mark.parametrize("size", SIZES)
def test_average_of_padding_same(size: tuple[int, int]) -> None:
    """timm divides by all taps of a window, ours by those that lie in the input."""
    for kernel, stride in product((1, 2, 3, 5), (1, 2, 3)):
        theirs = layers.AvgPool2dSame(kernel, stride)
        x = torch.randn(2, 3, *size)
        found = pool.avg_pool2d(x, kernel, stride, "same")
        torch.testing.assert_close(found * theirs(torch.ones_like(x)), theirs(x))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("taps", [2, 3, 4, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_blur(size: tuple[int, int], taps: int, stride: int) -> None:
    """Everywhere on an input that is reflected as timm's module does, and in the interior with padding of our own."""
    x = torch.randn(2, 3, *size)
    theirs = layers.BlurPool2d(3, filt_size=taps, stride=stride)
    expected = theirs(x)
    reflected = F.pad(x, theirs.padding, mode="reflect")
    torch.testing.assert_close(pool.blur_pool2d(reflected, taps, stride), expected)
    before = theirs.padding[0]
    found = pool.blur_pool2d(x, taps, stride, ((before, before), (before, before)))
    assert found.shape == expected.shape
    rows, columns = (inside(n, taps, stride, before, outputs) for n, outputs in zip(size, found.shape[2:], strict=True))
    whole = rows[:, None] & columns
    assert whole.any()
    torch.testing.assert_close(found[..., whole], expected[..., whole])
