"""The ledger: a verdict for every claim, recomputed from the records and compared with the page."""

import html
import math
from dataclasses import replace

import made_up
import nbformat
import pandas
import pytest
from statsmodels.stats.power import TTestPower

from poolnb.book import notebooks
from poolnb.book.findings import facts as ledger_facts
from poolnb.book.findings import ledger, pages, studies
from poolnb.book.findings.evidence import FAILS, HOLDS, OPEN, PARTLY, UNTESTED, Finding
from poolnb.book.findings.progress import state_of_studies, still_open
from poolnb.lab.analysis import LOOKS, Difference
from poolnb.lab.config import RunConfig
from poolnb.lab.measurements.records import KINDS
from poolnb.lab.provenance import BOOK, RESULTS

PAGE = BOOK / "experiments" / "ledger.ipynb"
VERDICTS = {
    HOLDS,
    FAILS,
    OPEN,
    f"{OPEN}, n too small",
    f"{OPEN}, a part has no runs",
    PARTLY,
    f"{PARTLY}, a part has no runs",
    UNTESTED,
    "answered",
}


@pytest.fixture(scope="module")
def rows():
    return ledger.ledger()


def test_there_is_a_verdict_for_every_claim(rows):
    assert [row.claim.id for row in rows] == [f"C{number}" for number in range(1, 17)]
    for row in rows:
        assert row.verdict in VERDICTS and row.findings
        assert all(one.verdict in VERDICTS for one in row.findings)
        if row.verdict != UNTESTED:
            assert any(one.interval is not None for one in row.findings)


def test_every_claim_names_a_chapter_and_folders_of_records(rows):
    names = {notebooks.chapter_name(path) for path in notebooks.chapters()}
    sweeps = {path.stem for path in (BOOK / "experiments" / "sweeps").glob("*.toml")}
    kinds = {"gradients", "test-pooling", "training-cost", "alternatives"}
    for row in rows:
        assert row.claim.page in names
        assert set(row.claim.records) <= sweeps | kinds | {path.name for path in RESULTS.iterdir()}


def test_the_page_says_what_the_records_say(rows):
    """Every verdict and every number of the page's tables, computed anew."""
    outputs = [
        output["data"]
        for cell in nbformat.read(PAGE, as_version=4).cells
        for output in cell.get("outputs", ())
        if "text/html" in output.get("data", {})
    ]
    tables = pages.ledger_table(rows), still_open(rows), state_of_studies()
    assert [data["text/html"] for data in outputs] == [table._repr_html_() for table in tables]
    shown = html.unescape(outputs[0]["text/html"])
    for row in rows:
        assert f"<td>{row.verdict}</td>" in shown and all(f"({one})" in shown for one in row.beside)
        for one in row.findings:
            word = f"{one.word}; {one.doubt}" if one.doubt else one.word
            assert f"<td>{one.what}</td><td>{one.value}</td><td>{word}</td>" in shown, row.claim.id


def test_the_winner_is_chosen_seed_by_seed_and_needs_enough_of_them(tmp_path, monkeypatch):
    """`lp` has the best run, but two seeds; `gem` lacks a seed on which all are worse; `lse` is better seed by seed."""
    made_up.read_from(monkeypatch, tmp_path)
    run = RunConfig(dataset="mnist", epochs=8)
    right = {
        "max": [0.9, 0.9, 0.9, 0.5],
        "lp": [0.99, 0.99],
        "gem": [0.91, 0.91, 0.91],
        "lse": [0.92, 0.92, 0.92, 0.52],
    }
    for pooler, values in right.items():
        for seed, value in enumerate(values):
            made_up.write(tmp_path, "comparison", [replace(run, pooler=pooler, seed=seed)], right=value)
    found = ledger.winner("mnist")
    assert (found.name, found.count, found.verdict) == ("lse", 2, "above")
    assert found.difference.n == 4 and found.difference.mean == pytest.approx(2)
    assert ledger.winner("cifar10") is None


