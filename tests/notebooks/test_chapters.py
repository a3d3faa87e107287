"""Every chapter keeps the shape that the introduction promises, and every operator has its chapter."""

import json
import re

import pytest
from chapters import all_chapters, read, seconds, step_numbers

import poolnb
from poolnb.book import notebooks

CHAPTERS = all_chapters()
WITH_EXERCISES = [name for name in CHAPTERS if not name.startswith(("experiments/", "appendix/"))]

# The chapter that papermill runs with other parameters, and that is then read without the site's tools.
WITHOUT_MYST = "experiments/one-run"

# Where a chapter or its section is not called like the operator, and whose oracle it is checked against.
LABELS = {"avg": "average", "soft": "softmax", "swap": "softmax"}
ORACLES = {"swap": "soft", "auto": "soft", "attention": "weighted", "lip": "weighted"}
SECTIONS = ("idea", "formula", "gradient, step by step", "in poolnb", "on a real", "limits", "costs", "training")


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_card_has_its_four_entries(name):
    card = read(name).card
    assert card, "question, **Answer.**, **You need** and **Run time:** are not all there, or not in this order"
    assert card["question"].endswith("?")
    if name != WITHOUT_MYST:
        assert "{glue:" in card["answer"], "the answer quotes no measured number"


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_run_time_is_a_bound_that_the_receipt_keeps(name):
    chapter = read(name)
    phrase = chapter.card["time"]
    bound = seconds(phrase)
    assert bound, f"run time is {phrase!r}; expected 'under N seconds|a minute|N minutes on one CPU core'"
    took = json.loads(notebooks.receipt_path(chapter.path).read_text())["seconds"]
    assert took < bound


@pytest.mark.parametrize("name", WITH_EXERCISES)
def test_three_to_six_exercises_with_folded_executed_solutions(name):
    chapter = read(name)
    numbers = [int(re.search(r"^\*\*(\d+)\. ", text, re.M)[1]) for text, _ in chapter.exercises]
    assert numbers == list(range(1, len(numbers) + 1)) and 3 <= len(numbers) <= 6
    for text, solution in chapter.exercises:
        assert text.count("```{admonition} Solution\n:class: dropdown\n") == 1, text[:60]
        assert solution.cell_type == "code" and "hide-cell" in solution.metadata.get("tags", []), text[:60]
        assert solution.execution_count and solution.outputs, text[:60]


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_figure_is_numbered_captioned_described_and_referred_to(name):
    chapter = read(name)
    for cell in chapter.figures:
        settings = cell.metadata.get("mystnb", {})
        label = settings.get("figure", {}).get("name")
        assert label, f"a figure has no name: {cell.source[:60]!r}"
        assert len(settings["figure"].get("caption", "")) > 20, f"{label} has no caption"
        alt = settings.get("image", {}).get("alt", "")
        assert len(alt) > 40 and alt != settings["figure"]["caption"], f"{label} has no alt text of its own"
        refers = rf"\{{numref}}`(?:[^`]*<)?{label}>?`" if name != WITHOUT_MYST else rf"\]\(#{label}\)"
        assert re.search(refers, chapter.prose), f"the text never refers to {label}"


@pytest.mark.parametrize("name", [name for name in CHAPTERS if read(name).figures and name != WITHOUT_MYST])
def test_the_first_thing_seen_is_a_picture_and_no_code(name):
    """Imports, checks and the drawing itself are folded up to the first picture; what a cell prints stays."""
    chapter = read(name)
    before = chapter.code_cells[: chapter.code_cells.index(chapter.figures[0]) + 1]
    shown = [c.source[:60] for c in before if not {"hide-input", "hide-cell"} & set(c.metadata.get("tags", []))]
    assert shown == []


def test_what_papermill_writes_needs_no_tools_of_the_site():
    assert re.findall(r"\{[\w:.-]+\}`", read(WITHOUT_MYST).prose) == []


@pytest.mark.parametrize("name", WITH_EXERCISES)
def test_the_last_paragraph_lists_what_the_chapter_cites(name):
    *before, last = read(name).prose.strip().split("\n\n")
    if name == "family":  # it cites through the chapters it leads to
        return
    assert last.startswith("**References** of this chapter")
    cited, listed = (
        {key.strip() for keys in re.findall(r"\{cite\}`([^`]+)`", text) for key in keys.split(",")}
        for text in ("\n".join(before), last)
    )
    assert cited == listed


@pytest.mark.parametrize("name", CHAPTERS)
def test_steps_are_numbered_without_a_gap(name):
    before = 0
    for number in step_numbers(read(name).prose):
        assert number in (1, before + 1), f"step {number} follows step {before}"
        before = number


@pytest.mark.parametrize("name", CHAPTERS)
def test_an_ignored_output_has_a_reason(name):
    for cell in read(name).ignored:
        assert re.match(r"# Output not compared: \w.{10,}", cell.source), cell.source[:60]


def test_at_most_five_per_cent_of_the_outputs_are_ignored():
    chapters = [read(name) for name in CHAPTERS]
    ignored, cells = sum(len(c.ignored) for c in chapters), sum(len(c.code_cells) for c in chapters)
    assert ignored <= 0.05 * cells, f"{ignored} of {cells}"


@pytest.mark.parametrize("name", WITH_EXERCISES)
def test_no_chapter_ignores_more_than_a_tenth_of_its_outputs(name):
    chapter = read(name)
    assert len(chapter.ignored) <= max(1, 0.1 * len(chapter.code_cells))


def chapter_of(pool):
    """The chapter that holds the operator's label, in front of its heading."""
    label = LABELS.get(pool, pool)
    found = [name for name in CHAPTERS if re.search(rf"^\({label}\)=\n#+ ", read(name).prose, re.M)]
    assert len(found) == 1, f"{pool}: the label ({label})= stands before a heading in {found}"
    return read(found[0])


@pytest.mark.parametrize("pool", poolnb.list_pools())
class TestOperator:
    """What every name in `list_pools` finds in the book."""

    def test_sections(self, pool):
        headings = [heading.lower() for heading in chapter_of(pool).headings]
        missing = [words for words in SECTIONS if not any(words in heading for heading in headings)]
        assert not missing

    def test_derivation(self, pool):
        chapter = chapter_of(pool)
        section = chapter.section("The gradient, step by step")
        assert len(step_numbers(section)) >= 3
        assert section.count(":label: eq-") >= 1
        assert re.search(r"\bsp\.diff\(", chapter.code) and "assert" in chapter.code, "not checked by SymPy"
        assert re.search(r"central\(|gradcheck\(|/ \(2 \* h\)", chapter.code), "not checked by finite differences"

    def test_oracle(self, pool):
        oracle, code = ORACLES.get(pool, pool), chapter_of(pool).code
        for function in (f"{oracle}_pool", f"{oracle}_pool_backward"):
            assert re.search(rf"reference\.{function}\b(?!_)", code), f"reference.{function} is never called"

    def test_figure_and_exercises(self, pool):
        chapter = chapter_of(pool)
        assert chapter.figures and len(chapter.exercises) >= 3


def test_swap_is_named_where_softpool_is():
    assert "SWAP" in read("softmax/softmax").headings[0]
