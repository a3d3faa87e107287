r"""Adaptive pooling by the distance to the mean alone: :math:`y = \sum_i u_i x_i` with the u of ``ada``."""

from __future__ import annotations

from torch import Tensor

from poolnb.geometry import Geometry, scatter
from poolnb.ops.ada import near, near_slope
from poolnb.ops.registration import PoolOp
from poolnb.ops.taps import all_finite, open_windows, spoilt, to_acc_dtype


def _forward(windows: Geometry, x: Tensor, mask: Tensor | None, semi_grad: bool) -> Tensor:
    return near(*open_windows(x, mask, windows), not all_finite(x)).output


def _backward(
    windows: Geometry, param_grads: bool, grad: Tensor, x: Tensor, mask: Tensor | None, semi_grad: bool
) -> Tensor:
    safe = not all_finite(x)
    taps, valid = open_windows(x, mask, windows)
    n = near(taps, valid, safe)
    slope = near_slope(n, taps, semi_grad, safe)
    return scatter(to_acc_dtype(grad) * spoilt(slope, n.output, safe), windows)


edscw_pool = PoolOp("edscw_pool", _forward, _backward, attributes={"bool semi_grad": False})
