"""Execute the chapters of the book, and know which of them no longer fit the code and data they were made with.

A chapter runs in its own kernel with one thread, and its working directory is the folder the chapter lies in: the same
as in Jupyter and under nbval. What it reads it finds through the package (`poolnb.lab.provenance`), so the caller's
working directory does not matter.

A chapter executed in place leaves a receipt, `book/results/receipts/<chapter>.json`, that says what it was made with.
"""

from __future__ import annotations

import copy
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nbformat

from poolnb.book.reach import reached_files
from poolnb.lab.data import load, missing_files
from poolnb.lab.files import write_atomically
from poolnb.lab.fingerprint import file_fingerprint
from poolnb.lab.provenance import BOOK, RESULTS, ROOT, folder_hash, text_hash

RECEIPTS = RESULTS / "receipts"
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "pandas", "scikit-learn", "scikit-image", "sympy", "matplotlib")

_THREADS = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "pygments_lexer": "ipython3",
    },
}
_RECEIPT_FIELDS = set("chapter date device seconds versions parameters code outputs sources folders data".split())
_KEPT_CELL_METADATA = {"tags", "jupyter", "editable", "slideshow", "mystnb"}


def chapters() -> list[Path]:
    """Every notebook of the book, sorted by name."""
    return sorted(p for p in BOOK.rglob("*.ipynb") if not any(part.startswith((".", "_")) for part in p.parts[-3:]))


def chapter_name(path: Path) -> str:
    """The name of a chapter: its path under `book/`, without the suffix, as in `foundations/max`."""
    return Path(path).resolve().relative_to(BOOK).with_suffix("").as_posix()


def find_chapter(name: str) -> Path:
    """The notebook called `name`: `foundations/max`, `max`, or a path to it.

    Raises `ValueError` when no chapter, or more than one, has this name.
    """
    wanted = Path(name).with_suffix("") if name.endswith(".ipynb") else Path(name)
    absolute = wanted.resolve().with_suffix(".ipynb")
    found = [p for p in chapters() if p == absolute or chapter_name(p) == wanted.as_posix()]
    found = found or [p for p in chapters() if p.stem == wanted.as_posix()]
    if len(found) != 1:
        known = ", ".join(chapter_name(p) for p in chapters())
        raise ValueError(f"chapter: got {name!r}, which names {len(found)} chapters; known are: {known}")
    return found[0]


def receipt_path(path: Path) -> Path:
    """Where the receipt of a chapter is kept."""
    return RECEIPTS / f"{chapter_name(path)}.json"


def code_hash(notebook: nbformat.NotebookNode) -> str:
    """Fingerprint of a notebook's code cells, in order. Prose and outputs do not count."""
    return text_hash(json.dumps([cell.source for cell in notebook.cells if cell.cell_type == "code"]))


def outputs_hash(notebook: nbformat.NotebookNode) -> str:
    """Fingerprint of what a notebook's code cells show and keep, pictures included, in order."""
    shown = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    return text_hash(json.dumps(shown, sort_keys=True))


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy without timings, paths and tool metadata, streams joined, with this book's kernel metadata."""
    notebook = copy.deepcopy(notebook)
    notebook.metadata = nbformat.from_dict(_METADATA)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k in _KEPT_CELL_METADATA})
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
    return notebook


