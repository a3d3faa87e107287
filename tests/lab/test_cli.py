"""The command line: what it does, and that a mistake costs one line and nothing else."""

import os
import resource
import subprocess
import sys

import pytest

from poolnb.cli import main
from poolnb.lab import data
from poolnb.lab.config import RunConfig
from poolnb.lab.records import load_records, parse_record

QUICK = ["run", "--epochs", "1", "--limit", "128", "--quiet"]


def refused(arguments, capsys):
    """The one line that the command says when it refuses its arguments."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    output = capsys.readouterr()
    assert caught.value.code == 2 and output.out == ""
    (line,) = output.err.splitlines()
    assert line.startswith("poolnb: error: ")
    return line


def test_run_keeps_the_record_of_what_was_asked_for(tmp_path, capsys):
    options = ["--pooler", "soft", "--pooler-options", "beta=2", "semi_grad=true", "--seed", "3", "--dropout", "0.5"]
    assert main([*QUICK, *options, "--results", str(tmp_path)]) == 0
    (record,) = load_records(tmp_path)
    assert record.config == RunConfig(
        pooler="soft", pooler_options={"beta": 2, "semi_grad": True}, seed=3, dropout=0.5, epochs=1, limit=128
    )
    output = capsys.readouterr().out
    assert f"test accuracy {record.summary['last']['test_accuracy']:.4f}" in output
    assert f"record: {tmp_path / record.config.name}.json" in output


def test_options_may_be_given_as_json(tmp_path):
    assert main([*QUICK, "--pooler-options", '{"beta": 2}', "--results", str(tmp_path)]) == 0
    assert load_records(tmp_path)[0].parameters["pooler_options"] == {"beta": 2}


def test_every_parameter_is_an_option_with_its_help(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["run", "--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for name in RunConfig.names():
        assert f"--{name.replace('_', '-')} " in text
    assert "optimiser: adam, sgd (default: adam)" in text


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["run", "--pooler", "maxx"], "pooler is 'maxx'; accepted: "),
        (["run", "--epochs", "0"], "epochs is 0; accepted: a whole number >= 1"),
        (["run", "--learning-rate", "fast"], "learning_rate is 'fast'; accepted: a finite number > 0"),
        (["run", "--lerning-rate", "1"], "unknown argument --lerning-rate 1; `poolnb run` accepts: "),
        (["run", "--epoch", "1"], "unknown argument --epoch 1; "),
        (["run", "--epochs"], "argument --epochs: expected one argument"),
        (["run", "--pooler-options", "beta"], "pooler_options is 'beta'; accepted: NAME=VALUE"),
        (["run", "--pooler-options", "beat=2"], "beat"),
        (
            ["run", "--pooler-options", "beta=1", "beta=2"],
            "pooler_options is 'beta=1 beta=2'; accepted: every NAME once",
        ),
        (["run", "--device", "tpu"], "device is 'tpu'; accepted: auto, cpu, cuda, cuda:N"),
        (["run", "--device", "cuda:" + "9" * 20], "device is 'cuda:99999999999999999999'"),
        (["run", "--device", "cuda:²"], "device is 'cuda:²'; accepted: auto, cpu, cuda, cuda:N"),
        (["studies", "--device", "tpu", "--list"], "device is 'tpu'; accepted: auto, cpu, cuda, cuda:N"),
        (["studies", "--device", "mps"], "device is 'mps'; accepted: auto, cpu, cuda, cuda:N"),
        (["run", "--pooler-options", "{"], "pooler_options is '{'; accepted: "),
        (["run", "--results", "/dev/null/folder"], "results is '/dev/null/folder', a folder that cannot be written to"),
        (["run", "--seed", str(2**64)], "seed is 18446744073709551616; accepted: a whole number that torch"),
        (["run", "--seed", "9" * 5000], "seed is "),
        (["run", "--seed", "[" * 100_000], "seed is "),
        (["run", "--epochs", str(2**64)], "epochs is 18446744073709551616; accepted: "),
        (["run", "--limit", str(2**70)], "limit is "),
        (["run", "--batch-size", str(2**63)], "batch_size is "),
        (["run", "--threads", str(2**40)], "threads is 1099511627776; accepted: a whole number >= 1 and <= 4096"),
        (["run", "--learning-rate", "9" * 400], "learning_rate is "),
        (["run", "--pooler", "lse", "--pooler-options", "r=" + "9" * 400], "pooler_options is "),
        (["sweep", "nowhere.toml"], "sweep file nowhere.toml: "),
        (["sweep"], "required: SPEC.toml"),
        (["rnu"], "invalid choice: 'rnu'"),
        ([], "required: command"),
    ],
)
def test_a_mistake_costs_one_line(arguments, reason, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert reason in refused(arguments, capsys)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_missing_data_cost_one_line(capsys, tmp_path, monkeypatch):

    def fail(name):
        raise OSError("no network in this test")

    monkeypatch.setenv("POOLNB_DATA", str(tmp_path / "none"))
    monkeypatch.setattr(data, "_download", fail)
    data.load.cache_clear()
    line = refused(["run", "--dataset", "mnist", "--results", str(tmp_path / "results"), "--quiet"], capsys)
    assert "MNIST: train-images-idx3-ubyte" in line and "POOLNB_DATA" in line


def test_a_failed_run_costs_one_line_and_leaves_its_record(capsys, tmp_path):
    arguments = [*QUICK, "--optimizer", "sgd", "--learning-rate", "1e30", "--results", str(tmp_path)]
    assert "the training loss is" in refused(arguments, capsys)
    assert [record.status for record in load_records(tmp_path, failed=True)] == ["failed"]


def test_a_full_disk_costs_one_line_and_the_record_is_printed(tmp_path):
    """A limit on the size of files stands for disks that are full everywhere: the write fails half way, for real."""
    command = [sys.executable, "-m", "poolnb", *QUICK, "--results", str(tmp_path)]
    limit = (600, resource.RLIM_INFINITY)
    done = subprocess.run(
        command,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("poolnb: error: the record ") and line.endswith(
        "cannot be written: File too large; it was printed instead"
    )
    assert parse_record(done.stdout).status == "done"
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_tells_each_run_and_ends_with_1_if_one_failed(tmp_path, capsys, monkeypatch):
    from poolnb.lab.sweeps import sweep
    from poolnb.lab.sweeps.tasks import carry_out

    class Here:
        def __init__(self, workers):
            self.execute = lambda tasks: map(carry_out, tasks)

    monkeypatch.setattr(sweep, "LocalProcesses", Here)
    spec = tmp_path / "two.toml"
    spec.write_text('fixed = {epochs = 1, limit = 128, optimizer = "sgd"}\ngrid = {learning_rate = [0.1, 1e30]}')
    arguments = ["sweep", str(spec), "--fast", "--results", str(tmp_path / "results")]
    assert main(arguments) == 1
    output = capsys.readouterr().out
    assert "two: 2 runs" in output and "1/2 digits-soft-seed0-" in output and "1 done now, 1 failed" in output
    assert main(arguments) == 1
    assert "1 were there, 0 done now, 1 failed" in capsys.readouterr().out


def test_doctor_says_what_is_here(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("POOLNB_DATA", str(tmp_path))
    assert main(["doctor"]) == 0
    output = capsys.readouterr().out
    for part in ("torch", "threads", "Compilers", "Native kernels", f"folder: {tmp_path} (POOLNB_DATA)"):
        assert part in output
    assert "mnist                   missing MNIST/raw/: train-images-idx3-ubyte" in output


def test_a_pipe_that_is_closed_is_no_error():
    """As `poolnb doctor | head -1` closes it."""
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    doctor = subprocess.Popen([sys.executable, "-m", "poolnb", "doctor"], stdout=-1, stderr=-1, text=True, env=buffered)
    doctor.stdout.close()
    assert doctor.stderr.read() == "" and doctor.wait() == 141


def test_doctor_does_without_the_lab_s_packages():
    """Only torch may be needed: the optional packages are made to look as if they were not installed."""
    optional = ["numpy", "torchvision", "pandas", "scipy", "sklearn", "tqdm", "papermill", "matplotlib", "seaborn"]
    code = f"""
