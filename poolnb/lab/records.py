"""Records: one JSON file per run, named by the run's parameters, written in one piece."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import ConfigError, RunConfig, UserError
from .provenance import note_use

if TYPE_CHECKING:
    import pandas

FORMAT = "poolnb-run/1"

Curves = dict[str, list[float]]


class RecordError(UserError, ValueError):
    """A file that is not a record of a run, or a damaged one."""


class WriteError(UserError, OSError):
    """A record that could not be written: the disk is full, say. No part of it is left."""


@dataclass(frozen=True)
class Record:
    """What one run has left.

    - `parameters`, `key`: the run's `RunConfig` and its key.
    - `status`: "done" or "failed"; `error` says why it failed.
    - `curves`: one list per quantity, one entry per finished epoch: `train_loss`, `train_accuracy` (running, while the
      weights change), `validation_loss`, `validation_accuracy`, `test_loss`, `test_accuracy`; accuracies in [0, 1]. An
      evaluation loss that is not finite is None.
    - `summary`: the values of the epochs `last` and `early_stopped` (best validation accuracy, the earlier one at a
      tie; None without validation samples).
    - `pooling`: per learned pooling parameter its shape, statistics and course; see `training.describe_parameter`.
    - `environment`: versions, device, threads. `hashes`: of the sources and of the data.
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
        shorter or has failed, or if its learning rate depends on the number of epochs.
        """
        if self.config.schedule != "constant" and epochs != self.config.epochs:
            raise ValueError(
                f"epochs is {epochs}; accepted: {self.config.epochs}, since the learning rate falls by then"
            )
        if self.status != "done" or not 1 <= epochs <= self.config.epochs:
            raise ValueError(f"epochs is {epochs}; accepted: 1 to {self.config.epochs}, of a run that is done")
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
        """The record as a text that floats survive unchanged. Raises ValueError for a NaN."""
        return json.dumps(asdict(self), allow_nan=False, indent=1) + "\n"


def summarise(curves: Curves) -> dict[str, dict[str, float] | None]:
    """The values of the last epoch, and of the early-stopped one (None without validation samples).

    Early stopping takes the epoch with the best validation accuracy, the earlier one at a tie. Test values play no
    part in it.
    """

    def at(index: int) -> dict[str, float]:
        return {"epoch": index + 1, **{name: curve[index] for name, curve in curves.items()}}

    accuracy = curves.get("validation_accuracy")
    best = at(max(range(len(accuracy)), key=accuracy.__getitem__)) if accuracy else None
    return {"last": at(len(curves["test_accuracy"]) - 1), "early_stopped": best}


def parse_record(text: str) -> Record:
    """The record that `text` holds. Raises `RecordError` with the reason if it is not one."""
    try:
        values = json.loads(text)
    except ValueError as error:
        raise RecordError(f"it is not JSON ({error})") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        found = values.get("format") if isinstance(values, dict) else type(values).__name__
        raise RecordError(f"its format is {found!r}, not {FORMAT!r}")
    expected = {spec.name for spec in fields(Record)}
    if set(values) != expected:
        raise RecordError(f"its sections are not those of a record: {', '.join(sorted(set(values) ^ expected))}")
    record = Record(**values)
    try:
        config = record.config
    except (ConfigError, TypeError) as error:
        raise RecordError(f"its parameters are not accepted: {error}") from None
    if config.key != record.key:
        raise RecordError(f"its key {record.key!r} does not belong to its parameters (theirs is {config.key!r})")
    if record.status == "done":
        _check_curves(record, config.epochs)
    elif record.status != "failed":
        raise RecordError(f"its status is {record.status!r}, neither 'done' nor 'failed'")
    return record


def _check_curves(record: Record, epochs: int) -> None:
    lengths = {name: len(curve) for name, curve in record.curves.items()}
    if "test_accuracy" not in lengths or set(lengths.values()) != {epochs}:
        raise RecordError(f"its curves do not have {epochs} epochs each: {lengths}")
    if record.summary["last"] is None or record.summary["last"]["test_accuracy"] != record.curves["test_accuracy"][-1]:
        raise RecordError("its summary does not agree with its curves")


def read_record(path: Path) -> Record:
    """The record in the file `path`. Raises `RecordError` that names the file if it is damaged or not a record."""
    try:
        record = parse_record(path.read_text(encoding="utf-8"))
    except (RecordError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
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
    return Path(folder) / f"{config.name}.json"


def write_record(record: Record, folder: str | os.PathLike[str]) -> Path:
    """Write `record` into `folder`, whole or not at all (`WriteError`).

    The record of a failed run does not replace that of a finished one.
    """
    path = record_path(folder, record.config)
    if record.status == "failed" and is_done(path):
        return path
    try:
        write_atomically(path, record.to_json())
    except OSError as error:
        raise WriteError(f"the record {path} cannot be written: {error.strerror or error}") from None
    return path


def is_done(path: Path) -> bool:
    """Whether `path` is the whole record of a finished run."""
    try:
        return read_record(path).status == "done"
    except (RecordError, OSError):
        return False


def write_atomically(path: Path, text: str) -> None:
    """Replace the file `path` by one with this text. After a failure, a full disk say, the old file is still there."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".tmp")
    try:
        os.fchmod(handle, 0o644)
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def prepare_folder(folder: str | os.PathLike[str]) -> Path:
    """Make `folder` if need be and try that files can be written to it; raises `ConfigError` if not."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"results is {str(folder)!r}, a folder that cannot be written to: {error}") from None
    return folder
