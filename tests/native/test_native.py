"""Finding, building and switching the compiled kernels; what happens when that fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from poolnb import _build, functional, native
from poolnb.doctor import report


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def _python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True
    )


def _broken_compiler(folder: Path) -> Path:
    script = folder / "broken-c++"
    script.write_text(
        '#!/bin/sh\ncase "$1" in --version|-dumpversion|-dumpfullversion|-v) exec c++ "$@";; esac\n'
        "echo 'error: the disk of the compiler is on fire' >&2\nexit 1\n"
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
    assert len(str(second.value).splitlines()) <= 31 and "Traceback" not in str(second.value)
    code = "import torch, poolnb.functional as F; from poolnb import native\n"
    code += "print(native.operators(), F.soft_pool1d(torch.zeros(1, 1, 4), 2).sum().item()); print(native.status())"
    done = _python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("() 0.0\n") and "the disk of the compiler is on fire" in done.stdout
    assert "fire" not in done.stderr  # the import says nothing


def test_without_a_compiler_the_command_says_so(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert native.main([]) == 1
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


def test_a_library_that_cannot_be_loaded_breaks_nothing(empty_cache: Path) -> None:
    folder = native.cached_folder()
    folder.mkdir(parents=True)
    (folder / native.library_name("cpu")).write_text("not a library")
    done = _python("import poolnb; from poolnb import native; print(native.operators())")
    assert done.returncode == 0 and done.stdout == "()\n"
    done = _python("import poolnb", POOLNB_NATIVE="require")
    assert "cannot be loaded" in done.stderr


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
