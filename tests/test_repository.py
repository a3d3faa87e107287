"""What must hold for the project as it is committed: chapters, receipts, text, style."""

import re
import shutil
import subprocess
import sys

import nbformat
import pytest
import yaml

from poolnb.book import notebooks
from poolnb.lab.provenance import BOOK, ROOT

CHAPTERS = notebooks.chapters()
NAMES = [notebooks.chapter_name(path) for path in CHAPTERS]
MACHINE_PATH = re.compile(
    r"/(?:home|Users|root|work|tmp|private|mnt)/\w|\b[A-Z]:\\\\|site-packages|dist-packages|ipykernel_\d"
)
UNFINISHED = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|X" r"XX)\b")
# A cell whose output nbval does not compare says why, in a comment that begins like this.
REASON = re.compile(r"^\s*# (?:output )?not compared: \w", re.MULTILINE | re.IGNORECASE)
IGNORING = re.compile(r"^\s*#\s*NBVAL_(?:IGNORE_OUTPUT|SKIP)\s*$", re.MULTILINE)


@pytest.fixture(params=CHAPTERS, ids=NAMES)
def chapter(request):
    return request.param


def tracked_files():
    """Every text file under version control, or a skip where git is not."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout: the committed files cannot be listed")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]
    return [path for path in files if path.suffix not in {".png", ".jpg", ".gif", ".npz", ".gz"}]


def code_cells(path):
    return [
        cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code" and cell.source.strip()
    ]


def is_ignored(cell):
    tags = set(cell.metadata.get("tags", []))
    return bool(tags & {"nbval-ignore-output", "nbval-skip"}) or bool(IGNORING.search(cell.source))


def test_machine_paths_are_recognised():
    for text in ("/home/ada/x.py", "/tmp/ipykernel_12/3.py", r"C:\\Users", "lib/python3.11/site-packages/torch"):
        assert MACHINE_PATH.search(text), text
    for text in ("book/softmax", "and/or", "https://example.org/a", "w/h", r"A:\\\\"[:2]):
        assert not MACHINE_PATH.search(text), text


def test_chapter_has_no_machine_path_and_no_error(chapter):
    text = chapter.read_text(encoding="utf-8")
    assert not (found := MACHINE_PATH.search(text)), f"{text[max(0, found.start() - 60) : found.end() + 20]!r}"
    assert "Traceback (most recent call last)" not in text
    for cell in code_cells(chapter):
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr", f"a chapter writes nothing to stderr: {output.text[:200]!r}"


def test_chapter_is_executed_in_order_and_clean(chapter):
    counts = [cell.execution_count for cell in code_cells(chapter)]
    assert counts == list(range(1, len(counts) + 1)), "execute it by `poolnb book execute`"
    notebook = nbformat.read(chapter, as_version=4)
    assert notebooks.clean(notebook) == notebook, "its metadata are not the runner's: `poolnb book execute`"


def test_receipt_fits(chapter):
    assert notebooks.stale(chapter) == [], f"poolnb book execute {notebooks.chapter_name(chapter)}"


def test_receipts_have_chapters():
    assert notebooks.orphans() == []


def test_ignored_outputs_are_few_and_have_a_reason():
    cells = [(path, cell) for path in CHAPTERS for cell in code_cells(path)]
    ignored = [(path, cell) for path, cell in cells if is_ignored(cell)]
    for path, cell in ignored:
        assert REASON.search(cell.source), f"{path.name}: say why in a comment `# not compared: ...`\n{cell.source}"
    assert len(ignored) <= 0.05 * len(cells)


def test_contents_and_files_agree():
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text())
    listed = [contents["root"]] + re.findall(r"file: (\S+)", (ROOT / "_toc.yml").read_text())
    written = {p.relative_to(ROOT).with_suffix("").as_posix() for p in [*CHAPTERS, *BOOK.rglob("*.md")]}
    assert len(listed) == len(set(listed)), "a page is listed twice"
    assert set(listed) == written


def test_nothing_is_left_unfinished_and_no_checkout_is_named():
    for path in tracked_files():
        text = re.sub(r'"image/png": ".*?"', "", path.read_text(encoding="utf-8"))  # letters there mean nothing
        assert not UNFINISHED.search(text), path
        assert str(ROOT) not in text, path


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff(command):
    done = subprocess.run([sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr


def test_types():
    done = subprocess.run([sys.executable, "-m", "mypy", "poolnb"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
