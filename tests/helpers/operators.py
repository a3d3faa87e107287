"""The operators as the tests see them: one table, and the calls of library and oracle.

A test takes an operator from :data:`OPERATORS` and a case from ``cases.py``, and never asks which kernel computes: the
same tests serve the PyTorch kernels and the compiled ones.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from devices import torch
from torch import Tensor

import poolnb
from poolnb import reference
from poolnb.geometry import Geometry
from poolnb.ops.registration import OPS, PoolOp

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
DIMS = (1, 2, 3)

# Half types are compared with the oracle on the rounded input: what is left is the rounding of the result.
TOLERANCE = {
    torch.float16: {"rtol": 2e-3, "atol": 2e-3},
    torch.bfloat16: {"rtol": 1.6e-2, "atol": 1.6e-2},
    torch.float32: {"rtol": 1e-4, "atol": 2e-5},
    torch.float64: {"rtol": 1e-9, "atol": 1e-10},
}

Params = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """What an operator's parameters may depend on."""

    shape: tuple[int, ...]  # of the input, batch dimension included
    windows: Geometry
    dtype: torch.dtype
    batched: bool
    rng: random.Random

    @property
    def channels(self) -> int:
        return self.shape[1]

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """A parameter tensor with entries in [low, high], of a dtype that is accepted beside the input."""
        generator = torch.Generator().manual_seed(self.rng.getrandbits(32))
        values = low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)
        half = self.dtype in (torch.float16, torch.bfloat16)
        return values.to(self.rng.choice([self.dtype, torch.float32]) if half else self.dtype)

    def number_or_tensor(self, low: float, high: float) -> float | Tensor:
        """A parameter in one of its three forms: a float, a 0-d tensor, one entry per channel."""
        form = self.rng.choice(["float", "0-d", "per channel"])
        if form == "float":
            return self.rng.uniform(low, high)
        return self.uniform(low, high, *(() if form == "0-d" else (self.channels,)))


@dataclass(frozen=True)
class Operator:
    """One row of the table.

    ``params`` makes random ones; ``tensors`` names those that get a gradient when they are tensors, in the order in
    which the oracle's backward returns them. ``bad`` gives wrong ones: (arguments, the name to be blamed).
    """

    name: str
    params: Callable[[Setting], Params] = lambda setting: {}
    tensors: tuple[str, ...] = ()
    bad: Callable[[Setting], list[tuple[Params, str]]] = lambda setting: []
    averaging: bool = False  # min <= y <= max in every window
    kinks: bool = False  # derivative jumps where taps tie or are 0; the oracle and the op agree on the side
    registered: bool = True  # has poolnb:: ops of its own
    numbered: bool = False  # its taps are not alike: what it does with one depends on its place in the window
    gradient_tolerance: float = 1.0  # multiplies TOLERANCE in comparisons of gradients
    library: Any = poolnb.functional  # what holds its functions
    oracle: Any = reference  # and those of the oracle
    namespace: str = "poolnb"  # of its ops

    def function(self, dims: int) -> Callable[..., Tensor]:
        return getattr(self.library, f"{self.name}_pool{dims}d")

    @property
    def forward_oracle(self) -> Callable[..., Any]:
        return getattr(self.oracle, f"{self.name}_pool")

    @property
    def backward_oracle(self) -> Callable[..., Any]:
        return getattr(self.oracle, f"{self.name}_pool_backward")


