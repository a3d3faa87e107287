"""Evidence: runs are chosen by what they are, short and long ones meet, and verdicts follow from intervals."""

import dataclasses
import math
from dataclasses import replace

import made_up as made_up_records
import numpy as np
import pytest

from poolnb.book.findings import evidence
from poolnb.book.findings.evidence import FAILS, HOLDS, OPEN, PARTLY, UNTESTED, Finding, above, below, beside, overall
from poolnb.lab.analysis import MARGIN, Difference, verdict_of
from poolnb.lab.config import RunConfig
from poolnb.lab.records import Record, summarise, write_record
from poolnb.lab.statistics import Interval

BASE = RunConfig(dataset="mnist", epochs=2, pooler="max")


def made_up(config, accuracy):
    values = {"train_loss": 1.0, "validation_accuracy": accuracy, "test_accuracy": accuracy, "test_loss": 2.0}
    curves = {name: [value / (epoch + 1) for epoch in range(config.epochs)] for name, value in values.items()}
    return Record(
        config.parameters, config.key, "done", curves=curves, summary=summarise(curves), hashes=made_up_records.HASHES
    )


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Two folders of made-up runs: long ones of `max`, short ones of `avg`, and some that differ in other ways."""
    monkeypatch.setattr(evidence, "RESULTS", tmp_path)
    for folder in ("long", "short"):
        (tmp_path / folder).mkdir()
    for seed in range(3):
        long = replace(BASE, epochs=4, seed=seed)
        write_record(made_up(long, 0.8 + seed / 100), tmp_path / "long")
        write_record(made_up(replace(BASE, seed=seed), 0.8 + seed / 100), tmp_path / "short")  # the same run, shorter
        write_record(made_up(replace(BASE, pooler="avg", seed=seed), 0.7), tmp_path / "short")
        write_record(made_up(replace(long, dropout=0.5), 0.1), tmp_path / "long")
        write_record(made_up(replace(BASE, seed=seed, epochs=1), 0.1), tmp_path / "short")
        write_record(made_up(replace(BASE, seed=seed, dataset="cifar10"), 0.1), tmp_path / "short")
    return tmp_path


def test_runs_are_chosen_by_their_parameters_and_count_once(results):
    found = evidence.select("long", "short", "not there", epochs=2, dataset="mnist")
    assert sorted((r.config.pooler, r.config.seed) for r in found) == [(p, s) for p in ("avg", "max") for s in range(3)]
    assert all(len(curve) == 2 for record in found for curve in record.curves.values())
    assert all(record.config.dropout == 0 for record in found)
    assert len(evidence.select("long", epochs=4, dataset="mnist", dropout=0.5)) == 3
    assert len(evidence.select("long", epochs=4, dataset="mnist", vary=("seed", "dropout"), pooler="max")) == 6
    assert evidence.select("long", epochs=5, dataset="mnist") == []
    assert evidence.select("nothing", epochs=1) == [] and evidence.table([]).empty


def test_the_table_has_what_chapters_compare(results):
    frame = evidence.table(evidence.select("long", epochs=4, dataset="mnist"))
    assert frame["last"].tolist() == pytest.approx([20, 20.25, 20.5])
    assert frame["flattered"].tolist() == frame["chosen"].tolist() == pytest.approx([80, 81, 82])
    assert frame["rise"].tolist() == [0, 0, 0]  # the made-up loss falls to the end


def test_the_rise_is_counted_from_the_lowest_loss():
    curves = {"test_loss": [3.0, 1.0, 1.5], "test_accuracy": [0.1, 0.5, 0.4], "train_loss": [1.0, 1.0, 1.0]}
    curves["validation_accuracy"] = [0.1, 0.3, 0.2]
    config = replace(BASE, epochs=3)
    frame = evidence.table([Record(config.parameters, config.key, "done", curves=curves, summary=summarise(curves))])
    assert frame["rise"].tolist() == [0.5]
    assert frame[["last", "chosen", "flattered"]].values.tolist() == [[40, 50, 50]]


def test_a_difference_stated_alone_is_that_of_the_comparison(results):
    frame = evidence.table(evidence.select("short", epochs=2, dataset="mnist"))
    one = evidence.difference(frame, "last", "avg")
    assert one == evidence.interval(evidence.compared(frame), "avg")
    assert one.mean == pytest.approx(-5.5) and one.n == 3 and one.verdict == "below"
    other = evidence.difference(frame, "last", "max", baseline="avg")
    pair = evidence.apart(evidence.by_seed(frame, "last", pooler="max"), evidence.by_seed(frame, "last", pooler="avg"))
    for same in (other, pair):
        assert dataclasses.astuple(-same)[:3] == pytest.approx(dataclasses.astuple(one)[:3])
        assert (same.n, same.verdict) == (3, "above")


def test_two_seeds_have_an_interval_and_no_verdict(results):
    for seed in range(2):
        write_record(made_up(replace(BASE, pooler="soft", seed=seed), 0.9 + seed / 50), results / "short")
    frame = evidence.table(evidence.select("short", epochs=2, dataset="mnist"))
    one = evidence.difference(frame, "last", "soft")
    assert one.n == 2 and one.verdict == "undecided" and above(one) == f"{OPEN}, n too small"
    assert evidence.difference(frame, "last", "avg").verdict == "below"


def test_without_runs_or_a_seed_in_common_there_is_no_difference():
    assert evidence.compared(evidence.table([])) is None
    assert evidence.apart({1: 1.0}, {2: 1.0}) is None
    groups = evidence.by_group({"max": {0: 1.0, 1: 2.0, 2: 2.0}, "avg": {0: 1.0, 1: 1.5, 2: 2.5}, "soft": {7: 1.0}})
    found = evidence.compared(groups, "value", "group")
    assert list(found.table.index) == ["avg"]  # soft waits for a seed of max pooling's


def test_what_is_equal_within_the_margin_is_more_or_less_only_if_it_is_told_from_0():
    none = Difference(0.1, -0.1, 0.3, 5, "equal", 0.0, 0.1, 4, 0.5)
    assert above(none) == below(none) == FAILS and evidence.words(none) == "equal within 0.5 points"
    one = Difference(0.2, 0.1, 0.3, 5, "equal", 0.0, 0.1, 4, 0.5)
    assert above(one) == HOLDS and below(one) == FAILS and above(-one) == FAILS and below(-one) == HOLDS
    assert evidence.words(one) == "above, but by less than 0.5 points"
    assert evidence.words(-one) == "below, but by less than 0.5 points"
    lost = replace(one, verdict="undecided")  # a failed run could overturn it
    assert above(lost) == OPEN and below(replace(none, verdict="undecided")) == OPEN and lost.side == ""
    assert above(one, 0.05) == HOLDS and evidence.words(one, 0.05) == "above 0.05 points"
    far = evidence.apart({0: 7.0, 1: 8.0, 2: 9.0}, {0: 0.0, 1: 0.0, 2: 0.0})
    assert evidence.words(far, 10) == "above 0, undecided against 10 points" and above(far, 10) == OPEN
    assert Finding("a - b", one, "points", FAILS).said == (
        "a - b: +0.20 ± 0.10 points, n = 5: above, but by less than 0.5 points (does not hold)"
    )


def test_a_difference_that_an_interval_shuts_out_is_refused_wherever_the_rest_lies():
    one = Difference(-0.2, -0.6, 0.2, 5, "undecided", 0.0, 0.1, 4, 0.5)
    assert above(one) == FAILS and below(one) == OPEN and below(-one) == FAILS and above(-one) == OPEN
    assert Finding("a - b", one, "points", FAILS).word == "undecided, but not above by 0.5 points"
    assert Finding("a - b", -one, "points", FAILS).word == "undecided, but not below by 0.5 points"
    assert Finding("a - b", one, "points", OPEN).word == "undecided"
    # The further it lies from what is claimed, the more it is refused.
    verdicts = [above(moved(one, by)) for by in (-0.6, -0.3, 0, 0.2, 0.25, 0.31, 0.7)]
    assert verdicts == [FAILS] * 4 + [FAILS, OPEN, HOLDS]
    # Without a margin, only what lies on the other side is refused.
    assert above(replace(one, margin=0.0)) == OPEN


def moved(one, by):
    low, high = one.low + by, one.high + by
    return replace(one, mean=one.mean + by, low=low, high=high, verdict=verdict_of(low, high, one.margin))


def test_few_studies_refuse_an_advantage_of_the_margin():
    """Of 1,000 studies in which the first is better by the margin, about 2.5 % say that it is not."""
    draw = np.random.default_rng(0).normal(MARGIN, 0.5, (1000, 12))
    refused = [above(evidence.apart(dict(enumerate(row)), dict.fromkeys(range(12), 0.0))) == FAILS for row in draw]
    assert 0.012 < np.mean(refused) < 0.04


def test_one_seed_for_two_runs_is_refused(results):
    frame = evidence.table(evidence.select("long", epochs=4, dataset="mnist", vary=("seed", "dropout"), pooler="max"))
    with pytest.raises(ValueError, match="one seed stands for several runs"):
        evidence.by_seed(frame, "last", pooler="max")
    assert evidence.by_seed(frame, "last", pooler="lip", dropout=0.5) == {}
    assert evidence.by_seed(frame, "last", dropout=0.5) == pytest.approx({0: 2.5, 1: 2.5, 2: 2.5})


@pytest.mark.parametrize(
    ("interval", "verdict", "opposite"),
    [
        (None, UNTESTED, UNTESTED),
        (Interval(1, 0.5, 1.5, 3), HOLDS, FAILS),
        (Interval(-1, -1.5, -0.5, 3), FAILS, HOLDS),
        (Interval(1, -0.5, 2.5, 9), OPEN, OPEN),
        (Interval(1, 0.5, 1.5, 2), f"{OPEN}, n too small", f"{OPEN}, n too small"),
        (Interval(1, math.nan, math.nan, 1), f"{OPEN}, n too small", f"{OPEN}, n too small"),
    ],
)
def test_a_verdict_follows_from_the_interval(interval, verdict, opposite):
    assert above(interval) == verdict and below(interval) == opposite


def test_a_bound_moves_the_verdict():
    assert above(Interval(3, 2, 4, 5), 1) == HOLDS and above(Interval(3, 2, 4, 5), 5) == FAILS
    assert below(Interval(3, 2, 4, 5), 5) == HOLDS and above(Interval(3, 2, 4, 5), 3) == OPEN


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([HOLDS, HOLDS], HOLDS),
        ([HOLDS, UNTESTED], f"{OPEN}, a part has no runs"),
        ([FAILS, UNTESTED], f"{OPEN}, a part has no runs"),
        ([FAILS, OPEN, UNTESTED], f"{OPEN}, a part has no runs"),
        ([HOLDS, FAILS, UNTESTED], f"{PARTLY}, a part has no runs"),
        ([UNTESTED], UNTESTED),
        ([HOLDS, FAILS], PARTLY),
        ([HOLDS, FAILS, OPEN], PARTLY),
        ([FAILS, OPEN], FAILS),
        ([HOLDS, OPEN], OPEN),
        ([HOLDS, f"{OPEN}, n too small"], f"{OPEN}, n too small"),
        ([OPEN, UNTESTED, f"{OPEN}, n too small"], f"{OPEN}, a part has no runs"),
        ([OPEN, f"{OPEN}, n too small"], OPEN),
        (["answered", UNTESTED], f"{OPEN}, a part has no runs"),
        (["answered", "answered"], "answered"),
    ],
)
def test_the_verdict_on_a_claim_is_that_of_its_parts(verdicts, expected):
    assert overall([Finding("", None, "", one) for one in verdicts]) == expected


def test_an_aside_is_no_part_of_the_claim():
    findings = [Finding("", None, "", HOLDS), *(Finding("", None, "", FAILS, f"against {name}") for name in "ab")]
    findings.append(Finding("", None, "", HOLDS, "against c"))
    assert overall(findings) == HOLDS
    assert beside(findings) == ["not counted, holds: against c", "not counted, does not hold: against a; against b"]


def test_numbers_in_words():
    assert evidence.say(None) == "no runs yet"
    assert evidence.say(Interval(0.844, 0.52, 1.168, 3)) == "+0.84 ± 0.32 points, n = 3"
    assert evidence.say(Interval(1.0, math.nan, math.nan, 1)) == "+1.00 points, n = 1 (one run, no interval)"
    assert evidence.say(Interval(-1.0, -2.0, 0.0, 4), "", 1) == "-1.0 ± 1.0, n = 4"
    assert evidence.level({0: 70.0, 1: 70.0}) == "70.00 ± 0.00 %, n = 2"
    assert Finding("", Interval(7, 7, 7, 3), "%", HOLDS).value == "7 %, n = 3"
