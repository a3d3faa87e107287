"""Tables of the experiment pages, and the ledger's."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from poolnb.book.findings.evidence import Finding, level, say, words
from poolnb.book.findings.ledger import Row, claims, judge
from poolnb.lab.analysis import ALPHA, ENOUGH, MOST, POWER, UNDECIDED, Comparison, Difference

MANY = 12  # rows: a longer table is folded, and a picture beside it says what it says


class Table:
    """A table that a page shows as HTML, and a terminal as text. Cells are text; `Link`s and lists are kept apart.

    A page folds a table of more than `MANY` rows, unless it is to be `unfolded`. A `note` stands below it.
    """

    def __init__(
        self, header: Sequence[str], rows: Iterable[Sequence[Any]], unfolded: bool = False, note: str = ""
    ) -> None:
        self.header = list(header)
        self.rows = [list(row) for row in rows]
        self.unfolded = unfolded
        self.note = note

    def __repr__(self) -> str:
        lines = [self.header, *([_plain(cell) for cell in row] for row in self.rows)]
        widths = [max(len(line[place]) for line in lines) for place in range(len(self.header))]
        text = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines]
        return "\n".join([*text, self.note] if self.note else text)

    def _repr_html_(self) -> str:
        if not self.rows:
            return "<p>No runs yet.</p>"
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in self.header)
        body = "".join("<tr>" + "".join(f"<td>{_html(cell)}</td>" for cell in row) + "</tr>" for row in self.rows)
        table = f'<table class="table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        shown = f'<div class="pst-scrollable-table-container">{table}</div>'
        shown += f"<p>{escape(self.note)}</p>" if self.note else ""
        if self.unfolded or len(self.rows) <= MANY:
            return shown
        return f"<details><summary>Table of {len(self.rows)} rows</summary>{shown}</details>"


class Link(str):
    """The text of a link to another page of the book, seen from the experiments."""

    target: str

    def __new__(cls, text: str, target: str) -> Link:
        made = super().__new__(cls, text)
        made.target = target
        return made


class Folded(str):
    """A line that a page shows, and `details` below it that it shows when the reader opens them."""

    details: list[Any]

    def __new__(cls, line: str, details: list[Any]) -> Folded:
        made = super().__new__(cls, line)
        made.details = details
        return made


class Parts(list[Finding]):
    """The parts of a claim: a small table on a page, a line in a terminal."""

    def __str__(self) -> str:
        return "; ".join(one.said for one in self)

    def _repr_html_(self) -> str:
        rows = [[one.what, one.value, "; ".join(filter(None, (one.word, one.doubt))), one.verdict] for one in self]
        return Table(("part", "found", "the difference", "so the claim"), rows, unfolded=True)._repr_html_()


class Verdicts(Table):
    """The verdicts that a chapter ends with. On a page each claim has a line, and its parts a table below it."""

    def _repr_html_(self) -> str:
        blocks = []
        for (name, text, source), parts, (verdict, *beside) in self.rows:
            line = f"<strong>{escape(name)}: {escape(verdict)}.</strong> {escape(text)} {escape(source)}"
            blocks.append(f"<p>{line}</p>{_html(parts)}")
            blocks += [f"<p>{escape(' '.join(beside))}</p>"] if beside else []
        return "".join(blocks)


def _plain(cell: Any) -> str:
    if isinstance(cell, Parts):
        return str(cell)
    if isinstance(cell, Folded):
        return "; ".join(map(str, [str(cell), *cell.details]))
    return "; ".join(map(str, cell)) if isinstance(cell, list) else str(cell)


def _html(cell: Any) -> str:
    if isinstance(cell, Parts):
        return cell._repr_html_()
    if isinstance(cell, list):
        return "<br>".join(map(_html, cell))
    if isinstance(cell, Folded):
        return f"<details><summary>{escape(cell)}</summary>{_html(cell.details)}</details>"
    if isinstance(cell, Link):
        return f'<a class="reference internal" href="{escape(cell.target)}">{escape(cell)}</a>'
    return escape(str(cell))


def verdicts(*ids: str) -> Verdicts:
    """What a chapter ends with: the findings and the verdict on each of these claims."""
    rows = []
    for judged in (judge(claim) for claim in claims() if claim.id in ids):
        claim, _, verdict, _ = _row(judged)
        rows.append([claim, Parts(judged.findings), verdict])
    return Verdicts(("claim", "what was found", "verdict"), rows)


def ledger_table(rows: Iterable[Row]) -> Table:
    """All claims, one line each: its verdict and the claim; folded below it what was found, and where."""
    lines = []
    for row in rows:
        (name, text, source), _, verdict, (chapter, *records) = _row(row)
        lines.append([name, verdict[0], Folded(text, [source, Parts(row.findings), *verdict[1:], chapter, *records])])
    return Table(("", "verdict", "claim"), lines, unfolded=True)


def differences_in_points(rows: Iterable[Row]) -> dict[str, Finding]:
    """The findings of the ledger that are differences in points, by claim and words; each interval once.

    The words are without what a claim asks of the difference and what came of it.
    """
    found: dict[str, Finding] = {}
    for row in rows:
        for one in row.findings:
            known = [other.interval for other in found.values()]
            if one.unit == "points" and isinstance(one.interval, Difference) and one.interval not in known:
                words = re.sub(r": more than.*| \((undecided|equal|above|below).*?\)$", "", one.what)
                found[f"{row.claim.id}: {words.replace(' - ', ' − ')}"] = one
    return found


def _row(row: Row) -> list[Any]:
    claim = row.claim
    anchor = "#verdict" if claim.page.startswith("experiments/") else ""
    chapter = Link(claim.page, f"../{claim.page}.html{anchor}")
    found = [one.said for one in row.findings]
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


def comparisons(found: Mapping[str, Comparison | None], unit: str = "points", digits: int = 2) -> Table:
    """One row per group of each titled comparison: interval, that of its own pairs, permutation test, and verdict.

    Below it stands how small the p of the permutation test can get at all, and what only the scatter of all tells.
    """
    rows, seeds, by_others = [], set(), []
    for title, one in found.items():
        if one is None:
            rows.append([title, "no runs yet", "-", "-", "-"])
            continue
        p, pairs = one.permutation(), one.pairs
        seeds |= {int(row.n) for _, row in one.table.iterrows() if row.n > 1}
        for name, row in one.table.iterrows():
            said = say(one.intervals[name], unit, digits) if row.n else "none has finished"
            lost = f", {row.failed} failed" if row.failed else ""
            verdict = decided(one.intervals[name], unit)
            what, own = f"{title}: {name} - {one.baseline}", pairs.get(name)
            alone = "-" if own is None or own.n < ENOUGH else f"± {own.half_width:.{digits}f}"
            rows.append([what, said + lost, alone, _number(p[name]), verdict])
            if one.intervals[name].by_others:
                by_others.append(what)
    heads = ("", "difference", "its pairs alone", "p (permutation)", "verdict")
    return Table(heads, rows, note=" ".join(filter(None, (_floor(seeds), _borne_by_all(by_others)))))


def _borne_by_all(names: Sequence[str]) -> str:
    """Verdicts that rest on the model's one variance for all groups."""
    if not names:
        return ""
    return (
        "Told from 0 by the scatter of all poolers, which the model takes to be the same, and not by that of its own "
        f"pairs, whose interval contains 0: {'; '.join(names)}."
    )


