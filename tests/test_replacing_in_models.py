"""``replace_pooling`` on every model of torchvision, and of timm where that is installed.

On the meta device a model costs no arithmetic: shapes, places and warnings of all of them are seen there. Values are
compared on small models of each family, and on all detectors, whose forward needs numbers.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import get_model, list_models

import poolnb

_TYPES = {
    kind: tuple(getattr(nn, f"{prefix}{kind}Pool{d}d") for prefix in ("", "Adaptive") for d in (1, 2, 3))
    for kind in ("Max", "Avg")
}
_ALL = _TYPES["Max"] + _TYPES["Avg"]
_LARGE = ("vit", "swin", "mvit", "maxvit", "inception", "s3d")  # families that need larger images


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    values = output.values() if isinstance(output, dict) else output
    return [t for value in values for t in _tensors(value)]


def _replace(model: nn.Module, name: str, types: Any, **options: Any) -> set[str]:
    """Replace what can be replaced; every refusal names a module and changes nothing. The names of those left."""
    left: set[str] = set()

    def wanted(path: str, module: nn.Module) -> bool:
        return path not in left

    while True:
        before = list(model.modules())
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="replace_pooling leaves pools that are functions")
                poolnb.replace_pooling(model, name, types, where=wanted, **options)
            return left
        except ValueError as error:
            assert all(a is b for a, b in zip(before, model.modules(), strict=True))
            pools = {n: m for n, m in model.named_modules(remove_duplicate=False) if isinstance(m, types)}
            named = {n for n, m in pools.items() if f"{n} ({m})" in str(error)} - left
            assert named, error
            left |= named


def _input(name: str, video: bool) -> Tensor:
    size = 224 if name.startswith(_LARGE) else 96
    return torch.rand(1, 3, 16, size, size) if video else torch.rand(1, 3, size, size)


def _on_meta(name: str, **options: Any) -> nn.Module:
    """RegNets compute their widths with tensors, so that they are built with numbers."""
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        return get_model(name, weights=None, **options).to("meta").eval()


_FAMILIES = [torchvision.models, torchvision.models.segmentation, torchvision.models.video]
_NAMES = [(f, n) for f in _FAMILIES for n in list_models(f) if not n.endswith(("_16gf", "_32gf", "_128gf"))]


def _replaced_with_the_same_shapes(model: Any, x: Any) -> list[torch.Size]:
    """Put soft pooling into `model`, which must give the same shapes; the pools that stay are those it refused."""
    before = [t.shape for t in _tensors(model(x))]
    left = _replace(model, "soft", _ALL)
    pools = {n for n, m in model.named_modules(remove_duplicate=False) if isinstance(m, _ALL)}
    assert pools == left
    assert [t.shape for t in _tensors(model(x))] == before
    return before


@pytest.mark.parametrize(("family", "name"), _NAMES)
def test_every_model_of_torchvision_keeps_its_shapes(family: Any, name: str) -> None:
    backbone = {"weights_backbone": None} if family is torchvision.models.segmentation else {}
    model, x = _on_meta(name, **backbone), _input(name, family is torchvision.models.video).to("meta")
    with torch.no_grad():
        before = _replaced_with_the_same_shapes(model, x)
        assert not _replace(model, "auto", (poolnb.Pool,), example_input=x)
        assert [t.shape for t in _tensors(model(x))] == before
        assert all(p.is_meta for p in model.parameters())


_SMALL = (
    "alexnet convnext_tiny densenet121 efficientnet_b0 googlenet inception_v3 maxvit_t mnasnet0_5 mobilenet_v3_small "
    "regnet_x_400mf resnet18 shufflenet_v2_x0_5 squeezenet1_1 vgg11_bn lraspp_mobilenet_v3_large fcn_resnet50 "
    "deeplabv3_mobilenet_v3_large r3d_18"
).split()


@pytest.mark.parametrize("name", [*_SMALL, *list_models(torchvision.models.detection)])
def test_a_replacement_by_its_own_kind_keeps_the_values(name: str) -> None:
    torch.manual_seed(0)
    detector = name in list_models(torchvision.models.detection)
    backbone = {"weights_backbone": None} if detector or name in list_models(torchvision.models.segmentation) else {}
    sizes = {"min_size": 96, "max_size": 96} if detector and "320" not in name and "ssd" not in name else {}
    model = get_model(name, weights=None, **backbone, **sizes).eval()
    x: Any = [torch.rand(3, 96, 96)] if detector else _input(name, False).double()
    x = torch.rand(1, 3, 4, 40, 40).double() if name == "r3d_18" else x
    model = model if detector else model.double()
    with torch.no_grad():
        before = _tensors(model(x))
        for kind, types in _TYPES.items():
            _replace(model, kind.lower(), types)
        for a, b in zip(_tensors(model(x)), before, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)  # detectors compute in float32


@pytest.mark.parametrize(
    ("name", "functions"),
    [("densenet121", "adaptive_avg_pool2d in the model"), ("inception_v3", "avg_pool2d in Mixed_5b, .*Mixed_6a")],
)
def test_pools_that_torchvision_calls_as_functions_are_named(name: str, functions: str) -> None:
    model, x = _on_meta(name), _input(name, False).to("meta")
    for example in (None, x):
        with pytest.warns(UserWarning, match=f"leaves pools that are functions, not modules: {functions}"):
            poolnb.replace_pooling(model, "soft", example_input=example)


# ---- timm ------------------------------------------------------------------------------------------------------------


def _timm_families() -> list[str]:
    """One model of each module of timm: its smallest by name's length, which is the plainest."""
    try:
        import timm
    except ImportError:
        return []
    return [
        min(timm.list_models(module=m), key=lambda n: (len(n), n))
        for m in timm.list_modules()
        if timm.list_models(module=m)
    ]


def test_timm_is_there() -> None:
    pytest.importorskip("timm")
    assert len(_timm_families()) > 50


@pytest.mark.parametrize("name", _timm_families())
def test_a_model_of_each_family_of_timm_keeps_its_shapes(name: str) -> None:
    import timm

    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False).eval()
        x = torch.rand(1, *model.default_cfg["input_size"])
    with torch.no_grad():
        _replaced_with_the_same_shapes(model, x)
