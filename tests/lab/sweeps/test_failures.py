"""What goes wrong in a sweep costs one clear message and leaves a consistent results folder."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace

import pytest
import sweeps
import torch
from sweeps import EXPLODING, SMALL, SPEC, alive, children, contents, done, wait_for
from torch import nn

from poolnb.cli import main
from poolnb.lab import data, models
from poolnb.lab.errors import ConfigError, UserError
from poolnb.lab.files import WriteError
from poolnb.lab.records import load_records, read_record, record_path
from poolnb.lab.sweeps.processes import LocalProcesses
from poolnb.lab.sweeps.sweep import sweep
from poolnb.lab.training import run

HELPERS = os.path.dirname(sweeps.__file__)


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


def test_a_full_disk_stops_the_sweep_and_leaves_whole_records(mounted, tmp_path, monkeypatch):
    """A disk with room for one record and not for two: the second is put among the temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    size = len(run(SMALL, progress=False).to_json())
    pages = -(-size // 4096)
    folder = mounted(f"size={4096 * pages}")
    with pytest.raises(WriteError) as caught:
        done(CONFIGS, folder)
    (kept,) = tmp_path.glob(f"poolnb-results-*/{CONFIGS[1].name}.json")
    assert str(caught.value) == (
        f"the record {record_path(folder, CONFIGS[1])} cannot be written: No space left on device; "
        f"it was put at {kept} instead; the sweep has stopped; started again, it does what is missing"
    )
    assert read_record(kept) == caught.value.record
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
    from poolnb.lab.sweeps import sweep
    from poolnb.lab.sweeps.tasks import carry_out

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


# ---- the machine is at fault, not the run ----------------------------------------------------------------------------


def broken(monkeypatch, error):
    """A model whose pools raise `error`; the configuration of a run with it."""

    class Broken(nn.Module):
        def forward(self, x):
            raise error

    monkeypatch.setitem(models.MODELS, "broken", lambda shape, *_: models.Recipe(shape, lambda *_: Broken()))
    return replace(SMALL, model="broken")


@pytest.mark.parametrize(
    "error",
    [
        ImportError("No module named 'numpy'"),
        MemoryError(),
        OSError(5, "Input/output error"),
        AttributeError("module 'torch' has no attribute 'x'"),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        NotImplementedError("Could not run 'poolnb::soft' with arguments from the 'CUDA' backend"),
        RuntimeError("can't start new thread"),
    ],
    ids=lambda error: f"{type(error).__name__} {error}"[:40],
)
def test_a_fault_of_the_machine_leaves_the_run_missing_and_the_others_go_on(tmp_path, monkeypatch, error):
    config = broken(monkeypatch, error)
    with pytest.raises(type(error)):
        run(config, tmp_path, progress=False)
    report = done([config, SMALL], tmp_path)
    assert (report.done, report.failed) == (1, {}) and report.missing[config.name].startswith(type(error).__name__)
    assert consistent(tmp_path) == {SMALL.name}
    monkeypatch.setitem(models.MODELS, "broken", models.Recipe)  # the cause is mended
    assert (again := done([config, SMALL], tmp_path)).done == 1 and again.before == 1


@pytest.mark.parametrize("error", [ValueError("x must be positive"), ZeroDivisionError("x"), RuntimeError("sizes")])
def test_what_an_operator_raises_on_its_data_is_a_failed_run(tmp_path, monkeypatch, error):
    report = done([broken(monkeypatch, error)], tmp_path)
    assert list(report.failed.values()) == [f"{type(error).__name__}: {error}"] and report.missing == {}


def test_an_error_of_the_caller_s_own_function_is_no_failed_run(tmp_path):
    def told(epoch, values):
        raise ValueError("of the caller")

    with pytest.raises(ValueError, match="^of the caller$"):
        run(SMALL, tmp_path, progress=False, on_epoch=told)
    assert list(tmp_path.iterdir()) == []


def test_a_machine_that_can_do_nothing_stops_the_sweep(tmp_path, monkeypatch):
    config = broken(monkeypatch, ImportError("No module named 'numpy'"))
    with pytest.raises(UserError, match="3 runs in a row could not be carried out, the last: ImportError: No module"):
        done([replace(config, seed=seed) for seed in range(5)], tmp_path)
    assert list(tmp_path.iterdir()) == []


def by_notebook(configs, folder):
    return sweep(configs, folder, progress=False, executor=LocalProcesses(1))


def test_a_foreign_kernel_called_python3_does_no_harm(tmp_path, monkeypatch):
    kernel = tmp_path / "data" / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text(json.dumps({"argv": ["/bin/false", "{connection_file}"], "display_name": "x", "language": "R"}))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    report = by_notebook([SMALL], tmp_path / "results")
    assert (report.done, report.failed, report.missing) == (1, {}, {})


def test_a_package_that_the_notebook_lacks_leaves_the_run_missing(tmp_path, monkeypatch):
    (tmp_path / "seaborn").mkdir()
    (tmp_path / "seaborn" / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'seaborn'\")")
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        report = by_notebook([SMALL], tmp_path / "results")
    assert report.missing == {SMALL.name: "ModuleNotFoundError: No module named 'seaborn'"} and report.failed == {}
    assert list((tmp_path / "results").iterdir()) == []
    assert by_notebook([SMALL], tmp_path / "results").done == 1


def test_a_kernel_that_is_killed_leaves_the_run_missing(tmp_path):
    """The kernel's process ends by a signal, as when memory is short; the worker that waits for it lives on."""
    script = (
        "import sys; from sweeps import SMALL; from test_failures import by_notebook\n"
        "from dataclasses import replace\n"
        "if __name__ == '__main__':\n"
        "    report = by_notebook([replace(SMALL, epochs=2000)], sys.argv[1])\n"
        "    print(report.missing, report.failed)\n"
    )
    (tmp_path / "script.py").write_text(script)
    path = os.pathsep.join([os.path.dirname(__file__), HELPERS, os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "results")],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    for _ in range(2):  # it is tried twice
        killed = kernels(process)
        for pid in killed:
            os.kill(pid, 9)
        wait_for(lambda: not any(map(alive, killed)), process)  # noqa: B023
    output, _ = process.communicate(timeout=300)
    assert "ernel died" in output and output.strip().endswith("{}")
    assert list((tmp_path / "results").iterdir()) == []


def kernels(process):
    """The kernels of the workers of the sweep in `process`, as soon as there is one."""
    found = []

    def there():
        found[:] = [k for worker in children(process.pid, "spawn_main") for k in children(worker, "ipykernel")]
        return found

    wait_for(there, process)
    return found


def test_a_full_disk_in_the_notebook_stops_the_sweep(mounted, tmp_path, monkeypatch):
    size = len(run(SMALL, progress=False).to_json())
    folder = mounted(f"size={4096 * (-(-size // 4096))}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with pytest.raises(WriteError, match="No space left on device; it was put at .* instead; the sweep has stopped"):
        by_notebook(CONFIGS[:2], folder)
    assert consistent(folder) == {CONFIGS[0].name}
    (kept,) = tmp_path.glob(f"poolnb-results-*/{CONFIGS[1].name}.json")
    assert read_record(kept).status == "done"


def test_two_sweeps_on_one_folder_do_no_harm(tmp_path):
    (tmp_path / "spec.toml").write_text(SPEC)
    command = [sys.executable, "-m", "poolnb", "sweep", str(tmp_path / "spec.toml"), "--workers", "1", "--fast"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([*command, "--results", str(tmp_path / "results")], **pipes) for _ in range(2)]
    for process in both:
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0 and errors == "" and "0 failed" in output
    assert len(consistent(tmp_path / "results")) == 4


def test_a_run_that_another_sweep_has_done_meanwhile_is_not_done_again(tmp_path, monkeypatch):
    from poolnb.lab import training

    class Late:
        def execute(self, tasks):
            from poolnb.lab.sweeps.tasks import carry_out

            run(SMALL, tmp_path, progress=False)
            monkeypatch.setattr(training, "run", lambda *_, **__: pytest.fail("done again"))
            yield from map(carry_out, tasks)

    assert done([SMALL], tmp_path, Late()).done == 1


def test_a_script_without_a_main_guard_costs_a_message_and_no_record(tmp_path):
    script = (
        "from sweeps import SMALL\nfrom poolnb.lab.sweeps.sweep import sweep\n"
        "GUARD:\n    print(sweep([SMALL], 'results', workers=1, fast=True, progress=False))\n"
    )
    path = os.pathsep.join([HELPERS, os.environ.get("PYTHONPATH", "")])

    def tried(guard):
        (tmp_path / "script.py").write_text(script.replace("GUARD", guard))
        command, env = [sys.executable, "script.py"], {**os.environ, "PYTHONPATH": path}
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)

    said = tried("if True").stderr
    assert "UserError: a worker process has ended as it started, with exit code 1; a script that starts a sweep" in said
    assert list((tmp_path / "results").iterdir()) == []
    assert "done=1" in tried('if __name__ == "__main__"').stdout
