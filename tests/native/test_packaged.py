"""The wheels: what they hold, which of their libraries a processor gets, and that they need no checkout around them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from poolnb import _build, build, native

ROOT = Path(__file__).parents[2]
LIBRARY = native.library_name("cpu")
LEVELS = {"low": ["sse2"], "middle": ["sse2", "avx2"], "high": ["sse2", "avx2", "avx512f"]}
needs_library = pytest.mark.skipif(not native.available(), reason="no compiled kernels")


@pytest.mark.parametrize(
    "can, expected",
    [
        ("fpu avx512f avx2 sse2", "high"),
        ("fpu avx2 sse2", "middle"),
        ("avx512f sse2", "low"),  # a level needs all that it needs
        ("fpu", None),
        ("", None),
    ],
)
def test_a_processor_gets_the_highest_level_that_it_has(can: str, expected: str | None) -> None:
    assert native.best_level(LEVELS, can.split()) == expected
    assert native.best_level(dict(reversed(LEVELS.items())), can.split()) == expected


def test_without_levels_there_is_none() -> None:
    assert native.best_level({}, ["sse2"]) is None


@pytest.mark.parametrize("machine, expected", [("x86_64", ["x86-64-v2", "x86-64-v3", "x86-64-v4"]), ("aarch64", None)])
def test_levels_of_a_wheel(machine: str, expected: list[str] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(native, "processor", lambda: "fp asimd sve")
    levels = _build.levels()
    assert list(levels) == (expected or ["native"])
    if expected is None:
        assert levels["native"] == ["fp", "asimd", "sve"]
    needs = [set(needed) for needed in levels.values()]
    assert all(less < more for less, more in zip(needs, needs[1:], strict=False))


def test_a_folder_of_levels_says_what_each_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_(device: str, work: Path, compiler: str, level: str) -> dict[str, Any]:
        (work / LIBRARY).write_text(level)
        return {"seconds": 0}

    monkeypatch.setattr(_build, "_compile", compile_)
    monkeypatch.setattr(_build, "_compiler", lambda: "a compiler")
    monkeypatch.setattr(_build, "_ninja", lambda: None)
    assert build.main(["--levels", str(tmp_path / "levels")]) == 0
    for level, needs in _build.levels().items():
        assert (tmp_path / "levels" / level / LIBRARY).read_text() == level
        assert json.loads((tmp_path / "levels" / level / native.RECORD).read_text())["needs"] == needs
    monkeypatch.setattr(native, "_PACKAGED", tmp_path / "levels")
    monkeypatch.setattr(native, "processor", lambda: " ".join(needs))
    monkeypatch.setattr(native, "cache", lambda: None)
    assert native.find() == tmp_path / "levels" / level / LIBRARY


@pytest.mark.parametrize("level", ["x86-64-v2", "x86-64-v3", "x86-64-v4"])
def test_a_level_that_this_processor_lacks_is_compiled_for_it_and_not_loaded(
    level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str, units: list[str], extra_cflags: list[str], **options: Any) -> None:
        assert f"-march={level}" in extra_cflags and "-march=native" not in extra_cflags
        torch.ops.load_library(tmp_path / "absent")  # as torch does with what it has compiled
        compiled.append(level)

    compiled: list[str] = []
    monkeypatch.setattr("torch.utils.cpp_extension.load", load)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(native, "processor", lambda: "none of it")
    _build.compile_here("cpu", level, tmp_path)
    assert compiled == [level]


# ---- wheels ----------------------------------------------------------------------------------------------------------


def _wheel(folder: Path, libraries: str | None = None) -> zipfile.ZipFile:
    """A wheel of the project, made in a copy of it that has a module of the book's tools."""
    project = folder / "project"
    if not project.exists():
        project.mkdir(parents=True)
        for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, project)
        for name in ("poolnb", "ext"):
            shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
        (project / "poolnb" / "book").mkdir(exist_ok=True)
        (project / "poolnb" / "book" / "__init__.py").touch()
    shutil.rmtree(project / "build", ignore_errors=True)
    environment = {name: value for name, value in os.environ.items() if name != "POOLNB_LIBRARIES"}
    if libraries is not None:
        environment["POOLNB_LIBRARIES"] = libraries
    code = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(folder / done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def pure(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    return _wheel(tmp_path_factory.mktemp("pure"))


def test_a_pure_wheel_holds_the_sources_and_nothing_of_the_book(pure: zipfile.ZipFile) -> None:
    names = set(pure.namelist())
    assert Path(str(pure.filename)).name.endswith("-py3-none-any.whl")
    ours = {path.relative_to(ROOT) for path in (ROOT / "poolnb").rglob("*.py")}
    assert {str(path) for path in ours if path.parts[1] != "book"} <= names
    sources = {path.relative_to(ROOT / "ext") for path in (*native.sources("cpu"), *native.sources("cuda"))}
    assert sources and {f"poolnb/ext/{path}" for path in sources} <= names
    assert "poolnb/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"poolnb"}
    assert not [name for name in names if name.startswith(("poolnb/book", "poolnb/lib"))]


def _installed(wheel: zipfile.ZipFile, folder: Path, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code with poolnb from a wheel, in a folder and with a cache that have nothing to do with the checkout."""
    wheel.extractall(folder / "site")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("POOLNB_")}
    environment = {**inherited, "PYTHONPATH": str(folder / "site"), "XDG_CACHE_HOME": str(folder / "c"), **environment}
    return subprocess.run([sys.executable, "-c", code], cwd="/", env=environment, capture_output=True, text=True)


def test_an_installed_package_finds_its_sources(pure: zipfile.ZipFile, tmp_path: Path) -> None:
    code = "from poolnb import native; print(native.sources_folder(), len(native.sources()), native.status())"
    done = _installed(pure, tmp_path, code)
    expected = f"{tmp_path}/site/poolnb/ext {len(native.sources())} the PyTorch kernels are active; `poolnb build`"
    assert done.stdout.startswith(expected), done.stderr


def test_a_command_that_needs_a_checkout_says_so(pure: zipfile.ZipFile, tmp_path: Path) -> None:
    done = _installed(pure, tmp_path, "from poolnb.cli import main; main(['book', 'build', '--strict'])")
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith("poolnb: error: `poolnb book` works in a checkout") and done.stderr.count("\n") == 1


def _levels(folder: Path, content: Path | bytes, needs: dict[str, list[str]]) -> None:
    """A folder as `poolnb build --levels` makes it."""
    for level, needed in needs.items():
        (folder / level).mkdir(parents=True)
        (folder / level / LIBRARY).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
        (folder / level / native.RECORD).write_text(json.dumps({"needs": needed, "seconds": 0}))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="tags of Linux")
def test_the_tag_of_a_platform_wheel_says_what_its_libraries_need(tmp_path: Path) -> None:
    _levels(tmp_path / "project-levels", b"...\0GLIBC_2.9\0GLIBC_2.31\0GLIBCXX_3.4.99\0GLIBC_2.2.5\0", LEVELS)
    wheel = _wheel(tmp_path, "../project-levels")
    assert "-py3-none-manylinux_2_31_" in Path(str(wheel.filename)).name
    names = wheel.namelist()
    assert {f"poolnb/lib/{level}/{file}" for level in LEVELS for file in (LIBRARY, native.RECORD)} <= set(names)
    assert not [name for name in names if ".data/" in name]
    metadata = next(name for name in names if name.endswith(".dist-info/WHEEL"))
    assert "Root-Is-Purelib: false" in wheel.read(metadata).decode()


def test_a_platform_wheel_without_libraries_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(AssertionError, match=r"POOLNB_LIBRARIES is '../empty', where no libraries are"):
        _wheel(tmp_path, "../empty")


@needs_library
@pytest.mark.parametrize("needs, level", [([[], ["no such thing"]], "0"), ([["no such thing"]], None)])
def test_a_packaged_library_is_used_where_nothing_can_be_built(
    pure: zipfile.ZipFile, tmp_path: Path, needs: list[list[str]], level: str | None
) -> None:
    asked = {str(number): needed for number, needed in enumerate(needs)}
    _levels(tmp_path / "site" / "poolnb" / "lib", native._loaded["cpu"], asked)
    code = "from poolnb import native, _build\nprint(native.status())\nif native.available(): _build._check('cpu')"
    done = _installed(pure, tmp_path, code, PATH="")
    assert done.returncode == 0 and not done.stderr, done.stderr
    if level is not None:
        assert f"compiled CPU kernels are active (packaged, for {level})" in done.stdout
        assert f"library: {tmp_path}/site/poolnb/lib/{level}/{LIBRARY}" in done.stdout
    else:
        expected = "the PyTorch kernels are active; no packaged library is for this processor; `poolnb build` builds"
        assert expected in done.stdout


@needs_library
def test_a_library_built_here_goes_before_a_packaged_one(pure: zipfile.ZipFile, tmp_path: Path) -> None:
    _levels(tmp_path / "site" / "poolnb" / "lib", native._loaded["cpu"], {"low": []})
    cache = native.cache()
    assert cache is not None
    code = "from poolnb import native; print(native.find())"
    built = native._loaded["cpu"]
    done = _installed(pure, tmp_path, code, XDG_CACHE_HOME=str(cache.parent))
    assert done.stdout.strip() == str(built), done.stderr
