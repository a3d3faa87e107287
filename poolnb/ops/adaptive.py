"""Windows that an output size asks for and that differ in length: their taps laid side by side.

:func:`side_by_side` copies the taps of one window after the other, each as long as the longest of its axis, K. An
operator then sees windows of K taps at stride K, and a mask that leaves out what is not a window's own.

Position i of n belongs to the windows floor(i o / n) .. ceil((i + 1) o / n) - 1 of o, which is the rule of the windows
with n and o exchanged. So the gradient gathers too, without two additions to one place at a time. The two copies are
linear and each the other's derivative. They are ops, for every device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from poolnb.geometry import Geometry, adaptive_equal, adaptive_kernel, memory_format, resolve
from poolnb.ops.checks import check_input
from poolnb.ops.registration import LIBRARY, differentiable, in_forward_mode, in_layout
from poolnb.ops.taps import to_acc_dtype

Sizes = Sequence[int]


def side_by_side(x: Tensor, mask: Tensor | None, windows: Geometry) -> tuple[Tensor, Tensor | None, Geometry]:
    """Input, mask and windows, as they are, or where windows differ with the taps of each beside each other."""
    if windows.source is None:
        return x, mask, windows
    beside = Geometry(windows.size, windows.kernel, windows.stride, windows.padding, windows.dilation, windows.output)
    return copied(x, windows.source, windows.output), _mask_beside(mask, windows, x.device), beside


def copied(x: Tensor, size: Sizes, output: Sizes) -> Tensor:
    """(N, C, *size) with the taps of every window beside each other, along the axes where windows differ."""
    return _copy(x, size, output)


def _differing(size: Sizes, output: Sizes) -> list[tuple[int, int, int]]:
    """(number, size, output) of the axes along which windows have no common length and step."""
    axes = [(a, n, o) for a, (n, o) in enumerate(zip(size, output, strict=True))]
    return [(a, n, o) for a, n, o in axes if adaptive_kernel(n, o)[1] is None]


def _taps(n: int, o: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The positions of the windows' taps, (o, K), and which are a window's own; others are within the input too."""
    window = torch.arange(o, device=device).unsqueeze(1)
    position = window * n // o + torch.arange(adaptive_kernel(n, o)[0], device=device)
    last = ((window + 1) * n - 1) // o
    return position.minimum(last), position <= last


def _mask_beside(mask: Tensor | None, windows: Geometry, device: torch.device) -> Tensor | None:
    """The taps that the mask allows and that are a window's own; of one sample or channel where the mask is."""
    assert windows.source is not None
    own = None
    for axis, n, o in _differing(windows.source, windows.output):
        position, valid = _taps(n, o, device)
        if mask is not None:
            mask = mask.index_select(2 + axis, position.flatten())
        if not adaptive_equal(n, o):
            along = valid.view(1, 1, *(-1 if a == axis else 1 for a in range(windows.dims)))
            own = along if own is None else own & along
    allowed = own if mask is None else mask if own is None else mask & own
    return None if allowed is None else allowed.expand(*allowed.shape[:2], *windows.size)


# ---- the copies ------------------------------------------------------------------------------------------------------


def _select(x: Tensor, size: Sizes, output: Sizes, first: int = 2) -> Tensor:
    """Copy, with 0 for what is not a window's own; ``first`` is the first spatial dimension."""
    for axis, n, o in reversed(_differing(size, output)):  # the innermost, whose numbers lie apart, while x is small
        position, own = _taps(n, o, x.device)
        x = _pick(x, first + axis, position.flatten())
        if not adaptive_equal(n, o):
            x = x.masked_fill_(~_along(own.flatten(), x, first + axis), 0)
    return x


def _collect(taps: Tensor, size: Sizes, output: Sizes, first: int = 2) -> Tensor:
    """The adjoint: every position adds its taps, one of each window that it belongs to."""
    x = to_acc_dtype(taps)
    for axis, n, o in _differing(size, output):
        window, belongs = _taps(o, n, x.device)
        position = torch.arange(n, device=x.device).unsqueeze(1)
        place = window * adaptive_kernel(n, o)[0] + position - window * n // o
        total, *others = (_pick(x, first + axis, each) for each in place.unbind(1))
        for each, some in zip(others, belongs.unbind(1)[1:], strict=True):
            total = total.add_(each.masked_fill_(~_along(some, each, first + axis), 0))
        x = total
    return x.to(taps.dtype)


def _pick(x: Tensor, dim: int, position: Tensor) -> Tensor:
    """The entries at some positions of a dimension. Along the last one `gather` is the faster way."""
    if dim < x.dim() - 1:
        return x.index_select(dim, position)
    return x.gather(dim, position.expand(*x.shape[:-1], -1))


