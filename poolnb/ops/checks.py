"""What the ops accept, in words. Every kernel's arguments pass here, or in ``ext/bindings.h``, which says the same.

Functions of :mod:`poolnb.functional` check more, and earlier, for those who call them; an op can be called without
them. No check looks at the values in a tensor, and none costs a compiled program a guard: a size that a trace keeps
open is left to the kernel that sees it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from poolnb.geometry import output_sizes, windows_of

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
ACC_DTYPES = {dtype: torch.promote_types(dtype, torch.float32) for dtype in DTYPES}  # that sums are kept in
_GEOMETRY = {"kernel_size": 1, "stride": 1, "padding": 0, "dilation": 1, "output_size": 1}  # name, least entry
_LARGEST, _MOST_TAPS = 2**31 - 1, 2**62
_REMEMBERED = 1024
_INT, _SIMPLE = frozenset((int,)), frozenset((int, float, bool, type(None)))
_TENSORS = (Tensor, torch.nn.Parameter)

Accepted = list[tuple[Any, ...]]  # per dimension the sizes that it may have


class Sizes(NamedTuple):
    """The sizes of one call that shapes of other arguments follow from."""

    batch: int
    channels: int
    size: tuple[int, ...]
    taps: int
    output: tuple[int, ...]


class Form(NamedTuple):
    """The shape of an operator's own tensor; its dtype is that of sums, or with ``as_input`` the input's as well.

    ``usual``, ``low`` and ``high`` are a value and a range for examples: see :mod:`poolnb.ops.examples`.
    """

    shape: Callable[[Sizes, Sequence[Tensor]], Accepted]  # of the call, and the own tensors before this one
    as_input: bool = False
    usual: float = 0.0
    low: float = -1.0
    high: float = 1.0
    per_tap: bool = False  # its last dimension has an entry for every tap of a window

    def around(self, usual: float, low: float, high: float) -> Form:
        """The same form, of a parameter with these examples."""
        return self._replace(usual=usual, low=low, high=high)


def _each(sizes: Sequence[int]) -> Accepted:
    return [(n,) for n in sizes]


PER_CHANNEL = Form(lambda s, _: [(s.channels,)])
PER_CHANNEL_AND_WINDOW = Form(lambda s, _: _each((s.channels, *s.output)))
LIKE_OUTPUT = Form(lambda s, _: [(n, 1) for n in (s.batch, s.channels, *s.output)])
LIKE_INPUT = Form(lambda s, _: [(s.batch,), (s.channels, 1), *_each(s.size)], as_input=True)
PER_TAP = Form(lambda s, _: _each((s.channels, s.taps)), per_tap=True)
LEAVES = Form(lambda s, _: [(2, 4), (s.taps,)], per_tap=True)
GATES = Form(lambda s, params: [(params[-1].size(0) - 1,), (s.taps,)], per_tap=True)


class Checks:
    """The checks of one op's arguments, for its kernels: what was accepted once is not looked at again."""

    def __init__(self, names: Sequence[str], forms: Sequence[Form], sampled: bool, attributes: Sequence[str]) -> None:
        self._rules = names, forms, sampled, attributes
        self._accepted: set[Any] = set()

    def __call__(self, args: Sequence[Any], *grad: Tensor) -> None:
        """As :func:`check_call`."""
        seen = tuple(map(_seen, (*args, *grad)))
        if seen in self._accepted:
            return
        check_call(*self._rules, args, *grad)
        if len(self._accepted) == _REMEMBERED:
            self._accepted.clear()
        self._accepted.add(seen)


def _seen(argument: Any) -> Any:
    """All that the checks look at in an argument; of a tensor that is not torch's own, or a traced size, itself."""
    kind = type(argument)
    if kind is list or kind is tuple:
        return tuple(argument) if _INT.issuperset(map(type, argument)) else object()
    if not isinstance(argument, Tensor):
        return argument if kind in _SIMPLE else object()
    if kind not in _TENSORS or argument.layout is not torch.strided or argument.is_nested:
        return object()
    memory = argument.storage_offset(), argument.untyped_storage().nbytes()
    return argument.shape, argument.stride(), argument.dtype, argument.device, memory


