"""The built site in Chromium: the whole book as one PDF, and what its pages weigh and how fast they are drawn."""

from __future__ import annotations

import json
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag

from poolnb.lab.files import write_atomically
from poolnb.lab.provenance import RESULTS, ROOT

RECORD = RESULTS / "site" / "pages.json"
REPEATS = 3  # of a page's first drawing; the median is kept

# Chromium's own names for what a page has drawn first, in milliseconds since it was asked for.
_FIRST_DRAWING = """() => new Promise(done => new PerformanceObserver(list => {
    const found = list.getEntries().find(one => one.name === "first-contentful-paint");
    if (found) done(found.startTime);
}).observe({type: "paint", buffered: true}))"""
_FOOTER = '<div style="font: 8pt sans-serif; margin: auto;"><span class="pageNumber"></span></div>'


def executable() -> str | None:
    """Where Chromium is, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless Chromium of playwright that can reach nothing but this machine.

    Raises `ValueError` when playwright or Chromium is not there.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise ValueError("the browser needs playwright: pip install playwright") from None
    found = executable()
    if found is None:
        raise ValueError("there is no browser: install chromium so that it is on PATH")
    # An address that leads nowhere as proxy: what is not on this machine cannot be reached, whatever a page asks for.
    flags = ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as p:
        browser = p.chromium.launch(
            executable_path=found,
            args=["--no-sandbox", "--disable-gpu", "--disable-sync", *flags],
            proxy={"server": "http://127.0.0.1:9", "bypass": "127.0.0.1"},
        )
        yield browser
        browser.close()


def pages() -> list[str]:
    """The pages of the site, in the order of the table of contents."""
    return re.findall(r"(?:root|file): (\S+)", (ROOT / "_toc.yml").read_text(encoding="utf-8"))


# ---- one PDF ---------------------------------------------------------------------------------------------------------


def write_pdf(site: Path, target: Path) -> None:
    """Print the built `site` into one PDF: its pages in order, without bars, links inside it, page numbers below."""
    whole = site / "whole.html"
    try:
        whole.write_text(joined(site), encoding="utf-8")
        with chromium() as browser:
            page = browser.new_page(color_scheme="light")
            page.set_default_timeout(600_000)
            page.goto(whole.as_uri())
            page.evaluate("() => window.MathJax?.startup?.promise")
            page.evaluate("() => Promise.all([...document.images].map(one => one.decode().catch(() => {})))")
            margin = {"top": "18mm", "bottom": "18mm", "left": "17mm", "right": "17mm"}
            target.parent.mkdir(parents=True, exist_ok=True)
            footer = {"display_header_footer": True, "header_template": "<p/>", "footer_template": _FOOTER}
            how = {"format": "A4", "margin": margin, "scale": 0.85, "print_background": True, "outline": True}
            page.pdf(path=target, tagged=True, **how, **footer)
    finally:
        whole.unlink(missing_ok=True)


def joined(site: Path) -> str:
    """The site's articles as one HTML page that lies in `site`; every id is preceded by its page's name."""
    from bs4 import BeautifulSoup

    names = pages()
    articles = []
    for name in names:
        text = (site / f"{name}.html").read_text(encoding="utf-8")
        article: Any = BeautifulSoup(text, "html.parser").find("article")
        _relocate(article, name, names)
        article["class"] = "bd-article whole-page"
        articles.append(str(article))
    body = f'<body><main class="bd-content whole-book">{"".join(articles)}</main></body>'
    return f'<!DOCTYPE html><html lang="en" data-theme="light" data-mode="light">{_head(site, names)}{body}</html>'


def _head(site: Path, names: list[str]) -> str:
    """The styles of the pages, and what sets their formulas."""
    from bs4 import BeautifulSoup

    kept: dict[str, None] = {}
    for name in names:
        page = BeautifulSoup((site / f"{name}.html").read_text(encoding="utf-8"), "html.parser")
        _relocate(page, name, names)
        styles = page.find_all("link", rel="stylesheet")
        formulas = [one for one in page.find_all("script") if "mathjax" in str(one).lower()]
        kept |= dict.fromkeys(str(one) for one in (*styles, *formulas))
    return f'<head><meta charset="utf-8"><title>Pooling</title>{"".join(kept)}</head>'


def _relocate(part: Any, name: str, names: list[str]) -> None:
    """Make addresses in a part of the page `name` hold in the site's folder, and its ids its own."""
    folder = Path("/", name).parent
    for element in part.find_all(True):
        if "id" in element.attrs:
            element["id"] = _place(name, element["id"])
        for key in ("src", "href"):
            address = element.get(key, "")
            if not address or re.match(r"[a-z]+:", address):
                continue
            path, place = urldefrag(address)
            there = Path(*_resolved(folder / path)).as_posix() if path else f"{name}.html"
            page = there.removesuffix(".html")
            element[key] = f"#{_place(page, place)}" if key == "href" and page in names else there
    if part.name == "article":
        part["id"] = _place(name, "")


def _resolved(path: Path) -> list[str]:
    """The parts of a path below the site's folder, without `..`."""
    parts: list[str] = []
    for part in path.parts[1:]:
        parts = parts[:-1] if part == ".." else [*parts, part]
    return parts


def _place(page: str, place: str) -> str:
    return f"{page.replace('/', '-')}--{place}"


# ---- weight and time -------------------------------------------------------------------------------------------------


def weigh(site: Path) -> dict[str, dict[str, int]]:
    """Bytes of every page: its HTML, the scripts and styles that it names, and its images."""
    found = {}
    for name in pages():
        path = site / f"{name}.html"
        text = path.read_text(encoding="utf-8")
        named = set(re.findall(r'(?:src|href)="([^"#:?]+\.(?:js|css|png|svg))(?:\?[^"]*)?"', text))
        sizes = {one: (path.parent / one).stat().st_size for one in named if (path.parent / one).is_file()}
        images = sum(size for one, size in sizes.items() if one.endswith((".png", ".svg")))
        shared = sum(sizes.values()) - images
        found[name] = {"html": path.stat().st_size, "scripts_and_styles": shared, "images": images}
    return found


def measure(site: Path) -> None:
    """Write what every page weighs, and the median time to its first drawing, to `RECORD`."""
    found: dict[str, dict[str, Any]] = {name: dict(sizes) for name, sizes in weigh(site).items()}
    with chromium() as browser:
        for name, row in found.items():
            times = []
            for _ in range(REPEATS):
                context = browser.new_context(viewport={"width": 1280, "height": 900})
                page = context.new_page()
                page.goto((site / f"{name}.html").as_uri())
                times.append(page.evaluate(_FIRST_DRAWING))
                context.close()
            row["first_drawing_ms"] = round(sorted(times)[REPEATS // 2])
        version = browser.version
    made = {"date": str(date.today()), "browser": f"Chromium {version}", "device": f"{platform.machine()} CPU"}
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(RECORD, json.dumps(made | {"pages": found}, indent=1) + "\n")
