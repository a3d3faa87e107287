"""Sweeps on a Dask cluster: a scheduler and two worker processes of this machine."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import warnings
from dataclasses import replace

import pytest
from sweeps import EXPLODING, SMALL, alive, contents, done, wait_for

from poolnb.cli import main
from poolnb.lab.errors import ConfigError, UserError
from poolnb.lab.files import WriteError
from poolnb.lab.provenance import ROOT, source_hash
from poolnb.lab.records import load_records
from poolnb.lab.sweeps.scheduler import Scheduler, carry_out_there
from poolnb.lab.training import run

pytest.importorskip("distributed")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def start(kind, *arguments):
    command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The address of a scheduler, and a function that starts a worker for it."""
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    folder = str(tmp_path_factory.mktemp("dask"))
    started = [start("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")]

    def worker():
        options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", folder]
        started.append(start("worker", address, *options))
        return started[-1]

    yield address, worker
    for process in started:
        process.kill()
        process.wait()


def test_a_worker_that_is_killed_loses_no_run_and_doubles_none(cluster, tmp_path):
    address, worker = cluster
    first, second = worker(), worker()
    configs = [replace(SMALL, seed=seed, epochs=20) for seed in range(6)]
    told = []

    def kill_one(report, outcome):
        told.append(outcome.task.config.seed)
        if len(told) == 1:
            first.send_signal(signal.SIGKILL)
            first.wait()

    wait_for(lambda: workers(address) == 2, first)
    report = done(configs, tmp_path, Scheduler(address, patience=60), on_outcome=kill_one)
    assert (report.done, report.failed) == (6, {}) and sorted(told) == list(range(6))
    assert not alive(first.pid) and second.poll() is None
    assert len(list(tmp_path.iterdir())) == 6
    assert sorted(contents(tmp_path), key=str) == sorted((run(c, progress=False).content() for c in configs), key=str)


def workers(address):
    from distributed import Client

    with Client(address, timeout=60, set_as_default=False) as client:
        return len(client.scheduler_info()["workers"])


def test_a_failed_run_comes_back_with_its_reason(cluster, tmp_path):
    address, worker = cluster
    if not workers(address):
        worker()
    report = done([EXPLODING, SMALL], tmp_path, Scheduler(address, patience=60))
    assert report.done == 1 and report.failed[EXPLODING.name].startswith("FloatingPointError: the training loss is ")
    (failed,) = [record for record in load_records(tmp_path, failed=True) if record.status == "failed"]
    assert failed.error == report.failed[EXPLODING.name] and failed.environment["versions"]["torch"]


def test_a_run_on_a_gpu_needs_a_worker_that_offers_one(cluster, tmp_path):
    address, worker = cluster
    if not workers(address):
        worker()
    with pytest.raises(ConfigError, match="no worker of tcp.* offers a GPU; start one: .*--resources GPU=1"):
        done([replace(SMALL, device="cuda")], tmp_path, Scheduler(address, patience=60))
    assert list(tmp_path.iterdir()) == []


def test_an_address_where_nobody_answers_costs_one_line(tmp_path, capsys):
    spec = tmp_path / "spec.toml"
    spec.write_text('description = "one"\ngrid = {seed = [0]}')
    for address in (f"tcp://127.0.0.1:{free_port()}", "nonsense://x", "host-without-port"):
        with pytest.raises(ConfigError, match="scheduler is .*, where no Dask scheduler answers"):
            done([SMALL], tmp_path / "results", Scheduler(address, patience=1))
    arguments = ["sweep", str(spec), "--results", str(tmp_path / "results"), "--fast", "--quiet"]
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--scheduler", "nonsense://x"])
    (line,) = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2 and "where no Dask scheduler answers" in line
    with pytest.raises(SystemExit):
        main([*arguments, "--scheduler", "tcp://127.0.0.1:8786", "--workers", "2"])
    assert "--workers is for processes of this machine" in capsys.readouterr().err


