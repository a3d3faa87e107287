"""The tuned values: chosen by validation alone, and the sweep files that follow from them."""

import tomllib
from dataclasses import replace

import made_up
import pytest

from poolnb.book.findings import tuning
from poolnb.book.findings.evidence import SWEEPS, planned
from poolnb.lab.analysis import LOOKS
from poolnb.lab.config import RunConfig
from poolnb.lab.records import summarise, write_record
from poolnb.lab.sweeps.sweep import read_sweep

RUN = RunConfig(dataset="cifar10", epochs=5, schedule="linear", pooler="auto")
RATES = (1e-3, 2e-3, 4e-3)
PLAN = [
    *(replace(RUN, pooler="max", learning_rate=rate, seed=seed) for rate in RATES for seed in (100, 101)),
    *(
        replace(RUN, learning_rate=rate, pool_learning_rate=factor, seed=seed)
        for factor in (1, 30)
        for rate in RATES
        for seed in (100, 101)
    ),
]


def records(best):
    """Runs of which those of the settings in `best` (pooler, rate, factor) are the best; the test says the reverse."""
    found = []
    for config in PLAN:
        good = (config.pooler, config.learning_rate, config.pool_learning_rate) in best
        one = made_up.record(config, right=0.9 if good else 0.8)
        one.curves["test_accuracy"][-1] = 0.1 if good else 0.99
        found.append(one)
    return found


def test_the_choice_is_that_of_the_validation_samples():
    chosen = tuning.choose(tuning.candidates(PLAN, records({("max", 2e-3, 1), ("auto", 4e-3, 30)})))
    settings = {name: (one.config.learning_rate, one.config.pool_learning_rate) for name, one in chosen.items()}
    assert settings == {"max": (2e-3, 1), "auto": (4e-3, 30)}
    assert chosen["max"].accuracies == pytest.approx((90 - 20, 90 - 20.2)) and chosen["max"].config.seed == 0


def test_the_mean_of_the_seeds_decides_and_the_first_setting_at_a_tie():
    found = records({("max", 4e-3, 1)})
    assert found[4].config.learning_rate == 4e-3
    found[4].curves["validation_accuracy"][-1] = 0.3  # the better setting fails with one of its seeds
    assert tuning.choose(tuning.candidates(PLAN, found))["max"].config.learning_rate == 1e-3


def test_a_setting_with_a_failed_run_is_not_chosen():
    found = records({("max", 2e-3, 1)})
    found[3] = replace(found[3], status="failed", curves={}, summary={})
    assert tuning.choose(tuning.candidates(PLAN, found))["max"].config.learning_rate == 1e-3
    for place in (0, 4):
        found[place] = replace(found[place], status="failed", curves={}, summary={})
    with pytest.raises(tuning.IncompleteError, match="every setting of max has a failed run"):
        tuning.choose(tuning.candidates(PLAN, found))


def test_nothing_is_chosen_before_all_runs_are_there():
    with pytest.raises(
        tuning.IncompleteError, match="1 of 18 tuning runs are missing, the first is cifar10-max-seed101"
    ):
        tuning.candidates(PLAN, [one for place, one in enumerate(records(())) if place != 1])


@pytest.mark.parametrize("study", tuning.STUDIES)
def test_the_sweep_has_every_pooler_with_its_values(study, tmp_path):
    chosen = tuning.choose(tuning.candidates(PLAN, records({("max", 2e-3, 1), ("auto", 4e-3, 30)})))
    path = tmp_path / f"{study}.toml"
    path.write_text(tuning.sweep_text(study, chosen, 16))
    configs = read_sweep(path).configs
    assert {(c.pooler, c.learning_rate, c.pool_learning_rate) for c in configs} == {
        ("max", 2e-3, 1.0),
        ("auto", 4e-3, 30.0),
    }
    assert sorted({c.seed for c in configs}) == list(range(16)) and len(configs) == 32
    assert not {c.seed for c in configs} & {100, 101} and {c.schedule for c in configs} == {"linear"}


@pytest.mark.parametrize("study", tuning.STUDIES)
def test_the_committed_sweep_follows_from_the_records(study):
    """Written by hand, or by other records, it would be another one; before all runs are there, there is none."""
    path = SWEEPS / f"{study}.toml"
    try:
        chosen = tuning.choose(tuning.candidates(planned("tuning"), tuning.tuning_records()))
    except tuning.IncompleteError:
        assert not path.exists()
        return
    text = path.read_text()
    seeds = len(tomllib.loads(text)["grid"]["seed"])
    assert seeds in LOOKS and text == tuning.sweep_text(study, chosen, seeds)


def test_the_command_writes_the_files_or_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tuning, "RESULTS", tmp_path)
    monkeypatch.setattr(tuning, "SWEEPS", tmp_path)
    monkeypatch.setattr(tuning, "planned", lambda name: PLAN)
    with pytest.raises(SystemExit):
        tuning.main([])
    assert "18 of 18 tuning runs are missing" in capsys.readouterr().err
    (tmp_path / tuning.FOLDER).mkdir()
    for record in records({("max", 4e-3, 1)}):
        write_record(replace(record, summary=summarise(record.curves)), tmp_path / tuning.FOLDER)
    assert tuning.main(["--seeds", "16"]) == 0
    (found,) = {c.learning_rate for c in read_sweep(tmp_path / "mnist1000.toml").configs if c.pooler == "max"}
    assert found == 4e-3


def test_what_has_been_tried_is_shown_as_far_as_it_is_there():
    there = records({("max", 2e-3, 1)})
    found = tuning.tried(PLAN, there[:5])  # of max pooling's six runs the last is missing, and all of AutoPool's
    assert [one.mean for one in found["max"].values()] == pytest.approx([59.9, 69.9, 60.0])
    assert [(one.seeds, one.whole) for one in found["max"].values()] == [(2, True), (2, True), (1, False)]
    assert set(found["auto"].values()) == {tuning.Tried(None, 0, 2)} and len(found["auto"]) == 6
