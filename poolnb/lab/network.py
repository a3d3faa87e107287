"""The network of a run: a model of `poolnb.lab.models` with the pools that its configuration names."""

from __future__ import annotations

from torch import nn

import poolnb
from poolnb.geometry import resolve
from poolnb.lab.config import RunConfig
from poolnb.lab.data import DATASETS
from poolnb.lab.errors import ConfigError, shown
from poolnb.lab.models import MODELS, STRIDED, EverySecond, PoolMaker, Size, pooling_modules


def pool_maker(config: RunConfig) -> PoolMaker:
    """What makes the pooling modules of `config`, for channels and an output size.

    Their stride is 2, and their width too unless `pooler_options` has another `kernel_size`, with a `padding` that
    leaves the output as large: 3 and 1 are windows that overlap.
    """

    def make_pool(channels: int, output_size: Size) -> nn.Module:
        params = {"kernel_size": 2} | config.pooler_options
        dims = len(output_size)
        if config.pooler == STRIDED:
            if config.pooler_options:
                raise ValueError("it has no options")
            return EverySecond(output_size)
        if any(params.get(name) is not None for name in ("device", "dtype")):
            raise ValueError("device and dtype are those of the run")
        where = {name: params[name] for name in ("kernel_size", "padding", "dilation", "ceil_mode") if name in params}
        size = resolve([2 * length for length in output_size], stride=2, **where).output
        if size != output_size:
            raise ValueError(f"{where} leaves {size} where the network has {output_size}")
        return poolnb.create_pool(
            config.pooler, stride=2, dims=dims, channels=channels, output_size=output_size, **params
        )

    return make_pool


def build(config: RunConfig) -> nn.Module:
    """The network of `config` on the CPU, its weights drawn from torch's default generator. Raises `ConfigError`."""
    try:
        model = MODELS[config.model](DATASETS[config.dataset].shape, pool_maker(config), config.dropout)
    except ConfigError:
        raise
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise ConfigError(
            f"pooler_options is {shown(config.pooler_options)}, not accepted by {config.pooler!r}: {error}"
        ) from error
    if config.pool_learning_rate != 1 and not pooling_modules(model):
        raise ConfigError(
            f"pool_learning_rate is {config.pool_learning_rate!r}, but {config.pooler!r} learns nothing; "
            "accepted here: 1"
        )
    return model
