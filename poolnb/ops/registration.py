"""How an operator becomes a ``torch.library`` op: schema, fake kernel, gradient, second derivative, vmap.

An operator's file gives ``forward`` and ``backward`` on plain tensors and one :class:`PoolOp` that names them. Both are
the op's default kernels, for every device; a compiled kernel registered for CPU or CUDA takes precedence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch._library.autograd import Info, make_autograd_impl
from torch.autograd import forward_ad

from poolnb.geometry import Geometry, empty_output, memory_format, windows_of
from poolnb.ops.checks import Checks, Form
from poolnb.ops.chunking import batch_parts, part_of, samples_at_once
from poolnb.ops.philox import Seed
from poolnb.ops.taps import to_acc_dtype

OPS: dict[str, PoolOp] = {}  # poolnb's own by name, as their files are imported
LIBRARY = torch.library.Library("poolnb", "DEF")
_GEOMETRY = "SymInt[] kernel_size, SymInt[] stride, SymInt[] padding, SymInt[] dilation, SymInt[] output_size"
_N_GEOMETRY = 5


@cache
def _library(namespace: str) -> torch.library.Library:
    return LIBRARY if namespace == "poolnb" else torch.library.Library(namespace, "FRAGMENT")


class PoolOp:
    """One pooling operator as the two ops ``poolnb::<name>`` and ``poolnb::<name>_backward``.

    Args:
        name: the op's name, such as ``soft_pool``.
        forward: ``forward(windows, input, mask, *tensors, [seed,] *attributes) -> output``.
        backward: ``backward(windows, param_grads, grad, input, mask, *tensors, [seed,] *attributes)
            -> (grad_input, *grad_tensors)``. It is written in differentiable PyTorch: the second derivative is its
            own vector-Jacobian product. With ``param_grads`` false only ``grad_input`` is wanted, and the other
            entries may be anything.
        tensors: the operator's own differentiable tensors by name, and what ``poolnb.ops.checks`` accepts of them.
        attributes: its other arguments in schema syntax, such as ``"bool semi_grad"``, with a usual value of each;
            floats are positive, ints at least 1.
        sampled: whether the operator draws: it then takes ``seed``, an int64 0-d tensor on the CPU or the input's
            device, or ``None`` for evaluation. ``poolnb.ops.philox`` makes the noise.
        batched: names of those ``tensors`` whose first dimension is the input's batch dimension, or 1.
        namespace: where the ops are defined; an operator of another package gives its own.
        at_once: how many samples of ``(input, windows, mask)`` its memory allows at once.

    The ops take ``(input, mask, *tensors, [seed,] kernel_size, stride, padding, dilation, output_size, *attributes)``,
    all geometry resolved, so that no kernel has to know a rule for sizes.
    """

    def __init__(
        self,
        name: str,
        forward: Callable[..., Tensor],
        backward: Callable[..., Tensor | tuple[Tensor, ...]],
        tensors: Mapping[str, Form] | None = None,
        attributes: Mapping[str, Any] | None = None,
        sampled: bool = False,
        batched: Sequence[str] = (),
        namespace: str = "poolnb",
        at_once: Callable[..., int] = samples_at_once,
    ) -> None:
        self.tensors = tensors = dict(tensors or {})
        attributes = dict(attributes or {})
        self.attributes = {declared.split()[1]: usual for declared, usual in attributes.items()}
        self.check = Checks(tuple(tensors), tuple(tensors.values()), sampled, tuple(attributes))
        self.batched = ("input", "mask", *batched)
        self.may_be_cut = [name in (*self.batched, "seed") for name in ("input", "mask", *tensors, *["seed"] * sampled)]
        self.name, self.forward, self.backward, self.at_once = name, forward, backward, at_once
        self.n_tensors, self.sampled = len(tensors), sampled
        self.first = 2 + self.n_tensors + sampled  # where the geometry begins: tensors stand before it
        declared = "".join(f", Tensor {t}" for t in tensors) + (", Tensor? seed" if sampled else "")
        args = f"Tensor input, Tensor? mask{declared}, {_GEOMETRY}" + "".join(f", {a}" for a in attributes)
        grads = ", ".join(["Tensor"] * (1 + self.n_tensors))
        returns = grads if self.n_tensors == 0 else f"({grads})"
        self.library = _library(namespace)
        self.op = self._define(name, f"({args}) -> Tensor")
        self.backward_op = self._define(f"{name}_backward", f"(bool param_grads, Tensor grad, {args}) -> {returns}")
        self._functions: dict[Any, type[torch.autograd.Function]] = {}
        self._direct: dict[Any, type[torch.autograd.Function]] = {}
        self._register_forward()
        self._register_backward()
        if namespace == "poolnb":
            OPS[name] = self

    def __call__(self, input: Tensor, mask: Tensor | None, windows: Geometry, *params: Any) -> Tensor:
        """Run the op; ``params`` holds the operator's tensors, with the seed of a sampled one, then its attributes."""
        w, n = windows, self.first - 2
        # ONNX has no operator of ours: let the trace see the PyTorch kernel.
        if torch.compiler.is_compiling() and torch.onnx.is_in_onnx_export():
            self._refuse_onnx_draw(params[:n])
            return _in_layout_of(input, self.forward(w, input, mask, *params))
        output: Tensor = self._call(self.op, input, mask, *params[:n], *_flat(w), *params[n:])
        return output

    def gradient(self, grad: Tensor, input: Tensor, mask: Tensor | None, windows: Geometry, *params: Any) -> Any:
        """The gradients of ``input`` and of the operator's tensors, for an operator that is made of this one."""
        if torch._C._are_functorch_transforms_active():  # that backward is being differentiated: see `second` below
            return self.backward(windows, True, grad, input, mask, *params)
        n = self.first - 2
        return self._call(self.backward_op, True, grad, input, mask, *params[:n], *_flat(windows), *params[n:])

    def _call(self, op: Any, *args: Any) -> Any:
        if torch.compiler.is_compiling():
            if in_forward_mode():  # a graph has the op alone, without this rule: its tangent would be 0
                raise NotImplementedError(
                    f"forward mode of {self.name} cannot be compiled: call it outside torch.compile"
                )
            return op(*args)
        # torch.func cannot see through an op's registered gradient; the same rules as a Function serve it.
        if torch._C._are_functorch_transforms_active():
            return op(*args) if _functionalized() else self._functions[op].apply(*args)
        # In eager mode they do because they cost less (see `_direct`); where nobody asks for a gradient, nothing does.
        if in_forward_mode() or (torch.is_grad_enabled() and _any_requires_grad(args)):
            return self._direct[op].apply(*args)
        return _without_autograd(op, *args)

    def _refuse_onnx_draw(self, tensors: Sequence[Tensor | None]) -> None:
        if self.sampled and tensors[-1] is not None:
            raise ValueError(f"{self.name} draws, and ONNX has no such noise: call eval() before the export")

    # ---- arguments ---------------------------------------------------------------------------------------------------

    def _split(self, args: Sequence[Any]) -> tuple[Geometry, tuple[Any, ...]]:
        """(input, mask, *tensors, [seed,] *geometry, *attributes) -> windows, and the same without the geometry."""
        first = self.first
        windows = windows_of(tuple(args[0].shape[2:]), *map(tuple, args[first : first + _N_GEOMETRY]))
        seed = [None if args[first - 1] is None else Seed(args[first - 1])] if self.sampled else []
        return windows, (*args[: first - len(seed)], *seed, *args[first + _N_GEOMETRY :])

    def _define(self, name: str, schema: str) -> Any:
        self.library.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
        return getattr(getattr(torch.ops, self.library.ns), name).default

    def _as_tuple(self, result: Any) -> tuple[Any, ...]:
        return result if isinstance(result, tuple) else (result,)

    # ---- large batches, a part at a time -----------------------------------------------------------------------------

    def _part(self, inputs: Sequence[Any], part: slice) -> list[Any]:
        """(input, mask, *tensors, [seed,] *attributes) for one part of the batch."""
        cut = (part_of(a, part, batched) for a, batched in zip(inputs[: self.first], self.may_be_cut, strict=True))
        return [*cut, *inputs[self.first :]]

    def _forward_in_parts(self, windows: Geometry, inputs: Sequence[Any]) -> Tensor:
        x, mask = inputs[:2]
        step = self.at_once(x, windows, mask)
        if x.size(0) <= step:
            return _in_layout_of(x, self.forward(windows, *inputs))
        output = empty_output(x, windows)
        for part in batch_parts(x, step):
            output[part] = self.forward(windows, *self._part(inputs, part))
        return output

    def _backward_in_parts(
        self, windows: Geometry, param_grads: bool, grad: Tensor, inputs: Sequence[Any]
    ) -> tuple[Tensor, ...]:
        x, mask = inputs[:2]
        step = self.at_once(x, windows, mask)
        if x.size(0) <= step:
            first, *rest = self._as_tuple(self.backward(windows, param_grads, grad, *inputs))
            return (_in_layout_of(x, first), *rest)
        # Sums in place: small results that outlive their part would keep the allocator from using its memory again.
        tensors = inputs[2 : 2 + self.n_tensors]
        sums = (_empty_like(x), *(torch.zeros_like(to_acc_dtype(t)) for t in tensors))
        for part in batch_parts(x, step):
            grads = self._as_tuple(self.backward(windows, param_grads, grad[part], *self._part(inputs, part)))
            sums[0][part] = grads[0]
            if param_grads:
                for total, g, batched in zip(sums[1:], grads[1:], self.may_be_cut[2:], strict=False):
                    part_of(total, part, batched).add_(g)
        return sums

    # ---- the op ------------------------------------------------------------------------------------------------------

    def _register_forward(self) -> None:
        def kernel(*args: Any) -> Tensor:
            self.check(args)
            windows, inputs = self._split(args)
            with _below_autograd(), _without_autocast(inputs[0]), _enough_memory(inputs[0], "output", windows.output):
                return self._forward_in_parts(windows, inputs)

        def fake(*args: Any) -> Tensor:
            self.check(args)
            windows, inputs = self._split(args)
            if torch.onnx.is_in_onnx_export():  # its second attempt, by a tracer that skips __call__'s branch:
                self._refuse_onnx_draw(inputs[2 : self.first])
                self.forward(windows, *inputs)  # say again what the first one failed of
            return empty_output(inputs[0], windows)

        def save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
            _save(ctx, inputs[: self.first])
            ctx.rest = inputs[self.first :]

        def gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
            needs, saved = ctx.needs_input_grad, ctx.saved_tensors  # once: checkpoints give them away
            param_grads = any(needs[2 : 2 + self.n_tensors])
            grads = self._as_tuple(self._call(self.backward_op, param_grads, grad, *saved, *ctx.rest))
            wanted = [g if need else None for g, need in zip(grads[1:], needs[2:], strict=False)]
            grad_x = grads[0] if needs[0] else None
            return (grad_x, None, *wanted, *(None,) * (len(needs) - 2 - len(wanted)))

        def tangent(ctx: Any, saved: Sequence[Any], *tangents: Any) -> Tensor:
            """Forward mode: the gradient is linear in what arrives, and its transpose is the derivative.

            So the two agree by construction, where a gradient is not that of the function (straight through) as well.
            """
            windows, inputs = self._split((*saved, *ctx.rest))
            x, mask, n = inputs[0], inputs[1], 2 + self.n_tensors
            given = [i for i in (0, *range(2, n)) if tangents[i] is not None]

            def pulled_back(grad: Tensor) -> tuple[Tensor, ...]:
                grad_x, *rest = self._as_tuple(self.backward(windows, any(given), grad, *inputs))
                grads = (_without_masked(grad_x, mask), None, *rest)
                return tuple(grads[i] for i in given)

            out, push = torch.func.vjp(pulled_back, torch.zeros_like(empty_output(x, windows)))  # type: ignore[misc]
            pushed: Tensor = push(tuple(tangents[i].to(o.dtype) for i, o in zip(given, out, strict=True)))[0]
            return pushed

        self._register(self.op, kernel, fake, gradient, tangent, save, self.batched)

    # ---- its gradient, an op too -------------------------------------------------------------------------------------

    def _register_backward(self) -> None:
        def kernel(param_grads: bool, grad: Tensor, *args: Any) -> Any:
            self.check(args, grad)
            windows, inputs = self._split(args)
            with _below_autograd(), _without_autocast(inputs[0]), _enough_memory(inputs[0], "gradient", windows.size):
                grad_x, *grads = self._backward_in_parts(windows, param_grads, grad, inputs)
                grad_x = _in_layout_of(inputs[0], _without_masked(grad_x, inputs[1]))
            of_params = [_param_grad(g, p, param_grads) for g, p in zip(grads, inputs[2:], strict=False)]
            return (grad_x, *of_params) if self.n_tensors else grad_x

        def fake(param_grads: bool, grad: Tensor, *args: Any) -> Any:
            self.check(args, grad)
            x, tensors = args[0], args[2 : 2 + self.n_tensors]
            grad_x = _empty_like(x)
            of_params = [_empty_like(t) if param_grads else t.new_empty(0) for t in tensors]
            return (grad_x, *of_params) if self.n_tensors else grad_x

        def save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            first = 2 + self.first
            ctx.param_grads, ctx.rest = inputs[0], inputs[first:]
            _save(ctx, inputs[1:first])

        def second(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
            grad, *saved = ctx.saved_tensors
            windows, inputs = self._split((*saved, *ctx.rest))
            x, mask, tensors, rest = inputs[0], inputs[1], inputs[2 : 2 + self.n_tensors], inputs[2 + self.n_tensors :]

            def first_derivative(grad: Tensor, x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
                grads = self._as_tuple(self.backward(windows, ctx.param_grads, grad, x, mask, *tensors, *rest))
                grads = (_without_masked(grads[0], mask), *grads[1:])
                return grads if ctx.param_grads else grads[:1]

            out, vjp = torch.func.vjp(first_derivative, grad, x, *tensors)  # type: ignore[misc]
            pairs = zip(cotangents, out, strict=False)
            filled = tuple(torch.zeros_like(o) if c is None else c.to(o.dtype) for c, o in pairs)
            d_grad, d_x, *d_tensors = vjp(filled)
            return (None, d_grad, d_x, None, *d_tensors, *(None,) * (len(rest) + _N_GEOMETRY))

        def tangent(ctx: Any, saved: Sequence[Any], *tangents: Any) -> Any:
            grad, *saved = saved
            windows, inputs = self._split((*saved, *ctx.rest))
            tensors = [grad, inputs[0], *inputs[2 : 2 + self.n_tensors]]
            moved = [tangents[1], tangents[2], *tangents[4 : 4 + self.n_tensors]]

            def first_derivative(grad: Tensor, x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
                rest = inputs[2 + self.n_tensors :]
                return self._as_tuple(self.backward(windows, ctx.param_grads, grad, x, inputs[1], *tensors, *rest))

            # Copies, because an expanded tensor cannot carry a tangent.
            filled = [torch.zeros_like(p) if t is None else t.to(p.dtype) for p, t in zip(tensors, moved, strict=True)]
            copies = tuple(t.clone() for t in tensors), tuple(t.clone() for t in filled)
            of_x, *rest = _pushed_forward(first_derivative, *copies)
            of_params = [_param_grad(g, p, ctx.param_grads) for g, p in zip(rest, tensors[2:], strict=True)]
            of_x = _in_layout_of(inputs[0], of_x)
            return (of_x, *of_params) if self.n_tensors else of_x

        self._register(self.backward_op, kernel, fake, second, tangent, save, ("grad", *self.batched))

    def _register(
        self, op: Any, kernel: Any, fake: Any, gradient: Any, tangent: Any, save: Any, batched: Sequence[str]
    ) -> None:
        lib = self.library
        lib.impl(_name(op), kernel, "CompositeExplicitAutograd")
        torch.library.register_fake(op, fake, lib=lib)
        self._direct[op] = differentiable(lib, op, gradient, tangent, save)
        torch.library.register_vmap(op, _batching_rule(op, op, batched), lib=lib)
        rule = _batching_rule(op, partial(self._call, op), batched)
        self._functions[op] = _function(op, gradient, tangent, save, rule)


def _name(op: Any) -> str:
    name: str = op._schema.name.partition("::")[2]
    return name


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def in_forward_mode() -> bool:
    return forward_ad._current_level >= 0


def _pushed_forward(function: Callable[..., Any], primals: Sequence[Tensor], tangents: tuple[Tensor, ...]) -> Any:
    """The derivative of a function along tangents."""
    if torch._C._are_functorch_transforms_active():
        return torch.func.jvp(function, tuple(primals), tangents)[1]
    # torch nests no forward mode in dual numbers: the pulled back is linear in what arrives, and its transpose this.
    result, pull = torch.func.vjp(function, *primals)  # type: ignore[misc]
    _, push = torch.func.vjp(pull, tuple(map(torch.zeros_like, result)))  # type: ignore[misc]
    return push(tangents)[0]


def _flat(w: Geometry) -> tuple[tuple[int, ...], ...]:
    """The windows as the ops take them; the size is the input's."""
    return w.kernel, w.stride, w.padding, w.dilation, w.output


def _forward_mode(tangent: Any) -> Callable[..., Any]:
    """The rule of a Function's ``jvp``, told the primals without their tangents.

    torch calls it with forward mode switched off, and so would forget the tangents of outer levels.
    """

    def jvp(ctx: Any, *tangents: Any) -> Any:
        with forward_ad._set_fwd_grad_enabled(True):
            primals = [None if t is None else forward_ad.unpack_dual(t).primal for t in ctx.saved_tensors]
            return tangent(ctx, primals, *tangents)

    return jvp


def _function(op: Any, gradient: Any, tangent: Any, save: Any, rule: Any) -> type[torch.autograd.Function]:
    class Transformed(torch.autograd.Function):
        forward = staticmethod(op)
        setup_context = staticmethod(save)
        backward = staticmethod(gradient)
        jvp = staticmethod(_forward_mode(tangent))
        vmap = staticmethod(rule)

    return Transformed


def _save(ctx: Any, tensors: Sequence[Tensor | None]) -> None:
    ctx.save_for_backward(*tensors)
    if forward_ad._current_level >= 0:
        ctx.save_for_forward(*tensors)


def _direct(op: Any, gradient: Any, tangent: Any, save: Any) -> type[torch.autograd.Function]:
    """The op with its gradient for eager mode: torch does the same for the op itself, but takes longer about it."""

    def forward(ctx: Any, *args: Any) -> Any:
        output = _without_autograd(op, *args)
        save(ctx, args, output)
        return output

    # Made by its name, which `grad_fn` then shows and profilers print.
    members = {"forward": forward, "backward": gradient, "jvp": _forward_mode(tangent)}
    methods = {name: staticmethod(function) for name, function in members.items()}
    return type(_name(op), (torch.autograd.Function,), methods)


def differentiable(
    lib: torch.library.Library, op: Any, gradient: Any, tangent: Any, save: Any
) -> type[torch.autograd.Function]:
    """Register the op's gradient; returns the op with it for eager mode, see `_direct`.

    What torch makes of a gradient forgets tangents without a word, where somebody calls the op itself: an exported
    program does.
    """
    direct, without_tangents = _direct(op, gradient, tangent, save), make_autograd_impl(op, Info(gradient, save))

    def kernel(keyset: Any, *args: Any) -> Any:
        forwards = in_forward_mode() and any(map(_has_tangent, args))
        if torch._C._are_functorch_transforms_active() and (forwards or _any_requires_grad(args)):
            raise NotImplementedError(
                f"torch.func cannot differentiate torch.ops.{op._namespace}.{_name(op)}: call poolnb's function or "
                "module, outside torch.func.functionalize, or use torch.autograd"
            )
        return direct.apply(*args) if forwards else without_tangents(keyset, *args)

    lib.impl(_name(op), kernel, "Autograd", with_keyset=True)
    return direct


def _functionalized() -> bool:
    """Whether torch.func.functionalize is at work, which knows ops and no Function."""
    levels = torch._C._functorch.get_interpreter_stack() or ()
    return any(level.key() == torch._C._functorch.TransformType.Functionalize for level in levels)


def _any_requires_grad(args: Sequence[Any]) -> bool:
    for argument in args:  # a loop: a generator would cost more than the question
        if isinstance(argument, Tensor) and argument.requires_grad:
            return True
    return False


def _has_tangent(argument: Any) -> bool:
    return isinstance(argument, Tensor) and forward_ad.unpack_dual(argument).tangent is not None


def _without_masked(grad_x: Tensor, mask: Tensor | None) -> Tensor:
    """A NaN in a window is no matter of its masked taps; the compiled kernels see to it themselves."""
    return grad_x if mask is None else grad_x.masked_fill(~mask, 0)


def _without_autograd(op: Any, *args: Any) -> Any:
    with torch._C._AutoDispatchBelowAutograd():
        return op(*args)


def _below_autograd() -> AbstractContextManager[Any]:
    """A kernel's own views are nobody's business: autograd lets no output that it takes for one be changed in place."""
    return torch._C._AutoDispatchBelowADInplaceOrView()


def _without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """Kernels choose their dtypes themselves; autocast would compute their matrix products in a half type."""
    device = x.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


@contextmanager
def _enough_memory(x: Tensor, what: str, size: Sequence[int]) -> Iterator[None]:
    """Says what a call would need where the CPU's memory ends; a GPU's allocator has an error of its own."""
    try:
        yield
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
        shape = (*x.shape[:2], *size)
        need = f"{math.prod(shape)} elements of {x.itemsize} bytes"
        raise RuntimeError(f"no memory for the {what}: shape {shape} takes {need}, and its taps more") from error


def _empty_like(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=memory_format(x))


def _in_layout_of(x: Tensor, result: Tensor) -> Tensor:
    return in_layout(result.to(x.dtype), memory_format(x))


def in_layout(result: Tensor, layout: torch.memory_format) -> Tensor:
    result = result.contiguous(memory_format=layout)
    # Contiguous leaves the strides of axes of size 1 as they come; what the fake kernel promises holds for all.
    promised = torch.empty(result.shape, device="meta", memory_format=layout).stride()
    return result if result.stride() == promised else result.as_strided(result.shape, promised)


def _param_grad(grad: Tensor, param: Tensor, wanted: bool) -> Tensor:
    return _in_layout_of(param, grad) if wanted else param.new_empty(0)


def _batching_rule(op: Any, call: Callable[..., Any], foldable: Sequence[str]) -> Callable[..., Any]:
    """vmap: a batched input joins the batch dimension; a batched parameter means one call per entry.

    So does a seed: the noise depends on the position in the batch dimension, and entries must not disturb each other.
    """
    names = [a.name for a in op._schema.arguments]

    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        # Lists of sizes come with a list of dims; they are never batched.
        dims = [d if isinstance(a, Tensor) else None for a, d in zip(args, in_dims, strict=True)]
        unfoldable = [d for n, d in zip(names, dims, strict=True) if n not in foldable]
        sampled = "seed" in names and args[names.index("seed")] is not None
        if sampled or any(d is not None for d in unfoldable):
            return _looped(call, info.batch_size, dims, args)
        if len(op._schema.returns) > 1:  # parameter gradients are sums over the batch dimension
            return _looped(call, info.batch_size, dims, args)
        return _folded(call, info.batch_size, dims, args, [n in foldable for n in names])

    return rule


def _folded(call: Any, size: int, dims: list[int | None], args: Sequence[Any], fold: list[bool]) -> tuple[Tensor, int]:
    stacked = [
        _leading(a, d, size) if f and isinstance(a, Tensor) else a for a, d, f in zip(args, dims, fold, strict=True)
    ]
    batch = max(a.size(1) for a, f in zip(stacked, fold, strict=True) if f and isinstance(a, Tensor))
    folded = [
        a.expand(size, batch, *a.shape[2:]).flatten(0, 1) if f and isinstance(a, Tensor) else a
        for a, f in zip(stacked, fold, strict=True)
    ]
    return call(*folded).unflatten(0, (size, batch)), 0


def _leading(x: Tensor, dim: int | None, size: int) -> Tensor:
    """``x`` with the vmapped dimension in front."""
    return x.movedim(dim, 0) if dim is not None else x.expand(size, *x.shape)


def _looped(call: Any, size: int, dims: list[int | None], args: Sequence[Any]) -> Any:
    def at(i: int) -> list[Any]:
        return [a if d is None else a.select(d, i) for a, d in zip(args, dims, strict=True)]

    results = [call(*at(i)) for i in range(size)]
    if isinstance(results[0], tuple):
        return tuple(torch.stack(r) for r in zip(*results, strict=True)), (0,) * len(results[0])
    return torch.stack(results), 0
