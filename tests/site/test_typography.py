"""Numbers on pages: a true minus, no line break inside of a number with its unit, and code left alone."""

import re

import pytest

from poolnb.book.sphinxext.drawings import is_line_drawing
from poolnb.book.sphinxext.typography import typeset, typeset_html

HARD = "\u00a0"


@pytest.mark.parametrize(
    "written, printed",
    [
        ("soft - max: -6.78", "soft \u2212 max: \u22126.78"),
        ("undecided (-3.3), -.5", "undecided (\u22123.3), \u2212.5"),
        ("40 epochs, - max", "40 epochs, \u2212 max"),
        ("CIFAR-10, 2026-11-27, 2-3, x-1", "CIFAR-10, 2026-11-27, 2-3, x-1"),
        ("a two-tap window, n = 5", f"a two-tap window, n{HARD}={HARD}5"),
        ("+1.41 \u00b1 1.53 points, 5 %", f"+1.41 \u00b1{HARD}1.53{HARD}points, 5{HARD}%"),
    ],
)
def test_text(written, printed):
    assert typeset(written) == printed
    assert typeset(printed) == printed


def test_a_table_has_dashes_for_nothing_and_its_tags_stay():
    table = '<table class="x -1"><tr><td>-</td><td>lip - max: -0.3</td><td>GeM, p 1e4</td></tr></table>'
    printed = (
        '<table class="x -1"><tr><td>\u2013</td><td>lip \u2212 max: \u22120.3</td><td>GeM, p 10\u2074</td></tr></table>'
    )
    assert typeset_html(table) == printed
    code = "<table><tr><td><code>x - 1</code></td></tr></table>"
    assert typeset_html(code) == code


def test_no_sentence_of_a_page_has_a_hyphen_for_a_minus(site):
    for path in (site / "book").rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        article = text[text.index("<article") : text.index("</article>")]
        prose = re.sub(
            r"<(pre|code|script|style|svg)\b.*?</\1>|<span class=\"math.*?</span>|<div class=\"math.*?</div>",
            "",
            article,
            flags=re.S,
        )
        found = re.findall(r".{20}[\s(>]-\d.{10}", re.sub(r"<[^>]*>", ">", prose))
        assert found == [], path.name


@pytest.mark.parametrize("filled, lines", [(0.1, True), (0.6, False)])
def test_a_line_drawing_is_mostly_empty(tmp_path, filled, lines):
    from PIL import Image

    picture = Image.new("RGBA", (100, 100), (0, 0, 0, 0))
    picture.paste((200, 30, 30, 255), (0, 0, 100, round(100 * filled)))
    picture.save(tmp_path / "a.png")
    picture.convert("RGB").save(tmp_path / "b.png")
    assert is_line_drawing(tmp_path / "a.png") == lines
    assert not is_line_drawing(tmp_path / "b.png")
