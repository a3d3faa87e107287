"""Every pooler in everything that people put around it; the book's table says what these tests give.

`python -m pytest tests/conformance --record-conformance -n0` writes the cells of the tests that it runs, if none fails.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from poolers import SAMPLED
from wrappers import NAMES, NOT_APPLICABLE, WIDE, WRAPPERS, Subject

from poolnb.book.sphinxext.conformance import TABLE

FAST = [key for key, row in WRAPPERS.items() if not row.slow]
SLOW = [key for key, row in WRAPPERS.items() if row.slow]


def outcome(key: str, name: str, dims: int) -> dict[str, str]:
    """What the check gives in evaluation and in training; a slow one in training only for poolers that draw there."""
    found: dict[str, Any] = {}
    for training in (False, True) if name in SAMPLED or not WRAPPERS[key].slow else (False,):
        given = WRAPPERS[key].check(Subject(name, dims, training))
        found["training" if training else "evaluation"] = "works" if given is None else given
    return found


@pytest.fixture(scope="session")
def table(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The committed table, or in a run that records it a new one."""
    if not request.config.getoption("--record-conformance", False):
        yield json.loads(TABLE.read_text(encoding="utf-8"))["outcomes"]
        return
    made: dict[str, dict[str, Any]] = {key: {} for key in WRAPPERS}
    yield made
    if not request.session.testsfailed:
        known = json.loads(TABLE.read_text(encoding="utf-8"))["outcomes"] if TABLE.exists() else {}
        outcomes = {key: dict(sorted({**known.get(key, {}), **made[key]}.items())) for key in WRAPPERS}
        titles = {key: row.title for key, row in WRAPPERS.items()}
        content = {"torch": torch.__version__, "titles": titles, "outcomes": outcomes}
        TABLE.parent.mkdir(exist_ok=True)
        TABLE.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def compare(table: Any, request: pytest.FixtureRequest, key: str, name: str, dims: int) -> None:
    found = outcome(key, name, dims)
    if request.config.getoption("--record-conformance", False):
        table[key].setdefault(name, found)
    assert found == table[key][name]


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", FAST)
def test_wrapped(key: str, name: str, dims: int, table: Any, request: pytest.FixtureRequest) -> None:
    compare(table, request, key, name, dims)


@pytest.mark.parametrize("name, dims", [(n, d) for d in (2, 1, 3) for n in (NAMES if d == 2 else WIDE)])
@pytest.mark.parametrize("key", SLOW)
def test_compiled_or_exported(key: str, name: str, dims: int, table: Any, request: pytest.FixtureRequest) -> None:
    compare(table, request, key, name, dims)


def test_the_table_is_complete(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--record-conformance", False):
        pytest.skip("the table is being written")
    record = json.loads(TABLE.read_text(encoding="utf-8"))
    assert record["titles"] == {key: row.title for key, row in WRAPPERS.items()}
    assert all(sorted(record["outcomes"][key]) == NAMES for key in WRAPPERS)
    refused = {o for row in record["outcomes"].values() for cell in row.values() for o in cell.values()}
    assert {"works", NOT_APPLICABLE} < refused and set(SAMPLED) < set(NAMES)
