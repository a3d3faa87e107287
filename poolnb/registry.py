"""Finding poolers by name, and swapping them into a model."""

from __future__ import annotations

import fnmatch
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from poolnb import modules
from poolnb._models import (
    ADAPTIVE,
    REPLACEABLE,
    WINDOWED,
    Seen,
    Sizes,
    hand_over,
    held_elsewhere,
    named,
    peculiarity,
    pool_functions,
    watch,
)
from poolnb.geometry import IntOrSizes, OutputSize, check_output_size, padding_pairs, per_dim, resolve
from poolnb.modules import POOLS
from poolnb.modules._base import Device, check_factory
from poolnb.ops.checks import DTYPES


def list_pools() -> list[str]:
    """The names that :func:`create_pool` accepts, in alphabetical order."""
    return sorted(POOLS)


def pool_class(name: str, dims: int = 2) -> type[modules.Pool]:
    """The module class behind a name, for ``dims`` spatial dimensions."""
    if not isinstance(name, str) or name not in POOLS:
        raise ValueError(f"name must be one of {', '.join(list_pools())}, got {name!r}")
    if isinstance(dims, bool) or not isinstance(dims, int) or dims not in (1, 2, 3):
        raise ValueError(f"dims must be 1, 2 or 3, got {dims!r}")
    if dims not in POOLS[name]:
        raise ValueError(f"dims must be one of {', '.join(map(str, sorted(POOLS[name])))} for {name}, got {dims}")
    return POOLS[name][dims]


