"""Records: one JSON file per run, named by the run's parameters, written in one piece."""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poolnb.lab.config import RunConfig
from poolnb.lab.errors import ConfigError, UserError, shown
from poolnb.lab.files import WriteError as WriteError
from poolnb.lab.files import folder_of, read_text, sealed, unsealed, write_result
from poolnb.lab.provenance import note_use

if TYPE_CHECKING:
    import pandas

FORMAT = "poolnb-run/2"  # 1 had no digest, and did not say which kernels were in force

Curves = dict[str, list[float]]


class RecordError(UserError, ValueError):
    """A file that is not a record of a run, or a damaged one."""


@dataclass(frozen=True)
class Record:
    """What one run has left.

    - `parameters`, `key`: the run's `RunConfig` and its key.
    - `status`: "done" or "failed"; `error` says why it failed.
    - `curves`: one list per quantity, one entry per finished epoch: `train_loss`, `train_accuracy` (running, while the
      weights change), `validation_loss`, `validation_accuracy`, `test_loss`, `test_accuracy`; accuracies in [0, 1].
      None: an evaluation loss that is not finite, and the evaluations of epochs that had none (`evaluate_every`).
    - `summary`: the values of the epochs `last` and `early_stopped` (best validation accuracy of those evaluated, the
      earlier one at a tie; None without validation samples).
    - `pooling`: per learned pooling parameter its shape, statistics and course; see `training.describe_parameter`.
    - `environment`: versions, device, threads, `kernels` (the set in force, and the library's fingerprint; "not
      recorded" in runs of before it was). `hashes`: of the sources and of the data.
    - `timing`: the only part in which two runs of one configuration on one CPU differ.
    """

    parameters: dict[str, Any]
    key: str
    status: str
    error: str | None = None
    curves: Curves = field(default_factory=dict)
    summary: dict[str, dict[str, float] | None] = field(default_factory=dict)
    pooling: dict[str, dict[str, Any]] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    timing: dict[str, Any] = field(default_factory=dict)
    format: str = FORMAT

    @property
    def config(self) -> RunConfig:
        return RunConfig.from_mapping(self.parameters)

    def content(self) -> dict[str, Any]:
        """Everything but the timing: equal, bit for bit, for two runs of one configuration on one CPU."""
        return {name: value for name, value in asdict(self).items() if name != "timing"}

    def first(self, epochs: int) -> Record:
        """The record of the same run with so many epochs: its beginning, since nothing depends on the number of epochs.

        What is known of the end alone, the learned pooling parameters, is left out. Raises `ValueError` if the run was
        shorter or has failed, if its learning rate depends on the number of epochs, or if it has no evaluation there.
        """
        if self.config.schedule != "constant" and epochs != self.config.epochs:
            raise ValueError(
                f"epochs is {epochs}; accepted: {self.config.epochs}, since the learning rate falls by then"
            )
        if self.status != "done" or not 1 <= epochs <= self.config.epochs:
            raise ValueError(f"epochs is {epochs}; accepted: 1 to {self.config.epochs}, of a run that is done")
        if not self.config.evaluates(epochs):
            raise ValueError(f"epochs is {epochs}; accepted: multiples of {self.config.evaluate_every}, as evaluated")
        if epochs == self.config.epochs:
            return self
        config = replace(self.config, epochs=epochs)
        curves = {name: curve[:epochs] for name, curve in self.curves.items()}
        timing = self.timing
        if "epochs" in timing:
            timing = timing | {"epochs": timing["epochs"][:epochs], "seconds": sum(timing["epochs"][:epochs])}
        return replace(
            self,
            parameters=config.parameters,
            key=config.key,
            curves=curves,
            summary=summarise(curves),
            pooling={},
            timing=timing,
        )

    def to_json(self) -> str:
        """The record as a text that floats survive unchanged, with its digest. Raises ValueError for a NaN."""
        return sealed(asdict(self))


def summarise(curves: Curves) -> dict[str, dict[str, float] | None]:
    """The values of the last epoch, and of the early-stopped one (None without validation samples).

    Early stopping takes the epoch with the best validation accuracy, the earlier one at a tie, of the epochs that were
    evaluated. Test values play no part in it.
    """

    def at(index: int) -> dict[str, float]:
        return {"epoch": index + 1, **{name: curve[index] for name, curve in curves.items()}}

    accuracy = curves.get("validation_accuracy")
    best = None
    if accuracy:
        evaluated = {index: value for index, value in enumerate(accuracy) if value is not None}
        best = at(max(evaluated, key=evaluated.__getitem__))
    return {"last": at(len(curves["test_accuracy"]) - 1), "early_stopped": best}


def parse_record(text: str) -> Record:
    """The record that `text` holds. Raises `RecordError` with the reason if it is not one."""
    try:
        return unsealed(text, FORMAT, {spec.name for spec in fields(Record)}, _checked)
    except ValueError as error:
        raise RecordError(str(error)) from None


def _checked(values: dict[str, Any]) -> Record:
    """The record with these values. Raises `RecordError` if they cannot be what a run has left."""
    record = Record(**values)
    for name, kind in _SECTIONS.items():
        if not isinstance(getattr(record, name), kind):
            raise RecordError(f"its {name} is {shown(getattr(record, name))}, not a {kind.__name__}")
    try:
        config = record.config
    except (ConfigError, TypeError) as error:
        raise RecordError(f"its parameters are not accepted: {error}") from None
    if config.key != record.key:
        raise RecordError(f"its key {shown(record.key)} does not belong to its parameters (theirs is {config.key!r})")
    if not _is_number(record.timing.get("seconds", 0)):
        raise RecordError("its timing has no number of seconds")
    _check_curves(record.curves, config)
    if record.status == "done":
        _check_done(record, config.epochs)
    elif record.status == "failed":
        _check_failed(record, config.epochs)
    else:
        raise RecordError(f"its status is {shown(record.status)}, neither 'done' nor 'failed'")
    return record


