"""A Sphinx extension with one directive, `conformance`: what works around which operator, from the tests' own record.

The table is made when the site is built, so it cannot differ from the record.
"""

from __future__ import annotations

import json
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from poolnb.lab.provenance import RESULTS

TABLE = RESULTS / "conformance" / "table.json"
_SIGNS = {"works": "✓", "not applicable": "–"}


class Conformance(SphinxDirective):
    """Wrappers by operators, and below it every refusal in its own words."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(TABLE))
        container = nodes.container()
        record = json.loads(TABLE.read_text(encoding="utf-8"))
        self.state.nested_parse(StringList(lines(record), "conformance"), 0, container)
        return container.children


def lines(record: dict[str, Any]) -> list[str]:
    """The Markdown of the page: a mark per cell, numbers for the messages."""
    messages: list[str] = []
    names = sorted(next(iter(record["outcomes"].values())))
    rows = [f"| Around the pool | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for key, title in record["titles"].items():
        cells = (_cell(record["outcomes"][key][name], messages) for name in names)
        rows.append(f"| {title} | {' | '.join(cells)} |")
    listed = [f"{i}. {message}" for i, message in enumerate(messages, 1)]
    return [
        *rows,
        "",
        "Refused, in the words of the error:",
        "",
        *listed,
        "",
        f"Recorded with torch {record['torch']}.",
    ]


def _cell(outcome: dict[str, str], messages: list[str]) -> str:
    """A tick, a dash, or the number of a message; both where training differs from evaluation."""
    signs = []
    for found in dict.fromkeys(outcome.values()):
        if found not in _SIGNS and found not in messages:
            messages.append(found)
        signs.append(_SIGNS.get(found) or f"no ({messages.index(found) + 1})")
    return " / ".join(signs)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("conformance", Conformance)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
