"""The pooling functions. Each checks its arguments, resolves the windows and calls the operator.

Every function exists for one, two and three spatial dimensions: ``soft_pool1d``, ``soft_pool2d``, ``soft_pool3d``.
One file per family of operators; the families are those of the book.

Derivatives are by reverse mode (``backward``, ``torch.func.grad``, ``vjp``) and by forward mode (``jvp``,
``torch.autograd.forward_ad``), and of both again. Without compiled kernels a large batch is worked on in parts, so that
memory stays a small multiple of the input's whatever the window; second derivatives and forward mode hold the taps of
the whole batch.
"""

from poolnb.functional import (
    antialiasing,
    attention,
    foundations,
    means,
    mixtures,
    order,
    sampling,
    softmax,
    statistics,
)
from poolnb.functional.antialiasing import *  # noqa: F403
from poolnb.functional.attention import *  # noqa: F403
from poolnb.functional.foundations import *  # noqa: F403
from poolnb.functional.means import *  # noqa: F403
from poolnb.functional.mixtures import *  # noqa: F403
from poolnb.functional.order import *  # noqa: F403
from poolnb.functional.sampling import *  # noqa: F403
from poolnb.functional.softmax import *  # noqa: F403
from poolnb.functional.statistics import *  # noqa: F403

__all__: list[str] = []
__all__ += antialiasing.__all__
__all__ += attention.__all__
__all__ += foundations.__all__
__all__ += means.__all__
__all__ += mixtures.__all__
__all__ += order.__all__
__all__ += sampling.__all__
__all__ += softmax.__all__
__all__ += statistics.__all__
