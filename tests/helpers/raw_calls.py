"""Calls of ``torch.ops.poolnb.*`` with nothing in front of them, right ones and wrong ones, drawn from the schemas."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from poolnb.geometry import Geometry, output_sizes, resolve
from poolnb.ops.checks import DTYPES, Sizes
from poolnb.ops.registration import OPS

POOL_OPS = dict(OPS)
COPY = "adaptive_taps"  # and its backward: what an output size puts before an op
GEOMETRY = ("kernel_size", "stride", "padding", "dilation", "output_size")
Arguments = dict[str, Any]  # by name, in the schema's order


def schemas() -> dict[str, torch.FunctionSchema]:
    """Of every registered op, by name; those with an underscore are parts of others."""
    every = (s for s in torch._C._jit_get_all_schemas() if re.match("poolnb::[^_]", s.name))
    return {s.name.removeprefix("poolnb::"): s for s in every}


def call(name: str, arguments: Arguments) -> Any:
    return getattr(torch.ops.poolnb, name)(*arguments.values())


def right_arguments(name: str, rng: random.Random) -> Arguments:
    """Random arguments that the op accepts."""
    if name.startswith(COPY):
        return _copy_arguments(name, rng)
    op = POOL_OPS[name.removesuffix("_backward")]
    windows = _windows(rng)
    dtype = rng.choice([*DTYPES, torch.float32])
    sums = torch.promote_types(dtype, torch.float32)
    batch, channels = rng.choice([0, 1, 1, 2, 3, 18]), rng.choice([1, 2, 3, 5, 16, 33])
    sizes = Sizes(batch, channels, windows.size, math.prod(windows.kernel), windows.output)
    params: dict[str, Tensor] = {}
    for tensor, form in op.tensors.items():
        shape = [rng.choice(accepted) for accepted in form.shape(sizes, list(params.values()))]
        params[tensor] = _tensor(rng, shape, rng.choice([dtype, sums]) if form.as_input else sums)
    mask_shape = [rng.choice([batch, 1]), rng.choice([channels, 1]), *windows.size]
    known: Arguments = {
        "param_grads": rng.random() < 0.7,
        "grad": _tensor(rng, (batch, channels, *windows.output), dtype),
        "input": _special(rng, _tensor(rng, (batch, channels, *windows.size), dtype)),
        "mask": _tensor(rng, mask_shape, torch.bool) if rng.random() < 0.4 else None,
        "seed": torch.tensor(rng.randrange(-(2**63), 2**63)) if rng.random() < 0.6 else None,
        "kernel_size": list(windows.kernel),
        "stride": list(windows.stride),
        "padding": list(windows.padding),
        "dilation": list(windows.dilation),
        "output_size": list(windows.output),
        "grid_size": [s * rng.choice([1, 2, 3]) for s in windows.stride],
        **params,
    }
    numbers = {
        "int": lambda: rng.randint(1, 5),
        "bool": lambda: rng.random() < 0.5,
        "float": lambda: rng.choice([1e-6, 0.01, 1.0, 3.0]),
    }
    return {a.name: known[a.name] if a.name in known else numbers[str(a.type)]() for a in schemas()[name].arguments}


def _copy_arguments(name: str, rng: random.Random) -> Arguments:
    size = [rng.randint(2, 9) for _ in range(rng.choice([1, 2, 3]))]
    output = [rng.randint(1, n + 3) for n in size]
    spatial = resolve(size, None, output_size=output).size if name == f"{COPY}_backward" else size
    x = _tensor(rng, (rng.choice([0, 1, 2]), rng.choice([1, 3, 16]), *spatial), rng.choice(DTYPES))
    return {"input": x, "size": size, "output_size": output}


def _windows(rng: random.Random) -> Geometry:
    dims = rng.choice([1, 2, 2, 2, 3])
    largest = {1: 40, 2: 14, 3: 7}[dims]
    while True:
        size = [rng.randint(1, largest) for _ in range(dims)]
        if rng.random() < 0.2:
            size[-1] += 30  # rows longer than a vector
        kernel = [rng.choice([1, 2, 2, 3, 4]) for _ in range(dims)]
        stride = [rng.choice([1, 2, 2, 3, 5, 100]) for _ in range(dims)]
        dilation = [rng.choice([1, 1, 1, 2, 5]) for _ in range(dims)]
        padding = rng.choice([0, 0, [k // 2 for k in kernel], "same", _pairs(rng, kernel, dilation)])
        try:
            if rng.random() < 0.1:
                return resolve(size, None)
            if rng.random() < 0.1:
                equal = resolve(size, None, output_size=[rng.choice([1, n, max(n - 1, 1)]) for n in size])
                if equal.source is None:
                    return equal
            return resolve(size, kernel, stride, padding, dilation, rng.random() < 0.3)
        except ValueError:  # the windows do not fit
            continue


def _pairs(rng: random.Random, kernel: list[int], dilation: list[int]) -> list[tuple[int, int]]:
    largest = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    return [(rng.randint(0, n), rng.randint(0, n)) for n in largest]


def _tensor(rng: random.Random, shape: Any, dtype: torch.dtype) -> Tensor:
    """Positive numbers in one of the layouts that a tensor can have."""
    generator = torch.Generator().manual_seed(rng.getrandbits(32))
    shape = tuple(shape)

    def made(*size: int) -> Tensor:
        values = torch.rand(size, generator=generator)
        return values > 0.3 if dtype == torch.bool else (values + 0.25).to(dtype)

    layout = rng.choice(["plain", "plain", "channels last", "sliced", "expanded", "overlapping", "shifted"])
    if layout == "channels last" and len(shape) in (4, 5):
        return made(*shape).contiguous(memory_format=(torch.channels_last, torch.channels_last_3d)[len(shape) - 4])
    if layout == "sliced" and shape:
        return made(*shape[:-1], 2 * shape[-1] + 1)[..., 1::2]
    if layout == "expanded" and shape:
        return made(*(rng.choice([n, 1]) for n in shape)).expand(shape)
    if layout == "overlapping" and shape and math.prod(shape):
        strides = [rng.randint(0, 2) for _ in shape]
        return made(1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))).as_strided(shape, strides)
    if layout == "shifted":
        return made(math.prod(shape) + 1)[1:].view(shape)
    return made(*shape)


def _special(rng: random.Random, x: Tensor) -> Tensor:
    if rng.random() < 0.3 and x.numel():
        kept = torch.rand(x.shape, generator=torch.Generator().manual_seed(rng.getrandbits(32))) < 0.9
        x = x * x.new_tensor([1.0]).where(kept, rng.choice([0.0, -1.0, math.inf, -math.inf, math.nan]))
    return x


# ---- wrong calls -----------------------------------------------------------------------------------------------------


def faults(name: str, arguments: Arguments) -> Iterator[tuple[str, str, Arguments]]:
    """Every way in which one argument of a right call can be wrong: (argument, what is wrong, the wrong call)."""
    for argument in schemas()[name].arguments:
        kind, value = str(argument.type), arguments[argument.name]
        if isinstance(value, Tensor):
            wrong = (
                _wrong_input(value)
                if argument.name == "input"
                else _wrong_tensor(argument.name, value, arguments["input"].size(0))
            )
        elif kind == "List[int]":
            wrong = _wrong_list(argument.name, arguments)
        elif kind == "float":
            wrong = ((str(v), v) for v in (0.0, -1.0, math.nan, math.inf, -math.inf, None, "1", [1.0]))
        elif kind == "int":
            wrong = ((str(v), v) for v in (0, -1, -(2**63), 2**31, 2**62, 2**64, None, "1", 1.5, [1.0]))
        elif kind == "bool":
            wrong = ((repr(v), v) for v in ("yes", [True]))
        else:  # an optional tensor that was left out
            wrong = iter([("a number", 1.5), ("text", "x")])
        for what, other in wrong:
            yield argument.name, what, {**arguments, argument.name: other}


def _wrong_dtypes(x: Tensor) -> Iterator[tuple[str, Tensor]]:
    for dtype in (torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn):
        if dtype != x.dtype:
            yield str(dtype), x.to(dtype)


def _wrong_memory(x: Tensor) -> Iterator[tuple[str, Any]]:
    if x.numel():
        cut = x.contiguous().clone()
        cut.untyped_storage().resize_(0)
        yield "a storage that was cut", cut
    if x.dim():
        yield "sparse", x.to_sparse()
    yield "nothing", None
    yield "text", "x"
    yield "a number", [1.5]


def _wrong_input(x: Tensor) -> Iterator[tuple[str, Any]]:
    yield from _wrong_dtypes(x)
    yield from _wrong_memory(x)
    for shape in (
        (),
        (2,),
        (2, 3),
        (1,) * 6,
        (1,) * 12,
        (1, 0, *x.shape[2:]),
        (1, x.size(1), *(0 for _ in x.shape[2:])),
    ):
        yield f"shape {shape}", torch.ones(shape, dtype=x.dtype)
    yield "a spatial size more", x.new_ones(*x.shape[:-1], x.size(-1) + 700)


def _wrong_tensor(name: str, x: Tensor, batch: int) -> Iterator[tuple[str, Any]]:
    yield from _wrong_dtypes(x)
    if x.is_floating_point():
        yield "another float", x.to(torch.float32 if x.dtype == torch.float64 else torch.float64)
    yield from ((what, value) for what, value in _wrong_memory(x) if value is not None or name not in ("mask", "seed"))
    yield "on the meta device", x.to("meta")
    yield "one dimension more", x.unsqueeze(0)
    yield "twelve dimensions", x.new_ones((2,) * 12)
    yield "ten dimensions of 1", x.new_ones((1,) * 10)
    yield "empty", x.new_ones(0)
    if x.dim():
        yield "no dimension", x.new_ones(())
        yield "one dimension less", x.new_ones(x.shape[1:])
    for d in range(x.dim()):
        yield f"7 more in dimension {d}", x.new_ones([n + 7 * (i == d) for i, n in enumerate(x.shape)])
        if x.size(d) and (d or batch):  # beside an empty batch it is right
            yield f"nothing in dimension {d}", x.new_ones([n * (i != d) for i, n in enumerate(x.shape)])


def _wrong_list(name: str, arguments: Arguments) -> Iterator[tuple[str, Any]]:
    given = arguments[name]
    yield "no entry", []
    yield "one entry more", [*given, 1]
    yield "one entry less", given[1:]
    yield "a float", [1.5] * len(given)
    yield "text", "x"
    yield "nothing", None
    numbers = [-1, -(2**31), -(2**62), -(2**63), 2**31, 2**32, 2**62, 2**63 - 1, 2**64]
    numbers += [] if name == "padding" else [0]
    for number in numbers:
        for d in range(len(given)):
            yield f"{number} in dimension {d}", [number if i == d else n for i, n in enumerate(given)]
    if name == "padding":
        spans = [d * (k - 1) + 1 for k, d in zip(arguments["kernel_size"], arguments["dilation"], strict=True)]
        yield "a window's extent", spans
    if name == "output_size" and "kernel_size" in arguments:
        axes = (arguments[n] for n in ("kernel_size", "stride", "padding", "dilation"))
        most = [output_sizes(*axis)[1] for axis in zip(arguments["input"].shape[2:], *axes, strict=True)]
        for more in (1, 1000, 2**30):
            yield f"{more} too many", [n + more for n in most]
    if name == "grid_size" and arguments["stride"][0] > 1:
        yield "no multiple of the stride", [n + 1 for n in given]
