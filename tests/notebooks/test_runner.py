"""The runner of chapters: what it writes, what it leaves alone, and when a receipt no longer fits."""

import json
import shutil

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from poolnb.book import build as book
from poolnb.book import notebooks
from poolnb.lab import provenance


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """An empty book in a temporary folder."""
    monkeypatch.setattr(notebooks, "BOOK", tmp_path)
    monkeypatch.setattr(notebooks, "RECEIPTS", tmp_path / "results" / "receipts")
    return tmp_path


def write(path, *cells, **metadata):
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=list(cells), metadata=metadata), path)
    return path


def test_execute_replaces_the_chapter_and_leaves_a_receipt(shelf):
    path = write(shelf / "part" / "one.ipynb", new_markdown_cell("# One"), new_code_cell("print(6 * 7)"))
    assert notebooks.stale(path) == ["it has no receipt"]
    notebooks.execute(path)
    chapter = nbformat.read(path, as_version=4)
    assert chapter.cells[1].outputs[0].text == "42\n"
    assert chapter.cells[1].execution_count == 1
    assert notebooks.clean(chapter) == chapter
    assert str(shelf) not in path.read_text() and "papermill" not in path.read_text()
    receipt = json.loads((shelf / "results/receipts/part/one.json").read_text())
    assert receipt["chapter"] == "part/one" and receipt["seconds"] > 0 and receipt["versions"]["torch"]
    assert notebooks.stale(path) == []
    assert {p.name for p in path.parent.iterdir()} == {"one.ipynb"}


def test_a_chapter_runs_in_its_own_folder_with_one_thread(shelf):
    code = "import os, torch, pathlib; print(pathlib.Path.cwd().name, torch.get_num_threads())"
    path = write(shelf / "part" / "one.ipynb", new_code_cell(code))
    notebooks.execute(path)
    assert nbformat.read(path, as_version=4).cells[0].outputs[0].text == "part 1\n"


def test_prose_may_change_but_code_sources_and_data_may_not(shelf, monkeypatch):
    # The kernel notes the real book's _static folder; the temporary book has one of the same name.
    code = "from poolnb.lab.provenance import BOOK, note_use; note_use(BOOK / '_static')"
    path = write(shelf / "one.ipynb", new_markdown_cell("# One"), new_code_cell(code))
    shutil.copytree(provenance.BOOK / "_static", shelf / "_static")
    notebooks.execute(path)
    chapter = nbformat.read(path, as_version=4)
    chapter.cells[0].source = "# Another title"
    nbformat.write(chapter, path)
    assert notebooks.stale(path) == []

    (shelf / "_static" / "record.json").write_text("{}")
    assert notebooks.stale(path) == ["_static changed"]
    shutil.rmtree(shelf / "_static")
    assert notebooks.stale(path) == ["_static is gone"]

    chapter.cells[1].source += "\nprint(1)"
    nbformat.write(chapter, path)
    assert notebooks.stale(path) == ["its code changed", "_static is gone"]


def test_a_replaced_output_is_noticed(shelf):
    """A picture, a number or a kept value: whatever stands in a committed chapter was written with its receipt."""
    draw = "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show()"
    keep = "from poolnb.book.prose import glue; glue(answer=42)"
    path = write(shelf / "one.ipynb", *(new_code_cell(code) for code in (draw, "print(6 * 7)", keep)))
    notebooks.execute(path)
    assert notebooks.stale(path) == []
    written = path.read_text()
    shown = [cell.outputs[-1] for cell in nbformat.read(path, as_version=4).cells]
    kept = shown[2].data["application/papermill.record/text/plain"]
    for old, new in ((shown[0].data["image/png"][-40:].strip(), "A" * 39), ("42\\n", "43\\n"), (f'"{kept}"', '"41"')):
        assert written.count(old) == 1
        path.write_text(written.replace(old, new))
        assert notebooks.stale(path) == ["its outputs are not those that were written"]
    path.write_text(written)
    assert notebooks.stale(path) == []


def test_a_receipt_knows_the_data(shelf, monkeypatch):
    path = write(shelf / "one.ipynb", new_code_cell("from poolnb.lab.data import load; _ = load('digits')"))
    notebooks.execute(path)
    assert notebooks.stale(path) == []
    receipt = json.loads(notebooks.receipt_path(path).read_text())
    receipt["data"]["digits"] = "another"
    notebooks.receipt_path(path).write_text(json.dumps(receipt))
    assert notebooks.stale(path) == ["the data set digits changed"]
    monkeypatch.setattr(notebooks, "missing_files", lambda name: ["a file"])
    assert notebooks.stale(path) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"chapter": "one"}'])
def test_a_damaged_receipt_is_stale(shelf, text):
    path = write(shelf / "one.ipynb", new_code_cell("1"))
    notebooks.receipt_path(path).parent.mkdir(parents=True)
    notebooks.receipt_path(path).write_text(text)
    assert notebooks.stale(path) == ["its receipt is damaged or of another form"]


def test_a_failing_cell_changes_nothing(shelf, capsys):
    path = write(shelf / "one.ipynb", new_code_cell("print(1)"), new_code_cell("raise ValueError('no such window')"))
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="(?s)one.ipynb failed.*no such window"):
        notebooks.execute(path)
    assert path.read_bytes() == before
    assert [p.name for p in shelf.rglob("*")] == ["one.ipynb"]
    assert book.execute(["one"]) == 1
    assert "no such window" in capsys.readouterr().err


