"""A pytest plugin beside nbval, which compares no pictures: figures that a chapter draws again look as they did.

Two pictures are the same if they have one size and the root mean square of their pixels' differences, on a scale to
255, is within `TOLERANCE`: fonts and roundings of another machine pass, another number on a label does not.
"""

import base64
import io

import numpy as np
import pytest
from PIL import Image

TOLERANCE = 1.0


def difference(one, other):
    """Root mean square difference of two PNG pictures, from 0 to 255; infinite if their sizes differ."""
    a, b = (np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"), dtype=float) for png in (one, other))
    return float(np.sqrt(np.mean((a - b) ** 2))) if a.shape == b.shape else np.inf


def pictures(outputs):
    return [base64.b64decode(o["data"]["image/png"]) for o in outputs if "image/png" in o.get("data", {})]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """After nbval has compared a cell's texts, compare its pictures."""
    result = yield
    if getattr(item, "options", {}).get("check") and hasattr(item, "test_outputs"):
        before, now = pictures(item.cell.outputs), pictures(item.test_outputs)
        where = f"{item.parent.path.name}, {item.name}"
        assert len(before) == len(now), f"{where}: {len(now)} pictures drawn, {len(before)} in the chapter"
        for number, pair in enumerate(zip(before, now, strict=True), 1):
            found = difference(*pair)
            message = f"{where}: picture {number} is not the one in the chapter: they differ by {found:.1f} of 255"
            assert found <= TOLERANCE, message
    return result
