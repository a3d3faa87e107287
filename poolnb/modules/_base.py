"""What all pooling modules share."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.fx import Proxy

from poolnb import functional
from poolnb._arguments import TORCHSCRIPT, check_input, check_parameter_tensor
from poolnb.geometry import IntOrSizes, OutputSize, Padding, check_sizes, per_dim, resolve
from poolnb.ops.checks import DTYPES

Device = torch.device | str | int | None
_GEOMETRY_DEFAULTS: dict[str, Any] = {"stride": None, "padding": 0, "dilation": 1, "ceil_mode": False}


class Pool(torch.nn.Module):
    """Base of the poolers: geometry, ``extra_repr``, and the call of the operator's function.

    Geometry is what the functions take; ``output_size`` goes with ``kernel_size=None``.

    A subclass names its operator in ``op``, its number of spatial dimensions in ``dims``, and gives the operator's own
    arguments in ``params()``. One of another package gives the operator's functions too, in ``functions``.
    """

    op: ClassVar[str]
    #: The operator's functions for 1, 2 and 3 dimensions; empty: those of ``poolnb.functional``.
    functions: ClassVar[tuple[Callable[..., Tensor], ...]] = ()
    dims: ClassVar[int]
    #: Whether the registry knows it: not a pooler that cannot stand in another one's place.
    listed: ClassVar[bool] = True
    #: What the parameters are made for: (), (channels,) or (channels, *output_size).
    made_for: tuple[int, ...] = ()
    #: With ``kernel_size=None`` that of the windows. Where parameters stand per position they are made for it.
    output_size: OutputSize = None

    if TYPE_CHECKING:  # torch's own accepts anything and returns anything

        def __call__(self, input: Tensor, mask: Tensor | None = None) -> Tensor: ...

    def __init__(
        self,
        kernel_size: IntOrSizes | None,
        stride: IntOrSizes | None = None,
        padding: Padding = 0,
        dilation: IntOrSizes = 1,
        ceil_mode: bool = False,
        *,
        output_size: OutputSize = None,
    ) -> None:
        torch.nn.Module.__init__(self)  # not super(): MaxPool has a second base, torch's own
        check_sizes(self.dims, kernel_size, stride, padding, dilation, ceil_mode, output_size)
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.dilation, self.ceil_mode, self.output_size = dilation, ceil_mode, output_size

    def params(self) -> dict[str, Any]:
        """The operator's own arguments for the next call."""
        return {}

    @classmethod
    def needs(cls, **params: Any) -> tuple[str, ...]:
        """Which of ``channels`` and ``output_size`` the constructor cannot do without, given the other options."""
        parameters = inspect.signature(cls).parameters.values()
        return tuple(p.name for p in parameters if p.name in ("channels", "output_size") and p.default is p.empty)

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        if is_traced(self, input):
            return record(self, input, mask=mask)
        return self.pool(input, mask)

    def pool(self, input: Tensor, mask: Tensor | None, **more: Any) -> Tensor:
        """Call the operator's function with this module's geometry and options, and ``more`` of its arguments."""
        self.check_fit(input)
        name = f"{self.op}_pool{self.dims}d"
        function: Callable[..., Tensor] = self.functions[self.dims - 1] if self.functions else getattr(functional, name)
        windows = {} if self.asked_size() is None else {"output_size": self.asked_size()}
        return function(input, *self.geometry(), **windows, **self.params(), **more, mask=mask)

    def geometry(self) -> tuple[Any, Any, Any, Any, Any]:
        return self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode

    def asked_size(self) -> OutputSize:
        """The ``output_size`` that stands in the place of a kernel."""
        return self.output_size if self.kernel_size is None else None

    def check_fit(self, input: Tensor) -> None:
        """Whether the parameters suit the input, in the words of this module's arguments."""
        if not (self._parameters or self._modules) or isinstance(input, Proxy):
            return
        # A module that holds others may have parameters that are computed: they are asked for, which takes longer.
        parameters = self.named_parameters() if self._modules else self._parameters.items()
        own = [(name, parameter) for name, parameter in parameters if parameter is not None]
        if not isinstance(input, Tensor) or any(p.dtype != input.dtype or p.device != input.device for _, p in own):
            check_input(self.dims, input)
            for name, parameter in own:
                check_parameter_tensor(f"parameter {name}", parameter, input)
        if self.made_for:
            self._check_made_for(input)

    def _check_made_for(self, input: Tensor) -> None:
        check_input(self.dims, input)
        shape = tuple(input.shape)
        channels, *output_size = self.made_for
        if channels != shape[-self.dims - 1]:
            raise ValueError(
                f"input must have {channels} channels, as {channels=} says, got shape {tuple(input.shape)}"
            )
        if output_size:
            output = resolve(shape[-self.dims :], *self.geometry(), self.asked_size()).output
            if torch.compiler.is_exporting() and any(isinstance(o, torch.SymInt) for o in output):
                raise ValueError(
                    f"the input's size cannot be free in an export: the parameters are for an output of size "
                    f'{tuple(output_size)}; granularity="channel" has none per position'
                )
            if output != tuple(output_size):
                wanted = f"an output of size {tuple(output_size)}, as output_size says"
                raise ValueError(f"input must give {wanted}, got {output} from shape {shape}")

    def __prepare_scriptable__(self) -> None:
        """Called by ``torch.jit.script`` before it compiles a model that holds this module."""
        raise RuntimeError(TORCHSCRIPT)

    def options(self) -> dict[str, Any]:
        """What :meth:`extra_repr` shows besides the geometry."""
        return {}

    def extra_repr(self) -> str:
        given = {k: getattr(self, k) for k, default in _GEOMETRY_DEFAULTS.items() if getattr(self, k) != default}
        if self.asked_size() is not None:
            given["output_size"] = self.output_size
        shown = {"kernel_size": self.kernel_size, **given, **self.options()}
        return ", ".join(f"{k}={v!r}" for k, v in shown.items())


