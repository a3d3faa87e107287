"""All studies of the book, in the order of their worth: which sweep files there are, and where their records go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from poolnb.book.findings import tuning
from poolnb.book.findings.evidence import SWEEPS
from poolnb.lab.config import RunConfig
from poolnb.lab.errors import ConfigError
from poolnb.lab.sweeps.sweep import Sweep, read_sweep

# In the order of their worth. What is done stands last: on another machine it is done again there, or not at all.
ORDER = (
    "tuning",
    "comparison-tuned",
    "mnist1000",
    "tdgs",
    "initial-temperature-linear",
    "learning-rates-wide",
    "largest-rate",
    "backbones",
    "backbones-average",
    "backbones-replication",
    "overfitting",
    "scale",
    "overlap",
    "learning-rates-source",
    "recipe",
    "softmax-baselines",
    "comparison",
    "initial-temperature",
    "learning-rates",
    "clips",
    "softmax-gradient",
    "sampling-digits",
    "means-digits",
    "learned-digits",
    "temperature-digits",
)
# Sweeps that train alike keep their records in one folder, so that no run is done twice.
FOLDERS = dict.fromkeys(("tdgs", "overfitting", "softmax-baselines"), "recipe") | dict.fromkeys(
    ("backbones-average", "backbones-replication"), "backbones"
)


@dataclass(frozen=True)
class Study:
    """A sweep, and the folder of `book/results` that its records go to."""

    sweep: Sweep
    folder: str

    def on(self, device: str | None) -> list[RunConfig]:
        """Its runs, on this device (None: as the file says). A device makes no other run of one."""
        return [config if device is None else replace(config, device=device) for config in self.sweep.configs]


def chosen(names: Sequence[str] = ()) -> list[str]:
    """The studies of these names (none: all), in the order of their worth. Raises `ConfigError` for an unknown one."""
    for name in names:
        if name not in ORDER:
            raise ConfigError(f"study is {name!r}; accepted: {', '.join(ORDER)}")
    return [name for name in ORDER if not names or name in names]


def study(name: str) -> Study:
    """The study of this name.

    Those that train with tuned rates have their sweep file written first, from the records of the tuning; as long as
    some of these are missing, `tuning.IncompleteError` is raised.
    """
    path = SWEEPS / f"{name}.toml"
    if name in tuning.STUDIES and not path.is_file():
        tuning.write([name])
    return Study(read_sweep(path), FOLDERS.get(name, name))
