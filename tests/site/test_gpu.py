"""The page on GPUs: what it says without a record and with one, and what it predicts."""

from __future__ import annotations

import json

import pytest

from poolnb import native
from poolnb.book.sphinxext import gpu
from poolnb.lab.provenance import source_hash

COUNTS = {"exp": 4.0, "log": 9.0, "root": 0.0, "division": 1.0, "reads": 8.0, "noise": 0.0, "left": 28}


def row(kernel: str, **measured: object) -> dict:
    setting = {"operator": "soft", "windows": "k2s2", "direction": "forward", "dtype": "float32", "shape": [1, 2, 3, 4]}
    return setting | {"kernel": kernel, "layout": "channels_last"} | measured


def record() -> dict:
    return {
        "date": "2026-11-27",
        "sources": source_hash(),
        "machine": {"device": "NVIDIA | H100", "torch": "2.11.0"},
        "steps": [{"step": n, "status": s, "seconds": 9, "cap": 60} for n, s in (("build", 0), ("tests", 124))],
        "tests": {"outcomes": {"passed": 7, "failed": 1}, "failures": []},
        "sanitizer": [{"tool": "memcheck", "status": 0}, {"tool": "racecheck", "status": 9}],
        "bench": [row("compiled", ms=2.0, share_of_copy=0.8), row("published", ms=5.0, share_of_copy=0.3)],
        "training": [{"pooler": "max", "graph": True, "at_once": 4, "seconds_per_run": 90.0}],
        "study": [{"status": "done"}, {"status": "failed"}],
    }


def test_without_a_record_the_page_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(gpu, "RUNS", tmp_path)
    assert gpu.runs() == []
    assert gpu.run_lines([]) == [gpu.NOT_RUN]
    assert "Measured" not in gpu.prediction_lines(None)[0]


def test_all_runs_are_shown_the_newest_first(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    for number, name in enumerate(("x-2026-11-27-a", "x-2026-11-27-b", "y-2026-11-20-a")):
        made = record() | {"date": name[2:12], "study": [{"status": "done"}] * (number + 1)}
        (tmp_path / f"{name}.json").write_text(json.dumps(made))
    monkeypatch.setattr(gpu, "RUNS", tmp_path)
    assert [len(run["study"]) for run in gpu.runs()] == [2, 1, 3]
    assert sum("torch 2" in line for line in gpu.run_lines(gpu.runs())) == 3


def test_a_record_is_read_with_its_failures() -> None:
    text = "\n".join(gpu.record_lines(record()))
    assert r"one NVIDIA \| H100, torch" in text
    assert "| build | passed | 9 | 60 |" in text and "| tests | stopped | 9 | 60 |" in text
    assert "7 passed, 1 failed" in text and "memcheck clean, racecheck not clean" in text
    assert "| 0.85 | k2s2 | forward | channels_last | – | soft (0.80) |" in text
    assert "| soft | published | k2s2 | forward | float32 | channels_last | 2.50 |" in text
    assert "| max | 4 | yes | 90 | 160 |" in text and "in the time left: 1." in text


def test_a_record_of_other_sources_says_so() -> None:
    said = "sources have changed since"
    assert said in "\n".join(gpu.record_lines(record() | {"sources": "others"}))
    assert said not in "\n".join(gpu.record_lines(record()))


def test_a_measurement_stands_beside_its_prediction() -> None:
    lines = [line for line in gpu.prediction_lines(record()) if line.startswith("| soft | k2s2 | forward |")]
    assert len(lines) == 1 and lines[0].endswith("| 0.80 – | – – |")


def test_a_prediction_is_the_slower_of_memory_and_special_functions() -> None:
    chip = gpu.Chip(bandwidth=100.0, multiprocessors=1, special=1, clock=10.0)
    found = gpu.expected([COUNTS | {"operator": "soft", "kernel": "forward"}], "k2s2", "forward", 4, chip)
    assert (found.bytes, found.special) == (4 * (4 + 1), 5)
    assert found.share == pytest.approx((20 / 100) / (5 / 10))
    fast = chip._replace(clock=1e9)
    assert gpu.expected([COUNTS | {"operator": "soft", "kernel": "forward"}], "k2s2", "forward", 4, fast).share == 1
    weighted = [COUNTS | {"operator": "weighted", "kernel": "non_overlapping"}]
    assert gpu.expected(weighted, "k2s2", "backward", 2, chip).bytes == 2 * (16 + 1)


def test_every_kernel_has_a_prediction_and_its_registers() -> None:
    lines = gpu.prediction_lines(None)[2:]
    assert len(lines) == len(native.operator_types()) * len(gpu.WINDOWS) * len(gpu.KINDS)
    assert gpu.H100.clock == pytest.approx(1.98e9, rel=0.01)
