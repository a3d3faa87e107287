"""Pooling operators for convolutional networks: every published pooler, one semantics.

``poolnb.functional`` holds the functions, this package the modules, ``poolnb.reference`` the same operators in NumPy.
"""

from __future__ import annotations

from poolnb import functional, native
from poolnb.modules import Pool as Pool
from poolnb.modules import __all__ as _modules
from poolnb.modules.antialiasing import *  # noqa: F403
from poolnb.modules.attention import *  # noqa: F403
from poolnb.modules.foundations import *  # noqa: F403
from poolnb.modules.means import *  # noqa: F403
from poolnb.modules.mixtures import *  # noqa: F403
from poolnb.modules.order import *  # noqa: F403
from poolnb.modules.sampling import *  # noqa: F403
from poolnb.modules.softmax import *  # noqa: F403
from poolnb.modules.statistics import *  # noqa: F403
from poolnb.registry import create_pool, list_pools, replace_pooling

__version__ = "0.1.0"
__all__ = ["create_pool", "functional", "list_pools", "replace_pooling", *_modules]

native.load()
