"""The built HTML, read as text: the pages are there, and none loads anything from another host."""

import re
from html.parser import HTMLParser

import pytest

from poolnb.lab.provenance import ROOT

# What a browser fetches without being asked, by element: the attribute that holds the address.
LOADED = {
    "script": ["src"],
    "img": ["src", "srcset"],
    "iframe": ["src"],
    "source": ["src", "srcset"],
    "video": ["src", "poster"],
    "audio": ["src"],
    "embed": ["src"],
    "object": ["data"],
    "input": ["src"],
    "image": ["href", "xlink:href"],
    "use": ["href", "xlink:href"],
}
LOADING_RELATIONS = {
    "stylesheet",
    "icon",
    "preload",
    "modulepreload",
    "prefetch",
    "preconnect",
    "dns-prefetch",
    "manifest",
}
FOREIGN = re.compile(r"^\s*(?:https?:)?//", re.IGNORECASE)
CSS_ADDRESS = re.compile(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)", re.IGNORECASE)
SCRIPT_IMPORT = re.compile(r"\b(?:import|from)\s*\(?\s*['\"](https?:)?//", re.IGNORECASE)


class Loads(HTMLParser):
    """Collects the addresses that a page loads by itself."""

    def __init__(self, text):
        super().__init__()
        self.found, self.inside = [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.inside = tag if tag in ("style", "script") else None
        for name in LOADED.get(tag, []):
            addresses = values.get(name) or ""
            self.found += [part.strip() for part in addresses.split(",")] if name == "srcset" else [addresses]
        if tag == "link" and LOADING_RELATIONS & set((values.get("rel") or "").lower().split()):
            self.found.append(values.get("href") or "")
        self.found += css_addresses(values.get("style") or "")

    def handle_data(self, data):
        if self.inside == "style":
            self.found += css_addresses(data)
        if self.inside == "script":
            self.found += [match[0] for match in SCRIPT_IMPORT.finditer(data)]

    def handle_endtag(self, tag):
        self.inside = None


def css_addresses(text):
    return [first or second for first, second in CSS_ADDRESS.findall(text)]


def foreign(addresses):
    return [address for address in addresses if FOREIGN.match(address) or SCRIPT_IMPORT.match(address)]


@pytest.mark.parametrize(
    "page",
    [
        "<script src='https://cdn.example.org/x.js'></script>",
        "<script src='//cdn.example.org/x.js'></script>",
        "<link rel='stylesheet' href='https://fonts.example.org/a.css'>",
        "<link rel='preconnect' href='https://fonts.example.org'>",
        "<img src='a.png' srcset='a.png 1x, https://example.org/b.png 2x'>",
        "<style>@import 'https://example.org/a.css';</style>",
        "<p style='background: url(https://example.org/a.png)'></p>",
        "<script type='module'>import x from 'https://example.org/x.mjs'</script>",
    ],
)
def test_a_foreign_host_is_seen(page):
    assert foreign(Loads(page).found)


def test_a_local_page_and_its_links_are_not_foreign():
    page = "<script src='../x.js'></script><a href='https://example.org/paper'>paper</a><img src='data:image/png,'>"
    assert not foreign(Loads(page).found)


def test_expected_pages_exist(site):
    text = (ROOT / "_toc.yml").read_text()
    for name in re.findall(r"(?:root|file): (\S+)", text):
        assert (site / f"{name}.html").is_file(), name
    for name in ("index.html", "search.html", "searchindex.js", "genindex.html", "objects.inv"):
        assert (site / name).is_file(), name


def test_no_page_loads_from_another_host(site):
    pages = sorted(site.rglob("*.html"))
    assert pages
    found = {
        page.relative_to(site).as_posix(): foreign(Loads(page.read_text(encoding="utf-8")).found) for page in pages
    }
    assert {page: addresses for page, addresses in found.items() if addresses} == {}


def test_no_stylesheet_loads_from_another_host(site):
    sheets = sorted(site.rglob("*.css"))
    assert sheets
    found = {sheet.name: foreign(css_addresses(sheet.read_text(encoding="utf-8"))) for sheet in sheets}
    assert {sheet: addresses for sheet, addresses in found.items() if addresses} == {}


def test_every_page_has_one_title_and_a_language(site):
    for page in sorted((site / "book").rglob("*.html")):
        text = page.read_text(encoding="utf-8")
        article = text[text.index("<article") : text.index("</article>")]
        assert len(re.findall(r"<h1\b", article)) == 1, page.name
        assert '<html lang="en"' in text, page.name
