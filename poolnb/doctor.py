"""`poolnb doctor`: what is installed here, which data and which kernels are there, and how to get the rest."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from poolnb._machine import usable_cores

_PACKAGES = {
    "library": ("poolnb", "torch"),
    "lab": ("torchvision", "numpy", "scipy", "pandas", "scikit-learn", "matplotlib", "seaborn", "papermill", "tqdm"),
    "book": ("jupyter-book", "sphinx-book-theme", "sphinx-mathjax-offline"),
    "test": ("pytest", "nbval", "hypothesis"),
}
_LOCK = Path(__file__).parent.parent / "requirements.lock"
_COMPILERS = ("c++", "g++", "clang++", "nvcc", "ninja")


def report() -> str:
    """The whole report, ready to print. It does not raise: what is missing is a line of the report."""
    sections = {
        "Python": [f"{platform.python_version()} on {platform.system()} {platform.machine()}"],
        **{f"Packages, {group}": _versions(names, group) for group, names in _PACKAGES.items()},
        "Versions beside requirements.lock": departures(_LOCK),
        "Torch": _torch(),
        "Compilers": _compilers(),
        "Native kernels": _native(),
        "Data": _data(),
    }
    return "\n".join(line for title, lines in sections.items() for line in (title, *(f"  {text}" for text in lines)))


def _versions(names: Iterable[str], group: str) -> list[str]:
    return [f"{name:24}{_version(name, group)}" for name in names]


def _version(name: str, group: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        wanted = "poolnb" if group == "library" else f"poolnb[{group}]"
        return f"not installed (pip install '{wanted}'; in a checkout, make book)"


def departures(lock: Path) -> list[str]:
    """Where the environment departs from a lock file: a line per package of another version, one for missing ones."""
    if not lock.is_file():
        return ["not compared: the file lies in a checkout of the project"]
    try:
        from packaging.requirements import Requirement
    except ImportError as error:
        return [f"not compared ({error})"]
    lines = [line.rstrip("\\ \n") for line in lock.read_text(encoding="utf-8").splitlines() if line[:1].isalnum()]
    locked = [one for one in map(Requirement, lines) if one.marker is None or one.marker.evaluate()]
    found = {one: next(iter(importlib.metadata.distributions(name=one.name)), None) for one in locked}
    other = [
        f"{one.name:24}{there.version}, locked {str(one.specifier).removeprefix('==')}"
        for one, there in found.items()
        if there is not None and not one.specifier.contains(there.version, prereleases=True)
    ]
    missing = [f"{one.name} {str(one.specifier).removeprefix('==')}" for one, there in found.items() if there is None]
    return [*other, *([f"not installed: {', '.join(missing)}"] if missing else [])] or ["as locked"]


def _torch() -> list[str]:
    import torch

    lines = [f"{torch.get_num_threads()} threads, {usable_cores()} cores; {torch.backends.cpu.get_cpu_capability()}"]
    if not torch.cuda.is_available():
        return [*lines, "no CUDA device: everything runs on the CPU"]
    devices = range(torch.cuda.device_count())
    return lines + [f"cuda:{number} {torch.cuda.get_device_name(number)}" for number in devices]


def _compilers() -> list[str]:
    found = {name: path for name in _COMPILERS if (path := shutil.which(name))}
    if not found:
        return ["none found: the PyTorch kernels work without"]
    return [f"{name:24}{_first_line(path)}" for name, path in found.items()]


def _first_line(program: str) -> str:
    try:
        output = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return f"does not answer: {error}"
    lines = output.strip().splitlines() or ["(says nothing)"]
    return next((line for line in lines if "release" in line), lines[0])  # nvcc's version is not in its first line


def _native() -> list[str]:
    if importlib.util.find_spec("poolnb.native") is None:
        return ["this version of poolnb has none: the PyTorch kernels are active"]
    return str(importlib.import_module("poolnb.native").status()).splitlines()


def _data() -> list[str]:
    try:
        from poolnb.lab.data import DATASETS, data_folder, missing_files
    except ImportError as error:
        return [f"cannot be told without the lab's packages ({error})"]
    named = "POOLNB_DATA" if os.environ.get("POOLNB_DATA") else "the default; POOLNB_DATA names another"
    try:
        lines = [f"folder: {data_folder()} ({named})"]
    except RuntimeError:  # no HOME, and no entry for this user
        return ["no home folder is known: POOLNB_DATA names a folder for the data"]
    for name, info in DATASETS.items():
        if not info.files:
            lines.append(f"{name:24}comes with scikit-learn")
        elif missing := missing_files(name):
            lines.append(f"{name:24}missing {info.folder}/: {', '.join(missing)}; downloaded when first used")
        else:
            lines.append(f"{name:24}there")
    return lines
