"""``poolnb bench``: what the operators cost, beside what users write today, torch's own pooling and a plain copy.

Everything that is compared is timed in turns within one run, so that a change of the machine's speed meets all alike; a
time is the median of the turns. Within a turn the order is drawn, and before every call other memory is read, so that
each finds a CPU's caches and threads as the others do: else an operation's time depends on which one came before, and
that of a copy on how many are compared. Beside a time stands the traffic: the least bytes that the operation has to
read and write, per second, as a share of what ``copy_`` of the input into a ready tensor reaches in the same run. Every
set of windows, dtype and layout is printed, and recorded, as soon as it is measured.

Of a compiled kernel it is also told what it takes where memory does not count: on inputs that stay in the cache, called
again and again. Where that is nearly all of its time, arithmetic is what it waits for.

On a GPU the times are those of CUDA events, without what Python takes to launch the kernels.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import json
import math
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from poolnb import baselines, functional, native, published
from poolnb._machine import processor_name
from poolnb.ops.examples import example_params
from poolnb.ops.registration import OPS

Run = Callable[[], Any]
Task = Callable[[], Run]  # makes ready what is timed, and gives it

_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}
LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}  # by a tensor's dimensions


class Work(NamedTuple):
    """Windows, and the input that they are measured on if no other is given."""

    shape: tuple[int, ...]
    kernel: int | None = None
    stride: int = 1
    padding: int = 0
    masked: bool = False

    def windows(self, x: Tensor) -> baselines.Windows:
        """On an input; a mask counts the first positions, of every sequence another number."""
        if not self.masked:
            return baselines.Windows(self.kernel, self.stride, self.padding)
        lengths = torch.linspace(0.25, 1, x.size(0)).mul(x.size(2)).long().view(-1, 1, 1)
        return baselines.Windows(mask=(torch.arange(x.size(2)) < lengths).to(x.device))


_EARLY = (32, 64, 56, 56)  # a layer of a usual network: 64 channels early, 2048 at its end
WORK = {
    "k2s2": Work(_EARLY, 2, 2, 0),
    "k3s2p1": Work(_EARLY, 3, 2, 1),
    "k3s1p1": Work(_EARLY, 3, 1, 1),
    "k7s1p3": Work(_EARLY, 7, 1, 3),
    "global": Work((32, 2048, 7, 7)),
    "masked": Work((32, 128, 2000), masked=True),
    "3d-k2s2": Work((8, 64, 16, 28, 28), 2, 2, 0),
}
_ATEN: dict[str, Callable[..., Tensor]] = {"aten max": baselines.maximum, "aten avg": baselines.mean}
_FORMS = {"plain": baselines.PLAIN, "stable": baselines.STABLE}
_EAGER = " eager"
_RIVALS = tuple(form + way for form in _FORMS for way in ("", _EAGER))  # "": through torch.compile
_KERNELS = ("compiled", "pytorch", *_RIVALS)
_CACHES = 256 << 20  # bytes well past the caches of a GPU
_CACHE = 32 << 20  # bytes of a CPU's largest cache, where the system does not say
_REPEATS = 25  # of a call whose data stay in the cache
_AHEAD = 2_000_000  # clock cycles that a GPU waits, while Python launches what will be timed


@dataclass(frozen=True)
class Setting:
    """One input and one set of windows."""

    shape: tuple[int, ...]
    windows: str
    dtype: str
    layout: str
    device: str

    @property
    def dims(self) -> int:
        return len(self.shape) - 2

    def input(self) -> Tensor:
        generator = torch.Generator(self.device).manual_seed(0)
        x = torch.randn(self.shape, generator=generator, device=self.device).to(_DTYPES[self.dtype])
        return x if self.layout == "nchw" else x.contiguous(memory_format=_CHANNELS_LAST[x.dim()])


@dataclass(frozen=True)
class Row:
    """One measured operation; times in milliseconds, traffic in GB/s.

    `in_cache`: the time of so much work on data that stay in the cache; None where it was not measured.
    """

    operator: str
    kernel: str
    direction: str
    windows: str
    dtype: str
    layout: str
    shape: tuple[int, ...]
    ms: float
    copies: float  # as a multiple of copy_
    traffic: float
    share_of_copy: float
    in_cache: float | None = None


def _params(name: str, setting: Setting, output: Sequence[int]) -> dict[str, Any]:
    """Every parameter learned; those of soft and lp have one value, and auto is soft with a learned one."""
    if name in ("soft", "lp"):
        return {}
    x, kernel = setting.input(), WORK[setting.windows].kernel
    taps = math.prod(x.shape[2:]) if kernel is None else kernel**setting.dims
    params = example_params(_base(name), x, output, usual=True, taps=taps)
    return {key: value.requires_grad_() if isinstance(value, Tensor) else value for key, value in params.items()}


def _base(name: str) -> str:
    return "soft" if name == "auto" else name


OPERATORS = (*native.operator_types(), "auto", *native.OF_PARTS)


# ---- what is timed ---------------------------------------------------------------------------------------------------


def _tasks(setting: Setting, operators: Sequence[str], kernels: Sequence[str]) -> dict[tuple[str, str, str], Task]:
    """(operator, kernel, direction) -> what does it once."""
    x = setting.input()
    ready = torch.empty_like(x)
    windows = WORK[setting.windows].windows(x)
    tasks: dict[tuple[str, str, str], Task] = {("copy_", "aten", "forward"): lambda: lambda: ready.copy_(x)}
    x.requires_grad_()
    for name, pool in _ATEN.items():
        _add(tasks, name, "aten", partial(pool, x, windows), [x])
    output = baselines.maximum(x.detach(), windows).shape[2:]
    for name in operators:
        pool = getattr(functional, f"{_base(name)}_pool{setting.dims}d")
        params = _params(name, setting, output)
        leaves = [x, *(t for t in params.values() if isinstance(t, Tensor))]
        forward = partial(pool, x, *windows.geometry, **params, mask=windows.mask)
        if "pytorch" in kernels:
            _add(tasks, name, "pytorch", _with(native.disabled, forward), leaves)
        if "compiled" in kernels and _base(name) in native.operators(x.device.type):
            _add(tasks, name, "compiled", forward, leaves)
        for form, pools in _FORMS.items():
            if name not in pools:
                continue
            if form in kernels:
                _add_compiled(tasks, name, form, pools[name], x, windows, leaves[1:])
            if form + _EAGER in kernels:
                _add(tasks, name, form + _EAGER, partial(pools[name], x, windows, *leaves[1:]), leaves)
    if "published" in kernels and "soft" in operators:
        _add_published(tasks, x, windows)
    return tasks


def _add_compiled(
    tasks: dict[Any, Task],
    name: str,
    kernel: str,
    pool: baselines.Pool,
    x: Tensor,
    windows: baselines.Windows,
    params: list[Tensor],
) -> None:
    """A user's code through ``torch.compile``, gradient and all."""
    torch._dynamo.config.recompile_limit = 1000  # one function for every layout and dtype
    compiled = torch.compile(pool, dynamic=False)
    try:
        _add(tasks, name, kernel, lambda: compiled(x, windows, *params), [x, *params])
        for direction in ("forward", "backward"):
            tasks[name, kernel, direction]()()
    except Exception as error:  # whatever the compiler of torch runs into is its own affair: no row, one line
        print(f"torch.compile of {name}, {kernel}: {type(error).__name__}", file=sys.stderr)
        for direction in ("forward", "backward"):
            tasks.pop((name, kernel, direction), None)


