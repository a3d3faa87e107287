"""exp and log of the compiled kernels, over the whole range of float32: the bounds that ext/lane.h names."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

# Units in the last place.
BOUNDS = {"exp": 1.01, "exp_down": 1.01, "log": 1.7, "log_normal": 1.7, "log1p": 1.7, "expm1": 2.2}
BOUNDS |= {"exp2": 1.2, "exp2_of_a_sum": 1.7, "log2": 1.0, "reciprocal": 0.6, "rsqrt": 1.5}
_MACHINES = ["native", *(["x86-64"] if platform.machine() == "x86_64" else [])]


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
@pytest.mark.parametrize("machine", _MACHINES)
def test_exp_and_log_are_as_accurate_as_said(machine: str, tmp_path: Path) -> None:
    flags = ["-std=c++20", "-O2", f"-march={machine}", "-ffp-contract=off", "-fno-trapping-math", "-Wno-psabi"]
    source, program = Path(__file__).parent / "native_math.cpp", tmp_path / "native_math"
    built = subprocess.run(["c++", *flags, str(source), "-o", str(program)], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-3000:]
    rows = [line.split() for line in subprocess.check_output([program], text=True).splitlines()]
    assert {name for name, _, _ in rows} == set(BOUNDS) and len(rows) == 2 * len(BOUNDS)
    for name, dtype, error in rows:
        assert float(error) <= BOUNDS[name], f"{name} of {dtype}: {error}"
