"""What goes wrong in a sweep costs one clear message and leaves a consistent results folder."""

import json
import os
import subprocess
from dataclasses import replace

import pytest
from sweeps import EXPLODING, SMALL, SPEC, contents, done
from torch import nn

from poolnb.cli import main
from poolnb.lab import data, models
from poolnb.lab.config import ConfigError
from poolnb.lab.records import WriteError, load_records, record_path
from poolnb.lab.training import run


def consistent(folder):
    """Every file in `folder` is a whole record; the runs that have one."""
    records = load_records(folder, failed=True)
    assert len(records) == len(list(folder.iterdir()))
    return {record.config.name for record in records}


@pytest.fixture
def mounted(tmp_path):
    """Mount a memory disk with these options at `tmp_path/disk`; needs the right to mount."""
    folder = tmp_path / "disk"

    def mount(options):
        folder.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("needs the right to mount a memory disk")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True)


CONFIGS = [replace(SMALL, seed=seed) for seed in range(3)]


def test_a_full_disk_stops_the_sweep_and_leaves_whole_records(mounted):
    """A disk with room for one record and not for two."""
    size = len(run(SMALL, progress=False).to_json())
    pages = -(-size // 4096)
    folder = mounted(f"size={4096 * pages}")
    with pytest.raises(WriteError) as caught:
        done(CONFIGS, folder)
    assert str(caught.value) == (
        f"the record {record_path(folder, CONFIGS[1])} cannot be written: No space left on device; "
        "the sweep has stopped; started again, it does what is missing"
    )
    assert consistent(folder) == {CONFIGS[0].name}
    mounted_again = subprocess.run(["mount", "-o", "remount,size=1m", str(folder)])
    assert mounted_again.returncode == 0
    assert done(CONFIGS, folder).done == 2 and len(consistent(folder)) == 3


def test_a_disk_that_is_full_stops_the_sweep_wherever_the_tests_run(tmp_path, monkeypatch):
    written = []

    def full_after_one(handle):
        written.append(handle)
        if len(written) > 1:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_after_one)
    with pytest.raises(WriteError, match="No space left on device; the sweep has stopped"):
        done(CONFIGS, tmp_path)
    assert consistent(tmp_path) == {CONFIGS[0].name}


def test_a_failed_run_on_a_full_disk_says_both(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match="No space left on device; the sweep has stopped"):
        done([EXPLODING], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_costs_the_command_line_one_line(tmp_path, monkeypatch, capsys):
    from poolnb.lab import sweep
    from poolnb.lab.tasks import carry_out

    class Here:
        def __init__(self, workers):
            self.execute = lambda tasks: map(carry_out, tasks)

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sweep, "LocalProcesses", Here)
    monkeypatch.setattr(os, "fsync", full)
    (tmp_path / "spec.toml").write_text(SPEC)
    with pytest.raises(SystemExit) as caught:
        main(["sweep", str(tmp_path / "spec.toml"), "--fast", "--quiet", "--results", str(tmp_path / "results")])
    (line,) = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2 and line.startswith("poolnb: error: the record ") and "No space left" in line
    assert list((tmp_path / "results").iterdir()) == []


def test_a_folder_that_only_can_be_read_is_refused_before_the_first_run(mounted, monkeypatch):
    folder = mounted("ro,size=64k")
    monkeypatch.setattr(data, "load", lambda name: pytest.fail("went on to read data"))
    with pytest.raises(ConfigError, match="results is .*cannot be written to: .*Read-only file system"):
        done([SMALL], folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_folder_without_permission_is_refused_before_the_first_run(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="cannot be written to"):
        done([SMALL], tmp_path)


def test_a_corrupt_and_a_foreign_record_are_named_and_change_no_other(tmp_path):
    done(CONFIGS[:2], tmp_path)
    before = contents(tmp_path)
    corrupt = record_path(tmp_path, CONFIGS[0])
    values = json.loads(corrupt.read_text())
    values["curves"]["test_accuracy"][-1] = 0.999
    corrupt.write_text(json.dumps(values))
    foreign = tmp_path / "digits-max-seed9-0123456789ab.json"
    foreign.write_text('{"format": "another program\'s"}')
    with pytest.warns(UserWarning) as caught:
        assert [record.config.seed for record in load_records(tmp_path)] == [1]
    messages = [str(one.message) for one in caught]
    assert len(messages) == 2
    assert any(str(corrupt) in one and "its summary does not agree with its curves" in one for one in messages)
    assert any(str(foreign) in one and 'its format is "another program\'s"' in one for one in messages)
    with pytest.warns(UserWarning, match="done again"):
        report = done(CONFIGS[:2], tmp_path)
    assert (report.before, report.done) == (1, 1) and foreign.exists()
    foreign.unlink()
    assert contents(tmp_path) == before


def test_a_pooler_that_raises_fails_alone(tmp_path, monkeypatch):
    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("this pooler is broken")

    monkeypatch.setitem(models.MODELS, "broken", lambda shape, *_: models.Recipe(shape, lambda *_: Broken()))
    broken = replace(SMALL, model="broken")
    report = done([broken, SMALL], tmp_path)
    assert report.failed == {broken.name: "RuntimeError: this pooler is broken"} and report.done == 1
    assert consistent(tmp_path) == {broken.name, SMALL.name}
    assert [record.config for record in load_records(tmp_path)] == [SMALL]


def test_a_loss_that_is_not_finite_fails_alone(tmp_path):
    report = done([EXPLODING, SMALL], tmp_path)
    assert list(report.failed) == [EXPLODING.name] and report.done == 1
    assert report.failed[EXPLODING.name].startswith("FloatingPointError: the training loss is ")
    assert consistent(tmp_path) == {EXPLODING.name, SMALL.name}
