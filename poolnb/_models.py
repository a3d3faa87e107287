"""What can be told about somebody else's model: whether a pool is one as its class says, what a forward pass shows."""

from __future__ import annotations

import functools
import inspect
import re
import types
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from poolnb import modules

WINDOWED = {getattr(nn, f"{kind}Pool{d}d"): d for kind in ("Max", "Avg", "LP") for d in (1, 2, 3)}
ADAPTIVE = {getattr(nn, f"Adaptive{kind}Pool{d}d"): d for kind in ("Max", "Avg") for d in (1, 2, 3)}
REPLACEABLE = (modules.Pool, *WINDOWED, *ADAPTIVE)
_OURS = {getattr(modules, n) for n in modules.__all__} - {modules.Pool}

Sizes = tuple[int, ...]


# ---- a pool, or something that only looks like one -------------------------------------------------------------------

# What a subclass may say without computing anything else: how it is made and shown, and values of torch's own options.
_HARMLESS = set("__init__ __repr__ __str__ __annotate__ __annotate_func__ __class_getitem__ extra_repr".split())
_HARMLESS |= set("kernel_size stride padding dilation ceil_mode output_size norm_type".split())
_HARMLESS |= set("return_indices count_include_pad divisor_override".split())
_OPERATOR = set("op dims own options needs made_for reset_parameters".split())  # what a pooler of ours is made of
_CALL_HOOKS = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_backward_pre_hooks",
    "_backward_hooks",
    "_is_full_backward_hook",
)
_STATE_HOOKS = (
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


def peculiarity(module: nn.Module) -> str | None:
    """What makes a pool another thing than its class, in words; ``None`` if nothing does."""
    base, cls = _base(module), type(module)
    harmless = _HARMLESS | (_OPERATOR if base is modules.Pool else set())
    for part in (c for c in cls.__mro__ if c not in base.__mro__):
        for name, value in vars(part).items():
            special = name.startswith("__") and name.endswith("__")
            if name not in harmless and (callable(value) or not special):
                return f"its class defines {name}"
    known = _usual_names(base)
    held = (("parameter", module._parameters), ("buffer", module._buffers), ("module", module._modules))
    for kind, names in held:
        for name in names:
            if known and name not in known:
                return f"it holds a {kind} {name}"
    if any(getattr(module, hooks) for hooks in _STATE_HOOKS):
        return "it has hooks on its state_dict"
    return next((f"it has its own {name}" for name in _extras(module) if hasattr(cls, name)), None)


def _base(module: nn.Module) -> Any:
    """The class of torch or poolnb that a pool is made from."""
    return next(c for c in type(module).__mro__ if c in WINDOWED or c in ADAPTIVE or c in _OURS or c is modules.Pool)


@functools.cache
def _usual_names(base: Any) -> frozenset[str]:
    """The attributes that instances of a class have by themselves; none if that cannot be told."""
    if base is modules.Pool:
        return frozenset()
    with torch.device("meta"):  # draws no random numbers
        if issubclass(base, modules.Pool):
            example = base(2, **dict.fromkeys(base.needs(), 1))
        else:
            example = base(1, 1) if base.__name__.startswith("LP") else base(1)
    held = (example._parameters, example._buffers, example._modules)
    return frozenset().union(vars(example), inspect.signature(base).parameters, *held)


def _extras(module: nn.Module) -> list[str]:
    """Attributes that somebody gave to this one instance."""
    known = _usual_names(_base(module))
    return [name for name in vars(module) if known and name not in known]


def hand_over(old: nn.Module, new: nn.Module) -> None:
    """Give a pool's successor what others hung on it: hooks, and attributes that say something to them.

    Raises:
        ValueError: the successor has an attribute of that name.
    """
    for hooks in _CALL_HOOKS:
        setattr(new, hooks, getattr(old, hooks))  # the same dicts, so that the handles still remove their hooks
    for name in _extras(old):
        if hasattr(new, name):
            raise ValueError(f"its attribute {name} has another meaning there")
        setattr(new, name, getattr(old, name))


def held_elsewhere(model: nn.Module, pools: Iterable[nn.Module]) -> tuple[nn.Module, str] | None:
    """A pool that a module of the model also keeps in a list or as a method, where no successor gets, and where."""
    wanted = {id(m): m for m in pools}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name != "_modules":
                for found in _inside(value):
                    if id(found) in wanted and found is not module:
                        return wanted[id(found)], f"{path}.{name}".lstrip(".")
    return None


def _inside(value: Any, depth: int = 3) -> Iterator[Any]:
    if isinstance(value, nn.Module):
        yield value
    elif isinstance(value, types.MethodType):
        yield value.__self__
    elif isinstance(value, list | tuple | set | dict) and depth:
        for entry in value.values() if isinstance(value, dict) else value:
            yield from _inside(entry, depth - 1)


# ---- one forward pass ------------------------------------------------------------------------------------------------

_FUNCTION = re.compile(r"(max|avg|lp)_pool[123]d(_with_indices)?")


def _pool_function(function: Any) -> str | None:
    name = getattr(function, "__name__", "")
    return name.removesuffix("_with_indices") if _FUNCTION.search(name) else None


class _Watch(TorchFunctionMode):
    """Notes the input shapes of some modules, and the pools that are called as functions, not by modules."""

    def __init__(self, model: nn.Module, watched: Iterable[nn.Module]) -> None:
        super().__init__()
        self.shapes: dict[nn.Module, list[Sizes]] = {m: [] for m in watched}
        self.functions: dict[str, None] = {}  # an ordered set
        self._open: list[str | None] = []  # the modules being called; None for a pool
        self._hooks = [hook for name, m in model.named_modules() for hook in self._watch(name, m)]

    def _watch(self, name: str, module: nn.Module) -> list[Any]:
        if isinstance(module, torch.jit.ScriptModule):
            return []
        label = None if isinstance(module, REPLACEABLE) else name

        def before(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            self._open.append(label)
            if module in self.shapes:
                self.shapes[module].append(tuple((inputs[0] if inputs else named["input"]).shape))

        def after(module: nn.Module, inputs: Any, output: Any) -> None:
            self._open.pop()

        return [
            module.register_forward_pre_hook(before, with_kwargs=True),
            module.register_forward_hook(after, always_call=True),
        ]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = _pool_function(func)
        if name and None not in self._open:
            self.functions[_place(name, next(reversed(self._open), ""))] = None
        return func(*args, **(kwargs or {}))

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()


def _place(function: str, path: str | None) -> str:
    return f"{function} in {path}" if path else f"{function} in the model's own forward"


def watch(
    model: nn.Module, watched: Iterable[nn.Module], arguments: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[dict[nn.Module, list[Sizes]], list[str]]:
    """Call a model once in evaluation mode, without gradients; its modes, buffers and random numbers stay as they were.

    Returns:
        The input shapes of each watched module, one per call; the pools that were called as functions, and where.
    """
    modes = {m: m.training for m in model.modules()}
    buffers = [(m, dict(m._buffers), {n: b.clone() for n, b in m._buffers.items() if b is not None}) for m in modes]
    seen = _Watch(model, watched)
    try:
        model.eval()
        with torch.no_grad(), torch.random.fork_rng(_gpus(model)), seen:
            model(*arguments, **kwargs)
    finally:
        seen.remove()
        for module, mode in modes.items():
            module.training = mode
        for module, names, values in buffers:
            module._buffers.update(names)
            _restore(names, values)
    return seen.shapes, list(seen.functions)


def _restore(buffers: Mapping[str, Tensor | None], values: Mapping[str, Tensor]) -> None:
    """Only those that changed: writing to a buffer spoils a backward pass that still needs it."""
    with torch.no_grad():
        for name, value in values.items():
            buffer = buffers[name]
            if buffer is not None and not (buffer.is_meta or torch.equal(buffer, value)):
                buffer.copy_(value)


def _gpus(model: nn.Module) -> list[int]:
    return sorted({t.device.index for t in model.parameters() if t.is_cuda})


# ---- a symbolic trace ------------------------------------------------------------------------------------------------


class _Tracer(torch.fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, REPLACEABLE) or super().is_leaf_module(m, module_qualified_name)


def pool_functions(model: nn.Module) -> list[str]:
    """The pools that a model calls as functions, what and where, as far as ``torch.fx`` can follow its forward."""
    tracer = _Tracer()
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            tracer.trace(_twin(model, {}))
    except Exception:  # a forward that depends on its data: what was seen before counts
        pass
    nodes: Iterable[Any] = tracer.graph.nodes if hasattr(tracer, "graph") else []
    calls = ((_pool_function(n.target), n) for n in nodes if n.op == "call_function")
    return list(
        dict.fromkeys(_place(f, next(reversed(n.meta.get("nn_module_stack") or {}), "")) for f, n in calls if f)
    )


def _twin(module: nn.Module, made: dict[int, nn.Module]) -> nn.Module:
    """A copy that shares the parameters: a trace leaves its marks there, not on the model."""
    if id(module) not in made:
        twin = object.__new__(type(module))
        twin.__dict__.update(vars(module))
        made[id(module)] = twin
        twin._parameters = dict(module._parameters)
        twin._buffers = {n: b if b is None else b.clone() for n, b in module._buffers.items()}
        twin._modules = {n: m if m is None else _twin(m, made) for n, m in module._modules.items()}
        twin.training = False
    return made[id(module)]
