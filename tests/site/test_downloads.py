"""What the download button gives: a file, from a server or a folder, that plain Jupyter shows as the site shows it."""

import functools
import html
import http.server
import json
import re
import threading
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_markdown_cell, new_notebook

from poolnb.book import notebooks
from poolnb.book.sphinxext import downloads
from poolnb.lab.provenance import BOOK, ROOT

CHAPTERS = [notebooks.chapter_name(path) for path in notebooks.chapters()]
PAGES = re.findall(r"(?:root|file): (\S+)", (ROOT / "_toc.yml").read_text())
MYST = re.compile(r"\{[\w:.-]+\}`|^\s*>?\s*(?:`{3,}|:{3,})\{|^\([\w.-]+\)=$|^\s*>?\s*:(?:label|class|name):", re.M)
CODE = re.compile(r"^(`{3,}).*?^\1$|(`+).+?\2", re.M | re.S)


def offered(site, name):
    return site / "_sources" / "book" / f"{name}.ipynb"


def article(site, name):
    text = (site / "book" / f"{name}.html").read_text(encoding="utf-8")
    return text[text.index("<article") : text.index("</article>")]


def words(text):
    """The words of a page or of Markdown, without tags, addresses and the signs that either writes otherwise."""
    text = html.unescape(re.sub(r"<[^>]+>", "", text))
    return re.findall(r"\w+", re.sub(r"\]\([^)]*\)", "]", text))


class _Json(http.server.SimpleHTTPRequestHandler):
    """A server that says of a notebook what makes browsers show it."""

    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".ipynb": "application/json"}

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def json_server(site):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Json, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("served", ["as a file", "as JSON", "as what Python thinks it is"])
def test_the_button_saves_the_notebook_and_opens_nothing(browser, site, address, json_server, served):
    base = {"as a file": site.as_uri(), "as JSON": json_server}.get(served, address)
    context = browser.new_context(accept_downloads=True)
    page = context.new_page()
    page.goto(f"{base}/book/foundations/max.html")
    for _ in range(2):  # a reader may press it again
        page.click(".dropdown-download-buttons button")
        with page.expect_download() as waiting:
            page.click("a.btn-download-source-button")
        assert waiting.value.suggested_filename == "max.ipynb"
        assert open(waiting.value.path(), "rb").read() == offered(site, "foundations/max").read_bytes()
    assert len(context.pages) == 1 and page.url == f"{base}/book/foundations/max.html"
    context.close()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_offers_its_notebook_or_nothing(site, name):
    text = (site / f"{name}.html").read_text(encoding="utf-8")
    assert ("btn-download-source-button" in text) == (ROOT / f"{name}.ipynb").exists()


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_copy_is_plain_and_complete(site, name):
    chapter = nbformat.read(BOOK / f"{name}.ipynb", as_version=4)
    copy = nbformat.read(offered(site, name), as_version=4)
    nbformat.validate(copy)
    prose = "\n\n".join(cell.source for cell in copy.cells if cell.cell_type == "markdown")
    assert MYST.findall(CODE.sub("", prose)) == []
    code = [[cell.source for cell in book.cells if cell.cell_type == "code"] for book in (chapter, copy)]
    assert code[0] == code[1]
    script = offered(site, name).with_suffix(".ipynb.js").read_text(encoding="utf-8")
    assert json.loads(f"[{script.strip().removeprefix('saveCopy(').removesuffix(');')}]") == [
        f"{offered(site, name).name}",
        offered(site, name).read_text(encoding="utf-8"),
    ]


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_copy_says_what_the_page_says(site, name):
    """Numbers of equations and figures, captions, quoted values, citations: the words of every paragraph."""
    copy = nbformat.read(offered(site, name), as_version=4)
    prose = "\n\n".join(cell.source for cell in copy.cells if cell.cell_type == "markdown")
    page = article(site, name)
    equations = re.findall(r'class="eqno">\((\d+)\)', page)
    assert re.findall(r"\\tag\{(\d+)\}", prose) == equations
    captions = re.findall(r'class="caption-number">(.+?) </span>', page)
    assert re.findall(r"^\*\*(Fig\. \d+)\.\*\*", prose, re.M) == captions

    shown = " ".join(words(page))
    prose = prose.replace("*A figure to try, on the site:*", "")  # the copy's own words, in the place of the figure
    prose = re.sub(r"^[ \t]*(?:> ?)?(?:[-*] |\d+\. |#+ |\|.*$)", "", prose.split("## References\n")[0], flags=re.M)
    for paragraph in re.split(r"\n(?:>\s*)?\n", re.sub(r"\$\$.*?\$\$", "\n\n", prose, flags=re.S)):
        for sentence in re.split(r"[.:?]\**\s|\$[^$]*\$", paragraph):
            assert " ".join(words(sentence)) in shown, sentence


def test_nbconvert_shows_the_numbers(site, browser, tmp_path):
    """As a browser shows it, every value that the chapter quotes is in the text, and no markup is."""
    exporter = pytest.importorskip("nbconvert").HTMLExporter()
    chapter = nbformat.read(BOOK / "foundations" / "max.ipynb", as_version=4)
    values = downloads._values(chapter)
    quotes = re.findall(r"\{glue:text\}`(\w+):?([^`]*)`", "\n".join(cell.source for cell in chapter.cells))
    (tmp_path / "max.html").write_text(exporter.from_filename(str(offered(site, "foundations/max")))[0])
    page = browser.new_page()
    page.goto((tmp_path / "max.html").as_uri(), wait_until="domcontentloaded")
    text = page.inner_text("body")
    page.close()
    assert quotes and all(downloads.format_plain_text(values[key], form) in text for key, form in quotes)
    assert MYST.findall(text) == []


def plain(source):
    app = SimpleNamespace(env=None, builder=SimpleNamespace())
    return downloads.PlainCopy(app, "page", new_notebook(cells=[new_markdown_cell(source)])).notebook.cells[0].source


def test_code_is_left_alone():
    source = "`{cite}` and `` {ref}`x` `` and\n\n```text\n{glue:text}`x`\n(a)=\n```"
    assert plain(source.replace("(a)=\n", "")) == source.replace("(a)=\n", "")


def test_a_box_is_a_quotation_with_formulas_on_one_line():
    source = "````{admonition} Why?\n:class: dropdown\n\nBecause $a +\nb$:\n\n```{math}\na \\\\\nb\n```\n````\nAnd on."
    formula = "$$ \\begin{split}a \\\\ b\\end{split} $$"
    assert plain(source) == f"> **Why?**\n>\n> Because $a + b$:\n>\n> {formula}\nAnd on."


@pytest.mark.parametrize("source", ["Press {kbd}`x`.", "```{figure} x.png\n```"])
def test_markup_without_a_plain_form_is_a_warning(source, monkeypatch):
    said = []
    monkeypatch.setattr(downloads._log, "warning", lambda text, *rest, **where: said.append((text % rest, where)))
    assert plain(source) == source
    (text, where), *more = said
    assert re.search(r"\{(kbd|figure)\} has no plain form", text) and where == {"location": "page"} and not more
