"""The record of ``poolnb bench``: rows of one machine in one file; what is measured anew replaces what it was."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from poolnb import native
from poolnb._machine import processor_name
from poolnb.bench.rows import Row


def made_elsewhere(folder: str | Path, device: str) -> str | None:
    """What tells this machine from that of the record that rows would be added to, in words."""
    path, here = _path(folder, device), _machine(device)
    if not path.is_file():
        return None
    there = json.loads(path.read_text())["machine"]
    other = [name for name in ("device", "torch", "python") if there.get(name) != here[name]]
    if not other:
        return None
    return f"{path} was measured with " + ", ".join(f"{n} {there.get(n)} (here {here[n]})" for n in other)


def keep(folder: str | Path, device: str, measured: Sequence[Row]) -> None:
    """Add rows to the record, or put them in the place of those that were measured before."""
    machine, path = _machine(device), _path(folder, device)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{**asdict(row), "date": machine["date"]} for row in measured]
    if path.is_file():  # settings that were measured before are kept
        new, before = {_key(row) for row in rows}, json.loads(path.read_text())
        dated = [{"date": before["machine"]["date"], **row} for row in before["rows"]]
        rows = [row for row in dated if _key(row) not in new] + rows
    partial = path.with_suffix(".tmp")
    lines = ",\n".join("  " + json.dumps(row) for row in rows)
    partial.write_text(f'{{\n "machine": {json.dumps(machine)},\n "rows": [\n{lines}\n ]\n}}\n')
    os.replace(partial, path)
    print(f"record: {path}", flush=True)


def _path(folder: str | Path, device: str) -> Path:
    return Path(folder) / f"{device}-{torch.get_num_threads()}-threads.json"


def _machine(device: str) -> dict[str, Any]:
    name = torch.cuda.get_device_name() if device == "cuda" else f"{processor_name()}, {os.cpu_count()} cores"
    facts = {
        "device": name,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "native": list(native.operators(device)),
    }
    if hasattr(os, "getloadavg"):
        facts["load"] = round(os.getloadavg()[0], 2)
    return facts


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    names = ("operator", "kernel", "direction", "windows", "dtype", "layout")
    return (*(row[name] for name in names), *row["shape"])
