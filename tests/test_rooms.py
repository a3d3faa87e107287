"""The package's rooms: nothing imports, not even inside a function, what imports it, and nothing imports upwards."""

import ast
from pathlib import Path

import poolnb

ROOT = Path(poolnb.__file__).parents[1]
# From the lowest floor to the highest: a module may import from its own room and from those before it.
FLOORS = ("poolnb", "poolnb.lab", "poolnb.lab.sweeps", "poolnb.lab.measurements", "poolnb.book")
# What stands above all rooms: it may import anything.
ENTRANCES = {"poolnb", "poolnb.__main__", "poolnb.cli", "poolnb.doctor", "poolnb.lab.sweep"}


def modules():
    paths = {p.relative_to(ROOT).with_suffix(""): p for p in (ROOT / "poolnb").rglob("*.py")}
    return {".".join(name.parts).removesuffix(".__init__"): path for name, path in paths.items()}


MODULES = modules()


def imported(module):
    """The modules of the package that `module` names in import statements, wherever these stand."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node, module)
            for one in node.names:
                name = f"{base}.{one.name}" if f"{base}.{one.name}" in MODULES else base
                if name in MODULES:
                    yield name


def absolute(node, module):
    if not node.level:
        return node.module
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    for _ in range(node.level - 1):
        package = package.rpartition(".")[0]
    return f"{package}.{node.module}" if node.module else package


GRAPH = {module: set(imported(module)) - {module} for module in MODULES}


def floor(module):
    rooms = [number for number, room in enumerate(FLOORS) if module == room or module.startswith(f"{room}.")]
    return rooms[-1]


def circles(graph):
    """Modules that reach themselves."""

    def reached(start):
        seen, waiting = set(), list(graph[start])
        while waiting:
            module = waiting.pop()
            if module not in seen:
                seen.add(module)
                waiting += graph[module]
        return seen

    return sorted(module for module in graph if module in reached(module))


def test_no_import_goes_in_a_circle():
    assert circles(GRAPH) == []


def test_no_import_goes_upwards():
    upwards = [
        f"{module} imports {other}"
        for module, others in GRAPH.items()
        if module not in ENTRANCES
        for other in others
        if floor(other) > floor(module) or (other in ENTRANCES - {"poolnb"})
    ]
    assert upwards == []


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
