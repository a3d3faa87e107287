"""A Sphinx extension with one directive, `interactive NAME`: a figure that answers mouse, keyboard and touch.

The directive's content is the caption. The figure itself is drawn by the scripts in `book/_static/figures`; only pages
that hold one load them. What the scripts must not state a second time is written when the site is built: the colours of
the operators, a photograph, and the findings of the ledger.
"""

from __future__ import annotations

import io
import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from docutils import nodes
from matplotlib.colors import to_hex, to_rgb
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from poolnb.lab.provenance import BOOK

SCRIPTS = BOOK / "_static" / "figures"
FIGURES = tuple(sorted(path.stem for path in (SCRIPTS / "pages").glob("*.js")))
PIXELS = 96  # of a side of the photograph
_DARK_PAGE = "#14181e"  # the dark theme's background


class Interactive(nodes.General, nodes.Element):  # type: ignore[misc]
    """The place of an interactive figure; its children are the caption."""


class InteractiveDirective(SphinxDirective):
    """The directive `interactive`, with one of `FIGURES` as its argument and the caption as its content."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        (name,) = self.arguments
        if name not in FIGURES:
            raise self.error(f"interactive must name one of {', '.join(FIGURES)}, got {name!r}")
        self.assert_has_content()
        made = Interactive(name=name)
        self.state.nested_parse(self.content, self.content_offset, made)
        return [made]


def _open(translator: Any, node: Interactive) -> None:
    name = node["name"]
    translator.body.append(f'<div class="interactive" data-figure="{name}" role="group" aria-label="Figure to try">')
    translator.body.append("<noscript><p>Without scripts this figure stays empty; the drawings of the page do not.</p>")
    translator.body.append("</noscript>")


def _close(translator: Any, node: Interactive) -> None:
    translator.body.append("</div>\n")


def _skip(translator: Any, node: Interactive) -> None:
    raise nodes.SkipNode


def _load(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Let a page load the scripts of the figures that it holds."""
    names = [node["name"] for node in doctree.findall(Interactive)] if doctree else []
    if not names:
        return
    for sheet in ("figures", "colours"):
        app.add_css_file(f"figures/{sheet}.css")
    data = {"family": "photograph", "ledger": "findings"}
    for script in ("formulas", "engine", *(data[name] for name in names if name in data)):
        app.add_js_file(f"figures/{script}.js", loading_method="defer")
    for name in names:
        app.add_js_file(f"figures/pages/{name}.js", loading_method="defer")


# ---- what is written when the site is built --------------------------------------------------------------------------


def write_data(app: Sphinx) -> None:
    """Write the files that the scripts read, beside the scripts."""
    folder = Path(app.outdir) / "_static" / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    written = {
        "colours.css": colours(),
        "photograph.js": _script("photograph", photograph()),
        "findings.js": _script("findings", list(findings())),
    }
    for name, text in written.items():
        (folder / name).write_text(text, encoding="utf-8")


def _script(name: str, data: Any) -> str:
    """A script that sets `poolnb.NAME`. A browser does not let a page that lies on the disk read a JSON file."""
    return f"window.poolnb = {{ ...window.poolnb, {name}: {json.dumps(data, ensure_ascii=False)} }};\n"


def colours() -> str:
    """The operators' colours as CSS variables `--op-NAME`, for the light theme and, lighter where needed, the dark."""
    from poolnb.book.plots import STYLES

    light = "".join(f"  --op-{name}: {style.colour};\n" for name, style in STYLES.items())
    dark = "".join(f"  --op-{name}: {_lighter(style.colour)};\n" for name, style in STYLES.items())
    return f'html {{\n{light}}}\nhtml[data-theme="dark"] {{\n{dark}}}\n'


def _lighter(colour: str) -> str:
    """`colour`, mixed with as little white as gives it a contrast of 4.5 on the dark page."""
    rgb = np.array(to_rgb(colour))
    for white in np.linspace(0, 1, 101):
        mixed = (1 - white) * rgb + white
        if (_luminance(mixed) + 0.05) / (_luminance(np.array(to_rgb(_DARK_PAGE))) + 0.05) >= 4.5:
            return to_hex(mixed)
    raise AssertionError("white itself has more contrast than that")


def _luminance(rgb: np.ndarray) -> float:
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def photograph() -> str:
    """The photographer's head and camera, `PIXELS` by `PIXELS`, as an address that holds the JPEG itself.

    A script may read the pixels of such a picture; those of a file that lies on the disk it may not.
    """
    from PIL import Image
    from skimage.transform import resize

    from poolnb.book import images

    part = images.photograph("camera")[60:252, 130:322]
    small = resize(part, (PIXELS, PIXELS), anti_aliasing=True)
    file = io.BytesIO()
    Image.fromarray(np.rint(small * 255).astype(np.uint8)).save(file, "JPEG", quality=80, optimize=True)
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"


def findings() -> Iterator[dict[str, Any]]:
    """The ledger's differences in points, as the records have them; each interval once.

    `half` is the half-width, `df` the degrees of freedom that each seed but the first one brings, and `scatter` what
    one seed would have as its standard error.
    """
    from poolnb.book.sphinxext.findings import rows
    from poolnb.lab.analysis import ENOUGH, Difference

    seen = set()
    for row in rows():
        for found in row.findings if row.claim.records else ():
            one = found.interval
            if not isinstance(one, Difference) or found.unit != "points" or one.n < ENOUGH or one in seen:
                continue
            seen.add(one)
            scatter = one.error * one.n**0.5
            numbers = {"mean": one.mean, "half": one.half_width, "scatter": scatter, "df": one.df / (one.n - 1)}
            rounded = {name: round(value, 6) for name, value in numbers.items()}
            what = found.what.partition(": more than")[0].replace(" - ", " − ")
            yield {"claim": row.claim.id, "what": what, "n": one.n, **rounded}


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("interactive", InteractiveDirective)
    app.add_node(Interactive, html=(_open, _close), latex=(_skip, None), text=(_skip, None))
    app.connect("builder-inited", write_data)
    app.connect("html-page-context", _load)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
