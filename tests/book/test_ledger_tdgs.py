"""The claims about TDGS, judged from made-up records."""

from dataclasses import replace

import made_up
import numpy as np
import pytest

from poolnb.book.findings import evidence
from poolnb.book.findings import tdgs as ledger_tdgs
from poolnb.book.findings.evidence import FAILS, HOLDS, OPEN, UNTESTED
from poolnb.lab.config import RunConfig

TOO_FEW = f"{OPEN}, n too small"
RUN = RunConfig(dataset="cifar10", pooler="max", epochs=25)
SCATTER = (0.0, 0.001, -0.001, 0.002)  # so that differences have an interval


@pytest.fixture
def results(tmp_path, monkeypatch):
    made_up.read_from(monkeypatch, tmp_path)
    return tmp_path


def write(results, right, dataset="cifar10", seeds=4, **changes):
    for seed in range(seeds):
        config = replace(RUN, dataset=dataset, seed=seed, **changes)
        scatter = SCATTER[seed] if config.pooler == "tdgs" else 0
        made_up.write(results, "recipe", [config], right=right + scatter, temperature=changes and 0.8 + seed / 100)


def parts(findings):
    return [one.verdict for one in findings if not one.aside]


def test_more_than_max_is_not_yet_as_much_as_claimed(results):
    """One point more, certainly; the claim says three."""
    write(results, 0.70)
    write(results, 0.71, pooler="tdgs")
    found = ledger_tdgs.c6()
    assert parts(found) == [HOLDS, FAILS, UNTESTED, UNTESTED]
    assert evidence.overall(found) == f"{evidence.PARTLY}, a part has no runs"
    assert "the claimed 3" in found[1].what


def test_as_much_as_claimed_on_both_data_sets_holds(results):
    for dataset in ("cifar10", "mnist"):
        write(results, 0.70, dataset)
        write(results, 0.75, dataset, pooler="tdgs")
    assert evidence.overall(ledger_tdgs.c6()) == HOLDS


def test_one_data_set_does_not_decide_for_both(results):
    write(results, 0.70)
    write(results, 0.75, pooler="tdgs")
    assert evidence.overall(ledger_tdgs.c6()) == f"{OPEN}, a part has no runs"
    write(results, 0.70, "mnist", seeds=2)
    write(results, 0.75, "mnist", seeds=1, pooler="tdgs")
    found = ledger_tdgs.c6()
    assert parts(found) == [HOLDS, HOLDS, TOO_FEW, TOO_FEW] and [one.interval.n for one in found[:4]] == [4, 4, 1, 1]


def test_the_rivals_stand_beside_the_verdict(results):
    write(results, 0.70)
    write(results, 0.75, pooler="tdgs")
    write(results, 0.80, pooler="max", dropout=0.5)
    write(results, 0.74, pooler="stochastic", seeds=2)
    said = evidence.beside(ledger_tdgs.c6())
    assert said[0] == "not counted, holds: tdgs above max if both stop at the epoch best on validation (CIFAR-10)"
    assert said[1] == "not counted, does not hold: tdgs above max + dropout (CIFAR-10)"
    assert said[2] == f"not counted, {TOO_FEW}: tdgs above stochastic (CIFAR-10)"
    assert said[3].startswith("not counted, not tested: tdgs above tdgs, fixed (CIFAR-10); ")
    assert said[3].count("(MNIST)") == 3


def test_learned_temperatures_are_judged_against_their_start(results):
    """0.8 is far from 0 whatever is learned; it is an answer because it is told from the start at 1."""
    write(results, 0.75, pooler="tdgs")
    (first, *_) = found = ledger_tdgs.c8()
    assert first.verdict == "answered" and first.interval.mean == pytest.approx(-0.185)
    assert "at the start (1.00)" in first.what and parts(found)[-1] == UNTESTED
    falling = [one for one in found if one.aside]
    assert len(falling) == 3 and {one.verdict for one in falling} == {HOLDS}  # the made-up course is a straight line


@pytest.mark.parametrize(
    ("law", "missed"),
    [(lambda e: 0.7 + 0.3 * np.exp(-e / 8), "goes on"), (lambda e: 1 - 0.1 * np.log1p(e / 3), "ends")],
)
def test_where_a_temperature_is_heading_is_told_by_the_law_that_foresees_it(law, missed):
    found = ledger_tdgs.heading(law(np.arange(26)))
    (right,) = found.missed.keys() - {missed}
    assert found.missed[right] < 1e-4 < 5e-3 < found.missed[missed]
    assert found.at[right][100] == pytest.approx(law(100), abs=1e-3)


def test_runs_with_fixed_temperatures_and_with_softplus_are_poolers_of_their_own(results):
    """Of the planned runs; their records count for the rest of all, and no run is taken for another."""
    plan = evidence.planned("tdgs")
    made_up.write(results, "recipe", [config for config in plan if config.seed < 3])
    runs = ledger_tdgs.recipe_table("cifar10")
    assert set(runs["pooler"]) == {"tdgs", "tdgs, softplus", "tdgs, fixed", "max", "max + dropout", "stochastic"}
    assert len(runs) == 3 * 6 and not runs.duplicated(["pooler", "seed"]).any()
    fixed = next(one for one in plan if one.pool_learning_rate == 0)
    assert fixed.pooler_options == {"init": 1.0, "jitter": 0.0}


def test_learned_temperatures_are_those_of_the_usual_form(results):
    """Runs with softplus or with fixed temperatures lie in the same folder, with the same seeds."""
    write(results, 0.75, pooler="tdgs")
    usual = [one.value for one in ledger_tdgs.c8()]
    for changes in ({"pooler_options": {"positive": "softplus"}}, {"pool_learning_rate": 0.0}):
        others = [replace(RUN, pooler="tdgs", seed=seed, **changes) for seed in range(4)]
        made_up.write(results, "recipe", others, temperature=0.1)
    assert [one.value for one in ledger_tdgs.c8()] == usual


def test_temperatures_that_stay_where_they_start_are_no_answer(results):
    for seed, learned in enumerate((0.98, 1.02, 1.0)):
        made_up.write(results, "recipe", [replace(RUN, pooler="tdgs", seed=seed)], temperature=learned)
    assert [one.verdict for one in ledger_tdgs.c8()[:3]] == [OPEN] * 3


def test_starts_are_judged_against_both_sides_of_the_claimed_range(results):
    """Hot starts are worse and cold ones better: the claim holds in part."""
    folder, plan = "initial-temperature-linear", evidence.planned("initial-temperature-linear")
    right = {0.05: 0.74, 0.1: 0.74, 0.5: 0.72, 1.0: 0.72, 1.5: 0.72, 2.0: 0.70, 3.0: 0.70}
    for config in plan:
        scatter = (config.seed * 3 % 4) / 1000 * (config.pooler_options["init"] > 1)
        made_up.write(results, folder, [config], right=right[config.pooler_options["init"]] + scatter)
    found = ledger_tdgs.initial_temperature()
    assert [one.verdict for one in found] == [HOLDS, FAILS] and [one.interval.n for one in found] == [8, 8]
    assert "minus mean over 0.05, 0.1" in found[1].what
    some = [path for path in (results / folder).iterdir() if "seed7" in path.name]
    some[0].unlink()
    assert min(one.interval.n for one in ledger_tdgs.initial_temperature()) == 7
