"""Every operator again, in NumPy float64, as plainly as its formula: forward, and backward from the derived gradient.

This is the oracle of the tests and the code that the chapters show. It shares with the library only the resolution of
window sizes. Arrays have shape (N, C, *spatial); there is one function per operator for any number of dimensions.
``<op>_pool_backward`` takes the gradient of the output first and returns the gradient of the input, then those of the
operator's own parameters.
"""

from poolnb.reference.attention import weighted_pool, weighted_pool_backward
from poolnb.reference.foundations import (
    avg_pool,
    avg_pool_backward,
    lp_pool,
    lp_pool_backward,
    max_pool,
    max_pool_backward,
)
from poolnb.reference.means import gem_pool, gem_pool_backward, lse_pool, lse_pool_backward
from poolnb.reference.mixtures import (
    gated_pool,
    gated_pool_backward,
    mixed_pool,
    mixed_pool_backward,
    tree_pool,
    tree_pool_backward,
)
from poolnb.reference.sampling import (
    s3_pool,
    s3_pool_backward,
    stochastic_pool,
    stochastic_pool_backward,
    tdgs_pool,
    tdgs_pool_backward,
)
from poolnb.reference.softmax import soft_pool, soft_pool_backward

__all__ = [
    "avg_pool",
    "avg_pool_backward",
    "gated_pool",
    "gated_pool_backward",
    "gem_pool",
    "gem_pool_backward",
    "lp_pool",
    "lp_pool_backward",
    "lse_pool",
    "lse_pool_backward",
    "max_pool",
    "max_pool_backward",
    "mixed_pool",
    "mixed_pool_backward",
    "s3_pool",
    "s3_pool_backward",
    "soft_pool",
    "soft_pool_backward",
    "stochastic_pool",
    "stochastic_pool_backward",
    "tdgs_pool",
    "tdgs_pool_backward",
    "tree_pool",
    "tree_pool_backward",
    "weighted_pool",
    "weighted_pool_backward",
]
