"""SoftPool's own CUDA extension, to be measured beside ours where its sources are at hand; it is no part of poolnb.

The environment variable ``POOLNB_SOFTPOOL`` names the folder of its repository that holds ``CUDA`` and ``SoftPool``.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

VARIABLE = "POOLNB_SOFTPOOL"


@functools.cache
def soft_pool() -> Callable[[Tensor, int, int], Tensor] | str:
    """Its pooling, of (input, kernel size, stride), compiled when first asked for; or why there is none, in words."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        return f"{VARIABLE} does not name the folder of its sources"
    sources = sorted(str(p) for p in Path(folder, "CUDA").glob("*.c*") if p.suffix in (".cpp", ".cu"))
    if not sources:
        return f"no sources in {folder}/CUDA"
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    from torch.utils import cpp_extension

    from poolnb import _build

    os.environ.setdefault("CUDA_HOME", str(_build.cuda_toolkit()))
    os.environ["PATH"] = _build.search_path()
    try:
        sys.modules["softpool_cuda"] = cpp_extension.load("softpool_cuda", sources)
        sys.path.insert(0, folder)
        from SoftPool import soft_pool2d
    except Exception as error:  # sources of others: whatever they run into is said in one line
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return soft_pool2d  # type: ignore[no-any-return]
