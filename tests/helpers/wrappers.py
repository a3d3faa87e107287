"""What people put around a pooler, as a table: each row's check compares the wrapped pooler with the bare one.

A check returns ``None`` where all is right, the message where poolnb refuses, or :data:`NOT_APPLICABLE`.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import pickle
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from poolers import SAMPLED
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint
from torchvision.models.feature_extraction import create_feature_extractor

import poolnb

NOT_APPLICABLE = "not applicable"
NAMES = [name for name in poolnb.list_pools() if name != "swap"]  # the same class as soft
WIDE = ("lip", "s3")  # checked in all dimensions where a check takes seconds


@dataclass(frozen=True)
class Subject:
    """One pooler in one mode, with an input of its dimensions and what a call needs to repeat."""

    name: str
    dims: int
    training: bool = False

    def pool(self, dtype: torch.dtype = torch.float32, **params: Any) -> Any:
        """Overlapping, padded windows; parameters away from their first values; an output of 2 per dimension."""
        torch.manual_seed(0)
        geometry = {"kernel_size": 3, "stride": 2, "padding": 1, **params}
        outputs = 2 if geometry["kernel_size"] else None
        pool = poolnb.create_pool(self.name, dims=self.dims, channels=2, output_size=outputs, **geometry)
        for parameter in pool.parameters():
            parameter.data.add_(0.1 * torch.rand_like(parameter))
        return pool.to(dtype).train(self.training)

    def free(self, **params: Any) -> Any:
        """A pooler without a parameter per output position, so that every size will do."""
        return self.pool(**params, **({"granularity": "channel"} if self.name == "tdgs" else {}))

    def x(self, size: int = 4, n: int = 2, dtype: torch.dtype = torch.float32) -> Tensor:
        generator = torch.Generator().manual_seed(size + n)
        other = size + (size not in (3, 4, 9))  # 9: windows without padding fit exactly, at other sizes they do not
        return torch.randn(n, 2, *(size, other, size)[3 - self.dims :], generator=generator, dtype=dtype)

    @property
    def more(self) -> dict[str, Any]:
        return {"seed": torch.tensor(5)} if self.draws else {}

    @property
    def draws(self) -> bool:
        return self.training and self.name in SAMPLED


def gradients(call: Callable[..., Tensor], x: Tensor, pool: nn.Module, **more: Any) -> list[Tensor]:
    """The output, and the gradients of the input and of the parameters."""
    leaf = x.clone().requires_grad_()
    y = call(leaf, **more)
    return [y.detach(), *torch.autograd.grad(y.square().sum(), [leaf, *pool.parameters()])]


same = functools.partial(torch.testing.assert_close, rtol=1e-4, atol=1e-5)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings and the progress that exporters print."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def refusal(call: Callable[[], Any], *words: str) -> str:
    """The first line of our message: of the error, or of one that torch wrapped into its own."""
    error: BaseException | None = None
    try:
        with quiet():
            call()
    except Exception as caught:
        error = caught
    assert error is not None, "it was expected to be refused"
    while error is not None:
        if all(word in str(error) for word in words):
            return next(line for line in str(error).splitlines() if all(word in line for word in words))
        error = error.__cause__ or error.__context__
    raise AssertionError(f"no message with {words}")


@dataclass(frozen=True)
class Wrapper:
    """A row of the table."""

    title: str
    check: Callable[[Subject], str | None]
    slow: bool = False  # in all dimensions, and in training, only for some poolers; with one set of kernels


WRAPPERS: dict[str, Wrapper] = {}


def wrapper(title: str, slow: bool = False) -> Callable[[Any], Any]:
    def add(check: Callable[[Subject], str | None]) -> Any:
        WRAPPERS[check.__name__] = Wrapper(title, check, slow)
        return check

    return add


# ---- training ----------------------------------------------------------------------------------------------------


@wrapper("torch.utils.checkpoint, both modes")
def checkpointing(subject: Subject) -> None:
    pool, x = subject.pool(), subject.x()

    def trained(call: Callable[..., Tensor], **more: Any) -> list[Any]:
        leaf = x.clone().requires_grad_()
        pool.zero_grad()
        torch.manual_seed(3)
        y = call(pool, leaf, **more) if call is checkpoint else call(leaf, **more)
        y.square().sum().backward()
        return [y.detach(), leaf.grad, *(p.grad for p in pool.parameters())]

    same(trained(checkpoint, use_reentrant=True), trained(pool))
    same(trained(checkpoint, use_reentrant=False), trained(pool))
    same(trained(checkpoint, use_reentrant=False, **subject.more), trained(pool, **subject.more))


@wrapper("torch.utils.checkpoint, compiled", slow=True)
def compiled_checkpointing(subject: Subject) -> None:
    torch._dynamo.reset()
    pool, x = subject.pool(), subject.x()
    for reentrant in (False, True):

        def loss(t: Tensor, reentrant: bool = reentrant) -> Tensor:
            return checkpoint(pool, t, use_reentrant=reentrant).square().sum()

        results = []
        for call in (lambda t: pool(t).square().sum(), torch.compile(loss, backend="aot_eager")):
            leaf = x.clone().requires_grad_()
            torch.manual_seed(3)
            call(leaf).backward()
            results.append(leaf.grad)
        same(*results)


@wrapper("in-place activations before and behind")
def in_place(subject: Subject) -> None:
    pool, x = subject.pool(), subject.x()
    for batch in (x, x[0]):

        def surrounded(inplace: bool, t: Tensor) -> Tensor:
            t = nn.functional.leaky_relu(t * 1, 0.5, inplace=inplace)
            return nn.functional.leaky_relu(pool(t, **subject.more), 0.5, inplace=inplace)

        plain, placed = (gradients(functools.partial(surrounded, i), batch, pool) for i in (False, True))
        same(placed, plain)


@wrapper("hooks of modules and tensors, forward and backward")
def hooks(subject: Subject) -> None:
    pool, x, seen = subject.pool(), subject.x(), []
    expected = gradients(pool, x, pool, **subject.more)
    kinds = ("forward_pre", "forward", "full_backward_pre", "full_backward")
    handles = [getattr(pool, f"register_{k}_hook")(lambda *a, k=k: seen.append(k)) for k in kinds]

    def call(t: Tensor, **more: Any) -> Tensor:
        t.register_hook(lambda g: seen.append("input"))
        y = pool(t, **more)
        y.register_hook(lambda g: seen.append("output"))
        return y

    same(gradients(call, x, pool, **subject.more), expected)
    assert {*seen} == {*kinds, "input", "output"}, seen
    for handle in handles:
        handle.remove()
    doubled = pool.register_forward_hook(lambda module, args, y: 2 * y)
    same(pool(x, **subject.more), 2 * expected[0])
    doubled.remove()


@wrapper("double backward")
def double_backward(subject: Subject) -> None:
    pool, x = subject.pool(torch.float64), subject.x(3, 1, torch.float64).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda t, *_: pool(t, **subject.more), (x, *pool.parameters()), fast_mode=True)


@wrapper("autocast to bfloat16")
def autocast(subject: Subject) -> None:
    pool, x = subject.pool(), subject.x()
    with torch.autocast("cpu", torch.bfloat16):
        results = gradients(pool, x, pool, **subject.more)
    assert results[0].dtype == torch.float32
    wide = {"rtol": 1e-4, "atol": 1e-5} if subject.name not in ("attention", "lip") else {"rtol": 0.1, "atol": 0.1}
    torch.testing.assert_close(results, gradients(pool, x, pool, **subject.more), **wide)


# ---- tracing -----------------------------------------------------------------------------------------------------


@wrapper("torch.fx.symbolic_trace")
def symbolic_trace(subject: Subject) -> None:
    pool, x = subject.pool(), subject.x()
    mask = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.8
    alone = torch.fx.symbolic_trace(pool)
    same(gradients(alone, x, alone, **subject.more), gradients(pool, x, pool, **subject.more))
    same(alone(x, mask, **subject.more), pool(x, mask, **subject.more))
    net = torch.fx.symbolic_trace(nn.Sequential(nn.ReLU(), pool))
    assert type(net.get_submodule("1")) is type(pool)
    net.eval()
    same(net(x), pool.eval()(x.relu()))


@wrapper("torchvision's create_feature_extractor")
def feature_extractor(subject: Subject) -> None:
    pool, x = subject.pool(), subject.x()
    net = nn.Sequential(nn.ReLU(), pool, nn.Tanh()).train(subject.training)
    extract = create_feature_extractor(net, {"1": "pooled", "2": "end"})
    torch.manual_seed(2)
    found = extract(x)
    torch.manual_seed(2)
    same(found["end"], net(x))
    same(found["pooled"].tanh(), found["end"])


@wrapper("TorchScript: torch.jit.trace and torch.jit.script")
def torchscript(subject: Subject) -> str:
    net, x = nn.Sequential(nn.ReLU(), subject.pool()), subject.x()
    traced = refusal(lambda: torch.jit.trace(net, (x,)), "poolnb does not work in TorchScript")
    assert traced == refusal(lambda: torch.jit.script(net), "poolnb does not work in TorchScript")
    return traced


# ---- torch.func --------------------------------------------------------------------------------------------------


def as_function(subject: Subject, dtype: torch.dtype = torch.float64) -> tuple[Any, Tensor, dict[str, Tensor]]:
    """The pooler as a function of its input and its parameters."""
    pool, x = subject.pool(dtype), subject.x(3, 1, dtype)
    parameters = {n: p.detach() for n, p in pool.named_parameters()}
    return lambda x, p: torch.func.functional_call(pool, p, (x,), subject.more), x, parameters


@wrapper("torch.func.grad, vjp and functional_call")
def func_grad(subject: Subject) -> None:
    call, x, parameters = as_function(subject)
    pool = subject.pool(torch.float64)
    _, of_x, *rest = gradients(pool, x, pool, **subject.more)
    slopes = torch.func.grad(lambda x, p: call(x, p).square().sum(), (0, 1))(x, parameters)
    same([slopes[0], *slopes[1].values()], [of_x, *rest])
    y, pull = torch.func.vjp(call, x, parameters)
    same(pull(2 * y)[0], of_x)


@wrapper("torch.func.vmap")
def func_vmap(subject: Subject) -> None:
    call, x, parameters = as_function(subject)
    many = torch.stack([x, 0.5 * x, -x])
    same(torch.func.vmap(call, (0, None))(many, parameters), torch.stack([call(t, parameters) for t in many]))
    slope = torch.func.grad(lambda x, p: call(x, p).square().sum(), (0, 1))
    each = [slope(t, parameters) for t in many]
    together = torch.func.vmap(slope, (0, None))(many, parameters)
    same(together[0], torch.stack([e[0] for e in each]))
    for n in parameters:
        same(together[1][n], torch.stack([e[1][n] for e in each]))


def tangents(x: Tensor, parameters: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(4)
    return torch.randn_like(x), {n: torch.randn_like(p) for n, p in parameters.items()}


def transposed_gradient(call: Any, x: Tensor, parameters: dict[str, Tensor]) -> Tensor:
    """The Jacobian times the tangents, by reverse mode alone."""
    _, pull = torch.func.vjp(call, x, parameters)
    v, w = tangents(x, parameters)

    def paired(u: Tensor) -> Tensor:
        of_x, of_parameters = pull(u)
        return (of_x * v).sum() + sum((of_parameters[n] * w[n]).sum() for n in parameters)

    return torch.func.grad(paired)(torch.zeros_like(call(x, parameters)))


@wrapper("torch.func.jvp")
def func_jvp(subject: Subject) -> None:
    call, x, parameters = as_function(subject)
    y, moved = torch.func.jvp(call, (x, parameters), tangents(x, parameters))
    same(y, call(x, parameters))
    same(moved, transposed_gradient(call, x, parameters))


@wrapper("torch.func.jacfwd and jacrev")
def jacobians(subject: Subject) -> None:
    call, x, parameters = as_function(subject)
    same(torch.func.jacfwd(call, (0, 1))(x, parameters), torch.func.jacrev(call, (0, 1))(x, parameters))


@wrapper("torch.func.hessian, and forward over forward")
def hessians(subject: Subject) -> None:
    call, x, parameters = as_function(subject)

    def total(x: Tensor) -> Tensor:
        return call(x, parameters).square().sum()

    expected = torch.autograd.functional.hessian(total, x)
    same(torch.func.hessian(total)(x), expected)
    if subject.name != "tdgs" or not subject.training:  # straight through: the gradient is no derivative of the value
        direction = torch.ones_like(x)

        def slope(x: Tensor) -> Tensor:
            return torch.func.jvp(total, (x,), (direction,))[1]

        same(torch.func.jvp(slope, (x,), (direction,))[1], expected.sum())


@wrapper("torch.autograd.forward_ad")
def dual_numbers(subject: Subject) -> None:
    call, x, parameters = as_function(subject)
    expected, (v, w) = transposed_gradient(call, x, parameters), tangents(x, parameters)
    for recording in (torch.enable_grad(), torch.no_grad()):
        with forward_ad.dual_level(), recording:
            duals = {n: forward_ad.make_dual(p, w[n]) for n, p in parameters.items()}
            y = call(forward_ad.make_dual(x, v), duals)
            same(forward_ad.unpack_dual(y).tangent, expected)


@wrapper("forward mode inside torch.compile", slow=True)
def compiled_forward_mode(subject: Subject) -> str | None:
    torch._dynamo.reset()
    pool, x = subject.pool(), subject.x()

    def pushed(t: Tensor) -> Tensor:
        return torch.func.jvp(lambda t: pool(t, **subject.more), (t,), (t,))[1]

    same(torch.compile(pushed, backend="aot_eager")(x), pushed(x))  # by a break of the graph, where need be
    torch._dynamo.reset()
    whole = torch.compile(pushed, backend="aot_eager", fullgraph=True)
    if subject.name in ("avg", "max"):  # torch's own operations
        same(whole(x), pushed(x))
        return None
    return refusal(lambda: whole(x), "cannot be compiled: call it outside torch.compile")


# ---- compilers and exporters -------------------------------------------------------------------------------------


@wrapper("torch.compile(fullgraph=True) with dynamic shapes", slow=True)
def compiled(subject: Subject) -> None:
    torch._dynamo.reset()
    for params in ({}, {"kernel_size": None, "stride": None, "padding": 0}, {"ceil_mode": True}):
        if not params.get("kernel_size", 3) and subject.name in ("gated", "tree", "rank", "tdgs"):
            continue
        pool = subject.free(**params)
        whole = torch.compile(pool, fullgraph=True, dynamic=True, backend="aot_eager")
        for x in (subject.x(9), subject.x(6, 3)):
            same(gradients(whole, x, pool, **subject.more), gradients(pool, x, pool, **subject.more))


GEOMETRIES: list[dict[str, Any]] = [
    {"ceil_mode": True},
    {"ceil_mode": True, "padding": 0},
    {"dilation": 2, "ceil_mode": True},
    {"kernel_size": None, "stride": None, "padding": 0},
]


def free_sizes(subject: Subject) -> Any:
    free = torch.export.Dim.DYNAMIC
    return ({0: free, **{2 + d: free for d in range(subject.dims)}},)


def geometries(subject: Subject) -> list[dict[str, Any]]:
    return GEOMETRIES[:3] if subject.name in ("gated", "tree", "rank") else GEOMETRIES


@wrapper("torch.export with free batch, height and width", slow=True)
def exported(subject: Subject) -> None:
    for params in geometries(subject):
        pool = subject.free(**params)
        program = torch.export.export(pool, (subject.x(9),), dynamic_shapes=free_sizes(subject), strict=False).module()
        for size, n in ((9, 2), (6, 3), (13, 1)):
            x = subject.x(size, n)
            torch.manual_seed(1)
            expected = pool(x)
            torch.manual_seed(1)
            same(program(x), expected)


def onnx_session(pool: nn.Module, subject: Subject) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pool.onnx"
        with quiet():
            shapes = free_sizes(subject)
            torch.onnx.export(pool, (subject.x(9),), path, dynamo=True, dynamic_shapes=shapes, verbose=False)
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 4, 1
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def runs_in_onnx(subject: Subject, params: dict[str, Any]) -> None:
    pool = subject.free(**params)
    session = onnx_session(pool, subject)
    for size, n in ((6, 3), (9, 2), (12, 1)):
        x = subject.x(size, n)
        (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        same(torch.from_numpy(y), pool(x).detach())


@wrapper("ONNX with free batch, height and width: padding, dilation, ceil_mode", slow=True)
def onnx(subject: Subject) -> str | None:
    if subject.draws:
        return refusal(lambda: onnx_session(subject.free(), subject), "call eval() before the export")
    if not subject.training:
        for params in GEOMETRIES[1:3] if subject.dims == 2 else GEOMETRIES[2:3]:
            runs_in_onnx(subject, params)
    return None


@wrapper("ONNX with free sizes, pooling all of them (kernel_size=None)", slow=True)
def onnx_global(subject: Subject) -> str | None:
    if subject.name in ("gated", "tree", "rank"):
        return NOT_APPLICABLE
    if subject.name in ("s3", "maxblur"):
        session = functools.partial(onnx_session, subject.free(**GEOMETRIES[3]), subject)
        return refusal(session, "cannot be exported to ONNX" if not subject.draws else "call eval()")
    if not subject.draws and not subject.training:
        runs_in_onnx(subject, GEOMETRIES[3])
    return None


@wrapper("ONNX by the old exporter (dynamo=False)")
def old_onnx(subject: Subject) -> str:
    pool, x = subject.pool(), subject.x()
    return refusal(lambda: torch.onnx.export(pool, (x,), io.BytesIO(), dynamo=False), "does not work in TorchScript")


@wrapper("free sizes where there is a parameter per output position", slow=True)
def position(subject: Subject) -> str:
    if subject.name not in ("mixed", "ada", "tdgs"):
        return NOT_APPLICABLE
    pool = subject.pool(granularity="position")
    export = functools.partial(torch.export.export, dynamic_shapes=free_sizes(subject))
    return refusal(lambda: export(pool, (subject.x(4),)), "the input's size cannot be free in an export")


class _All(nn.Module):
    """Several poolers beside each other: one compilation serves all."""

    def __init__(self, pools: list[nn.Module]) -> None:
        super().__init__()
        self.pools = nn.ModuleList(pools)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(pool(x) for pool in self.pools)


@functools.cache
def aoti_package(dims: int) -> tuple[Any, Any]:
    subject = Subject("soft", dims)
    model = _All([Subject(name, dims).free(ceil_mode=True) for name in NAMES])
    program = torch.export.export(model, (subject.x(9),), dynamic_shapes=free_sizes(subject), strict=False)
    folder = tempfile.mkdtemp()
    with quiet():
        path = torch._inductor.aoti_compile_and_package(program, package_path=f"{folder}/pools.pt2")
    return model, torch._inductor.aoti_load_package(path)


@wrapper("AOTInductor with free batch, height and width", slow=True)
def aoti(subject: Subject) -> None:
    if subject.dims != 2 or subject.training:
        return
    model, package = aoti_package(subject.dims)
    for size, n in ((9, 2), (6, 3), (13, 1)):
        x, which = subject.x(size, n), NAMES.index(subject.name)
        same(package(x)[which], model(x)[which])


# ---- devices and modes -------------------------------------------------------------------------------------------


@wrapper("meta device")
def meta(subject: Subject) -> None:
    pool, x = subject.pool(), subject.x()
    y = copy.deepcopy(pool).to("meta")(x.to("meta"), **subject.more)
    assert y.shape == pool(x).shape and y.dtype == x.dtype and y.stride() == pool(x).stride()


@wrapper("inference_mode")
def inference(subject: Subject) -> None:
    pool, x = subject.pool(), subject.x()
    with torch.inference_mode():
        y = pool(x, **subject.more)
    same(y, pool(x, **subject.more).detach())


@wrapper("deepcopy and pickle, before and after use")
def copies(subject: Subject) -> None:
    pool, x = subject.pool(), subject.x()
    early = pickle.loads(pickle.dumps(pool))
    expected = gradients(pool, x, pool, **subject.more)
    for twin in (early, copy.deepcopy(pool), pickle.loads(pickle.dumps(pool))):
        same(gradients(twin, x, twin, **subject.more), expected)


@wrapper("nn.DataParallel")
def data_parallel(subject: Subject) -> None:
    pool, x = subject.pool(), subject.x()
    wrapped = nn.DataParallel(pool)
    same(gradients(wrapped, x, pool, **subject.more), gradients(pool, x, pool, **subject.more))


@wrapper("four Python threads at once")
def threads(subject: Subject) -> None:
    pool, x, results = subject.pool(), subject.x(), {}
    expected = gradients(pool, x, pool, **subject.more)

    def work(i: int) -> None:
        for _ in range(3):
            results[i] = gradients(pool, x, pool, **subject.more)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for i in range(4):
        same(results[i], expected)


@wrapper("dynamic quantisation of the model's linear layers")
def quantised(subject: Subject) -> None:
    pool, x = subject.pool(), subject.x()
    net = nn.Sequential(pool, nn.Flatten(), nn.Linear(2 * 2**subject.dims, 3)).eval()
    with quiet():
        small = torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)
    assert type(small[0]) is type(pool)
    same(small[0](x), net[0](x))
    torch.testing.assert_close(small(x), net(x).detach(), rtol=0.1, atol=0.1)


# ---- other processes ---------------------------------------------------------------------------------------------


class _Pooled(torch.utils.data.Dataset):
    """Pools in the worker."""

    def __init__(self, subject: Subject, pool: nn.Module) -> None:
        self.subject, self.pool = subject, pool

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        return self.pool(self.subject.x(n=index + 1), **self.subject.more)[0].detach()


@wrapper("DataLoader workers that fork after use")
def forked_workers(subject: Subject) -> None:
    pool = subject.pool()
    gradients(pool, subject.x(), pool, **subject.more)
    items = _Pooled(subject, pool)
    loader = torch.utils.data.DataLoader(items, 2, num_workers=1, multiprocessing_context="fork")
    same(torch.cat(list(loader)), torch.stack([items[i] for i in range(4)]))


def _replica(rank: int, file: str, training: bool) -> None:
    """One of two processes: the gradient of half of a batch, averaged with the other's."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    wrong = {}
    for name in NAMES:
        subject = Subject(name, 2, training)
        try:
            torch.manual_seed(9)  # the same weights in both processes
            net = nn.Sequential(nn.Conv2d(2, 2, 1), subject.pool())
            halves = subject.x(n=4).chunk(2)
            torch.manual_seed(6)
            alone = torch.autograd.grad(_loss(net, halves), list(net.parameters()))
            both = nn.parallel.DistributedDataParallel(net)
            torch.manual_seed(6 + rank)
            both(halves[rank]).square().sum().backward()
            if name not in SAMPLED or not training:
                same([2 * p.grad for p in net.parameters()], list(alone))
            assert all(p.grad.isfinite().all() for p in net.parameters())
        except Exception as error:
            wrong[name] = repr(error)
    torch.save(wrong, f"{file}.{rank}")
    torch.distributed.destroy_process_group()


def _loss(net: nn.Module, parts: Any) -> Tensor:
    return sum((net(part).square().sum() for part in parts), torch.zeros(()))


@functools.cache
def replicas(training: bool) -> dict[str, str]:
    """What went wrong, by name, in either process."""
    file = str(Path(tempfile.mkdtemp()) / "meet")
    torch.multiprocessing.spawn(_replica, (file, training), nprocs=2)
    return {**torch.load(f"{file}.0"), **torch.load(f"{file}.1")}


@wrapper("DistributedDataParallel on gloo, two processes", slow=True)
def distributed(subject: Subject) -> None:
    if subject.dims == 2:
        wrong = replicas(subject.training)
        assert subject.name not in wrong, wrong[subject.name]
