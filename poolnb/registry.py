"""Finding poolers by name, and swapping them into a model."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from poolnb import modules
from poolnb.geometry import IntOrSizes, per_dim, resolve

# name -> class name without its dimension
_POOLS = {
    "attention": "AttentionPool",
    "auto": "AutoPool",
    "avg": "AvgPool",
    "gated": "GatedPool",
    "gem": "GeMPool",
    "lip": "LIPPool",
    "lp": "LpPool",
    "lse": "LSEPool",
    "max": "MaxPool",
    "mixed": "MixedPool",
    "s3": "S3Pool",
    "soft": "SoftPool",
    "stochastic": "StochasticPool",
    "swap": "SoftPool",
    "tdgs": "TDGSPool",
    "tree": "TreePool",
}


def list_pools() -> list[str]:
    """The names that :func:`create_pool` accepts, in alphabetical order."""
    return sorted(_POOLS)


def pool_class(name: str, dims: int = 2) -> type[modules.Pool]:
    """The module class behind a name, for ``dims`` spatial dimensions."""
    if not isinstance(name, str) or name not in _POOLS:
        raise ValueError(f"name must be one of {', '.join(list_pools())}, got {name!r}")
    if isinstance(dims, bool) or not isinstance(dims, int) or dims not in (1, 2, 3):
        raise ValueError(f"dims must be 1, 2 or 3, got {dims!r}")
    return getattr(modules, f"{_POOLS[name]}{dims}d")


def create_pool(
    name: str,
    kernel_size: IntOrSizes | None,
    stride: IntOrSizes | None = None,
    *,
    dims: int = 2,
    channels: int | None = None,
    output_size: IntOrSizes | None = None,
    **own: Any,
) -> torch.nn.Module:
    """Create a pooler by name.

    Args:
        name: one of :func:`list_pools`.
        kernel_size, stride: as the pooler takes them; further geometry (``padding``, ...) goes into ``own``.
        dims: number of spatial dimensions, 1 to 3.
        channels: number of input channels; passed on to poolers that need it, ignored by the others.
        output_size: spatial output size; likewise.
        own: the pooler's own options.

    Raises:
        ValueError: an unknown name, ``channels`` or ``output_size`` missing where the pooler needs it, or below 1.
        TypeError: an option that the pooler does not have, the message listing those it has; ``channels`` or
            ``output_size`` of a wrong type.
    """
    cls = pool_class(name, dims)
    accepted = _check_options(name, cls, own)
    for key, value, entries in (("channels", channels, 1), ("output_size", output_size, dims)):
        if value is None:
            continue
        per_dim(key, value, entries, least=1)  # also where it is not needed
        if key in accepted:
            own[key] = value
    missing = [n for n in cls.needs(**own) if own.get(n) is None]
    if missing:
        raise ValueError(f"{name} needs {' and '.join(missing)}")
    return cls(kernel_size, stride=stride, **own)


def _check_options(name: str, cls: type[modules.Pool], own: dict[str, Any]) -> list[str]:
    """The options that a pooler has, if all given ones are among them."""
    accepted = sorted(inspect.signature(cls).parameters)
    for option in own:
        if option not in accepted:
            raise TypeError(f"{name} has no option {option!r}; it accepts {', '.join(accepted)}")
    return accepted


# ---- swapping --------------------------------------------------------------------------------------------------------

_GEOMETRY = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
_WINDOWED = {getattr(nn, f"{kind}Pool{d}d"): d for kind in ("Max", "Avg", "LP") for d in (1, 2, 3)}
_ADAPTIVE = {getattr(nn, f"Adaptive{kind}Pool{d}d"): d for kind in ("Max", "Avg") for d in (1, 2, 3)}
_REPLACEABLE = (modules.Pool, *_WINDOWED, *_ADAPTIVE)

Sizes = tuple[int, ...]


def replace_pooling(
    model: nn.Module,
    name: str,
    types: type[nn.Module] | Sequence[type[nn.Module]] = (nn.MaxPool2d, nn.AvgPool2d),
    example_input: Tensor | Sequence[Any] | None = None,
    **own: Any,
) -> int:
    """Replace pooling modules of a model by another pooler, in place.

    Each keeps its geometry: kernel size, stride, padding, dilation, ``ceil_mode``. An adaptive pool of output size 1
    becomes global pooling. A module that stands in several places is replaced by one module in all of them. Training
    mode, and the device and dtype of the model's parameters, carry over. Either all are replaced or, on an error, none.

    Three things to know. A call of ``torch.nn.functional`` inside a ``forward`` is no module and stays as it is, as
    the last pool of torchvision's DenseNet does. Padding never counts for the new pooler, while ``nn.AvgPool2d`` counts
    it by default. And ``nn.AvgPool2d`` has no dilation to keep.

    Args:
        model: any module that holds poolers.
        name: one of :func:`list_pools`.
        types: the classes to replace, subclasses included: ``nn.MaxPool*``, ``nn.AvgPool*``, ``nn.LPPool*``,
            ``nn.AdaptiveAvgPool*`` and ``nn.AdaptiveMaxPool*`` of output size 1, and poolnb's own.
        example_input: an input of the model, or a sequence of its positional arguments. Needed when the pooler has
            parameters per channel or per position: one forward pass in evaluation mode, without gradients, then tells
            ``channels`` and ``output_size``.
        own: options of the new pooler, such as ``beta=2.0``.

    Returns:
        int: how many modules were replaced; 0 if the model holds none of ``types``.

    Raises:
        TypeError: a type that cannot be replaced, or an option that the pooler does not have.
        ValueError: an unknown name, a module without a fixed window, with ``return_indices`` or ``divisor_override``,
            a missing ``example_input`` or one that the model fails on, a module that the forward pass does not reach
            or reaches with inputs of different sizes.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    wanted = _check_types(types)
    _check_options(name, pool_class(name), own)  # a fault is one even where nothing is to be replaced
    if isinstance(model, wanted):
        raise ValueError(f"model must hold the poolers to replace, got a {type(model).__name__} itself")
    places = [(path, m) for path, m in model.named_modules(remove_duplicate=False) if isinstance(m, wanted)]
    olds = {m: path for path, m in reversed(places)}  # each module once, with its first path
    geometries = {m: _geometry_of(m, path) for m, path in olds.items()}
    shapes: dict[nn.Module, Sizes] = {}
    if any(own.get(n) is None for m in olds for n in pool_class(name, _dims_of(m)).needs(**own)):
        shapes = _record_shapes(model, olds, name, example_input)
    news = {m: _successor(m, path, name, geometries[m], shapes.get(m), own) for m, path in olds.items()}
    _move(news.values(), model)
    for path, module in places:
        parent, _, child = path.rpartition(".")
        setattr(model.get_submodule(parent), child, news[module])
    return len(news)