def is_traced(pool: Pool, input: Any) -> bool:
    """Whether torch.fx is tracing a model that holds this pooler; in one that is traced alone it looks inside."""
    return isinstance(input, Proxy) and pool is not getattr(input.tracer, "root", None)


def record(pool: Pool, input: Any, **more: Any) -> Tensor:
    """One node that calls the module, as torch's own modules become: it stays what it is, its training mode too."""
    node: Tensor = input.tracer.create_proxy("call_module", input.tracer.path_of_module(pool), (input,), more)
    return node


def check_factory(device: Device, dtype: torch.dtype | None) -> dict[str, Any]:
    """What makes parameters on a device in a dtype, as torch's modules have it; ``None``: torch's default."""
    if dtype is not None and dtype not in DTYPES:
        accepted = ", ".join(map(str, DTYPES))
        raise TypeError(f"dtype must be one of {accepted}, got {dtype!r}")
    try:
        return {"device": None if device is None else torch.device(device), "dtype": dtype}
    except (RuntimeError, TypeError) as error:
        raise type(error)(f"device must be one that torch.device accepts, got {device!r}") from error


def parameter_shape(
    dims: int,
    granularity: str,
    accepted: Sequence[str],
    channels: int | None = None,
    output_size: OutputSize = None,
) -> tuple[int, ...]:
    """Shape of a learned parameter: one for the layer, per channel, or per channel and output position."""
    if granularity not in accepted:
        names = " or ".join(f'"{name}"' for name in accepted)
        raise ValueError(f"granularity must be {names}, got {granularity!r}")
    if granularity == "layer":
        return ()
    if channels is None:
        raise ValueError(f'channels must be given with granularity="{granularity}", got None')
    per_channel = per_dim("channels", channels, 1, least=1)
    if granularity == "channel":
        return per_channel
    if output_size is None:
        raise ValueError('output_size must be given with granularity="position", got None')
    return per_channel + per_dim("output_size", output_size, dims, least=1)  # type: ignore[arg-type]


def needed_for(granularity: Any) -> tuple[str, ...]:
    """What a constructor needs to know for a granularity; nothing for one that does not exist, which it refuses."""
    if granularity == "position":
        return "channels", "output_size"
    return ("channels",) if granularity == "channel" else ()


def count_taps(dims: int, kernel_size: IntOrSizes | None) -> int:
    """Number of taps of a window, which has to be known when weights per tap are made."""
    sizes = check_sizes(dims, kernel_size)
    if sizes is None:
        raise ValueError("kernel_size must be given where every tap has a weight, got None")
    return math.prod(sizes[0])
