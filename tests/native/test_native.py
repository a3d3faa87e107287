"""Finding, building and switching the compiled kernels; what happens when that fails."""

from __future__ import annotations

import _ctypes
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from poolnb import _build, build, functional, native
from poolnb.doctor import report


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def _python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True
    )


def _broken_compiler(folder: Path, says: str = "the disk of the compiler is on fire") -> Path:
    script = folder / "broken-c++"
    script.write_text(
        '#!/bin/sh\ncase "$1" in --version|-dumpversion|-dumpfullversion|-v) exec c++ "$@";; esac\n'
        f"echo 'error: {says}' >&2\nexit 1\n"
    )
    script.chmod(0o755)
    return script


def test_a_failing_compiler_is_quoted_once_and_nothing_else_breaks(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", str(_broken_compiler(empty_cache)))
    with pytest.raises(_build.BuildError, match="the disk of the compiler is on fire"):
        _build.build()
    with pytest.raises(_build.BuildError, match="(?s)not tried again.*on fire") as second:
        _build.build()
    assert len(str(second.value).splitlines()) <= 32 and "Traceback" not in str(second.value)
    code = "import torch, poolnb.functional as F; from poolnb import native\n"
    code += "print(native.operators(), F.soft_pool1d(torch.zeros(1, 1, 4), 2).sum().item()); print(native.status())"
    done = _python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("() 0.0\n") and "the disk of the compiler is on fire" in done.stdout
    assert "fire" not in done.stderr  # the import says nothing


@pytest.mark.parametrize("says", ["No space left on device", "Killed signal terminated program cc1plus"])
def test_what_the_machine_failed_of_is_tried_again(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    monkeypatch.setenv("CXX", str(_broken_compiler(empty_cache, says)))
    with pytest.raises(_build.BuildError, match=f"^the compiler failed: .*{says}"):
        _build.build()
    assert not list((empty_cache / "cache" / "poolnb" / "native").iterdir())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_a_torch_that_asks_for_an_older_standard_changes_nothing(tmp_path: Path) -> None:
    unit = next(path for path in _build.write_units("cpu", tmp_path) if path.stem == "std")
    command = ["c++", "-std=c++17", *native.FLAGS, f"-I{native.sources_folder()}", "-fsyntax-only", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_without_a_compiler_the_command_says_so(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert build.main([]) == 1
    error = capsys.readouterr().err
    assert "no C++ compiler: no-such-compiler is not on PATH" in error
    assert "the PyTorch kernels are used" in error


def test_without_a_cuda_compiler_the_command_says_so(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = empty_cache / "bin"
    empty.mkdir()
    (empty / "c++").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(empty))
    with pytest.raises(_build.BuildError, match="nvcc is not on PATH"):
        _build.build("cuda")


@pytest.mark.parametrize(
    "value, expected",
    [
        ("require", "ImportError: POOLNB_NATIVE=require, but there are no compiled kernels: none is built"),
        ("yes", "ImportError: POOLNB_NATIVE must be one of 0, 1, require, got 'yes'"),
    ],
)
def test_an_import_that_has_to_fail_says_why(empty_cache: Path, value: str, expected: str) -> None:
    done = _python("import poolnb", POOLNB_NATIVE=value)
    assert done.returncode == 1 and expected in done.stderr


def test_0_uses_no_compiled_kernels() -> None:
    done = _python("from poolnb import native; print(native.operators(), native.status())", POOLNB_NATIVE="0")
    assert done.stdout == "() POOLNB_NATIVE=0: the PyTorch kernels are active\n", done.stderr


# ---- a cache that is not as it should be -----------------------------------------------------------------------------


@pytest.fixture
def copied(empty_cache: Path) -> Path:
    """The library that is in force, or where none is built a file in its place, in a cache of its own."""
    folder = native.cached_folder()
    assert folder is not None
    folder.mkdir(parents=True, mode=0o700)
    folder.parent.parent.chmod(0o700)
    folder.parent.chmod(0o700)
    library = folder / native.library_name("cpu")
    if native.available():
        shutil.copyfile(native._loaded["cpu"], library)
    else:
        library.write_text("not a library")
    library.chmod(0o700)
    _record(library)
    return library


def _record(library: Path) -> None:
    digest = hashlib.sha256(library.read_bytes()).hexdigest()
    text = json.dumps({"key": library.parent.name, "sha256": digest, "seconds": 0})
    (library.parent / native.RECORD).write_text(text)


def _other_key(library: Path) -> None:
    record = json.loads((library.parent / native.RECORD).read_text())
    (library.parent / native.RECORD).write_text(json.dumps({**record, "key": "0" * 24}))


def _foreign(library: Path) -> None:
    """A library of somebody else's that loads, but holds no operators."""
    shutil.copyfile(_ctypes.__file__, library)
    _record(library)


def _text(library: Path) -> None:
    library.write_text("not a library")
    _record(library)


_DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda p: p.write_bytes(b""), "is not as it was built"),
    "cut": (lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]), "is not as it was built"),
    "altered": (lambda p: p.write_bytes(p.read_bytes()[:-1] + b"?"), "is not as it was built"),
    "of other sources": (_other_key, "built from other sources"),
    "without a record": (lambda p: (p.parent / native.RECORD).unlink(), "is damaged"),
    "with an empty record": (lambda p: (p.parent / native.RECORD).write_text(""), "is damaged"),
    "with another record": (lambda p: (p.parent / native.RECORD).write_text("[]"), "is damaged"),
    "a folder": (lambda p: (p.unlink(), p.mkdir()), "is damaged"),
    "a link to nothing": (lambda p: (p.unlink(), p.symlink_to("nothing")), "is damaged"),
    "a link in a circle": (lambda p: (p.unlink(), p.symlink_to(p)), "is damaged"),
    "a pipe": (lambda p: (p.unlink(), os.mkfifo(p, 0o700)), "is no file"),
    "with a pipe as record": (lambda p: ((r := p.parent / native.RECORD).unlink(), os.mkfifo(r, 0o600)), "is no file"),
    "with a device as record": (
        lambda p: ((r := p.parent / native.RECORD).unlink(), r.symlink_to("/dev/zero")),
        "is no file",
    ),
    "with a circle as record": (lambda p: ((r := p.parent / native.RECORD).unlink(), r.symlink_to(r)), "is damaged"),
    "with an endless record": (lambda p: (p.parent / native.RECORD).write_text("[" * 10**6), "is damaged"),
    "not a library": (_text, "cannot be loaded"),
    "somebody else's": (_foreign, "cannot be loaded"),
}
_OPEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "library, group": (lambda p: p.chmod(0o770), "poolnb_native.so can be written by other users"),
    "library, everybody": (lambda p: p.chmod(0o702), "poolnb_native.so can be written by other users"),
    "its folder": (lambda p: p.parent.chmod(0o770), "can be written by other users"),
    "sticky folder": (lambda p: p.parent.chmod(0o1777), "can be written by other users"),
    "native": (lambda p: p.parents[1].chmod(0o777), "native can be written by other users"),
    "poolnb": (lambda p: p.parents[2].chmod(0o777), "poolnb can be written by other users"),
    "the cache": (lambda p: p.parents[3].chmod(0o777), "cache can be written by other users"),
    "behind a link": (lambda p: _behind_a_link(p), "open can be written by other users"),
}


