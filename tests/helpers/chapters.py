"""The chapters as the tests of their shape read them: cards, figures, exercises, steps."""

import re
from functools import cached_property, lru_cache

import nbformat

from poolnb.book import notebooks

CARD = re.compile(
    r"```\{admonition\} (?P<question>.+)\n:class: card-question\n\n"
    r"\*\*Answer\.\*\* (?P<answer>.+?)\n\n"
    r"\*\*You need\*\* (?P<need>.+?)\s+"
    r"\*\*Run time:\*\* (?P<time>.+?)\.\n```",
    re.DOTALL,
)
QUOTE = re.compile(r"\{glue:text\}`(\w+)(?::[^`]+)?`")  # a value that a cell keeps, in the prose
IGNORING = {"nbval-ignore-output", "nbval-skip", "nbval-raises-exception", "raises-exception"}


@lru_cache
def read(name):
    return Chapter(notebooks.find_chapter(name))


class Chapter:
    """One notebook: its cells and what can be asked of them."""

    def __init__(self, path):
        self.path = path
        self.name = notebooks.chapter_name(path)
        self.cells = nbformat.read(path, as_version=4).cells

    @cached_property
    def prose(self):
        return "\n\n".join(c.source for c in self.cells if c.cell_type == "markdown")

    @cached_property
    def code_cells(self):
        return [c for c in self.cells if c.cell_type == "code"]

    @cached_property
    def code(self):
        return "\n\n".join(c.source for c in self.code_cells)

    @cached_property
    def card(self):
        """Question, answer, need and time of the card, or None if one of them is not there."""
        found = CARD.search(self.cells[0].source)
        return found.groupdict() if found else None

    @cached_property
    def headings(self):
        return re.findall(r"^#{1,3} (.+)$", self.prose, re.MULTILINE)

    def section(self, heading):
        """The prose under the first heading of the second level that holds these words; empty if there is none."""
        found = re.search(rf"^## [^\n]*{heading}.*?(?=^## |\Z)", self.prose, re.MULTILINE | re.DOTALL | re.IGNORECASE)
        return found[0] if found else ""

    @cached_property
    def figures(self):
        """Every code cell with a picture in its output."""
        return [c for c in self.code_cells if any("image/png" in o.get("data", {}) for o in c.outputs)]

    @cached_property
    def exercises(self):
        """Pairs of an exercise's text and the cell after it, in order."""
        start = next((i for i, c in enumerate(self.cells) if re.search(r"^## Exercises$", c.source, re.M)), None)
        if start is None:
            return []
        pairs = zip(self.cells[start:], self.cells[start + 1 :], strict=False)
        return [(cell.source, after) for cell, after in pairs if re.search(r"^\*\*\d+\. ", cell.source, re.M)]

    @cached_property
    def ignored(self):
        """Code cells whose output nbval does not compare, by tag or by comment."""
        return [
            c
            for c in self.code_cells
            if IGNORING & {tag.lower().replace("_", "-") for tag in c.metadata.get("tags", [])}
            or re.search(r"#\s*(NBVAL_|PYTEST_VALIDATE_IGNORE)", c.source)
        ]


def step_numbers(text):
    """The numbers of the steps in a text, in order."""
    return [int(number) for number in re.findall(r"\*\*Step (\d+)", text)]


def seconds(phrase):
    """The bound in a phrase such as "under a minute on one CPU core" (a remark may follow); None if it is no bound."""
    found = re.fullmatch(r"under (a|\d+) (second|minute)s? on one CPU core(;.*)?", " ".join(phrase.split()))
    if found is None:
        return None
    return (1 if found[1] == "a" else int(found[1])) * (60 if found[2] == "minute" else 1)


def all_chapters():
    return [notebooks.chapter_name(path) for path in notebooks.chapters()]
