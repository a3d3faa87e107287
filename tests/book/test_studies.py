"""All studies with one command: in order, into their folders, what is missing alone; tuned ones wait for the tuning."""

import pytest

from poolnb import cli
from poolnb.book.findings import evidence, studies, tuning
from poolnb.lab import provenance
from poolnb.lab.errors import ConfigError

SPEC = """
description = "a study"
[fixed]
dataset = "digits"
limit = 64
epochs = 1
[grid]
pooler = {poolers}
"""


def test_every_sweep_file_has_its_place():
    files = {path.stem for path in evidence.SWEEPS.glob("*.toml")}
    assert files <= set(studies.ORDER) and set(studies.ORDER) <= files | set(tuning.STUDIES)
    assert len(set(studies.ORDER)) == len(studies.ORDER) and set(studies.FOLDERS) <= files
    assert studies.ORDER.index("tuning") < min(studies.ORDER.index(name) for name in tuning.STUDIES)


def test_an_unknown_study_is_refused():
    with pytest.raises(ConfigError, match="study is 'tune'; accepted: tuning, comparison-tuned"):
        studies.chosen(["tune"])
    assert studies.chosen(["clips", "tdgs"]) == ["tdgs", "clips"]


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A book with two small studies, whose tuning has no runs."""
    for module in (evidence, studies, tuning):
        monkeypatch.setattr(module, "SWEEPS", tmp_path / "sweeps")
    for module in (provenance, evidence, tuning):
        monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    (tmp_path / "sweeps").mkdir()
    for name, poolers in (("overfitting", ["max", "avg"]), ("clips", ["soft"]), ("tuning", ["max"])):
        text = SPEC.format(poolers=poolers).replace("'", '"')
        (tmp_path / "sweeps" / f"{name}.toml").write_text(text)
    return tmp_path


@pytest.mark.slow
def test_one_command_does_what_is_missing(book, capsys):
    command = ["studies", "clips", "overfitting", "--device", "cpu", "--workers", "1", "--quiet"]
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert said.index("overfitting: 2 runs") < said.index("clips: 1 runs") and "0 were there, 2 done now" in said
    assert {path.parent.name for path in (book / "results").rglob("*.json")} == {"recipe", "clips"}
    assert cli.main(command) == 0
    assert "2 were there, 0 done now" in capsys.readouterr().out


def test_a_study_with_tuned_rates_waits_for_the_tuning(book, capsys):
    assert cli.main(["studies", "mnist1000"]) == 1
    assert "mnist1000: left out: 1 of 1 tuning runs are missing" in capsys.readouterr().out
    assert cli.main(["studies", "overfitting", "mnist1000", "--list"]) == 0
    assert "overfitting: 0 of 2 runs done: a study" in capsys.readouterr().out
