"""Figures of a chapter are drawn again when nbval runs it: another one in its place is named with chapter and cell."""

import base64
import os
import subprocess
import sys

import matplotlib.style
import nbformat
import redrawn
from nbformat.v4 import new_code_cell, new_notebook, new_output

from poolnb.lab.provenance import ROOT

DRAW = """
import io
from IPython.display import Image
from matplotlib.figure import Figure

figure, file = Figure(figsize=(8, 3.2), layout="constrained"), io.BytesIO()
axes = figure.subplots()
axes.plot([1, 2, {last}])
axes.set_title("accuracy {number} %")
figure.savefig(file, format="png")
image = Image(file.getvalue())
"""


def png(last=3, number=61.2):
    names = {}
    with matplotlib.style.context("default"):  # whatever look another test has chosen in this process
        exec(DRAW.format(last=last, number=number), names)
    return names["image"].data


def check(folder, picture):
    """nbval on a chapter that draws one figure, and in which `picture` stands."""
    data = {"image/png": base64.b64encode(picture).decode(), "text/plain": "<IPython.core.display.Image object>"}
    shown = new_output("execute_result", data, execution_count=1)
    cell = new_code_cell(DRAW.format(last=3, number=61.2) + "image", outputs=[shown], execution_count=1)
    nbformat.write(new_notebook(cells=[cell]), folder / "figure.ipynb")
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'helpers'}"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "redrawn", "--nbval"]
    command += ["--nbval-current-env", "figure.ipynb"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_same_figure_passes_and_a_replaced_one_is_named(tmp_path):
    done = check(tmp_path, png())
    assert done.returncode == 0, done.stdout
    done = check(tmp_path, png(last=4))
    assert done.returncode == 1 and "figure.ipynb, Cell 0: picture 1 is not the one in the chapter" in done.stdout


def test_one_digit_of_a_label_is_more_than_the_tolerance():
    assert redrawn.difference(png(), png()) == 0
    assert redrawn.difference(png(), png(number=81.2)) > redrawn.TOLERANCE
