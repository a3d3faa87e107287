"""The CUDA library compiles, links and loads without a GPU; what the compiler says of its kernels is kept.

The sources do not ask for the architecture, so that one stands for all here; four took 35 minutes beside other tests.
The record committed in book/results/native is of all four, written anew by ``python tests/native/test_cuda_build.py``.
"""

from __future__ import annotations

import datetime
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from poolnb import _build, native
from poolnb.ops.registration import OPS

RECORD = Path(__file__).parents[2] / "book" / "results" / "native" / "cuda-kernels.json"
_ARCHITECTURES = {f"sm_{version.replace('.', '')}" for version in _build.ARCHITECTURES.split(";")}
_ONE = "9.0"  # sm_90
_TABLED = sum(any(form.per_tap for form in OPS[f"{name}_pool"].tensors.values()) for name in native.operator_types())
# Of every operator: four kinds of kernels for four stored types, and those for 2 x 2 and 3 x 3 of all but doubles.
_KERNELS = len(native.operator_types()) * (4 * 4 + 4 * 3) + _TABLED * 4

pytestmark = [
    pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not on PATH"),
    pytest.mark.skipif(torch.version.cuda is None, reason="this torch is built without CUDA"),
    pytest.mark.skipif("TORCH_CUDA_ARCH_LIST" in os.environ, reason="TORCH_CUDA_ARCH_LIST names other architectures"),
]


@pytest.fixture(scope="module", autouse=True)
def _for_one_architecture() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_CUDA_ARCH_LIST", _ONE)
        yield


def report() -> dict[str, Any]:
    """What the build says; unchanged sources are not compiled again."""
    return json.loads((_build.build("cuda").parent / "build.json").read_text())


def test_every_kernel_compiles_with_few_spills() -> None:
    rows = report()["kernels"]
    assert {row["architecture"] for row in rows} == {"sm_90"}
    assert len(rows) == _KERNELS
    _few_registers_and_spills(rows)


def test_the_committed_record_lists_the_same_kernels_for_every_architecture() -> None:
    kept = json.loads(RECORD.read_text())["kernels"]
    kernels = {row["kernel"] for row in report()["kernels"]}
    assert {row["architecture"] for row in kept} == _ARCHITECTURES
    for architecture in _ARCHITECTURES:
        assert {row["kernel"] for row in kept if row["architecture"] == architecture} == kernels
    _few_registers_and_spills(kept)


def _few_registers_and_spills(rows: list[dict[str, Any]]) -> None:
    assert max(row["registers"] for row in rows) <= 255
    assert max(row["spilled"] for row in rows) <= 640  # bytes; the binomials of long windows spill most, then doubles


def test_the_library_loads_beside_the_cpu_one_and_registers_every_operator() -> None:
    path = _build.build("cuda")
    code = f"""
import torch
from pathlib import Path
from poolnb import native
native.load_library("cuda", Path({str(path)!r}))
has = torch._C._dispatch_has_kernel_for_dispatch_key
assert all(has(f"poolnb::{{name}}_pool{{end}}", "CUDA") for name in native.names("cuda") for end in ("", "_backward"))
print(*native.names("cuda"))
with native.disabled():
    assert not has("poolnb::soft_pool", "CUDA")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == list(native.operator_types())


if __name__ == "__main__":
    built = report()
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    facts = {"date": datetime.datetime.now(datetime.UTC).date().isoformat(), "nvcc": built["compiler"]}
    lines = ",\n".join("  " + json.dumps(row) for row in built["kernels"])
    RECORD.write_text(json.dumps(facts, indent=1)[:-2] + f',\n "kernels": [\n{lines}\n ]\n}}\n')
    print(RECORD)
