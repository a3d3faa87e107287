"""The poolers as ``torch.nn`` modules. Each holds its geometry and calls the function of the same name."""

from poolnb.modules._base import Pool
from poolnb.modules.foundations import AvgPool1d, AvgPool2d, AvgPool3d, MaxPool1d, MaxPool2d, MaxPool3d
from poolnb.modules.softmax import SWAP1d, SWAP2d, SWAP3d, SoftPool1d, SoftPool2d, SoftPool3d

__all__ = [
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "Pool",
    "SWAP1d",
    "SWAP2d",
    "SWAP3d",
    "SoftPool1d",
    "SoftPool2d",
    "SoftPool3d",
]
