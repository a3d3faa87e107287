"""`poolnb bench`: what it measures, and what it keeps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from poolnb import bench, native
from poolnb.bench import rows, tasks, timing

_SHAPES = {1: (2, 3, 11), 2: (2, 3, 6, 8), 3: (2, 3, 4, 5, 6)}
_WORDS = ["--shape", "1", "2", "8", "8", "--windows", "k2s2", "--layouts", "nchw", "--kernels", "pytorch"]
_WORDS += ["--seconds", "0.01"]


def test_a_record_keeps_the_rows_and_the_day_of_what_is_not_measured_again(tmp_path: Path) -> None:
    words = [*_WORDS, "--results", str(tmp_path)]
    assert bench.main([*words, "--operators", "soft", "gem"]) == 0
    (path,) = tmp_path.iterdir()
    kept = json.loads(path.read_text())
    kept["machine"]["date"] = "2020-01-01"
    for row in kept["rows"]:
        del row["date"]
    path.write_text(json.dumps(kept))
    assert bench.main([*words, "--operators", "soft"]) == 0
    found = json.loads(path.read_text())
    dates = {name: {r["date"] for r in found["rows"] if r["operator"] == name} for name in ("soft", "gem")}
    assert dates == {"soft": {found["machine"]["date"]}, "gem": {"2020-01-01"}}


def test_a_shape_has_the_dimensions_of_its_windows(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--shape", "1", "2", "8", "8", "--windows", "k2s2", "masked"]) == 2
    assert "--shape must be 3 numbers for windows masked" in capsys.readouterr().err


@pytest.mark.parametrize("work", bench.WORK)
def test_every_kind_of_windows_is_measured(work: str) -> None:
    shape = _SHAPES[len(bench.WORK[work].shape) - 2]
    for layout in bench.LAYOUTS if len(shape) > 3 else ["nchw"]:
        setting = bench.Setting(shape, work, "float32", layout, "cpu")
        found = bench.measure(setting, ["soft", "lp"], ["pytorch", "plain eager", "stable eager"], 0)
        assert {(r.operator, r.kernel) for r in found} >= {
            ("soft", "stable eager"),
            ("lp", "pytorch"),
            ("copy_", "aten"),
        }


def test_what_a_kernel_takes_in_the_cache_is_measured_of_part_of_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_cache_bytes", lambda: 5 * 3 * 2 * 8 * 8 * 4)  # three of the eight images
    seen = []

    def noted(setting: bench.Setting, *rest: Any) -> Any:
        seen.append(setting.shape)
        return tasks.all_tasks(setting, *rest)

    for module in (rows, timing):
        monkeypatch.setattr(module, "all_tasks", noted)
    setting = bench.Setting((8, 2, 8, 8), "k2s2", "float32", "nchw", "cpu")
    found = {(r.operator, r.direction): r for r in bench.measure(setting, ["soft"], ["compiled"], 0)}
    assert seen == [(8, 2, 8, 8), (1, 1, 2, 2), (3, 2, 8, 8)]
    assert found["copy_", "forward"].in_cache is None
    if native.operators():
        assert all(found["soft", way].in_cache is not None for way in ("forward", "backward"))
    small = bench.Setting((3, 2, 8, 8), "k2s2", "float32", "nchw", "cpu")
    assert all(r.in_cache is None for r in bench.measure(small, ["soft"], ["compiled"], 0))


def test_no_graph_is_kept_between_calls() -> None:
    setting = bench.Setting((2, 2, 8, 8), "k2s2", "float32", "nchw", "cpu")
    backward = tasks.all_tasks(setting, ["soft"], ["pytorch"])["soft", "pytorch", "backward"]
    once = backward()
    assert len(once()) == 1
    with pytest.raises(RuntimeError, match="second time"):
        once()
    assert len(backward()()) == 1


def test_a_record_of_another_machine_is_not_added_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"cpu-{torch.get_num_threads()}-threads.json"
    path.write_text(json.dumps({"machine": {"device": "an abacus", "date": "1900-01-01"}, "rows": []}))
    before = path.read_text()
    assert bench.main(["--results", str(tmp_path)]) == 2
    assert "was measured with device an abacus (here" in capsys.readouterr().err and path.read_text() == before


def test_of_several_processes_the_medians_count(tmp_path: Path) -> None:
    """The middle one of three, whatever the other two say."""
    made = [rows.Row("soft", "plain", "forward", "k2s2", "float32", "nchw", (1,), ms, ms, 1.0, 0.5) for ms in (9, 1, 2)]
    made[0] = replace(made[0], in_cache=7.0)
    rival = replace(made[0], kernel="stable")  # compiled in one process alone
    (middle,) = rows.medians([[made[0], rival], [made[1]], [made[2]]])
    assert (middle.ms, middle.copies, middle.in_cache, middle.processes) == (2, 2, 7.0, 3)
    assert bench.main([*_WORDS, "--operators", "soft", "--processes", "2", "--results", str(tmp_path)]) == 0
    (path,) = tmp_path.iterdir()
    found = json.loads(path.read_text())["rows"]
    assert {row["processes"] for row in found} == {2} and len(found) == len(
        {(*row["operator"], row["direction"]) for row in found}
    )


@pytest.mark.parametrize("word", ["0", "-1", "some"])
@pytest.mark.parametrize("option", ["--processes", "--threads", "--shape"])
def test_numbers_that_count_are_at_least_1(option: str, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        bench.main([option, word])
    assert option in capsys.readouterr().err
