"""Files of results on other people's file systems: each refusal is put in by hand."""

import errno
import os
import tempfile

import pytest

from poolnb.lab.config import RunConfig
from poolnb.lab.errors import ConfigError
from poolnb.lab.files import WriteError, digest, folder_of, prepare_folder, sealed, write_atomically, write_result
from poolnb.lab.records import load_records, read_record
from poolnb.lab.training import run

QUICK = RunConfig(epochs=1, limit=64)
REFUSALS = {
    "chmod": ("chmod fchmod", errno.EPERM),
    "renaming": ("rename replace", errno.EPERM),
    "renaming, no such call": ("rename replace", errno.ENOSYS),
    "renaming over a file": ("replace", errno.EEXIST),
    "waiting for the disk": ("fsync", errno.EINVAL),
    "links": ("link symlink", errno.EPERM),
}


def refuse(monkeypatch, calls, number):
    def refused(*arguments, **options):
        raise OSError(number, os.strerror(number))

    for name in calls.split():
        monkeypatch.setattr(os, name, refused)


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_record_survives_a_file_system_that_refuses(tmp_path, monkeypatch, kind):
    refuse(monkeypatch, *REFUSALS[kind])
    for _ in range(2):  # the second record replaces the first
        record = run(QUICK, tmp_path / "results", progress=False)
        assert load_records(tmp_path / "results") == [record]
    assert len(list((tmp_path / "results").iterdir())) == 1


def test_a_file_system_without_hidden_names_is_enough(tmp_path, monkeypatch):
    plain = os.open

    def no_hidden(path, *rest, **options):
        if str(path).rsplit("/", 1)[-1].startswith("."):
            raise OSError(errno.EINVAL, "Invalid argument")
        return plain(path, *rest, **options)

    monkeypatch.setattr(os, "open", no_hidden)
    write_atomically(tmp_path / "file", "one")
    write_atomically(tmp_path / "file", "two")
    assert (tmp_path / "file").read_text() == "two"


@pytest.mark.parametrize("refused", ["", "replace"])
def test_where_there_is_no_room_the_old_file_stays(tmp_path, monkeypatch, refused):
    write_atomically(tmp_path / "file", "old")
    refuse(monkeypatch, refused, errno.EPERM)
    refuse(monkeypatch, "fsync", errno.ENOSPC)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "file", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "old"


def test_a_run_that_cannot_be_written_is_put_elsewhere_and_kept_in_memory(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "elsewhere"))
    (tmp_path / "results" / f"{QUICK.name}.json").mkdir(parents=True)  # a folder in the record's place
    with pytest.raises(WriteError, match="the record .* cannot be written: Is a directory; it was put at") as caught:
        run(QUICK, tmp_path / "results", progress=False)
    assert caught.value.kept.is_relative_to(tmp_path / "elsewhere") and str(caught.value.kept) in str(caught.value)
    assert read_record(caught.value.kept) == caught.value.record
    refuse(monkeypatch, "fsync", errno.ENOSPC)
    with pytest.raises(WriteError, match="No space left on device$") as again:
        write_result(tmp_path / "results" / f"{QUICK.name}.json", caught.value.record, "record")
    assert again.value.kept is None and again.value.record == caught.value.record
    assert len(list((tmp_path / "elsewhere").iterdir())) == 1


@pytest.mark.parametrize("given", [20261126, 2026.11, True, "20261126"])
def test_a_folder_s_name_may_come_as_a_number(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    run(QUICK, given, progress=False)
    assert len(load_records(tmp_path / str(given))) == 1


@pytest.mark.parametrize("given", [None, "none", "None"])
def test_none_means_that_the_record_is_kept_nowhere(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    assert folder_of(given) is None and run(QUICK, given, progress=False).status == "done"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", [["results"], {}, object(), "a\0b"])
def test_what_names_no_folder_is_refused(given):
    with pytest.raises(ConfigError, match="results is "):
        prepare_folder(given)


def test_a_digest_does_not_depend_on_the_order_of_names():
    assert digest({"a": 1, "b": 0.1 + 0.2}) == digest({"b": 0.1 + 0.2, "a": 1, "digest": "x"}) != digest({"a": 1})
    assert digest({"a": 1}) in sealed({"a": 1})
