"""Every page in a real browser, without a network: maths, figures, console, search, copying, downloading."""

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


def test_one_search_field(visit):
    page = visit(f"{PAGES[0]}.html", viewport={"width": 1280, "height": 900})
    shown = page.locator("button.search-button-field:visible")
    assert shown.count() == 1


@pytest.mark.parametrize("word, chapter", [("Gumbel", "sampling/tdgs"), ("softmax", "softmax/softmax")])
def test_search_finds(visit, word, chapter):
    page = visit(f"search.html?q={word}")
    page.wait_for_selector("#search-results ul.search li a")
    page.wait_for_function("document.querySelector('#search-results').textContent.includes('search query')")
    found = page.locator("#search-results ul.search li a").evaluate_all("links => links.map(a => a.href)")
    assert any(f"/book/{chapter}.html" in link for link in found), found


def test_search_says_when_there_is_nothing(visit):
    page = visit("search.html?q=zzyzxqq")
    page.wait_for_function("document.querySelector('#search-results')?.textContent.includes('did not match')")
    assert page.locator("#search-results ul.search li").count() == 0


@pytest.mark.parametrize("name", [name for name in PAGES if (ROOT / f"{name}.ipynb").exists()])
def test_every_cell_can_be_copied_and_the_chapter_downloaded(visit, name):
    page = visit(f"{name}.html")
    cells = page.locator("div.cell_input pre").count()
    assert cells > 0 and page.locator("div.cell_input button.copybtn").count() == cells
    links = page.locator("a.btn-download-source-button").evaluate_all("links => links.map(a => a.href)")
    answer = page.request.get(next(link for link in links if link.endswith(".ipynb")))
    assert answer.ok and answer.json()["nbformat"] == 4
