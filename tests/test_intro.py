"""The introduction shows code that runs, and leads to every operator and page it names."""

import re
from typing import Any

import torch

import poolnb
from poolnb.lab.provenance import BOOK

TEXT = (BOOK / "intro.md").read_text(encoding="utf-8")


def test_its_python_runs():
    blocks = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        names: dict[str, Any] = {}
        exec(compile(block, "book/intro.md", "exec"), names)
        x, y, pool = names["x"], names["y"], names["pool"]
        assert y.shape == (8, 64, 16, 16) and torch.equal(pool(x), y)


def test_its_table_names_every_operator():
    rows = re.findall(r"^\| (`.*?) \|", TEXT, flags=re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == set(poolnb.list_pools())
