"""A sentence cannot outlive its number: prose quotes glued values, and glued values are compared with the records."""

import json
import os
import re
import shutil
import subprocess
import sys
from copy import deepcopy

import nbformat
import pytest
from chapters import QUOTE, all_chapters, read
from nbformat.v4 import new_notebook

from poolnb.lab.files import sealed
from poolnb.lab.provenance import RESULTS, ROOT
from poolnb.lab.records import read_record

CHAPTER, STUDIES = "foundations/lp", ("means-digits", "sampling-digits", "learned-digits")
TYPED = re.compile(r"± ?\d[\d.]*|\d\.\d+ ?(?:%|per cent|points)")


def glued(cell):
    """The names that a cell's outputs keep for the prose."""
    kept = (o.get("metadata", {}).get("scrapbook", {}) for o in cell.get("outputs", []))
    return {found["name"] for found in kept if found}


@pytest.mark.parametrize("name", all_chapters())
def test_every_quoted_number_is_kept_by_a_cell(name):
    chapter = read(name)
    kept = set().union(*(glued(cell) for cell in chapter.code_cells))
    assert set(QUOTE.findall(chapter.prose)) <= kept


@pytest.mark.parametrize("name", all_chapters())
def test_no_measured_number_is_typed(name):
    """Half-widths, and shares or points with decimals, are quoted from cells; a paragraph may repeat published ones."""
    typed = [
        (number, paragraph[:60])
        for paragraph in read(name).prose.split("\n\n")
        if "published" not in paragraph.lower()
        for number in TYPED.findall(re.sub(r"\$[^$]*\$|`[^`]*`", "", paragraph))
    ]
    assert not typed


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The code, three studies, and the cells of a chapter that read them, keep their numbers and quote these.

    What the reading cell prints is not compared, so that nothing but the quoted values can fail.
    """
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "poolnb", folder / "poolnb", ignore=shutil.ignore_patterns("__pycache__"))
    for study in STUDIES:
        shutil.copytree(RESULTS / study, folder / "book" / "results" / study)
    cells = deepcopy(read(CHAPTER).cells)
    imports = next(i for i, c in enumerate(cells) if c.cell_type == "code")
    reads = next(i for i, c in enumerate(cells) if c.cell_type == "code" and "few_digits()" in c.source)
    cells[reads].metadata["tags"] = ["nbval-ignore-output"]
    assert "gap_max" in glued(cells[reads + 1]) and "{glue:text}`gap_max:" in cells[reads + 2].source
    chosen = [cells[imports], *cells[reads : reads + 3]]
    nbformat.write(new_notebook(cells=chosen), folder / "book" / "quoting.ipynb")
    return folder


def validate(folder):
    """nbval, as `make test` runs it, on the short notebook; its own poolnb and results are those of the copy."""
    environment = os.environ | {"PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval", "--nbval-current-env"]
    command += [f"--nbval-sanitize-with={ROOT / 'tests/notebooks/sanitize.cfg'}", "quoting.ipynb"]
    return subprocess.run(command, cwd=folder / "book", env=environment, capture_output=True, text=True)


def test_the_sentence_fits_the_records(copy):
    done = validate(copy)
    assert done.returncode == 0, done.stdout


def test_another_record_fails_the_sentence(copy):
    """One accuracy of one run changes by one point."""
    path = sorted((copy / "book" / "results" / STUDIES[0]).glob("*-lp-*.json"))[0]
    original = path.read_text()
    record = json.loads(original)
    record["summary"]["last"]["test_accuracy"] += 0.01
    record["curves"]["test_accuracy"][-1] = record["summary"]["last"]["test_accuracy"]
    path.write_text(sealed(record))
    assert read_record(path).status == "done"
    try:
        done = validate(copy)
    finally:
        path.write_text(original)
    assert done.returncode == 1
    assert re.search(r"mismatch '\S*papermill\.record", done.stdout), done.stdout
