"""The poolers as ``torch.nn`` modules. Each holds its geometry and calls the function of the same name."""

from poolnb.modules._base import Pool
from poolnb.modules.foundations import AvgPool1d, AvgPool2d, AvgPool3d, MaxPool1d, MaxPool2d, MaxPool3d
from poolnb.modules.sampling import (
    S3Pool1d,
    S3Pool2d,
    S3Pool3d,
    StochasticPool1d,
    StochasticPool2d,
    StochasticPool3d,
    TDGSPool1d,
    TDGSPool2d,
    TDGSPool3d,
)
from poolnb.modules.softmax import SoftPool1d, SoftPool2d, SoftPool3d, SWAP1d, SWAP2d, SWAP3d

__all__ = [
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "Pool",
    "S3Pool1d",
    "S3Pool2d",
    "S3Pool3d",
    "SWAP1d",
    "SWAP2d",
    "SWAP3d",
    "SoftPool1d",
    "SoftPool2d",
    "SoftPool3d",
    "StochasticPool1d",
    "StochasticPool2d",
    "StochasticPool3d",
    "TDGSPool1d",
    "TDGSPool2d",
    "TDGSPool3d",
]
