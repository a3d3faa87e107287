"""The introduction shows code that runs, and names operators that exist."""

import re
from typing import Any

import torch
import yaml

import poolnb
from poolnb.book.sphinxext import findings
from poolnb.lab.provenance import BOOK, ROOT

TEXT = (BOOK / "intro.md").read_text(encoding="utf-8")


def test_its_python_runs():
    blocks = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        names: dict[str, Any] = {}
        exec(compile(block, "book/intro.md", "exec"), names)
        x, y, layer = names["x"], names["y"], names["layer"]
        assert y.shape == (8, 64, 16, 16) and torch.equal(layer(x), y)


def test_its_sentences_about_the_ledger_are_what_the_records_say():
    """What the site's build asks, too: there one wrong name costs every page."""
    asked = {role: re.findall(rf"{{{role}}}`([^`]*)`", TEXT) for role in ("found", "compared", "claims")}
    assert all(asked.values())
    for role, there in (("found", findings.rows()), ("compared", findings.studies()), ("claims", findings.rows())):
        for one in asked[role]:
            assert getattr(findings, role)(one, there)


def test_its_table_names_operators_that_exist():
    rows = re.findall(r"^\| (`.*?) \|", TEXT, flags=re.MULTILINE)
    named = set(re.findall(r"`(\w+)`", " ".join(rows)))
    assert named == set(poolnb.list_pools()) >= {"max", "avg", "soft"}


def test_how_to_cite_is_said_once_in_two_forms():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    page = (BOOK / "appendix/run.md").read_text(encoding="utf-8")
    assert "## How to cite" in TEXT and "{ref}`run`" in TEXT[TEXT.index("## How to cite") :]
    assert citation["authors"][0]["name"] in page
    assert " ".join(citation["title"].split()) in " ".join(page.replace("*", "").split())