def register_pool(name: str, *classes: type[modules.Pool]) -> None:
    """Make a pooler of another package known to the functions of the registry, as :func:`poolnb.create_pool`.

    Args:
        name: a name that no pooler has yet.
        classes: subclasses of :class:`poolnb.Pool`, at most one for each number of dimensions.

    Raises:
        TypeError: a name that is no string, a class that is no subclass of Pool.
        ValueError: a name that is taken, no class, or two for the same number of dimensions.
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, got {name!r}")
    if name in POOLS:
        raise ValueError(f"name must be one that no pooler has, got {name!r}")
    for cls in classes:
        if not (isinstance(cls, type) and issubclass(cls, modules.Pool)):
            raise TypeError(f"classes must be subclasses of poolnb.Pool, got {cls!r}")
    by_dims = {cls.dims: cls for cls in classes}
    if not classes or len(by_dims) < len(classes):
        given = ", ".join(f"{cls.__name__} ({cls.dims})" for cls in classes) or "none"
        raise ValueError(f"classes must be at least one, each for another number of dimensions, got {given}")
    POOLS[name] = by_dims


def create_pool(
    name: str,
    kernel_size: IntOrSizes | None,
    stride: IntOrSizes | None = None,
    *,
    dims: int = 2,
    channels: int | None = None,
    output_size: OutputSize = None,
    device: Device = None,
    dtype: torch.dtype | None = None,
    **params: Any,
) -> modules.Pool:
    """Create a pooler by name.

    Args:
        name: one of :func:`list_pools`.
        kernel_size, stride: as the pooler takes them; further geometry (``padding``, ...) goes into ``params``.
        dims: number of spatial dimensions, 1 to 3.
        channels: number of input channels; passed on to poolers that need it, ignored by the others.
        output_size: spatial output size: with ``kernel_size=None`` that of the windows; beside a kernel passed on to
            poolers that need it, ignored by the others.
        device, dtype: of the parameters; ``None``: torch's default; ignored by poolers that have none.
        own: the pooler's own options.

    Raises:
        ValueError: an unknown name, ``channels`` or ``output_size`` missing where the pooler needs it, or below 1.
        TypeError: an option that the pooler does not have, the message listing those it has; ``channels`` or
            ``output_size`` of a wrong type; a ``dtype`` that is not one of float16, bfloat16, float32 and float64.
    """
    cls = pool_class(name, dims)
    accepted = _check_options(name, cls, params)
    check_output_size(dims, output_size)  # also where it is not needed
    if channels is not None:
        per_dim("channels", channels, 1, least=1)
        params |= {"channels": channels} if "channels" in accepted else {}
    if output_size is not None and (kernel_size is None or "output_size" in cls.needs(**params)):
        _check_options(name, cls, {"output_size": output_size})
        params["output_size"] = output_size
    factory = check_factory(device, dtype)
    params |= {key: value for key, value in factory.items() if key in accepted}
    missing = [n for n in cls.needs(**params) if params.get(n) is None]
    if missing:
        raise ValueError(f"{name} needs {' and '.join(missing)}")
    return cls(kernel_size, stride=stride, **params)


def _check_options(name: str, cls: type[modules.Pool], params: dict[str, Any]) -> list[str]:
    """The options that a pooler has, if all given ones are among them."""
    accepted = sorted(inspect.signature(cls).parameters)
    for option in params:
        if option not in accepted:
            raise TypeError(f"{name} has no option {option!r}; it accepts {', '.join(accepted)}")
    return accepted


# ---- swapping --------------------------------------------------------------------------------------------------------

_GEOMETRY = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")

Where = str | Callable[[str, nn.Module], bool]


def replace_pooling(
    model: nn.Module,
    name: str,
    types: type[nn.Module] | Sequence[type[nn.Module]] = (nn.MaxPool2d, nn.AvgPool2d),
    example_input: Tensor | Sequence[Any] | None = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    where: Where | None = None,
    device: Device = None,
    dtype: torch.dtype | None = None,
    **params: Any,
) -> int:
    """Replace pooling modules of a model by another pooler, in place. Either all are replaced or, on an error, none.

    **Kept.** The geometry: kernel size, stride, padding, dilation, ``ceil_mode``, or an adaptive pool's output size.
    The indices, where ``"max"`` replaces a max pool that returns them. The values, where a pool is replaced by its own
    kind: max by ``"max"``, average by ``"avg"``, Lp by ``"lp"`` with its norm (unless ``norm_type`` is given). A module
    that stands in several places is replaced by one module in all of them. Training mode; forward and backward hooks,
    which then get the new module; attributes that were set on a module. New parameters have the device and dtype of
    those around the module (those of the nearest module above it that has any), and learn unless all of these are
    frozen. A module that already is the new pooler stays as it is where ``params`` gives no options.

    **Refused**, by a ``ValueError`` that names the module: one whose class overrides or adds methods, so that it may
    compute something else (a parametrised one among them), or that has a ``forward``, parameters, buffers or modules
    of its own, or hooks on its ``state_dict``; ``return_indices``, unless by ``"max"``; ``divisor_override``. By
    ``"avg"``, an average that counts its padding, which poolnb never does; by ``"lp"``, an Lp whose norm is not an even
    number or infinity (torch sums signed powers there) or that has ``ceil_mode`` (torch scales windows that reach over
    the edge). A module that the model also keeps in a list or as a method, or that the pass over ``example_input``
    shows to be called from elsewhere; new parameters in a model that
    ``DistributedDataParallel`` or FSDP has already wrapped. ``where`` chooses other modules.

    **Left, with a warning** that names them: calls of ``torch.nn.functional`` inside a ``forward``, such as the last
    pool of torchvision's DenseNet. They are seen in the pass over ``example_input``, or without one as far as
    ``torch.fx`` can follow the model. An optimizer made before does not hold the new parameters.

    Args:
        model: any module that holds poolers.
        name: one of :func:`list_pools`.
        types: the classes to replace, subclasses included: ``nn.MaxPool*``, ``nn.AvgPool*``, ``nn.LPPool*``,
            ``nn.AdaptiveAvgPool*`` and ``nn.AdaptiveMaxPool*``, and poolnb's own.
        example_input: an input of the model, or a sequence of its positional arguments. Needed when the pooler has
            parameters per channel or per position: one forward pass in evaluation mode, without gradients, then tells
            ``channels`` and ``output_size``, and leaves modes, buffers and random numbers as they were.
        kwargs: keyword arguments of the model in that pass.
        device, dtype: of new parameters; ``None``: those of the parameters around.
        where: which of these modules: a pattern of their names (``"layer1.*"``, as ``fnmatch`` has it), or a
            function of name and module. A module in several places is replaced in those that are chosen.
        own: options of the new pooler, such as ``beta=2.0``.

    Returns:
        int: how many modules of ``types`` that ``where`` chooses are now of the new kind, each counted once; 0 if the
        model holds none.

    Raises:
        TypeError: a type that cannot be replaced, an option that the pooler does not have, ``kwargs`` that is no
            mapping or ``where`` that is neither a pattern nor a function.
        ValueError: an unknown name, a module that is refused as said above, a missing ``example_input`` or one that the
            model fails on, a module that the forward pass does not reach or reaches with inputs of different sizes.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    wanted = _check_types(types)
    arguments = _check_example(example_input, kwargs)
    chosen = _check_where(where)
    _check_options(name, pool_class(name), params)  # a fault is one even where nothing is to be replaced
    factory = check_factory(device, dtype)
    if isinstance(model, wanted):
        raise ValueError(f"model must hold the poolers to replace, got a {type(model).__name__} itself")
    found = model.named_modules(remove_duplicate=False)
    places = [(path, m) for path, m in found if isinstance(m, wanted) and chosen(path, m)]
    olds = {m: path for path, m in reversed(places)}  # each module once, with its first path
    for module, path in olds.items():
        _check_replaceable(module, path, name)
    _check_reachable(model, olds)
    geometries = {m: {**_geometry_of(m), **{n: params[n] for n in _GEOMETRY if n in params}} for m in olds}
    new = [m for m in olds if params or type(m) is not pool_class(name, _dims_of(m))]
    needs = any(params.get(n) is None for m in new for n in pool_class(name, _dims_of(m)).needs(**params))
    if needs and arguments is None:
        raise ValueError(f"example_input must be given for {name}, whose parameters depend on its input, got None")
    seen = _look(model, places, arguments)
    news = {m: _successor(m, path, name, geometries[m], seen.shapes.get(m), params) for m, path in olds.items()}
    for module in seen.elsewhere:
        if news[module] is not module:
            raise ValueError(
                f"{named(olds[module], module)} is called from somewhere else than its place in the model, where it "
                "cannot be replaced"
            )
    _fit(model, places, news, params, factory)
    for old, path in olds.items():
        if news[old] is not old:
            _try(news[old], named(path, old), name, seen.shapes.get(old, []))
    if seen.functions:
        warnings.warn(
            f"replace_pooling leaves pools that are functions, not modules: {', '.join(seen.functions)}", stacklevel=2
        )
    for path, module in places:
        parent, _, child = path.rpartition(".")
        model.get_submodule(parent)._modules[child] = news[module]  # cannot fail half-way, as setattr might
    return len(news)


