"""The seed of a sampled operator whose caller gave none, from torch's default CPU generator."""

from __future__ import annotations

import torch
from torch import Tensor

from poolnb.ops.registration import LIBRARY

# An op of its own for compiled graphs: Inductor draws `torch.randint` from a generator that is not torch's.
# Its device tells a compiled checkpoint whose generator to set back: the CPU's, whatever the input.
LIBRARY.define("draw_seed(*, Device device) -> Tensor", tags=(torch.Tag.nondeterministic_seeded,))


def _draw(device: torch.device | str = "cpu") -> Tensor:
    return torch.randint(2**63 - 1, (), device=device)


LIBRARY.impl("draw_seed", _draw, "CompositeExplicitAutograd")
torch.library.register_fake(
    "poolnb::draw_seed", lambda *, device: torch.empty((), dtype=torch.int64, device=device), lib=LIBRARY
)


def draw_seed() -> Tensor:
    """An int64 0-d tensor in [0, 2**63 - 1), the same in eager and in compiled code after one `torch.manual_seed`."""
    compiled = torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active()
    return torch.ops.poolnb.draw_seed(device="cpu") if compiled else _draw()  # vmap knows its ways with `randint`
