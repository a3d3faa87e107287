"""What the runner of chapters has every kernel run first: it notes which functions of poolnb the chapter calls.

IPython runs this file; it is not imported. It must not import poolnb: the chapter's own import shall be the first.
"""

import json
import os
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

_ROOT = str(Path(__file__).resolve().parents[2])
_PACKAGE = os.path.join(_ROOT, "poolnb", "")
_noted: set[tuple[str, int]] = set()
_importing = 0


def _note(frame: FrameType, event: str, argument: Any) -> Any:
    """Called for every call of a Python function; the bodies of modules count as calls as well."""
    global _importing
    code = frame.f_code
    if code.co_filename.startswith(_PACKAGE) and code.co_filename != __file__:
        if code.co_name == "<module>":
            _importing += 1
            return _wait_for_its_end
        if not _importing:
            _noted.add((code.co_filename, code.co_firstlineno))
    return None  # nothing is to be told of the lines inside


def _wait_for_its_end(frame: FrameType, event: str, argument: Any) -> Any:
    global _importing
    if event == "return":
        _importing -= 1
    return _wait_for_its_end


def _write(result: Any = None) -> None:
    """Move what was noted to the runner's file: after every cell, since a kernel may end without a word."""
    lines = [json.dumps(["ran", os.path.relpath(file, _ROOT), line]) + "\n" for file, line in sorted(_noted)]
    _noted.clear()
    with open(os.environ["POOLNB_USES"], "a", encoding="utf-8") as log:
        log.writelines(lines)


threading.settrace(_note)
sys.settrace(_note)
get_ipython().events.register("post_run_cell", _write)  # type: ignore[name-defined]  # noqa: F821
