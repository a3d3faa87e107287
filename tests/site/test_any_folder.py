"""The book's tools work from whatever folder they are called in."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from poolnb.book import notebooks
from poolnb.lab.provenance import BOOK, ROOT


def call(folder, *words):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "PYTEST_"))}
    environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "-m", *map(str, words)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_nbval_in_the_folder_of_a_chapter():
    done = call(BOOK / "experiments", "pytest", "--nbval", "-q", "-p", "no:cacheprovider", "ledger.ipynb")
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_nbval_may_overlook_is_found_from_everywhere(request):
    assert Path(request.config.option.nbval_sanitize_with).samefile(ROOT / "tests" / "notebooks" / "sanitize.cfg")


def test_poolnb_book(site, tmp_path):
    here, there = (call(folder, "poolnb", "book", "check") for folder in (ROOT, tmp_path))
    assert here.stdout == there.stdout and here.returncode == there.returncode
    assert call(tmp_path, "poolnb", "book", "build").stdout == f"up to date: {site / 'index.html'}\n"
    done = call(tmp_path, "poolnb", "book", "execute", "no-such-chapter")
    assert done.returncode == 2 and "which names 0 chapters" in done.stderr


@pytest.mark.parametrize("name", ["max", "max.ipynb", "./max.ipynb", "foundations/max"])
def test_a_chapter_is_found_from_its_folder(name, monkeypatch):
    monkeypatch.chdir(BOOK / "foundations")
    assert notebooks.find_chapter(name) == BOOK / "foundations" / "max.ipynb"


def test_papermill_writes_a_run_that_shows_its_numbers(tmp_path):
    parameters = [word for pair in (("epochs", 1), ("limit", 100), ("pooler", "max")) for word in ("-p", *pair)]
    chapter = BOOK / "experiments" / "one-run.ipynb"
    done = call(tmp_path, "papermill", "--no-progress-bar", chapter, "out.ipynb", *parameters)
    assert done.returncode == 0, done.stderr
    shown = [
        o.data for c in nbformat.read(tmp_path / "out.ipynb", 4).cells for o in c.get("outputs", []) if "data" in o
    ]
    said = [data["text/markdown"] for data in shown if "text/markdown" in data]
    assert any("After epoch 1 the network answers" in text and "% of the 360 test samples" in text for text in said)
    assert len(list((tmp_path / "results").glob("*.json"))) == 1
