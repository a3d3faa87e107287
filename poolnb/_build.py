"""Build the libraries of compiled kernels, in a process of its own, and check them before anybody uses them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from poolnb import native
from poolnb._machine import usable_cores

ARCHITECTURES = "8.0;9.0;10.0;12.0"  # of GPUs; TORCH_CUDA_ARCH_LIST names others
_ROOT = Path(__file__).parent.parent  # where poolnb is imported from
_SHOWN = 30  # last lines of a failed build
NATIVE = "native"  # the level of this very processor
# What the levels of the x86-64 ABI add to the one before, in the names of /proc/cpuinfo.
_X86_64 = {
    "x86-64-v2": "cx16 lahf_lm pni popcnt sse4_1 sse4_2 ssse3",
    "x86-64-v3": "abm avx avx2 bmi1 bmi2 f16c fma movbe xsave",
    "x86-64-v4": "avx512bw avx512cd avx512dq avx512f avx512vl",
}
# Whose timings the compiler assumes: with its default, soft pooling's forward pass takes a tenth longer on AVX-512.
_TUNE = {"x86-64-v4": "icelake-server"}


# What a compiler says where the machine is at fault: the next build may do, and tries.
_PASSING = (
    "No space left on device",
    "Disk quota exceeded",
    "Killed signal",
    "out of memory",
    "Cannot allocate memory",
)


class BuildError(RuntimeError):
    """The compiled kernels could not be built; the message ends with the compiler's last lines."""


def build(device: str = "cpu", force: bool = False) -> Path:
    """Build a device's library into the user's cache, unless it is there and fit for use; returns its path.

    A build that failed with this compiler is not tried again without ``force``.

    Raises:
        BuildError: no sources, no compiler, no ninja, no cache that can be written, or the compiler failed.
    """
    found = native.find(device)
    if found is not None and not force:
        return found
    compiler = _compiler() if device == "cpu" else _cuda_compiler()[1]
    _ninja()
    folder, library = native.cached_folder(device), native.library_name(device)
    if folder is None:
        raise BuildError("no cache to build into: no home folder is known (XDG_CACHE_HOME names a cache)")
    failure = folder.with_suffix(".failed")
    try:
        if failure.is_file() and not force and (text := failure.read_text()).startswith(compiler):
            raise BuildError(f"not tried again (poolnb build --force does): {text.partition(chr(10))[2]}")
        _make_private(folder.parent)
        with tempfile.TemporaryDirectory(prefix="build-", dir=folder.parent, ignore_cleanup_errors=True) as work:
            print(f"building the {native.KINDS[device]}", flush=True)
            try:
                record = _compile(device, Path(work), compiler)
            except BuildError as error:
                if any(reason in str(error) for reason in _PASSING):
                    raise
                with contextlib.suppress(OSError):  # replaced, not written to: a pipe would wait for a reader
                    note = Path(work) / "failed"
                    note.write_text(f"{compiler}\n{error}")
                    os.replace(note, failure)
                raise
            with _locked(folder.parent):
                _publish(Path(work), folder, library, record)
                why = native.fault(folder / library)
        with contextlib.suppress(OSError):
            failure.unlink()
    except OSError as error:
        raise BuildError(f"the cache {folder.parent} cannot be used: {error} (XDG_CACHE_HOME names another)") from error
    if why is not None:
        raise BuildError(f"the new library would not be loaded: {why} (XDG_CACHE_HOME names another cache)")
    return folder / library


def levels() -> dict[str, list[str]]:
    """The levels of processors that a wheel made on this machine is for, and what a processor needs for each.

    On x86-64 those of its ABI from v2 on; on others there is one level, what this processor can do.
    """
    if platform.machine() != "x86_64":
        return {NATIVE: native.processor().split()}
    steps = [_X86_64[level].split() for level in _X86_64]
    return {level: sum(steps[: number + 1], []) for number, level in enumerate(_X86_64)}


def build_levels(folder: Path) -> Iterator[Path]:
    """Build the CPU library once per level, into ``folder``; yields the path of each when it is there.

    A level that this processor does not have is compiled without being tried.

    Raises:
        BuildError: no sources, no compiler, no ninja, or the compiler failed.
    """
    compiler = _compiler()
    _ninja()
    for level, needs in levels().items():
        with tempfile.TemporaryDirectory(prefix="poolnb-build-") as work:
            record = {**_compile("cpu", Path(work), compiler, level), "needs": needs}
            (folder / level).mkdir(parents=True, exist_ok=True)
            library = shutil.move(Path(work) / native.library_name("cpu"), folder / level / native.library_name("cpu"))
            (folder / level / native.RECORD).write_text(json.dumps(record, indent=1) + "\n")
        yield Path(library)