import sys
sys.modules.update(dict.fromkeys({optional!r}))
from poolnb.cli import main
sys.exit(main(["doctor"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "cannot be told without the lab's packages (" in done.stdout


def test_without_numpy_a_run_is_refused_in_one_line():
    code = """
import sys
sys.modules["numpy"] = None
from poolnb.cli import main
sys.exit(main(["run", "--dataset", "digits"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    error = "numpy is not installed; pip install 'poolnb[lab]' brings what experiments need"
    assert done.returncode == 2 and done.stderr.splitlines()[-1] == f"poolnb: error: {error}"


def test_a_package_that_is_not_installed_is_one_line(tmp_path, capsys, monkeypatch):
    data.load.cache_clear()  # what an earlier test has loaded
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    error = "sklearn.datasets is not installed; pip install 'poolnb[lab]' brings what experiments need"
    assert refused([*QUICK, "--results", str(tmp_path)], capsys) == f"poolnb: error: {error}"


def test_a_number_of_processes_that_cannot_be_is_told_before_anything_else(tmp_path, capsys):
    (tmp_path / "spec.toml").write_text("grid = {seed = [0]}")
    arguments = ["sweep", str(tmp_path / "spec.toml"), "--results", str(tmp_path / "results"), "--workers", "0"]
    assert refused(arguments, capsys) == "poolnb: error: workers is 0; accepted: a whole number from 1 to 1024"
    assert not (tmp_path / "results").exists()
