"""The one-run notebook: the same run as the command line's, and the same refusals."""

import ast

import nbformat
import papermill
import pytest

from poolnb.cli import main
from poolnb.lab.config import RunConfig, defaults
from poolnb.lab.records import load_records
from poolnb.lab.sweeps.processes import LocalProcesses
from poolnb.lab.sweeps.sweep import sweep
from poolnb.lab.sweeps.tasks import NOTEBOOK

CONFIG = RunConfig(pooler="avg", seed=1, epochs=1, limit=128)


def test_its_parameters_are_those_of_a_run_with_the_same_defaults():
    (cell,) = [c for c in nbformat.read(NOTEBOOK, 4).cells if "parameters" in c.metadata.get("tags", [])]
    statements = ast.parse(cell.source).body
    found = {one.targets[0].id: ast.literal_eval(one.value) for one in statements}
    assert found.pop("results") == "results"
    assert found == defaults() and list(found) == RunConfig.names()


def test_its_record_is_the_command_line_s(tmp_path):
    """By the sweep's own path: papermill in a worker process. Options, none and floats survive the injection."""
    report = sweep([CONFIG], tmp_path / "notebook", progress=False, executor=LocalProcesses(1))
    assert report.failed == {} and report.done == 1
    options = ["--pooler", "avg", "--seed", "1", "--epochs", "1", "--limit", "128"]
    assert main(["run", *options, "--quiet", "--results", str(tmp_path / "command")]) == 0
    (one,), (other,) = load_records(tmp_path / "notebook"), load_records(tmp_path / "command")
    assert one.content() == other.content()


def test_a_parameter_that_it_does_not_have_is_refused_before_anything_runs(tmp_path):
    parameters = {"poler": "max", "epochs": 1, "results": str(tmp_path / "results")}
    with pytest.raises(papermill.PapermillExecutionError, match="unknown parameter poler; accepted: .*, results"):
        papermill.execute_notebook(NOTEBOOK, None, parameters, progress_bar=False, kernel_name="python3")
    assert not (tmp_path / "results").exists()
