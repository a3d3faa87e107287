"""Compiled kernels read nothing outside of their tensors: before and behind each one lies a page of no access."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from test_long_windows import _LONG

from poolnb import native

pytestmark = [pytest.mark.cpu, pytest.mark.slow]

_CODE = """
import ctypes, mmap, sys
from dataclasses import replace
import torch
from operators import OPERATORS
from test_long_windows import long_cases

PAGE, libc, kept = mmap.PAGESIZE, ctypes.CDLL(None), []
torch.set_num_threads(1)

def fenced(t, behind):
    size = t.untyped_storage().nbytes()
    whole = (-(-size // PAGE) + 2) * PAGE
    kept.append(mmap.mmap(-1, whole))
    first = ctypes.addressof(ctypes.c_char.from_buffer(kept[-1]))
    for page in (first, first + whole - PAGE):
        assert libc.mprotect(ctypes.c_void_p(page), PAGE, 0) == 0
    at = first + whole - PAGE - size if behind else first + PAGE
    flat = torch.frombuffer((ctypes.c_char * size).from_address(at), dtype=t.dtype)
    return flat.as_strided(t.size(), t.stride(), t.storage_offset()).copy_(t)

for behind in (False, True):
    for case in long_cases(OPERATORS[sys.argv[1]], int(sys.argv[2]), torch.float32):
        tensors = {"input": case.x, **case.tensors()}
        leaves = {name: fenced(t.detach(), behind).requires_grad_() for name, t in tensors.items()}
        mask = None if case.mask is None else fenced(case.mask, behind)
        x, *rest = leaves.items()
        y = replace(case, mask=mask).run(x[1], **dict(rest))
        torch.autograd.grad(y, list(leaves.values()), fenced(torch.ones_like(y), behind))
print("done")
"""


@pytest.mark.skipif(not native.available("cpu"), reason="no compiled kernels")
@pytest.mark.skipif(sys.platform != "linux", reason="mprotect")
@pytest.mark.parametrize("dims", list(_LONG))
@pytest.mark.parametrize("operator", ["gated", "tree", "rank", "quantile", "soft", "weighted", "lp", "ada"])
def test_nothing_outside_of_a_tensor_is_read(operator: str, dims: int) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _CODE, operator, str(dims)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0 and "done" in done.stdout, done.stderr[-2000:]
