"""Where a reader can run the chapters in the cloud: the site's launch buttons, and the cell that prepares Colab.

The project does not know where it is published. `poolnb book build --repository URL` says it; without that, git's
remote `origin` does, if it is an address that others can read. Without either, the site has no such buttons.
"""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
from typing import Any
from urllib.parse import urlsplit

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from poolnb.lab.provenance import ROOT

_UNKNOWN = "ADDRESS-OF-THE-REPOSITORY"
BINDER, COLAB = "https://mybinder.org", "https://colab.research.google.com"
_HOST = re.compile(r"(?:[a-z0-9-]+\.)+[a-z]{2,}", re.IGNORECASE)  # a name, with a dot: not localhost, not an IP address
_PRIVATE = (".local", ".internal", ".lan", ".localdomain", ".home", ".corp", ".test", ".invalid", ".example")


def repository(address: str | None) -> str | None:
    """The address that launch buttons point to: the one given, else git's `origin` where others can read it, else None.

    Raises `ValueError` for a given address that others cannot read.
    """
    if address is None:
        return _public(_origin())
    if found := _public(address):
        return found
    raise ValueError(f"repository: got {address!r}; accepted: a public address such as https://github.com/NAME/PROJECT")


def _public(address: str) -> str | None:
    """`address` without what git allows at its end, or None unless it is http(s) on a public host, as OWNER/NAME."""
    parts = urlsplit(address.strip())
    path = parts.path.rstrip("/").removesuffix(".git")
    private = parts.username or parts.port or (parts.hostname or "").endswith(_PRIVATE)
    if parts.scheme not in ("http", "https") or private or parts.query or parts.fragment:
        return None
    named = _HOST.fullmatch(parts.hostname or "") and path.count("/") >= 2
    return f"{parts.scheme}://{parts.hostname}{path}" if named else None


def _origin() -> str:
    if shutil.which("git") is None:
        return ""
    command = ["git", "-C", str(ROOT), "config", "--get", "remote.origin.url"]
    return subprocess.run(command, capture_output=True, text=True).stdout


def configure(config: dict[str, Any], address: str, branch: str) -> dict[str, Any]:
    """A copy of Jupyter Book's configuration with a link to the repository and with launch buttons.

    Binder builds from any public git repository, by what `binder/` says. Colab opens notebooks from GitHub alone.
    """
    buttons = {"notebook_interface": "jupyterlab", "binderhub_url": BINDER}
    if urlsplit(address).hostname == "github.com":
        buttons["colab_url"] = COLAB
    made = copy.deepcopy(config) | {"repository": {"url": address, "branch": branch}, "launch_buttons": buttons}
    made["html"]["use_repository_button"] = True
    made["sphinx"]["config"]["launch_repository"] = address
    return made


def clone(address: str | None) -> str:
    """The commands that fetch a copy of the project and enter it."""
    return f"git clone {address or _UNKNOWN} pooling\ncd pooling"


def colab_cell(address: str | None) -> str:
    """The first cell that a chapter needs on Colab, where a notebook arrives without the files around it."""
    return "\n".join(
        [
            f"!git clone --quiet --depth 1 {address or _UNKNOWN} /content/pooling",
            "%cd /content/pooling",
            "!pip install --quiet -r requirements.lock",
            "!pip install --quiet --no-deps --no-build-isolation -e .",
            "import sys; sys.path.insert(0, '/content/pooling')",
        ]
    )


class CloneCommand(SphinxDirective):
    """The directive `clone-command`: those commands, with the address that the site is built for."""

    def run(self) -> list[nodes.Node]:
        text = clone(self.config.launch_repository)
        return [nodes.literal_block(text, text, language="text")]


class ColabCell(SphinxDirective):
    """The directive `colab-cell`: that cell, with the address that the site is built for."""

    def run(self) -> list[nodes.Node]:
        text = colab_cell(self.config.launch_repository)
        return [nodes.literal_block(text, text, language="ipython3")]


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_config_value("launch_repository", None, "env", [str])
    app.add_directive("clone-command", CloneCommand)
    app.add_directive("colab-cell", ColabCell)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
