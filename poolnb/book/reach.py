"""Which source files a chapter's results depend on, from what ran in its kernel.

`import poolnb` loads every operator, so imports say little. `tracer.py` notes every function of poolnb that a chapter
has called. What such a function refers to may count as well, though no Python of it ran: an operator called through its
compiled kernel still means its PyTorch kernel, which serves where nothing is compiled. So a chapter depends on

- the files of the functions that ran,
- the files that define what these functions refer to, and so on through whole files, but not through a package's
  `__init__`, which refers to everything;
- of the operators among these files, the sources of the compiled kernels.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

_INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)
_KERNEL = "windows/{}.h"
_SHARED_KERNELS = ("operators.def", "cpu/bind.cpp", "cpu/run.h", "cuda/bind.cpp", "cuda/launch.cuh")

Target = tuple[str, str | None]  # a module and a name in it; None: the module itself


def reached_files(ran: Iterable[tuple[str, int]], root: Path) -> list[Path]:
    """The files that results depend on, sorted; `ran` holds the file (relative to `root`) and first line of functions.

    Python files lie in `root / "poolnb"`, kernels in `root / "ext"`. A file that is no longer there is passed over.
    """
    modules = Modules(root)
    found: dict[str, None] = {}
    waiting: list[str] = []
    for file, line in ran:
        if (module := modules.named(file)) is not None:
            found[module] = None
            waiting += modules.needs_of_definition(module, line)
    while waiting:
        module = waiting.pop()
        if module not in found:
            found[module] = None
            waiting += modules.needs_of_file(module)
    python = [modules.files[module] for module in found]
    return sorted({*python, *_kernels(python, root / "ext")})


class Modules:
    """The modules of the package in `root`, and what their names stand for."""

    def __init__(self, root: Path) -> None:
        paths = list((root / "poolnb").rglob("*.py"))
        self.files = {_dotted(path.relative_to(root)): path for path in paths}
        self.root = root
        self.tree = cache(lambda module: ast.parse(self.files[module].read_text(encoding="utf-8")))
        self.bindings = cache(self._bindings)
        self.defined = cache(self._defined)

    def named(self, file: str) -> str | None:
        module = _dotted(Path(file))
        return module if module in self.files else None

    def needs_of_definition(self, module: str, line: int) -> Iterator[str]:
        """The modules that the function or class around `line` refers to, and the statements beside definitions."""
        for node in self.tree(module).body:
            definition = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", []))])
            if not definition or first <= line <= (node.end_lineno or first):
                yield from self._references(node, module)

    def needs_of_file(self, module: str) -> Iterator[str]:
        """The modules that a whole file refers to; none for a package's `__init__`."""
        if not self._is_package(module):
            yield from self._references(self.tree(module), module)

    def _references(self, node: ast.AST, module: str) -> Iterator[str]:
        local = self._imports(node, module) if not isinstance(node, ast.Module) else {}
        bindings = self.bindings(module) | local
        for one in ast.walk(node):
            target = self._meant(one, bindings)
            if target and not (target[1] is None and self._is_package(target[0])):
                yield target[0]

    def _meant(self, node: ast.AST, bindings: dict[str, Target]) -> Target | None:
        """What a name, or a dotted one, stands for; None if it is nothing of the package."""
        if isinstance(node, ast.Name):
            return self._resolve(*bindings[node.id]) if node.id in bindings else None
        if isinstance(node, ast.Attribute):
            owner = self._meant(node.value, bindings)
            return self._resolve(owner[0], node.attr) if owner and owner[1] is None else owner
        return None

    def _resolve(self, module: str, name: str | None) -> Target | None:
        """Where `name` of `module` is defined, through all that only pass it on."""
        if name is None:
            return (module, None) if module in self.files else None
        if f"{module}.{name}" in self.files:
            return f"{module}.{name}", None
        if module not in self.files:
            return None
        bindings = self.bindings(module)
        if name in bindings:
            return self._resolve(*bindings[name])
        for source in (target[0] for alias, target in bindings.items() if alias.startswith("*")):
            found = self._resolve(source, name)
            if found and (found != (source, name) or name in self.defined(source)):
                return found
        return module, name

    def _bindings(self, module: str) -> dict[str, Target]:
        return self._imports(self.tree(module), module)

    def _defined(self, module: str) -> set[str]:
        """The functions, classes and variables of a module."""
        found = set()
        for node in self.tree(module).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Assign):
                names = (one for target in node.targets for one in ast.walk(target))
                found |= {one.id for one in names if isinstance(one, ast.Name)}
        return found

    def _imports(self, node: ast.AST, module: str) -> dict[str, Target]:
        """What the import statements in `node` bind; those inside functions too. Star imports are keys with a star."""
        found: dict[str, Target] = {}
        for one in ast.walk(node):
            if isinstance(one, ast.Import):
                for name in one.names:
                    dotted = name.name if name.asname else name.name.partition(".")[0]
                    found[name.asname or dotted] = (dotted, None)
            elif isinstance(one, ast.ImportFrom):
                source = self._absolute(one, module)
                for name in one.names:
                    key = f"*{source}" if name.name == "*" else name.asname or name.name
                    found[key] = (source, None if name.name == "*" else name.name)
        return {name: target for name, target in found.items() if target[0].partition(".")[0] == "poolnb"}

    def _absolute(self, node: ast.ImportFrom, module: str) -> str:
        if not node.level:
            return node.module or ""
        parts = module.split(".") if self._is_package(module) else module.split(".")[:-1]
        return ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])

    def _is_package(self, module: str) -> bool:
        return self.files[module].name == "__init__.py"


def _dotted(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _kernels(python: Iterable[Path], ext: Path) -> set[Path]:
    """The sources of the compiled kernels of those operators whose files are among `python`."""
    names = [path.stem for path in python if path.parent.name == "ops"]
    start = [ext / _KERNEL.format(name) for name in names]
    waiting = [path for path in start if path.is_file()]
    waiting += [ext / name for name in _SHARED_KERNELS] if waiting else []
    found: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path not in found and path.is_file():
            found.add(path)
            waiting += [(path.parent / name).resolve() for name in _INCLUDE.findall(path.read_text(encoding="utf-8"))]
    return found