def _make_private(folder: Path) -> None:
    """The folder of libraries is its user's alone; the cache of poolnb above it, which holds data too, can be read."""
    folder.parent.parent.mkdir(parents=True, exist_ok=True)
    for path, closed in ((folder.parent, 0o022), (folder, 0o077)):
        path.mkdir(mode=0o700, exist_ok=True)
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & closed:
            with contextlib.suppress(OSError):  # somebody else's, or a file system without modes: `fault` decides
                path.chmod(mode & ~closed)


def _compiler() -> str:
    """The C++ compiler that torch will call, and its version."""
    if not native.sources():
        raise BuildError("the sources of the compiled kernels are not here (folder ext)")
    command = shlex.split(os.environ.get("CXX", "")) or ["c++"]
    path = shutil.which(command[0])
    if path is None:
        raise BuildError(f"no C++ compiler: {command[0]} is not on PATH")
    try:
        return _first_line(path, *command[1:], "--version") or path
    except OSError as error:
        raise BuildError(f"no C++ compiler: {path} does not run ({error})") from error


def _ninja() -> None:
    if shutil.which("ninja", path=search_path()) is None:
        raise BuildError("no ninja, which torch builds with: pip install ninja")


def search_path() -> str:
    """PATH; ninja is often installed beside this interpreter without being on it."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def cuda_toolkit() -> Path:
    """The folder of the CUDA compiler's toolkit. Raises BuildError if there is none."""
    return _cuda_compiler()[0]


def _cuda_compiler() -> tuple[Path, str]:
    """The toolkit of the CUDA compiler, and its version: nvcc on PATH may be a link or a script that calls it."""
    _compiler()
    found = shutil.which("nvcc")
    if found is None:
        raise BuildError("no CUDA compiler: nvcc is not on PATH")
    if torch.version.cuda is None:
        raise BuildError(f"torch {torch.__version__} is built without CUDA")
    told = subprocess.run([found, "--dryrun", "-x", "cu", os.devnull], capture_output=True, text=True).stderr
    tops = [line.partition("TOP=")[2].strip() for line in told.splitlines() if "TOP=" in line]
    toolkit = Path(tops[0]).resolve() if tops else Path(found).resolve().parent.parent
    version = subprocess.run([found, "--version"], capture_output=True, text=True).stdout.strip()
    return toolkit, next((line for line in version.splitlines() if "release" in line), version)


def _first_line(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout.partition("\n")[0]


def _compile(device: str, work: Path, compiler: str, level: str = NATIVE) -> dict[str, Any]:
    jobs = os.environ.get("MAX_JOBS") or str(usable_cores())
    environment = {**os.environ, "PATH": search_path(), "MAX_JOBS": jobs, "POOLNB_NATIVE": "0"}
    environment["PYTHONPATH"] = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])
    if device == "cuda":
        environment["CUDA_HOME"] = str(cuda_toolkit())
        environment["TORCH_CUDA_ARCH_LIST"] = architectures()
    began = time.monotonic()
    call = "import sys; from poolnb.build import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", call, "--compile-here", device, level, str(work)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        said = done.stdout.partition("ninja: build stopped")[0]  # what follows is the traceback of who called ninja
        lines = said.strip().splitlines()[-_SHOWN:]
        first = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "it said nothing")
        first = next((line for line in said.splitlines() if any(reason in line for reason in _PASSING)), first)
        raise BuildError("\n".join([f"the compiler failed: {first.strip()}", *lines]))
    record = {"compiler": compiler, "torch": torch.__version__, "seconds": round(time.monotonic() - began, 1)}
    return record if device == "cpu" else {**record, "kernels": kernel_report(done.stdout)}


def architectures() -> str:
    """Of the GPUs that the CUDA library is for."""
    return os.environ.get("TORCH_CUDA_ARCH_LIST") or ARCHITECTURES


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Alone among the builds into this cache, if its file system knows locks: an old library is away for a moment."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _publish(work: Path, folder: Path, library: str, record: dict[str, Any]) -> None:
    """Move what is wanted into place at once: another process sees all of it or nothing."""
    ready = work / "ready"
    ready.mkdir(mode=0o700)
    shutil.move(work / library, ready / library)
    with contextlib.suppress(OSError):  # a file system without modes
        (ready / library).chmod(0o700)
    record = {**record, "key": folder.name, "sha256": hashlib.sha256((ready / library).read_bytes()).hexdigest()}
    (ready / native.RECORD).write_text(json.dumps(record, indent=1) + "\n")
    with contextlib.suppress(OSError):  # none is there; else a process that uses the old library keeps it
        os.replace(folder, work / "old")
    with contextlib.suppress(OSError):  # another process was first
        os.replace(ready, folder)


def write_units(device: str, folder: Path) -> list[Path]:
    """What is to be compiled, with ``ext`` on the include path: the binding to torch, and a unit per operator.

    Units are written into ``folder``, so that operators are compiled side by side.
    """
    template, suffix = ("cpu/run.h", ".cpp") if device == "cpu" else ("cuda/launch.cuh", ".cu")
    units = []
    for name, type_ in native.operator_types().items():
        units.append(folder / f"{name}{suffix}")
        units[-1].write_text(f'#include "windows/{name}.h"\n\n#include "{template}"\n\nPOOLNB_UNIT({type_})\n')
    return [native.sources_folder() / device / "bind.cpp", *units]


