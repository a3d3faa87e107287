"""The pages of the experiments are true of whatever records there are: none, some, or all that are planned.

The cells run here, in this process, on made-up records; the prose is read with the values that they keep.
"""

import ast
import re
import warnings

import made_up
import matplotlib.pyplot as plt
import pytest
from chapters import QUOTE, read

from poolnb.book import prose
from poolnb.book.findings.progress import planned
from poolnb.book.findings.studies import FOLDERS

PAGES = ("tdgs-against-max", "comparison", "learning-rates", "backbones", "which-pool")
SWEEPS = (
    "recipe",
    "comparison",
    "initial-temperature",
    "learning-rates",
    "backbones",
    "backbones-average",
    "backbones-replication",
    "clips",
    "sampling-digits",
    "softmax-baselines",
    "tdgs",
    "overfitting",
    "initial-temperature-linear",
    "learning-rates-wide",
    "largest-rate",
    "comparison-tuned",
    "mnist1000",
    "overlap",
    "scale",
)
SOME = {
    "recipe": lambda c: c.seed < {"max": 4, "tdgs": 3, "stochastic": 1}[c.pooler] - (c.dataset == "mnist"),
    "comparison": lambda c: (
        c.dataset == "cifar10" and c.seed < {"avg": 3, "soft": 3, "gem": 2, "lip": 1}.get(c.pooler, 0)
    ),
    "initial-temperature": lambda c: c.pooler_options["init"] in (0.5, 3.0) and c.seed < 2,
    "learning-rates": lambda c: c.pooler != "avg" and (c.learning_rate < 2e-3 or c.seed == 0),
    "clips": lambda c: c.pooler == "soft",
}


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A function that reads a page with the records of some of the planned runs, which it says by sweep."""
    monkeypatch.setattr(plt, "show", plt.close)

    def made(name, chosen):
        for sweep, wanted in chosen.items():
            runs = [config for config in planned(sweep) if wanted(config)]
            for place, config in enumerate(runs):
                made_up.write(tmp_path, FOLDERS.get(sweep, sweep), [config], right=0.6 + 0.3 * (place * 7 % 11) / 11)
        made_up.read_from(monkeypatch, tmp_path)
        return rendered(name, monkeypatch)

    yield made
    plt.close("all")


def rendered(name, monkeypatch):
    """The text of a page: prose with its values, and what cells show."""
    kept, shown = {}, {}
    monkeypatch.setattr(prose, "glue", lambda **values: kept.update(values))
    cells, scope = read(f"experiments/{name}").cells, {}
    for place, cell in enumerate(cells):
        if cell.cell_type == "code":
            *body, last = ast.parse(cell.source).body
            exec(compile(ast.Module(body, []), name, "exec"), scope)
            if isinstance(last, ast.Expr):
                value = eval(compile(ast.Expression(last.value), name, "eval"), scope)
                shown[place] = "" if value is None else repr(value)
            else:
                exec(compile(ast.Module([last], []), name, "exec"), scope)
    texts = [shown.get(place, "") if c.cell_type == "code" else c.source for place, c in enumerate(cells)]
    return QUOTE.sub(lambda found: str(kept[found[1]]), "\n\n".join(texts))


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("chosen", [{}, SOME, dict.fromkeys(SWEEPS, bool)], ids=["none", "some", "all"])
def test_a_page_takes_what_records_there_are(page, name, chosen):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = page(name, chosen)
    assert not re.search(r"\bnan\b|\bNone\b", text)
    assert ("no runs yet" in text) == (len(chosen) < len(SWEEPS))
    if not chosen:
        assert "0 of " in text and not re.search(r"n = [1-9]", text)


def test_the_page_on_tdgs_counts_and_names_what_is_missing(page):
    text = page("tdgs-against-max", SOME)
    lacking = "CIFAR-10: max (seed 4), max + dropout (seed 4), stochastic (seeds 1, 2, 3, 4), tdgs (seeds 3, 4); "
    lacking += "MNIST: max (seeds 3, 4), max + dropout (seeds 3, 4), stochastic, tdgs (seeds 2, 3, 4)"
    assert lacking in text
    assert f"Done: {8 + 1 + 3 + 6 + 2} of 40 planned runs" in " ".join(text.split())
    assert re.search(r"CIFAR-10 \S+ ± \S+ points, n = 3, joint, MNIST \S+ ± \S+ points, n = 2", text)


def test_the_comparison_says_who_competes(page):
    text = page("comparison", SOME)
    # tdgs: gem and lip have too few seeds
    assert "On CIFAR-10, of 1 of the 9 poolers that learn something, those with 3 seeds or more" in text
    assert "On MNIST, max pooling and another have not three seeds in common yet" in text
    assert re.search(r"lip \(seeds 1, 2\)", text) and re.search(r"MNIST: .*\bavg\b", text)


def test_the_complete_comparison_lacks_nothing(page):
    text = page("comparison", dict.fromkeys(SWEEPS, bool))
    assert "the 11 poolers that learn something" in text and "Missing: none" in text
