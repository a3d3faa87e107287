"""check.sh without a GPU: its dry run does every step; one that fails or hangs costs its own time and no more."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from poolnb import bench

CHECK = Path(__file__).with_name("check.sh")
STEPS = ["build", "tests", "sanitizer", "bench", "rivals", "training", "study", "record"]
# A GPU is often in a machine that has PyTorch and no notebooks.
ABSENT = ("nbval", "papermill", "dask", "distributed", "IPython", "ipykernel", "jupyter_book", "nbformat", "sklearn")

pytestmark = pytest.mark.skipif(shutil.which("timeout") is None, reason="timeout is not on PATH")


def check(out: Path, python: str | Path = sys.executable, **environment: str) -> tuple[int, list[dict[str, Any]], str]:
    """The exit status of a dry run, what it says of its steps, and its log."""
    command = ["bash", str(CHECK), "--dry-run", str(out)]
    done = subprocess.run(command, env={**os.environ, "PYTHON": str(python), **environment}, timeout=1200)
    steps = [json.loads(line) for line in (out / "steps.jsonl").read_text().splitlines()]
    return done.returncode, steps, (out / "log.txt").read_text()


def python_that(says: str, path: Path) -> Path:
    path.write_text(f"#!/usr/bin/env bash\n{says}\n")
    path.chmod(0o755)
    return path


def test_the_dry_run_does_every_step(tmp_path: Path) -> None:
    names = ", ".join(map(repr, ABSENT))
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nfor name in ({names}): sys.modules[name] = None\n")
    status, steps, log = check(tmp_path / "out", PYTHONPATH=str(tmp_path))
    assert [s["step"] for s in steps] == STEPS
    assert status == 0 and all(s["status"] == 0 for s in steps), log[-5000:]
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    assert record["machine"]["dry_run"]
    assert set(record["tests"]["outcomes"]) <= {"passed", "skipped"} and record["tests"]["outcomes"]["passed"] > 5
    assert [line["status"] for line in record["sanitizer"]] == [0, 0, 0]
    assert {row["kernel"] for row in record["bench"]} >= {"aten", "pytorch", "plain"}
    assert {(t["pooler"], t["at_once"]) for t in record["training"]} == {
        (p, n) for p in ("max", "soft", "tdgs") for n in (1, 2)
    }
    # For the GPU's machine: few files, none in a folder.
    assert all(p.is_file() for p in (tmp_path / "out").iterdir()) and len(list((tmp_path / "out").iterdir())) <= 8


def _kept(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(CHECK.with_name("record.py")), str(folder), *more]
    return subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(CHECK.parents[2])}, capture_output=True, text=True
    )


def _record(folder: Path, dry_run: bool) -> None:
    machine = {"dry_run": dry_run, "device": "NVIDIA H100"}
    made = {"date": "2026-11-27", "machine": machine, "steps": [], "tests": {"outcomes": {}}}
    (folder / "record.json").write_text(json.dumps(made | {"bench": [], "training": []}))


def test_a_dry_run_is_no_record(tmp_path: Path) -> None:
    _record(tmp_path, dry_run=True)
    done = _kept(tmp_path, str(tmp_path / "kept"))
    assert done.returncode == 1 and "no record" in done.stderr and not (tmp_path / "kept").exists()


def test_runs_of_one_day_are_all_kept(tmp_path: Path) -> None:
    _record(tmp_path, dry_run=False)
    for _ in range(2):
        assert _kept(tmp_path, str(tmp_path / "kept")).returncode == 0
    names = ["nvidia-h100-2026-11-27-a.json", "nvidia-h100-2026-11-27-b.json"]
    assert sorted(p.name for p in (tmp_path / "kept").iterdir()) == names


def test_a_record_names_files_without_the_folders_of_a_machine(tmp_path: Path) -> None:
    why = 'File "/opt/some.where/site-packages/torch/module.py:17", a ratio of 1/2, tests/test_forward.py:9'
    (tmp_path / "tests.jsonl").write_text(json.dumps({"test": "t", "outcome": "failed", "seconds": 1, "why": why}))
    assert _kept(tmp_path).returncode == 0
    (failure,) = json.loads((tmp_path / "record.json").read_text())["tests"]["failures"]
    assert failure["why"] == 'File "module.py:17", a ratio of 1/2, tests/test_forward.py:9'


def test_a_step_that_hangs_is_stopped_and_the_others_go_on(tmp_path: Path) -> None:
    """Even one that does not listen: a second for each, and five more until it is ended."""
    hanging = python_that('trap "" TERM\nwhile :; do sleep 1; done', tmp_path / "hanging")
    began = time.monotonic()
    status, steps, _ = check(tmp_path / "out", hanging, CAP="1")
    assert status == 1
    assert [s["step"] for s in steps] == STEPS and all(s["status"] in (124, 137) for s in steps)
    assert time.monotonic() - began < len(STEPS) * 12


def test_a_step_that_fails_stops_no_other(tmp_path: Path) -> None:
    failing = python_that('case "$*" in *sanitize*) exit 3;; esac', tmp_path / "failing")
    status, steps, _ = check(tmp_path / "out", failing)
    assert status == 1
    assert {s["step"]: s["status"] for s in steps} == dict.fromkeys(STEPS, 0) | {"sanitizer": 3}


def test_the_commands_of_a_real_run_are_accepted(tmp_path: Path) -> None:
    """Those of the benchmark, which are not the dry run's; and every program is there."""
    told = tmp_path / "told"
    telling = python_that(f'[ "$1" = -c ] && echo 9.0 || echo "$*" >>{told}', tmp_path / "telling")
    subprocess.run(["bash", str(CHECK), str(tmp_path / "out")], env={**os.environ, "PYTHON": str(telling)}, check=True)
    commands = [line.split() for line in told.read_text().splitlines()]
    assert len(commands) == len(STEPS)
    for words in commands:
        if words[:3] == ["-m", "poolnb", "bench"]:
            assert bench._parser().parse_args(words[3:]).device == "cuda"
        elif words[0] != "-m":
            assert (CHECK.parents[2] / words[0]).is_file()
    assert (CHECK.parents[2] / "book/experiments/sweeps/comparison.toml").is_file()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "--device", "cuda", "-p", "no:cacheprovider", "tests/test_forward.py"]
    done = subprocess.run(command, cwd=CHECK.parents[2], capture_output=True, text=True)
    assert done.returncode != 0 and done.stdout.strip() == ""
    assert done.stderr.strip() == "ERROR: --device is cuda, but torch sees 0 CUDA devices"


def test_the_caps_add_up_to_nine_minutes() -> None:
    text = CHECK.read_text()
    caps = _caps(text[text.index("  else\n") : text.index("  fi\n")])
    assert len(caps) == len(STEPS) - 1 and sum(caps) <= 540


def _caps(text: str) -> list[int]:
    words = [line.split() for line in text.splitlines()]
    found = [w[1:] for w in words if w and w[0] in ("step", "pytest", "study")]
    return [int(next(x for x in w if x.isdigit())) for w in found]
