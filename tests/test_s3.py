"""S3Pool: its strips, its draws, and their exact expectation."""

from __future__ import annotations

import math
from itertools import combinations, product

import pytest
from devices import torch
from sampled import deviation, randn
from scipy import stats

from poolnb import functional as F

pytestmark = pytest.mark.device


def all_draws(starts: int, outputs: int, stride: int, grid: int) -> list[list[int]]:
    """Every way to keep ``outputs`` of the starts of one dimension, all equally likely."""
    share, ways = grid // stride, []
    for first in range(0, outputs, share):
        strip = range(first * stride, min(first * stride + grid, starts))
        ways.append(list(combinations(strip, min(share, outputs - first))))
    return [[start for part in choice for start in part] for choice in product(*ways)]


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "grid"),
    [((8, 8), 2, 2, 4), ((8, 4), 3, 2, 2), ((6, 9), 2, 3, 6), ((7, 5), 2, 2, 4), ((6, 4), 1, 2, 6), ((4, 4), 2, 1, 3)],
)
def test_the_expectation_is_the_mean_of_all_draws(size: tuple[int, int], kernel: int, stride: int, grid: int) -> None:
    x = randn(2, 2, *size)
    y = F.s3_pool2d(x, kernel, stride, grid_size=grid, eval_mode="expectation")
    # The map with torch's own pooling, from an input that is padded on the far side.
    padded = torch.nn.functional.pad(x, (0, kernel - 1, 0, kernel - 1), value=-math.inf)
    full = torch.nn.functional.max_pool2d(padded, kernel, 1)
    starts = [min(o * stride, n) for o, n in zip(y.shape[2:], size, strict=True)]
    rows = all_draws(starts[0], y.size(2), stride, grid)
    columns = all_draws(starts[1], y.size(3), stride, grid)
    total = sum(full[:, :, r][:, :, :, c] for r in map(torch.tensor, rows) for c in map(torch.tensor, columns))
    torch.testing.assert_close(y, total / (len(rows) * len(columns)))


def test_the_average_is_torch_s_mean_of_the_map() -> None:
    x = randn(2, 2, 8, 6)
    padded = torch.nn.functional.pad(x, (0, 1, 0, 1), value=-math.inf)
    expected = torch.nn.functional.avg_pool2d(torch.nn.functional.max_pool2d(padded, 2, 1), 2)
    torch.testing.assert_close(F.s3_pool2d(x, 2), expected)


def test_average_and_expectation_agree_when_a_strip_is_one_stride() -> None:
    x = randn(2, 2, 9, 7)
    for geometry in ({"kernel_size": 2}, {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}):
        params = {"grid_size": 2, **geometry}
        torch.testing.assert_close(F.s3_pool2d(x, **params), F.s3_pool2d(x, **params, eval_mode="expectation"))


def test_s3_keeps_sorted_distinct_starts_of_each_strip_equally_often() -> None:
    # A kernel of 1 on 0, 1, 2, ...: the output is the list of kept positions.
    x = torch.arange(8.0).expand(1, 1, 8)
    seen: dict[tuple[float, ...], int] = {}
    for seed in range(3000):
        kept = F.s3_pool1d(x, 1, 2, grid_size=4, training=True, seed=seed).flatten().tolist()
        assert 0 <= kept[0] < kept[1] < 4 <= kept[2] < kept[3] < 8
        seen[tuple(kept)] = seen.get(tuple(kept), 0) + 1
    assert len(seen) == 36
    assert stats.chisquare(list(seen.values())).pvalue > 1e-6


def test_s3_draws_have_the_expectation_as_mean() -> None:
    x = randn(1, 1, 8, 8)
    mean = F.s3_pool2d(x, 2, eval_mode="expectation")
    draws = torch.stack([F.s3_pool2d(x, 2, training=True, seed=s) for s in range(3000)])
    assert deviation(draws, mean, draws.var(0)) < 6  # 16 outputs


def test_s3_draws_rows_and_columns_for_all_channels_and_samples() -> None:
    x = randn(1, 1, 12, 10).expand(3, 2, -1, -1)
    y = F.s3_pool2d(x, 2, training=True, seed=8)
    assert torch.equal(y, y[:1, :1].expand_as(y))
    # Each output is an entry of the stride-1 max map.
    padded = torch.nn.functional.pad(x, (0, 1, 0, 1), value=-math.inf)
    assert torch.isin(y, torch.nn.functional.max_pool2d(padded, 2, 1)).all()


def test_s3_with_a_grid_of_1_is_max_pooling() -> None:
    # Stride 1 and strips of 1: nothing to choose.
    x = randn(2, 3, 7, 6)
    for training in (True, False):
        y = F.s3_pool2d(x, 3, 1, 1, grid_size=1, training=training, seed=0)
        torch.testing.assert_close(y, torch.nn.functional.max_pool2d(x, 3, 1, 1))
