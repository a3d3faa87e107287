"""The operators as ``torch.library`` ops: one file each, holding schema, default PyTorch kernel and gradient.

Compiled kernels join by registering the CPU and CUDA keys of the same ops; nothing above this package changes.
"""

from poolnb.ops.hard import avg_pool, max_pool
from poolnb.ops.s3 import s3_pool
from poolnb.ops.soft import soft_pool
from poolnb.ops.stochastic import stochastic_pool
from poolnb.ops.tdgs import tdgs_pool

__all__ = [
    "avg_pool",
    "max_pool",
    "s3_pool",
    "soft_pool",
    "stochastic_pool",
    "tdgs_pool",
]
