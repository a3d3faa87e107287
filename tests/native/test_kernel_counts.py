"""What the CUDA kernels do per window, counted by running their bodies; the appendix on GPUs predicts times from it.

The record committed in book/results/native is written anew by
``PYTHONPATH=tests/helpers python tests/native/test_kernel_counts.py``.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from units import OPERATORS, compiled

from poolnb.ops.registration import OPS

RECORD = Path(__file__).parents[2] / "book" / "results" / "native" / "kernel-counts.json"


def counted(folder: Path) -> list[dict[str, Any]]:
    """All rows, operator by operator for each set of windows, every parameter and option at its usual value."""
    program = compiled(Path(__file__).with_name("count.cpp"), folder, "-O1", "-w")
    rows = []
    for name in OPERATORS:
        op = OPS[f"{name}_pool"]
        usual = [form.usual for form in op.tensors.values()] or [0]
        arguments = map(str, [*usual, *map(float, op.attributes.values())])
        printed = subprocess.run([program, name, *arguments], check=True, capture_output=True, text=True).stdout
        rows += map(json.loads, printed.splitlines())
    windows = list(dict.fromkeys(row["windows"] for row in rows))
    return sorted(rows, key=lambda row: windows.index(row["windows"]))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_the_committed_counts_are_those_of_the_kernels(tmp_path: Path) -> None:
    assert json.loads(RECORD.read_text()) == counted(tmp_path)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        rows = ",\n".join("  " + json.dumps(row) for row in counted(Path(folder)))
    RECORD.write_text(f"[\n{rows}\n]\n")
    sys.stdout.write(f"{RECORD}\n")
