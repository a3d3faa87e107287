"""The operators as ``torch.library`` ops: one file each, holding schema, default PyTorch kernel and gradient.

Compiled kernels join by registering the CPU and CUDA keys of the same ops; nothing above this package changes.
"""

from poolnb.ops.hard import avg_pool, max_pool
from poolnb.ops.soft import soft_pool

__all__ = ["avg_pool", "max_pool", "soft_pool"]
