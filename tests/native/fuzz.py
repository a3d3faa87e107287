"""Raw calls of every compiled operator, one after the other, right and wrong ones; a program of its own.

``test_sanitized.py`` runs it with a library that is built with sanitizers: the first fault ends it. Memory that was
allocated and not yet written is full of bytes 0xa5 there (``ASAN_OPTIONS=malloc_fill_byte=165``), as hardly any result.

    python fuzz.py LIBRARY FIRST COUNT    # the cases FIRST .. FIRST + COUNT - 1
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path
from typing import Any

os.environ["POOLNB_NATIVE"] = "0"  # the library that is named, no other one
sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

import torch  # noqa: E402
from raw_calls import POOL_OPS, Arguments, call, faults, right_arguments  # noqa: E402
from torch import Tensor  # noqa: E402

from poolnb import native  # noqa: E402

_REFUSED = (RuntimeError, ValueError, TypeError, NotImplementedError)
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def run(number: int, names: list[str]) -> str:
    """Carry out a case; returns what it was."""
    rng = random.Random(number)
    name = names[number % len(names)]
    arguments = right_arguments(name, rng)
    if rng.random() < 0.25:
        argument, what, wrong = rng.choice(list(faults(name, arguments)))
        _expect_refusal(name, argument, what, wrong)
        return "refused"
    for i, tensor in enumerate(_results(name, arguments)):
        never = _as_not_written(tensor)
        if never.any():  # a half type has this number now and then: the PyTorch kernels tell
            with native.disabled():
                expected = _results(name, arguments)[i]
            torch.testing.assert_close(tensor[never], expected[never], rtol=2e-2, atol=0)
    return "right"


def _results(name: str, arguments: Arguments) -> tuple[Tensor, ...]:
    result = call(name, arguments)
    return result if isinstance(result, tuple) else (result,)


def _expect_refusal(name: str, argument: str, what: str, wrong: Arguments) -> None:
    try:
        call(name, wrong)
    except _REFUSED:
        return
    raise AssertionError(f"{name} accepts {argument}: {what}")


def _as_not_written(tensor: Tensor) -> Tensor:
    number = tensor.contiguous().view(_INTEGERS[tensor.itemsize])
    return number == int.from_bytes(b"\xa5" * tensor.itemsize, sys.byteorder, signed=True)


def main(library: str, first: str, count: str) -> None:
    native.load_library("cpu", Path(library))
    compiled = [n for n in POOL_OPS if n.removesuffix("_pool") in native.operators()]
    names = [f"{n}{way}" for n in compiled for way in ("", "_backward")]
    counts: dict[Any, int] = {}
    for number in range(int(first), int(first) + int(count)):
        os.write(2, f"case {number}\n".encode())
        kind = run(number, names)
        counts[kind] = counts.get(kind, 0) + 1
    print(*(f"{n} {kind}" for kind, n in sorted(counts.items())), sep=", ")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
