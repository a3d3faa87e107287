"""Launch buttons: whose addresses they accept, where they lead from every chapter, and that the set-ups there work."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from importlib.metadata import packages_distributions

import nbformat
import pytest
import yaml

from poolnb.book import build as book
from poolnb.book import notebooks
from poolnb.book.sphinxext import launch
from poolnb.lab.provenance import ROOT

ADDRESS = "https://github.com/somebody/pooling"
CHAPTERS = {f"book/{notebooks.chapter_name(path)}" for path in notebooks.chapters()}
PAGES = re.findall(r"(?:root|file): (\S+)", (ROOT / "_toc.yml").read_text())


class Links(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.found += [dict(attributes).get("href", "")] if tag == "a" else []


def launching(site, page):
    return [link for link in Links(site / f"{page}.html").found if link.startswith((launch.BINDER, launch.COLAB))]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The site as somebody builds it who has published the project."""
    site = tmp_path_factory.mktemp("published") / "html"
    assert book.main(["build", "--repository", "https://x"]) == 2, "an address without an owner and a name"
    assert book.build(ADDRESS, "trunk", site) == 0
    return site


@pytest.mark.parametrize(
    "address, taken",
    [
        ("https://github.com/somebody/pooling", ADDRESS),
        ("https://github.com/somebody/pooling.git\n", ADDRESS),
        ("https://gitlab.com/a/group/pooling/", "https://gitlab.com/a/group/pooling"),
    ],
)
def test_public_addresses_are_taken(address, taken):
    assert launch.repository(address) == taken


@pytest.mark.parametrize(
    "address",
    [
        "git@github.com:somebody/pooling.git",
        "https://user:secret@github.com/somebody/pooling",
        "http://localhost/somebody/pooling",
        "https://git.company.internal/somebody/pooling",
        "https://10.0.0.1/somebody/pooling",
        "https://github.com:8443/somebody/pooling",
        "https://github.com/pooling",
        "/srv/pooling",
        "",
    ],
)
def test_other_addresses_are_refused_when_given_and_passed_over_as_origin(address, monkeypatch):
    with pytest.raises(ValueError, match="repository: got .*; accepted: a public address"):
        launch.repository(address)
    monkeypatch.setattr(launch, "_origin", lambda: address)
    assert launch.repository(None) is None


def test_a_public_origin_is_the_default(monkeypatch):
    monkeypatch.setattr(launch, "_origin", lambda: ADDRESS + ".git\n")
    assert launch.repository(None) == ADDRESS


def test_every_chapter_leads_to_binder_and_colab(published):
    for page in PAGES:
        expected = []
        if page in CHAPTERS:
            assert (ROOT / f"{page}.ipynb").is_file()
            place = f"somebody/pooling/trunk?urlpath=lab/tree/{page}.ipynb"
            expected = [f"{launch.BINDER}/v2/gh/{place}"]
            expected += [f"{launch.COLAB}/github/somebody/pooling/blob/trunk/{page}.ipynb"]
        assert sorted(launching(published, page)) == sorted(expected), page
        assert ADDRESS in Links(published / f"{page}.html").found, f"{page} has no link to the repository"
    run = re.sub("<[^>]+>", "", (published / "book/appendix/run.html").read_text())
    assert f"{ADDRESS} /content" in run and f"git clone {ADDRESS} pooling" in run


def test_without_an_address_there_are_no_buttons(site):
    if launch.repository(None):
        pytest.skip("this clone has a public origin, so its site has launch buttons")
    assert [page for page in PAGES if launching(site, page)] == []
    run = re.sub("<[^>]+>", "", (site / "book/appendix/run.html").read_text())
    assert "ADDRESS-OF-THE-REPOSITORY /content" in run and "git clone ADDRESS-OF-THE-REPOSITORY pooling" in run


def test_colab_is_offered_for_github_alone():
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    buttons = launch.configure(config, "https://gitlab.com/somebody/pooling", "main")["launch_buttons"]
    assert buttons["binderhub_url"] == launch.BINDER and "colab_url" not in buttons
    assert "launch_buttons" not in config


def test_binder_and_colab_install_what_the_chapters_import():
    lines = (ROOT / "binder/requirements.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["-r ../requirements.lock"]
    library = "pip install --quiet --no-deps --no-build-isolation -e ."
    assert library in (ROOT / "binder/postBuild").read_text() and os.access(ROOT / "binder/postBuild", os.X_OK)
    assert launch.colab_cell(ADDRESS).splitlines()[2:4] == ["!pip install --quiet -r requirements.lock", f"!{library}"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version = (ROOT / "binder/runtime.txt").read_text().strip()
    assert version == f"python-{project['requires-python'].removeprefix('>=')}"

    declared = [*project["dependencies"], *project["optional-dependencies"]["lab"]]
    declared = {re.match(r"[\w.-]+", line)[0].lower() for line in declared}
    assert "ipykernel" in declared
    homes = packages_distributions()
    for path in notebooks.chapters():
        code = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code")
        for module in imported(code) - sys.stdlib_module_names - {"poolnb"}:
            assert declared & {name.lower() for name in homes[module]}, f"{path.name} imports {module}"


def imported(code):
    """The top names of the modules that some code imports."""
    nodes = list(ast.walk(ast.parse(code)))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {name.partition(".")[0] for name in names}


def test_the_cell_for_colab_brings_library_and_records(tmp_path):
    """Its steps, with this checkout for the repository and without the installation."""
    cell = launch.colab_cell(f"file://{ROOT}").replace("/content", str(tmp_path))
    clone, enter, *installations, path = cell.splitlines()
    assert all(line.startswith("!pip install") for line in installations) and enter == f"%cd {tmp_path}/pooling"
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: it cannot be cloned")
    subprocess.run(clone.removeprefix("!").split(), check=True)
    code = f"{path}\nfrom poolnb.lab import load_records\nfrom poolnb.lab.provenance import RESULTS\n"
    code += "print(RESULTS, len(load_records(RESULTS / 'sampling-digits')))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split()[:1] == [f"{tmp_path}/pooling/book/results"], done.stderr
    assert int(done.stdout.split()[1]) > 0