def _add_published(tasks: dict[Any, Task], x: Tensor, windows: baselines.Windows) -> None:
    pool = published.soft_pool()
    if isinstance(pool, str):
        print(f"SoftPool's extension: {pool}", file=sys.stderr)
    elif windows.kernel is not None and windows.padding == 0 and x.dim() == 4 and x.is_contiguous():
        # It knows no padding, and only this layout.
        _add(tasks, "soft", "published", partial(pool, x, windows.kernel, windows.stride), [x])


def _with(context: Callable[[], Any], call: Run) -> Run:
    def run() -> Any:
        with context():
            return call()

    return run


def _add(tasks: dict[Any, Task], name: str, kernel: str, forward: Run, leaves: Sequence[Tensor]) -> None:
    """Forward without a graph, and backward through a new one: graphs that are kept would fill the memory."""
    y = forward().detach()
    grad = torch.randn(y.shape, dtype=y.dtype, device=y.device).contiguous(memory_format=_format_of(y))
    without_graph = _with(torch.no_grad, forward)

    def backward() -> Run:
        y = forward()
        run = lambda: torch.autograd.grad(y, leaves, grad)  # noqa: E731
        return _with(native.disabled, run) if kernel == "pytorch" else run

    tasks[name, kernel, "forward"] = lambda: without_graph
    tasks[name, kernel, "backward"] = backward