def _joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Outputs with neighbouring pieces of one stream put together; where they are cut depends on timing alone."""
    joined: list[nbformat.NotebookNode] = []
    for output in outputs:
        last = joined[-1] if joined else {}
        if output.output_type == "stream" == last.get("output_type") and output.name == last["name"]:
            last["text"] += output.text
        else:
            joined.append(output)
    return joined


def execute(
    path: Path, parameters: dict[str, Any] | None = None, output: Path | None = None, timeout: int = 900
) -> Path:
    """Execute a chapter by papermill and return the file written.

    Without `output` the chapter is replaced by its executed self, all at once, and its receipt is written; this is for
    committed chapters, which hold their own parameters. With `output` the chapter is left alone, `parameters` replace
    its own, and no receipt is written. `timeout` is in seconds and holds for each cell.

    Raises `ValueError` for `parameters` without `output`, and `RuntimeError` if a cell fails; then nothing is written.
    """
    path = Path(path).resolve()
    if parameters and output is None:
        raise ValueError("parameters: need an output; a committed chapter is executed with the parameters it holds")
    target = path if output is None else Path(output).resolve()
    with tempfile.TemporaryDirectory() as folder:
        uses = Path(folder, "uses.txt")
        started = time.monotonic()
        executed = _papermill(path, Path(folder, path.name), parameters or {}, uses, timeout)
        seconds = time.monotonic() - started
        noted = [json.loads(line) for line in uses.read_text(encoding="utf-8").splitlines()] if uses.exists() else []
    _write(target, nbformat.writes(clean(executed)) + "\n")
    if output is None:
        receipt = {
            "chapter": chapter_name(path),
            "date": datetime.date.today().isoformat(),
            "device": device(),
            "seconds": round(seconds, 1),
            "versions": versions(),
            "parameters": _parameters(target),
            "code": code_hash(executed),
            "outputs": outputs_hash(nbformat.read(target, as_version=4)),
            "sources": sources_of((name, line) for kind, name, line in noted if kind == "ran"),
            "folders": {name: fingerprint for kind, name, fingerprint in noted if kind == "folder"},
            "data": {name: fingerprint for kind, name, fingerprint in noted if kind == "data"},
        }
        _write(receipt_path(path), json.dumps(receipt, indent=2) + "\n")
    return target


def sources_of(ran: Iterable[tuple[str, int]]) -> dict[str, str]:
    """Name and fingerprint of every source file that a chapter depends on; `ran`: file and line of its functions."""
    return {path.relative_to(ROOT).as_posix(): _short_fingerprint(path) for path in reached_files(ran, ROOT)}


def _short_fingerprint(path: Path) -> str:
    return file_fingerprint(path)[:16]


def stale(path: Path) -> list[str]:
    """Why a chapter's receipt no longer fits, in words; empty when it fits."""
    file = receipt_path(path)
    if not file.exists():
        return ["it has no receipt"]
    receipt = _read_receipt(file)
    if receipt is None:
        return ["its receipt is damaged or of another form"]
    reasons = []
    notebook = nbformat.read(path, as_version=4)
    if receipt["code"] != code_hash(notebook):
        reasons.append("its code changed")
    if receipt["outputs"] != outputs_hash(notebook):
        reasons.append("its outputs are not those that were written")
    for name, recorded in receipt["sources"].items():
        if not (ROOT / name).is_file():
            reasons.append(f"{name} is gone")
        elif _short_fingerprint(ROOT / name) != recorded:
            reasons.append(f"{name} changed")
    for name, recorded in receipt["folders"].items():
        if not (BOOK / name).is_dir():
            reasons.append(f"{name} is gone")
        elif folder_hash(BOOK / name) != recorded:
            reasons.append(f"{name} changed")
    for name, recorded in receipt["data"].items():
        if not missing_files(name) and load(name).sha256 != recorded:  # data that are not here cannot be compared
            reasons.append(f"the data set {name} changed")
    return reasons


def orphans() -> list[Path]:
    """Receipts whose chapter does not exist."""
    known = {receipt_path(path) for path in chapters()}
    return sorted(set(RECEIPTS.rglob("*.json")) - known)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that chapters compute with."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def device() -> str:
    """What a chapter runs on here: the CPU's architecture, and the GPU where PyTorch sees one."""
    import torch

    gpu = f", {torch.cuda.get_device_name(0)}" if torch.cuda.is_available() else ""
    return f"{platform.machine()} CPU, 1 thread{gpu}"


def _read_receipt(file: Path) -> dict[str, Any] | None:
    """The receipt in `file`, or None if it is not one."""
    try:
        receipt = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return receipt if isinstance(receipt, dict) and _RECEIPT_FIELDS <= set(receipt) else None


def _papermill(path: Path, out: Path, parameters: dict[str, Any], uses: Path, timeout: int) -> nbformat.NotebookNode:
    environment = {k: v for k, v in os.environ.items() if k != "MPLBACKEND"}  # else figures would not reach the page
    startup = uses.parent / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    tracer = Path(__file__).with_name("tracer.py")
    (startup / "trace.py").write_text(f"import runpy; runpy.run_path({str(tracer)!r}, globals())", encoding="utf-8")
    environment |= _THREADS | {"POOLNB_USES": str(uses), "IPYTHONDIR": str(startup.parents[1])}
    command = [sys.executable, "-m", "papermill", str(path), str(out), "--cwd", str(path.parent)]
    command += ["--kernel", "python3", "--language", "python"]
    command += ["--execution-timeout", str(timeout), "--no-progress-bar", "-y", json.dumps(parameters)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{path.name} failed:\n" + "\n".join(done.stderr.strip().split("\n")[-25:]))
    executed: nbformat.NotebookNode = nbformat.read(out, as_version=4)
    return executed


def _parameters(path: Path) -> dict[str, str]:
    """The parameters a chapter holds and their values as written, read by papermill itself."""
    notebook = nbformat.read(path, as_version=4)
    if not any("parameters" in cell.metadata.get("tags", []) for cell in notebook.cells):
        return {}
    from papermill import inspect_notebook

    return {name: found["default"] for name, found in inspect_notebook(str(path)).items()}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)