def check_call(
    names: Sequence[str],
    forms: Sequence[Form],
    sampled: bool,
    attributes: Sequence[str],
    args: Sequence[Any],
    *grad: Tensor,
) -> None:
    """Check ``(input, mask, *tensors, [seed,] *geometry, *attributes)`` and the gradient that comes back.

    Raises:
        TypeError: a dtype or a layout.
        ValueError: a shape, a device, a number.
    """
    input, mask, params = args[0], args[1], args[2 : 2 + len(names)]
    first = 2 + len(names) + sampled
    geometry, rest = args[first : first + len(_GEOMETRY)], args[first + len(_GEOMETRY) :]
    dims = check_input(input)
    size = tuple(input.shape)
    _check_windows(size[2:], *map(tuple, geometry))
    s = Sizes(size[0], size[1], size[2:], math.prod(geometry[0]), tuple(geometry[-1]))
    if mask is not None:
        _check_tensor("mask", mask, input, (torch.bool,), [(s.batch, 1), (s.channels, 1), *_each(s.size)])
    sums = ACC_DTYPES[input.dtype]
    for i, (name, form) in enumerate(zip(names, forms, strict=True)):
        dtypes = (input.dtype, sums) if form.as_input and sums != input.dtype else (sums,)
        _check_tensor(name, params[i], input, dtypes, form.shape(s, params[:i]))
    if sampled and args[first - 1] is not None:
        _check_tensor("seed", args[first - 1], input, (torch.int64,), [])
    for arriving in grad:
        _check_tensor("grad", arriving, input, (input.dtype,), _each((s.batch, s.channels, *s.output)))
    for attribute, value in zip(attributes, rest, strict=True):
        _check_attribute(attribute, value, geometry[1], dims)


def check_input(x: Tensor | None) -> int:
    if x is None:  # how torch hands on a tensor that was left out
        raise TypeError("input must be a torch.Tensor, got None")
    if x.dtype not in DTYPES:
        accepted = ", ".join(map(_name, DTYPES))
        raise TypeError(f"input must have one of the dtypes {accepted}, got {_name(x.dtype)}")
    _check_memory("input", x)
    if not 3 <= x.dim() <= 5:
        raise ValueError(f"input must have 3 to 5 dimensions, (N, C, *spatial), got shape {_text(x.shape)}")
    if any(_known(n == 0) for n in x.shape[1:]):
        raise ValueError(f"input must not be empty, the batch dimension excepted, got shape {_text(x.shape)}")
    return x.dim() - 2


def _check_tensor(
    name: str, x: Tensor | None, input: Tensor, dtypes: tuple[torch.dtype, ...], accepted: Accepted
) -> None:
    """Shape, dtype, device and memory of a tensor beside the input."""
    if x is None:
        raise TypeError(f"{name} must be a torch.Tensor, got None")
    if x.dtype not in dtypes:
        wanted = " or ".join(map(_name, dtypes))
        raise TypeError(f"{name} must have dtype {wanted} beside {_name(input.dtype)} input, got {_name(x.dtype)}")
    if x.device != input.device and not (name == "seed" and x.device.type == "cpu"):
        raise ValueError(f"{name} must be on input's device {input.device}, got {x.device}")
    _check_memory(name, x)
    fits = x.dim() == len(accepted) and not any(
        all(_known(n != m) for m in sizes) for n, sizes in zip(x.shape, accepted, strict=True)
    )
    if not fits:
        wanted = ", ".join(" or ".join(map(str, dict.fromkeys(sizes))) for sizes in accepted)
        raise ValueError(f"{name} must have shape ({wanted}), got shape {_text(x.shape)}")