def compile_here(device: str, level: str, work: Path) -> None:
    """Compile, load and check a library for a level of processors: runs in the build's own process."""
    from torch.utils import cpp_extension

    library = native.library_name(device)
    units = [str(unit) for unit in write_units(device, work)]
    options: dict[str, Any] = {"build_directory": str(work), "verbose": True, "is_python_module": False}
    options["extra_include_paths"] = [str(native.sources_folder())]
    if device == "cuda":
        options["extra_cuda_cflags"] = [*native.CUDA_FLAGS, "-Xptxas=-v"]
        binding = [native.STANDARD, "-O1", "-fvisibility=hidden"]
        cpp_extension.load(Path(library).stem, units, extra_cflags=binding, **options)
    else:
        known = [] if platform.machine() in ("ppc64le", "riscv64") else [f"-march={level}"]
        known += [f"-mtune={_TUNE[level]}"] if level in _TUNE else []
        wide = ["-mprefer-vector-width=512"] if platform.machine() == "x86_64" else []
        if level != NATIVE and sys.platform == "linux":  # its half precision, new in GCC 12, is not in older systems
            options["extra_ldflags"] = ["-lgcc"]
        foreign = level != NATIVE and not set(levels()[level]) <= set(native.processor().split())
        with mock.patch.object(torch.ops, "load_library") if foreign else contextlib.nullcontext():
            cpp_extension.load(Path(library).stem, units, extra_cflags=[*native.FLAGS, *known, *wide], **options)
        if foreign:  # loaded here, it could end the process
            return
    import poolnb  # noqa: F401

    native.load_library(device, work / library)
    if device == "cpu" or torch.cuda.is_available():
        _check(device)


# ---- check -----------------------------------------------------------------------------------------------------------


def _check(device: str) -> None:
    """Compare the compiled kernels of every operator with PyTorch's on a small input."""
    for name, call in _examples(device).items():
        compiled = _gradients(call)
        with native.disabled():
            expected = _gradients(call)
        for a, b in zip(compiled, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4, msg=partial("{}: {}".format, name))


def _examples(device: str) -> dict[str, Any]:
    from poolnb import functional
    from poolnb.ops.examples import example_params

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 18, 9, 8, generator=generator).to(device)
    return {
        f"{name}, {layout}, {windows}": (
            partial(getattr(functional, f"{name}_pool2d"), **example_params(name, x, taps=windows[0] ** 2)),
            x.contiguous(memory_format=layout),
            windows,
        )
        for name in [*native.operator_types(), *(native.OF_PARTS if device == "cpu" else ())]
        for layout in (torch.contiguous_format, torch.channels_last)
        for windows in ((2, 2, 0), (3, 2, 1))
    }


def _gradients(call: Any) -> list[torch.Tensor]:
    pool, x, windows = call
    leaves = {k: v.detach().requires_grad_() for k, v in pool.keywords.items() if isinstance(v, torch.Tensor)}
    x = x.detach().requires_grad_()
    y = pool(x, *windows, **leaves)
    grad = torch.linspace(-1, 1, y.numel(), device=y.device).view(y.shape)
    return [y.detach(), *torch.autograd.grad(y, [x, *leaves.values()], grad)]


# ---- what the CUDA compiler says of its kernels ----------------------------------------------------------------------


def kernel_report(text: str) -> list[dict[str, Any]]:
    """One row per kernel and architecture: its registers, and the bytes that a thread spills to memory."""
    kernel = re.compile(r"Compiling entry function '(\S+)' for 'sm_(\d+)'(.*?)Used (\d+) registers", re.DOTALL)
    return sorted(
        (
            {
                "kernel": _kernel_name(symbol),
                "architecture": f"sm_{architecture}",
                "registers": int(registers),
                "spilled": sum(map(int, re.findall(r"(\d+) bytes spill", between))),
            }
            for symbol, architecture, between, registers in kernel.findall(text)
        ),
        key=lambda row: (row["kernel"], row["architecture"]),
    )


def _kernel_name(symbol: str) -> str:
    """Operator, kernel and stored type from the compiler's name for it, and the windows that it is for."""
    kind = next(k for k in ("forward", "non_overlapping", "window", "gather", "table") if f"{k}_kernel" in symbol)
    operator = next(name for name, type_ in native.operator_types().items() if f"{len(type_)}{type_}" in symbol)
    stored = next((t for t in ("HalfBits", "BFloatBits") if t in symbol), "double" if "dd" in symbol else "float")
    shape = re.search(r"Li([1-9])ELi([1-9])E", symbol)
    return f"{operator} {kind} {stored}" + (" {}x{}".format(*shape.groups()) if shape else "")