@dataclass(frozen=True)
class Case:
    """One call: an operator, its input (unbatched where ``batched`` is false), geometry, mask, parameters."""

    operator: Operator
    dims: int
    x: Tensor
    geometry: dict[str, Any]
    mask: Tensor | None
    params: Params
    batched: bool

    def with_input(self, x: Tensor) -> Case:
        return replace(self, x=x)

    def run(self, x: Tensor | None = None, **params: Any) -> Tensor:
        x = self.x if x is None else x
        return self.operator.function(self.dims)(x, **self.geometry, **{**self.params, **params}, mask=self.mask)

    def tensors(self) -> dict[str, Tensor]:
        """The parameters that get a gradient."""
        return {n: self.params[n] for n in self.operator.tensors if isinstance(self.params.get(n), Tensor)}

    # ---- the oracle --------------------------------------------------------------------------------------------------

    def _for_numpy(self, value: Any) -> Any:
        return value.detach().double().cpu().numpy() if isinstance(value, Tensor) else value

    def oracle_arguments(self) -> tuple[np.ndarray, dict[str, Any]]:
        x = self._for_numpy(self.x if self.batched else self.x.unsqueeze(0))
        params = {n: self._for_numpy(v) for n, v in self.params.items()}
        mask = None if self.mask is None else self.mask.cpu().numpy()
        return x, {**self.geometry, **params, "mask": mask}

    def expected(self) -> Tensor:
        x, arguments = self.oracle_arguments()
        y = torch.as_tensor(self.operator.forward_oracle(x, **arguments))
        return y if self.batched else y.squeeze(0)

    def expected_gradients(self, grad: Tensor) -> dict[str, Tensor]:
        """The gradients of the input and of every learned parameter, each in the shape of what it belongs to."""
        x, arguments = self.oracle_arguments()
        grad = self._for_numpy(grad if self.batched else grad.unsqueeze(0))
        result = self.operator.backward_oracle(grad, x, **arguments)
        grads = result if isinstance(result, tuple) else (result,)
        named = dict(zip(("input", *self.operator.tensors), map(torch.as_tensor, grads), strict=True))
        wanted = {"input": self.x, **self.tensors()}
        return {n: _in_shape(named[n], t) for n, t in wanted.items()}


def _in_shape(grad: Tensor, like: Tensor) -> Tensor:
    """Sum a gradient per channel, window or element to the shape of the tensor that it belongs to."""
    if like.dim() == 1 and grad.dim() > 1:
        return grad.transpose(0, 1).flatten(1).sum(1)
    return grad.sum_to_size(like.shape)


# ---- right arguments -------------------------------------------------------------------------------------------------


def norm_type(setting: Setting) -> float | Tensor:
    fixed = [1.0, 2.0, 3.0, float("inf")]
    return setting.rng.choice(fixed) if setting.rng.random() < 0.4 else setting.number_or_tensor(1.2, 5.0)


def sharpness(setting: Setting) -> float | Tensor:
    fixed = [0.0, 1e-12, -1e-5, 30.0]
    return setting.rng.choice(fixed) if setting.rng.random() < 0.3 else setting.number_or_tensor(-2.0, 3.0)


def exponent(setting: Setting) -> Params:
    fixed = [1.0, 2.0, 3.0, 64.0]
    p = setting.rng.choice(fixed) if setting.rng.random() < 0.3 else setting.number_or_tensor(0.5, 6.0)
    return {"p": p, "eps": setting.rng.choice([1e-6, 0.1])}


def logits(setting: Setting) -> Params:
    n, c, *size = setting.shape
    shape = (n, setting.rng.choice([1, c]), *size)
    return {"logits": setting.uniform(-3.0, 3.0, *(shape if setting.batched else shape[1:]))}


def share(setting: Setting) -> float | Tensor:
    output = (setting.shape[0], setting.channels, *setting.windows.output)
    shapes = [output[1:], (1, *output[2:])] + ([output, (1, *output[1:])] if setting.batched else [])
    if setting.rng.random() < 0.4:
        return setting.uniform(0.0, 1.0, *setting.rng.choice(shapes))
    return setting.number_or_tensor(0.0, 1.0)


def gate(setting: Setting) -> Params:
    taps = setting.windows.taps
    weight = setting.uniform(-1.0, 1.0, *setting.rng.choice([(taps,), (setting.channels, taps)]))
    return {"weight": weight, "bias": None if setting.rng.random() < 0.3 else setting.number_or_tensor(-1.0, 1.0)}


def rank_weights(setting: Setting) -> Params:
    taps = setting.windows.taps
    weight = setting.uniform(0.0, 1.0, *setting.rng.choice([(taps,), (setting.channels, taps)]))
    if setting.rng.random() < 0.3:  # settings like max and median have ranks that do not count
        weight = weight * (weight > 0.6)
    return {"weight": weight}


def quantile(setting: Setting) -> Params:
    fixed = [0.0, 0.25, 0.5, 1.0]
    return {"q": setting.rng.choice(fixed) if setting.rng.random() < 0.3 else setting.number_or_tensor(0.0, 1.0)}


def tree(setting: Setting) -> Params:
    taps, count = setting.windows.taps, setting.rng.choice([2, 4])
    return {"leaves": setting.uniform(-1.0, 1.0, count, taps), "gates": setting.uniform(-1.0, 1.0, count - 1, taps)}