def _format_of(y: Tensor) -> torch.memory_format:
    return torch.contiguous_format if y.is_contiguous() else _CHANNELS_LAST[y.dim()]


# ---- timing ----------------------------------------------------------------------------------------------------------


def _turns(tasks: dict[tuple[str, str, str], Task], device: str, seconds: float) -> dict[tuple[str, str, str], float]:
    """The median of every task, in milliseconds, over as many turns as fit into the time, at least 5."""
    timed = _on_gpu if device == "cuda" else _on_cpu
    times: dict[tuple[str, str, str], list[float]] = {key: [] for key in tasks}
    for task in tasks.values():
        timed(task)
    order, draw = list(tasks), random.Random(0)
    end = time.monotonic() + seconds
    while len(times[order[0]]) < 5 or time.monotonic() < end:
        draw.shuffle(order)
        for key in order:
            times[key].append(timed(tasks[key]))
    return {key: statistics.median(values) for key, values in times.items()}


def _on_cpu(task: Task) -> float:
    run = task()
    _other_memory().sum()
    return _milliseconds(run)


@cache
def _other_memory() -> Tensor:
    """Many times what a cache holds, of which a CPU may have several: after it is read, nothing else is there."""
    return torch.ones(8 * _cache_bytes() // 4)


@cache
def _cache_bytes() -> int:
    """The size of the CPU's largest cache."""
    sizes = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    try:
        return max(int(size.read_text().strip().removesuffix("K")) << 10 for size in sizes)
    except (OSError, ValueError):  # no Linux, or a machine that does not say
        return _CACHE


def _milliseconds(run: Run) -> float:
    began = time.perf_counter()
    result = run()
    took = time.perf_counter() - began
    del result
    return 1e3 * took


def _on_gpu(task: Task) -> float:
    run = task()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda._sleep(_AHEAD)
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end))


def _in_cache(setting: Setting, operators: Sequence[str]) -> dict[tuple[str, str, str], float]:
    """The milliseconds of every compiled kernel for this input, if it lay in the cache.

    They are those of some of its images, less what a call costs on an input of a few numbers.
    """
    image = math.prod(setting.shape[1:]) * _DTYPES[setting.dtype].itemsize
    images = _cache_bytes() // 5 // image  # beside the input lie its gradient, the output and more
    if setting.device != "cpu" or not 0 < images < setting.shape[0]:
        return {}
    extent = WORK[setting.windows].kernel or 2
    few = _repeated(replace(setting, shape=(1, 1, *[extent] * setting.dims)), operators)
    many = _repeated(replace(setting, shape=(images, *setting.shape[1:])), operators)
    return {key: (many[key] - few[key]) / images * setting.shape[0] for key in many}


def _repeated(setting: Setting, operators: Sequence[str]) -> dict[tuple[str, str, str], float]:
    """The median of many calls of one compiled kernel, one after the other."""
    tasks = {key: task for key, task in _tasks(setting, operators, ["compiled"]).items() if key[1] == "compiled"}
    return {key: statistics.median(_milliseconds(task()) for _ in range(_REPEATS)) for key, task in tasks.items()}


