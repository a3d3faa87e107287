"""A Sphinx extension that sets numbers as print does: a true minus, and no line break inside of `n = 5`.

A keyboard, Python and the records write a hyphen. Pages, tables and quoted values get their signs here, in one place;
code, what a program has printed, and formulas stay as they are.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

MINUS, DASH, HARD = "\u2212", "\u2013", "\u00a0"
_CELL = re.compile(r"(<td[^>]*>)-(</td>)")
_POWER = re.compile(r"\b1e([+-]?\d+)\b")
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_TAG = re.compile(r"(<[^>]*>)")
_KEPT = re.compile(r"<(pre|code|script|style)\b.*?</\1>", re.S)
_SKIPPED = (nodes.literal, nodes.literal_block, nodes.math, nodes.math_block, nodes.raw, nodes.comment)


def typeset(text: str) -> str:
    """`text` with minus signs before numbers and between names, and numbers kept with their signs and units."""
    text = re.sub(r"(?<![\w.)\]/-])-(?=\.?\d)", MINUS, text)
    text = re.sub(r"(?<=[\w),]) - (?=[\w(])", f" {MINUS} ", text)
    text = re.sub(r"\bn = (?=\d)", f"n{HARD}={HARD}", text)
    text = re.sub(r"\u00b1 (?=\d)", f"\u00b1{HARD}", text)
    return re.sub(r"(?<=\d) (?=%|points\b)", HARD, text)


def typeset_html(html: str) -> str:
    """The texts of a table's HTML `typeset`; an empty cell has a dash."""
    if _KEPT.search(html):
        return html
    parts = _TAG.split(_CELL.sub(rf"\1{DASH}\2", html))
    return "".join(part if part.startswith("<") else _POWER.sub(_power, typeset(part)) for part in parts)


def _power(found: re.Match[str]) -> str:
    return "10" + str(int(found[1])).translate(_RAISED)


def transform(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Typeset a page's sentences and tables."""
    for text in list(doctree.findall(nodes.Text)):
        if not _is_kept(text) and (new := typeset(str(text))) != text:
            text.parent.replace(text, nodes.Text(new))
    for raw in doctree.findall(nodes.raw):
        if "html" in raw.get("format", "") and "<table" in raw.astext():
            raw[:] = [nodes.Text(typeset_html(raw.astext()))]


def _is_kept(node: nodes.Node) -> bool:
    above = node.parent
    while above is not None:
        if isinstance(above, _SKIPPED) or "stderr" in getattr(above, "attributes", {}).get("classes", ()):
            return True
        above = above.parent
    return False


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("doctree-resolved", transform)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