def _check_memory(name: str, x: Tensor) -> None:
    """That a tensor is dense, and its storage as long as it says: a storage can be cut behind a tensor's back."""
    if x.layout != torch.strided or x.is_nested:
        raise TypeError(f"{name} must be a dense (strided) tensor, got layout {x.layout}")
    if type(x) not in _TENSORS or x.device.type == "meta" or x.numel() == 0:
        return
    last = x.storage_offset() + sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True))
    if (last + 1) * x.itemsize > x.untyped_storage().nbytes():
        raise ValueError(f"{name} must have memory for all its elements, got a storage that was cut")


def _check_windows(size: tuple[int, ...], *geometry: tuple[int, ...]) -> None:
    dims = len(size)
    for name, entries in zip(_GEOMETRY, geometry, strict=True):
        if len(entries) != dims:
            raise ValueError(f"{name} must be a sequence of {dims} ints, got {len(entries)} entries: {_text(entries)}")
    if all(type(n) is int for entries in (size, *geometry) for n in entries):
        _check_numbers(size, *geometry)


@lru_cache(maxsize=1024)
def _check_numbers(size: tuple[int, ...], *geometry: tuple[int, ...]) -> None:
    for (name, least), entries in zip(_GEOMETRY.items(), geometry, strict=True):
        if any(not least <= n <= _LARGEST for n in entries):
            raise ValueError(
                f"{name} must be at least {least} and below 2**31 in every dimension, got {_text(entries)}"
            )
    kernel, stride, padding, dilation, output = geometry
    extents = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    if any(p >= e for p, e in zip(padding, extents, strict=True)):
        raise ValueError(
            f"padding must be less than the extent of a window, dilation * (kernel_size - 1) + 1 = {_text(extents)}, "
            f"got {_text(padding)}"
        )
    if math.prod(kernel) >= _MOST_TAPS:
        raise ValueError(f"kernel_size must have fewer than 2**62 taps, got {_text(kernel)}")
    accepted = list(map(output_sizes, size, kernel, stride, padding, dilation))
    if any(not fewest <= o <= most for o, (fewest, most) in zip(output, accepted, strict=True)):
        fewest, most = (_text([sizes[i] for sizes in accepted]) for i in range(2))
        raise ValueError(
            f"output_size must follow from the input's size and the windows, from {fewest} to {most}, "
            f"got {_text(output)}"
        )
    windows_of(size, *geometry).near()


def _check_attribute(attribute: str, value: Any, stride: Sequence[int], dims: int) -> None:
    """Numbers of an operator are positive and finite, its sizes at least 1, its sequences multiples of the stride."""
    kind, name = attribute.split(" ")
    if kind == "float" and not 0 < value < math.inf:
        raise ValueError(f"{name} must be a finite number greater than 0, got {value!r}")
    if kind == "int" and not 1 <= value <= _LARGEST:
        raise ValueError(f"{name} must be at least 1 and below 2**31, got {value!r}")
    if kind != "SymInt[]":
        return
    if len(value) != dims:
        raise ValueError(f"{name} must be a sequence of {dims} ints, got {len(value)} entries: {_text(value)}")
    if any(_known(g < 1) or _known(g > _LARGEST) for g in value):
        raise ValueError(f"{name} must be at least 1 and below 2**31 in every dimension, got {_text(value)}")
    if any(_known(g % s != 0) for g, s in zip(value, stride, strict=True)):
        raise ValueError(f"{name} must be a multiple of stride in every dimension, got {_text(value)}")


def _known(fault: Any) -> bool:
    """Whether a comparison is known to hold; one of traced sizes is not, unless it holds for all of them."""
    if isinstance(fault, bool):
        return fault
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return statically_known_true(fault)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _text(entries: Sequence[int]) -> str:
    return f"({', '.join(map(str, entries))})"