def _least_bytes(setting: Setting, name: str, direction: str) -> int:
    """Forward reads the input and writes the output; backward reads both and writes the input's gradient."""
    x = torch.empty(setting.shape, device="meta", dtype=_DTYPES[setting.dtype])
    size = x.nbytes
    if name == "copy_":
        return 2 * size
    out = baselines.maximum(x, replace(WORK[setting.windows].windows(x), mask=None)).nbytes
    second = size if _second_input(name) else 0
    return size + second + out if direction == "forward" else 2 * (size + second) + out


def _second_input(name: str) -> bool:
    """Whether an operator reads a second tensor of the input's size."""
    return name in OPERATORS and any(form.as_input for form in OPS[f"{_base(name)}_pool"].tensors.values())


def measure(setting: Setting, operators: Sequence[str], kernels: Sequence[str], seconds: float) -> list[Row]:
    """Time everything for one input and one set of windows."""
    times = _turns(_tasks(setting, operators, kernels), setting.device, seconds)
    in_cache = _in_cache(setting, operators) if "compiled" in kernels else {}
    copy = times["copy_", "aten", "forward"]
    bandwidth = _least_bytes(setting, "copy_", "forward") / copy
    rows = []
    for (name, kernel, direction), ms in times.items():
        traffic = _least_bytes(setting, name, direction) / ms
        where = (setting.windows, setting.dtype, setting.layout, setting.shape)
        figures = (round(ms, 4), round(ms / copy, 3), round(traffic / 1e6, 2), round(traffic / bandwidth, 3))
        cached = in_cache.get((name, kernel, direction))
        rows.append(Row(name, kernel, direction, *where, *figures, cached and round(cached, 4)))
    return rows


# ---- report ----------------------------------------------------------------------------------------------------------


def _table(setting: Setting, rows: Sequence[Row]) -> Iterator[str]:
    shape = "x".join(map(str, setting.shape))
    yield f"\n{shape} {setting.windows} {setting.dtype} {setting.layout}: multiples of copy_ ({rows[0].ms:.2f} ms)"
    yield f"{'':14}{'kernel':16}{'forward':>10}{'backward':>10}{'share of copy bandwidth':>28}"
    by_task = {(r.operator, r.kernel, r.direction): r for r in rows}
    for (name, kernel, direction), row in by_task.items():
        if direction == "forward" and name != "copy_":
            back = by_task[name, kernel, "backward"]
            share = f"{row.share_of_copy:.2f} {back.share_of_copy:.2f}"
            yield f"{name:14}{kernel:16}{row.copies:10.2f}{back.copies:10.2f}{share:>28}"


