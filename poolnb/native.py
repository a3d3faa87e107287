"""The compiled kernels of ``ext/``: find them, build them on request, say which are active.

One library holds the CPU's kernels, another one the GPU's. Each is looked for where ``poolnb build`` left it in the
user's cache, then inside the package (``poolnb/lib``: a wheel may bring one CPU library per level of processors, of
which the highest is taken that this one has). Without one every operator runs on its PyTorch kernel, with the same
results. A library in the cache is loaded only if nobody else could have written it and if it is, byte for byte, the one
that was built for these sources.
The environment variable ``POOLNB_NATIVE`` chooses: ``1`` (default) uses compiled kernels if there are any, ``0`` never,
``require`` makes the import of poolnb fail without them. Nothing is ever compiled at import.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import json
import os
import platform
import re
import stat
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

_PACKAGE = Path(__file__).parent
_PACKAGED = _PACKAGE / "lib"  # a folder per level of processors, in a platform wheel
_LIBRARIES = {"cpu": "poolnb_native.so", "cuda": "poolnb_native_cuda.so"}
RECORD = "build.json"  # beside a library: how it was built, its digest, and what a packaged one needs
_MODES = ("0", "1", "require")
OF_PARTS = ("s3", "maxblur")  # operators without a kernel of their own, that ext/cpu/bind.cpp compiles the parts of
KINDS = {"cpu": "compiled kernels", "cuda": "compiled CUDA kernels"}
_MEND = {"cpu": "builds a new one", "cuda": "builds a new one (with --cuda)"}
STANDARD = "-std=c++20"  # said: torch 2.11 takes C++17 of itself
FLAGS = [
    "-O3",
    STANDARD,
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-Wno-psabi",
    "-Wno-maybe-uninitialized",
]
CUDA_FLAGS = ["-O3", STANDARD, "-fmad=false", "--expt-relaxed-constexpr", "-Xcompiler", "-fvisibility=hidden"]

_handles: dict[str, ctypes.CDLL] = {}
_loaded: dict[str, Path] = {}
_active = False


# ---- which library ---------------------------------------------------------------------------------------------------


def mode() -> str:
    """The value of ``POOLNB_NATIVE``."""
    value = os.environ.get("POOLNB_NATIVE", "1")
    if value not in _MODES:
        raise ImportError(f"POOLNB_NATIVE must be one of {', '.join(_MODES)}, got {value!r}")
    return value


def sources_folder() -> Path:
    """The folder ``ext``: inside the installed package, in a checkout beside it."""
    installed = _PACKAGE / "ext"
    return installed if installed.is_dir() else _PACKAGE.parent / "ext"


def sources(device: str = "cpu") -> list[Path]:
    """The files of ``ext/`` for a device's library; empty where poolnb is installed without them."""
    folder = sources_folder()
    other = folder / ("cuda" if device == "cpu" else "cpu")
    files = (p for p in folder.rglob("*") if p.suffix in (".h", ".def", ".cpp", ".cuh"))
    return sorted(p for p in files if other not in p.parents)


@functools.cache
def operator_types() -> dict[str, str]:
    """The operators of ``ext/operators.def``, name -> C++ type; empty where poolnb is installed without ``ext/``."""
    table = sources_folder() / "operators.def"
    lines = re.findall(r"^POOLNB_OPERATOR\((\w+), (\w+),", table.read_text(), re.MULTILINE) if table.is_file() else []
    return {name: type_ for type_, name in lines}


@functools.cache
def processor() -> str:
    """What the processor can do, in the operating system's words: libraries are built for it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features"))).partition(":")[2]
    except (OSError, StopIteration):
        return f"{platform.machine()} {platform.processor()}"


def library_name(device: str) -> str:
    """The file name of a device's library."""
    return _LIBRARIES[device]


