"""The poolers as ``torch.nn`` modules. Each holds its geometry and calls the function of the same name."""

from poolnb.modules import attention, foundations, means, mixtures, sampling, softmax
from poolnb.modules._base import Pool
from poolnb.modules.attention import *  # noqa: F403
from poolnb.modules.foundations import *  # noqa: F403
from poolnb.modules.means import *  # noqa: F403
from poolnb.modules.mixtures import *  # noqa: F403
from poolnb.modules.sampling import *  # noqa: F403
from poolnb.modules.softmax import *  # noqa: F403

__all__: list[str] = ["Pool"]
__all__ += attention.__all__
__all__ += foundations.__all__
__all__ += means.__all__
__all__ += mixtures.__all__
__all__ += sampling.__all__
__all__ += softmax.__all__
