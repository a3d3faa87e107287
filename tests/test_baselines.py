"""What `poolnb bench` compares with computes the same as the operators."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from poolnb import baselines, bench, native, published
from poolnb import functional as F

_FORMS = [(f, n) for f, pools in (("plain", baselines.PLAIN), ("stable", baselines.STABLE)) for n in pools]


_SHAPES = {1: (2, 3, 11), 2: (2, 3, 6, 8), 3: (2, 3, 4, 5, 6)}


@pytest.mark.parametrize(("form", "name"), _FORMS)
@pytest.mark.parametrize("work", bench.WORK)
def test_what_a_user_would_write_is_the_operator(form: str, name: str, work: str) -> None:
    dims = len(bench.WORK[work].shape) - 2
    setting = bench.Setting(_SHAPES[dims], work, "float64", "nchw", "cpu")
    x = setting.input()
    windows = bench.WORK[work].windows(x)
    params: dict[str, Any] = bench._params(name, setting, ())
    pool = {"plain": baselines.PLAIN, "stable": baselines.STABLE}[form][name]
    function = getattr(F, f"{'soft' if name == 'auto' else name}_pool{dims}d")
    expected = function(x, *windows.geometry, **params, mask=windows.mask)
    torch.testing.assert_close(pool(x, windows, *params.values()), expected)


def test_softpool_s_extension_is_named_or_said_to_be_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for value, why in ((None, "does not name"), (str(tmp_path), "no sources in")):
        monkeypatch.setenv(published.VARIABLE, value) if value else monkeypatch.delenv(published.VARIABLE, False)
        published.soft_pool.cache_clear()
        found = published.soft_pool()
        assert isinstance(found, str) and why in found


def test_a_record_keeps_the_rows_and_the_day_of_what_is_not_measured_again(tmp_path: Path) -> None:
    words = ["--shape", "1", "2", "8", "8", "--windows", "k2s2", "--layouts", "nchw", "--kernels", "pytorch"]
    words += ["--seconds", "0.01", "--results", str(tmp_path)]
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
        rows = bench.measure(setting, ["soft", "lp"], ["pytorch", "plain eager", "stable eager"], 0)
        assert {(r.operator, r.kernel) for r in rows} >= {
            ("soft", "stable eager"),
            ("lp", "pytorch"),
            ("copy_", "aten"),
        }


def test_what_a_kernel_takes_in_the_cache_is_measured_of_part_of_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_cache_bytes", lambda: 5 * 3 * 2 * 8 * 8 * 4)  # three of the eight images
    seen, tasks = [], bench._tasks

    def noted(setting: bench.Setting, *rest: Any) -> Any:
        seen.append(setting.shape)
        return tasks(setting, *rest)

    monkeypatch.setattr(bench, "_tasks", noted)
    setting = bench.Setting((8, 2, 8, 8), "k2s2", "float32", "nchw", "cpu")
    rows = {(r.operator, r.direction): r for r in bench.measure(setting, ["soft"], ["compiled"], 0)}
    assert seen == [(8, 2, 8, 8), (1, 1, 2, 2), (3, 2, 8, 8)]
    assert rows["copy_", "forward"].in_cache is None
    if native.operators():
        assert all(rows["soft", way].in_cache is not None for way in ("forward", "backward"))
    small = bench.Setting((3, 2, 8, 8), "k2s2", "float32", "nchw", "cpu")
    assert all(r.in_cache is None for r in bench.measure(small, ["soft"], ["compiled"], 0))


def test_no_graph_is_kept_between_calls() -> None:
    setting = bench.Setting((2, 2, 8, 8), "k2s2", "float32", "nchw", "cpu")
    backward = bench._tasks(setting, ["soft"], ["pytorch"])["soft", "pytorch", "backward"]
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
