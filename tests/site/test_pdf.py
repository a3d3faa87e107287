"""All pages on one: what the PDF is printed from."""

import re

from poolnb.book import browser


def test_links_and_pictures_of_the_joined_page_lead_somewhere(site):
    text = browser.joined(site)
    places = re.findall(r'\bid="([^"]+)"', text)
    assert len(set(places)) == len(places)
    links = set(re.findall(r'href="#([^"]+)"', text))
    assert links and links <= set(places), sorted(links - set(places))[:5]
    files = set(re.findall(r'src="((?:_images|_static)/[^"?]+)', text))
    assert files and all((site / file).is_file() for file in files)
    assert text.count("<article") == len(browser.pages())


def test_an_address_seen_from_another_folder():
    assert browser._resolved(browser.Path("/book/foundations/../../_static/x.js")) == ["_static", "x.js"]
