"""Windows: which input positions each output position looks at.

This module is the only place that knows how ``kernel_size``, ``stride``, ``padding``, ``dilation``, ``ceil_mode`` and
``mask`` become windows. The meaning is that of :func:`torch.nn.functional.max_pool2d`, in one, two or three dimensions;
beyond it, padding may differ before and after, and an ``output_size`` may be asked for in the place of a kernel.

A *tap* is one position of a window. A tap is *valid* when it lies inside the input and the mask allows it.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import Any, Generic, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import has_static_value, statically_known_true

IntOrSizes = int | Sequence[int]
#: One number for both sides, per dimension or for all; one pair (before, after) per dimension; or what keeps the size.
Padding = int | Sequence[int] | Sequence[Sequence[int]] | Literal["same"]
#: Of the output; an entry ``None`` keeps the input's.
OutputSize = int | Sequence[int | None] | None
Pairs = tuple[tuple[int, int], ...]
_LARGEST = 2**31 - 1
_LONG = 128
_FAR, _PER_POSITION = 2**20, 64
Value = TypeVar("Value")


class _remembered_property(Generic[Value]):
    """As :func:`functools.cached_property`, which torch.compile cannot trace; in a trace nothing is remembered."""

    def __init__(self, find: Callable[[Any], Value]) -> None:
        self.find, self.__doc__ = find, find.__doc__

    def __get__(self, windows: Any, owner: Any = None) -> Value:
        value = self.find(windows)
        if not torch.compiler.is_compiling():
            windows.__dict__[self.find.__name__] = value
        return value


@dataclass(frozen=True)
class Geometry:
    """The windows of one pooling call. Every tuple has one entry per spatial dimension, outermost first.

    ``padding`` is what lies before the input; what lies behind it follows from ``output``. Where an output size asks
    for windows that differ, ``size`` is that of the input with their taps laid side by side (see ``ops/adaptive.py``)
    and ``source`` is the input's own; elsewhere it is ``None``.

    Eager calls of the same sizes share one; what takes a call's time to find is kept in it.
    """

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    output: tuple[int, ...]
    source: tuple[int, ...] | None = None

    @property
    def dims(self) -> int:
        """Number of spatial dimensions."""
        return len(self.kernel)

    @_remembered_property
    def taps(self) -> int:
        """Number of taps of a window, valid or not."""
        return math.prod(self.kernel)

    @_remembered_property
    def span(self) -> tuple[int, ...]:
        """Extent of a window in input positions, the gaps of the dilation included."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    @_remembered_property
    def reach(self) -> tuple[int, ...]:
        """Extent, from the first padded position, that the windows of one dimension touch together."""
        return tuple((o - 1) * s + e for o, s, e in zip(self.output, self.stride, self.span, strict=True))

    @_remembered_property
    def long(self) -> bool:
        """Whether a float32 sum over the taps, one after the other, would lose digits that matter."""
        return is_long(self.taps)

    @_remembered_property
    def padded(self) -> bool:
        """Whether there is padding before the input; of a free size: may be."""
        return not surely(p == 0 for p in self.padding)

    @_remembered_property
    def inside(self) -> bool:
        """Whether every tap of every window lies inside the input."""
        return not self.padded and surely(r <= n for r, n in zip(self.reach, self.size, strict=True))

    @_remembered_property
    def single(self) -> bool:
        """Whether one window covers the whole input (global pooling)."""
        whole = surely(k == n for k, n in zip(self.kernel, self.size, strict=True))
        whole = whole and surely(o == 1 for o in self.output)
        return whole and not self.padded and all(d == 1 for d in self.dilation)

    @_remembered_property
    def non_overlapping(self) -> bool:
        """Whether no input position belongs to two windows."""
        return surely(s >= e for s, e in zip(self.stride, self.span, strict=True))

    @_remembered_property
    def rounded_up(self) -> bool:
        """Whether the output size is larger than ``ceil_mode=False`` would give; of a free size: may be."""
        return not self._has_output(ceil_mode=False)

    @_remembered_property
    def known_to_torch(self) -> bool:
        """Whether torch's pooling has these windows, with ``ceil_mode=self.rounded_up``."""
        narrow = surely(p <= k // 2 for p, k in zip(self.padding, self.kernel, strict=True))
        return narrow and (not self.rounded_up or self._has_output(ceil_mode=True))

    def _has_output(self, ceil_mode: bool) -> bool:
        axes = zip(self.output, self.size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return surely(o == output_size(n, k, s, p, p, d, ceil_mode) for o, n, k, s, p, d in axes)

    @_remembered_property
    def far(self) -> bool:
        """Whether windows reach over so much more than the input that it takes memory for nothing."""
        if any(isinstance(n, torch.SymInt) for n in (*self.size, *self.reach)):
            return False
        reach = math.prod([max(n, r) for n, r in zip(self.size, self.reach, strict=True)])
        return reach > max(_FAR, _PER_POSITION * math.prod(self.size))

    def axis_taps(self, dim: int) -> list[list[int]]:
        """Input coordinates along one dimension, per output position; only those inside the input."""
        if self.source is not None:
            n, o = self.source[dim], self.output[dim]
            return [list(range(i * n // o, -(-(i + 1) * n // o))) for i in range(o)]
        starts = (o * self.stride[dim] - self.padding[dim] for o in range(self.output[dim]))
        steps = [t * self.dilation[dim] for t in range(self.kernel[dim])]
        return [[a + t for t in steps if 0 <= a + t < self.size[dim]] for a in starts]

    @_remembered_property
    def has_empty_window(self) -> bool:
        """Whether some window has no tap inside the input (possible with dilation alone); of a free size: may have."""
        if all(d == 1 for d in self.dilation) or self.inside:
            return False
        if any(isinstance(n, torch.SymInt) for n in self.size):
            return True
        return any(map(self._misses, range(self.dims)))

    def _misses(self, dim: int) -> bool:
        size, kernel, dilation = self.size[dim], self.kernel[dim], self.dilation[dim]
        starts = (o * self.stride[dim] - self.padding[dim] for o in range(self.output[dim]))
        firsts = ((start, max(0, -(start // dilation))) for start in starts)  # and the first tap that is not before 0
        return any(tap >= kernel or start + tap * dilation >= size for start, tap in firsts)

    def trimmed(self) -> Geometry:
        """The same windows without the taps that lie in the padding everywhere, where windows are long.

        The numbers of the taps change: it is for operators that give them no meaning.
        """
        w = replace(self, **self._trim()) if (self.long or self.far) and self.padded else self
        return w.near()

    def near(self) -> Geometry:
        """The windows themselves, which must not be :attr:`far`."""
        if self.far:
            raise ValueError(
                f"padding must leave windows that reach over at most {_PER_POSITION} positions per input position, got "
                f"padding={self.padding} before spatial size {self.size}, kernel_size={self.kernel}, "
                f"stride={self.stride}, dilation={self.dilation}"
            )
        return self

    def _trim(self) -> dict[str, tuple[int, ...]]:
        axes = zip(self.size, self.kernel, self.stride, self.padding, self.dilation, self.output, strict=True)
        kernel, padding = zip(*(_trimmed_axis(*axis) for axis in axes), strict=True)
        return {"kernel": kernel, "padding": padding}


def _trimmed_axis(n: int, k: int, s: int, p: int, d: int, o: int) -> tuple[int, int]:
    """Kernel and padding of an axis without taps that lie in the padding in all of its ``o`` windows.

    They still are what a call could give. Without dilation that is no question.
    """
    # The last window reaches furthest to the end, the first one to the begin.
    before = min(max(0, -(((o - 1) * s - p) // d)), p // d, k - 1)
    after = k - 1 - min((n - 1 + p) // d, k - 1)
    for first, last in ((before, after), (before, 0), (0, after)):
        kernel, padding = max(k - first - last, 1), p - first * d
        fewest, most = output_sizes(n, kernel, s, padding, d)
        if padding <= d * (kernel - 1) and fewest <= o <= most:
            return kernel, padding
    return k, p


def is_long(count: int) -> bool:
    """Whether so many terms have to be added in blocks. Not for a traced size: a graph shall keep it free."""
    return isinstance(count, int) and count > _LONG


def surely(conditions: Iterable[bool]) -> bool:
    """Whether all conditions hold; in a trace: for every size that a free one may have, not for the example's alone."""
    return all(map(statically_known_true, conditions) if torch.compiler.is_compiling() else conditions)


def smaller(a: int, b: int) -> int:
    """The smaller of two sizes, one of which may be free in a trace."""
    return torch.sym_min(a, b)  # type: ignore[return-value]


def larger(a: int, b: int) -> int:
    """The larger of two sizes, likewise."""
    return torch.sym_max(a, b)  # type: ignore[return-value]


def resolve(
    size: Sequence[int],
    kernel_size: IntOrSizes | None,
    stride: IntOrSizes | None = None,
    padding: Padding = 0,
    dilation: IntOrSizes = 1,
    ceil_mode: bool = False,
    output_size: OutputSize = None,
) -> Geometry:
    """Check the arguments of a pooling call and return its windows.

    ``size`` holds the spatial extents of the input. ``kernel_size=None`` means ``output_size`` windows that together
    take up all of it; without ``output_size`` one.

    Raises:
        TypeError: an argument is not an int or a sequence of ints (``ceil_mode``: not a bool).
        ValueError: a wrong number of entries, an entry out of range, or an input too small for one window.
    """
    size = tuple(size)
    arguments = (kernel_size, stride, padding, dilation, ceil_mode, output_size)
    # A network asks the same few questions in every step.
    if (
        not torch.compiler.is_compiling()
        and _all_ints(size)
        and (_PLAIN.issuperset(map(type, arguments)) or all(map(_is_plain, arguments)))
    ):
        return _remembered(size, *arguments)
    return _resolve(size, *arguments)


_PLAIN = frozenset((int, bool, str, type(None)))
_INT, _SIZE = frozenset((int,)), frozenset((int, type(None)))


def _is_plain(value: Any) -> bool:
    """Whether equal values of the same type mean the same: not so for (1.0,) and (1,), nor for a traced size."""
    if type(value) is not tuple:
        return type(value) in _PLAIN
    return all(type(entry) in _SIZE or (type(entry) is tuple and _all_ints(entry)) for entry in value)


def _all_ints(sizes: tuple[Any, ...]) -> bool:
    return _INT.issuperset(map(type, sizes))


def _resolve(
    size: tuple[int, ...],
    kernel_size: IntOrSizes | None,
    stride: IntOrSizes | None,
    padding: Padding,
    dilation: IntOrSizes,
    ceil_mode: bool,
    output_size: OutputSize,
) -> Geometry:
    dims = len(size)
    checked = check_sizes(dims, kernel_size, stride, padding, dilation, ceil_mode, output_size)
    if checked is None:
        return _adaptive(size, check_output_size(dims, output_size))
    kernel, strides, pads, dilations = checked
    if pads is None:
        before = tuple(map(_same, size, kernel, strides, dilations))
        return Geometry(size, kernel, strides, before, dilations, tuple(map(_strides_in, size, strides)))
    before, after = zip(*pads, strict=True)
    output = tuple(map(_output_size, size, kernel, strides, before, after, dilations, (ceil_mode,) * dims))
    if any(o < 1 for o in output):
        raise ValueError(
            f"input is too small for one window: spatial size {size}, kernel_size={kernel}, padding={_shown(pads)}, "
            f"dilation={dilations}; the output size would be {output}, and every entry must be at least 1"
        )
    return Geometry(size, kernel, strides, before, dilations, output)


_remembered = lru_cache(maxsize=1024, typed=True)(_resolve)


def windows_of(*sizes: tuple[int, ...]) -> Geometry:
    """The windows of these sizes, in the order of :class:`Geometry`'s fields."""
    if torch.compiler.is_compiling() or not all(map(_all_ints, sizes)):
        return Geometry(*sizes)
    return _same_windows(*sizes)


_same_windows = lru_cache(maxsize=1024)(Geometry)


# ---- an output size in the place of a kernel -------------------------------------------------------------------------
#
# Along an axis of n positions, window i of o takes the positions floor(i n / o) .. ceil((i + 1) n / o) - 1.


def adaptive_kernel(n: int, o: int) -> tuple[int, int | None]:
    """The longest window of an axis, and the step between windows; ``None`` where they have no common length and step.

    With n = q o + r a window holds q + 1 or q + 2 positions; all hold q + 1 where r divides o, and begin q apart where
    r = 1.
    """
    q, r = n // o, n % o
    if r == 0:
        return q, q
    if o % r:
        return q + 2, None
    return q + 1, q if r == 1 and q else None


def adaptive_equal(n: int, o: int) -> bool:
    """Whether all windows of an axis are of one length."""
    return n % o == 0 or o % (n % o) == 0


def _adaptive(size: tuple[int, ...], asked: tuple[int | None, ...]) -> Geometry:
    _refuse_onnx(size, asked)
    output = tuple(n if o is None else o for n, o in zip(size, asked, strict=True))
    ones, zeros = (1,) * len(size), (0,) * len(size)
    axes = [
        (1, 1) if o is None else (n, n) if o == 1 else adaptive_kernel(n, o) for n, o in zip(size, asked, strict=True)
    ]
    kernel = tuple(k for k, _ in axes)
    stride = tuple(k if step is None else step for k, step in axes)
    if all(step is not None for _, step in axes):
        return Geometry(size, kernel, stride, zeros, ones, output)
    beside = tuple(n if step is not None else k * o for n, o, (k, step) in zip(size, output, axes, strict=True))
    known = not any(isinstance(n, torch.SymInt) for n in beside)
    if known and math.prod(beside) > max(_FAR, _PER_POSITION * math.prod(size)):
        raise ValueError(
            f"output_size must give at most {_PER_POSITION} taps per input position, "
            f"got {output} for spatial size {size}"
        )
    return Geometry(beside, kernel, stride, zeros, ones, output, source=size)


def _refuse_onnx(size: tuple[int, ...], asked: tuple[int | None, ...]) -> None:
    """A graph of ONNX is for one remainder of size / output_size alone, and would not say so at other sizes."""
    if not _in_onnx_export():
        return
    for n, o in zip(size, asked, strict=True):
        if o not in (None, 1) and not has_static_value(n):
            raise ValueError(
                f"output_size={o} cannot be exported to ONNX with a free size: give height and width, or output_size=1"
            )


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _in_onnx_export() -> bool:
    """Asked when a call is traced: torch.compile takes torch's own function to be false, the exporter's trace too."""
    return torch.onnx.is_in_onnx_export()


# ---- checks ----------------------------------------------------------------------------------------------------------


def check_sizes(
    dims: int,
    kernel_size: IntOrSizes | None,
    stride: IntOrSizes | None = None,
    padding: Padding = 0,
    dilation: IntOrSizes = 1,
    ceil_mode: bool = False,
    output_size: OutputSize = None,
) -> tuple[tuple[int, ...], tuple[int, ...], Pairs | None, tuple[int, ...]] | None:
    """What can be checked of a geometry without an input: (kernel, stride, padding, dilation).

    ``None`` without a kernel; a padding of ``None`` is ``"same"``.
    """
    if not isinstance(ceil_mode, bool):
        raise TypeError(f"ceil_mode must be a bool, got {ceil_mode!r}")
    check_output_size(dims, output_size)
    if kernel_size is None:
        _check_global(dims, stride, padding, dilation)
        return None
    if output_size is not None:
        raise ValueError(f"output_size must be None beside a kernel_size, got {output_size!r} and {kernel_size!r}")
    kernel = per_dim("kernel_size", kernel_size, dims, least=1)
    strides = kernel if stride is None or _is_default(stride) else per_dim("stride", stride, dims, least=1)
    pads = padding_pairs(padding, dims)
    dilations = per_dim("dilation", dilation, dims, least=1)
    extents = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True))
    if pads is not None and any(max(pair) >= e for pair, e in zip(pads, extents, strict=True)):
        raise ValueError(
            f"padding must be less than the extent of a window, dilation * (kernel_size - 1) + 1 = {extents}, "
            f"got {padding!r}"
        )
    return kernel, strides, pads, dilations


def check_output_size(dims: int, output_size: OutputSize) -> tuple[int | None, ...]:
    """One entry per dimension; without an ``output_size`` all 1."""
    if output_size is None:
        return (1,) * dims
    entries = tuple(output_size) if isinstance(output_size, list | tuple) else (output_size,)
    try:
        numbers = per_dim("output_size", tuple(1 if n is None else n for n in entries), dims, least=1)
    except TypeError:
        raise TypeError(
            f"output_size must be an int or a sequence of {dims} ints or None, got {output_size!r}"
        ) from None
    except ValueError as error:
        raise ValueError(str(error).partition(", got")[0] + f", got {output_size!r}") from None
    kept = entries * dims if len(entries) == 1 else entries
    return tuple(None if given is None else n for given, n in zip(kept, numbers, strict=True))


def padding_pairs(padding: Padding, dims: int) -> Pairs | None:
    """Padding as one pair (before, after) per dimension; ``None`` for ``"same"``."""
    if isinstance(padding, str):
        if padding != "same":
            raise ValueError(f'padding must be "same" where it is a string, got {padding!r}')
        return None
    if isinstance(padding, list | tuple) and any(isinstance(pair, list | tuple) for pair in padding):
        if len(padding) != dims or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in padding):
            pairs = ", ".join(["(before, after)"] * dims)
            raise ValueError(
                f"padding must be {dims} pairs ({pairs}{',' * (dims == 1)}) where it is pairs, got {padding!r}"
            )
        sides = [_one_side(side, padding) for side in zip(*padding, strict=True)]
    else:
        sides = [_both_sides(padding, dims)] * 2
    before, after = sides
    return tuple(zip(before, after, strict=True))


def _one_side(entries: tuple[Any, ...], padding: Any) -> tuple[int, ...]:
    try:
        return per_dim("padding", entries, len(entries), least=0)
    except (TypeError, ValueError) as error:
        wanted = "ints in every pair" if isinstance(error, TypeError) else "at least 0 and below 2**31 in every pair"
        raise type(error)(f"padding must be {wanted}, got {padding!r}") from None


def _both_sides(padding: Any, dims: int) -> tuple[int, ...]:
    entries = padding if isinstance(padding, list | tuple) else (padding,)
    try:
        return per_dim("padding", padding, dims, least=0)
    except (TypeError, ValueError) as error:
        if isinstance(error, ValueError) and len(entries) in (1, dims):
            raise
        raise type(error)(
            f'padding must be an int, a sequence of {dims} ints or of {dims} pairs (before, after), or "same", '
            f"got {padding!r}"
        ) from None


def _shown(pads: Pairs) -> tuple[Any, ...]:
    """Padding as it is mostly given: one number where both sides have the same."""
    symmetric = all(before == after for before, after in pads)
    return tuple(before for before, _ in pads) if symmetric else pads


def _strides_in(n: int, s: int) -> int:
    return (n + s - 1) // s  # and not -(-n // s): ONNX rounds the quotient of a negative number up


def _same(n: int, k: int, s: int, d: int) -> int:
    """Padding before the input where as many windows shall be as strides begin in it: the smaller half of what is
    missing.
    """
    return larger((_strides_in(n, s) - 1) * s + d * (k - 1) + 1 - n, 0) // 2


def _is_default(stride: IntOrSizes | None) -> bool:
    # torch takes an empty list as "same as kernel_size" as well.
    return stride is None or (isinstance(stride, list | tuple) and len(stride) == 0)


def _check_global(dims: int, stride: IntOrSizes | None, padding: Padding, dilation: IntOrSizes) -> None:
    if not _is_default(stride):
        raise ValueError(f"stride must be left at None when kernel_size is None (global pooling), got {stride!r}")
    left = {
        "padding": (padding, 0, padding_pairs(padding, dims) == ((0, 0),) * dims),
        "dilation": (dilation, 1, per_dim("dilation", dilation, dims, least=0) == (1,) * dims),
    }
    for name, (value, default, is_default) in left.items():
        if not is_default:
            raise ValueError(
                f"{name} must be left at {default} when kernel_size is None (global pooling), got {value!r}"
            )


def plain_int(value: Any) -> Any:
    """An integer of another library, such as NumPy's, as Python's own; everything else as it is."""
    return int(value) if isinstance(value, numbers.Integral) and not isinstance(value, int) else value


def per_dim(name: str, value: IntOrSizes, dims: int, least: int) -> tuple[int, ...]:
    """An int or a sequence of ints as one entry per dimension, each at least ``least``."""
    entries = tuple(plain_int(v) for v in (value if isinstance(value, list | tuple) else (value,)))
    if not all(isinstance(v, int | torch.SymInt) and not isinstance(v, bool) for v in entries):
        raise TypeError(f"{name} must be an int or a sequence of {dims} ints, got {value!r}")
    if len(entries) not in (1, dims):
        raise ValueError(f"{name} must be an int or a sequence of {dims} ints, got {len(entries)} entries: {value!r}")
    if any(v < least or v > _LARGEST for v in entries):
        raise ValueError(f"{name} must be at least {least} and below 2**31 in every dimension, got {value!r}")
    return entries * dims if len(entries) == 1 else entries


def output_size(n: int, k: int, s: int, before: int, after: int, d: int, ceil_mode: bool) -> int:
    room = n + before + after - d * (k - 1) - 1
    out = (room + (s - 1 if ceil_mode else 0)) // s + 1
    # With ceil_mode the last window must still start inside the input or its left padding.
    return smaller(out, (n + before - 1) // s + 1) if ceil_mode else out


_output_size = output_size  # where an argument has that name


def output_sizes(n: int, k: int, s: int, before: int, d: int) -> tuple[int, int]:
    """Fewest and most windows of an axis, whatever the padding behind it: the last one starts inside or before it."""
    return larger(output_size(n, k, s, before, 0, d, ceil_mode=False), 1), (n + before - 1) // s + 1


# ---- memory layout ---------------------------------------------------------------------------------------------------


def memory_format(x: Tensor) -> torch.memory_format:
    """The layout whose order of strides ``x`` (N, C, *spatial) has; plain contiguous where both fit."""
    channels_last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.dim())
    if channels_last is None or x.size(1) == 1:
        return torch.contiguous_format
    inner_to_outer = [1, *range(x.dim() - 1, 1, -1), 0]
    strides = [x.stride(d) for d in inner_to_outer if x.size(d) != 1]
    ascending = all(a < b for a, b in zip(strides, strides[1:], strict=False))
    spatial_one = all(x.size(d) == 1 for d in range(2, x.dim()))
    return channels_last if ascending and not spatial_one and x.numel() > 0 else torch.contiguous_format


def empty_output(x: Tensor, geometry: Geometry) -> Tensor:
    """An uninitialised (N, C, *output) tensor in the layout and dtype of ``x``."""
    shape = (x.size(0), x.size(1), *geometry.output)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format(x))


# ---- windows as tensors ----------------------------------------------------------------------------------------------


def gather(x: Tensor, geometry: Geometry, fill: float | bool = 0) -> Tensor:
    """All taps of all windows: (N, C, *size) -> (taps, N, C, *output); positions outside the input hold ``fill``.

    The tap axis comes first, so that a reduction over it runs along contiguous memory. Row-major order of taps.
    """
    n = geometry.dims
    if geometry.single:
        return x.flatten(2).movedim(2, 0).reshape(geometry.taps, x.size(0), x.size(1), *(1,) * n)
    channels_last = memory_format(x) != torch.contiguous_format
    x = pad(x, geometry, fill)
    for dim in range(n):  # each appends one axis, with the taps of that dimension
        x = x.unfold(2 + dim, geometry.span[dim], geometry.stride[dim])[..., :: geometry.dilation[dim]]
    x = x.permute(*range(2 + n, 2 + 2 * n), *range(2 + n))
    if channels_last:
        return x.movedim(n + 1, -1).flatten(0, n - 1).movedim(-1, 2)
    return x.flatten(0, n - 1)


def scatter(g: Tensor, geometry: Geometry) -> Tensor:
    """The adjoint of :func:`gather`: add (taps, N, C, *output) back to (N, C, *size)."""
    batch, channels = g.shape[1:3]
    if geometry.single:
        return g.flatten(3).squeeze(3).movedim(0, 2).reshape(batch, channels, *geometry.size)
    extent = [p + max(s, r - p) for p, s, r in zip(geometry.padding, geometry.size, geometry.reach, strict=True)]
    shape, layout = (batch, channels, *extent), memory_format(g[0])
    dtype = torch.float64 if geometry.long and not geometry.non_overlapping else g.dtype  # many windows may share a tap
    padded = torch.empty(shape, dtype=dtype, device=g.device, memory_format=layout).zero_()
    for tap, target in enumerate(tap_views(padded, geometry)):
        if geometry.non_overlapping:
            target.copy_(g[tap])
        else:
            target.add_(g[tap])
    return crop(padded, geometry).to(g.dtype)


def pad(x: Tensor, geometry: Geometry, fill: float | bool = 0) -> Tensor:
    """(N, C, *size) with ``fill`` around it, as far as windows reach; ``x`` itself where they stay inside."""
    sizes = zip(geometry.padding, geometry.reach, geometry.size, strict=True)
    if torch.compiler.is_compiling() and any(isinstance(n, torch.SymInt) for n in geometry.size):
        # Not a position further, so that a trace knows how many windows a free size gives.
        margins = [(before, reach - size - before) for before, reach, size in sizes]
    else:
        margins = [(before, max(0, reach - size - before)) for before, reach, size in sizes]
    amounts = [m for pair in reversed(margins) for m in pair]
    return x if surely(m == 0 for m in amounts) else F.pad(x, amounts, value=fill)


def crop(padded: Tensor, geometry: Geometry) -> Tensor:
    """The inverse of :func:`pad`, as a view."""
    for dim in range(geometry.dims):
        padded = padded.narrow(2 + dim, geometry.padding[dim], geometry.size[dim])
    return padded


def tap_views(padded: Tensor, geometry: Geometry) -> Iterator[Tensor]:
    """Views (N, C, *output) of what :func:`pad` gives: one tap of all windows after the other, row-major."""
    for tap in product(*map(range, geometry.kernel)):
        view = padded
        for dim in range(geometry.dims):
            start, step = tap[dim] * geometry.dilation[dim], geometry.stride[dim]
            stop = start + (geometry.output[dim] - 1) * step + 1
            view = view[(slice(None),) * (2 + dim) + (slice(start, stop, step),)]
        yield view


def valid_taps(mask: Tensor | None, geometry: Geometry, device: torch.device) -> Tensor | None:
    """Which taps are valid: bool (taps, N or 1, C or 1, *output); ``None`` when all are."""
    if mask is None:
        return None if geometry.inside else _inside(geometry, device)
    return gather(mask, geometry, fill=False)


def _inside(geometry: Geometry, device: torch.device) -> Tensor:
    """Which taps lie inside the input: bool (taps, 1, 1, *output)."""
    n = geometry.dims
    valid = torch.ones((1,) * (2 * n), dtype=torch.bool, device=device)
    for dim in range(n):
        taps = torch.arange(geometry.kernel[dim], device=device) * geometry.dilation[dim] - geometry.padding[dim]
        starts = torch.arange(geometry.output[dim], device=device) * geometry.stride[dim]
        position = taps.view(-1, *(1,) * (2 * n - 1 - dim)) + starts.view(-1, *(1,) * (n - 1 - dim))
        valid = valid & (position >= 0) & (position < geometry.size[dim])
    return valid.flatten(0, n - 1).unsqueeze(1).unsqueeze(1)
