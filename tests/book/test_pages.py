"""The tables of the experiment pages: what they show as HTML and as text."""

import math
import re

import pandas as pd
import pytest

from poolnb.book.findings import evidence, pages
from poolnb.book.findings.pages import Link, Table
from poolnb.lab.analysis import compare
from poolnb.lab.measurements.records import Measurement


def test_a_table_is_html_on_a_page_and_text_in_a_terminal():
    table = Table(("name", "value"), [["a < b", 3], [["one", Link("two", "../x.html#y")], "c"]])
    html = table._repr_html_()
    assert '<th scope="col">name</th>' in html and "<td>a &lt; b</td><td>3</td>" in html
    assert '<td>one<br><a class="reference internal" href="../x.html#y">two</a></td>' in html
    assert repr(table).splitlines() == ["name      value", "a < b     3", "one; two  c"]


def test_differences_stated_alone_say_their_verdict():
    one = evidence.apart({0: 1.0, 1: 2.0, 2: 4.0}, {0: 0.0, 1: 1.5, 2: 2.0})
    rows = pages.differences({"soft - max": one, "lip - max": None}).rows
    assert rows[0] == ["soft - max", evidence.say(one), f"undecided, {one.seeds_needed:.0f} seeds for 80 % power"]
    assert rows[1] == ["lip - max", "no runs yet", "-"]


def test_devices_are_counted():
    items = [Measurement("gradients", {}, {}, {"device": name}) for name in ("cpu", "cuda", "cpu")]
    assert pages.where(items) == "2 on cpu, 1 on cuda" and pages.where([]) == "none yet"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["C4", "C16"])
def test_a_chapter_ends_with_the_verdict_of_the_ledger(name):
    from poolnb.book.findings.ledger import ledger

    (row,) = pages.verdicts(name).rows
    judged = next(one for one in ledger() if one.claim.id == name)
    assert row[0][0] == name and row[2] == [judged.verdict] and len(row[1]) == len(judged.findings)


def test_a_comparison_says_its_verdicts_and_what_would_decide():
    rows = [
        (name, seed, 70 + gain + seed % 3 + 0.05 * ((seed * 7 + place * 3) % 5))
        for place, (name, gain) in enumerate({"max": 0, "soft": 3, "avg": 0, "lse": 0.5}.items())
        for seed in range(6)
    ]
    frame = pd.DataFrame(rows, columns=["pooler", "seed", "last"])
    lost = pd.DataFrame({"pooler": "lip", "seed": range(3), "last": math.nan})
    found = compare(pd.concat([frame, lost]))
    table = pages.comparisons({"digits": found, "clips": None})
    said = {row[0]: row[4] for row in table.rows}
    assert said["digits: soft - max"] == "above" and said["digits: avg - max"] == "equal within 0.5 points"
    assert [row[1] for row in table.rows[-2:]] == ["none has finished, 3 failed", "no runs yet"]
    assert table.rows[0][1] == evidence.say(found.intervals["soft"]) and "joint" in table.rows[0][1]
    assert found.intervals["soft"].together == 3  # those that have a value
    assert "cannot be below 0.25 with 3 seeds" in repr(pages.comparisons({"few": compare(frame[frame.seed < 3])}))
    assert not table.note  # six seeds: 2 / 64
    assert re.fullmatch(r"undecided, \d+ seeds for 80 % power|above", said["digits: lse - max"])


def test_a_difference_that_only_the_scatter_of_the_others_tells_is_named():
    """Of nine quiet poolers and one that scatters the last has too short an interval; its own pairs say so."""
    noise = {name: [0.1 * ((seed * place) % 3 - 1) for seed in range(5)] for place, name in enumerate("abcdefgh")}
    noise = {"max": [0.0] * 5, **noise, "loud": [3.7, 1.6, 0.1, -1.0, 2.6]}
    rows = [(name, seed, 70 + one) for name, values in noise.items() for seed, one in enumerate(values)]
    found = compare(pd.DataFrame(rows, columns=["pooler", "seed", "last"]))
    loud = found.intervals["loud"]
    assert loud.verdict == "above" and loud.pair.low < 0 < loud.pair.high and loud.by_others and (-loud).by_others
    assert not any(one.by_others for name, one in found.intervals.items() if name != "loud")
    table = pages.comparisons({"study": found})
    assert table.rows[-1][4] == "above, not by its pairs alone" and table.rows[-1][2] == f"± {loud.pair.half_width:.2f}"
    assert table.note.endswith("whose interval contains 0: study: loud - max.")
    doubt = f"by its pairs alone {evidence.say(loud.pair)}, undecided"
    assert evidence.Finding("loud", loud, "points", "holds").said.endswith(f"above (holds); {doubt}")


def test_the_ledger_folds_the_details_of_each_claim():
    row = pages.judge(next(one for one in pages.claims() if one.id == "C4"))
    table = pages.ledger_table([row])
    html = table._repr_html_()
    assert html.count("<details>") == 1 and f"<summary>{row.claim.text}</summary>" in html
    assert html.count("<td>holds</td><td>holds</td>") == len(row.findings) == 5
    assert table.rows[0][0] == "C4" and table.rows[0][1] == row.verdict
    assert row.claim.text in repr(table) and row.findings[0].what in repr(table)
