"""Which pool to use: what the studies say of a pooler follows from their verdicts alone."""

import made_up
import pandas as pd
import pytest

from poolnb.book.findings import advice
from poolnb.lab.analysis import compare


def study(**gains):
    """Four seeds of max pooling and of others, which gain so many points."""
    rows = [
        (name, seed, 70 + gain + seed + 0.01 * ((seed * 7 + place * 3) % 5))
        for place, (name, gain) in enumerate({"max": 0, **gains}.items())
        for seed in range(4)
    ]
    return compare(pd.DataFrame(rows, columns=["pooler", "seed", "last"]))


@pytest.fixture
def studies():
    return {"one": study(soft=3, lip=3, avg=-3, lp=0.1), "two": study(lip=-2, gem=0.55), "none": None}


def test_better_is_above_in_one_study_and_below_in_none(studies):
    assert advice.better(studies) == ["gem", "soft"]  # lip is above in one and below in the other
    assert advice.never_below(studies) == ["max", "soft", "gem", "lp"]


def test_poolers_are_ordered_by_the_first_study_that_has_them(studies):
    assert advice.poolers(studies) == ["max", "soft", "lip", "gem", "lp", "avg"]
    assert advice.by_verdict(studies["one"])["equal"] == ["lp"]
    assert not any(advice.by_verdict(None).values())


def test_the_studies_are_those_of_the_records(tmp_path, monkeypatch):
    found = advice.studies()
    there = {"CIFAR-10, 8 epochs", "CIFAR-10, 25 epochs", "MNIST, 8 epochs", "300 digits"}
    assert there <= {title for title, one in found.items() if one is not None}
    made_up.read_from(monkeypatch, tmp_path)
    assert set(advice.studies()) == set(found) and not any(advice.studies().values())
