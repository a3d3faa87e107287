"""A sentence about the ledger has its number from the records, and stops the build when they say something else."""

import pandas as pd
import pytest

from poolnb.book.findings.evidence import FEW, HOLDS, OPEN, Finding
from poolnb.book.findings.ledger import Claim, Row
from poolnb.book.sphinxext.findings import claims, compared, found
from poolnb.lab.analysis import compare
from poolnb.lab.statistics import Interval

FINDINGS = (
    Finding("accuracy, a - b, 8 epochs", Interval(-0.5, -0.75, -0.25, 3), "points", HOLDS),
    Finding("accuracy, a - b, 25 epochs", None, "points", OPEN),
)
ROWS = (Row(Claim("C1", "a is worse", "someone", "page", [], lambda: list(FINDINGS)), FINDINGS, OPEN),)


def test_a_finding_is_named_by_its_first_words():
    said = found("C1: accuracy, a - b, 8: holds", ROWS)
    assert said.replace("\u00a0", " ") == FINDINGS[0].value.replace("-", "−") and "−0.50" in said


@pytest.mark.parametrize("asked", ["C1: accuracy: holds", "C1: a - b: holds", "C2: accuracy, a - b, 8: holds"])
def test_not_one_finding(asked):
    with pytest.raises(ValueError, match="must name one finding"):
        found(asked, ROWS)


@pytest.mark.parametrize(("asked", "said"), [("all", "1"), ("undecided", "1"), ("holds", "0"), (f"{OPEN}, {FEW}", "0")])
def test_claims_are_counted_by_their_verdict(asked, said):
    assert claims(asked, ROWS) == said


@pytest.mark.parametrize("asked", ["hold", "Holds", "undecided, too few", ""])
def test_what_is_no_verdict_is_not_counted(asked):
    with pytest.raises(ValueError, match="claims must name one of holds"):
        claims(asked, ROWS)


def test_another_verdict():
    with pytest.raises(ValueError, match="8 epochs: holds"):
        found("C1: accuracy, a - b, 8: undecided", ROWS)


@pytest.mark.parametrize("asked", ["one: soft: below", "one: lip: above", "two: soft: above", "none: soft: above"])
def test_a_difference_of_a_comparison_is_named_with_its_verdict(asked):
    rows = [(name, seed, gain + seed / 10) for name, gain in (("max", 70), ("soft", 73)) for seed in range(3)]
    rows[0] = ("max", 0, 70.1)
    there = {"one": compare(pd.DataFrame(rows, columns=["pooler", "seed", "last"])), "none": None}
    assert compared("one: soft: above", there).startswith("+2.97")
    with pytest.raises(ValueError, match="must name one difference"):
        compared(asked, there)
