"""The operators as ``torch.library`` ops: one file each, holding schema, default PyTorch kernel and gradient.

Compiled kernels join by registering the CPU and CUDA keys of the same ops; nothing above this package changes.
"""

from poolnb.ops.gated import gated_pool
from poolnb.ops.gem import gem_pool
from poolnb.ops.hard import avg_pool, max_pool
from poolnb.ops.lp import lp_pool
from poolnb.ops.lse import lse_pool
from poolnb.ops.mixed import mixed_pool
from poolnb.ops.s3 import s3_pool
from poolnb.ops.soft import soft_pool
from poolnb.ops.stochastic import stochastic_pool
from poolnb.ops.tdgs import tdgs_pool
from poolnb.ops.tree import tree_pool
from poolnb.ops.weighted import weighted_pool

__all__ = [
    "avg_pool",
    "gated_pool",
    "gem_pool",
    "lp_pool",
    "lse_pool",
    "max_pool",
    "mixed_pool",
    "s3_pool",
    "soft_pool",
    "stochastic_pool",
    "tdgs_pool",
    "tree_pool",
    "weighted_pool",
]
