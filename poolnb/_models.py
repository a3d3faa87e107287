"""What can be told about somebody else's model: whether a pool is one as its class says, what a forward pass shows."""

from __future__ import annotations

import contextlib
import functools
import inspect
import random
import re
import sys
import types
import warnings
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
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
_VALUES = set("kernel_size stride padding dilation ceil_mode output_size norm_type".split())
_VALUES |= set("return_indices count_include_pad divisor_override".split())
_OPERATOR = set("op dims params options needs made_for reset_parameters".split())  # what a pooler of ours is made of
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
            if name in harmless or (name in _VALUES and not hasattr(value, "__get__")):  # a property computes something
                continue
            if callable(value) or not special:
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


def named(path: str, module: nn.Module) -> str:
    """A module in words: its place, and what it says of itself, if it can."""
    try:
        return f"{path} ({module})"
    except Exception:  # a subclass without what its base shows
        return f"{path} ({type(module).__name__})"


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
    """A pool that a module of the model also keeps where no successor gets, in a list or a function, and where."""
    wanted = {id(m): m for m in pools}
    for path, module in model.named_modules():
        classes = [c for c in type(module).__mro__ if not c.__module__.startswith("torch.")]
        held = [*vars(module).items(), *(item for c in classes for item in vars(c).items())]
        for name, value in held:
            if name != "_modules":
                # What a hook looks at is its own business, as long as it is no pool's method.
                deep = name not in (*_CALL_HOOKS, *_STATE_HOOKS)
                for found in _inside(value, deep):
                    if id(found) in wanted and found is not module:
                        return wanted[id(found)], f"{path}.{name}".lstrip(".")
    return None


def _inside(value: Any, deep: bool, depth: int = 3) -> Iterator[nn.Module]:
    """The modules that a value holds; ``deep``: also those of functions and of plain objects."""
    if isinstance(value, nn.Module):
        yield value
    elif isinstance(value, types.MethodType | functools.partial | list | tuple | set | frozenset | deque | dict):
        for entry in _entries(value) if depth else ():
            yield from _inside(entry, deep, depth - 1)
    elif deep and depth and not isinstance(value, Tensor | type | types.ModuleType):
        for entry in _entries(value):
            yield from _inside(entry, deep, depth - 1)


def _entries(value: Any) -> Iterable[Any]:
    if isinstance(value, types.MethodType):
        return (value.__self__, value.__func__)
    if isinstance(value, functools.partial):
        return (value.func, *value.args, *value.keywords.values())
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, list | tuple | set | frozenset | deque):
        return value
    if isinstance(value, weakref.ref):
        return (value(),)
    if isinstance(value, property):
        return (value.fget, value.fset, value.fdel)
    return (*_closed_over(value), *_attributes(value))


def _closed_over(value: Any) -> Iterator[Any]:
    """What a function remembers."""
    if isinstance(value, types.FunctionType):
        for cell in value.__closure__ or ():
            with contextlib.suppress(ValueError):  # an empty one
                yield cell.cell_contents
        yield from (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values())


def _attributes(value: Any) -> Iterator[Any]:
    """Those that stand in an object itself, without a question to its class."""
    with contextlib.suppress(AttributeError):
        yield from object.__getattribute__(value, "__dict__").values()
    for slot in (d for c in type(value).__mro__ if "__slots__" in vars(c) for d in vars(c).values()):
        if isinstance(slot, types.MemberDescriptorType):
            with contextlib.suppress(AttributeError):  # an empty one
                yield slot.__get__(value)


# ---- one forward pass ------------------------------------------------------------------------------------------------

_FUNCTION = re.compile(r"(max|avg|lp)_pool[123]d(_with_indices)?")


def _pool_function(function: Any) -> str | None:
    name = getattr(function, "__name__", "")
    return name.removesuffix("_with_indices") if _FUNCTION.search(name) else None


