"""The operators as ``torch.library`` ops: one file each, holding schema, default PyTorch kernel and gradient.

Compiled kernels join by registering the CPU and CUDA keys of the same ops; nothing above this package changes.
:data:`poolnb.ops.registration.OPS` holds all of them by name.
"""
