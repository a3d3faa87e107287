"""requirements.lock: what it names, how it is installed, and where an environment departs from it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from poolnb.doctor import departures

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.lock"


def _locked() -> dict[str, list[Requirement]]:
    """The requirements of the lock by name; a package may be there once per platform."""
    found: dict[str, list[Requirement]] = {}
    for line in LOCK.read_text().splitlines():
        if line[:1].isalnum():
            requirement = Requirement(line.rstrip("\\ "))
            found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def test_every_package_that_the_book_needs_is_locked_to_a_version_that_is_allowed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["lab"], *extras["book"], *extras["test"]]
    locked = _locked()
    for requirement in map(Requirement, wanted):
        (pin, *more) = locked[canonicalize_name(requirement.name)]  # `make lock` adds what is missing
        assert not more and pin.marker is None
        assert requirement.specifier.contains(str(pin.specifier).removeprefix("==")), requirement


def test_every_version_is_exact_and_has_digests_and_no_address_is_named() -> None:
    text = LOCK.read_text()
    assert all(re.fullmatch(r"==[\w.+!]+", str(pin.specifier)) for pins in _locked().values() for pin in pins)
    blocks = re.split(r"\n(?=\w)", text.partition("\n")[2])[1:]
    assert len(blocks) >= len(_locked()) > 100
    assert all("--hash=sha256:" in block for block in blocks)
    assert "://" not in text and "/tmp" not in text


def test_an_environment_that_departs_is_told_line_by_line(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    torch, pytest_ = version("torch").partition("+")[0], version("pytest")
    there = (
        f"# a comment\ntorch=={torch} \\\n    --hash=sha256:00\npytest=={pytest_}\nabsent==1 ; python_version < '3'\n"
    )
    lock.write_text(there)
    assert departures(lock) == ["as locked"]
    lock.write_text(there.replace(f"=={pytest_}", "==0.1") + "no-such==1.2 \\\n    --hash=sha256:00\nnone==3\n")
    assert departures(lock) == [
        f"{'pytest':24}{pytest_}, locked 0.1",
        "not installed: no-such 1.2, none 3",
    ]
    assert departures(tmp_path / "absent") == ["not compared: the file lies in a checkout of the project"]


@pytest.mark.parametrize("latest", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_make_installs_what_is_locked_or_on_request_the_newest(tmp_path: Path, latest: bool, fails: bool) -> None:
    """With a pip that notes what it is asked for."""
    home = tmp_path / "copy"
    (home / ".venv" / "bin").mkdir(parents=True)
    (home / "Makefile").write_text((ROOT / "Makefile").read_text())
    for name in ("pyproject.toml", "setup.py", "requirements.lock", ".venv/bin/pip"):
        (home / name).touch()
    (home / ".venv/bin/pip").chmod(0o755)
    python = home / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\ncase "$*" in *--version*) echo Python 3.99;; esac\n')
    if fails:
        python.write_text(python.read_text() + 'case "$*" in *install*) exit 1;; esac\n')
    python.chmod(0o755)
    stamp = f".venv/.installed{'-latest' * latest}"
    command = ["make", "-s", stamp, f"PYTHON={sys.executable}"] + ["LATEST=1"] * latest
    environment = {name: value for name, value in os.environ.items() if name not in ("LATEST", "MAKEFLAGS")}
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)
    calls = (tmp_path / "calls").read_text()
    assert ("--require-hashes -r requirements.lock" in calls) != latest and ("--upgrade" in calls) == latest
    assert (home / stamp).exists() != fails and (done.returncode != 0) == fails
    if not fails:
        assert ("--no-deps --no-build-isolation -e ." in calls) != latest
    elif not latest:
        (line,) = [line for line in done.stdout.splitlines() if "could not be installed" in line]
        assert "for Python 3.99 on this machine" in line and "make LATEST=1" in line
