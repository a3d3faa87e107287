"""What is said of a plan of runs: counted and named from the records."""

from dataclasses import replace

import made_up
import pytest

from poolnb.book.findings.progress import planned, progress, state_of_studies
from poolnb.lab.records import write_record


@pytest.fixture
def results(tmp_path, monkeypatch):
    made_up.read_from(monkeypatch, tmp_path)
    return tmp_path


def test_nothing_is_done_and_everything(results):
    plan = planned("recipe")
    before = progress(plan, "recipe")
    assert (before.count, before.lack) == ("0 of 40 planned runs", "CIFAR-10: all; MNIST: all")
    made_up.write(results, "recipe", plan)
    after = progress(plan, "recipe")
    assert (after.count, after.lack) == ("40 of 40 planned runs (40 on cpu)", "none")


def test_what_is_missing_is_named(results):
    plan = planned("recipe")
    lacking = [c for c in plan if c.dropout and c.dataset == "mnist" or c.pooler == "tdgs" and c.seed in (1, 4)]
    made_up.write(results, "recipe", [config for config in plan if config not in lacking])
    found = progress(plan, "recipe")
    assert found.lack == "CIFAR-10: tdgs (seeds 1, 4); MNIST: max + dropout, tdgs (seeds 1, 4)"
    assert len(found.missing) == len(lacking)


def test_a_longer_run_counts_and_a_shorter_one_does_not(results):
    plan = planned("comparison")[:2]
    made_up.write(results, "long", [replace(plan[0], epochs=25)])
    made_up.write(results, "short", [replace(plan[1], epochs=7)])
    found = progress(plan, "long", "short", "not there")
    assert [record.config.epochs for record in found.done] == [25] and found.missing == [plan[1]]


def test_a_longer_run_whose_rate_falls_does_not_count_and_a_run_that_failed_does(results):
    falling, failing = planned("comparison-tuned")[:2]
    made_up.write(results, "falling", [replace(falling, epochs=20)])
    failed = replace(made_up.record(failing), status="failed", error="loss is nan", curves={}, summary={}, pooling={})
    write_record(failed, results / "falling")
    found = progress([falling, failing], "falling")
    assert [record.status for record in found.done] == ["failed"] and found.missing == [falling]


def test_options_and_step_sizes_are_named_where_they_vary(results):
    plan = planned("initial-temperature")
    made_up.write(results, "initial-temperature", plan[1:])
    assert progress(plan, "initial-temperature").lack == "CIFAR-10: tdgs, init 0.5 (seed 0)"
    plan = planned("learning-rates")
    made_up.write(results, "learning-rates", [c for c in plan if c.learning_rate != 5e-3 or c.pooler != "soft"])
    assert progress(plan, "learning-rates").lack == "CIFAR-10: soft at 0.005"


def test_the_state_of_the_studies_is_counted_from_the_records(results, monkeypatch):
    plan = planned("recipe")
    made_up.write(results, "recipe", plan[:-1])
    rows = {row[0]: row[1] for row in state_of_studies(("comparison-tuned", "recipe", "scale")).rows}
    assert rows == {"comparison-tuned": "0 of 276", "recipe": "39 of 40", "scale": "0 of 25"}
    made_up.write(results, "recipe", plan)
    assert state_of_studies(("recipe",)).rows[0][1] == "all 40"
    monkeypatch.setattr("poolnb.book.findings.progress.SWEEPS", results)  # as before the tuning is complete
    assert state_of_studies(("comparison-tuned",)).rows[0][1] == "waits for tuning"
