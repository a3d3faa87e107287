"""A Sphinx extension with two directives: `chapter-status` shows receipts, `page-status` what pages weigh.

The tables are made when the site is built, so they cannot differ from the receipts and the record.
"""

from __future__ import annotations

import json
import re
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from poolnb.book.browser import RECORD
from poolnb.book.notebooks import RECEIPTS


class ChapterStatus(SphinxDirective):
    """The date, duration and device of every chapter, and below it the versions of all packages that were used."""

    def run(self) -> list[nodes.Node]:
        files = sorted(RECEIPTS.rglob("*.json"))
        for file in files:
            self.env.note_dependency(str(file))
        receipts = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        known = [r for r in receipts if f"book/{r['chapter']}" in self.env.found_docs]
        container = nodes.container()
        self.state.nested_parse(StringList(_lines(known), "receipts"), 0, container)
        return list(container.children)


def _lines(receipts: list[dict[str, Any]]) -> list[str]:
    if not receipts:
        return ["No chapter has been executed yet."]
    lines = ["| Chapter | Executed | Seconds | On |", "|---|---|--:|---|"]
    for r in receipts:
        date = str(r["date"]).replace("-", "\u2011")  # hyphens at which no line breaks
        lines.append(f"| [](/book/{r['chapter']}) | {_text(date)} | {_text(r['seconds'])} | {_text(r['device'])} |")
    used: dict[str, set[str]] = {}
    for r in receipts:
        for package, version in r["versions"].items():
            used.setdefault(package, set()).add(version)
    lines += ["", "| Package | Versions |", "|---|---|"]
    return lines + [f"| {_text(package)} | {_text(', '.join(sorted(found)))} |" for package, found in used.items()]


class PageStatus(SphinxDirective):
    """What every page weighs and how soon it is drawn, from the record that `poolnb book measure` writes."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(RECORD))
        container = nodes.container()
        record = json.loads(RECORD.read_text(encoding="utf-8"))
        record["pages"] = {name: row for name, row in record["pages"].items() if name in self.env.found_docs}
        self.state.nested_parse(StringList(_pages(record), "pages"), 0, container)
        return list(container.children)


def _pages(record: dict[str, Any]) -> list[str]:
    lines = ["| Page | HTML, kB | Scripts, styles, kB | Images, kB | First drawing, ms |", "|---|--:|--:|--:|--:|"]
    for name, row in record["pages"].items():
        sizes = (row[part] / 1000 for part in ("html", "scripts_and_styles", "images"))
        cells = " | ".join(f"{size:.0f}" for size in sizes)
        lines.append(f"| [](/{name}) | {cells} | {_text(row['first_drawing_ms'])} |")
    said = " ".join(_text(record[part]) for part in ("browser", "device", "date"))
    return [*lines, "", f"Measured with {said}."]


def _text(value: Any) -> str:
    """What a receipt says, as text in a cell of a table: nothing in it is markup."""
    return re.sub(r"[!-/:-@\[-`{-~]", r"\\\g<0>", " ".join(str(value).split()))


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("chapter-status", ChapterStatus)
    app.add_directive("page-status", PageStatus)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
