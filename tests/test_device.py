"""What differs between devices: noise, long windows, streams, graphs of kernels, a second device, many windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cases import case
from devices import DEVICE, torch
from operators import DTYPES, OPERATORS, TOLERANCE, Case, Operator, every_dimension, every_operator, selected
from poolers import SAMPLED
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from poolnb import native
from poolnb.ops import philox
from poolnb.ops.registration import OPS

pytestmark = pytest.mark.usefixtures("kernels")
needs_gpu = pytest.mark.skipif(DEVICE.type != "cuda", reason="needs --device cuda")

CPU = torch.device("cpu")
_SHAPES = {1: (2, 3, 9), 2: (2, 3, 7, 6), 3: (2, 3, 4, 3, 4)}
_OVERLAPPING = {"kernel_size": 3, "stride": 2, "padding": 1}
_BOTH = pytest.mark.parametrize("geometry", [{"kernel_size": 2}, _OVERLAPPING], ids=["2", "3 by 2"])
sampled = pytest.mark.parametrize("operator", list(selected(lambda o: o.name in SAMPLED)))
registered = pytest.mark.parametrize("operator", list(selected(lambda o: o.registered)))


def moved(drawn: Case, device: Any) -> Case:
    params = {n: v.to(device) if isinstance(v, Tensor) else v for n, v in drawn.params.items()}
    mask = None if drawn.mask is None else drawn.mask.to(device)
    return replace(drawn, x=drawn.x.to(device), mask=mask, params=params)


def results(drawn: Case) -> list[Tensor]:
    """The output, and the gradients of the input and the own tensors."""
    leaves = {n: t.detach().requires_grad_() for n, t in {"input": drawn.x, **drawn.tensors()}.items()}
    y = drawn.run(leaves["input"], **{n: t for n, t in leaves.items() if n != "input"})
    grad = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).to(y).view(y.shape)
    return [y.detach(), *torch.autograd.grad(y, list(leaves.values()), grad)]


def expected_on_the_cpu(drawn: Case) -> list[Tensor]:
    """The same from the PyTorch kernels on a CPU, in float64."""
    wide = moved(drawn, CPU)
    params = {n: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v for n, v in wide.params.items()}
    wide = replace(wide, x=wide.x.double(), params=params)
    leaves = {n: t.detach().requires_grad_() for n, t in {"input": wide.x, **wide.tensors()}.items()}
    with native.disabled():
        y = wide.run(leaves["input"], **{n: t for n, t in leaves.items() if n != "input"})
        grad = torch.linspace(-1, 1, y.numel(), dtype=torch.float64, device=CPU).view(y.shape)
        return [y.detach(), *torch.autograd.grad(y, list(leaves.values()), grad.to(drawn.x.dtype).double())]


def close(actual: list[Tensor], expected: list[Tensor], dtype: torch.dtype, factor: float = 1.0) -> None:
    for a, e in zip(actual, expected, strict=True):
        scale = max(1.0, float(e.abs().max()))  # a sum rounds in proportion to what is summed
        limits = {"rtol": factor * TOLERANCE[dtype]["rtol"], "atol": factor * scale * TOLERANCE[dtype]["atol"]}
        torch.testing.assert_close(a.double(), e.to(a.device), **limits, check_stride=False)


# ---- the same numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_noise_is_the_cpu_s_bit_for_bit(dtype: torch.dtype) -> None:
    seed = torch.tensor(0x123456789ABCDEF, device=CPU)
    for make in (
        lambda key, device: philox.uniform(key, 10_007, 3, draws=2, dtype=dtype, device=device),
        lambda key, device: philox.tap_uniform(key, 9, 1_003, 2, dtype=dtype, device=device),
    ):
        for key in (seed, seed.to(DEVICE)):
            assert torch.equal(make(key, DEVICE).cpu(), make(seed, CPU))


@_BOTH
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@sampled
def test_draws_are_the_cpu_s(operator: Operator, dtype: torch.dtype, geometry: dict[str, Any]) -> None:
    """What is drawn is one tap, or rows and columns: the number is the same, to the last bit."""
    drawn = case(operator, 2, (3, 5, 16, 14), geometry, seed=2, dtype=dtype)
    params = {**drawn.params, "training": True} | ({"hard": True} if operator.name == "tdgs" else {})
    drawn = replace(drawn, params=params)
    on_cpu = moved(drawn, CPU).run()
    assert torch.equal(drawn.run().cpu(), on_cpu)


@_BOTH
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced"])
@every_operator
def test_results_are_the_cpu_s(operator: Operator, layout: str, dtype: torch.dtype, geometry: dict[str, Any]) -> None:
    drawn = case(operator, 2, (2, 18, 9, 8), geometry, seed=4, dtype=dtype, layout=layout)
    if operator.name == "tdgs":
        drawn = replace(drawn, params={**drawn.params, "hard": False})
    close(results(drawn), expected_on_the_cpu(drawn), dtype, 4 * operator.gradient_tolerance)


@pytest.mark.parametrize("logits", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("channels", [1, 18], ids=["shared", "of each channel"])
@_BOTH
def test_logits_may_be_wider_than_the_input(geometry: dict[str, Any], channels: int, logits: torch.dtype) -> None:
    drawn = case(OPERATORS["weighted"], 2, (2, 18, 9, 8), geometry, dtype=torch.float16)
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(2, channels, 9, 8, generator=generator).to(logits)
    drawn = replace(drawn, params={"logits": scores})
    actual = results(drawn)
    assert actual[2].dtype == logits
    close(actual, expected_on_the_cpu(drawn), torch.float16, 4)


@pytest.mark.parametrize("shape", [(1, 2, 70_001), (2, 3, 257, 129)], ids=str)
@pytest.mark.parametrize("operator", list(selected(lambda o: o.name not in ("gated", "tree", "s3"))))
def test_long_windows(operator: Operator, shape: tuple[int, ...]) -> None:
    """One window over everything; what has a number per tap, or a map of maxima, has no use for it."""
    drawn = case(operator, len(shape) - 2, shape, {"kernel_size": None}, seed=1, dtype=torch.float32)
    params = {k: v for k, v in drawn.params.items() if k not in ("training", "seed")}
    drawn = replace(drawn, params=params)
    close(results(drawn), expected_on_the_cpu(drawn), torch.float32, 10 * operator.gradient_tolerance)


# ---- without a GPU: which device a kernel's tensors are on -----------------------------------------------------------


def ops_called(call: Callable[[], Tensor]) -> list[tuple[str, tuple[Any, ...]]]:
    """The poolnb ops that a call and its gradient run, with their arguments."""
    seen: list[tuple[str, tuple[Any, ...]]] = []

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.namespace == "poolnb":
                kept = tuple(a.detach() if isinstance(a, Tensor) else a for a in args)
                seen.append((func._schema.name.removeprefix("poolnb::"), kept))
            return func(*args, **(kwargs or {}))

    with Recorder():
        call().sum().backward()
    return seen


@pytest.mark.cpu
@pytest.mark.parametrize("seed_device", ["cpu", "cuda"])
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@every_dimension
@registered
def test_kernels_stay_on_their_input_s_device(operator: Operator, dims: int, training: bool, seed_device: str) -> None:
    """Tensors without data, on a GPU that need not be there: an operation that mixes devices is an error."""
    mask = torch.ones(_SHAPES[dims], dtype=torch.bool)
    drawn = case(operator, dims, _SHAPES[dims], _OVERLAPPING, mask=mask, dtype=torch.float32)
    if "training" in drawn.params:
        drawn = replace(drawn, params={**drawn.params, "training": training})
    leaf = drawn.x.requires_grad_()
    params = {n: t.requires_grad_() for n, t in drawn.tensors().items()}
    pool_op = OPS[f"{operator.name}_pool"]
    with native.disabled():
        calls = dict(ops_called(lambda: drawn.run(leaf, **params)))
    with FakeTensorMode() as mode:
        for name, arguments in calls.items():
            there = [_on_gpu(a, mode, seed_device) for a in arguments]
            first = 2 * name.endswith("_backward")  # param_grads, grad
            windows, rest = pool_op._split(there[first:])
            if first:
                found = pool_op.backward(windows, True, there[1], *rest)
            else:
                found = pool_op.forward(windows, *rest)
            for result in found if isinstance(found, tuple) else (found,):
                assert result.device.type == "cuda"


def _on_gpu(value: Any, mode: FakeTensorMode, seed_device: str) -> Any:
    if not isinstance(value, Tensor):
        return value
    device = seed_device if value.dtype == torch.int64 else "cuda"
    return torch.empty_like(mode.from_tensor(value), device=device)


# ---- on a GPU --------------------------------------------------------------------------------------------------------


def for_a_gpu(operator: Operator, training: bool = True) -> Case:
    drawn = case(operator, 2, (4, 16, 24, 20), _OVERLAPPING, seed=3, dtype=torch.float32)
    if "training" in drawn.params:
        drawn = replace(drawn, params={**drawn.params, "training": training, "seed": torch.tensor(7)})
    return drawn


@needs_gpu
@every_operator
def test_a_graph_of_kernels_can_be_captured(operator: Operator) -> None:
    """Played again it reads what its tensors hold then: another input, another seed."""
    drawn = for_a_gpu(operator)
    leaves = {n: t.clone().requires_grad_() for n, t in {"input": drawn.x, **drawn.tensors()}.items()}
    params = {n: t for n, t in leaves.items() if n != "input"}

    def step() -> list[Tensor]:
        y = drawn.run(leaves["input"], **params)
        return [y, *torch.autograd.grad(y, list(leaves.values()), torch.ones_like(y))]

    aside = torch.cuda.Stream()
    with torch.cuda.stream(aside):
        step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for shift in (0, 1, 2):
        with torch.no_grad():
            leaves["input"].add_(0.25 * shift)
        if "seed" in drawn.params:
            drawn.params["seed"].add_(shift)
        graph.replay()
        for a, e in zip(captured, step(), strict=True):
            torch.testing.assert_close(a, e)


@needs_gpu
@every_operator
def test_kernels_run_on_the_current_stream(operator: Operator) -> None:
    """After what was queued there before: an input that is written late, behind a long wait."""
    drawn = for_a_gpu(operator)
    late = drawn.with_input(torch.zeros(drawn.x.shape))
    results(late), torch.cuda.synchronize()
    aside = torch.cuda.Stream()
    with torch.cuda.stream(aside):
        torch.cuda._sleep(50_000_000)
        late.x.copy_(drawn.x)
        actual = results(late)
    aside.synchronize()
    for a, e in zip(actual, results(drawn), strict=True):
        torch.testing.assert_close(a, e)


@needs_gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs a second GPU")
@every_operator
def test_another_than_the_current_device(operator: Operator) -> None:
    drawn = for_a_gpu(operator)
    for a, e in zip(results(moved(drawn, "cuda:1")), results(drawn), strict=True):
        assert a.device == torch.device("cuda:1")
        torch.testing.assert_close(a.to(DEVICE), e)


@needs_gpu
def test_more_windows_than_a_grid_has_threads() -> None:
    """Each thread goes on with another window; offsets stay right."""
    n = 2**28 + 12_345
    x = torch.empty(1, 1, n, dtype=torch.float16).copy_(torch.arange(251).repeat(n // 251 + 1)[:n])
    drawn = Case(OPERATORS["soft"], 1, x, {"kernel_size": 1}, None, {}, True)
    assert torch.equal(drawn.run(), x)
