r"""Tree pooling: a binary tree of sigmoid gates over linear leaves.

A leaf is :math:`\langle v, x\rangle`; an inner node is :math:`s f_l + (1-s) f_r` with :math:`s = \sigma(\langle\omega,
x\rangle)`. Gates are numbered from the root, level by level.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from poolnb.geometry import Geometry, is_long, scatter
from poolnb.ops.checks import GATES, LEAVES
from poolnb.ops.mixed import blend, gate_slope
from poolnb.ops.registration import PoolOp
from poolnb.ops.taps import all_finite, finite, open_windows, to_acc_dtype


class _State(NamedTuple):
    taps: Tensor
    valid: Tensor | None
    nodes: list[Tensor]  # the value of every node, in the order of a heap: inner nodes first, then leaves
    gates: Tensor  # sigmoid, (L - 1, N, C, *output)
    safe: bool


def _evaluate(windows: Geometry, x: Tensor, mask: Tensor | None, leaves: Tensor, gates: Tensor) -> _State:
    safe = not all_finite(x, leaves, gates)
    taps, valid = open_windows(x, mask, windows)
    inner, filters = gates.size(0), torch.cat([gates, leaves])
    linear = _product(filters, finite(taps, safe).flatten(1)).unflatten(1, taps.shape[1:])
    if safe:
        linear = linear + _endless(filters, taps)
    opened = torch.sigmoid(linear[:inner])
    nodes: list[Tensor] = list(linear[inner:].unbind(0))
    for i in reversed(range(inner)):  # children of node i: 2 i + 1 and 2 i + 2, here counted from i + 1
        nodes.insert(0, blend(opened[i], nodes[i], nodes[i + 1], safe))
    return _State(taps, valid, nodes, opened, safe)


def _product(filters: Tensor, taps: Tensor) -> Tensor:
    """The matrix product, in float64 where many taps are summed."""
    return (filters.double() @ taps.double()).to(taps.dtype) if is_long(taps.size(0)) else filters @ taps


def _sums(linear: Tensor, taps: Tensor) -> Tensor:
    """The sum over all windows of linear (nodes, N, C, *output) times taps, (nodes, taps).

    Image by image and channel by channel first: one product over all windows adds them in one row, and loses digits.
    """
    nodes, values = (t.flatten(1, 2).flatten(2).transpose(0, 1) for t in (linear, taps))
    return (nodes @ values.transpose(1, 2)).sum(0)


def _endless(filters: Tensor, taps: Tensor) -> Tensor:
    """What infinite taps add to linear filters: +-inf by the sign of the weight, nothing at a weight of 0."""
    infinite = taps.masked_fill(~taps.isinf(), 0).sign().flatten(1)
    net, touched = filters.sign() @ infinite, filters.sign().abs() @ infinite.abs()
    up = torch.zeros_like(net).masked_fill(touched + net > 0, torch.inf)
    down = torch.zeros_like(net).masked_fill(touched - net > 0, torch.inf)
    values: Tensor = (up - down).unflatten(1, taps.shape[1:])
    return values


def _forward(windows: Geometry, x: Tensor, mask: Tensor | None, leaves: Tensor, gates: Tensor) -> Tensor:
    return _evaluate(windows, x, mask, leaves, gates).nodes[0]


def _backward(
    windows: Geometry,
    param_grads: bool,
    grad: Tensor,
    x: Tensor,
    mask: Tensor | None,
    leaves: Tensor,
    gates: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    taps, valid, nodes, opened, safe = _evaluate(windows, x, mask, leaves, gates)
    inner = gates.size(0)
    arriving, linear_grads = [to_acc_dtype(grad)], []
    for i in range(inner):
        left, right, s = nodes[2 * i + 1], nodes[2 * i + 2], opened[i]
        linear_grads.append(arriving[i] * gate_slope(s, left, right, safe))
        arriving += [arriving[i] * s, arriving[i] * (1 - s)]
    linear = torch.stack([*linear_grads, *arriving[inner:]]).flatten(1)
    slopes = (torch.cat([gates, leaves]).t() @ linear).unflatten(1, taps.shape[1:])
    if valid is not None:
        slopes = slopes * valid.to(slopes.dtype)
    grad_x = scatter(slopes, windows)
    if not param_grads:
        return grad_x, leaves, gates
    weights = _sums(linear.unflatten(1, taps.shape[1:]), finite(taps, safe))
    return grad_x, weights[inner:].clone(), weights[:inner].clone()


tree_pool = PoolOp("tree_pool", _forward, _backward, tensors={"leaves": LEAVES, "gates": GATES})
