"""The table of receipts: what a receipt says is text on the page, whatever stands in it."""

import json
import re
from html import unescape

import pytest
import yaml
from docutils.core import publish_parts
from myst_parser.parsers.docutils_ import Parser

from poolnb.book import browser
from poolnb.book.sphinxext import status
from poolnb.lab.provenance import ROOT

EXTENSIONS = yaml.safe_load((ROOT / "_config.yml").read_text())["parse"]["myst_enable_extensions"]
RECEIPT = {"chapter": "one", "date": "2026-11-20", "seconds": 1.5, "device": "x86_64 CPU", "versions": {"torch": "2.1"}}


def cells(receipt):
    """The cells of the table's rows, as text."""
    source = "\n".join(status._lines([receipt])).replace("[](/book/one)", "one")
    settings = {"myst_enable_extensions": EXTENSIONS, "output_encoding": "unicode", "halt_level": 2}
    page = publish_parts(source, parser=Parser(), writer_name="html5", settings_overrides=settings)["body"]
    return [unescape(re.sub(r"</?(?:td|p)\b[^>]*>", "", cell)) for cell in re.findall(r"<td.*?</td>", page, re.S)]


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "GPU | another | column",
        "`code` *strong* **stronger** _x_ $y$ $$z$$",
        "[link](javascript:alert(1)) ![picture](x.png) <https://x.org>",
        "{ref}`run` {{ page }} {raw}`x` &lt;b&gt;",
        "\\| \\<b\\> trailing \\",
        "~~gone~~ # heading - item :::{note} ``` [^1] (x)=",
    ],
)
def test_a_receipt_is_text_on_the_page(text):
    said = RECEIPT | {"device": text, "seconds": text, "versions": {text: text}}
    assert cells(said) == ["one", "2026\u201111\u201120", text, text, text, text]


def test_lines_of_a_receipt_stay_in_their_cell():
    assert cells(RECEIPT | {"device": "one\n\n# two\n| three |"})[3] == "one # two | three |"


def test_a_usual_receipt():
    assert cells(RECEIPT) == ["one", "2026\u201111\u201120", "1.5", "x86_64 CPU", "torch", "2.1"]


def test_no_page_is_heavy_and_the_record_has_every_page(site):
    """Without its images a page weighs at most 1.5 MB; scripts and styles are the same for all and are kept."""
    weighed, record = browser.weigh(site), json.loads(browser.RECORD.read_text(encoding="utf-8"))["pages"]
    assert list(record) == browser.pages()
    for name, sizes in weighed.items():
        assert sizes["html"] <= 1_500_000, name
        assert record[name]["html"] == pytest.approx(sizes["html"], rel=0.3), f"{name}: `poolnb book measure`"
        assert record[name]["first_drawing_ms"] > 0
