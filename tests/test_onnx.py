"""Export to ONNX: what onnxruntime computes is what the module computes, or the export says why it cannot."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from poolers import SAMPLED, batch, every_pooler, make
from torch import nn

import poolnb


@every_pooler
def test_onnx_runs_with_the_same_numbers(name: str, tmp_path: Path) -> None:
    check_onnx(make(name).eval(), tmp_path / "pool.onnx")


@pytest.mark.parametrize("r", [0.0, -1e-3])
def test_onnx_of_lse_is_accurate_for_every_r(r: float, tmp_path: Path) -> None:
    # ONNX has neither expm1 nor log1p.
    check_onnx(poolnb.LSEPool2d(3, 2, padding=1, r=r), tmp_path / "pool.onnx")


def check_onnx(module: nn.Module, path: Path) -> None:
    """Export for any batch size, and compare what onnxruntime makes of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        free = ({0: torch.export.Dim("batch", min=1, max=64)},)
        torch.onnx.export(module, (batch(),), path, dynamo=True, dynamic_shapes=free, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for n in (2, 5):
        (y,) = session.run(None, {session.get_inputs()[0].name: batch(1, n).numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(y, module(batch(1, n)).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["soft", "max"])
def test_onnx_of_padding_that_keeps_the_size_holds_for_every_size(name: str, tmp_path: Path) -> None:
    pool, path, free = poolnb.create_pool(name, 3, 2, padding="same"), tmp_path / "pool.onnx", torch.export.Dim.DYNAMIC
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shapes = ({0: free, 2: free, 3: free},)
        torch.onnx.export(pool, (torch.zeros(2, 3, 9, 9),), path, dynamo=True, dynamic_shapes=shapes, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for size in ((9, 9), (6, 7), (12, 10), (11, 4)):
        x = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
        (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        np.testing.assert_allclose(y, pool(x).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SAMPLED)
def test_onnx_export_of_a_draw_says_that_it_cannot(name: str, tmp_path: Path) -> None:
    check_refused(make(name).train(), "call eval() before the export", tmp_path / "pool.onnx")


@pytest.mark.parametrize("name", ["soft", "max", "avg"])
@pytest.mark.parametrize("output_size", [2, (None, 3), (3, 1)])
def test_onnx_of_an_output_size_needs_the_input_s_size(name: str, output_size: Any, tmp_path: Path) -> None:
    pool, free = poolnb.create_pool(name, None, output_size=output_size), torch.export.Dim.DYNAMIC
    shapes = ({2: free, 3: free},)
    check_refused(pool, "give height and width", tmp_path / "pool.onnx", dynamic_shapes=shapes)


def check_refused(module: nn.Module, words: str, path: Path, **options: Any) -> None:
    with warnings.catch_warnings(), pytest.raises(Exception) as caught:
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (batch(),), path, dynamo=True, verbose=False, **options)
    errors = [caught.value]
    while errors[-1].__cause__ is not None:
        errors.append(errors[-1].__cause__)
    assert any(words in str(e) for e in errors), errors
