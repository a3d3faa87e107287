"""Glued values look to MyST-NB as if its own `glue` had kept them."""

import numpy as np
import pytest
import torch

from poolnb.book.prose import glue


def published(monkeypatch, keep):
    calls = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw, metadata: calls.append((data, raw, metadata)))
    keep()
    return calls


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        (0.25, "0.25"),
        (0.1 + 0.2, "0.3"),
        (1234567.8912, "1234567.9"),
        ("max", "'max'"),
        (np.float64(0.5), "0.5"),
        (np.int64(7), "7"),
        (torch.tensor(2), "2"),
    ],
)
def test_values_are_plain(monkeypatch, value, text):
    ((data, raw, metadata),) = published(monkeypatch, lambda: glue(share=value))
    assert raw and data == {"application/papermill.record/text/plain": text}
    assert metadata["scrapbook"]["name"] == "share"


def test_it_publishes_what_mystnb_publishes(monkeypatch):
    theirs = pytest.importorskip("myst_nb.ext.glue")
    calls = []
    monkeypatch.setattr(theirs, "ipy_display", lambda data, raw, metadata: calls.append((data, raw, metadata)))
    theirs.glue("share", 0.25, display=False)
    assert published(monkeypatch, lambda: glue(share=0.25)) == calls
