"""`poolnb book`: execute the chapters, check their receipts, build the site."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from poolnb.book import notebooks
from poolnb.book.sphinxext import launch
from poolnb.lab.provenance import BOOK, RESULTS, ROOT, files_hash, text_hash

BUILD = ROOT / "_build"
SITE = BUILD / "html"
_JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"
_SITE_PACKAGES = (
    "jupyter-book",
    "sphinx",
    "sphinx-book-theme",
    "pydata-sphinx-theme",
    "myst-nb",
    "sphinxcontrib-bibtex",
)


def execute(names: list[str], everything: bool = False) -> int:
    """Execute the named chapters; without names, those whose receipt no longer fits, or everything. 0 when all ran."""
    if names:
        paths = [notebooks.find_chapter(name) for name in names]
    else:
        paths = [p for p in notebooks.chapters() if everything or notebooks.stale(p)]
    failed = 0
    for number, path in enumerate(paths, 1):
        print(f"[{number}/{len(paths)}] {notebooks.chapter_name(path)}", flush=True)
        try:
            notebooks.execute(path)
        except RuntimeError as error:
            failed += 1
            print(error, file=sys.stderr)
    print(f"{len(paths) - failed} executed, {failed} failed" if paths else "every chapter fits its receipt")
    return int(failed > 0)


def check() -> int:
    """Name the chapters whose receipt no longer fits, and receipts without a chapter. 0 when there are none."""
    complaints = [
        f"{notebooks.chapter_name(path)}: {', '.join(reasons)}"
        for path in notebooks.chapters()
        if (reasons := notebooks.stale(path))
    ]
    complaints += [f"{path.relative_to(ROOT)}: its chapter does not exist" for path in notebooks.orphans()]
    print("\n".join(complaints) or "every chapter fits its receipt")
    return int(bool(complaints))


def inputs_hash() -> str:
    """Fingerprint of everything the site is made from.

    The first page and the ledger's figure read records; the page on GPUs says whether the sources of its record have
    changed since.
    """
    files = {p for p in BOOK.rglob("*") if p.is_file() and p.suffix not in {".json", ".tmp"}}
    files = {p for p in files if not any(part.startswith(".") for part in p.relative_to(BOOK).parts)}
    files |= {*RESULTS.rglob("*.json"), ROOT / "_config.yml", ROOT / "_toc.yml", *(ROOT / "poolnb").rglob("*.py")}
    files |= {p for p in (ROOT / "ext").rglob("*") if p.is_file()}
    packages = [f"{name} {importlib.metadata.version(name)}" for name in _SITE_PACKAGES]
    return text_hash(files_hash(files, ROOT) + "\n".join(packages))


def build(repository: str | None = None, branch: str = "main", site: Path = SITE) -> int:
    """Build the site strictly, from nothing: a warning is an error. 0 when `site` is this book's site.

    `repository` is the public address that the launch buttons point to; see `poolnb.book.sphinxext.launch`. A site
    made from the same inputs is kept as it is. A build that fails leaves the previous site in place.
    """
    from filelock import FileLock

    address = launch.repository(repository)
    BUILD.mkdir(exist_ok=True)
    stamp = site / ".inputs"
    with FileLock(BUILD / "site.lock"):
        inputs = text_hash(f"{inputs_hash()} {address} {branch}")
        if stamp.exists() and stamp.read_text() == inputs:
            print(f"up to date: {site / 'index.html'}")
            return 0
        fresh = BUILD / "fresh"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
        config = launch.configure(config, address, branch) if address else config
        (fresh / "_config.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
        command = [sys.executable, "-c", _JUPYTER_BOOK, "build", str(ROOT), "--path-output", str(fresh)]
        command += ["--config", str(fresh / "_config.yml"), "-W", "-n", "--keep-going", "-q"]
        environment = os.environ | {"NO_COLOR": "1", "PYTHONWARNINGS": "ignore"}
        if subprocess.run(command, env=environment, stdout=subprocess.DEVNULL).returncode != 0:
            print("the site was not built: see the warnings above", file=sys.stderr)
            return 1
        shutil.rmtree(site, ignore_errors=True)
        os.replace(fresh / "_build" / "html", site)
        shutil.rmtree(fresh)
        stamp.write_text(inputs)
    print(f"the site is at {site / 'index.html'}")
    return 0


def in_browser(action: str, target: Path = BUILD / "pooling.pdf", site: Path = SITE) -> int:
    """Build the site, and print it into one PDF, `target`, or measure its pages. 0 when that is done."""
    from poolnb.book import browser

    if status := build(site=site):
        return status
    if action == "measure":
        browser.measure(site)
        print(f"the record is {browser.RECORD.relative_to(ROOT)}")
    else:
        browser.write_pdf(site, target)
        print(f"the book is at {target}")
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `poolnb book`; parsed, they go to `run`."""
    actions = parser.add_subparsers(dest="action", required=True)
    action = actions.add_parser("execute", help="execute chapters in place and write their receipts")
    action.add_argument("chapters", nargs="*", help="such as foundations/max; without any, those that need it")
    action.add_argument("--all", action="store_true", help="execute every chapter")
    actions.add_parser("check", help="name the chapters whose receipt no longer fits")
    action = actions.add_parser("build", help="build the site, strictly, unless it is up to date")
    action.add_argument("--repository", metavar="URL", help="public address for the launch buttons (default: origin)")
    action.add_argument("--branch", default="main", help="the branch that they open (default: main)")
    action = actions.add_parser("pdf", help="build the site and print it into one PDF (needs chromium and playwright)")
    action.add_argument("--output", type=Path, default=BUILD / "pooling.pdf", help="default: _build/pooling.pdf")
    actions.add_parser("measure", help="record what the site's pages weigh and how fast they are drawn")


def run(arguments: argparse.Namespace) -> int:
    """Do what the parsed arguments of `poolnb book` say; returns the exit status."""
    try:
        if arguments.action == "execute":
            return execute(arguments.chapters, arguments.all)
        if arguments.action == "pdf":
            return in_browser("pdf", arguments.output)
        if arguments.action == "measure":
            return in_browser("measure")
        return check() if arguments.action == "check" else build(arguments.repository, arguments.branch)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2


def main(argv: list[str] | None = None) -> int:
    """`poolnb book` by itself, for `python -m poolnb.book.build`."""
    parser = argparse.ArgumentParser(prog="poolnb book", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