def _check_types(types: Any) -> tuple[type[nn.Module], ...]:
    given = tuple(types) if isinstance(types, list | tuple) else (types,)
    for t in given:
        if not (isinstance(t, type) and issubclass(t, REPLACEABLE)):
            accepted = "torch.nn's MaxPool, AvgPool, LPPool, AdaptiveMaxPool and AdaptiveAvgPool, and poolnb's poolers"
            raise TypeError(f"types must be classes among {accepted}, got {t!r}")
    return given


def _check_example(example_input: Any, kwargs: Any) -> tuple[Sequence[Any], Mapping[str, Any]] | None:
    """The arguments of the example call; ``None`` if there is to be none."""
    if not (kwargs is None or (isinstance(kwargs, Mapping) and all(isinstance(k, str) for k in kwargs))):
        raise TypeError(f"kwargs must be a dict of the model's keyword arguments by name, got {kwargs!r}")
    if example_input is None:
        return None if kwargs is None else ((), kwargs)
    if not isinstance(example_input, Tensor | list | tuple) or (
        isinstance(example_input, list | tuple) and not example_input
    ):
        raise TypeError(
            "example_input must be a torch.Tensor or a sequence of arguments (those by name go into kwargs), "
            f"got {example_input!r}"
        )
    return [example_input] if isinstance(example_input, Tensor) else example_input, kwargs or {}