def cache() -> Path | None:
    """The user's cache of poolnb; ``None`` where neither ``XDG_CACHE_HOME`` nor a home folder is known."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        base = named if named.is_absolute() else Path.home() / ".cache"
    except RuntimeError:  # no HOME, and no entry for this user
        return None
    return base / "poolnb" if base.is_absolute() else None


def cached_folder(device: str = "cpu") -> Path | None:
    """Where the library for these sources and this processor is kept; ``None`` where there is no cache."""
    folder = cache()
    if folder is None:
        return None
    digest = hashlib.sha256(device.encode())
    for path in sources(device):
        digest.update(str(path.relative_to(sources_folder())).encode() + b"\0" + path.read_bytes())
    flags = FLAGS if device == "cpu" else [*CUDA_FLAGS, os.environ.get("TORCH_CUDA_ARCH_LIST", "")]
    for fact in (RECORD, platform.machine(), sys.platform, processor(), *flags):
        digest.update(fact.encode() + b"\0")
    return folder / "native" / digest.hexdigest()[:24]


def find(device: str = "cpu") -> Path | None:
    """The library to use: cached if :func:`fault` finds nothing, else packaged, else none."""
    return next(iter(_candidates(device)), None)


def _candidates(device: str) -> list[Path]:
    """The libraries that may be loaded, the one that was built here first: somebody asked for it."""
    cached = _cached(device)
    fit = [cached] if cached is not None and fault(cached) is None else []
    return [*fit, *_packaged(device)]


def _packaged(device: str) -> list[Path]:
    """The packaged library for this processor, if there is one."""
    there = {path.parent.name: path for path in _PACKAGED.glob(f"*/{_LIBRARIES[device]}")}
    needs = {level: json.loads((path.parent / RECORD).read_text())["needs"] for level, path in there.items()}
    best = best_level(needs, processor().split())
    return [there[best]] if best is not None else []


def best_level(needs: Mapping[str, Sequence[str]], can: Sequence[str]) -> str | None:
    """The most demanding level of which a processor can do all that it needs; ``None`` if there is none."""
    fit = [level for level, needed in needs.items() if set(needed) <= set(can)]
    return max(fit, key=lambda level: len(needs[level]), default=None)


def _cached(device: str) -> Path | None:
    """The library in the cache, fit for use or not."""
    try:
        folder = cached_folder(device)
        return folder / _LIBRARIES[device] if folder and os.path.lexists(folder / _LIBRARIES[device]) else None
    except OSError:  # sources or a cache that this user may not read
        return None


def fault(library: Path) -> str | None:
    """Why a cached library is not to be loaded, in words: others could have written it, or it is damaged."""
    try:
        return _open_to_others(library) or _not_a_file(library) or _damage(library)
    except PermissionError as error:
        return f"{library} cannot be read: {error}"
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:  # links in a circle, braces without end
        return f"{library} is damaged: {error}"


def _open_to_others(library: Path) -> str | None:
    """Who else could have written a file: its owner, a group or everybody, or who may rename the folders above it."""
    if not hasattr(os, "geteuid"):
        return None
    real = library.resolve(strict=True)
    ours = [library, *library.parents[:3], real, real.parent]  # library, its folder, native, poolnb; behind links
    for path in ours:
        found = path.stat()
        if found.st_uid not in (0, os.geteuid()):
            return f"{path} belongs to another user (number {found.st_uid})"
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return f"{path} can be written by other users"
    for path in {*real.parents, *(above for p in ours for above in p.resolve().parents)}:
        mode = path.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:  # in a sticky folder nobody renames what others own
            return f"{path} can be written by other users"
    return None


def _not_a_file(library: Path) -> str | None:
    """A pipe would be waited for, a device read without end."""
    there = (library, library.parent / RECORD)
    return next((f"{library} is damaged: {p} is no file" for p in there if not stat.S_ISREG(p.stat().st_mode)), None)


def _damage(library: Path) -> str | None:
    """A library has to be the one that its build recorded: loading a file that was cut can end the process."""
    record = json.loads((library.parent / RECORD).read_text())
    if record["key"] != library.parent.name:
        return f"{library} is damaged: it was built from other sources or for another processor"
    if record["sha256"] != hashlib.sha256(library.read_bytes()).hexdigest():
        return f"{library} is damaged: it is not as it was built"
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
    problem = "none is built for these sources and this processor; `poolnb build` builds them"
    for device in ("cpu", "cuda") if torch.version.cuda else ("cpu",):
        fallen_back = _load(device)
        if fallen_back is not None:
            problem = fallen_back if device == "cpu" else problem
            if wanted != "require" or device != "cpu":
                warnings.warn(f"{fallen_back}: not loaded, the PyTorch kernels are used", RuntimeWarning, stacklevel=3)
    if "cpu" not in _handles and wanted == "require":
        raise ImportError(f"POOLNB_NATIVE=require, but there are no compiled kernels: {problem}")


def _load(device: str) -> str | None:
    """Load a device's library if there is one; why it is not loaded if it is not fit."""
    why = None
    for path in _candidates(device):
        try:
            load_library(device, path)
            return None
        except (OSError, AttributeError) as error:  # another system, or no library of ours
            why = f"{path} cannot be loaded: {error}"
    cached = _cached(device)
    if why is None and cached is not None:
        why = fault(cached)
    return f"{why}; `poolnb build` {_MEND[device]}" if why else None


