"""The PyTorch kernels work on a large batch in parts: the results are those of the whole, the memory is not."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from contextlib import nullcontext
from typing import Any

import pytest
from devices import torch
from poolers import SAMPLED, batch, every_pooler, make
from torch import Tensor, nn

from poolnb import functional as F
from poolnb import native
from poolnb.ops import chunking

BATCH = 5
pytestmark = pytest.mark.device


@pytest.fixture(autouse=True)
def pytorch_kernels() -> Any:
    with native.disabled():
        yield


def results(call: Any, x: Tensor, *parameters: Tensor) -> list[Tensor]:
    """The output, and the gradients of the input and the parameters for a gradient that differs everywhere."""
    x = x.detach().clone().requires_grad_()
    y = call(x)
    grad = torch.linspace(-1, 2, y.numel()).view_as(y)
    return [y.detach(), *torch.autograd.grad(y, (x, *parameters), grad)]


def compare(monkeypatch: pytest.MonkeyPatch, call: Any, x: Tensor, *parameters: Tensor) -> None:
    whole = results(call, x, *parameters)
    for limit in ("_CPU_BYTES", "_GPU_BYTES"):
        monkeypatch.setattr(chunking, limit, 1)  # one sample at a time
    for part, expected in zip(results(call, x, *parameters), whole, strict=True):
        torch.testing.assert_close(part, expected)
        assert part.stride() == expected.stride()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("training", [True, False])
@every_pooler
def test_parts_give_what_the_whole_gives(
    name: str, training: bool, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = make(name).train(training)
    for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d | nn.InstanceNorm2d)):
        norm.eval()  # its statistics are no part of pooling

    def call(x: Tensor) -> Tensor:
        torch.manual_seed(7)  # one seed for the draws of both
        return module(x)

    compare(monkeypatch, call, batch(n=BATCH).contiguous(memory_format=layout), *module.parameters())


@pytest.mark.parametrize("samples", [1, BATCH])
def test_masks_and_parameters_are_cut_where_they_have_samples(samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = batch(n=BATCH)
    mask = torch.rand(samples, 1, *x.shape[2:], generator=torch.Generator().manual_seed(1)) > 0.4
    alpha = torch.rand(samples, 3, 1, 1, generator=torch.Generator().manual_seed(2)).requires_grad_()
    compare(monkeypatch, lambda x: F.mixed_pool2d(x, 3, 2, alpha=alpha, mask=mask), x, alpha)


@pytest.mark.parametrize("name", SAMPLED)
def test_a_part_s_first_position_need_not_be_a_multiple_of_four(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    params = {"temperature": torch.tensor(0.7)} if name == "tdgs" else {}
    x = torch.randn(BATCH, 3, 9, generator=torch.Generator().manual_seed(0))
    compare(monkeypatch, lambda x: getattr(F, f"{name}_pool1d")(x, 3, 3, training=True, seed=5, **params), x)


@pytest.mark.cpu
def test_the_number_of_parts_follows_from_the_taps() -> None:
    from poolnb.geometry import resolve

    x = torch.empty(64, 16, 32, 32)
    assert len(list(chunking.batch_parts(x, chunking.samples_at_once(x, resolve(x.shape[2:], 2, 2))))) == 1
    taps = 49 * 16 * 26 * 26 * 4
    assert len(list(chunking.batch_parts(x, chunking.samples_at_once(x, resolve(x.shape[2:], 7, 1))))) == math.ceil(
        64 / (chunking._CPU_BYTES // taps)
    )


@pytest.mark.slow
@pytest.mark.cpu
@pytest.mark.parametrize("name", ["soft", "gated", "tree"])
def test_peak_memory_is_a_small_multiple_of_the_input(name: str) -> None:
    """Windows of 5 x 5 at stride 1: in one piece their taps alone would be 25 times the input."""
    code = f"""
import resource, torch, poolnb
torch.set_num_threads(1)
pool = poolnb.create_pool({name!r}, 5, 1, padding=2, channels=16, output_size=(64, 64))
pool(torch.randn(1, 16, 64, 64, requires_grad=True)).sum().backward()
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
x = torch.randn(128, 16, 64, 64, requires_grad=True)  # 32 MiB
start = peak()
pool(x).sum().backward()
print(peak() - start)
"""
    environment = {**os.environ, "POOLNB_NATIVE": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 6 * 32


@pytest.mark.cpu
@pytest.mark.parametrize("kernels", ["pytorch", "compiled"])
@pytest.mark.parametrize("shape", [(2**40, 1, 4), (2**11, 2**9, 2**22)], ids=str)
def test_what_no_memory_holds_is_refused_at_once(kernels: str, shape: tuple[int, ...]) -> None:
    x = torch.zeros(1, 1, 1).expand(shape)
    context = native.disabled() if kernels == "pytorch" else nullcontext()
    output = (*shape[:2], shape[2] // 2)
    wanted = f"no memory for the output: shape {output} takes {2**41} elements of 4 bytes"
    with context, pytest.raises(RuntimeError, match=re.escape(wanted)):
        F.lse_pool1d(x, 2)
