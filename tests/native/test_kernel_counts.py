"""What the CUDA kernels do per window, counted by running their bodies; the appendix on GPUs predicts times from it.

The record committed in book/results/native is written anew by ``python tests/native/test_kernel_counts.py``.
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

RECORD = Path(__file__).parents[2] / "book" / "results" / "native" / "kernel-counts.json"


def counted(folder: Path) -> list[dict[str, Any]]:
    program = folder / "count"
    source = Path(__file__).with_name("count.cpp")
    flags = ["-std=c++20", "-O1", "-ffp-contract=off", "-w"]
    subprocess.run(["c++", *flags, str(source), "-o", str(program)], check=True)
    printed = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in printed.splitlines()]


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_the_committed_counts_are_those_of_the_kernels(tmp_path: Path) -> None:
    assert json.loads(RECORD.read_text()) == counted(tmp_path)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        rows = ",\n".join("  " + json.dumps(row) for row in counted(Path(folder)))
    RECORD.write_text(f"[\n{rows}\n]\n")
    sys.stdout.write(f"{RECORD}\n")
