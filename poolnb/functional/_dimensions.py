"""One pooling function becomes three: for one, two and three spatial dimensions, each with its own docstring."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial, wraps
from types import FunctionType
from typing import Any, Concatenate, ParamSpec, TypeVar

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

P = ParamSpec("P")
Result = TypeVar("Result")

_PAIRS = {1: "such as ``((1, 2),)``", 2: "such as ``((1, 2), (0, 1))``", 3: "such as ``((1, 2), (0, 1), (0, 0))``"}
_SHAPES = {1: "(N, C, L)", 2: "(N, C, H, W)", 3: "(N, C, D, H, W)"}

_DOC = """{text}

Args:
    input: {shape}, or the same without the batch dimension; float16, bfloat16, float32 or float64, any memory layout.
        Half types accumulate in float32; the output keeps dtype and layout.
    kernel_size: window size, at least 1 per dimension. ``None``: one window over the whole spatial extent, or as many
        as ``output_size`` says.
    stride: step between windows, at least 1; ``None``: ``kernel_size``.
    padding: positions added before and after the input, which never count as taps: an int, or one per dimension, for
        both sides; one pair (before, after) per dimension, {pairs}; or ``"same"``, which makes the output
        ceil(size / stride) long, the smaller half before. Each number is less than the extent of a window,
        dilation * (kernel_size - 1) + 1.
    dilation: distance between the taps of a window, at least 1.
    ceil_mode: round the output size up; the last window still starts inside the input or its left padding.
{params}    output_size: with ``kernel_size=None`` the output's spatial size, an int or one entry per dimension, of
        which ``None`` keeps the input's. Window i of o along n positions takes floor(i n / o) ..
        ceil((i + 1) n / o) - 1, as :func:`torch.nn.functional.adaptive_avg_pool{dims}d` has it. Default: 1.
    mask: bool, broadcastable to ``input``, True = valid. A masked tap is treated like padding.

Returns:
    Tensor: {shape}, the spatial size as :func:`torch.nn.functional.max_pool{dims}d` gives it. A window without a valid
    tap gives 0 and passes no gradient. A NaN among the valid taps gives NaN.

Raises:
    TypeError: an argument of the wrong type, such as an integer ``input`` or a float ``mask``.
    ValueError: a shape, device or range that does not fit. The message names the argument and what it accepts.
"""


def by_dimension(
    pool: Callable[Concatenate[int, P], Tensor],
) -> tuple[Callable[P, Tensor], Callable[P, Tensor], Callable[P, Tensor]]:
    """``pool(dims, input, ...)`` for 1, 2 and 3 spatial dimensions, each with the signature of the rest.

    The docstring of ``pool`` is its text; lines after "Args:" are its own parameters, joined to the shared ones.
    """
    return _for(1, pool), _for(2, pool), _for(3, pool)


def _for(dims: int, pool: Callable[Concatenate[int, P], Tensor]) -> Callable[P, Tensor]:
    name = f"{pool.__name__.removeprefix('_')}{dims}d"
    named = _renamed(pool, name)

    public = overridable(partial(named, dims))
    bound: Any = public  # to a type checker a callable need not have a name
    text, _, params = inspect.cleandoc(pool.__doc__ or "").partition("\n\nArgs:\n")
    bound.__name__ = bound.__qualname__ = name
    bound.__module__ = pool.__module__
    bound.__doc__ = _DOC.format(
        text=text, params=params and params + "\n", shape=_SHAPES[dims], dims=dims, pairs=_PAIRS[dims]
    )
    signature = inspect.signature(pool)
    parameters = [p for p in signature.parameters.values() if p.name != "dims"]
    bound.__signature__ = signature.replace(parameters=parameters)
    return public


def _renamed(pool: Any, name: str) -> Any:
    """The same function under the name that Python's own errors, of a missing argument for example, shall give."""
    copy = FunctionType(pool.__code__, pool.__globals__, name, pool.__defaults__, pool.__closure__)
    copy.__kwdefaults__, copy.__qualname__ = pool.__kwdefaults__, name
    return copy


def overridable(function: Callable[P, Result]) -> Callable[P, Result]:
    """As torch's own functions are: a tensor-like argument decides, so that torch.fx records the call as one node."""

    @wraps(function)
    def public(*args: P.args, **kwargs: P.kwargs) -> Result:
        given = (*args, *kwargs.values()) if kwargs else args
        if has_torch_function(given):
            answer: Result = handle_torch_function(public, given, *args, **kwargs)
            return answer
        return function(*args, **kwargs)

    return public
