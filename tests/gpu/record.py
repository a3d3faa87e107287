"""One record of a run of `check.sh`, from what its steps left: `record.py OUT [FOLDER]`, such as book/results/gpu.

It stays in OUT as record.json, and goes to FOLDER under the device's name, the date and a letter; a dry run does not.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import string
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from poolnb.lab.provenance import source_hash

SHOWN = 50  # failures that are kept


def lines(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a file; the last one may have been cut off."""
    found = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def machine() -> dict[str, Any]:
    gpu = torch.cuda.is_available()
    facts: dict[str, Any] = {"device": torch.cuda.get_device_name() if gpu else "cpu", "dry_run": not gpu}
    if gpu:
        properties = torch.cuda.get_device_properties(0)
        facts |= {"multiprocessors": properties.multi_processor_count, "memory": properties.total_memory}
        facts |= {"capability": "{}.{}".format(*torch.cuda.get_device_capability()), "cuda": torch.version.cuda}
    return facts | {"cores": os.cpu_count(), "python": platform.python_version(), "torch": torch.__version__}


def without_folders(text: str) -> str:
    """Absolute paths cut to the names of files: where they lie on a machine is no finding."""
    return re.sub(r"(?<![\w.])(?:/[\w.+-]+)+/(?=[\w.+-])", "", text)


def tests(results: list[dict[str, Any]]) -> dict[str, Any]:
    failures = [line | {"why": without_folders(line["why"])} for line in results if line["outcome"] == "failed"]
    return {"outcomes": Counter(line["outcome"] for line in results), "failures": failures[:SHOWN]}


def study(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "run": {name: r["parameters"][name] for name in ("dataset", "pooler", "seed", "epochs")},
            "status": r["status"],
            "seconds": r["timing"]["seconds"],
            "summary": r["summary"],
        }
        for r in records
    ]


def record(out: Path) -> dict[str, Any]:
    bench = [json.loads(p.read_text()) for p in sorted(out.glob("c*-threads.json"))]
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "sources": source_hash(),
        "machine": machine(),
        "steps": lines(out / "steps.jsonl"),
        "tests": tests(lines(out / "tests.jsonl")),
        "sanitizer": lines(out / "sanitizer.jsonl"),
        "bench": [row for found in bench for row in found["rows"]],
        "training": lines(out / "training.jsonl"),
        "study": study(lines(out / "study.jsonl")),
    }


def main() -> int:
    out = Path(sys.argv[1])
    kept = out / "record.json"
    if not kept.is_file():
        kept.write_text(json.dumps(record(out), indent=1) + "\n")
    made = json.loads(kept.read_text())
    for step in made["steps"]:
        outcome = "passed" if step["status"] == 0 else "FAILED"
        print(f"{step['step']:10} {outcome:7} {step['seconds']:4} s of {step['cap']}")
    print(f"tests: {made['tests']['outcomes']}; rows: {len(made['bench'])} bench, {len(made['training'])} training")
    if len(sys.argv) > 2:
        if made["machine"]["dry_run"]:
            print("a dry run is no record of a GPU", file=sys.stderr)
            return 1
        name = re.sub(r"[^a-z0-9]+", "-", made["machine"]["device"].lower()).strip("-")
        folder = Path(sys.argv[2])
        folder.mkdir(parents=True, exist_ok=True)
        days = [folder / f"{name}-{made['date']}-{letter}.json" for letter in string.ascii_lowercase]
        path = next(p for p in days if not p.exists())
        path.write_text(kept.read_text())
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
