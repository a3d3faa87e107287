"""What is timed: our kernels, torch's own pooling, what users write, and a copy."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from poolnb import baselines, functional, native, published
from poolnb.bench.work import CHANNELS_LAST, WORK, Setting, base, parameters

Run = Callable[[], Any]
Task = Callable[[], Run]  # makes ready what is timed, and gives it
Key = tuple[str, str, str]  # operator, kernel, direction

_ATEN: dict[str, Callable[..., Tensor]] = {"aten max": baselines.maximum, "aten avg": baselines.mean}
_FORMS = {"plain": baselines.PLAIN, "stable": baselines.STABLE}
_EAGER = " eager"
_RIVALS = tuple(form + way for form in _FORMS for way in ("", _EAGER))  # "": through torch.compile
KERNELS = ("compiled", "pytorch", *_RIVALS)


def all_tasks(setting: Setting, operators: Sequence[str], kernels: Sequence[str]) -> dict[Key, Task]:
    """(operator, kernel, direction) -> what does it once."""
    x = setting.input()
    ready = torch.empty_like(x)
    windows = WORK[setting.windows].windows(x)
    tasks: dict[Key, Task] = {("copy_", "aten", "forward"): lambda: lambda: ready.copy_(x)}
    x.requires_grad_()
    for name, pool in _ATEN.items():
        _add(tasks, name, "aten", partial(pool, x, windows), [x])
    output = baselines.maximum(x.detach(), windows).shape[2:]
    for name in operators:
        pool = getattr(functional, f"{base(name)}_pool{setting.dims}d")
        params = parameters(name, setting, output)
        leaves = [x, *(t for t in params.values() if isinstance(t, Tensor))]
        forward = partial(pool, x, *windows.geometry, **params, mask=windows.mask)
        if "pytorch" in kernels:
            _add(tasks, name, "pytorch", _with(native.disabled, forward), leaves)
        if "compiled" in kernels and base(name) in native.operators(x.device.type):
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
    return torch.contiguous_format if y.is_contiguous() else CHANNELS_LAST[y.dim()]
