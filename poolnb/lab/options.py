"""Options of a pooler in one spelling, so that one run has one key however they are written."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

Signature = Mapping[str, inspect.Parameter]
_SIZES = {"IntOrSizes", "Padding", "OutputSize"}  # annotations of a number, or of one per dimension


def spelt(pooler: str, options: Mapping[str, Any], dims: int) -> dict[str, Any]:
    """`options` in alphabetical order, every number of the type that the pooler's signature names.

    A size that is the same in all `dims` dimensions is one number. What the pooler does not have stays as it is.
    """
    known = _signature(pooler)
    return {name: _value(options[name], known.get(name), dims) for name in sorted(options)}


def chosen(pooler: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the spelt `options` that are not the pooler's defaults."""
    known = _signature(pooler)
    return {name: value for name, value in options.items() if name not in known or not _is_default(value, known[name])}


def _is_default(value: Any, parameter: inspect.Parameter) -> bool:
    return type(value) is type(parameter.default) and value == parameter.default


def _signature(pooler: str) -> Signature:
    import poolnb
    from poolnb.registry import pool_class

    return inspect.signature(pool_class(pooler)).parameters if pooler in poolnb.list_pools() else {}


def _value(value: Any, parameter: inspect.Parameter | None, dims: int) -> Any:
    kinds = re.findall(r"\w+", str(parameter.annotation)) if parameter else []
    if _SIZES & set(kinds) and isinstance(value, list):
        sizes = [_whole(one) for one in value]
        one_number = len(sizes) == dims and all(one == sizes[0] for one in sizes) and not isinstance(sizes[0], list)
        return sizes[0] if one_number else sizes
    if "float" in kinds and _is_number(value):
        return _floating(value)
    return _whole(value) if ({"int"} | _SIZES) & set(kinds) else value


def _floating(value: int | float) -> int | float:
    try:
        return float(value) + 0.0  # there is one zero
    except OverflowError:  # the pooler says what it accepts
        return value


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
