"""compute-sanitizer's memcheck, racecheck and initcheck over `calls.py`, side by side; one JSON line as each ends.

On the CPU, where there is nothing to sanitize, the calls are made as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

TOOLS = ("memcheck", "racecheck", "initcheck")


def main() -> int:
    parser = argparse.ArgumentParser(description="Sanitize the kernels.")
    parser.add_argument("results")
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and shutil.which("compute-sanitizer") is None:
        print("compute-sanitizer is not on PATH", file=sys.stderr)
        return 2
    codes: list[int] = []
    lock = threading.Lock()
    with open(arguments.results, "w", buffering=1) as file:

        def one(tool: str) -> None:
            began = time.monotonic()
            done = run(tool, arguments.device)
            line = {"tool": tool, "status": done.returncode, "seconds": round(time.monotonic() - began, 1)}
            line["said"] = (done.stdout + done.stderr).strip()[-2000 if done.returncode else -200 :]
            with lock:
                codes.append(done.returncode)
                file.write(json.dumps(line) + "\n")
                print(tool, "passed" if done.returncode == 0 else f"failed: {line['said']}", flush=True)

        threads = [threading.Thread(target=one, args=(tool,)) for tool in TOOLS]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return 0 if codes == [0] * len(TOOLS) else 1


def run(tool: str, device: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(Path(__file__).with_name("calls.py")), "--device", device]
    if device == "cuda":
        command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", *command]
    # Else torch cuts tensors from larger blocks, and a step outside of one would not be outside of memory.
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


if __name__ == "__main__":
    sys.exit(main())