def temperature(setting: Setting) -> float | Tensor:
    if setting.rng.random() < 0.4:
        return setting.uniform(0.3, 1.6, setting.channels, *setting.windows.output)
    return setting.number_or_tensor(0.3, 1.6)


def sampling(setting: Setting) -> Params:
    """Training or evaluation, and a seed whose upper half counts as well."""
    return {"training": setting.rng.random() < 0.6, "seed": setting.rng.randrange(-(2**63), 2**63)}


def tdgs_params(setting: Setting) -> Params:
    params = sampling(setting)
    # A hard draw has no true derivative; test_sampling.py compares its straight-through gradient with the oracle.
    hard = not params["training"]
    return {"temperature": temperature(setting), "hard": hard, "normalize": setting.rng.random() < 0.6, **params}


def s3_params(setting: Setting) -> Params:
    factor = setting.rng.choice([None, 1, 2, 3])
    grid = None if factor is None else tuple(factor * s for s in setting.windows.stride)
    mode = setting.rng.choice(["average", "expectation"])
    return {"grid_size": grid, "eval_mode": mode, **sampling(setting)}


# ---- wrong ones: (arguments, the name to be blamed) ------------------------------------------------------------------


def bad_number(name: str, setting: Setting, *out_of_range: float) -> list[tuple[Params, str]]:
    """Wrong values for a parameter that is a float, a 0-d tensor or a (C,) tensor."""
    c, other = setting.channels, torch.float32 if setting.dtype == torch.float64 else torch.float64
    values: list[Any] = [
        *out_of_range,
        *([] if setting.dtype == torch.float64 else [1e300, -1e300]),
        "1",
        None,
        True,
        1j,
        [1.0],
        float("nan"),
        torch.ones(c + 1, dtype=setting.dtype),
        torch.ones(1, c, dtype=setting.dtype),
        torch.ones(c, dtype=other),
        torch.ones(c, dtype=torch.int64),
        torch.ones(c, dtype=setting.dtype, device="meta"),
    ]
    return [({name: v}, name) for v in values]


def bad_flag(name: str) -> list[tuple[Params, str]]:
    return [({name: v}, name) for v in (1, "yes", None)]


def bad_positive(name: str) -> list[tuple[Params, str]]:
    """Wrong values for a number that is greater than 0."""
    values: list[Any] = [0, 0.0, 1e-320, -1e-6, float("nan"), float("inf"), "1", None, True, torch.tensor(1e-6)]
    return [({name: v}, name) for v in values]


def out_of_range(name: str, *values: float) -> list[tuple[Params, str]]:
    """Tensors on the CPU with an entry out of range, NaN included."""
    tensors = [torch.tensor(v) for v in (*values, float("nan"))]
    return [({name: t}, name) for t in tensors]


def not_finite(name: str, setting: Setting, *shape: int) -> list[tuple[Params, str]]:
    """Tensors of a right shape whose last entry is no finite number."""
    tensors = [torch.ones(shape, dtype=setting.dtype) for _ in range(3)]
    for tensor, value in zip(tensors, (float("nan"), float("inf"), -float("inf")), strict=True):
        tensor.view(-1)[-1] = value
    return [({name: t}, name) for t in tensors]


def bad_tensor(name: str, setting: Setting, *shapes: tuple[int, ...]) -> list[tuple[Params, str]]:
    """Wrong values for an argument that has to be a tensor; ``shapes`` are a right one and then wrong ones."""
    right, *wrong = shapes
    other = torch.float32 if setting.dtype == torch.float64 else torch.float64
    values: list[Any] = [
        None,
        1.0,
        [[1.0]],
        np.ones(right),
        torch.ones(right, dtype=other),
        torch.ones(right, dtype=torch.int64),
        torch.ones(right, dtype=setting.dtype, device="meta"),
        *(torch.ones(shape, dtype=setting.dtype) for shape in wrong),
    ]
    return [({name: v}, name) for v in values]


def bad_seed(setting: Setting) -> list[tuple[Params, str]]:
    values: list[Any] = [1.0, "1", True, 2**63, -(2**63) - 1, torch.tensor(1.0), torch.tensor([1]), torch.tensor(True)]
    values.append(torch.tensor(1, device="meta"))
    return [({"seed": v, "training": t}, "seed") for v in values for t in (True, False)]


