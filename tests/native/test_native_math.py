"""Numbers of the compiled kernels: exp and log within the bounds of ext/vec_math.h, half types as one by one."""

from __future__ import annotations

import platform
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

# Units in the last place.
BOUNDS = {"exp": 1.01, "exp_down": 1.01, "log": 1.7, "log_normal": 1.7, "log1p": 1.7, "expm1": 2.2}
BOUNDS |= {"exp2": 1.2, "exp2_of_a_sum": 1.7, "log2": 1.0, "reciprocal": 0.6, "rsqrt": 1.5}
_MACHINES = ["native", *(["x86-64", "x86-64-v3"] if platform.machine() == "x86_64" else [])]
_FLAGS = ["-std=c++20", "-O2", "-ffp-contract=off", "-fno-trapping-math", "-Wno-psabi"]

pytestmark = [
    pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler"),
    pytest.mark.parametrize("machine", _MACHINES),
]


def _lines(name: str, machine: str, folder: Path) -> list[list[str]]:
    """What a program of this folder prints, compiled for a machine; one that cannot run here is skipped."""
    source, program = Path(__file__).parent / f"{name}.cpp", folder / name
    command = ["c++", *_FLAGS, f"-march={machine}", str(source), "-o", str(program)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-3000:]
    ran = subprocess.run([program], capture_output=True, text=True)
    if ran.returncode == -signal.SIGILL:
        pytest.skip(f"this processor has not all instructions of {machine}")
    assert ran.returncode == 0
    return [line.split() for line in ran.stdout.splitlines()]


def test_exp_and_log_are_as_accurate_as_said(machine: str, tmp_path: Path) -> None:
    rows = _lines("native_math", machine, tmp_path)
    assert {name for name, _, _ in rows} == set(BOUNDS) and len(rows) == 2 * len(BOUNDS)
    for name, dtype, error in rows:
        assert float(error) <= BOUNDS[name], f"{name} of {dtype}: {error}"


def test_packs_of_half_types_are_their_numbers(machine: str, tmp_path: Path) -> None:
    rows = _lines("half_types", machine, tmp_path)
    assert len(rows) == 4
    for dtype, way, wrong in rows:
        assert wrong == "0", f"{dtype} {way}: {wrong} numbers differ"
