"""Sweeps: read from a file, done once, gone on with after any kind of stop, and not stopped by a run that fails."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial

import pytest
from sweeps import EXPLODING, SMALL, SPEC, alive, children, contents, done, wait_for

from poolnb.lab.errors import ConfigError
from poolnb.lab.records import load_records, record_path
from poolnb.lab.sweeps.processes import LocalProcesses
from poolnb.lab.sweeps.sweep import default_workers, read_sweep, sweep
from poolnb.lab.training import run


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SPEC)
    return path


# ---- the file --------------------------------------------------------------------------------------------------------


def test_a_file_is_a_grid_with_the_seeds_slowest(spec):
    found = read_sweep(spec)
    assert (found.name, found.description) == ("small", "two poolers, two seeds")
    assert [(c.pooler, c.seed) for c in found.configs] == [("max", 0), ("soft", 0), ("max", 1), ("soft", 1)]
    assert all((c.epochs, c.limit) == (2, 256) for c in found.configs)


def test_variants_are_sets_that_belong_together(spec):
    spec.write_text(
        "fixed = {epochs = 1}\ngrid = {seed = [0, 1]}\n"
        'variants = [{pooler = "max", dropout = 0.5}, {pooler = "soft", pooler_options = {beta = 2.0}},'
        '{pooler = "max"}]'
    )
    configs = read_sweep(spec).configs
    assert len(configs) == 6
    assert {(c.pooler, c.dropout, c.pooler_options.get("beta")) for c in configs} == {
        ("max", 0.5, None),
        ("soft", 0.0, 2.0),
        ("max", 0.0, None),
    }


def test_a_run_that_is_asked_for_twice_is_there_once(spec):
    spec.write_text("grid = {seed = [0, 1, 0]}")
    assert len(read_sweep(spec).configs) == 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("grid = [", "Invalid"),
        ("grids = {seed = [0]}", "unknown parameter grids; accepted: description, fixed, grid, variants"),
        ("grid = {seed = 0}", "grid: seed is 0; accepted: a list"),
        ("grid = {seed = []}", "at least one value"),
        ("grid = {seeds = [0]}", "unknown parameter seeds; accepted: dataset"),
        ('grid = {pooler = ["max", "maxx"]}', "pooler is 'maxx'; accepted: "),
        ("fixed = {seed = 1}\ngrid = {seed = [0]}", "seed: given twice"),
        ("fixed = {seed = 1}\nvariants = [{seed = 0}]", "seed: given twice"),
        ("variants = 3", "variants is 3; accepted: "),
        ("fixed = 3", "fixed is 3; accepted: "),
        ("variants = []", "variants is empty or holds a table that is; accepted: tables with at least one parameter"),
        ("[[variants]]", "variants is empty or holds a table that is"),
        ('[[variants]]\npooler = "max"\n[[variants]]', "variants is empty or holds a table that is"),
        ("", "it names no run; accepted: at least one parameter in fixed, grid or variants"),
        ('description = "later"\n[fixed]\n[grid]', "it names no run"),
        ("grid = {seed = [18446744073709551616]}", "seed is 18446744073709551616; accepted: "),
        ("fixed = {epochs = " + "9" * 5000 + "}", ""),
        ("fixed = " + "[" * 100_000, ""),
    ],
)
def test_a_file_that_is_wrong_is_named_with_the_reason(spec, text, reason):
    spec.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_sweep(spec)
    assert str(caught.value).startswith(f"sweep file {spec}: ") and reason in str(caught.value)


def test_a_file_may_begin_with_a_byte_order_mark(spec):
    before = read_sweep(spec)
    spec.write_bytes(b"\xef\xbb\xbf" + spec.read_bytes().replace(b"\n", b"\r\n"))
    assert read_sweep(spec) == before


@pytest.mark.parametrize("workers", [0, -1, 2**70, True, 1.5])
def test_a_number_of_workers_that_cannot_be_is_refused(tmp_path, workers):
    with pytest.raises(ConfigError, match=f"workers is {workers}; accepted: a whole number from 1 to 1024"):
        sweep([SMALL], tmp_path, workers=workers, fast=True, progress=False)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match="nowhere.toml"):
        read_sweep(tmp_path / "nowhere.toml")


def test_the_book_s_sweeps_can_be_read():
    from poolnb.lab.provenance import BOOK

    files = sorted((BOOK / "experiments" / "sweeps").glob("*.toml"))
    assert files
    for file in files:
        found = read_sweep(file)
        assert found.description and found.configs


# ---- runs ------------------------------------------------------------------------------------------------------------


def test_a_sweep_does_each_run_once_and_its_records_are_those_of_run(tmp_path):
    configs = [SMALL, replace(SMALL, seed=1)]
    told = []
    report = done(configs, tmp_path / "a", on_outcome=lambda report, outcome: told.append(outcome.task.config.seed))
    assert (report.total, report.before, report.done, report.failed) == (2, 0, 2, {}) and told == [0, 1]
    expected = [run(config, progress=False).content() for config in configs]
    assert sorted(contents(tmp_path / "a"), key=str) == sorted(expected, key=str)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").iterdir()}
    again = done(configs, tmp_path / "a")
    assert (again.before, again.done) == (2, 0)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "a").iterdir()} == times


def test_a_damaged_record_is_named_and_its_run_done_again(tmp_path):
    done([SMALL], tmp_path)
    (path,) = tmp_path.iterdir()
    whole = contents(tmp_path)
    path.write_text(path.read_text()[:100])
    with pytest.warns(UserWarning, match=f"done again: .*{path.name}"):
        report = done([SMALL], tmp_path)
    assert report.done == 1 and contents(tmp_path) == whole


def test_a_failed_run_is_recorded_and_does_not_stop_the_others(tmp_path):
    report = done([EXPLODING, SMALL], tmp_path)
    assert report.done == 1 and list(report.failed) == [EXPLODING.name]
    assert "the training loss is" in report.failed[EXPLODING.name]
    assert [record.config.learning_rate for record in load_records(tmp_path)] == [SMALL.learning_rate]
    path = record_path(tmp_path, EXPLODING)
    before = path.stat().st_mtime_ns
    again = done([EXPLODING, SMALL], tmp_path)
    assert (again.before, again.done, len(again.failed)) == (1, 0, 1) and path.stat().st_mtime_ns == before
    retried = done([EXPLODING, SMALL], tmp_path, retry_failed=True)
    assert len(retried.failed) == 1 and path.stat().st_mtime_ns > before


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (replace(SMALL, pooler_options={"beat": 1}), "pooler_options"),
        (replace(SMALL, device="cuda:99"), "device is 'cuda:99'"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_run(tmp_path, wrong, reason):
    with pytest.raises(ConfigError, match=reason):
        done([SMALL, wrong], tmp_path, LocalProcesses(1))
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_refused_before_the_first_run(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written to"):
        done([SMALL], tmp_path / "file" / "results")


def test_workers_fit_the_cores():
    cores = len(os.sched_getaffinity(0))
    assert default_workers([SMALL]) == cores
    assert default_workers([SMALL, replace(SMALL, threads=2 * cores)]) == 1
    with pytest.raises(ConfigError, match="workers is 0"):
        LocalProcesses(0)


# ---- sudden ends -----------------------------------------------------------------------------------------------------


def test_killed_half_way_and_started_again_no_run_is_lost_or_done_twice(spec, tmp_path):
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    command = [sys.executable, "-m", "poolnb", "sweep", str(spec), "--fast", "--workers", "1", "--results"]
    process = subprocess.Popen([*command, str(killed)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: killed.is_dir() and any(killed.glob("*.json")), process)
    workers = children(process.pid, "spawn_main")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert workers
    wait_for(lambda: not any(alive(pid) for pid in workers))
    early = {path: path.stat().st_mtime_ns for path in killed.glob("*.json")}
    assert 1 <= len(early) < 4, "the sweep was not stopped half way"

    finished = subprocess.run([*command, str(killed)], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert f"{len(early)} were there, {4 - len(early)} done now, 0 failed" in finished.stdout
    assert all(path.stat().st_mtime_ns == written for path, written in early.items())
    assert len(list(killed.glob("*.json"))) == 4
    done(read_sweep(spec).configs, undisturbed)
    assert contents(killed) == contents(undisturbed)


def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(spec, tmp_path):
    spec.write_text(SPEC.replace("epochs = 2", "epochs = 60"))  # the others must not be done before the signal comes
    command = [
        sys.executable,
        "-m",
        "poolnb",
        "sweep",
        str(spec),
        "--fast",
        "--workers",
        "1",
        "--results",
        str(tmp_path),
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Tests that a shell runs in the background are born deaf to Ctrl-C, and so would this be.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    wait_for(lambda: any(tmp_path.glob("*.json")), process)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "started again, the sweep does what is missing" in stderr and "Traceback" not in stderr
    assert 1 <= len(load_records(tmp_path)) < 4
    assert {path.suffix for path in tmp_path.iterdir()} == {".toml", ".json"}


def test_a_killed_worker_is_replaced(tmp_path):
    def kill(report, outcome):
        if report.done == 1:
            for child in multiprocessing.active_children():
                child.kill()

    configs = [replace(SMALL, seed=seed) for seed in range(2)]
    report = done(configs, tmp_path, LocalProcesses(1), on_outcome=kill)
    assert (report.done, report.failed) == (2, {})
    assert contents(tmp_path) == [run(config, progress=False).content() for config in configs]


def test_a_run_whose_process_dies_twice_is_missing(tmp_path):
    over = threading.Event()

    def kill_every_child():
        while not over.wait(0.02):
            for child in multiprocessing.active_children():
                child.kill()

    killer = threading.Thread(target=kill_every_child)
    killer.start()
    try:
        report = done([SMALL], tmp_path, LocalProcesses(1))
    finally:
        over.set()
        killer.join()
    reason = "its process ended 2 times, last with exit code -9 (killed: for want of memory?)"
    assert report.missing == {SMALL.name: reason} and report.failed == {}
    assert list(tmp_path.iterdir()) == []
    assert done([SMALL], tmp_path).done == 1
