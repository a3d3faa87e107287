"""The package as a whole: what importing it needs, which names exist, what the docstrings say."""

from __future__ import annotations

import inspect
import pickle
import re
import subprocess
import sys

import pytest
import torch

import poolnb
from poolnb import functional, modules, reference
from poolnb.registry import pool_class


def stems(names: list[str], ends: tuple[str, ...]) -> set[str]:
    """Names without their endings, each of which has to be there with all endings."""
    found = {name.removesuffix(ends[0]) for name in names if name.endswith(ends[0])}
    assert sorted(names) == sorted(stem + end for stem in found for end in ends)
    return found


def test_importing_it_needs_torch_and_nothing_else() -> None:
    # torch itself imports NumPy where it finds it, so NumPy is looked for in poolnb's own imports only.
    program = """
import sys, torch
sys.modules.update(dict.fromkeys(["numpy", "torchvision", "matplotlib", "pandas", "scipy", "sklearn", "tqdm"]))
import poolnb
loaded = [m for m in sys.modules if m.startswith("poolnb.")]
assert not any(m.startswith(("poolnb.lab", "poolnb.cli", "poolnb.reference")) for m in loaded), loaded
x = torch.rand(1, 2, 4, 4)
for name in poolnb.list_pools():
    poolnb.create_pool(name, 2, channels=2, output_size=2)(x)
print("imported")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout == "imported\n", done.stderr


def test_names_exist_in_one_two_and_three_dimensions_and_in_every_package() -> None:
    functions = stems(functional.__all__, ("1d", "2d", "3d"))
    classes = stems([name for name in modules.__all__ if name != "Pool"], ("1d", "2d", "3d"))
    assert functions == stems(reference.__all__, ("_backward", "")) and len(functions) > 10
    assert all(hasattr(poolnb, name) for name in modules.__all__)
    names = [name.removesuffix("Pool").lower() for name in classes if getattr(modules, f"{name}2d").listed]
    assert poolnb.list_pools() == sorted(names) and len(set(names)) == len(names) > 10
    assert {f"{pool_class(name).op}_pool" for name in names} <= functions


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("name", poolnb.list_pools())
def test_every_pool_can_be_made_and_run(name: str, dims: int) -> None:
    pool = poolnb.create_pool(name, 2, 2, dims=dims, channels=3, output_size=2)
    x = torch.rand(2, 3, *(4,) * dims)
    assert pool(x).shape == (2, 3, *(2,) * dims)
    assert isinstance(pool, modules.Pool)


@pytest.mark.parametrize("name", functional.__all__)
def test_functions_share_a_signature(name: str) -> None:
    parameters = list(inspect.signature(getattr(functional, name)).parameters.values())
    shared = ["input", "kernel_size", "stride", "padding", "dilation", "ceil_mode"]
    assert [p.name for p in parameters[:6]] == shared and parameters[-1].name == "mask"
    assert [p.default for p in parameters[2:6]] == [None, 0, 1, False] and parameters[-1].default is None
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters[6:])


@pytest.mark.parametrize("name", [*functional.__all__, *reference.__all__])
def test_functions_pickle_and_know_where_they_stand(name: str) -> None:
    package = functional if name in functional.__all__ else reference
    function = getattr(package, name)
    assert pickle.loads(pickle.dumps(function)) is function
    assert function.__module__.startswith(package.__name__) and function.__qualname__ == name


@pytest.mark.parametrize("name", functional.__all__)
def test_docstrings_of_functions_say_everything(name: str) -> None:
    function = getattr(functional, name)
    text = inspect.getdoc(function) or ""
    arguments = text.partition("\nArgs:\n")[2].partition("\nReturns:\n")[0]
    for parameter in inspect.signature(function).parameters:
        assert re.search(rf"^    (\w+, )*{parameter}\b.*:", arguments, re.MULTILINE), parameter
    spatial = {"1": "(N, C, L)", "2": "(N, C, H, W)", "3": "(N, C, D, H, W)"}[name[-2]]
    head, _, tail = text.partition("\nReturns:\n")
    assert ":math:`" in head  # the formula
    assert spatial in head and spatial in tail  # shapes
    assert "Raises:" in tail and "TypeError:" in tail and "ValueError:" in tail
    assert re.search(r"(19|20)\d\d", head)  # source
    assert "gradient" in head or r"\partial" in head


@pytest.mark.parametrize("name", [n for n in modules.__all__ if n != "Pool"])
def test_docstrings_of_modules_say_formula_arguments_and_errors(name: str) -> None:
    cls = getattr(modules, name)
    text = inspect.getdoc(cls) or ""
    head, _, errors = text.partition("\nRaises:\n")
    assert ":math:`" in head  # the formula
    assert "TypeError:" in errors and "ValueError:" in errors
    shared = ("self", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "output_size")
    for parameter in inspect.signature(cls).parameters:
        if parameter not in shared:
            assert re.search(rf"^    (\w+, )*{parameter}\b.*:", text, re.MULTILINE), parameter


@pytest.mark.parametrize("name", reference.__all__)
def test_reference_functions_share_the_signature_of_the_functions(name: str) -> None:
    theirs = list(inspect.signature(getattr(reference, name)).parameters.values())
    arrays = ["grad", "x"] if name.endswith("_backward") else ["x"]
    assert [p.name for p in theirs[: len(arrays)]] == arrays
    function = getattr(functional, f"{name.removesuffix('_backward')}2d")
    geometry = list(inspect.signature(function).parameters.values())[1:6]
    ours = theirs[len(arrays) :]
    assert [(p.name, p.default) for p in ours[:5]] == [(p.name, p.default) for p in geometry]
    assert all(p.kind is p.KEYWORD_ONLY for p in ours[5:]) and [p.name for p in ours[-2:]] == ["output_size", "mask"]


@pytest.mark.parametrize("name", reference.__all__)
def test_reference_functions_have_docstrings(name: str) -> None:
    assert len(getattr(reference, name).__doc__ or "") > 10