def _check_where(where: Where | None) -> Callable[[str, nn.Module], bool]:
    if where is None:
        return lambda path, module: True
    if isinstance(where, str):
        return lambda path, module: fnmatch.fnmatchcase(path, where)
    if not callable(where):
        raise TypeError(f"where must be a pattern of names or a function of name and module, got {where!r}")
    return where


def _dims_of(module: nn.Module) -> int:
    if isinstance(module, modules.Pool):
        return module.dims
    return next(d for t, d in {**WINDOWED, **ADAPTIVE}.items() if isinstance(module, t))


def _check_replaceable(module: nn.Module, path: str, name: str) -> None:
    """Whether a geometry says all about a pool."""
    what = named(path, module)
    if (why := peculiarity(module)) is not None:
        raise ValueError(f"types: a pool must be as its class in torch or poolnb to be replaced; {why}: {what}")
    if isinstance(module, modules.Pool) and not module.listed:
        raise ValueError(f"types: a pool that changes the number of channels cannot be replaced, got {what}")
    if getattr(module, "return_indices", False) and pool_class(name, _dims_of(module)).op != "max":
        raise ValueError(f"types: a pool that returns indices can be replaced by max alone, got {what}")
    if getattr(module, "divisor_override", None) is not None:
        raise ValueError(f"types: a pool with divisor_override cannot be replaced, got {what}")


def _check_reachable(model: nn.Module, olds: dict[nn.Module, str]) -> None:
    elsewhere = held_elsewhere(model, olds)
    if elsewhere is not None:
        module, place = elsewhere
        raise ValueError(f"{named(olds[module], module)} is held by {place} as well, where it cannot be replaced")


def _geometry_of(module: nn.Module) -> dict[str, Any]:
    if isinstance(module, tuple(ADAPTIVE)):
        size = module.output_size
        return {"kernel_size": None, **_asked((None,) * _dims_of(module) if size is None else size)}
    if isinstance(module, modules.Pool) and module.kernel_size is None:
        return {"kernel_size": None, **_asked(1 if module.output_size is None else module.output_size)}
    found = {n: getattr(module, n) for n in _GEOMETRY if hasattr(module, n)}
    return {**found, "ceil_mode": bool(found["ceil_mode"])}  # torch takes 0 and 1 too


def _asked(size: Any) -> dict[str, Any]:
    """The output size in the place of a kernel; one window over everything needs none."""
    entries = size if isinstance(size, list | tuple) else (size,)
    return {} if all(n == 1 for n in entries) else {"output_size": size}


def _look(
    model: nn.Module, places: list[tuple[str, nn.Module]], arguments: tuple[Sequence[Any], Mapping[str, Any]] | None
) -> Seen:
    """What one forward pass shows, if there is an example; else the pools that are functions."""
    if arguments is None:
        return Seen({}, pool_functions(model), [])
    try:
        return watch(model, places, *arguments)
    except Exception as error:
        raise ValueError(f"example_input must be an input that the model accepts, but it fails: {error}") from error


def _successor(
    old: nn.Module,
    path: str,
    name: str,
    geometry: dict[str, Any],
    shapes: list[Sizes] | None,
    params: dict[str, Any],
) -> nn.Module:
    cls = pool_class(name, _dims_of(old))
    if type(old) is cls and not params:
        return old
    missing = [n for n in cls.needs(**params) if params.get(n) is None]
    found = _found_sizes(path, missing, shapes, _dims_of(old), geometry) if missing else {}
    try:
        sized = params.get("output_size")
        if sized is not None and geometry["kernel_size"] is not None and "output_size" not in cls.needs(**params):
            raise ValueError(f"output_size must be left out beside a kernel_size, got {sized!r}")
        options = {**_same_values(old, cls, params), **params}
        new = create_pool(name, dims=cls.dims, **{**geometry, **options, **found})
        new.train(old.training)
        hand_over(old, new)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{named(path, old)} cannot become {name}: {error}") from error
    return new