def bad_share(name: str, s: Setting) -> list[tuple[Params, str]]:
    return [
        # A matrix may broadcast to the output, so it is no fault here.
        *[f for f in bad_number(name, s, -0.1, 1.1, float("inf")) if getattr(f[0][name], "ndim", 0) != 2],
        *out_of_range(name, -0.1, 1.1),
        ({name: torch.full(s.windows.output, 0.5)}, name) if len(s.shape) > 3 else ({name: []}, name),
        ({name: torch.full((*s.shape, 1), 0.5)}, name),
        ({name: torch.full((2, *s.shape[1:]), 0.5)}, name),
    ]


# ---- the table: what an operator's own row does not say --------------------------------------------------------------

OPERATORS: dict[str, Operator] = {}


def add(operator: Operator) -> None:
    OPERATORS[operator.name] = operator


add(Operator("max", kinks=True, averaging=True, registered=False))
add(Operator("avg", averaging=True, registered=False))
add(
    Operator(
        "soft",
        params=lambda s: {"beta": s.number_or_tensor(-2.0, 3.0)},
        tensors=("beta",),
        bad=lambda s: [*bad_number("beta", s, float("inf")), *bad_flag("semi_grad")],
        averaging=True,
    )
)
add(
    Operator(
        "lp",
        params=lambda s: {"norm_type": norm_type(s)},
        tensors=("norm_type",),
        bad=lambda s: [
            *bad_number("norm_type", s, 0.0, -1.0, -float("inf")),
            *out_of_range("norm_type", 0.0, -2.0),
        ],
        kinks=True,
    )
)
add(
    Operator(
        "lse",
        params=lambda s: {"r": sharpness(s)},
        tensors=("r",),
        bad=lambda s: bad_number("r", s, float("inf"), -float("inf")),
        averaging=True,
    )
)
add(
    Operator(
        "gem",
        params=exponent,
        tensors=("p",),
        bad=lambda s: [
            *bad_number("p", s, 0.0, -1.0, float("inf")),
            *out_of_range("p", 0.0, -2.0),
            *bad_positive("eps"),
        ],
        kinks=True,
    )
)
add(
    Operator(
        "weighted",
        params=logits,
        tensors=("logits",),
        bad=lambda s: bad_tensor(
            "logits", s, s.shape, s.shape[1:], (*s.shape, 1), (s.shape[0], 2, *s.shape[2:]), (1, 1, *s.shape[2:])
        ),
        averaging=True,
    )
)
add(
    replace(
        OPERATORS["weighted"],
        name="weighted_std",
        params=lambda s: {**logits(s), "eps": s.rng.choice([1e-5, 0.1])},
        bad=lambda s: [*OPERATORS["weighted"].bad(s), *bad_positive("eps")],
        averaging=False,
    )
)
add(
    Operator(
        "mixed",
        params=lambda s: {"alpha": share(s)},
        tensors=("alpha",),
        bad=lambda s: bad_share("alpha", s),
        averaging=True,
        kinks=True,
    )
)
add(Operator("blur", averaging=True, numbered=True))
add(
    Operator(
        "maxblur",
        params=lambda s: {"blur_size": s.rng.choice([1, 2, 3, 4, 5])},
        bad=lambda s: [({"blur_size": v}, "blur_size") for v in (0, -1, 2**31, 3.0, "3", None, True, (3, 3))],
        kinks=True,
        numbered=True,
    )
)
add(
    Operator(
        "ada",
        params=lambda s: {"beta": share(s)},
        tensors=("beta",),
        bad=lambda s: [*bad_share("beta", s), *bad_flag("semi_grad")],
        averaging=True,
        kinks=True,
    )
)
add(Operator("edscw", bad=lambda s: bad_flag("semi_grad"), averaging=True, kinks=True))
add(
    Operator(
        "gated",
        params=gate,
        tensors=("weight", "bias"),
        bad=lambda s: [
            *bad_tensor(
                "weight", s, (s.windows.taps,), (s.windows.taps + 1,), (2, s.windows.taps), (s.windows.taps, 1)
            ),
            *[(params, name) for params, name in bad_number("bias", s, float("inf")) if params["bias"] is not None],
            *not_finite("weight", s, s.windows.taps),
        ],
        averaging=True,
        kinks=True,
        numbered=True,
    )
)
add(
    Operator(
        "tree",
        params=tree,
        tensors=("leaves", "gates"),
        bad=lambda s: [
            *bad_tensor("leaves", s, (2, s.windows.taps), (2, s.windows.taps + 1), (3, s.windows.taps), (1, 1)),
            *bad_tensor("gates", s, (1, s.windows.taps), (7, s.windows.taps), (s.windows.taps,)),
            ({"leaves": torch.ones(8, s.windows.taps)}, "leaves"),
            *not_finite("leaves", s, 2, s.windows.taps),
        ],
        numbered=True,
    )
)
add(
    Operator(
        "rank",
        params=rank_weights,
        tensors=("weight",),
        bad=lambda s: [
            *bad_tensor(
                "weight", s, (s.windows.taps,), (s.windows.taps + 1,), (2, s.windows.taps), (s.windows.taps, 1)
            ),
            *not_finite("weight", s, s.windows.taps),
            ({"weight": torch.full((s.windows.taps,), -0.1, dtype=s.dtype)}, "weight"),
        ],
        averaging=True,
        numbered=True,
        kinks=True,
    )
)
add(
    Operator(
        "quantile",
        params=quantile,
        tensors=("q",),
        bad=lambda s: [*bad_number("q", s, -0.1, 1.1, float("inf")), *out_of_range("q", -0.1, 1.1)],
        averaging=True,
        kinks=True,
    )
)
add(
    Operator(
        "stochastic",
        params=sampling,
        bad=lambda s: [*bad_seed(s), *bad_flag("training")],
        averaging=True,
        kinks=True,
    )
)
add(
    Operator(
        "s3",
        params=s3_params,
        bad=lambda s: [
            *bad_seed(s),
            *bad_flag("training"),
            *[({"grid_size": v}, "grid_size") for v in (3, 0, -2, "2", 2.0, True, (2,) * (len(s.shape) - 1))],
            *[({"eval_mode": v}, "eval_mode") for v in ("mean", None, 1, [])],
        ],
        kinks=True,
        numbered=True,
    )
)
add(
    Operator(
        "tdgs",
        params=tdgs_params,
        tensors=("temperature",),
        bad=lambda s: [
            *bad_number("temperature", s, float("inf")),
            *not_finite("temperature", s),
            *not_finite("temperature", s, s.channels),
            *not_finite("temperature", s, s.channels, *s.windows.output),
            *[f for n in ("tau", "eps") for f in bad_positive(n)],
            *[f for n in ("hard", "normalize", "training") for f in bad_flag(n)],
            *bad_seed(s),
        ],
        averaging=True,
        numbered=True,
        gradient_tolerance=10.0,
    )
)


