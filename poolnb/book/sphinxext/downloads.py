"""A Sphinx extension: the download button saves a notebook that plain Jupyter shows with its numbers and references.

Chapters are written in MyST, which Jupyter does not know: there a quoted value, a citation or a labelled equation is a
piece of markup. When the site is built, every chapter's copy in `_sources` is written again in plain Markdown and
MathJax. References are resolved by Sphinx itself, so their numbers are the site's; values come from the chapter's
outputs. Links lead to the chapters beside the copy, once it lies in `book/` of a copy of the project.

Markup that has no plain form here is a warning, and so stops the build.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from os.path import dirname, relpath
from pathlib import Path
from typing import Any

import nbformat
from docutils import nodes
from myst_nb.core.variables import format_plain_text
from pybtex.plugin import find_plugin
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.builders import Builder
from sphinx.util import logging
from sphinx.util.nodes import split_explicit_title

# A fence of backquotes or colons: its mark, the directive's name if it is one, what follows, and the lines inside.
_FENCE = re.compile(
    r"^(?P<mark>`{3,}|:{3,})(?:\{(?P<name>[\w:-]+)\})?(?P<rest>[^\n]*)\n(?P<body>.*?)^(?P=mark)[ \t]*$", re.M | re.S
)
_OPTION = re.compile(r":([\w-]+):[ \t]*(.*)\n")
# A role, or a code span, inside of which nothing is a role.
_ROLE = re.compile(r"\{(?P<name>[\w:.-]+)\}(?P<mark>`+)(?P<text>.+?)(?P=mark)|(?P<code>`+).+?(?P=code)", re.S)
_TARGET = re.compile(r"^\((?P<label>[\w.-]+)\)=[ \t]*\n+", re.M)
_MATH = re.compile(r"\$\$.+?\$\$|\$[^$]+\$", re.S)
_DOMAINS = {"ref": "std", "numref": "std", "doc": "std", "term": "std", "eq": "math"}
_log = logging.getLogger(__name__)


class PlainCopy:
    """One chapter in plain Markdown: `notebook` is the copy, made when the object is.

    `app` is the Sphinx application after it has read all pages; `page` is the chapter's name there.
    """

    def __init__(self, app: Sphinx, page: str, notebook: nbformat.NotebookNode) -> None:
        self.env, self.page = app.env, page
        builder: Any = copy.copy(app.builder)
        builder.get_relative_uri = self._path
        self.builder: Builder = builder
        self.values = _values(notebook)
        self.cited: list[str] = []
        self.notebook = copy.deepcopy(notebook)
        self.notebook.cells = [made for cell in self.notebook.cells for made in self._cell(cell)]
        if self.cited:
            self.notebook.cells.append(_markdown("references", self._references()))

    def _path(self, page: str, to: str, typ: str | None = None) -> str:
        """The way from one chapter's file to another's, where Sphinx asks for that between their pages."""
        return relpath(self.env.doc2path(to), dirname(self.env.doc2path(page)))

    def _cell(self, cell: nbformat.NotebookNode) -> Iterator[nbformat.NotebookNode]:
        """The cell in plain Markdown; after a cell that draws a figure, its caption."""
        if cell.cell_type == "markdown":
            cell.source = self.text(cell.source)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if "scrapbook" not in output.get("metadata", {})]
        yield cell
        if figure := cell.metadata.get("mystnb", {}).get("figure"):
            label = f"**{self._reference('numref', figure['name'], link=False)}.** "
            caption = self.text(figure["caption"].strip())
            yield _markdown(f"caption-{nodes.make_id(figure['name'])}", _anchor(figure["name"]) + label + caption)

    def text(self, source: str) -> str:
        """MyST's Markdown as plain Markdown."""
        made, end = [], 0
        for fence in _FENCE.finditer(source):
            made += [self._inline(source[end : fence.start()]), self._block(fence)]
            end = fence.end()
        return "".join([*made, self._inline(source[end:])])

    def _inline(self, source: str) -> str:
        source = _TARGET.sub(lambda match: _anchor(match["label"]), source)
        return _ROLE.sub(lambda match: self._role(match) if match["name"] else match[0], source)

    def _block(self, fence: re.Match[str]) -> str:
        """A directive: an equation with its number, a box or a caption as a quotation. Without a name it is code."""
        if fence["name"] is None:
            return fence[0]
        body, options = fence["body"], {}
        while option := _OPTION.match(body):
            options[option[1]] = option[2]
            body = body[option.end() :]
        if fence["name"] == "math":
            return self._equation(body.strip(), options.get("label"))
        if fence["name"] == "interactive":
            return _quotation(f"*A figure to try, on the site:* {self.text(body).strip()}")
        if fence["name"] == "admonition":
            return _quotation(f"**{self._inline(fence['rest'].strip())}**\n\n{self.text(body).strip()}")
        return self._unknown("directive", fence["name"], fence[0])

    def _equation(self, body: str, label: str | None) -> str:
        if "\\\\" in body:  # as Sphinx does: lines are aligned at their marks
            body = f"\\begin{{split}}{body}\\end{{split}}"
        if label is None:
            return f"$$\n{body}\n$$"
        number = self._reference("eq", label, link=False).strip("()")
        return f"{_anchor(f'equation-{label}')}$$\n{body}\n\\tag{{{number}}}\n$$"

    def _role(self, match: re.Match[str]) -> str:
        name, text = match["name"], " ".join(match["text"].split())
        if name == "glue:text":
            key, _, form = text.partition(":")
            value = str(format_plain_text(self.values[key], form))
            ends = match.string[match.end() : match.end() + 1]
            return value + "\\" if value.isdigit() and ends == "." else value  # at a line's start, "3." is a list
        if name == "cite":
            self.cited += [key for part in text.split(",") if (key := part.strip()) not in self.cited]
            return str(self._resolve("cite", "p", text).astext())
        return self._reference(name, text) if name in _DOMAINS else self._unknown("role", name, match[0])

    def _reference(self, role: str, text: str, link: bool = True) -> str:
        """What a cross-reference reads as on the site, with a link to the same place."""
        found = self._resolve(_DOMAINS[role], role, text)
        place = found.get("refuri") or f"#{found.get('refid')}"
        return f"[{found.astext()}]({place})" if link else found.astext()

    def _resolve(self, domain: str, role: str, text: str) -> nodes.Element:
        explicit, title, target = split_explicit_title(text)
        if role in ("ref", "numref"):
            target = target.lower()
        marks = {"refdomain": domain, "reftype": role, "reftarget": target, "refexplicit": explicit}
        shown = nodes.inline("", title)
        asked = pending_xref("", shown, refdoc=self.page, refwarn=True, **marks)
        found = self.env.get_domain(domain).resolve_xref(self.env, self.page, self.builder, role, target, asked, shown)
        return shown if found is None else found  # the page itself has warned of it

    def _references(self) -> str:
        """The works that the chapter cites, in the order of their first mention."""
        domain: Any = self.env.get_domain("cite")  # sphinxcontrib-bibtex's own class, not Sphinx's
        works = {citation.key: citation.formatted_entry for citation in domain.citations}
        backend = find_plugin("pybtex.backends", "markdown")()
        return "\n".join(
            ["## References", "", *(f"- {works[key].text.render(backend)}".replace("\n", " ") for key in self.cited)]
        )

    def _unknown(self, kind: str, name: str, text: str) -> str:
        _log.warning("the %s {%s} has no plain form for the copy that is offered", kind, name, location=self.page)
        return text


