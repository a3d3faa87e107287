"""The pooling functions. Each checks its arguments, resolves the windows and calls the operator.

Every function exists for one, two and three spatial dimensions: ``soft_pool1d``, ``soft_pool2d``, ``soft_pool3d``.
One file per family of operators; the families are those of the book.

Derivatives are by reverse mode (``backward``, ``torch.func.grad``, ``vjp``) and by forward mode (``jvp``,
``torch.autograd.forward_ad``), and of both again. Without compiled kernels a large batch is worked on in parts, so that
memory stays a small multiple of the input's whatever the window; second derivatives and forward mode hold the taps of
the whole batch.
"""

from poolnb.functional.attention import weighted_pool1d, weighted_pool2d, weighted_pool3d
from poolnb.functional.foundations import (
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    lp_pool1d,
    lp_pool2d,
    lp_pool3d,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)
from poolnb.functional.means import gem_pool1d, gem_pool2d, gem_pool3d, lse_pool1d, lse_pool2d, lse_pool3d
from poolnb.functional.mixtures import (
    gated_pool1d,
    gated_pool2d,
    gated_pool3d,
    mixed_pool1d,
    mixed_pool2d,
    mixed_pool3d,
    tree_pool1d,
    tree_pool2d,
    tree_pool3d,
)
from poolnb.functional.sampling import (
    s3_pool1d,
    s3_pool2d,
    s3_pool3d,
    stochastic_pool1d,
    stochastic_pool2d,
    stochastic_pool3d,
    tdgs_pool1d,
    tdgs_pool2d,
    tdgs_pool3d,
)
from poolnb.functional.softmax import soft_pool1d, soft_pool2d, soft_pool3d

__all__ = [
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "gated_pool1d",
    "gated_pool2d",
    "gated_pool3d",
    "gem_pool1d",
    "gem_pool2d",
    "gem_pool3d",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "lse_pool1d",
    "lse_pool2d",
    "lse_pool3d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "mixed_pool1d",
    "mixed_pool2d",
    "mixed_pool3d",
    "s3_pool1d",
    "s3_pool2d",
    "s3_pool3d",
    "soft_pool1d",
    "soft_pool2d",
    "soft_pool3d",
    "stochastic_pool1d",
    "stochastic_pool2d",
    "stochastic_pool3d",
    "tdgs_pool1d",
    "tdgs_pool2d",
    "tdgs_pool3d",
    "tree_pool1d",
    "tree_pool2d",
    "tree_pool3d",
    "weighted_pool1d",
    "weighted_pool2d",
    "weighted_pool3d",
]
