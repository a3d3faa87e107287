"""Fingerprints of source files that see what can change a result: not comments, docstrings, or the layout of lines."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

# A comment, or a literal in which the signs of a comment mean nothing.
_CPP = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'", re.DOTALL)


def file_fingerprint(path: Path) -> str:
    """SHA-256 of what the file says to Python or to a C++ compiler; of its text where it is of another kind."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        text = _python(text)
    elif path.suffix in {".h", ".hpp", ".cpp", ".cu", ".cuh", ".def"}:
        text = _cpp(text)
    return hashlib.sha256(text.encode()).hexdigest()


def sources_fingerprint(files: Iterable[Path], base: Path) -> str:
    """SHA-256 over the names (relative to `base`) and fingerprints of `files`, in any order."""
    lines = sorted(f"{path.relative_to(base).as_posix()} {file_fingerprint(path)}\n" for path in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _python(text: str) -> str:
    """The syntax tree; the text itself where there is none. Not `ast.dump`, which differs between Python versions."""
    try:
        return repr(_dump(ast.parse(text)))
    except SyntaxError:
        return text


def _dump(node: object) -> object:
    if isinstance(node, list):
        return [_dump(one) for one in node]
    if not isinstance(node, ast.AST):
        return node
    fields = {name: value for name, value in ast.iter_fields(node) if value not in (None, [])}
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        fields["body"] = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
    return type(node).__name__, [(name, _dump(value)) for name, value in fields.items()]


def _cpp(text: str) -> str:
    bare = _CPP.sub(lambda match: " " if match[0].startswith("/") else match[0], text.replace("\r\n", "\n"))
    lines = (" ".join(line.split()) for line in bare.split("\n"))
    return "\n".join(line for line in lines if line)