def _machine(device: str) -> dict[str, Any]:
    name = torch.cuda.get_device_name() if device == "cuda" else f"{processor_name()}, {os.cpu_count()} cores"
    facts = {
        "device": name,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "native": list(native.operators(device)),
    }
    if hasattr(os, "getloadavg"):
        facts["load"] = round(os.getloadavg()[0], 2)
    return facts


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="poolnb bench", description="Measure the operators.")
    several: list[tuple[str, Sequence[str], Sequence[str]]] = [
        ("operators", OPERATORS, OPERATORS),
        ("kernels", (*_KERNELS, "published"), _KERNELS),
        ("windows", tuple(WORK), tuple(WORK)),
        ("dtypes", tuple(_DTYPES), ("float32",)),
        ("layouts", tuple(LAYOUTS), tuple(LAYOUTS)),
    ]
    for name, known, default in several:
        text = f"any of {' '.join(known)} (default: {' '.join(default) if default != known else 'all'})"
        parser.add_argument(f"--{name}", nargs="+", metavar="NAME", choices=known, default=list(default), help=text)
    parser.add_argument(
        "--shape", nargs="+", type=int, metavar="N", help="input N C H W (default: one for each kind of windows)"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, help="threads (default: torch's)")
    parser.add_argument("--seconds", type=float, default=3.0, help="least time per input and windows (default: 3)")
    parser.add_argument("--results", help="folder for the record, such as book/results/bench (default: none)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """``poolnb bench``; prints one table per input and windows, and keeps a record if asked for."""
    arguments = _parser().parse_args(argv)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("poolnb: error: --device cuda, but torch sees no CUDA device", file=sys.stderr)
        return 2
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    wrong = [w for w in arguments.windows if arguments.shape and len(arguments.shape) != len(WORK[w].shape)]
    if wrong:
        numbers = len(WORK[wrong[0]].shape)
        print(f"poolnb: error: --shape must be {numbers} numbers for windows {wrong[0]}", file=sys.stderr)
        return 2
    if arguments.results and (other := _made_elsewhere(arguments)) is not None:
        print(f"poolnb: error: {other}; choose another folder with --results, or remove it", file=sys.stderr)
        return 2
    if "compiled" in arguments.kernels and not native.operators(arguments.device):
        print(f"without {native.KINDS[arguments.device]}: {native.status()}", file=sys.stderr)
    _keep_freed_memory()
    for setting in _settings(arguments):
        rows = measure(setting, arguments.operators, arguments.kernels, arguments.seconds)
        print("\n".join(_table(setting, rows)), flush=True)
        _keep(arguments, [asdict(row) for row in rows])
    return 0


def _settings(arguments: argparse.Namespace) -> Iterator[Setting]:
    """What is to be measured; a sequence has one layout."""
    for windows in arguments.windows:
        shape = tuple(arguments.shape or _shape(arguments.device, windows))
        for dtype in arguments.dtypes:
            for layout in arguments.layouts:
                if layout == "nchw" or len(shape) in _CHANNELS_LAST:
                    yield Setting(shape, windows, dtype, layout, arguments.device)


def _shape(device: str, windows: str) -> tuple[int, ...]:
    """The usual input; on a GPU so many images that no cache holds it."""
    shape = WORK[windows].shape
    return shape if device == "cpu" else (_CACHES // (4 * math.prod(shape[1:])), *shape[1:])


def _keep_freed_memory() -> None:
    """Tell glibc to keep what is freed, as it does in a training loop after the first steps.

    Else chance decides whether a result lies on pages that have to be made first, which takes longer than a copy.
    """
    trim_threshold, mmap_threshold = -1, -3  # malloc.h
    with suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(mmap_threshold, 32 << 20)  # the most that it takes


def _record_path(arguments: argparse.Namespace) -> Path:
    return Path(arguments.results) / f"{arguments.device}-{torch.get_num_threads()}-threads.json"


def _made_elsewhere(arguments: argparse.Namespace) -> str | None:
    """What tells this machine from that of the record that rows would be added to, in words."""
    path, here = _record_path(arguments), _machine(arguments.device)
    if not path.is_file():
        return None
    there = json.loads(path.read_text())["machine"]
    other = [name for name in ("device", "torch", "python") if there.get(name) != here[name]]
    if not other:
        return None
    return f"{path} was measured with " + ", ".join(f"{n} {there.get(n)} (here {here[n]})" for n in other)


def _keep(arguments: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    if not arguments.results:
        return
    machine, path = _machine(arguments.device), _record_path(arguments)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{**row, "date": machine["date"]} for row in rows]
    if path.is_file():  # settings that were measured before are kept
        new, before = {_key(row) for row in rows}, json.loads(path.read_text())
        dated = [{"date": before["machine"]["date"], **row} for row in before["rows"]]
        rows = [row for row in dated if _key(row) not in new] + rows
    partial = path.with_suffix(".tmp")
    lines = ",\n".join("  " + json.dumps(row) for row in rows)
    partial.write_text(f'{{\n "machine": {json.dumps(machine)},\n "rows": [\n{lines}\n ]\n}}\n')
    os.replace(partial, path)
    print(f"record: {path}", flush=True)


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    names = ("operator", "kernel", "direction", "windows", "dtype", "layout")
    return (*(row[name] for name in names), *row["shape"])
