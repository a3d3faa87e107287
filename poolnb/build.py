"""The command ``poolnb build``: it makes the compiled kernels and says what became of it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from poolnb import native
from poolnb._build import BuildError, build, build_levels, compile_here


def main(argv: Sequence[str] | None = None) -> int:
    """``poolnb build``; 0 if the libraries are there afterwards, else 1: everything works without them, more slowly."""
    parser = argparse.ArgumentParser(prog="poolnb build", description="Build the compiled kernels for this machine.")
    parser.add_argument("--force", action="store_true", help="build even if a library or a failed build is there")
    parser.add_argument("--cuda", action="store_true", help="the GPU's kernels too, though no GPU is visible")
    parser.add_argument("--if-possible", action="store_true", help="where they cannot be built, one line and status 0")
    parser.add_argument(
        "--levels", metavar="FOLDER", help="one CPU library per level of processors instead, for a wheel"
    )
    parser.add_argument("--compile-here", nargs=3, metavar=("DEVICE", "LEVEL", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.compile_here:
        device, level, folder = arguments.compile_here
        compile_here(device, level, Path(folder))
        return 0
    if arguments.levels:
        return _build_levels(Path(arguments.levels))
    devices = ["cpu", "cuda"] if arguments.cuda or torch.cuda.is_available() else ["cpu"]
    done = [_build(device, arguments.force, arguments.if_possible) for device in devices]
    return 0 if arguments.if_possible else max(done)


def _build(device: str, force: bool, briefly: bool) -> int:
    kind = native.KINDS[device]
    there = native.find(device)
    useless = (
        there is not None and native.mode() != "0" and device not in native._handles
    )  # it could not be loaded at import
    if there is not None and not force and not useless:
        print(f"{kind}: {there}")
        return 0
    try:
        path = build(device, force or useless)
    except BuildError as error:
        why = f"{error.args[0].splitlines()[0]}: " if briefly else f"{error}\n"
        print(f"{why}the {kind} could not be built, the PyTorch kernels are used", file=sys.stderr)
        return 1
    _tell(kind, path)
    return 0


def _build_levels(folder: Path) -> int:
    try:
        for path in build_levels(folder):
            _tell(native.KINDS["cpu"], path)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _tell(kind: str, path: Path) -> None:
    seconds = json.loads((path.parent / native.RECORD).read_text())["seconds"]
    print(f"{kind}: {path} ({seconds} s)", flush=True)
