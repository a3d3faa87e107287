"""Where things are in a checkout, and fingerprints of what a result depends on.

A fingerprint is a SHA-256. It does not depend on where the checkout lies, on the operating system's line ends, or on
the order in which the file system lists a folder. Of folders it takes names and contents, of sources what they mean.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from poolnb.lab.fingerprint import sources_fingerprint

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
RESULTS = BOOK / "results"

# The tools around runs and chapters. No record can depend on them; what chapters depend on, `poolnb.book.reach` finds.
_TOOLS = {"poolnb/bench", "poolnb/book", "poolnb/cli.py", "poolnb/doctor.py"}
_SOURCES = {".py", ".h", ".hpp", ".def", ".cpp", ".cu", ".cuh"}


def text_hash(text: str) -> str:
    """SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def files_hash(files: Iterable[Path], base: Path) -> str:
    """SHA-256 over the names (relative to `base`) and contents of `files`, in hexadecimal."""
    digest = hashlib.sha256()
    for path in sorted(files, key=lambda p: p.relative_to(base).as_posix()):
        content = path.read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{path.relative_to(base).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def source_files() -> list[Path]:
    """The files that decide what poolnb computes: those of `poolnb/` without the tools, and the sources in `ext/`."""
    found = [p for folder in (ROOT / "poolnb", ROOT / "ext") for p in folder.rglob("*") if p.suffix in _SOURCES]
    return [p for p in found if not any(p.is_relative_to(ROOT / tool) for tool in _TOOLS)]


def source_hash() -> str:
    """Fingerprint of `poolnb` and `ext`: it changes when what a file says changes that decides what poolnb computes."""
    return sources_fingerprint(source_files(), ROOT)


def folder_hash(folder: Path) -> str:
    """Fingerprint of every file in `folder`, hidden and temporary ones left out.

    Raises `FileNotFoundError` when the folder does not exist: an absent input must not look like an empty one.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"folder: {folder} does not exist")
    files = [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".") and p.suffix != ".tmp"]
    return files_hash(files, folder)


def note_use(folder: Path) -> None:
    """Tell the runner of chapters that the running chapter reads `folder`.

    The runner names a file in `POOLNB_USES`; the chapter's receipt then carries the fingerprint of what is noted there.
    Outside the runner this does nothing. A folder that is not under `book/` is no part of the book and is not noted.
    """
    folder = Path(folder).resolve()
    if "POOLNB_USES" in os.environ and folder.is_relative_to(BOOK):
        _note("folder", folder.relative_to(BOOK).as_posix(), folder_hash(folder))


def note_data(name: str, sha256: str) -> None:
    """Tell the runner of chapters that the running chapter computes with the data set `name`."""
    _note("data", name, sha256)


def _note(kind: str, name: str, fingerprint: str) -> None:
    if log := os.environ.get("POOLNB_USES"):
        with open(log, "a", encoding="utf-8") as file:
            file.write(json.dumps([kind, name, fingerprint]) + "\n")
