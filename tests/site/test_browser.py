"""Every page in a real browser, without a network: maths, figures, console, search, themes, phone width."""

import re

import pytest

from poolnb.lab.provenance import ROOT

PAGES = re.findall(r"(?:root|file): (\S+)", (ROOT / "_toc.yml").read_text())

# MathJax draws a formula that it does not understand, and an undefined macro in it, in red, and goes on.
FORMULAS_WITH_ERRORS = """() => [...(window.MathJax?.startup?.document?.math ?? [])].filter(formula => {
    let bad = false;
    formula.root.walkTree(node => {
        bad ||= node.isKind("merror") || (node.isKind("mtext") && node.attributes.get("mathcolor") === "red");
    });
    return bad;
}).map(formula => formula.math)"""


@pytest.fixture
def visit(browser, address):
    """Opens a page in a fresh context; at the end, whatever went wrong in the meantime fails the test."""
    contexts, problems = [], []

    def open_page(name, wait_until="load", **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: problems.append(f"console: {m.text}") if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: problems.append(f"script: {error}"))
        page.on("requestfailed", lambda request: problems.append(f"not loaded: {request.url}"))
        page.on("response", lambda r: problems.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
        page.on("request", lambda r: None if r.url.startswith((address, "data:", "blob:")) else problems.append(r.url))
        page.goto(f"{address}/{name}", wait_until=wait_until)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


@pytest.mark.parametrize("name", PAGES)
def test_page(visit, name):
    page = visit(f"{name}.html", viewport={"width": 1280, "height": 900})
    page.wait_for_function("!document.querySelector('.math') || window.MathJax?.startup?.promise")
    page.evaluate("() => window.MathJax?.startup?.promise")

    unset = page.evaluate(
        "[...document.querySelectorAll('.math')].filter(e => !e.querySelector('mjx-container')).length"
    )
    assert unset == 0, f"{unset} formulas are not typeset"
    assert page.evaluate(FORMULAS_WITH_ERRORS) == []

    page.evaluate("() => document.querySelectorAll('img[loading=lazy]').forEach(i => i.loading = 'eager')")
    page.wait_for_function("[...document.images].every(i => i.complete)")
    images = page.evaluate("[...document.images].map(i => [i.src.slice(-60), i.naturalWidth, i.alt])")
    for source, width, alt in images:
        assert width > 0, f"{source} is not an image"
        assert alt.strip() and alt.strip() not in source, f"{source} has no alt text that says what is seen"

    dangling = "[...document.querySelectorAll('article a[href^=\"#\"]')].map(a => a.getAttribute('href').slice(1))"
    dangling += ".filter(id => id && !document.getElementById(decodeURIComponent(id)))"
    assert page.evaluate(dangling) == []


@pytest.mark.parametrize("name", PAGES)
def test_page_fits_a_phone(visit, name):
    page = visit(f"{name}.html", viewport={"width": 390, "height": 844})
    page.wait_for_function("!document.querySelector('.math') || window.MathJax?.startup?.promise")
    page.evaluate("() => window.MathJax?.startup?.promise")
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390, f"the page is {width} pixels wide: something does not scroll in its own box"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_theme_follows_the_reader(visit, scheme):
    page = visit(f"{PAGES[0]}.html", color_scheme=scheme)
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    channels = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)")
    assert (sum(channels) / 3 > 128) == (scheme == "light")


def test_one_search_field(visit):
    page = visit(f"{PAGES[0]}.html", viewport={"width": 1280, "height": 900})
    shown = page.locator("button.search-button-field:visible")
    assert shown.count() == 1


@pytest.mark.parametrize("word", ["softmax", "window"])
def test_search_finds(visit, word):
    page = visit(f"search.html?q={word}")
    page.wait_for_selector("#search-results ul.search li a")
    found = page.locator("#search-results ul.search li a").evaluate_all("links => links.map(a => a.href)")
    assert any("/book/" in link for link in found)


def test_search_says_when_there_is_nothing(visit):
    page = visit("search.html?q=zzyzxqq")
    page.wait_for_function("document.querySelector('#search-results')?.textContent.includes('did not match')")
    assert page.locator("#search-results ul.search li").count() == 0


def test_code_can_be_copied_and_a_chapter_downloaded(visit):
    chapter = next(name for name in PAGES if (ROOT / f"{name}.ipynb").exists())
    page = visit(f"{chapter}.html")
    assert page.locator("button.copybtn").count() > 0
    links = page.locator("a.btn-download-source-button").evaluate_all("links => links.map(a => a.href)")
    assert any(link.endswith(".ipynb") for link in links)
    answer = page.request.get(next(link for link in links if link.endswith(".ipynb")))
    assert answer.ok and answer.json()["nbformat"] == 4
