"""Figures of a chapter are drawn again when nbval runs it: another one in its place is named with chapter and cell."""

import os
import subprocess
import sys

import nbformat
import pytest
import redrawn
from nbformat.v4 import new_code_cell, new_notebook

from poolnb.lab import notebooks
from poolnb.lab.provenance import ROOT

DRAW = """
import matplotlib.pyplot as plt
plt.figure(figsize=(8, 3.2))
plt.plot([1, 2, {last}])
plt.title("accuracy {number} %")
plt.show()
"""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A chapter that draws one figure, executed; a function that draws it with other numbers."""
    folder = tmp_path_factory.mktemp("drawn")

    def made(**numbers):
        code = DRAW.format(**{"last": 3, "number": 61.2} | numbers)
        path = folder / "figure.ipynb"
        nbformat.write(new_notebook(cells=[new_code_cell("print(1)"), new_code_cell(code)]), path)
        return nbformat.read(notebooks.execute(path, output=folder / "done.ipynb"), as_version=4)

    return made


def check(folder, notebook):
    nbformat.write(notebook, folder / "figure.ipynb")
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "redrawn", "--nbval"]
    command += ["--nbval-current-env", "figure.ipynb"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_same_figure_passes_and_a_replaced_one_is_named(drawn, tmp_path):
    chapter = drawn()
    done = check(tmp_path, chapter)
    assert done.returncode == 0, done.stdout
    chapter.cells[1].outputs = drawn(last=4).cells[1].outputs
    done = check(tmp_path, chapter)
    assert done.returncode == 1 and "figure.ipynb, Cell 1: picture 1 is not the one in the chapter" in done.stdout


def test_one_digit_of_a_label_is_more_than_the_tolerance(drawn):
    one, same, other = (redrawn.pictures(drawn(number=n).cells[1].outputs)[0] for n in (61.2, 61.2, 81.2))
    assert redrawn.difference(one, same) == 0
    assert redrawn.difference(one, other) > redrawn.TOLERANCE
