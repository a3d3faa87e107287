"""The tables of the experiment pages: what they show as HTML and as text."""

import pytest

from poolnb.lab import evidence, pages
from poolnb.lab.measurements import Measurement
from poolnb.lab.pages import Link, Table
from poolnb.lab.statistics import paired_difference


def test_a_table_is_html_on_a_page_and_text_in_a_terminal():
    table = Table(("name", "value"), [["a < b", 3], [["one", Link("two", "../x.html#y")], "c"]])
    html = table._repr_html_()
    assert '<th scope="col">name</th>' in html and "<td>a &lt; b</td><td>3</td>" in html
    assert '<td>one<br><a class="reference internal" href="../x.html#y">two</a></td>' in html
    assert repr(table).splitlines() == ["name      value", "a < b     3", "one; two  c"]


def test_differences_say_n_p_and_effect():
    two = {0: 1.0, 1: 2.0, 2: 4.0}, {0: 0.0, 1: 1.5, 2: 2.0}
    found = paired_difference(*two)
    (row,) = pages.against({"soft": (found, 0.04)}).rows
    assert row == ["soft", evidence.say(found), "0.04", f"{found.effect_size:+.1f}"]
    one = paired_difference({0: 1.0}, {0: 0.5})
    assert pages.against({"soft": (one, one.p)}).rows[0][2:] == ["-", "-"]


def test_devices_are_counted():
    items = [Measurement("gradients", {}, {}, {"device": name}) for name in ("cpu", "cuda", "cpu")]
    assert pages.where(items) == "2 on cpu, 1 on cuda" and pages.where([]) == "none yet"


@pytest.mark.parametrize("name", ["C4", "C16"])
def test_a_chapter_ends_with_the_verdict_of_the_ledger(name):
    from poolnb.lab.ledger import ledger

    (row,) = pages.verdicts(name).rows
    judged = next(one for one in ledger() if one.claim.id == name)
    assert row[0][0] == name and row[2] == [judged.verdict] and len(row[1]) == len(judged.findings)
