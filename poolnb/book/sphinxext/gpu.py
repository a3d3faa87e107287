"""A Sphinx extension for the page on GPUs.

`gpu-record` says what a run of `tests/gpu/check.sh` found; `gpu-prediction`, what is to be expected of every kernel on
an H100, beside the measurement where there is one.

Both read records when the site is built: of runs on a GPU from book/results/gpu, of the kernels from
book/results/native. Without the first they say that nothing has been run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from poolnb.lab.provenance import RESULTS, source_hash

RUNS, NATIVE = RESULTS / "gpu", RESULTS / "native"
NOT_RUN = (
    "**None of this has been run on a GPU yet**: there is no record of a run in `book/results/gpu`. "
    "`tests/gpu/check.sh OUT` makes one in nine minutes on a machine that has a GPU, and "
    "`python tests/gpu/record.py OUT book/results/gpu` keeps it."
)
Row = dict[str, Any]


class Chip(NamedTuple):
    """What a chip's maker says that it can do."""

    bandwidth: float  # bytes per second
    multiprocessors: int
    special: int  # special functions per clock and multiprocessor
    clock: float  # Hz

    @property
    def special_rate(self) -> float:
        return self.multiprocessors * self.special * self.clock


# 67e12 float32 operations per second are 2 for each of 128 lanes, 132 multiprocessors and every clock: 1.98 GHz.
H100 = Chip(bandwidth=3.35e12, multiprocessors=132, special=16, clock=67e12 / (2 * 128 * 132))

WINDOWS = {"k2s2": 2, "k3s2p1": 2, "k3s1p1": 1}  # and their stride
# The kernels of a direction.
KINDS = {"forward": ("forward",), "backward": ("non_overlapping", "window", "gather", "table")}
SPECIAL = ("exp", "root", "division")  # one special-function instruction each; a logarithm has none
TARGETS = {
    ("k2s2", "forward", "channels_last"): 0.85,
    ("k2s2", "backward", "channels_last"): 0.85,
    ("k3s2p1", "forward", "channels_last"): 0.75,
    ("k3s2p1", "forward", "nchw"): 0.75,
    ("k3s1p1", "backward", "channels_last"): 0.65,
    ("k3s1p1", "backward", "nchw"): 0.65,
    ("k3s2p1", "backward", "channels_last"): 0.65,
    ("k3s2p1", "backward", "nchw"): 0.65,
}


class Expected(NamedTuple):
    """Per window: the least bytes, special-function instructions, and the share of bandwidth that they leave."""

    bytes: float
    special: float
    share: float


# ---- prediction ------------------------------------------------------------------------------------------------------


def expected(rows: list[Row], windows: str, direction: str, size: int, chip: Chip = H100) -> Expected:
    """From the counts of the kernels of one operator, windows and direction; ``size`` bytes a number."""
    stride = WINDOWS[windows]
    inputs = 2 if rows[0]["operator"] == "weighted" else 1
    positions = stride * stride  # of the input, per window
    tensors = inputs * positions if direction == "forward" else 2 * inputs * positions
    least = size * (tensors + 1)
    special = sum(row[name] for row in rows for name in SPECIAL)
    by_bytes, by_special = least / chip.bandwidth, special / chip.special_rate
    return Expected(least, special, by_bytes / max(by_bytes, by_special))


def predictions() -> Iterator[tuple[tuple[str, str, str], Expected, Expected, list[Row]]]:
    """For every operator, windows and direction: what is expected of float32 and of half types, and the counts."""
    counts = json.loads((NATIVE / "kernel-counts.json").read_text())
    for operator in dict.fromkeys(row["operator"] for row in counts):
        for windows in WINDOWS:
            for direction, kernels in KINDS.items():
                rows = [
                    r for r in counts if (r["operator"], r["windows"]) == (operator, windows) and r["kernel"] in kernels
                ]
                wide, half = (expected(rows, windows, direction, size) for size in (4, 2))
                yield (operator, windows, direction), wide, half, rows


def prediction_lines(record: Row | None) -> list[str]:
    registers = {
        row["kernel"]: row["registers"]
        for row in json.loads((NATIVE / "cuda-kernels.json").read_text())["kernels"]
        if row["architecture"] == "sm_90"
    }
    head = [
        "Operator",
        "Windows",
        "Direction",
        "Bytes",
        "Special",
        "Share, float32",
        "Share, half",
        "Registers",
    ]
    if record is not None:
        head += ["Measured, float32", "Measured, float16"]
    lines = [_cells(head), "|---|---|---|" + "--:|" * (len(head) - 3)]
    for (operator, windows, direction), wide, half, rows in predictions():
        used = ", ".join(str(registers[_compiled_name(operator, row["kernel"], windows)]) for row in rows)
        cells = [operator, windows, direction, f"{wide.bytes:.0f}", f"{wide.special:.0f}"]
        cells += [f"{wide.share:.2f}", f"{half.share:.2f}", used]
        if record is not None:
            cells += [measured(record, operator, windows, direction, dtype) for dtype in ("float32", "float16")]
        lines.append(_cells(cells))
    return lines


def _compiled_name(operator: str, kernel: str, windows: str) -> str:
    """The kernel in the compiler's report: those that run over windows hold their taps, and are made for each size."""
    size = windows[1]
    return f"{operator} {kernel} float" + ("" if kernel in ("gather", "table") else f" {size}x{size}")


