"""The CPU's library under AddressSanitizer and UndefinedBehaviorSanitizer: 2,000 raw calls, right and wrong ones.

Built with the source, kept in `_build/sanitized` until the sources change.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from units import SANITIZERS

from poolnb import _build, native

_FUZZ = Path(__file__).with_name("fuzz.py")
_ROOT = Path(__file__).parents[2]
_CASES = 2000
_SMALL = "-DPOOLNB_BLOCK=16"  # so that small shapes are cut into pieces along every axis, as only long ones are else
_FLAGS = [_SMALL, "-O0", "-g1", "-fPIC", "-march=native", "-w", *native.FLAGS[1:], *SANITIZERS]

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or shutil.which("c++") is None, reason="no C++ compiler with sanitizers"
)


def _runtimes() -> list[str]:
    """The sanitizers' own libraries: they have to be loaded before Python."""
    names = ("libasan.so", "libubsan.so")
    asked = [subprocess.run(["c++", f"-print-file-name={n}"], capture_output=True, text=True).stdout for n in names]
    return [path.strip() for path in asked]


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr[-4000:]}"


@pytest.fixture(scope="module")
def library() -> Path:
    if not all(map(os.path.isabs, _runtimes())):
        pytest.skip("the compiler has no libraries of its sanitizers")
    from torch.utils.cpp_extension import include_paths, library_paths

    folder = _ROOT / "_build" / "sanitized" / native.cached_folder().name
    built = folder / "poolnb_native.so"
    if built.exists():
        return built
    shutil.rmtree(folder.parent, ignore_errors=True)
    folder.mkdir(parents=True)
    units = _build.write_units("cpu", folder)
    includes = [f"-I{path}" for path in (*include_paths(), native.sources_folder())]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda u: _run("c++", *_FLAGS, *includes, "-c", str(u), "-o", f"{folder / u.stem}.o"), units))
    libraries = [f"-L{path}" for path in library_paths()]
    objects = [f"{folder / u.stem}.o" for u in units]
    _run("c++", "-shared", *SANITIZERS, *objects, *libraries, "-ltorch", "-ltorch_cpu", "-lc10", "-o", f"{built}.new")
    os.replace(f"{built}.new", built)
    return built


def test_no_call_touches_what_is_not_its_own(library: Path) -> None:
    environment = {
        # torch leaves memory behind on purpose; fresh memory is all ones, which fuzz.py looks for.
        "ASAN_OPTIONS": "detect_leaks=0:malloc_fill_byte=165:max_malloc_fill_size=1048576",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "LD_PRELOAD": " ".join(_runtimes()),
        "PYTHONPATH": str(_ROOT),
    }
    share = _CASES // 2

    def fuzz(first: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(_FUZZ), str(library), str(first), str(share)]
        return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)

    with ThreadPoolExecutor(2) as pool:
        for done in pool.map(fuzz, range(0, _CASES, share)):
            last = [line for line in done.stderr.splitlines() if line.startswith("case ")][-1:]
            number = last[0].removeprefix("case ") if last else "?"
            settings = " ".join(f"{name}='{value}'" for name, value in environment.items())
            again = f"{settings} {sys.executable} {_FUZZ} {library} {number} 1"
            said = "\n".join(line for line in done.stderr.splitlines() if not line.startswith("case "))
            assert done.returncode == 0, f"{said[:6000]}\nonce more, this case alone:\n{again}"
            right, refused = (int(part.split()[0]) for part in reversed(done.stdout.split(", ")))
            assert right + refused == share and min(right, refused) > share / 10
