"""What an operator of another package is made of: everything here is public, and nothing has to be touched in poolnb.

An operator is ``forward`` and ``backward`` over the taps of all windows, (taps, N, C, *output) in, (N, C, *output) out,
and one :class:`PoolOp`, which makes of them a ``torch.library`` op with autograd, second derivatives, forward mode,
``vmap``, ``torch.compile``, export and memory layouts:

    def forward(windows, input, mask):
        taps, valid = open_windows(input, mask, windows)
        ...
    def backward(windows, param_grads, grad, input, mask):
        ...
        return scatter(to_taps, windows)

    midrange_pool = PoolOp("midrange_pool", forward, backward, namespace="mine")

:func:`check` sees to the arguments that all poolers share, :func:`by_dimension` makes the three functions of one,
:class:`Pool` is the base of the modules, and :func:`register_pool` gives them a name. ``tests/test_extension.py`` of
poolnb's repository is a complete example, with an oracle in NumPy.
"""

from poolnb._arguments import Call, channel_parameter, check, check_equal_windows, flag, noise_seed, number
from poolnb.functional._dimensions import by_dimension
from poolnb.geometry import Geometry, IntOrSizes, OutputSize, Padding, scatter
from poolnb.modules._base import Device, Pool, check_factory, parameter_shape
from poolnb.ops.checks import LIKE_INPUT, LIKE_OUTPUT, PER_CHANNEL, PER_CHANNEL_AND_WINDOW, PER_TAP, Form
from poolnb.ops.philox import Seed
from poolnb.ops.registration import PoolOp
from poolnb.ops.taps import channelwise, one_hot, open_windows, per_channel_sum, spoilt, to_acc_dtype, weighted_mean
from poolnb.registry import register_pool

__all__ = [
    "LIKE_INPUT",
    "LIKE_OUTPUT",
    "PER_CHANNEL",
    "PER_CHANNEL_AND_WINDOW",
    "PER_TAP",
    "Call",
    "Device",
    "Form",
    "Geometry",
    "IntOrSizes",
    "OutputSize",
    "Padding",
    "Pool",
    "PoolOp",
    "Seed",
    "to_acc_dtype",
    "by_dimension",
    "channel_parameter",
    "channelwise",
    "check",
    "check_equal_windows",
    "check_factory",
    "flag",
    "noise_seed",
    "number",
    "one_hot",
    "open_windows",
    "parameter_shape",
    "per_channel_sum",
    "register_pool",
    "scatter",
    "spoilt",
    "weighted_mean",
]
