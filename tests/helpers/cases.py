"""Random calls of the operators: geometries, memory layouts, masks, and whole cases for hypothesis."""

from __future__ import annotations

import os
import random
from typing import Any

from devices import torch
from hypothesis import settings
from hypothesis import strategies as st
from operators import DTYPES, Case, Operator, Params, Setting
from torch import Tensor

from poolnb.geometry import adaptive_equal, resolve

LAYOUTS = ("contiguous", "channels_last", "transposed", "sliced", "expanded")


def examples(count: int) -> settings:
    """That many examples in an ordinary run, the profile's number in one that looks for new examples."""
    ordinary = os.environ.get("HYPOTHESIS_PROFILE", "ci") == "ci"
    return settings(max_examples=count) if ordinary else settings()


_LARGEST_AXIS = {1: 11, 2: 7, 3: 5}


@st.composite
def geometries(draw: st.DrawFn, dims: int) -> tuple[tuple[int, ...], dict[str, Any]]:
    """A spatial size and a geometry that gives at least one window; ints and tuples, defaults and all arguments."""
    size = tuple(draw(st.lists(st.integers(1, _LARGEST_AXIS[dims]), min_size=dims, max_size=dims)))
    if draw(st.integers(0, 9)) == 0:
        return size, {"kernel_size": None}

    def per_dim(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.lists(st.integers(low, high), min_size=dims, max_size=dims)))

    kernel, stride, dilation = per_dim(1, 3), per_dim(1, 4), per_dim(1, 2)
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    # Shrink what does not fit: first the dilation, then the kernel.
    room = [n + 2 * p for n, p in zip(size, padding, strict=True)]
    dilation = tuple(d if d * (k - 1) < r else 1 for d, k, r in zip(dilation, kernel, room, strict=True))
    kernel = tuple(min(k, r) for k, r in zip(kernel, room, strict=True))
    padding = tuple(min(p, k // 2) for p, k in zip(padding, kernel, strict=True))
    kernel = tuple(min(k, n + 2 * p) for k, n, p in zip(kernel, size, padding, strict=True))
    padding = tuple(min(p, k // 2) for p, k in zip(padding, kernel, strict=True))
    geometry: dict[str, Any] = {"kernel_size": kernel, "padding": padding, "dilation": dilation}
    geometry["stride"] = draw(st.sampled_from([stride, None]))
    geometry["ceil_mode"] = draw(st.booleans())
    for name in ("kernel_size", "stride", "padding", "dilation"):
        value = geometry[name]
        if value is not None and len(set(value)) == 1 and draw(st.booleans()):
            geometry[name] = value[0]
    return size, geometry


@st.composite
def wide_geometries(draw: st.DrawFn, operator: str, dims: int) -> tuple[tuple[int, ...], dict[str, Any]]:
    """As :func:`geometries`, and what torch's max pooling does not have: other padding, and an output size."""
    size, geometry = draw(geometries(dims))
    kind = draw(st.sampled_from(["torch's", "torch's", "same", "pairs", "output size"]))
    wide = dict(geometry)
    if kind == "output size":
        entries = [draw(st.sampled_from([None, 1, 2, 3, n + 1])) for n in size]
        wide = {"kernel_size": None, "output_size": draw(st.sampled_from([entries, tuple(entries), entries[0]]))}
    elif geometry["kernel_size"] is not None:
        spans = resolve(size, **geometry).span
        pairs = [tuple(draw(st.lists(st.integers(0, e - 1), min_size=2, max_size=2))) for e in spans]
        wide["padding"] = {"torch's": geometry["padding"], "same": "same", "pairs": pairs}[kind]
    try:
        return (size, wide) if takes(operator, size, wide) else (size, geometry)
    except ValueError:  # with less padding the windows do not fit
        return size, geometry


def takes(operator: str, size: tuple[int, ...], geometry: dict[str, Any]) -> bool:
    """Whether an operator has the windows of an output size; not any, if it has a number per tap or needs a stride."""
    windows = resolve(size, **geometry)
    if operator == "s3":
        asked = geometry.get("output_size")
        return asked in (None, 1) or (not isinstance(asked, int) and all(n == 1 for n in asked))
    if operator == "maxblur":
        return windows.source is None
    return operator not in ("blur", "gated", "rank", "tree") or all(
        map(adaptive_equal, windows.source or windows.output, windows.output)
    )


def laid_out(values: Tensor, layout: str) -> Tensor:
    """The same values in another memory layout."""
    if layout == "channels_last" and values.dim() in (4, 5):
        return values.contiguous(memory_format=torch.channels_last if values.dim() == 4 else torch.channels_last_3d)
    if layout == "transposed":
        return values.transpose(1, -1).contiguous().transpose(1, -1)
    if layout == "sliced":
        larger = values.new_full((values.size(0), values.size(1) + 1, *values.shape[2:-1], 2 * values.size(-1) + 1), 7)
        view = larger[:, 1:, ..., 1::2]
        return view.copy_(values)
    if layout == "expanded":
        return values[:1].expand(values.shape) if values.size(0) else values
    return values


def case(
    operator: Operator,
    dims: int,
    shape: tuple[int, ...],
    geometry: dict[str, Any],
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    mask: Tensor | None = None,
    layout: str = "contiguous",
    batched: bool = True,
    ties: bool = False,
    params: Params | None = None,
) -> Case:
    """A case from explicit choices; ``shape`` includes the batch dimension."""
    generator = torch.Generator().manual_seed(seed)
    values = 1.5 * torch.randn(shape, generator=generator, dtype=torch.float64)
    if ties:
        values = (values * 2).round() / 2
    x = laid_out(values.to(dtype), layout)
    windows = resolve(shape[2:], **geometry)
    setting = Setting(shape, windows, dtype, batched, random.Random(seed))
    if not batched:
        x = x[0]
    return Case(operator, dims, x, geometry, mask, {**operator.params(setting), **(params or {})}, batched)


@st.composite
def cases(
    draw: st.DrawFn, operator: Operator, dims: int, dtypes: tuple[torch.dtype, ...] = DTYPES, least_batch: int = 0
) -> Case:
    """Any legal call of an operator."""
    size, geometry = draw(wide_geometries(operator.name, dims))
    batched = draw(st.integers(0, 4)) > 0
    batch = draw(st.sampled_from([1, 2, least_batch])) if batched else 1
    shape = (batch, draw(st.sampled_from([1, 2, 3])), *size)
    return case(
        operator,
        dims,
        shape,
        geometry,
        seed=draw(st.integers(0, 2**31)),
        dtype=draw(st.sampled_from(dtypes)),
        mask=draw(masks(shape, batched)),
        layout=draw(st.sampled_from(LAYOUTS)),
        batched=batched,
        ties=draw(st.booleans()),
    )


@st.composite
def masks(draw: st.DrawFn, shape: tuple[int, ...], batched: bool = True) -> Tensor | None:
    """``None``, or a mask in one of the shapes that broadcast, which leaves some windows empty now and then."""
    if draw(st.booleans()):
        return None
    full = shape if batched else shape[1:]
    kept = [draw(st.booleans()) for _ in full]
    mask_shape = tuple(n if keep else 1 for n, keep in zip(full, kept, strict=True))
    mask_shape = mask_shape[draw(st.integers(0, len(mask_shape) - 1)) :]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    return torch.rand(mask_shape, generator=generator) < draw(st.sampled_from([0.3, 0.7, 0.9]))