def _check_types(types: Any) -> tuple[type[nn.Module], ...]:
    given = tuple(types) if isinstance(types, list | tuple) else (types,)
    for t in given:
        if not (isinstance(t, type) and issubclass(t, _REPLACEABLE)):
            accepted = "torch.nn's MaxPool, AvgPool, LPPool, AdaptiveMaxPool and AdaptiveAvgPool, and poolnb's poolers"
            raise TypeError(f"types must be classes among {accepted}, got {t!r}")
    return given


def _dims_of(module: nn.Module) -> int:
    if isinstance(module, modules.Pool):
        return module.dims
    return next(d for t, d in {**_WINDOWED, **_ADAPTIVE}.items() if isinstance(module, t))


def _geometry_of(module: nn.Module, path: str) -> dict[str, Any]:
    what = f"{path} ({module})"
    if isinstance(module, tuple(_ADAPTIVE)):
        size = module.output_size if isinstance(module.output_size, tuple) else (module.output_size,)
        if any(n != 1 for n in size):
            raise ValueError(f"types: an adaptive pool must have output size 1 to be replaced, got {what}")
        return {"kernel_size": None}
    if getattr(module, "return_indices", False):
        raise ValueError(f"types: a pool that returns indices cannot be replaced, got {what}")
    if getattr(module, "divisor_override", None) is not None:
        raise ValueError(f"types: a pool with divisor_override cannot be replaced, got {what}")
    return {n: getattr(module, n) for n in _GEOMETRY if hasattr(module, n)}


def _record_shapes(
    model: nn.Module, olds: dict[nn.Module, str], name: str, example_input: Any
) -> dict[nn.Module, Sizes]:
    """The input shape of every pooler in one forward pass; the model is left as it was."""
    if example_input is None:
        raise ValueError(f"example_input must be given for {name}, whose parameters depend on its input, got None")
    if not isinstance(example_input, Tensor | list | tuple) or not len(example_input):
        raise TypeError(f"example_input must be a torch.Tensor or a sequence of arguments, got {example_input!r}")
    seen: dict[nn.Module, list[Sizes]] = {m: [] for m in olds}

    def record(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        x = inputs[0] if inputs else named["input"]
        seen[module].append(tuple(x.shape))

    hooks = [m.register_forward_pre_hook(record, with_kwargs=True) for m in olds]
    modes = {m: m.training for m in model.modules()}
    try:
        model.eval()
        with torch.no_grad():
            model(*([example_input] if isinstance(example_input, Tensor) else example_input))
    except Exception as error:
        raise ValueError(f"example_input must be an input that the model accepts, but it fails: {error}") from error
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    return {m: _one_shape(path, seen[m], _dims_of(m)) for m, path in olds.items()}


def _one_shape(path: str, shapes: list[Sizes], dims: int) -> Sizes:
    """The input shape of a pooler from all its calls, which have to agree in all but the batch dimension."""
    if not shapes:
        raise ValueError(f"example_input: the forward pass does not reach {path}, so that its input is unknown")
    other = next((s for s in shapes if s[-dims - 1 :] != shapes[0][-dims - 1 :]), None)
    if other is not None:
        raise ValueError(f"{path} is called with inputs of different sizes: {shapes[0]} and {other}")
    return shapes[0]


def _successor(
    old: nn.Module, path: str, name: str, geometry: dict[str, Any], shape: Sizes | None, own: dict[str, Any]
) -> nn.Module:
    dims = _dims_of(old)
    found: dict[str, Any] = {}
    if shape is not None:
        sizes = {"channels": shape[-dims - 1], "output_size": resolve(shape[-dims:], **geometry).output}
        needed = pool_class(name, dims).needs(**own)
        found = {n: v for n, v in sizes.items() if n in needed and own.get(n) is None}
    try:
        new = create_pool(name, dims=dims, **{**geometry, **own, **found})
    except (TypeError, ValueError) as error:
        raise type(error)(f"{path} ({old}) cannot become {name}: {error}") from error
    return new.train(old.training)


def _move(news: Any, model: nn.Module) -> None:
    """To the device and dtype of the model's parameters."""
    like = next((p for p in model.parameters() if p.is_floating_point()), None)
    if like is not None:
        for new in news:
            new.to(like.device, like.dtype)