def _along(values: Tensor, x: Tensor, dim: int) -> Tensor:
    """One value per position along a dimension of ``x``, shaped to broadcast."""
    return values.view(-1, *(1,) * (x.dim() - 1 - dim))


class _Copy:
    """One of the two copies as an op, with the rules that follow from the other being its derivative."""

    other: _Copy

    def __init__(self, name: str, move: Callable[..., Tensor], backwards: bool) -> None:
        schema = "(Tensor input, SymInt[] size, SymInt[] output_size) -> Tensor"
        LIBRARY.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
        self.op, self.move, self.backwards = getattr(torch.ops.poolnb, name).default, move, backwards
        LIBRARY.impl(name, self._kernel, "CompositeExplicitAutograd")
        torch.library.register_fake(self.op, self._fake, lib=LIBRARY)
        differentiable(LIBRARY, self.op, self._gradient, lambda ctx, _, *moved: self._tangent(ctx, *moved), _save)
        torch.library.register_vmap(self.op, partial(self._batched, self.op), lib=LIBRARY)
        # torch.func and forward mode cannot see through an op's registered gradient: see `PoolOp`.
        rules = {"forward": self.op, "setup_context": _save, "backward": self._gradient, "jvp": self._tangent}
        methods = {key: staticmethod(rule) for key, rule in (*rules.items(), ("vmap", partial(self._batched, self)))}
        self.function: Any = type(name, (torch.autograd.Function,), methods)

    def __call__(self, x: Tensor, size: Sizes, output: Sizes) -> Tensor:
        if torch.onnx.is_in_onnx_export():
            return self.move(x, size, output)
        if torch.compiler.is_compiling() and in_forward_mode():
            raise NotImplementedError(
                "forward mode of an output_size cannot be compiled: call it outside torch.compile"
            )
        copy: Tensor = (self.op if torch.compiler.is_compiling() else self.function.apply)(x, size, output)
        return copy

    def _kernel(self, x: Tensor, size: Sizes, output: Sizes) -> Tensor:
        self._sizes(x, size, output)
        layout = memory_format(x)
        with torch._C._AutoDispatchBelowADInplaceOrView():
            if layout == torch.contiguous_format:
                moved = self.move(x, size, output)
            else:
                moved = self.move(x.movedim(1, -1), size, output, first=1).movedim(-1, 1)
            return in_layout(moved.clone() if moved.data_ptr() == x.data_ptr() else moved, layout)

    def _fake(self, x: Tensor, size: Sizes, output: Sizes) -> Tensor:
        sizes = self._sizes(x, size, output)
        return torch.empty((*x.shape[:2], *sizes), dtype=x.dtype, device=x.device, memory_format=memory_format(x))

    def _sizes(self, x: Tensor, size: Sizes, output: Sizes) -> tuple[int, ...]:
        """The spatial size of the copy, if the arguments are right."""
        dims = check_input(x)
        if not len(size) == len(output) == dims:
            raise ValueError(
                f"size and output_size must be sequences of {dims} ints beside input's shape {tuple(x.shape)}, got "
                f"{tuple(size)} and {tuple(output)}"
            )
        if any(not 1 <= n < 2**31 for n in size):
            raise ValueError(f"size must be at least 1 and below 2**31 in every dimension, got {tuple(size)}")
        beside = resolve(tuple(size), None, output_size=tuple(output)).size
        given, made = (beside, tuple(size)) if self.backwards else (tuple(size), beside)
        if (got := tuple(x.shape[2:])) != given:
            raise ValueError(f"input must have spatial size {given}, as size and output_size say, got {got}")
        return made

    def _gradient(self, ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return self.other(grad.contiguous(memory_format=ctx.layout), *ctx.sizes), None, None

    def _tangent(self, ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        return self(tangent, *ctx.sizes)

    @staticmethod
    def _batched(
        copy: Callable[..., Tensor], info: Any, in_dims: tuple[Any, ...], x: Tensor, size: Sizes, output: Sizes
    ) -> tuple[Tensor, int]:
        x = x.movedim(in_dims[0], 0)
        return copy(x.flatten(0, 1), size, output).unflatten(0, x.shape[:2]), 0


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.sizes, ctx.layout = inputs[1:], memory_format(inputs[0])


_copy, _add = (
    _Copy("adaptive_taps", _select, backwards=False),
    _Copy("adaptive_taps_backward", _collect, backwards=True),
)
_copy.other, _add.other = _add, _copy
