"""The poolers as ``torch.nn`` modules. Each holds its geometry and calls the function of the same name."""

from poolnb.modules import antialiasing, attention, foundations, means, mixtures, order, sampling, softmax, statistics
from poolnb.modules._base import Pool
from poolnb.modules.antialiasing import *  # noqa: F403
from poolnb.modules.attention import *  # noqa: F403
from poolnb.modules.foundations import *  # noqa: F403
from poolnb.modules.means import *  # noqa: F403
from poolnb.modules.mixtures import *  # noqa: F403
from poolnb.modules.order import *  # noqa: F403
from poolnb.modules.sampling import *  # noqa: F403
from poolnb.modules.softmax import *  # noqa: F403
from poolnb.modules.statistics import *  # noqa: F403

__all__: list[str] = ["Pool"]
__all__ += antialiasing.__all__
__all__ += attention.__all__
__all__ += foundations.__all__
__all__ += means.__all__
__all__ += mixtures.__all__
__all__ += order.__all__
__all__ += sampling.__all__
__all__ += softmax.__all__
__all__ += statistics.__all__

# A name, that of the class in lower case -> the classes by their number of dimensions.
POOLS: dict[str, dict[int, type[Pool]]] = {
    name.removesuffix("1d").removesuffix("Pool").lower(): {d: globals()[f"{name[:-2]}{d}d"] for d in (1, 2, 3)}
    for name in __all__
    if name.endswith("1d") and globals()[name].listed
}
