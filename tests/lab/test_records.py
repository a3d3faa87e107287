"""Records: whole or not there, equal after a round trip, and never mistaken for one another."""

import json
import os
from dataclasses import replace

import pytest
from made_up import HASHES

from poolnb.lab.config import RunConfig
from poolnb.lab.files import WriteError, sealed, write_atomically
from poolnb.lab.records import (
    Record,
    RecordError,
    load_records,
    parse_record,
    read_record,
    record_path,
    records_frame,
    summarise,
    write_record,
)


def made_up(seed=0, accuracy=0.5, status="done", **changes):
    config = RunConfig(epochs=2, seed=seed, **changes)
    values = {"train_loss": 2.0, "validation_accuracy": 0.4, "test_accuracy": accuracy}
    return Record(
        parameters=config.parameters,
        key=config.key,
        status=status,
        error=None if status == "done" else "RuntimeError: made up",
        curves={name: [0.1 + 0.2, value] for name, value in values.items()} if status == "done" else {},
        summary={"last": {"epoch": 2, **values}, "early_stopped": {"epoch": 2, **values}} if status == "done" else {},
        hashes=HASHES,
        timing={"seconds": 1.5},
    )


@pytest.fixture
def folder(tmp_path):
    for seed in (0, 1):
        write_record(made_up(seed), tmp_path)
    return tmp_path


def test_a_record_comes_back_as_it_was(folder):
    assert load_records(folder) == [made_up(0), made_up(1)]
    assert load_records(folder)[0].curves["train_loss"][0] == 0.1 + 0.2


def test_a_record_is_named_by_its_run_and_replaced_by_the_same_run(folder):
    write_record(made_up(1, accuracy=0.75), folder)
    assert len(list(folder.iterdir())) == 2
    assert load_records(folder)[1].summary["last"]["test_accuracy"] == 0.75


def test_timing_is_no_part_of_the_content():
    assert replace(made_up(), timing={"seconds": 99.0}).content() == made_up().content()
    assert made_up(accuracy=0.6).content() != made_up().content()


def damage(text, change):
    """A record that was altered and sealed again: the digest does not tell it, so the content must."""
    values = json.loads(text)
    change(values)
    return sealed(values)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda v: v.update(format="something-else/1"), "format is 'something-else/1'"),
        (lambda v: v.pop("curves"), "sections are not those of a record: curves"),
        (lambda v: v.update(more=1), "sections are not those of a record: more"),
        (lambda v: v["parameters"].update(seed=5), "does not belong to its parameters"),
        (lambda v: v["parameters"].update(colour="red"), "unknown parameter colour"),
        (lambda v: v["parameters"].update(epochs="two"), "epochs is 'two'"),
        (lambda v: v.update(parameters=3), "its parameters is 3, not a dict"),
        (lambda v: v.update(status="nearly"), "status is 'nearly'"),
        (lambda v: v["curves"]["train_loss"].pop(), "do not have 2 epochs each"),
        (lambda v: v["curves"].clear(), "do not have 2 epochs each"),
        (lambda v: v["summary"]["last"].update(test_accuracy=0.99), "does not agree with its curves"),
        (lambda v: v["summary"].clear(), "not a whole record"),
        (lambda v: v["summary"]["early_stopped"].update(test_accuracy=0.9), "does not agree with its curves"),
        (lambda v: v["curves"]["train_loss"].__setitem__(0, -5), "train_loss has the value -5"),
        (lambda v: v["curves"]["test_accuracy"].__setitem__(0, 1.7), "test_accuracy has the value 1.7"),
        (lambda v: v["curves"]["test_accuracy"].__setitem__(0, "high"), "test_accuracy has the value 'high'"),
        (lambda v: v["curves"]["test_accuracy"].__setitem__(0, True), "test_accuracy has the value True"),
        (lambda v: v["curves"]["test_accuracy"].__setitem__(0, None), "test_accuracy has the value None"),
        (lambda v: v["curves"].update(train_loss="ab"), "train_loss is no list"),
        (lambda v: v["curves"].update(speed=[1, 2]), "curve 'speed'"),
        (lambda v: v.update(hashes=None), "its hashes is None, not a dict"),
        (lambda v: v.update(timing=[1]), "its timing is [1], not a dict"),
        (lambda v: v["hashes"].pop("data"), "no hash of the data"),
        (lambda v: v.update(error="boom"), "is done and has an error"),
        (lambda v: v.update(status="failed"), "has failed, without an error or with results"),
        (lambda v: v["pooling"].update(t={"min": 0, "mean": 2, "max": 1, "trajectory": [1, 1, 1]}), "statistics [0, 2"),
        (lambda v: v["pooling"].update(t={"min": 0, "mean": 0, "max": 1, "trajectory": [1]}), "no course of 2 epochs"),
        (lambda v: v["pooling"].update(t=3), "no course of 2 epochs"),
        (lambda v: v["timing"].update(seconds="long"), "no number of seconds"),
    ],
)
def test_a_changed_record_is_named_and_left_out(folder, change, reason):
    path = record_path(folder, made_up(0).config)
    path.write_text(damage(path.read_text(), change))
    with pytest.warns(UserWarning, match="left out: ") as caught:
        records = load_records(folder)
    assert records == [made_up(1)]
    assert len(caught) == 1 and str(path) in str(caught[0].message) and reason in str(caught[0].message)