def _found_sizes(
    path: str, missing: Sequence[str], shapes: list[Sizes] | None, dims: int, geometry: dict[str, Any]
) -> dict[str, Any]:
    """What a constructor misses, from all calls of the old pooler, which have to agree."""
    if not shapes:
        raise ValueError(f"example_input: the forward pass does not reach {path}, so that its input is unknown")
    found = []
    for shape in shapes:
        sizes = {"channels": shape[-dims - 1], "output_size": resolve(shape[-dims:], **geometry).output}
        found.append({n: sizes[n] for n in missing})
    other = next((s for s, f in zip(shapes, found, strict=True) if f != found[0]), None)
    if other is not None:
        raise ValueError(f"{path} is called with inputs of different sizes: {shapes[0]} and {other}")
    return found[0]


def _same_values(old: Any, cls: type[modules.Pool], params: dict[str, Any]) -> dict[str, Any]:
    """The options with which a pool of the same kind computes what the old one does.

    Raises:
        ValueError: there are none.
    """
    if cls.op == "max" and getattr(old, "return_indices", False):
        return {"return_indices": True}
    average = isinstance(old, (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d))
    if (
        cls.op == "avg"
        and average
        and old.count_include_pad
        and any(map(any, padding_pairs(old.padding, cls.dims) or ()))
    ):
        raise ValueError("it counts its padding (count_include_pad=True), which poolnb never does")
    if cls.op != "lp" or "norm_type" in params or not hasattr(old, "norm_type"):
        return {}
    if isinstance(old, modules.Pool):
        return {"norm_type": old.norm_type}
    norm = float(old.norm_type)
    if norm == float("inf"):
        return {"norm_type": norm}
    if norm <= 0 or norm % 2:
        raise ValueError(f"torch sums signed powers unless norm_type is even, got {norm}; norm_type=... chooses one")
    if old.ceil_mode:
        raise ValueError("torch scales windows that reach over the edge (ceil_mode=True); norm_type=... chooses a norm")
    return {"norm_type": norm}


def _fit(
    model: nn.Module,
    places: list[tuple[str, nn.Module]],
    news: dict[nn.Module, nn.Module],
    params: dict[str, Any],
    factory: dict[str, Any],
) -> None:
    """Give new parameters the device and dtype of those around them, unless ``factory`` says others, and freeze them
    where all of these are frozen.
    """
    _check_unwrapped(model, news)
    for path, old in reversed(places):  # a shared module follows its first place
        new = news[old]
        around = _tensors_around(model, path)
        if new is old:
            continue
        device, dtype = (around[0].device, around[0].dtype) if around else (None, None)
        new.to(factory["device"] or device, factory["dtype"] or dtype)
        if around and all(isinstance(t, nn.Parameter) and not t.requires_grad for t in around):
            for parameter in new.parameters():
                parameter.requires_grad_(any(parameter is option for option in params.values()))


def _try(new: Any, what: str, name: str, shapes: list[Sizes]) -> None:
    """Whether the pooler takes what the model gives it: some refuse windows of unequal size, or very large ones."""
    like = next(new.parameters(), torch.empty(0))
    training = new.training
    new.eval()  # draws no random numbers
    try:
        for shape in dict.fromkeys((*(1,) * (len(s) - new.dims - 1), *s[-new.dims - 1 :]) for s in shapes):
            with torch.no_grad():
                new.forward(like.new_zeros(shape))  # past the hooks
    except (TypeError, ValueError) as error:
        raise type(error)(f"{what} cannot become {name}: {error}") from error
    finally:
        new.train(training)


def _check_unwrapped(model: nn.Module, news: dict[nn.Module, nn.Module]) -> None:
    wrappers = ("DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule")
    if any(c.__name__ in wrappers for m in model.modules() for c in type(m).__mro__):
        for old, new in news.items():
            if new is not old and any(True for _ in new.parameters()):
                raise ValueError(f"model is wrapped for several processes and would not share {new}; replace before")


def _tensors_around(model: nn.Module, path: str) -> list[Tensor]:
    """Floating parameters, else buffers, of the nearest module above a place that has any."""
    while path:
        path = path.rpartition(".")[0]
        above = model.get_submodule(path)
        for tensors in (list(above.parameters()), list(above.buffers())):
            usable = [t for t in tensors if t.dtype in DTYPES]
            if usable:
                return usable
    return []
