"""A Sphinx extension that tells drawings of lines from pictures, so that the dark theme can turn the former light.

A chapter's figures are PNG files with no background. One that is mostly empty holds curves, marks and words in dark
ink: turned inside out, with its hues kept, it belongs to a dark page. One that is mostly filled holds a photograph, a
map or tinted cells, which would become their negatives; it lies on a card there. `custom.css` does both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from docutils import nodes
from PIL import Image
from sphinx.application import Sphinx

LINES = 0.25  # of the pixels of a drawing of lines are painted, at most
CLASS = "line-drawing"


def is_line_drawing(path: Path) -> bool:
    """Whether the picture in a file has no background and less than `LINES` of it is painted."""
    with Image.open(path) as picture:
        if picture.mode not in ("RGBA", "LA"):
            return False
        opaque = np.asarray(picture.getchannel("A")) > 127
    return bool(opaque.mean() < LINES)


def mark(app: Sphinx, doctree: nodes.document) -> None:
    """Give every line drawing of a page its class."""
    for image in doctree.findall(nodes.image):
        path = Path(app.srcdir) / image["uri"]
        if path.suffix == ".png" and path.is_file() and is_line_drawing(path):
            image["classes"].append(CLASS)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("doctree-read", mark)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
