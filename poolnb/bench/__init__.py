"""``poolnb bench``: what the operators cost, beside what users write today, torch's own pooling and a plain copy.

Everything that is compared is timed in turns within one run, so that a change of the machine's speed meets all alike; a
time is the median of the turns. Within a turn the order is drawn, and before every call other memory is read, so that
each finds a CPU's caches and threads as the others do: else an operation's time depends on which one came before, and
that of a copy on how many are compared. Beside a time stands the traffic: the least bytes that the operation has to
read and write, per second, as a share of what ``copy_`` of the input into a ready tensor reaches in the same run. Every
set of windows, dtype and layout is printed, and recorded, as soon as it is measured.

Of a compiled kernel it is also told what it takes where memory does not count: on inputs that stay in the cache, called
again and again. Where that is nearly all of its time, arithmetic is what it waits for.

Where a process finds its memory decides some per cent of a time. ``--processes`` takes medians over several new ones.

On a GPU the times are those of CUDA events, without what Python takes to launch the kernels.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence

import torch

from poolnb import native
from poolnb.bench.record import keep, made_elsewhere
from poolnb.bench.rows import Row, measure
from poolnb.bench.tasks import KERNELS
from poolnb.bench.timing import keep_freed_memory
from poolnb.bench.work import CHANNELS_LAST, DTYPES, LAYOUTS, OPERATORS, WORK, Setting

_CACHES = 256 << 20  # bytes well past the caches of a GPU


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="poolnb bench", description="Measure the operators.")
    several: list[tuple[str, Sequence[str], Sequence[str]]] = [
        ("operators", OPERATORS, OPERATORS),
        ("kernels", (*KERNELS, "published"), KERNELS),
        ("windows", tuple(WORK), tuple(WORK)),
        ("dtypes", tuple(DTYPES), ("float32",)),
        ("layouts", tuple(LAYOUTS), tuple(LAYOUTS)),
    ]
    for name, known, default in several:
        text = f"any of {' '.join(known)} (default: {' '.join(default) if default != known else 'all'})"
        parser.add_argument(f"--{name}", nargs="+", metavar="NAME", choices=known, default=list(default), help=text)
    text = "input N C H W (default: one for each kind of windows)"
    parser.add_argument("--shape", nargs="+", type=_positive_integer, metavar="N", help=text)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=_positive_integer, help="threads (default: torch's)")
    parser.add_argument("--seconds", type=float, default=3.0, help="least time per input and windows (default: 3)")
    text = "processes, one after the other, of whose figures to take the medians (default: 1, this one)"
    parser.add_argument("--processes", type=_positive_integer, default=1, metavar="N", help=text)
    parser.add_argument("--results", help="folder for the record, such as book/results/bench (default: none)")
    return parser


def _positive_integer(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


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
    if arguments.results and (other := made_elsewhere(arguments.results, arguments.device)) is not None:
        print(f"poolnb: error: {other}; choose another folder with --results, or remove it", file=sys.stderr)
        return 2
    if "compiled" in arguments.kernels and not native.operators(arguments.device):
        print(f"without {native.KINDS[arguments.device]}: {native.status()}", file=sys.stderr)
    keep_freed_memory()
    for setting in _settings(arguments):
        rows = measure(setting, arguments.operators, arguments.kernels, arguments.seconds, arguments.processes)
        print("\n".join(_table(setting, rows)), flush=True)
        if arguments.results:
            keep(arguments.results, arguments.device, rows)
    return 0


def _settings(arguments: argparse.Namespace) -> Iterator[Setting]:
    """What is to be measured; a sequence has one layout."""
    for windows in arguments.windows:
        shape = tuple(arguments.shape or _shape(arguments.device, windows))
        for dtype in arguments.dtypes:
            for layout in arguments.layouts:
                if layout == "nchw" or len(shape) in CHANNELS_LAST:
                    yield Setting(shape, windows, dtype, layout, arguments.device)


def _shape(device: str, windows: str) -> tuple[int, ...]:
    """The usual input; on a GPU so many images that no cache holds it."""
    shape = WORK[windows].shape
    return shape if device == "cpu" else (_CACHES // (4 * math.prod(shape[1:])), *shape[1:])


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
