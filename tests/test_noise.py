"""The noise of the sampled operators: Philox, the same numbers at every position and on every device."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sampled import every_sampled, pool, randn
from scipy import stats

import poolnb
from poolnb.geometry import resolve
from poolnb.ops import philox
from poolnb.reference import sampling as oracle

CPU = torch.device("cpu")


# ---- noise -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # the known answers that the authors of Philox publish with their code, Random123
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_known_answers(counter: list[int], key: list[int], words: list[int]) -> None:
    as_tensors = tuple(torch.tensor(c) for c in counter), tuple(torch.tensor(k) for k in key)
    assert [int(w) for w in philox.philox(*as_tensors)] == words
    assert list(oracle.philox(tuple(counter), tuple(key))) == words


@pytest.mark.parametrize("seed", [0, 1, -1, 2**63 - 1, -(2**63), 0x123456789ABCDEF])
def test_noise_is_the_oracle_s_at_every_position(seed: int) -> None:
    key = torch.tensor(seed)
    single = philox.uniform(key, 11, 5, draws=3, dtype=torch.float64, device=CPU)[2]
    assert single.tolist() == [oracle.uniform(seed, i // 4, 2, 5, i % 4) for i in range(11)]
    taps = philox.tap_uniform(key, 6, 3, 5, dtype=torch.float64, device=CPU)
    assert taps.tolist() == [[oracle.uniform(seed, i, t // 4, 5, t % 4) for i in range(3)] for t in range(6)]


def test_noise_does_not_depend_on_how_much_of_it_is_made() -> None:
    # More positions than are computed at a time.
    key, n = torch.tensor(3), 4 * philox._CHUNK + 5
    long = philox.uniform(key, n, 1, dtype=torch.float64, device=CPU)[0]
    assert torch.equal(philox.uniform(key, 7, 1, dtype=torch.float64, device=CPU)[0], long[:7])
    assert long[-1] == oracle.uniform(3, (n - 1) // 4, 0, 1, (n - 1) % 4)
    assert torch.equal(philox.uniform(key, n, 1, dtype=torch.float32, device=CPU)[0].double(), long)


def test_noise_lies_strictly_between_0_and_1() -> None:
    smallest, largest = 0.5 * 2.0**-23, 1 - 0.5 * 2.0**-23
    for dtype in (torch.float32, torch.float64):
        words = torch.tensor([0, 0x1FF, 0x80000000, 0xFFFFFFFF])
        numbers = ((words >> 9).to(dtype) + 0.5) * 2.0**-23  # the formula that ops/philox.py states
        assert numbers.tolist() == [smallest, smallest, 0.5 + smallest, largest]
        u = philox.uniform(torch.tensor(0), 100_000, 1, dtype=dtype, device=CPU)
        assert 0 < u.min() and u.max() < 1
        gumbel = -(-torch.tensor([smallest, largest], dtype=dtype).log()).log()
        assert gumbel.isfinite().all()


@pytest.mark.parametrize("stream", [philox.STOCHASTIC, philox.TDGS, philox.S3])
def test_noise_is_uniform_and_independent(stream: int) -> None:
    u = philox.uniform(torch.tensor(11), 40_000, stream, dtype=torch.float64, device=CPU)[0].numpy()
    assert stats.kstest(u, "uniform").pvalue > 1e-6
    for lag in (1, 2, 4, 64):
        assert abs(np.corrcoef(u[:-lag], u[lag:])[0, 1]) * math.sqrt(len(u)) < 5.5
    other = philox.uniform(torch.tensor(12), 40_000, stream, dtype=torch.float64, device=CPU)[0].numpy()
    assert abs(np.corrcoef(u, other)[0, 1]) * math.sqrt(len(u)) < 5.5


# ---- devices ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed_device", ["cpu", "cuda", None])
@every_sampled
def test_kernels_stay_on_the_input_s_device(name: str, seed_device: str | None) -> None:
    # Tensors without data on a GPU that need not be there: any operation that mixes devices is an error.
    from torch._subclasses.fake_tensor import FakeTensorMode

    op = getattr(poolnb.ops, f"{name}_pool")
    own = {"s3": ([4, 4], True), "stochastic": (), "tdgs": (1.0, False, True, 0.01)}[name]
    with FakeTensorMode():
        x = torch.empty(2, 3, 8, 8, device="cuda")
        windows = resolve(x.shape[2:], 3, 2, 1)
        mask = torch.ones(2, 1, 8, 8, dtype=torch.bool, device="cuda")
        tensors = [torch.empty(3, *windows.output, device="cuda")] if name == "tdgs" else []
        drawn = seed_device is not None
        seed = philox.Seed(torch.empty((), dtype=torch.int64, device=seed_device)) if drawn else None
        y = op.forward(windows, x, mask, *tensors, seed, *own)
        grads = op.backward(windows, True, torch.empty_like(y), x, mask, *tensors, seed, *own)
        for result in (y, *(grads if isinstance(grads, tuple) else (grads,))):
            assert result.device.type == "cuda"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every_sampled
def test_the_same_draws_on_cpu_and_gpu(name: str) -> None:
    x = randn(4, 3, 16, 16, dtype=torch.float32)
    for seed in (3, torch.tensor(3), torch.tensor(3, device="cuda")):
        y = pool(name, x.cuda(), 3, 2, 1, training=True, seed=seed).cpu()
        torch.testing.assert_close(y, pool(name, x, 3, 2, 1, training=True, seed=3))
