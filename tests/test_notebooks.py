"""What nbval passes in silence: cells that were not run, pictures, standard error, disagreeing pairs, lax markers."""

import base64
import copy

import nbformat
import pytest

from hw2 import notebooks, report
from hw2.data import PROJECT

PATHS = notebooks.paths()


def read(path):
    return nbformat.read(path, as_version=4)


def problems(notebook) -> list[str]:
    """A line for each way in which a notebook is not one that was run from top to bottom without a complaint."""
    found = []
    figures = {path.read_bytes(): path.name for path in (PROJECT / "figures").glob("*.png")}
    for count, cell in enumerate(code(notebook), start=1):
        if cell.execution_count != count:
            found.append(f"{cell.id}: execution count {cell.execution_count}, expected {count}")
        if "nbval" in cell.source.lower() or cell.metadata:
            found.append(f"{cell.id}: a marker or metadata that may skip the comparison")
        for output in cell.outputs:
            if output.output_type == "error" or output.get("name") == "stderr":
                found.append(f"{cell.id}: {output.output_type} {output.get('ename', 'stderr')}")
            shown = output.get("data", {}).get("image/png")
            if shown and base64.b64decode(shown) not in figures:
                found.append(f"{cell.id}: its picture is none of figures/*.png")
    if notebook.metadata != notebooks.METADATA:
        found.append(f"metadata {dict(notebook.metadata)}, expected {notebooks.METADATA}")
    return found


def test_there_are_four_notebooks():
    assert [path.stem for path in PATHS] == ["01_teacher", "02_distillation", "03_pruning", "04_summary"]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_cell_was_run_in_order_and_shows_what_it_should(path):
    assert problems(read(path)) == []


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_script_beside_a_notebook_is_its_own(path):
    assert path.with_suffix(".py").read_text("utf-8") == notebooks.script(read(path))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_code_cells_are_short(path):
    longest = max(len(cell.source.splitlines()) for cell in read(path).cells if cell.cell_type == "code")
    assert longest <= 12


@pytest.fixture
def broken():
    return copy.deepcopy(read(PROJECT / "notebooks/04_summary.ipynb"))


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def picture(notebook):
    return next(out.data for cell in code(notebook) for out in cell.outputs if "image/png" in out.get("data", {}))


def mark(notebook):
    code(notebook)[0].source = "# NBVAL_IGNORE_OUTPUT\n" + code(notebook)[0].source


BREAKS = {
    "a cell that was not run": lambda book: code(book)[1].update(execution_count=None),
    "an error": lambda book: code(book)[1].outputs.append(
        nbformat.v4.new_output("error", ename="ValueError", evalue="", traceback=[])
    ),
    "standard error": lambda book: code(book)[1].outputs.append(
        nbformat.v4.new_output("stream", name="stderr", text="warning")
    ),
    "another picture": lambda book: picture(book).update({"image/png": "iVBORw0KGgo="}),
    "a marker that skips the comparison": mark,
    "a kernel's version": lambda book: book.metadata.language_info.update(version="3.11.7"),
}


@pytest.mark.parametrize("what", BREAKS)
def test_the_gate_sees(broken, what):
    assert problems(broken) == []
    BREAKS[what](broken)
    assert problems(broken) != []


def test_a_changed_cell_shows_in_the_pair(broken):
    code(broken)[0].source += "\n1 + 1"
    assert (PROJECT / "notebooks/04_summary.py").read_text("utf-8") != notebooks.script(broken)


def test_figures_report_and_submission_are_what_runs_and_code_make_now():
    assert report.stale(PROJECT) == []