def _floor(seeds: Iterable[int]) -> str:
    """How small p gets with so many seeds: of all patterns of signs, the one that was seen and its opposite."""
    floors = [f"{2 / 2**n:.2g} with {n} seeds" for n in sorted(seeds) if 2 / 2**n > ALPHA]
    if not floors:
        return ""
    return (
        f"p (permutation) cannot be below {', '.join(floors)}, since so few patterns of signs exist, nor below that of "
        "a pooler with a larger |t|, which may have fewer seeds; there it neither confirms nor refutes a verdict."
    )


def differences(rows: Mapping[str, Difference | None], unit: str = "points", digits: int = 2) -> Table:
    """One row per difference that is stated alone: interval, and verdict."""
    return Table(
        ("", "difference", "verdict"),
        [[title, say(one, unit, digits), decided(one, unit)] for title, one in rows.items()],
    )


class Line(str):
    """A sentence that a cell shows in place of a table."""

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return f"<p>{escape(self)}</p>"


def differences_if_any(rows: Mapping[str, Difference | None]) -> Table | Line:
    """The table of `differences`; one line as long as none of the runs that it waits for is there."""
    return differences(rows) if any(rows.values()) else Line("Planned, no runs yet.")


def decided(one: Difference | None, unit: str = "points") -> str:
    """The verdict on a difference in words: `above`, `equal within 0.5 points`, `undecided, 9 seeds for 80 % power`."""
    if one is None:
        return "-"
    if one.verdict != UNDECIDED or one.seeds_needed != one.seeds_needed:
        return words(one, unit=unit) + ", not by its pairs alone" * one.by_others
    if one.seeds_needed > MOST:
        return f"{UNDECIDED}, more than {MOST} seeds for {100 * POWER:.0f} % power"
    if one.seeds_needed <= one.n:  # decided by its width, but a run has failed, or seeds are too few
        return UNDECIDED
    return f"{UNDECIDED}, {one.seeds_needed:.0f} seeds for {100 * POWER:.0f} % power"


def _number(p: float) -> str:
    return "-" if p != p else f"{p:.2g}"


def where(items: Iterable[Any]) -> str:
    """On what runs or measurements were done: `33 on cpu`."""
    counts = Counter(item.environment.get("device", "?") for item in items)
    return ", ".join(f"{count} on {device}" for device, count in sorted(counts.items())) or "none yet"