def _behind_a_link(library: Path) -> None:
    elsewhere = library.parents[4] / "open"
    elsewhere.mkdir()
    elsewhere.chmod(0o777)
    library.rename(elsewhere / library.name)
    library.symlink_to(elsewhere / library.name)


_IMPORT = "import poolnb; from poolnb import native; print(native.operators()); print(native.status())"


@pytest.fixture
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """As at the import of poolnb in a process of its own."""
    for name, value in (("_handles", {}), ("_loaded", {}), ("_active", False)):
        monkeypatch.setattr(native, name, value)
    monkeypatch.setenv("POOLNB_NATIVE", "1")


@pytest.mark.usefixtures("nothing_loaded")
@pytest.mark.parametrize("fault", [*_DAMAGES, *_OPEN])
def test_a_library_that_is_not_fit_is_named_once_and_breaks_nothing(
    copied: Path, fault: str, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    spoil, why = {**_DAMAGES, **_OPEN}[fault]
    spoil(copied)
    native.load()
    (warning,) = recwarn.list
    text = str(warning.message)
    assert warning.category is RuntimeWarning and why in text and "`poolnb build`" in text
    assert text.startswith(str(copied.parents[4])) and not native.operators()
    assert "the PyTorch kernels are active" in native.status() and (why in native.status() or "loaded" in why)
    monkeypatch.setenv("POOLNB_NATIVE", "require")
    with pytest.raises(ImportError, match=f"POOLNB_NATIVE=require.*{re.escape(why)}"):
        native.load()
    monkeypatch.setenv("POOLNB_NATIVE", "0")
    native.load()
    assert len(recwarn.list) == 1


@pytest.mark.parametrize("fault", ["cut", "its folder"])
def test_an_import_says_what_is_not_fit(copied: Path, fault: str) -> None:
    spoil, why = {**_DAMAGES, **_OPEN}[fault]
    spoil(copied)
    done = _python(_IMPORT, POOLNB_NATIVE="1")
    assert done.returncode == 0 and done.stdout.startswith("()\n"), done.stderr
    assert done.stderr.count("RuntimeWarning") == 1 and why in done.stderr


@pytest.mark.skipif(not native.available(), reason="no compiled kernels")
def test_a_library_that_is_fit_is_loaded(copied: Path) -> None:
    done = _python(_IMPORT)
    assert "compiled CPU kernels are active (built here)" in done.stdout and not done.stderr
    copied.parents[3].chmod(0o1777)  # a sticky folder that all share, as /tmp
    moved = copied.parents[4] / "moved"
    copied.parents[2].rename(moved)
    copied.parents[2].symlink_to(moved)  # a cache on another disk
    assert native.find() == copied


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("depth", range(4))
def test_what_belongs_to_somebody_else_is_not_loaded(copied: Path, depth: int) -> None:
    path = [copied, *copied.parents][depth]
    os.chown(path, 12345, -1)
    assert native.find() is None
    assert native.fault(copied) == f"{path} belongs to another user (number 12345)"


@pytest.mark.parametrize("fault", [*_DAMAGES, "library, group", "its folder", "native", "poolnb"])
def test_a_build_mends_a_cache(
    copied: Path, fault: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    {**_DAMAGES, **_OPEN}[fault][0](copied)
    compiled = _pretend_to_compile(monkeypatch)
    monkeypatch.setattr(native, "_handles", {})  # as in a process of its own, which could not load it
    assert build.main([]) == 0
    assert compiled == ["cpu"] and native.find() == copied and copied.read_bytes() == b"a library"
    for path in (copied, *copied.parents[:2]):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert not copied.parents[2].stat().st_mode & 0o022
    assert sorted(p.name for p in copied.parents[1].iterdir()) == [copied.parent.name]  # nothing is left behind
    assert str(copied) in capsys.readouterr().out
    monkeypatch.setattr(native, "_handles", {"cpu": None})
    assert build.main([]) == 0 and compiled == ["cpu"]


def _pretend_to_compile(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    compiled: list[str] = []

    def compile_(device: str, work: Path, compiler: str) -> dict[str, Any]:
        compiled.append(device)
        (work / native.library_name(device)).write_bytes(b"a library")
        (work / native.library_name(device)).chmod(0o775)  # as a linker leaves it under umask 002
        return {"seconds": 0}

    monkeypatch.setattr(_build, "_compile", compile_)
    monkeypatch.setattr(_build, "_compiler", lambda: "a compiler")
    monkeypatch.setattr(_build, "_ninja", lambda: None)
    return compiled


def test_two_builds_at_once_both_succeed(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend_to_compile(monkeypatch)
    with ThreadPoolExecutor(4) as threads:
        paths = set(threads.map(lambda _: _build.build("cpu", True), range(16)))
    (path,) = paths
    assert native.fault(path) is None and path.read_bytes() == b"a library"


def test_what_a_killed_build_left_behind_does_no_harm(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend_to_compile(monkeypatch)
    folder = native.cached_folder()
    assert folder is not None
    (folder.parent / "build-killed").mkdir(parents=True)
    (folder.parent / "build-killed" / "lock").touch()
    assert native.fault(_build.build()) is None


_NO_HOME = "import os, pwd\ndef unknown(*_): raise KeyError\npwd.getpwuid = unknown\nos.environ.pop('HOME', None)\n"


def test_an_import_does_without_a_home() -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME", "POOLNB_NATIVE")}
    program = [sys.executable, "-c", _NO_HOME + _IMPORT]
    done = subprocess.run(program, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("()\n") and not done.stderr, done.stderr
    assert "no home folder is known (XDG_CACHE_HOME names a cache)" in done.stdout


@pytest.mark.usefixtures("nothing_loaded")
@pytest.mark.parametrize("home", ["/nonexistent", __file__, "some/where", ""])
@pytest.mark.parametrize("named", [None, "", "relative/cache"])
def test_odd_homes_are_caches_without_a_library(
    home: str, named: str | None, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setenv("HOME", home)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if named is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", named)
    native.load()
    assert not native.operators() and not recwarn.list
    assert "the PyTorch kernels are active" in native.status()
    if home == "some/where":
        assert "no home folder is known" in native.status()


@pytest.mark.usefixtures("nothing_loaded")
def test_sources_that_cannot_be_read_break_nothing(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(device: str = "cpu") -> list[Path]:
        raise PermissionError("not yours")

    monkeypatch.setattr(native, "sources", refuse)
    native.load()
    assert "the cache cannot be read: not yours" in native.status()


# ---- where nothing can be built --------------------------------------------------------------------------------------


def _nowhere(monkeypatch: pytest.MonkeyPatch, folder: Path, what: str) -> str:
    """Make building impossible in one way; what the message says."""
    if what == "no compiler":
        monkeypatch.setenv("CXX", "absent")
        return "no C++ compiler: absent is not on PATH"
    if what == "a compiler that does not run":
        (folder / "text").write_bytes(b"\x7fELF")
        (folder / "text").chmod(0o755)
        monkeypatch.setenv("CXX", str(folder / "text"))
        return "does not run"
    if what == "a compiler that fails":
        monkeypatch.setenv("CXX", str(_broken_compiler(folder)))
        return "the compiler failed: error: the disk of the compiler is on fire"
    if what == "no ninja":
        monkeypatch.setattr(_build, "search_path", lambda: str(folder))
        return "no ninja"
    if what == "a cache that cannot be written":
        (folder / "cache").write_text("a file where the folder should be")
        return "cannot be used"
    monkeypatch.setattr(native, "cache", lambda: None)
    return "no home folder is known"


_IMPOSSIBLE = ["no compiler", "a compiler that does not run", "a compiler that fails", "no ninja"]


@pytest.mark.parametrize("what", [*_IMPOSSIBLE, "a cache that cannot be written", "no home"])
def test_where_nothing_can_be_built_one_line_says_so(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    expected = _nowhere(monkeypatch, empty_cache, what)
    assert build.main(["--if-possible"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line and line.endswith("the PyTorch kernels are used")
    assert build.main([]) == 1
    assert expected in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_goes_on_where_nothing_can_be_built(empty_cache: Path) -> None:
    root, home = Path(__file__).parents[2], empty_cache / "copy"
    (home / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(root / "Makefile", home)
    for name in ("pyproject.toml", "setup.py", "requirements.lock", ".venv/.installed"):
        (home / name).touch()
    command = home / ".venv" / "bin" / "poolnb"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m poolnb "$@"\n')
    command.chmod(0o755)

    def make(**more: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(root), "CXX": "absent", **more}
        return subprocess.run(["make", "-s", "native"], cwd=home, env=environment, capture_output=True, text=True)

    done = make(POOLNB_NATIVE="1")
    assert done.returncode == 0 and not done.stdout
    assert done.stderr.startswith("no C++ compiler: absent is not on PATH") and done.stderr.count("\n") == 1
    assert make(POOLNB_NATIVE="require").returncode != 0


@pytest.mark.skipif(not native.available(), reason="no compiled kernels")
def test_disabled_switches_all_of_them_and_back() -> None:
    before = native.operators()
    x = torch.randn(2, 3, 8, 8)
    compiled = functional.soft_pool2d(x, 2)
    with native.disabled():
        assert native.operators() == ()
        torch.testing.assert_close(functional.soft_pool2d(x, 2), compiled)
    assert native.operators() == before


def test_doctor_says_what_is_active() -> None:
    text = report()
    assert "Native kernels" in text
    assert ("compiled CPU kernels are active" in text) == bool(native.operators())
    assert "CUDA kernels" in text or not torch.version.cuda
