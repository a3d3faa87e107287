"""Measurements beside runs: one JSON file each, named by its parameters, done once, with the rules of records.

A kind of measurement is a module with `PLAN`, the parameters of everything to be measured, and `measure(parameters)`,
which returns the values. `poolnb measure KIND` does what is missing.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import time
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from poolnb.lab import training
from poolnb.lab.errors import ConfigError, shown
from poolnb.lab.files import prepare_folder, read_text, sealed, unsealed, write_result
from poolnb.lab.provenance import note_use
from poolnb.lab.records import RecordError

FORMAT = "poolnb-measurement/2"  # 1 had no digest, and did not say which kernels were in force
_MODULES = ("gradients", "test_pooling", "shift_consistency", "training_cost", "alternatives", "large_batches", "calls")
KINDS = {name.replace("_", "-"): name for name in _MODULES}


@dataclass(frozen=True)
class Measurement:
    """The `values` found for `parameters`; `timing` is the only other part in which two measurements may differ."""

    kind: str
    parameters: dict[str, Any]
    values: dict[str, Any]
    environment: dict[str, Any] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    timing: dict[str, float] = field(default_factory=dict)
    format: str = FORMAT

    @property
    def name(self) -> str:
        """A readable name that is the measurement's own, as `gradients-digits-max-seed0-0123456789ab`."""
        canonical = json.dumps([self.kind, self.parameters], sort_keys=True, separators=(",", ":"), allow_nan=False)
        words = [str(self.parameters[part]) for part in ("dataset", "pooler") if part in self.parameters]
        words += [f"seed{self.parameters['seed']}"] if "seed" in self.parameters else []
        return "-".join([self.kind, *words, hashlib.sha256(canonical.encode()).hexdigest()[:12]])

    def to_json(self) -> str:
        """The measurement as a text that floats survive unchanged, with its digest. Raises ValueError for a NaN."""
        return sealed(asdict(self))


def path_of(folder: str | os.PathLike[str], measurement: Measurement) -> Path:
    return Path(folder) / f"{measurement.name}.json"


def read_measurement(path: Path) -> Measurement:
    """The measurement in the file `path`. Raises `RecordError` that names the file if it is damaged or not one."""
    try:
        found = unsealed(read_text(path), FORMAT, {spec.name for spec in fields(Measurement)}, _checked)
        if path.name != path_of(path.parent, found).name:
            raise ValueError("its name belongs to another one")
    except ValueError as error:
        raise RecordError(f"{path} is not a whole measurement: {error}") from None
    return found


def _checked(values: dict[str, Any]) -> Measurement:
    for name in ("parameters", "values", "environment", "hashes", "timing"):
        if not isinstance(values[name], dict):
            raise ValueError(f"its {name} is {shown(values[name])}, not a dict")
    if not isinstance(values["kind"], str):
        raise ValueError(f"its kind is {shown(values['kind'])}, not a str")
    return Measurement(**values)


def load_measurements(folder: str | os.PathLike[str]) -> list[Measurement]:
    """All measurements in `folder`, by file name. A damaged or foreign one is left out with a warning."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"folder: {folder} does not exist")
    note_use(folder)
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(read_measurement(path))
        except RecordError as error:
            warnings.warn(f"left out: {error}", stacklevel=2)
    return found


def done_of_plan(kind: str, folder: str | os.PathLike[str]) -> tuple[int, int]:
    """How many measurements of a kind's own plan the folder has, and how many the plan has."""
    plan = importlib.import_module(f"poolnb.lab.measurements.{KINDS[kind]}").PLAN
    there = [path_of(Path(folder), Measurement(kind, parameters, {})).is_file() for parameters in plan]
    return sum(there), len(there)


def measure(
    kind: str,
    results: str | os.PathLike[str],
    plan: Iterable[dict[str, Any]] | None = None,
    progress: bool = True,
) -> list[Measurement]:
    """Measure everything in `plan` (default: the kind's own) that the folder `results` does not have yet."""
    from tqdm import tqdm

    if kind not in KINDS:
        raise ConfigError(f"kind is {kind!r}; accepted: {', '.join(KINDS)}")
    module = importlib.import_module(f"poolnb.lab.measurements.{KINDS[kind]}")
    folder = prepare_folder(results)
    found = []
    for parameters in tqdm(list(module.PLAN if plan is None else plan), desc=kind, disable=not progress):
        path = path_of(folder, Measurement(kind, parameters, {}))
        found.append(_present(path) or _measured(path, kind, module, parameters))
    return found


def _present(path: Path) -> Measurement | None:
    """The measurement at `path`, if it is there and whole."""
    if not path.exists():
        return None
    try:
        return read_measurement(path)
    except RecordError as error:
        warnings.warn(f"done again: {error}", stacklevel=2)
        return None


def _measured(path: Path, kind: str, module: Any, parameters: dict[str, Any]) -> Measurement:
    start = time.perf_counter()
    values, hashes = module.measure(parameters)
    environment = training.environment(training.resolve_device("cpu"))
    if "threads" in parameters:  # it sets and restores them
        environment["threads"] = parameters["threads"]
    made = Measurement(kind, parameters, values, environment, hashes, {"seconds": time.perf_counter() - start})
    write_result(path, made, "measurement")
    return read_measurement(path)