def measured(record: Row, operator: str, windows: str, direction: str, dtype: str) -> str:
    """The share of copy bandwidth that was reached with channels last and with channels first."""
    wanted = {"operator": operator, "kernel": "compiled", "windows": windows, "direction": direction, "dtype": dtype}
    found = {r["layout"]: r["share_of_copy"] for r in record["bench"] if wanted.items() <= r.items()}
    shares = [f"{found[layout]:.2f}" if layout in found else "–" for layout in ("channels_last", "nchw")]
    return " ".join(shares)


# ---- record ----------------------------------------------------------------------------------------------------------


def runs() -> list[Row]:
    """The records of all runs, the newest first; those of one day are lettered in their order."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RUNS.glob("*.json"))]
    return sorted(reversed(found), key=lambda run: str(run["date"]), reverse=True)


def run_lines(records: list[Row]) -> list[str]:
    numbered = zip(range(len(records), 0, -1), records, strict=True)
    return [line for number, record in numbered for line in (*record_lines(record, number), "")] or [NOT_RUN]


def record_lines(record: Row, number: int = 1) -> list[str]:
    machine = record["machine"]
    what = f"{_text(record['date'])}, on one {_text(machine['device'])}, torch {_text(machine['torch'])}."
    lines = [f"**Run {number}**, {what}", ""]
    if record["sources"] != source_hash():
        lines += ["The sources have changed since: all that follows is of those of that day.", ""]
    lines += ["| Step | Outcome | Seconds | At most |", "|---|---|--:|--:|"]
    for step in record["steps"]:
        outcome = {0: "passed", 124: "stopped", 137: "stopped"}.get(step["status"], "failed")
        lines.append(_cells([_text(step["step"]), outcome, step["seconds"], step["cap"]]))
    outcomes = ", ".join(f"{n} {_text(what)}" for what, n in record["tests"]["outcomes"].items())
    tools = ", ".join(f"{_text(t['tool'])} {'clean' if t['status'] == 0 else 'not clean'}" for t in record["sanitizer"])
    lines += ["", f"Tests: {outcomes or 'none'}. Sanitizer: {tools or 'not run'}."]
    lines += ["", *target_lines(record), "", *rival_lines(record), "", *training_lines(record)]
    return lines


def target_lines(record: Row) -> Iterator[str]:
    """Each target, and the share of copy bandwidth of the operators that miss it."""
    yield "| Target | Windows | Direction | Layout | Met by | Missed by |"
    yield "|--:|---|---|---|---|---|"
    for (windows, direction, layout), target in TARGETS.items():
        wanted = {"kernel": "compiled", "windows": windows, "direction": direction, "layout": layout}
        rows = [r for r in record["bench"] if wanted.items() <= r.items() and r["dtype"] == "float32"]
        met = [r["operator"] for r in rows if r["share_of_copy"] >= target]
        missed = [f"{r['operator']} ({r['share_of_copy']:.2f})" for r in rows if r["share_of_copy"] < target]
        if rows:
            yield _cells([target, windows, direction, layout, ", ".join(met) or "–", ", ".join(missed) or "–"])


def rival_lines(record: Row) -> Iterator[str]:
    """What else computes the same, as a multiple of the time of our kernel."""
    key = ("operator", "direction", "windows", "dtype", "layout", "shape")
    ours = {_key(r, key): r["ms"] for r in record["bench"] if r["kernel"] == "compiled"}
    rivals = [r for r in record["bench"] if r["kernel"] in ("plain", "stable", "published") and _key(r, key) in ours]
    if rivals:
        yield "| Operator | Other code | Windows | Direction | Type | Layout | Times our time |"
        yield "|---|---|---|---|---|---|--:|"
    for r in rivals:
        ratio = f"{r['ms'] / ours[_key(r, key)]:.2f}"
        yield _cells([r["operator"], r["kernel"], r["windows"], r["direction"], r["dtype"], r["layout"], ratio])


def _key(row: Row, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in names)


def training_lines(record: Row) -> Iterator[str]:
    if record["training"]:
        yield "| Pooler | Runs at once | CUDA graph | Seconds per run | Runs per hour |"
        yield "|---|--:|---|--:|--:|"
    for t in record["training"]:
        graph, seconds = "yes" if t["graph"] else "no", t["seconds_per_run"]
        yield _cells([t["pooler"], t["at_once"], graph, f"{seconds:.0f}", f"{3600 * t['at_once'] / seconds:.0f}"])
    if record["study"]:
        done = sum(run["status"] == "done" for run in record["study"])
        yield ""
        yield f"Runs of the comparison study that were done in the time left: {done}."


# ---- pages -----------------------------------------------------------------------------------------------------------


def _cells(cells: list[Any]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _text(value: Any) -> str:
    """What a record says, as text in a cell of a table: nothing in it is markup."""
    return re.sub(r"[!-/:-@\[-`{-~]", r"\\\g<0>", " ".join(str(value).split()))


class _Table(SphinxDirective):
    def lines(self, records: list[Row]) -> list[str]:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        for path in (*sorted(RUNS.glob("*.json")), *sorted(NATIVE.glob("*.json"))):
            self.env.note_dependency(str(path))
        container = nodes.container()
        self.state.nested_parse(StringList(self.lines(runs()), "records"), 0, container)
        return list(container.children)


class GpuRecord(_Table):
    """What every run on a GPU found."""

    def lines(self, records: list[Row]) -> list[str]:
        return run_lines(records)


class GpuPrediction(_Table):
    """What is expected of every kernel."""

    def lines(self, records: list[Row]) -> list[str]:
        return prediction_lines(records[0] if records else None)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("gpu-record", GpuRecord)
    app.add_directive("gpu-prediction", GpuPrediction)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