def _values(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """The values that the chapter's cells keep for its sentences, as `poolnb.book.prose.glue` writes them."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    kept = [output for output in outputs if "scrapbook" in output.get("metadata", {})]
    return {output.metadata["scrapbook"]["name"]: next(iter(output["data"].values())) for output in kept}


def _markdown(name: str, source: str) -> nbformat.NotebookNode:
    cell: nbformat.NotebookNode = nbformat.v4.new_markdown_cell(source, id=name[:64])  # the same in every build
    return cell


def _anchor(label: str) -> str:
    return f'<a id="{nodes.make_id(label)}"></a>\n\n'


def _quotation(text: str) -> str:
    """`text` as a Markdown quotation. Formulas stay on one line: Jupyter would take the mark `>` for a part of them."""
    text = _MATH.sub(lambda formula: " ".join(formula[0].split()), text)
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines())


def is_notebook(app: Sphinx, page: str) -> bool:
    """Whether a page is a chapter: a notebook among the sources."""
    return page in app.env.found_docs and app.env.doc2path(page).endswith(".ipynb")


def write_copies(app: Sphinx) -> list[Any]:
    """Write the offered copies. The name of a script that holds one is the copy's, and `.js`; see `save.js`."""
    for page in sorted(p for p in app.env.found_docs if is_notebook(app, p)):
        notebook = nbformat.read(app.env.doc2path(page), as_version=4)
        text = nbformat.writes(PlainCopy(app, page, notebook).notebook) + "\n"
        target = Path(app.outdir, "_sources", f"{page}.ipynb")
        target.write_text(text, encoding="utf-8")
        script = f"saveCopy({json.dumps(target.name)}, {json.dumps(text)});\n"
        target.with_name(f"{target.name}.js").write_text(script, encoding="utf-8")
    return []


def offer(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Only notebooks are offered: the text of other pages is of no use without the tools of the site."""
    for group in context.get("header_buttons", []):
        if group.get("label") == "download-buttons" and not is_notebook(app, page):
            group["buttons"] = [b for b in group["buttons"] if b["label"] != "download-source-button"]


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("html-collect-pages", write_copies)
    app.connect("html-page-context", offer, priority=900)
    app.add_js_file("save.js")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