def test_what_is_undecided_stands_with_the_seeds_that_would_decide_it(rows):
    undecided = [row for row in rows if row.verdict.startswith(OPEN)]
    shown = still_open(rows).rows
    assert {line[0].partition(":")[0] for line in shown} == {row.claim.id for row in undecided}
    for row in undecided:
        assert not row.claim.study or row.claim.study in [*studies.ORDER, *KINDS]
    wide = Difference(10.8, 7.8, 13.8, 8, "above", 0, sd=2.5, df=7, margin=0.5)
    part = Finding("error", wide, "points", OPEN, bound=10)
    claim = next(one for one in ledger.claims() if not one.study)
    ((what, found, seeds, runs),) = still_open([ledger.Row(claim, (part,), OPEN)]).rows
    assert (what, found) == (
        f"{claim.id}: error",
        f"{part.value}, against 10 points",
    ) and runs == "none is planned"
    # A paired t test of a difference of 0.8 with sqrt(2) * 2.5 as the standard deviation.
    power = TTestPower().solve_power(0.8 / (2.5 * 2**0.5), power=0.8, alpha=0.05)
    assert int(seeds) == pytest.approx(power, rel=0.03)
    of_its_own = replace(part, study="mnist1000")
    assert still_open([ledger.Row(claim, (of_its_own,), OPEN)]).rows[0][3].endswith("of mnist1000")
    unknown = Finding("error", None, "points", UNTESTED)
    assert still_open([ledger.Row(claim, (unknown,), OPEN)]).rows[0][2] == "not known"
    assert not still_open([ledger.Row(claim, (part,), HOLDS)]).rows


def test_a_chapter_quotes_the_comparison_with_tuned_rates(monkeypatch):
    """12 seeds of max and of one pooler that is 2 points better; of the other study nothing is there."""
    assert set(ledger.tuned_against_max("ada")) == {"ada - max, CIFAR-10, tuned", "ada - max, 1000 of MNIST, tuned"}
    rows = [
        {"pooler": pooler, "seed": seed, "last": 70 + gap + 0.1 * (seed * place % 5)}
        for place, (pooler, gap) in enumerate({"max": 0, "ada": 2, "std": -3}.items())
        for seed in range(12)
    ]
    monkeypatch.setattr(ledger, "study", lambda name: pandas.DataFrame(rows if name == "comparison-tuned" else []))
    found = ledger.tuned_against_max("ada", "blur")
    assert [title for title, one in found.items() if one is not None] == ["ada - max, CIFAR-10, tuned"]
    one = found["ada - max, CIFAR-10, tuned"]
    assert one.n == 12 and one.together == 2 and one.verdict == "above" and one.mean == pytest.approx(2, abs=0.5)
    shown = repr(pages.differences_if_any(found))
    assert shown.count("no runs yet") == 3 and "+2." in shown
    assert repr(pages.differences_if_any(ledger.tuned_against_max())) == "Planned, no runs yet."


@pytest.mark.parametrize(("left_out", "verdict"), [((), "answered"), (("lip",), OPEN)])
def test_the_question_who_wins_waits_for_every_pooler(tmp_path, monkeypatch, left_out, verdict):
    made_up.read_from(monkeypatch, tmp_path)
    run = RunConfig(dataset="mnist", epochs=8, pooler="max")
    for seed in range(3):
        made_up.write(tmp_path, "comparison", [replace(run, seed=seed)], right=0.95)
        for place, pooler in enumerate(sorted(ledger.others("mnist") - set(left_out))):
            right = 0.9 - place / 100 + (seed * place % 3) / 1e4
            made_up.write(tmp_path, "comparison", [replace(run, pooler=pooler, seed=seed)], right=right)
    (claim,) = (one for one in ledger.claims() if one.id == "C5")
    found = ledger.judge(claim).findings[1]
    assert found.verdict == verdict and ("best of 8 of 9 on" if left_out else "best of the 9 on") in found.what


@pytest.mark.parametrize("seeds", [5, 9, 12])
def test_a_second_look_counts_once_both_poolers_have_its_seeds(seeds, tmp_path, monkeypatch):
    made_up.read_from(monkeypatch, tmp_path)
    for sweep in ("backbones", "backbones-average"):
        one = studies.study(sweep)
        for config in one.sweep.configs:
            if config.seed < seeds or (config.pooler == "max" and seeds > 5):
                right = {"max": 0.76, "avg": 0.76, "soft": 0.74, "lip": 0.78}[config.pooler]
                made_up.write(tmp_path, one.folder, [config], right=right + (config.seed * 7 % 5) / 1e4)
    first, second = ledger.on_backbones()["ResNet-20, CIFAR-10"], ledger.second_look()
    assert first.seeds == 5 and set(first.table["n"]) == {5} and first.alpha == pytest.approx(0.05 * 5 / 12)
    assert (second is not None) == (seeds == 12)
    if second is not None:
        assert second.seeds == 12 and list(second.verdicts) == ["avg"] and second.alpha == pytest.approx(0.05 * 7 / 12)
    told = ledger.max_against_average()["CIFAR-10, ResNet-20"]
    assert told.n == (12 if seeds == 12 else 5) and told.verdict == "equal"


