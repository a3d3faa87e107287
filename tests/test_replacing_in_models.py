"""``replace_pooling`` on every model of torchvision, and of timm where that is installed."""

from __future__ import annotations

import copy
import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import list_models

import poolnb

_KINDS = {
    "max": tuple(getattr(nn, f"{kind}Pool{d}d") for kind in ("Max", "AdaptiveMax") for d in (1, 2, 3)),
    "avg": tuple(getattr(nn, f"{kind}Pool{d}d") for kind in ("Avg", "AdaptiveAvg") for d in (1, 2, 3)),
}
_FAMILIES = {"classification": torchvision.models, **{n: getattr(torchvision.models, n) for n in _OTHERS}}
