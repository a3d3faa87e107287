"""Numbers that a chapter's sentences take from its cells, so that prose cannot drift from data."""

from __future__ import annotations

from typing import Any

# The keys under which MyST-NB looks for glued values. Written here, so that a chapter runs without the site's tools.
_MIME = "application/papermill.record/"


def glue(**values: Any) -> None:
    """Keep each value under its name, without showing it, for ``{glue:text}`name` `` in the chapter's prose.

    NumPy and tensor scalars become plain numbers first, so that formats such as ``{glue:text}`name:.2f` `` work. Of a
    number with decimals eight digits are kept: the last ones are not the same on every CPU, and no sentence shows them.
    """
    from IPython.display import display

    for name, value in values.items():
        plain = value.item() if hasattr(value, "item") else value
        if isinstance(plain, float):
            plain = float(f"{plain:.8g}")
        metadata = {"scrapbook": {"name": name, "mime_prefix": _MIME}}
        display({_MIME + "text/plain": repr(plain)}, raw=True, metadata=metadata)