class _Watch(TorchFunctionMode):
    """Notes the input shapes of some modules, and the pools that are called as functions, not by modules.

    ``standing`` are the modules that stand in the places of those during the pass, and share their hooks. Who calls one
    of those itself holds it somewhere else.
    """

    def __init__(self, standing: Mapping[nn.Module, nn.Module]) -> None:
        super().__init__()
        self.shapes: dict[nn.Module, list[Sizes]] = {m: [] for m in standing.values()}
        self.elsewhere: list[nn.Module] = []
        self.functions: dict[str, None] = {}  # an ordered set
        self._standing = standing
        self._open: list[str | None] = []  # the modules being called; None for a pool

    def hooks(self, name: str, module: nn.Module) -> Iterator[Any]:
        """Hook a module; yields the handles."""
        if isinstance(module, torch.jit.ScriptModule):
            return
        label = None if isinstance(module, REPLACEABLE) else name

        def before(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            self._open.append(label)
            if module in self.shapes:
                self.elsewhere.append(module)
            watched = self._standing.get(module, module)
            if watched in self.shapes:
                self.shapes[watched].append(tuple((inputs[0] if inputs else named["input"]).shape))

        def after(module: nn.Module, inputs: Any, output: Any) -> None:
            self._open.pop()

        yield module.register_forward_pre_hook(before, with_kwargs=True)
        yield module.register_forward_hook(after, always_call=True)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = _pool_function(func)
        if name and None not in self._open:
            self.functions[_place(name, next(reversed(self._open), ""))] = None
        return func(*args, **(kwargs or {}))


def _place(function: str, path: str | None) -> str:
    return f"{function} in {path}" if path else f"{function} in the model's own forward"


class Seen(NamedTuple):
    """What a forward pass shows."""

    shapes: dict[nn.Module, list[Sizes]]  # the inputs' of each watched module, one per call
    functions: list[str]  # the pools that were called as functions, and where
    elsewhere: list[nn.Module]  # watched modules that were called, but not from their places


def watch(
    model: nn.Module, watched: Sequence[tuple[str, nn.Module]], arguments: Sequence[Any], kwargs: Mapping[str, Any]
) -> Seen:
    """Call a model once in evaluation mode, without gradients, with an eye on modules in their places.

    Whatever it holds and whatever it raises, its modes, buffers, hooks and random numbers are as before afterwards.
    """
    with contextlib.ExitStack() as after:
        after.enter_context(torch.random.fork_rng(_gpus(model)))
        after.callback(random.setstate, random.getstate())
        if (numpy := sys.modules.get("numpy")) is not None:
            after.callback(numpy.random.set_state, numpy.random.get_state())
        for module in model.modules():
            _keep(module, after)
        standing = {_shallow(m): m for m in dict.fromkeys(m for _, m in watched)}
        by_original = {m: s for s, m in standing.items()}
        for path, module in watched:
            parent, _, child = path.rpartition(".")
            children = model.get_submodule(parent)._modules
            after.callback(children.__setitem__, child, module)
            children[child] = by_original[module]
        seen = _Watch(standing)
        for name, module in model.named_modules():
            for hook in seen.hooks(name, module):
                after.callback(hook.remove)
        model.eval()
        with torch.no_grad(), seen:
            model(*arguments, **kwargs)
    return Seen(seen.shapes, list(seen.functions), seen.elsewhere)


def _shallow(module: nn.Module) -> nn.Module:
    """Another module of the same state, down to the hooks."""
    twin = object.__new__(type(module))
    twin.__dict__.update(vars(module))
    return twin


def _keep(module: nn.Module, after: contextlib.ExitStack) -> None:
    """Have a module's mode, buffers and generators put back."""
    after.callback(setattr, module, "training", module.training)
    values = {n: b.clone() for n, b in module._buffers.items() if b is not None and not is_lazy(b)}
    after.callback(_restore, module, dict(module._buffers.items()), values)
    for value in vars(module).values():
        if isinstance(value, torch.Generator):
            after.callback(value.set_state, value.get_state())


def _restore(module: nn.Module, buffers: Mapping[str, Tensor | None], values: Mapping[str, Tensor]) -> None:
    """Only those that changed: writing to a buffer spoils a backward pass that still needs it."""
    if isinstance(module, torch.jit.ScriptModule):  # its compiled code holds the names
        for name in values:
            setattr(module, name, buffers[name])
    else:
        module._buffers.clear()
        module._buffers.update(buffers)
    for name, value in values.items():
        buffer = buffers[name]
        assert buffer is not None
        if buffer.is_meta or _equal(buffer, value):
            continue
        with torch.inference_mode(buffer.is_inference()), torch.no_grad():
            buffer.copy_(value)


def _equal(first: Tensor, second: Tensor) -> bool:
    try:
        return torch.equal(first, second)
    except RuntimeError:  # a layout that cannot be compared
        return False


def _gpus(model: nn.Module) -> list[int]:
    return sorted({t.device.index for t in model.parameters() if t.is_cuda})


# ---- a symbolic trace ------------------------------------------------------------------------------------------------


class _Tracer(torch.fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (*REPLACEABLE, torch.jit.ScriptModule)) or super().is_leaf_module(m, module_qualified_name)


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
    if isinstance(module, torch.jit.ScriptModule):
        return module
    if id(module) not in made:
        made[id(module)] = twin = _shallow(module)
        twin._parameters = dict(module._parameters)
        twin._buffers = {n: b if b is None else b.clone() for n, b in module._buffers.items()}
        twin._modules = {n: m if m is None else _twin(m, made) for n, m in module._modules.items()}
        twin.training = False
    return made[id(module)]