@pytest.mark.parametrize(("points", "verdict"), [(1, "below"), (0, "equal")])
def test_a_replication_decides_alone_once_it_is_complete(points, verdict, tmp_path, monkeypatch):
    """Before, the seeds of the first looks say what they said; afterwards they stand beside it and do not count."""
    made_up.read_from(monkeypatch, tmp_path)

    def write(sweep, average):
        one = studies.study(sweep)
        for config in one.sweep.configs:
            if config.pooler in ("max", "avg"):
                right = {"max": 0.76, "avg": average}[config.pooler]
                made_up.write(tmp_path, one.folder, [config], right=right + (config.seed * 7 % 5) / 1e4)

    def parts():
        (claim,) = (one for one in ledger.claims() if one.id == "C15")
        return {one.what: one for one in ledger.judge(claim).findings if "ResNet" in one.what}

    write("backbones", average=0.71)
    write("backbones-average", average=0.71)
    write("backbones-replication", average=0.76 + points / 100)
    missing = next(tmp_path.glob("backbones/*-avg-seed27-*"))
    missing.rename(tmp_path / missing.name)
    assert ledger.replication() is None and [one.interval.n for one in parts().values()] == [12]
    (tmp_path / missing.name).rename(missing)
    new, before = parts().values()
    assert (new.interval.n, new.interval.verdict, new.aside) == (16, verdict, "")
    assert (before.interval.n, before.interval.verdict, before.aside != "") == (12, "above", True)
    assert ledger.replication().alpha == 0.05 and ledger.second_look().verdicts == {"avg": "below"}


def test_the_finer_rates_tell_what_the_largest_is_that_trains(tmp_path, monkeypatch):
    """A finer study decides it; of the coarse one the result stands beside. A seed without all rates counts nowhere."""
    made_up.read_from(monkeypatch, tmp_path)
    ends = {"max": 0.125, "avg": 0.1, "soft": 0.1}
    for sweep in ("learning-rates-wide", "largest-rate"):
        for config in studies.study(sweep).sweep.configs:
            if config.seed != 4 or config.learning_rate <= 0.1:  # of seed 4 the larger ones are missing
                trains = config.learning_rate <= ends[config.pooler]
                made_up.write(tmp_path, sweep, [config], right=0.6 if trains else 0.1)
    fine = ledger.largest_that_trains(ledger.study("largest-rate"))
    assert 4 not in set(fine["seed"]) and len(fine) == 3 * 7
    assert [*10 ** fine.loc[fine["group"] == "max", "value"]] == pytest.approx([0.125] * 7)
    (claim,) = (one for one in ledger.claims() if one.id == "C2")
    largest = [one for one in ledger.judge(claim).findings if "largest" in one.what]
    assert [(one.aside == "", "for 2 epochs" in one.what) for one in largest] == [(True,) * 2] * 2 + [(False,) * 2] * 2
    assert [one.interval.mean for one in largest[:2]] == [pytest.approx(math.log10(0.8)), pytest.approx(0)]
    nowhere = pandas.DataFrame({"pooler": "max", "seed": 0, "learning_rate": [0.1, 0.2], "last": [10.0, 10.0]})
    assert ledger.largest_that_trains(nowhere)["value"].isna().all()


def test_the_tuned_comparison_counts_once_every_pooler_has_enough_seeds(tmp_path, monkeypatch):
    made_up.read_from(monkeypatch, tmp_path)
    plan = [config for config in studies.study("comparison-tuned").sweep.configs if config.seed < LOOKS[0]]
    late = [config for config in plan if config.pooler == "rank" and config.seed == 3]
    made_up.write(tmp_path, "comparison-tuned", [config for config in plan if config not in late])
    assert ledger.tuned("cifar10")[1] == () and not {"rank", "ada"} & ledger.others("cifar10")
    assert "CIFAR-10, tuned" not in ledger.max_against_average()
    made_up.write(tmp_path, "comparison-tuned", late)
    runs, looks = ledger.tuned("cifar10")
    assert len(runs) == len(plan) and looks == LOOKS
    assert {"rank", "ada", "lip"} <= ledger.others("cifar10") and "strided" not in ledger.others("cifar10")
    assert ledger.max_against_average()["CIFAR-10, tuned"].n == LOOKS[0]


def test_kept_values_are_those_of_the_chapter():
    assert 0 < ledger_facts.kept_by("softmax/softmax")["share_untrained"] < 100
    assert ledger_facts.kept_by("softmax/published-code")["photos"] == 7


def test_what_the_answers_say_of_the_gradient_is_decided_by_computing_it():
    (alone, agree, size) = ledger_facts.c16()
    assert (alone.verdict, agree.verdict, size.verdict) == (HOLDS, FAILS, HOLDS)


def test_the_limits_of_the_parameters_are_reached():
    assert [one.verdict for one in ledger_facts.c4()] == [HOLDS] * 5
