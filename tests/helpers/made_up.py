"""Made-up records, and the book's functions made to read them in place of the committed ones."""

import numpy as np

from poolnb.book.findings import evidence, ledger, progress, tuning
from poolnb.lab import provenance
from poolnb.lab.records import Record, summarise, write_record

HASHES = {"sources": "0" * 64, "data": "1" * 64}


def record(config, right=0.7, temperature=None):
    """A finished run that ends at the accuracy `right`; a little lower for the seeds that follow the first.

    A run of TDGS learns the mean `temperature`, from a start at 1.
    """
    right -= config.seed / 500
    rise = np.linspace(0.5, 1, config.epochs)
    curves = {f"{part}_accuracy": (right * rise).tolist() for part in ("train", "validation", "test")}
    curves |= {f"{part}_loss": (2 - right * rise).tolist() for part in ("train", "validation", "test")}
    for name, curve in curves.items():
        if not name.startswith("train"):
            curves[name] = [one if config.evaluates(epoch) else None for epoch, one in enumerate(curve, 1)]
    pooling = {}
    if config.pooler == "tdgs":
        learned = temperature or 0.8
        course = np.linspace(1, learned, config.epochs + 1).tolist()
        described = {"mean": learned, "min": 0.0, "max": 2.0, "trajectory": course, "histogram": [1, 2, 1]}
        pooling = {f"pool{k}.temperature": described | {"mean_map": [[learned]]} for k in (1, 2, 3)}
    device = {"device": "cpu"}
    return Record(config.parameters, config.key, "done", None, curves, summarise(curves), pooling, device, HASHES)


def write(results, folder, configs, **how):
    """Write a made-up record of every run; `how` as for `record`."""
    (results / folder).mkdir(parents=True, exist_ok=True)
    for config in configs:
        write_record(record(config, **how), results / folder)


def read_from(monkeypatch, results):
    """Make chapters and ledger read `results` in place of `book/results`."""
    for module in (provenance, evidence, ledger, progress, tuning):
        monkeypatch.setattr(module, "RESULTS", results)
