"""As many runs of a study as the time holds, on the data sets that are here; their records as JSON lines."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from pathlib import Path
from typing import Any

from poolnb.lab import data
from poolnb.lab.sweeps.sweep import read_sweep, sweep

SPARE = 8  # seconds of the time, to write the records


def here(dataset: str) -> bool:
    """Whether a data set can be read without a network."""
    try:
        return not data.missing_files(dataset) and bool(data.load(dataset))
    except ImportError:  # digits come with scikit-learn
        return False


def write(results: str, runs: str) -> int:
    """One line per record; how many there are."""
    records = [p.read_text().replace("\n", " ").strip() for p in sorted(Path(runs).glob("*.json"))]
    Path(results).write_text("".join(f"{record}\n" for record in records))
    return len(records)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run a study for a while.")
    parser.add_argument("results")
    parser.add_argument("runs", help="folder for the records while it runs")
    parser.add_argument("seconds", type=float)
    parser.add_argument("spec")
    parser.add_argument("--workers", type=int, default=8)
    arguments = parser.parse_args()

    def stop() -> None:
        done = write(arguments.results, arguments.runs)
        print(f"the time is over: {done} runs", flush=True)
        os._exit(0 if done else 1)  # the workers end with this process

    timer = threading.Timer(max(1.0, arguments.seconds - SPARE), stop)
    timer.daemon = True
    timer.start()
    spec: Any = read_sweep(arguments.spec)
    configs = [c for c in spec.configs if here(c.dataset)]
    if not configs:
        print("none of the study's data sets is here: no runs")
        write(arguments.results, arguments.runs)
        return 0
    report = sweep(configs, arguments.runs, workers=arguments.workers, fast=True, progress=False)
    timer.cancel()
    print(f"{write(arguments.results, arguments.runs)} runs, {len(report.failed)} failed")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