def plain(op: PoolOp) -> Operator:
    """An operator about which there is nothing to say that its own row does not: parameters per channel, options."""
    floats = [name for name, usual in op.attributes.items() if isinstance(usual, float)]
    flags = [name for name, usual in op.attributes.items() if isinstance(usual, bool)]

    def params(setting: Setting) -> Params:
        numbers = {name: setting.number_or_tensor(form.low, form.high) for name, form in op.tensors.items()}
        positive = {name: op.attributes[name] * setting.rng.choice([1, 0.5, 2]) for name in floats}
        switches = {name: setting.rng.random() < 0.5 for name in flags}
        return {**numbers, **positive, **switches, **(sampling(setting) if op.sampled else {})}

    def bad(setting: Setting) -> list[tuple[Params, str]]:
        faults = [bad_number(name, setting, float("inf")) for name in op.tensors]
        faults += [*map(bad_positive, floats), *map(bad_flag, flags)]
        return sum(faults + ([bad_seed(setting), bad_flag("training")] if op.sampled else []), [])

    return Operator(op.name.removesuffix("_pool"), params=params, tensors=tuple(op.tensors), bad=bad)


for name, op in OPS.items():
    OPERATORS.setdefault(name.removesuffix("_pool"), plain(op))


def selected(condition: Callable[[Operator], bool] = lambda operator: True) -> Iterator[Any]:
    """Operators as pytest parameters."""
    return (pytest.param(o, id=o.name) for o in OPERATORS.values() if condition(o))


every_operator = pytest.mark.parametrize("operator", list(selected()))
every_dimension = pytest.mark.parametrize("dims", DIMS)
