"""Every verdict of the book is computed from the records; a changed record, margin or rule changes what is pinned."""

import json
import shutil
import warnings

import made_up
import pytest

from poolnb.book.findings import ledger, tdgs, verdicts
from poolnb.lab import analysis
from poolnb.lab.files import sealed
from poolnb.lab.provenance import RESULTS
from poolnb.lab.records import summarise

PINNED = json.loads(verdicts.PINNED.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_the_pinned_verdicts_are_those_of_the_records():
    found = verdicts.computed()
    for part in PINNED:  # by part and claim, so that a difference is shown where it is
        assert found[part].keys() == PINNED[part].keys()
        for name, pinned in PINNED[part].items():
            assert found[part][name] == pinned, name
    assert verdicts.PINNED.read_text(encoding="utf-8") == json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def larger(value):
    """What a measurement holds, every number a little larger."""
    if isinstance(value, dict):
        return {name: larger(one) for name, one in value.items()}
    if isinstance(value, list):
        return [larger(one) for one in value]
    return value * 1.02 + 0.01 if isinstance(value, float) else value


def alter(path):
    """Raise one accuracy of a run by a point, or the values of a measurement by 2 %."""
    record = json.loads(path.read_text())
    if "curves" in record:
        curves = record["curves"]
        curves["test_accuracy"][-1] += 0.01
        record["summary"] = summarise(curves)
    else:
        record["values"] = larger(record["values"])
    path.write_text(sealed(record))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("claim", "folder", "name"),
    [
        ("C2", "learning-rates-wide", "*-soft-seed0-92d2b475e497"),  # its best rate
        ("C3", "gradients", "*-digits-soft-*"),
        ("C5", "comparison-tuned", "cifar10-tdgs-seed0-*"),
        ("C6", "recipe", "cifar10-tdgs-*"),
        ("C7", "initial-temperature-linear", "*"),
        ("C10", "test-pooling", "*-digits-stochastic-*"),
        ("C12", "alternatives", "*"),
        ("C13", "softmax-gradient", "*"),
        ("C14", "clips", "*-soft-*"),
        ("C15", "sampling-digits", "*-max-*"),
    ],
)
def test_one_changed_record_fails(tmp_path, monkeypatch, claim, folder, name):
    for path in RESULTS.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / folder).unlink()
    shutil.copytree(RESULTS / folder, tmp_path / folder)
    made_up.read_from(monkeypatch, tmp_path)
    assert verdicts.computed([claim])["claims"][claim] == PINNED["claims"][claim]
    alter(sorted((tmp_path / folder).glob(f"{name}.json"))[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is a whole record that says something else
        found = verdicts.computed([claim])
    assert found["claims"][claim] != PINNED["claims"][claim]


def a_wider_margin(patch):
    patch.setitem(analysis.compare.__kwdefaults__, "margin", 5.0)


def another_risk(patch):
    patch.setitem(analysis.compare.__kwdefaults__, "alpha", 0.01)


def another_rule(patch):
    """What is equal counts as more."""
    judged = tdgs.above
    patch.setattr(tdgs, "above", lambda one, bound=0.0: "holds" if one is not None else judged(one, bound))


@pytest.mark.slow
@pytest.mark.parametrize("change", [a_wider_margin, another_risk, another_rule])
def test_another_margin_risk_or_rule_fails(monkeypatch, change):
    change(monkeypatch)
    assert verdicts.computed(["C6"])["claims"] != {"C6": PINNED["claims"]["C6"]}


def test_the_numbers_of_the_rules_are_pinned_too(monkeypatch):
    assert verdicts.rules() == PINNED["rules"]
    for module, name in ((analysis, "MARGIN"), (analysis, "ENOUGH"), (ledger, "SMALL"), (ledger, "COLLAPSE")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, getattr(module, name) + 1)
            assert verdicts.rules() != PINNED["rules"]
