"""The compiled kernels of ``ext/``: find them, build them on request, say which are active.

Looked for in this order: the library inside the package (``poolnb/lib``), the one that ``poolnb build`` left in the
user's cache, none. Without one every operator runs on its PyTorch kernel, with the same results.
The environment variable ``POOLNB_NATIVE`` chooses: ``1`` (default) uses compiled kernels if there are any, ``0`` never,
``require`` makes the import of poolnb fail without them. Nothing is ever compiled at import.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import ctypes
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

_PACKAGE = Path(__file__).parent
_SOURCES = _PACKAGE.parent / "ext"
_LIBRARY = "poolnb_native.so"
_MODES = ("0", "1", "require")
_FLAGS = [
    "-O3",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-Wno-psabi",
    "-Wno-maybe-uninitialized",
]
_CUDA_FLAGS = ["-std=c++20", "-O3", "-fmad=false", "--expt-relaxed-constexpr"]
_SHOWN = 30  # last lines of a failed build

_loaded: Path | None = None
_handle: ctypes.CDLL | None = None
_active = False


class BuildError(RuntimeError):
    """The compiled kernels could not be built; the message ends with the compiler's last lines."""


# ---- which library ---------------------------------------------------------------------------------------------------


def mode() -> str:
    """The value of ``POOLNB_NATIVE``."""
    value = os.environ.get("POOLNB_NATIVE", "1")
    if value not in _MODES:
        raise ImportError(f"POOLNB_NATIVE must be one of {', '.join(_MODES)}, got {value!r}")
    return value


def sources() -> list[Path]:
    """The files of ``ext/``; empty where poolnb is installed without them."""
    return sorted(p for p in _SOURCES.rglob("*") if p.suffix in (".h", ".cpp", ".cu"))


