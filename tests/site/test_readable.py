"""Every page can be read: on a phone, in the light and in the dark, and from the introduction in two clicks."""

import re
from html.parser import HTMLParser
from posixpath import dirname, normpath

import pytest

import poolnb
from poolnb.lab.provenance import ROOT

PAGES = re.findall(r"(?:root|file): (\S+)", (ROOT / "_toc.yml").read_text())

SERIOUS = ("serious", "critical")

STILL = "* { animation: none !important; transition: none !important; }"

# Texts whose colour is too near to what lies behind them: contrast below 4.5, as WCAG 2 defines it for small text.
FAINT_TEXTS = """() => {
    const parse = colour => { const m = colour.match(/[\\d.]+/g).map(Number); return m.length > 3 ? m : [...m, 1]; };
    const over = (top, under) => under.map((v, i) => top[3] * top[i] + (1 - top[3]) * v);
    const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const light = c => [0.2126, 0.7152, 0.0722].reduce((sum, w, i) => sum + w * linear(c[i] / 255), 0);
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
    while (walker.nextNode()) {
        const text = walker.currentNode.data.trim(), element = walker.currentNode.parentElement;
        if (!text || element.closest("mjx-container, script, style, noscript, svg")) continue;
        if (!element.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
        const styles = [];
        for (let e = element; e; e = e.parentElement) styles.unshift(getComputedStyle(e));
        const back = styles.reduce((under, s) => over(parse(s.backgroundColor), under), [255, 255, 255]);
        const ink = parse(getComputedStyle(element).color);
        ink[3] *= styles.reduce((product, s) => product * Number(s.opacity), 1);
        const [low, high] = [light(over(ink, back)), light(back)].sort((a, b) => a - b);
        const ratio = (high + 0.05) / (low + 0.05);
        if (ratio < 4.5) found.push(`${text.slice(0, 40)}: ${ratio.toFixed(2)}`);
    }
    return found;
}"""


FIGURE_SIZES = """figures => figures.map(figure => {
    const image = figure.querySelector("img");
    return [image.getBoundingClientRect().width, image.naturalWidth, figure.querySelector("figcaption").clientWidth];
})"""

CUT = """formulas => formulas
    .filter(f => f.scrollWidth > (f.closest("p, li, dd") ?? f).clientWidth + 1)
    .filter(f => getComputedStyle(f).overflowX === "hidden")
    .map(f => f.textContent.slice(0, 60))"""


def serious(page):
    """What the accessibility audit finds serious on a page. Inside of formulas it would look at every letter."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    options = {
        "preload": False,
        "rules": {"color-contrast": {"enabled": False}},
    }  # contrast: FAINT_TEXTS
    found = axe.run(page, {"exclude": [["mjx-container"]]}, options).response["violations"]
    named = ((one["id"], node["html"][:120]) for one in found for node in one["nodes"] if one["impact"] in SERIOUS)
    return list(named)


@pytest.mark.parametrize("name", PAGES)
def test_page_can_be_read(visit, name):
    page = visit(f"{name}.html", viewport={"width": 390, "height": 844})
    page.add_style_tag(content=STILL)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    page.wait_for_function("!document.querySelector('.math') || window.MathJax?.startup?.promise")
    page.evaluate("() => window.MathJax?.startup?.promise")

    # On a phone nothing scrolls but what is in a box of its own; there a figure fills the column, at half its size or
    # more, and keeps its caption. No formula is cut: what is wider than its place scrolls.
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390, f"the page is {width} pixels wide: something does not scroll in its own box"
    for image, natural, caption in page.locator("article figure").evaluate_all(FIGURE_SIZES):
        assert image >= natural / 2 - 1 and image >= 250 and caption <= 390
    assert page.locator("article span.math, article div.math > mjx-container").evaluate_all(CUT) == []

    assert serious(page) == []  # here most boxes scroll, and have to take the keyboard

    page.set_viewport_size({"width": 1280, "height": 900})
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(f"document.documentElement.dataset.theme === '{scheme}'")
        assert page.evaluate(FAINT_TEXTS) == [], scheme


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_theme_follows_the_reader(visit, scheme):
    page = visit(f"{PAGES[0]}.html", color_scheme=scheme)
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    channels = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)")
    assert (sum(channels) / 3 > 128) == (scheme == "light")


def test_what_cannot_be_reached_is_seen(visit):
    page = visit(f"{PAGES[0]}.html", viewport={"width": 390, "height": 844})
    page.evaluate("document.querySelector('article p a.reference').innerHTML = '<b></b>'")
    assert [rule for rule, _ in serious(page)] == ["link-name"]


def test_a_faint_text_is_seen(visit):
    page = visit(f"{PAGES[0]}.html", color_scheme="dark")
    page.add_style_tag(content=STILL + "article h1 { color: #555 !important; }")
    assert any(found.startswith("Pooling: ") for found in page.evaluate(FAINT_TEXTS))


def test_a_formula_that_is_cut_is_seen(visit):
    page = visit("book/foundations/max.html", viewport={"width": 240, "height": 844})
    page.add_style_tag(content="article span.math.wide { overflow-x: hidden !important; }")
    page.wait_for_selector("article span.math.wide", state="attached")
    assert page.locator("article span.math").evaluate_all(CUT) != []


def test_line_drawings_are_turned_light_in_the_dark_and_pictures_are_not(visit):
    page = visit("book/foundations/max.html", color_scheme="dark")
    page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
    filters = page.locator("article figure img").evaluate_all(
        "images => images.map(image => [image.classList.contains('line-drawing'), getComputedStyle(image).filter])"
    )
    assert {lines for lines, _ in filters} == {True, False}
    assert all(("invert" in look) == lines for lines, look in filters)


class Article(HTMLParser):
    """The links inside a page's article."""

    def __init__(self, text):
        super().__init__()
        self.links = []
        self.feed(text[text.index("<article") : text.index("</article>")])

    def handle_starttag(self, tag, attributes):
        self.links += [dict(attributes).get("href", "")] if tag == "a" else []


def linked(site, page):
    """The pages that the article of `page` links to, this site's alone."""
    links = Article((site / f"{page}.html").read_text(encoding="utf-8")).links
    targets = {link.split("#")[0].removesuffix(".html") for link in links if "://" not in link and ".html" in link}
    return {normpath(f"{dirname(page)}/{target}") for target in targets}


def test_every_page_is_two_clicks_from_the_introduction(site):
    one_click = linked(site, PAGES[0])
    two_clicks = one_click.union(*(linked(site, page) for page in one_click))
    assert set(PAGES[1:]) <= two_clicks


def test_every_operator_is_one_click_from_the_introduction():
    text = (ROOT / f"{PAGES[0]}.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    named = [(set(re.findall(r"`(\w+)`", row.split("|")[1])), row.split("|")[3]) for row in rows]
    assert {name for names, _ in named for name in names} == set(poolnb.list_pools())
    assert all(re.search(r"\{ref\}`|\]\(", link) for _, link in named)
