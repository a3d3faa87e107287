"""Every operator again, in NumPy float64, as plainly as its formula: forward, and backward from the derived gradient.

This is the oracle of the tests and the code that the chapters show. It shares nothing with the library.
Arrays have shape (N, C, *spatial); there is one function per operator for any number of dimensions.
``<op>_pool_backward`` takes the gradient of the output first and returns the gradient of the input, then those of the
operator's own parameters.
"""

from poolnb.reference import antialiasing, attention, foundations, means, mixtures, order, sampling, softmax, statistics
from poolnb.reference.antialiasing import *  # noqa: F403
from poolnb.reference.attention import *  # noqa: F403
from poolnb.reference.foundations import *  # noqa: F403
from poolnb.reference.means import *  # noqa: F403
from poolnb.reference.mixtures import *  # noqa: F403
from poolnb.reference.order import *  # noqa: F403
from poolnb.reference.sampling import *  # noqa: F403
from poolnb.reference.softmax import *  # noqa: F403
from poolnb.reference.statistics import *  # noqa: F403

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