@functools.cache
def _processor() -> str:
    """What the processor can do: libraries are built for it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features"))).partition(":")[2]
    except (OSError, StopIteration):
        return f"{platform.machine()} {platform.processor()}"


def cached_folder() -> Path:
    """Where the library for these sources, this torch and this processor is kept."""
    digest = hashlib.sha256()
    for path in sources():
        digest.update(str(path.relative_to(_SOURCES)).encode() + b"\0" + path.read_bytes())
    for fact in (torch.__version__, platform.machine(), sys.platform, _processor(), *_FLAGS):
        digest.update(fact.encode() + b"\0")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "poolnb" / "native" / digest.hexdigest()[:24]


def find() -> Path | None:
    """The library to use: packaged, else cached, else none."""
    for folder in (_PACKAGE / "lib", cached_folder()):
        if (folder / _LIBRARY).is_file():
            return folder / _LIBRARY
    return None


# ---- load and switch -------------------------------------------------------------------------------------------------


def load() -> None:
    """Use the compiled kernels if they are there. Called when poolnb is imported.

    Raises:
        ImportError: ``POOLNB_NATIVE`` is ``require`` and there is no library, or has no known value.
    """
    wanted = mode()
    if wanted == "0":
        return
    path = find()
    problem = "none is built for these sources, this torch and this processor; `poolnb build` builds them"
    if path is not None:
        try:
            _load(path)
        except OSError as error:
            problem = f"{path} cannot be loaded: {error}"
    if not _active and wanted == "require":
        raise ImportError(f"POOLNB_NATIVE=require, but there are no compiled kernels: {problem}")


def _load(path: Path) -> None:
    global _loaded, _handle
    if _handle is None:
        _handle = ctypes.CDLL(str(path))
        _handle.poolnb_operators.restype = ctypes.c_char_p
        _loaded = path
    _switch(True)


def _switch(on: bool) -> None:
    global _active
    if _handle is not None and on != _active:
        (_handle.poolnb_activate if on else _handle.poolnb_deactivate)()
        _active = on


def available() -> bool:
    """Whether a library is loaded, active or not."""
    return _handle is not None


def operators() -> tuple[str, ...]:
    """Names of the operators whose compiled kernels are active, such as ``soft``."""
    return _names() if _active else ()


def _names() -> tuple[str, ...]:
    return tuple(_handle.poolnb_operators().decode().split()) if _handle is not None else ()


@contextlib.contextmanager
def disabled() -> Iterator[None]:
    """Run a block with the PyTorch kernels alone. It counts for the whole process, all threads."""
    before = _active
    _switch(False)
    try:
        yield
    finally:
        _switch(before)


# ---- build -----------------------------------------------------------------------------------------------------------


def build(force: bool = False) -> Path:
    """Build the library for this machine into the user's cache, unless it is there; returns its path.

    A build that failed with this compiler is not tried again without ``force``.

    Raises:
        BuildError: no sources, no compiler, no ninja, or the compiler failed.
    """
    folder = cached_folder()
    if (folder / _LIBRARY).is_file() and not force:
        return folder / _LIBRARY
    compiler = _compiler()
    failure = folder.with_suffix(".failed")
    if failure.is_file() and not force and (text := failure.read_text()).startswith(compiler):
        raise BuildError(f"not tried again (poolnb build --force does): {text.partition(chr(10))[2]}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=folder.parent) as work:
        try:
            record = _compile(Path(work), compiler)
        except BuildError as error:
            failure.write_text(f"{compiler}\n{error}")
            raise
        _publish(Path(work), folder, record)
    failure.unlink(missing_ok=True)
    return folder / _LIBRARY


def _compiler() -> str:
    """The C++ compiler that torch will call, and its version."""
    if not sources():
        raise BuildError(f"the sources of the compiled kernels are not here ({_SOURCES})")
    path = shutil.which(os.environ.get("CXX", "c++"))
    if path is None:
        raise BuildError(f"no C++ compiler: {os.environ.get('CXX', 'c++')} is not on PATH")
    return subprocess.run([path, "--version"], capture_output=True, text=True).stdout.partition("\n")[0] or path


def _compile(work: Path, compiler: str) -> dict[str, Any]:
    """Compile in a process of its own, which then checks every kernel against PyTorch's."""
    # ninja is often installed beside this interpreter without being on PATH.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    jobs = os.environ.get("MAX_JOBS") or str(max(1, os.cpu_count() or 1))
    environment = {**os.environ, "PATH": path, "MAX_JOBS": jobs, "POOLNB_NATIVE": "0"}
    environment["PYTHONPATH"] = os.pathsep.join([str(_PACKAGE.parent), os.environ.get("PYTHONPATH", "")])
    began = time.monotonic()
    call = "import sys; from poolnb import native; sys.exit(native.main(sys.argv[1:]))"
    command = [sys.executable, "-c", call, "--compile-here", str(work)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise BuildError("\n".join(done.stdout.strip().splitlines()[-_SHOWN:]))
    return {"compiler": compiler, "torch": torch.__version__, "seconds": round(time.monotonic() - began, 1)}


def _publish(work: Path, folder: Path, record: dict[str, Any]) -> None:
    """Move what is wanted into place at once: another process sees all of it or nothing."""
    ready = work / "ready"
    ready.mkdir()
    shutil.move(work / _LIBRARY, ready / _LIBRARY)
    (ready / "build.json").write_text(json.dumps(record, indent=1) + "\n")
    if folder.exists():  # a forced build; a process that uses the old library keeps it
        os.replace(folder, work / "old")
    with contextlib.suppress(OSError):  # another process was first
        os.replace(ready, folder)


def _compile_here(work: Path) -> None:
    """Runs in the build's own process."""
    from torch.utils import cpp_extension

    units = [str(p) for p in sources() if p.suffix == ".cpp"]
    native = [] if platform.machine() in ("ppc64le", "riscv64") else ["-march=native"]
    wide = ["-mprefer-vector-width=512"] if platform.machine() == "x86_64" else []
    options: dict[str, Any] = {"build_directory": str(work), "verbose": True, "is_python_module": False}
    cpp_extension.load(Path(_LIBRARY).stem, units, extra_cflags=[*_FLAGS, *native, *wide], **options)
    _check(work / _LIBRARY)


def _check(library: Path) -> None:
    """Compare every compiled kernel with PyTorch's on a small input, before anybody uses it."""
    import poolnb  # noqa: F401

    _load(library)
    for name, call in _examples().items():
        compiled = _gradients(call)
        with disabled():
            expected = _gradients(call)
        for a, b in zip(compiled, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4, msg=partial("{}: {}".format, name))


def _examples() -> dict[str, Any]:
    from poolnb import functional

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 18, 9, 8, generator=generator)
    channels = torch.linspace(0.5, 3, 18)
    own: dict[str, Any] = {
        "gem": {"p": channels},
        "lp": {"norm_type": channels},
        "lse": {"r": channels - 1},
        "mixed": {"alpha": channels / 3},
        "soft": {"beta": channels - 1},
        "stochastic": {"training": True, "seed": 3},
        "tdgs": {"temperature": channels, "training": True, "seed": 3},
        "weighted": {"logits": x.flip(1)},
    }
    return {
        f"{name}, {layout}": (functional, f"{name}_pool2d", x.contiguous(memory_format=layout), own[name])
        for name in _names()
        for layout in (torch.contiguous_format, torch.channels_last)
    }


def _gradients(call: Any) -> list[torch.Tensor]:
    functional, name, x, options = call
    results = []
    for geometry in ((2, 2, 0), (3, 2, 1)):
        leaves = {k: v.detach().requires_grad_() for k, v in options.items() if isinstance(v, torch.Tensor)}
        x = x.detach().requires_grad_()
        y = getattr(functional, name)(x, *geometry, **{**options, **leaves})
        grad = torch.linspace(-1, 1, y.numel()).view(y.shape)
        results += [y.detach(), *torch.autograd.grad(y, [x, *leaves.values()], grad)]
    return results


# ---- CUDA code, compiled without a GPU ------------------------------------------------------------------------------