def test_an_evaluation_that_cannot_have_been_is_no_record():
    with pytest.raises(RecordError, match="curve validation_accuracy has the value 0.3.* in epoch 1"):
        parse_record(made_up(evaluate_every=2).to_json())


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"text"', "\x00\x01", "{}"])
def test_a_foreign_file_is_named_and_left_out(folder, text):
    (folder / "notes.json").write_text(text)
    with pytest.warns(UserWarning, match="notes.json is not a whole record"):
        assert len(load_records(folder)) == 2


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("environment", {"device": "cuda"}),
        ("hashes", {"sources": "2" * 64}),
        ("hashes", {"data": "2" * 64}),
        ("timing", {"seconds": 1.6}),
        ("parameters", {"device": "cpu"}),
        ("curves", {"test_loss": [1, 1]}),
    ],
)
def test_what_is_altered_and_could_be_is_told_by_the_digest(folder, section, value):
    path = record_path(folder, made_up(0).config)
    values = json.loads(path.read_text())
    values[section] |= value
    if section == "curves":
        values["summary"] = summarise(values["curves"])
    path.write_text(json.dumps(values))
    with pytest.warns(UserWarning, match="left out: .*its digest does not belong to its content: it was altered"):
        assert load_records(folder) == [made_up(1)]


def test_a_nan_a_text_without_digest_and_an_older_format_are_left_out(folder):
    path = record_path(folder, made_up(0).config)
    text = path.read_text()
    digest = json.loads(text)["digest"]
    for old, new in (("2.0", "NaN"), ("2.0", "1e999"), (digest, "0" * 64), ("poolnb-run/2", "poolnb-run/1")):
        assert old in text
        path.write_text(text.replace(old, new))
        with pytest.warns(UserWarning, match="left out: "):
            assert load_records(folder) == [made_up(1)]
    path.write_text(json.dumps({name: value for name, value in json.loads(text).items() if name != "digest"}))
    with pytest.warns(UserWarning, match="sections are not those of a record: digest"):
        assert load_records(folder) == [made_up(1)]


def test_a_name_that_stands_twice_is_told(folder):
    path = record_path(folder, made_up(0).config)
    path.write_text(path.read_text().replace('"status"', '"status": "failed", "status"', 1))
    with pytest.warns(UserWarning, match="left out: .*a name stands in it twice"):
        assert load_records(folder) == [made_up(1)]


@pytest.mark.parametrize("kind", ["folder", "link", "loop", "pipe", "huge", "nested", "endless", "of the kernel"])
def test_nothing_that_lies_beside_them_stops_or_hangs_the_reading(folder, kind):
    other = folder / "x.json"
    if kind == "folder":
        other.mkdir()
    elif kind == "pipe":
        os.mkfifo(other)
    elif kind == "huge":
        other.touch()
        os.truncate(other, 2**36)
    elif kind == "nested":
        other.write_text("[" * 200_000)
    else:
        targets = {"link": "nowhere", "loop": other.name, "endless": "/dev/zero", "of the kernel": "/proc/kmsg"}
        other.symlink_to(targets[kind])
    with pytest.warns(UserWarning, match="left out: .*x.json is not a whole record"):
        assert load_records(folder) == [made_up(0), made_up(1)]


def test_half_a_record_is_named_and_left_out(folder):
    path = record_path(folder, made_up(0).config)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(UserWarning, match="it is not JSON"):
        assert load_records(folder) == [made_up(1)]


def test_a_record_under_another_name_does_not_count_twice(folder):
    path = record_path(folder, made_up(0).config)
    (folder / "copy.json").write_text(path.read_text())
    with pytest.warns(UserWarning, match="copy.json .*its name belongs to another run"):
        assert len(load_records(folder)) == 2


def test_failed_runs_are_apart_and_never_replace_finished_ones(folder):
    write_record(made_up(0, status="failed"), folder)
    write_record(made_up(2, status="failed"), folder)
    assert load_records(folder) == [made_up(0), made_up(1)]
    assert [record.status for record in load_records(folder, failed=True)] == ["done", "done", "failed"]
    write_record(made_up(2), folder)
    assert len(load_records(folder)) == 3


def test_an_older_record_without_a_newer_parameter_is_still_read():
    """A parameter added later has a default that means what the older runs did."""
    values = json.loads(made_up(3).to_json())
    del values["parameters"]["dropout"]
    assert parse_record(sealed(values)).config == made_up(3).config


def test_a_nan_is_never_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_record(made_up(accuracy=float("nan")), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_nothing_else(folder, monkeypatch):
    import os

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match="cannot be written: No space left on device"):
        write_record(made_up(0, accuracy=0.9), folder)
    assert load_records(folder) == [made_up(0), made_up(1)] and len(list(folder.iterdir())) == 2


def test_unfinished_writes_are_not_records(folder):
    (folder / ".digits-soft-0.tmp").write_text("{")
    assert len(load_records(folder)) == 2


def test_written_files_can_be_read_by_others(tmp_path):
    write_atomically(tmp_path / "file", "text")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        load_records(tmp_path / "nowhere")


def test_the_frame_has_one_row_per_run(folder):
    frame = records_frame(load_records(folder))
    assert frame["seed"].tolist() == [0, 1]
    assert frame["last_test_accuracy"].tolist() == [0.5, 0.5]
    assert frame["early_stopped_epoch"].tolist() == [2, 2]
    assert frame["seconds"].tolist() == [1.5, 1.5]
    assert set(RunConfig.names()) <= set(frame)


def test_an_unreadable_record_raises_with_its_name(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(RecordError, match="x.json"):
        read_record(tmp_path / "x.json")
