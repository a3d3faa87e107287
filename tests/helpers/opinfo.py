"""torch's own samples of its operators' arguments, which it tests them with."""

from __future__ import annotations

import sys
import types
import unittest
from collections.abc import Iterator
from typing import Any

import torch


def samples(name: str, device: Any = "cpu", dtype: torch.dtype = torch.float32) -> Iterator[Any]:
    """Of the function ``torch.nn.functional.<name>``; inputs want a gradient."""
    # torch imports a package of snapshot tests with them, which none of them needs.
    absent = types.ModuleType("expecttest")
    absent.TestCase = unittest.TestCase  # type: ignore[attr-defined]
    absent.assert_expected_inline = None  # type: ignore[attr-defined]
    sys.modules.setdefault("expecttest", absent)
    from torch.testing._internal.common_methods_invocations import op_db

    (info,) = (op for op in op_db if op.name == f"nn.functional.{name}")
    yield from info.sample_inputs(torch.device(device), dtype, requires_grad=True)
