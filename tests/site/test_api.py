"""The page of the library names everything public, and says of each operator what a reader has to know."""

import inspect
import re

import pytest
from sphinx.util.inventory import InventoryFile

import poolnb
from poolnb import functional, modules, reference
from poolnb.book.sphinxext import api

PAGE = "book/appendix/api.html"
PUBLIC = [f"poolnb.functional.{name}" for name in functional.__all__]
PUBLIC += [f"poolnb.{name}" for name in poolnb.__all__ if name != "functional"]
PUBLIC += [f"poolnb.reference.{name}" for name in reference.__all__]
OPERATORS = sorted({name.removesuffix("_pool2d") for name in functional.__all__ if name.endswith("2d")})


@pytest.fixture(scope="module")
def inventory(site):
    """Where every documented object stands: full name -> address in the site."""
    with open(site / "objects.inv", "rb") as file:
        found = InventoryFile.load(file, "", lambda base, uri: uri)
    return {name: entry[2] for kind in ("py:function", "py:class") for name, entry in found.get(kind, {}).items()}


@pytest.fixture(scope="module")
def page(site):
    return (site / PAGE).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_on_the_page_once(inventory, page, name):
    assert inventory[name].startswith(PAGE)
    assert page.count(f'id="{name}"') == 1


def entry(page, name):
    """The text of one entry, with its tags."""
    return re.split(r'<dl class="py|<p class="rubric|</section>', page[page.index(f'id="{name}"') :], maxsplit=1)[0]


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_has_formula_source_and_all_its_arguments(page, name):
    text = entry(page, f"poolnb.functional.{name}_pool2d")
    assert 'class="math' in text
    assert re.search(r"(et al\.|and \w+|Source: \w+)\s*\(?\d{4}|author", text), "no source"
    shared = inspect.signature(functional.max_pool2d).parameters
    for own in set(inspect.signature(getattr(functional, f"{name}_pool2d")).parameters) - set(shared):
        assert f"<strong>{own}</strong>" in text, own


@pytest.mark.parametrize("name", [name for name in modules.__all__ if name.endswith("2d")])
def test_a_module_says_what_its_own_arguments_are(page, name):
    cls = getattr(modules, name)
    text = entry(page, f"poolnb.{cls.__name__}")
    shared = inspect.signature(modules.MaxPool2d).parameters
    for own in set(inspect.signature(cls).parameters) - set(shared):
        assert f"<strong>{own}</strong>" in text, own


def test_no_markup_is_left_over(page):
    article = re.sub(r"<(script|span class=\"math|div class=\"math).*?</\1", "", page, flags=re.DOTALL)
    article = re.sub(r"<[^>]+>", "", article[article.index("<article") : article.index("</article>")])
    for mark in (":func:", ":param", ":math:", "``", "\\*", "\\|"):
        assert mark not in article, mark


def test_a_name_that_does_not_exist_is_an_error():
    with pytest.raises(ValueError, match="poolnb.pool_everything"):
        api.describe("poolnb.pool_everything")
