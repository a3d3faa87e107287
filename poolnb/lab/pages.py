"""Tables of the experiment pages, and the ledger's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from .evidence import level, say
from .ledger import Row, claims, judge
from .statistics import PairedDifference


class Table:
    """A table that a page shows as HTML, and a terminal as text. Cells are text; `Link`s and lists are kept apart."""

    def __init__(self, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        self.header = list(header)
        self.rows = [list(row) for row in rows]

    def __repr__(self) -> str:
        lines = [self.header, *([_plain(cell) for cell in row] for row in self.rows)]
        widths = [max(len(line[place]) for line in lines) for place in range(len(self.header))]
        return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in self.header)
        body = "".join("<tr>" + "".join(f"<td>{_html(cell)}</td>" for cell in row) + "</tr>" for row in self.rows)
        table = f'<table class="table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        return f'<div class="pst-scrollable-table-container">{table}</div>'


class Link(str):
    """The text of a link to another page of the book, seen from the experiments."""

    target: str

    def __new__(cls, text: str, target: str) -> Link:
        made = super().__new__(cls, text)
        made.target = target
        return made


def _plain(cell: Any) -> str:
    return "; ".join(map(str, cell)) if isinstance(cell, list) else str(cell)


def _html(cell: Any) -> str:
    if isinstance(cell, list):
        return "<br>".join(map(_html, cell))
    if isinstance(cell, Link):
        return f'<a class="reference internal" href="{escape(cell.target)}">{escape(cell)}</a>'
    return escape(str(cell))


def verdicts(*ids: str) -> Table:
    """What a chapter ends with: the findings and the verdict on each of these claims."""
    judged = [judge(claim) for claim in claims() if claim.id in ids]
    return Table(("claim", "what was found", "verdict"), (_row(row)[:3] for row in judged))


def ledger_table(rows: Iterable[Row]) -> Table:
    """All claims: what was found, the verdict, the chapter and the records behind it."""
    return Table(("claim", "what was found", "verdict", "where"), map(_row, rows))


def _row(row: Row) -> list[Any]:
    claim = row.claim
    anchor = "#verdict" if claim.page.startswith("experiments/") else ""
    chapter = Link(claim.page, f"../{claim.page}.html{anchor}")
    found = [f"{one.what}: {one.value} ({one.verdict})" for one in row.findings]
    records = [f"book/results/{name}" for name in claim.records] or ["computed, or kept by the chapter"]
    verdict = [row.verdict, *(f"({one})" for one in row.beside)]
    return [[claim.id, claim.text, f"({claim.source})"], found, verdict, [chapter, *records]]


def accuracies(groups: Mapping[str, Any], columns: Mapping[str, str]) -> Table:
    """One row per group (a title and its rows of `evidence.table`), one column per value, as mean and interval."""
    rows = [
        [title, *(level(dict(zip(frame["seed"], frame[column], strict=True))) for column in columns)]
        for title, frame in groups.items()
    ]
    return Table(("", *columns.values()), rows)


def against(found: Mapping[Any, tuple[PairedDifference, float]], unit: str = "points") -> Table:
    """Paired differences: interval, p value corrected by Holm, and effect size."""
    rows = [
        [str(name), say(one, unit), "-" if p != p else f"{p:.2g}", "-" if p != p else f"{one.effect_size:+.1f}"]
        for name, (one, p) in found.items()
    ]
    return Table(("", "difference", "p (Holm)", "effect size"), rows)


def where(items: Iterable[Any]) -> str:
    """On what runs or measurements were done: `33 on cpu`."""
    counts = Counter(item.environment.get("device", "?") for item in items)
    return ", ".join(f"{count} on {device}" for device, count in sorted(counts.items())) or "none yet"