def test_a_scheduler_without_workers_is_named(tmp_path):
    port = free_port()
    scheduler = start("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
    try:
        with pytest.raises(ConfigError, match="has no workers; start some: dask worker tcp"):
            done([SMALL], tmp_path, Scheduler(f"tcp://127.0.0.1:{port}", patience=15))
    finally:
        scheduler.kill()
        scheduler.wait()


def test_a_full_disk_here_stops_the_sweep(cluster, tmp_path, monkeypatch):
    import os

    def full(handle):
        raise OSError(28, "No space left on device")

    address, worker = cluster
    if not workers(address):
        worker()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match="No space left on device; the sweep has stopped"):
        done([SMALL], tmp_path, Scheduler(address, patience=60))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def lonely(tmp_path):
    """A cluster whose only workers are those that a test starts, with an environment and a first folder of modules."""
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    started = [start("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")]

    def worker(modules="", **environment):
        path = os.pathsep.join([str(modules), os.environ.get("PYTHONPATH", "")])
        options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(tmp_path / "dask")]
        command = [sys.executable, "-m", "distributed.cli.dask_worker", address, *options]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        started.append(
            subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path, **environment}, **quiet)
        )
        wait_for(lambda: workers(address) == len(started) - 1, started[-1])
        return started[-1]

    yield address, worker
    for process in started:
        process.kill()
        process.wait()


def without_poolnb(folder):
    (folder / "poolnb").mkdir(parents=True)
    (folder / "poolnb" / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'poolnb'\")")
    return folder


def other_sources(folder):
    shutil.copytree(ROOT / "poolnb", folder / "poolnb", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "ext", folder / "ext", ignore=shutil.ignore_patterns("build*"))
    with open(folder / "poolnb" / "geometry.py", "a") as file:
        file.write("CHANGED = True\n")
    return folder


def test_a_worker_that_lacks_something_makes_no_failed_run_and_another_does_it(lonely, tmp_path):
    """No poolnb, other sources, no data: first such workers alone, then one that has everything as well."""
    address, worker = lonely
    worker(without_poolnb(tmp_path / "none"))
    worker(other_sources(tmp_path / "other"))
    results, executor = tmp_path / "results", Scheduler(address, patience=60)
    with pytest.warns(UserWarning, match="tried elsewhere") as caught:
        report = done([SMALL], results, executor)
    said = " ".join(str(one.message) for one in caught)
    assert (
        "poolnb cannot be imported there (ModuleNotFoundError" in said and "has other sources than the sweep's" in said
    )
    assert (report.done, report.failed, list(report.missing)) == (0, {}, [SMALL.name])
    assert list(results.iterdir()) == []
    worker()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = done([SMALL, replace(SMALL, seed=1)], results, executor)
    assert (report.done, report.failed, report.missing) == (2, {}, {})


def test_a_worker_without_the_data_leaves_the_run_missing(lonely, tmp_path):
    address, worker = lonely
    proxies = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    worker(POOLNB_DATA=str(tmp_path / "nothing"), **proxies)
    with pytest.warns(UserWarning, match="tried elsewhere: .*DataError: MNIST: train-images-idx3-ubyte"):
        report = done([replace(SMALL, dataset="mnist")], tmp_path / "results", Scheduler(address, patience=60))
    assert report.failed == {} and len(report.missing) == 1 and list((tmp_path / "results").iterdir()) == []


def test_a_sweep_says_that_no_worker_is_left(lonely, tmp_path):
    address, worker = lonely
    only = worker()
    killer = threading.Timer(5, only.kill)
    killer.start()
    with pytest.raises(UserError, match="no worker of tcp.* is left for 1 runs; start some: .*does what is missing"):
        done([replace(SMALL, epochs=100_000)], tmp_path / "results", Scheduler(address, patience=5))
    assert list((tmp_path / "results").iterdir()) == []


def test_what_a_worker_returns_is_the_record(tmp_path):
    error, text = carry_out_there(SMALL.parameters, False, source_hash())
    assert error == ""
    (tmp_path / f"{SMALL.name}.json").write_text(text)
    assert contents(tmp_path) == [run(SMALL, progress=False).content()]