def load_library(device: str, path: Path) -> None:
    """Load a library and use it."""
    if device not in _handles:
        handle = ctypes.CDLL(str(path))
        handle.poolnb_operators.restype = ctypes.c_char_p
        _handles[device], _loaded[device] = handle, path
        if _active:
            handle.poolnb_activate()
    _switch(True)


def _switch(on: bool) -> None:
    global _active
    if _handles and on != _active:
        for handle in _handles.values():
            (handle.poolnb_activate if on else handle.poolnb_deactivate)()
        _active = on


def available(device: str = "cpu") -> bool:
    """Whether the library for a device is loaded, active or not."""
    return device in _handles


def operators(device: str = "cpu") -> tuple[str, ...]:
    """Names of the operators that run a device's compiled kernels."""
    return names(device) if _active else ()


def names(device: str = "cpu") -> tuple[str, ...]:
    """Names of the operators in a device's library."""
    return tuple(_handles[device].poolnb_operators().decode().split()) if device in _handles else ()


def in_force(device: str = "cpu") -> dict[str, str | None]:
    """The kernels that a device (``cpu`` or ``cuda``) computes with now: which set, and the library's fingerprint."""
    if not _active or device not in _handles:
        return {"set": "pytorch", "library": None}
    return {"set": "compiled", "library": _fingerprint(_loaded[device])}


@functools.cache
def _fingerprint(library: Path) -> str:
    return hashlib.sha256(library.read_bytes()).hexdigest()


@contextlib.contextmanager
def disabled() -> Iterator[None]:
    """Run a block with the PyTorch kernels alone. It counts for the whole process, all threads."""
    before = _active
    _switch(False)
    try:
        yield
    finally:
        _switch(before)


# ---- say -------------------------------------------------------------------------------------------------------------


def status() -> str:
    """What is active and why the rest is not, in a few lines."""
    if mode() == "0":
        return "POOLNB_NATIVE=0: the PyTorch kernels are active"
    return f"{_cpu_status()}\n{_cuda_status()}"


def _cuda_status() -> str:
    if "cuda" in _handles:
        return f"compiled CUDA kernels are {'active' if _active else 'switched off'}\nlibrary: {_loaded['cuda']}"
    if not torch.version.cuda:
        return "no compiled CUDA kernels: this torch is built without CUDA"
    why = _why_not("cuda")
    if why is not None:
        return f"no compiled CUDA kernels; {why}"
    return "no compiled CUDA kernels; `poolnb build --cuda` builds them where nvcc is"


def _cpu_status() -> str:
    if _active and "cpu" in _handles:
        folder = _loaded["cpu"].parent
        kind = f"packaged, for {folder.name}" if folder.parent == _PACKAGED else "built here"
        return f"compiled CPU kernels are active ({kind}): {', '.join(names())}\nlibrary: {_loaded['cpu']}"
    why = _why_not("cpu")
    if why is not None:
        return f"the PyTorch kernels are active; {why}"
    why = "`poolnb build` builds the compiled ones" if sources() else "the sources of the compiled ones are not here"
    if _PACKAGED.is_dir() and find() is None:
        why = f"no packaged library is for this processor; {why}"
    return f"the PyTorch kernels are active; {why}"


def _why_not(device: str) -> str | None:
    """What stands against a library, in words; ``None`` if nobody has built one."""
    try:
        folder = cached_folder(device)
        if folder is None:
            return "there is no cache to look in: no home folder is known (XDG_CACHE_HOME names a cache)"
        library, failure = folder / _LIBRARIES[device], folder.with_suffix(".failed")
        if os.path.lexists(library):
            return fault(library) or f"{library} cannot be loaded"
        return f"the last build failed:\n{failure.read_text()}" if failure.is_file() else None
    except OSError as error:
        return f"the cache cannot be read: {error}"