_SECTIONS = {"parameters": dict, "key": str, "status": str, "curves": dict, "summary": dict}
_SECTIONS |= {"pooling": dict, "environment": dict, "hashes": dict, "timing": dict}
_CURVES = {f"{part}_{quantity}" for part in ("train", "validation", "test") for quantity in ("loss", "accuracy")}


def _check_curves(curves: Curves, config: RunConfig) -> None:
    """Known names, lists, losses from 0, accuracies in [0, 1]; what may be None is said in `Record`."""
    for name, curve in curves.items():
        if name not in _CURVES:
            raise RecordError(f"it has a curve {shown(name)}, which no run has")
        if not isinstance(curve, list):
            raise RecordError(f"its curve {name} is no list")
        highest = 1 if name.endswith("accuracy") else math.inf
        of_evaluation = not name.startswith("train_")
        for epoch, value in enumerate(curve, 1):
            if of_evaluation and not config.evaluates(epoch):
                accepted = value is None
            elif value is None:
                accepted = of_evaluation and name.endswith("loss")
            else:
                accepted = _is_number(value) and 0 <= value <= highest
            if not accepted:
                raise RecordError(f"its curve {name} has the value {shown(value)} in epoch {epoch}")


def _check_done(record: Record, epochs: int) -> None:
    lengths = {name: len(curve) for name, curve in record.curves.items()}
    if "test_accuracy" not in lengths or set(lengths.values()) != {epochs}:
        raise RecordError(f"its curves do not have {epochs} epochs each: {lengths}")
    if record.summary != summarise(record.curves):
        raise RecordError("its summary does not agree with its curves")
    if record.error is not None:
        raise RecordError("it is done and has an error")
    for name in ("sources", "data"):
        if not re.fullmatch("[0-9a-f]{64}", str(record.hashes.get(name))):
            raise RecordError(f"it has no hash of the {name}")
    for name, described in record.pooling.items():
        _check_parameter(name, described, epochs)


def _check_parameter(name: str, described: Any, epochs: int) -> None:
    """A learned parameter: finite statistics in their order, and a course from before training to the last epoch."""
    course = described.get("trajectory") if isinstance(described, dict) else None
    if not isinstance(course, list) or len(course) != epochs + 1 or not all(map(_is_number, course)):
        raise RecordError(f"its parameter {name} has no course of {epochs} epochs")
    statistics = [described.get(one) for one in ("min", "mean", "max")]
    # The mean is rounded: of equal values it may lie beside them.
    slack = 1e-9 * max((abs(one) for one in statistics if _is_number(one)), default=0)
    if not all(map(_is_number, statistics)) or not statistics[0] - slack <= statistics[1] <= statistics[2] + slack:
        raise RecordError(f"its parameter {name} has the statistics {statistics}")


def _check_failed(record: Record, epochs: int) -> None:
    if not isinstance(record.error, str) or not record.error or record.summary or record.pooling:
        raise RecordError("it has failed, without an error or with results")
    if any(len(curve) >= epochs for curve in record.curves.values()):
        raise RecordError(f"it has failed, with curves of all {epochs} epochs")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_record(path: Path) -> Record:
    """The record in the file `path`. Raises `RecordError` that names the file if it is damaged or not a record."""
    try:
        record = parse_record(read_text(path))
    except ValueError as error:
        raise RecordError(f"{path} is not a whole record: {error}") from None
    if path.name != record_path(path.parent, record.config).name:
        raise RecordError(f"{path} is not a whole record: its name belongs to another run")
    return record


def load_records(folder: str | os.PathLike[str], *, failed: bool = False) -> list[Record]:
    """All finished records in `folder` (with `failed` the failed ones too), ordered by file name.

    A file `*.json` that is damaged or no record is left out, with a warning that names it and says why.
    Raises `FileNotFoundError` if there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"folder: {folder} does not exist")
    note_use(folder)
    records = []
    for path in sorted(folder.glob("*.json")):
        try:
            record = read_record(path)
        except RecordError as error:
            warnings.warn(f"left out: {error}", stacklevel=2)
            continue
        if failed or record.status == "done":
            records.append(record)
    return records


def records_frame(records: Iterable[Record]) -> pandas.DataFrame:
    """One row per record: the parameters, then the values of the last and of the early-stopped epoch, then the seconds.

    Columns of the two epochs are named `last_test_accuracy`, `early_stopped_epoch` and so on.
    """
    import pandas

    rows = []
    for record in records:
        row: dict[str, Any] = {**record.config.parameters, "key": record.key, "status": record.status}
        for when in ("last", "early_stopped"):
            row |= {f"{when}_{name}": value for name, value in (record.summary.get(when) or {}).items()}
        rows.append(row | {"seconds": record.timing.get("seconds")})
    return pandas.DataFrame(rows)


def record_path(folder: str | os.PathLike[str], config: RunConfig) -> Path:
    """Where the record of `config` lies in `folder`."""
    return (folder_of(folder) or Path()) / f"{config.name}.json"


def write_record(record: Record, folder: str | os.PathLike[str]) -> Path:
    """Write `record` into `folder`, whole or not at all (`WriteError`, which says where it was put instead).

    The record of a failed run does not replace that of a finished one.
    """
    path = record_path(folder, record.config)
    if record.status == "failed" and is_done(path):
        return path
    write_result(path, record, "record")
    return path


def is_done(path: Path) -> bool:
    """Whether `path` is the whole record of a finished run."""
    try:
        return read_record(path).status == "done"
    except RecordError:
        return False
