"""Files of results: written whole on any file system, sealed with a digest, and read without trust in what lies there.

A file vouches for its content by `digest`, the SHA-256 of everything else in it. It tells damage, an editor's slip and
a merge gone wrong; it is no signature.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar

from poolnb.lab.errors import ConfigError, UserError, shown

T = TypeVar("T")
LARGEST = 64 * 2**20  # bytes; a run of 100,000 epochs leaves less
# What another way of writing cannot mend: no room, no such place.
_FINAL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR}


class WriteError(UserError, OSError):
    """A result that could not be written where it belongs: the disk is full, say. No part of it is left there.

    `record` is the result itself; `kept` is where it was put instead, None if that failed too.
    """

    def __init__(self, message: str, record: Any = None, kept: Path | None = None) -> None:
        super().__init__(message)
        self.record = record
        self.kept = kept

    def __reduce__(self) -> tuple[Any, ...]:
        return WriteError, (str(self), self.record, self.kept)


class Result(Protocol):
    """What a file of results holds."""

    def to_json(self) -> str: ...


# ---- writing ---------------------------------------------------------------------------------------------------------


def folder_of(results: Any) -> Path | None:
    """The folder that `results` names; None for None and for the text none, which mean: nowhere.

    A number is a name too: papermill makes one of a folder's name that looks like it.
    """
    if results is None or (isinstance(results, str) and results.lower() == "none"):
        return None
    try:
        return Path(str(results) if isinstance(results, int | float) else results)
    except TypeError:
        raise ConfigError(f"results is {results!r}; accepted: the path of a folder") from None


def prepare_folder(results: Any) -> Path:
    """Make the folder `results` if need be and try that files can be written to it; raises `ConfigError` if not."""
    folder = folder_of(results)
    if folder is None:
        raise ConfigError(f"results is {results!r}; accepted: the path of a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".poolnb-{secrets.token_hex(4)}.tmp"
        write_atomically(probe, "")
        probe.unlink()
    except (OSError, ValueError) as error:
        raise ConfigError(f"results is {str(folder)!r}, a folder that cannot be written to: {error}") from None
    return folder


def write_result(path: Path, result: Result, what: str) -> None:
    """Write `result` to `path`, or else to a new folder for temporary files, and raise `WriteError` that says so.

    Hours of computing may be in it: it is not lost because a disk is full. `what` is what the message calls it.
    """
    text = result.to_json()
    try:
        write_atomically(path, text)
    except OSError as error:
        kept = _put_elsewhere(path.name, text)
        where = f"; it was put at {kept} instead" if kept else ""
        message = f"the {what} {path} cannot be written: {error.strerror or error}{where}"
        raise WriteError(message, result, kept) from None


def _put_elsewhere(name: str, text: str) -> Path | None:
    folder = None
    try:
        folder = Path(tempfile.mkdtemp(prefix="poolnb-results-"))
        write_atomically(folder / name, text)
    except OSError:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        return None
    return folder / name


def write_atomically(path: Path, text: str) -> None:
    """Replace the file `path` by one with this text. After a failure, a full disk say, the old file is still there.

    Where the file system refuses what that takes (renaming over a file: CIFS, some FUSE), the file is written in place.
    """
    try:
        _write_aside(path, text.encode())
    except OSError as error:
        if error.errno in _FINAL:
            raise
        _write_in_place(path, text.encode())


def _write_aside(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}.tmp")
    try:
        _fill(temporary, content, os.O_EXCL)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _write_in_place(path: Path, content: bytes) -> None:
    old = path.read_bytes() if path.is_file() else None
    try:
        _fill(path, content, os.O_TRUNC)
    except BaseException:
        if old is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(old)
        raise


def _fill(path: Path, content: bytes, how: int) -> None:
    """Write `content` and wait until it is on the disk, if the file system can tell."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0) | how, 0o644)
    with open(handle, "wb") as file:
        file.write(content)
        file.flush()
        if not content:
            return
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno in _FINAL:
                raise


# ---- the seal --------------------------------------------------------------------------------------------------------


def digest(values: Mapping[str, Any]) -> str:
    """SHA-256 over everything in `values` but its `digest`, in hexadecimal; the order of names does not matter."""
    content = {name: value for name, value in values.items() if name != "digest"}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def sealed(values: Mapping[str, Any]) -> str:
    """The text of a file with `values` and their digest; floats survive unchanged. Raises ValueError for a NaN."""
    return json.dumps({**values, "digest": digest(values)}, allow_nan=False, indent=1) + "\n"


def unsealed(text: str, form: str, names: set[str], made_of: Callable[[dict[str, Any]], T]) -> T:
    """What `made_of` makes of the values in the `text` of a sealed file; it may raise `ValueError` with a reason.

    Raises `ValueError` as well if it is not JSON of the format `form` with just these `names`, or was altered.
    """
    try:
        values = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_each_once)
    except RecursionError:
        raise ValueError("it is not JSON of a result (too deeply nested)") from None
    except ValueError as error:
        raise ValueError(f"it is not JSON ({error})") from None
    if not isinstance(values, dict) or values.get("format") != form:
        found = values.get("format") if isinstance(values, dict) else type(values).__name__
        raise ValueError(f"its format is {shown(found)}, not {form!r}")
    differing = set(values) ^ (names | {"digest"})
    if differing:
        raise ValueError(f"its sections are not those of a record: {', '.join(sorted(differing))[:200]}")
    given = values.pop("digest")
    try:
        made = made_of(values)
        altered = given != digest(values)
    except RecursionError:
        raise ValueError("it is nested too deeply for a result") from None
    if altered:
        raise ValueError("its digest does not belong to its content: it was altered")
    return made


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON: of a name that stands twice, as a merge gone wrong leaves it, one reader sees what another
    does not.
    """
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a name stands in it twice")
    return values


def read_text(path: Path) -> str:
    """The text of the file `path`. Raises `ValueError` with the reason if it is none that a result can be.

    Nothing that lies in a folder can stop or hang this: a folder, a link to nowhere, a pipe, a file of any size.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is no file")
        if not found.st_size:  # so says the kernel of its own files, too, some of which end never
            raise ValueError("it is empty")
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise ValueError(f"it cannot be read ({error.strerror})") from None
    if len(content) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST // 2**20} MiB")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no text ({error.reason})") from None
