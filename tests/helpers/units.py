"""Programs of the tests that are made of ext/: compiled with every operator's mathematics in one unit."""

from __future__ import annotations

import subprocess
from pathlib import Path

from poolnb import native

OPERATORS = tuple(native.operator_types())

# AddressSanitizer and UndefinedBehaviorSanitizer. Left out is what the first of them or the processor sees as well, a
# wrong pointer when it is used; and checks of memory are calls. With all checks, and in place, the library of
# test_sanitized.py took 529 s to compile, in place of 194 (two cores, 2026-11-29).
SANITIZERS = (
    "-fsanitize=address,undefined",
    "-fno-sanitize=vptr,null,alignment,object-size,pointer-overflow",
    "-fno-sanitize-recover=all",
    "--param=asan-instrumentation-with-call-threshold=0",
)


def compiled(source: Path, folder: Path, *flags: str) -> Path:
    """The program of one C++ file, which may include "all_windows.h"."""
    headers = "".join(f'#include "windows/{name}.h"\n' for name in OPERATORS)
    (folder / "all_windows.h").write_text(headers)
    program = folder / source.stem
    include = [f"-I{folder}", f"-I{native.sources_folder()}"]
    command = ["c++", "-std=c++20", "-ffp-contract=off", *flags, *include, str(source), "-o", str(program)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-4000:]
    return program