ARCHITECTURES = ("sm_80", "sm_90", "sm_100", "sm_120")


def cuda_compiler() -> Path | None:
    """The nvcc that belongs to a toolkit's headers: what is on PATH may be a link to it or a script that calls it."""
    found = shutil.which("nvcc")
    if found is None:
        return None
    told = subprocess.run([found, "--dryrun", "-x", "cu", os.devnull], capture_output=True, text=True).stderr
    tops = [line.partition("TOP=")[2].strip() for line in told.splitlines() if "TOP=" in line]
    return Path(tops[0]).resolve() / "bin" / "nvcc" if tops else Path(found).resolve()


def compile_cuda(jobs: int | None = None) -> list[dict[str, Any]]:
    """Compile the CUDA code for every architecture; one row per kernel with its registers and spilled bytes.

    Rows are kept in the user's cache until the sources or the compiler change.

    Raises:
        BuildError: no nvcc, or it failed.
    """
    nvcc = cuda_compiler()
    if nvcc is None:
        raise BuildError("no CUDA compiler: nvcc is not on PATH")
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
    name = hashlib.sha256((cached_folder().name + version).encode()).hexdigest()[:24]
    kept = cached_folder().parent / f"cuda-{name}.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    units = [p for p in sources() if p.suffix == ".cu"]
    with concurrent.futures.ThreadPoolExecutor(jobs or os.cpu_count()) as pool:
        rows = [row for report in pool.map(functools.partial(_compile_unit, nvcc), units) for row in report]
    kept.parent.mkdir(parents=True, exist_ok=True)
    partial = kept.with_suffix(f".{os.getpid()}.tmp")
    partial.write_text(json.dumps(rows))
    os.replace(partial, kept)
    return rows


def _compile_unit(nvcc: Path, unit: Path) -> list[dict[str, Any]]:
    targets = [f"-gencode=arch={a.replace('sm', 'compute')},code={a}" for a in ARCHITECTURES]
    with tempfile.TemporaryDirectory() as work:
        command = [str(nvcc), *_CUDA_FLAGS, *targets, "-Xptxas=-v", "-c", str(unit), "-o", f"{work}/unit.o"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise BuildError("\n".join(done.stdout.strip().splitlines()[-_SHOWN:]))
    kernel = re.compile(r"Compiling entry function '(\S+)' for '(\S+)'(.*?)Used (\d+) registers", re.DOTALL)
    return [
        {
            "operator": unit.stem,
            "kernel": _kernel_name(symbol),
            "architecture": architecture,
            "registers": int(registers),
            "spilled": sum(map(int, re.findall(r"(\d+) bytes spill", between))),
        }
        for symbol, architecture, between, registers in kernel.findall(done.stdout)
    ]


def _kernel_name(symbol: str) -> str:
    """Kernel, stored type and layout from the compiler's name for it."""
    kind = next(k for k in ("forward", "window", "gather") if f"{k}_kernel" in symbol)
    stored = next((t for t in ("HalfBits", "BFloatBits") if t in symbol), "double" if "EddLb" in symbol else "float")
    return f"{kind} {stored} {'channels_last' if 'Lb1E' in symbol else 'nchw'}"


# ---- say -------------------------------------------------------------------------------------------------------------


def status() -> str:
    """What is active and why the rest is not, in a few lines."""
    if _active and _loaded is not None:
        kind = "packaged" if _loaded.parent == _PACKAGE / "lib" else "built here"
        return f"compiled CPU kernels are active ({kind}): {', '.join(_names())}\nlibrary: {_loaded}"
    if mode() == "0":
        return "POOLNB_NATIVE=0: the PyTorch kernels are active"
    failure = cached_folder().with_suffix(".failed")
    if failure.is_file():
        return f"the PyTorch kernels are active; the last build failed:\n{failure.read_text()}"
    why = "`poolnb build` builds the compiled ones" if sources() else "the sources of the compiled ones are not here"
    return f"the PyTorch kernels are active; {why}"


def main(argv: Sequence[str] | None = None) -> int:
    """``poolnb build``; 0 if the library is there afterwards, else 1: everything works without it, more slowly."""
    parser = argparse.ArgumentParser(prog="poolnb build", description="Build the compiled kernels for this machine.")
    parser.add_argument("--force", action="store_true", help="build even if a library or a failed build is there")
    parser.add_argument("--compile-here", metavar="FOLDER", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.compile_here:
        _compile_here(Path(arguments.compile_here))
        return 0
    there = find()
    if there is not None and not arguments.force:
        print(f"compiled kernels: {there}")
        return 0
    print("building the compiled kernels", flush=True)
    try:
        path = build(arguments.force)
    except BuildError as error:
        print(f"{error}\nthe compiled kernels could not be built: the PyTorch kernels are used", file=sys.stderr)
        return 1
    seconds = json.loads((path.parent / "build.json").read_text())["seconds"]
    print(f"compiled kernels: {path} ({seconds} s)")
    return 0
