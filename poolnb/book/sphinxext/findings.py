"""A Sphinx extension with three roles for sentences about the ledger, computed from the records when the site is built.

``{claims}`holds` `` is the number of claims with this verdict, ``{claims}`all` `` of all; with a reason, such as
``{claims}`undecided, a part has no runs` ``, of those whose verdict gives it.
``{found}`C15: accuracy, max - avg, CIFAR-10, 25: holds` `` is the number of the claim's finding that starts with these
words. ``{compared}`CIFAR-10, recipe: stochastic: above` `` is that of a pooler in one of the comparisons of
`verdicts.comparisons`. A sentence is written for a verdict; when the records come to another one, the build stops until
the sentence is written anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxRole

from poolnb.book.findings.evidence import REASONS, VERDICTS, say
from poolnb.book.findings.ledger import Row, ledger
from poolnb.book.findings.verdicts import comparisons
from poolnb.lab.analysis import Comparison


@cache
def rows() -> tuple[Row, ...]:
    """The ledger, judged once in a build."""
    return tuple(ledger())


@cache
def studies() -> Mapping[str, Comparison | None]:
    """The comparisons of many poolers, made once in a build."""
    return comparisons()


class Number(SphinxRole):
    """A number that `look_up` finds by the role's text; what it refuses stops the build."""

    def __init__(self, look_up: Callable[[str], str]) -> None:
        super().__init__()
        self.look_up = look_up

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        try:
            return [nodes.Text(self.look_up(self.text))], []
        except ValueError as error:
            message = self.inliner.reporter.error(str(error), line=self.lineno)
            return [nodes.problematic(self.rawtext, self.rawtext)], [message]


def claims(asked: str, judged: tuple[Row, ...]) -> str:
    """How many claims have a verdict, with its reason or without; `all` of them.

    Raises `ValueError` for what is no verdict.
    """
    verdict, _, reason = asked.partition(", ")
    if asked == "all":
        return str(len(judged))
    if verdict not in VERDICTS or reason not in ("", *REASONS):
        raise ValueError(f"claims must name one of {', '.join(VERDICTS)}, or all, got {asked!r}")
    return str(sum(asked in (row.verdict, row.verdict.partition(", ")[0]) for row in judged))


def found(asked: str, judged: tuple[Row, ...]) -> str:
    """The finding that `CLAIM: START OF ITS WORDS: VERDICT` names, as a sentence has it: +0.84 ± 0.32 points, n = 3.

    All of its words name it also where another's begin so. Raises `ValueError` when not one finding, but none or
    several, have this claim, these words and this verdict.
    """
    claim, words, verdict = [asked.partition(": ")[0], *asked.partition(": ")[2].rsplit(": ", 1)]
    there = [one for row in judged if row.claim.id == claim for one in row.findings if one.what.startswith(words)]
    there = [one for one in there if one.what == words] or there
    if len(there) != 1 or there[0].verdict != verdict:
        said = "; ".join(f"{one.what}: {one.verdict}" for one in there) or "none of this name"
        raise ValueError(f"found must name one finding with its verdict, got {asked!r}; the records have {said}")
    return _sentence(there[0].value)


def compared(asked: str, there: Mapping[str, Comparison | None]) -> str:
    """The difference that `COMPARISON: POOLER: VERDICT` names, as a sentence has it.

    Raises `ValueError` when there is no such comparison or pooler, or when the verdict is another.
    """
    name, pooler, verdict = (asked.split(": ") + ["", ""])[:3]
    study = there.get(name)
    one = None if study is None else study.intervals.get(pooler)
    if one is None or one.verdict != verdict:
        said = "none of this name" if one is None else one.verdict
        raise ValueError(f"compared must name one difference with its verdict, got {asked!r}; the records have {said}")
    return _sentence(say(one))


def _sentence(value: str) -> str:
    """A line breaks between number and count alone."""
    number, _, count = value.replace("-", "\u2212").replace(" ", "\u00a0").partition(",\u00a0")
    return f"{number}, {count}"


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_role("claims", Number(lambda asked: claims(asked, rows())))
    app.add_role("found", Number(lambda asked: found(asked, rows())))
    app.add_role("compared", Number(lambda asked: compared(asked, studies())))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