def test_parameters_go_to_another_file_only(shelf):
    parameters = new_code_cell("size = 2", metadata={"tags": ["parameters"]})
    path = write(shelf / "one.ipynb", parameters, new_code_cell("print(size)"))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="parameters: need an output"):
        notebooks.execute(path, {"size": 3})
    out = notebooks.execute(path, {"size": 3}, shelf / "out" / "three.ipynb")
    assert nbformat.read(out, as_version=4).cells[-1].outputs[0].text == "3\n"
    assert path.read_bytes() == before and not notebooks.receipt_path(path).exists()
    notebooks.execute(path)
    assert json.loads(notebooks.receipt_path(path).read_text())["parameters"] == {"size": "2"}


def test_check_names_what_is_stale(shelf, monkeypatch, capsys):
    path = write(shelf / "one.ipynb", new_code_cell("1"))
    assert book.check() == 1
    assert capsys.readouterr().out == "one: it has no receipt\n"
    notebooks.execute(path)
    assert book.check() == 0
    path.unlink()
    monkeypatch.setattr(book, "ROOT", shelf)
    assert book.check() == 1
    assert "its chapter does not exist" in capsys.readouterr().out


def test_an_unknown_chapter_is_refused(shelf, capsys):
    write(shelf / "a" / "one.ipynb", new_code_cell("1"))
    write(shelf / "b" / "one.ipynb", new_code_cell("1"))
    assert notebooks.find_chapter("a/one") == shelf / "a" / "one.ipynb"
    assert notebooks.find_chapter(str(shelf / "b" / "one.ipynb")) == shelf / "b" / "one.ipynb"
    assert book.main(["execute", "two"]) == 2
    assert "chapter: got 'two', which names 0 chapters; known are: a/one, b/one" in capsys.readouterr().err
    with pytest.raises(ValueError, match="names 2 chapters"):
        notebooks.find_chapter("one")


def test_pieces_of_a_stream_are_joined():
    pieces = [("stdout", "a\n"), ("stdout", "b\n"), ("stderr", "c\n"), ("stdout", "d\n")]
    cell = new_code_cell("", outputs=[new_output("stream", name=name, text=text) for name, text in pieces])
    outputs = notebooks.clean(new_notebook(cells=[cell])).cells[0].outputs
    assert [(o.name, o.text) for o in outputs] == [("stdout", "a\nb\n"), ("stderr", "c\n"), ("stdout", "d\n")]
    assert cell.outputs[0].text == "a\n"


def test_the_source_hash_sees_code_and_nothing_else(tmp_path, monkeypatch):
    for name in ("poolnb/ops/max.py", "poolnb/cli.py", "ext/cpu/max.cpp", "poolnb/__pycache__/max.pyc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("one")
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    seen = {provenance.source_hash()}
    for name in ("poolnb/cli.py", "poolnb/__pycache__/max.pyc"):
        (tmp_path / name).write_text("another")
        assert provenance.source_hash() in seen
    (tmp_path / "ext/cpu/max.cpp").write_text("one  // not another")
    assert provenance.source_hash() in seen
    for name in ("poolnb/ops/max.py", "ext/cpu/max.cpp", "poolnb/ops/new.py"):
        (tmp_path / name).write_text("another")
        assert provenance.source_hash() not in seen
        seen.add(provenance.source_hash())


def test_a_receipt_names_the_sources_that_ran(shelf, monkeypatch):
    path = write(
        shelf / "one.ipynb",
        new_code_cell("import torch, poolnb.functional as F\nF.soft_pool1d(torch.ones(1, 1, 4), 2);"),
    )
    notebooks.execute(path)
    sources = json.loads(notebooks.receipt_path(path).read_text())["sources"]
    wanted = {
        "poolnb/functional/softmax.py",
        "poolnb/ops/soft.py",
        "poolnb/geometry.py",
        "ext/windows/soft.h",
        "ext/taps.h",
    }
    assert wanted <= set(sources)
    assert not [name for name in sources if "tdgs" in name or "lab" in name or name.endswith("__init__.py")]

    copies = shelf / "checkout"
    for name in sources:
        (copies / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(provenance.ROOT / name, copies / name)
    monkeypatch.setattr(notebooks, "ROOT", copies)
    for name, comment in (("poolnb/ops/soft.py", "# a comment"), ("ext/windows/soft.h", "// a comment")):
        (copies / name).write_text((copies / name).read_text() + "\n" + comment + "\n")
    assert notebooks.stale(path) == []
    for name, code in (("poolnb/ops/soft.py", "NUMBER = 1"), ("ext/windows/soft.h", "int number = 1;")):
        (copies / name).write_text((copies / name).read_text() + code)
    (copies / "ext/taps.h").unlink()
    assert notebooks.stale(path) == ["ext/taps.h is gone", "ext/windows/soft.h changed", "poolnb/ops/soft.py changed"]


def test_nothing_is_noted_outside_the_runner_or_the_book(tmp_path, monkeypatch):
    monkeypatch.delenv("POOLNB_USES", raising=False)
    provenance.note_use(provenance.BOOK / "_static")
    log = tmp_path / "log"
    monkeypatch.setenv("POOLNB_USES", str(log))
    provenance.note_use(tmp_path)
    assert not log.exists()
    provenance.note_use(provenance.BOOK / "_static")
    expected = ["folder", "_static", provenance.folder_hash(provenance.BOOK / "_static")]
    assert json.loads(log.read_text()) == expected
    with pytest.raises(FileNotFoundError, match="folder: .*nowhere does not exist"):
        provenance.folder_hash(tmp_path / "nowhere")
