"""What the tests of sweeps share: small runs, an executor without processes, and waiting."""

import time
from dataclasses import replace
from pathlib import Path

from poolnb.lab.config import RunConfig
from poolnb.lab.records import load_records
from poolnb.lab.sweeps.sweep import sweep
from poolnb.lab.sweeps.tasks import carry_out

SPEC = """
description = "two poolers, two seeds"

[fixed]
dataset = "digits"
epochs = 2
limit = 256

[grid]
pooler = ["max", "soft"]
seed = [0, 1]
"""
SMALL = RunConfig(dataset="digits", epochs=1, limit=128, pooler="max")
EXPLODING = replace(SMALL, optimizer="sgd", learning_rate=1e30)


class Here:
    """An executor without processes, for what does not depend on them."""

    def execute(self, tasks):
        yield from map(carry_out, tasks)


def done(configs, folder, executor=None, **options):
    return sweep(configs, folder, fast=True, progress=False, executor=executor or Here(), **options)


def contents(folder):
    return [record.content() for record in load_records(folder)]


def wait_for(condition, process=None, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.02)


def children(pid, name):
    """The child processes of `pid` whose command line holds `name`."""
    pids = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [child for child in pids if name in Path(f"/proc/{child}/cmdline").read_text()]


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
