"""A Sphinx extension with one directive, `api`: signatures and docstrings of the library.

    {api} softmax               the functions, modules and NumPy reference of one family of operators
    {api} arguments             what all pooling functions share
    {api} poolnb.create_pool    single objects, by their full names

The text is made when the site is built, so it cannot differ from the library. Of the functions and modules for one,
two and three dimensions the one for two is described, and the others stand beside it. An operator's entry leaves out
what all share.
"""

from __future__ import annotations

import inspect
import pydoc
import re
from importlib import import_module
from textwrap import indent
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config
from sphinx.ext.napoleon.docstring import GoogleDocstring
from sphinx.util.docutils import SphinxDirective

from poolnb import functional, modules, reference
from poolnb.functional._dimensions import _DOC, _PAIRS

_FIELDS: Any = Config(napoleon_use_param=True, napoleon_use_rtype=False)  # napoleon's own class, not Sphinx's


class Api(SphinxDirective):
    """Describe a family, the shared arguments, or the objects named."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        container = nodes.container()
        text = f"````{{eval-rst}}\n{describe(self.arguments[0])}\n````"
        self.state.nested_parse(StringList(text.splitlines(), "docstrings"), 0, container)
        return list(container.children)


def describe(what: str) -> str:
    """The reStructuredText that stands for `{api} what`."""
    if what == "arguments":
        shared = _fields(_DOC.format(text="", params="", shape="(N, C, *spatial)", dims=2, pairs=_PAIRS[2]).strip())
        return re.sub("^:(param|raises) ", ":", shared, flags=re.MULTILINE)
    if "." in what:
        places = [name.rpartition(".") for name in what.split()]
        return "\n".join(_entry(place, [(name, _find(f"{place}.{name}"))]) for place, _, name in places)
    return "\n".join([*_functions(what), *_modules(what), ".. rubric:: In NumPy\n", *_reference(what)])


def _functions(family: str) -> list[str]:
    found = []
    for name, function in _members(functional, family):
        if name.endswith("2d"):
            # The private function of a family carries the docstring without what all share.
            text = getattr(import_module(f"poolnb.functional.{family}"), f"_{name.removesuffix('2d')}")
            found.append(_entry("poolnb.functional", [(name, function), *_others(name, (1, 3))], text))
    return found


def _modules(family: str) -> list[str]:
    names: dict[type, list[str]] = {}  # an operator with two names has one class
    for name, cls in _members(modules, family):
        if name.endswith("2d"):
            names.setdefault(cls, []).append(name)
    found = []
    for cls, known in sorted(names.items(), key=lambda item: item[0].__name__):
        aliases = [other for name in known if name != cls.__name__ for other in _others(name, (1, 2, 3))]
        found.append(_entry("poolnb", [(cls.__name__, cls), *_others(cls.__name__, (1, 3)), *aliases]))
    return found


def _reference(family: str) -> list[str]:
    return [_entry("poolnb.reference", [member]) for member in _members(reference, family)]


def _members(package: Any, family: str) -> list[tuple[str, Any]]:
    """The public names of a package that its file for the family defines, with what they name."""
    source = import_module(f"{package.__name__}.{family}")
    return [(name, getattr(source, name)) for name in package.__all__ if name in source.__all__]


def _others(name: str, dimensions: tuple[int, ...]) -> list[tuple[str, None]]:
    return [(f"{name.removesuffix('2d')}{dims}d", None) for dims in dimensions]


def _find(name: str) -> Any:
    found = pydoc.locate(name)
    if found is None:
        raise ValueError(f"{name} must be the full name of an object of the library")
    return found


def _signature(of: Any) -> str:
    """Names and defaults, without types: the docstrings give those in words."""
    signature = inspect.signature(of)
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    text = str(signature.replace(parameters=bare, return_annotation=signature.empty))
    return re.sub(r"<class '[\w.]*\.(\w+)'>", r"\1", text)


def _entry(place: str, objects: list[tuple[str, Any]], text: Any = None) -> str:
    """One entry: the signature of every object (`None`: like the first), then the docstring of `text` or the first."""
    first = objects[0][1]
    kind = "class" if inspect.isclass(first) else "function"
    heads = [name + ("(...)" if of is None else _signature(of)) for name, of in objects]
    body = indent(_fields(inspect.getdoc(text or first) or ""), "   ")
    return f".. py:{kind}:: " + f"\n{' ' * (len(kind) + 8)}".join(heads) + f"\n   :module: {place}\n\n{body}\n"


def _fields(docstring: str) -> str:
    """Field lists for "Args:" and its like. Between backquotes stands markup; elsewhere a star or a bar is itself."""
    parts = re.split(r"(`+[^`]*`+)", docstring)
    parts[::2] = [re.sub(r"[*|]", r"\\\g<0>", part) for part in parts[::2]]
    return "\n".join(GoogleDocstring("".join(parts), _FIELDS).lines())


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("api", Api)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
