"""What nbval passes in silence: cells not run, pictures, standard error, disagreeing pairs, lax
mode, markers.
"""

import ast
import copy
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial

import nbclient
import nbformat
import pytest
import torch
from nbval.plugin import find_comment_markers

from hw2 import distillation, report
from hw2.data import PROJECT
from hw2.errors import InputError
from hw2.experiments.store import Store
from tools import notebooks

PATHS = notebooks.paths()


def read(path):
    return nbformat.read(path, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def pictures(cell):
    """Pictures of figures/ that a cell shows, and those that it should show."""
    names = re.findall(r'report\.show\("(\w+)"\)', cell.source)
    texts = [output.data.get("text/html", "") for output in cell.outputs if "data" in output]
    expected = []
    for name in names:
        content = (PROJECT / f"figures/{name}.png").read_bytes()
        expected.append(report.picture(content, report.FIGURES[name].alt))
    return [text for text in texts if names and "<figure" in text], expected


def problems(path, notebook) -> list[str]:
    """A line for each way in which a notebook is not one that was run from top to bottom without a
    complaint.
    """
    found = []
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        found.append(f"not valid: {error.message}")
    notebook = notebooks.normal(notebook)
    for count, cell in enumerate(code(notebook), start=1):
        found += [f"{cell.id}: {problem}" for problem in problems_of_cell(cell, count)]
    if notebook.metadata != notebooks.METADATA:
        found.append(f"metadata {dict(notebook.metadata)}, expected {notebooks.METADATA}")
    if path.with_suffix(".py").read_text("utf-8") != notebooks.script(notebook):
        found.append("the script beside it is not its own")
    return found


def problems_of_cell(cell, count):
    if cell.execution_count != count:
        yield f"execution count {cell.execution_count}, expected {count}"
    marked = dict(find_comment_markers(cell.source)) or "nbval" in cell.source.lower()
    if marked or cell.metadata not in ({}, notebooks.HIDDEN, notebooks.LIVE):
        yield "a marker or metadata that may skip the comparison"
    for output in cell.outputs:
        if output.output_type == "error" or output.get("name") == "stderr":
            yield f"{output.output_type} {output.get('ename', 'stderr')}"
        if other := output.get("data", {}).keys() - {"text/plain", "text/html", "text/markdown"}:
            yield f"an output that may not be compared, {', '.join(sorted(other))}"
    if str(PROJECT) in str(cell.outputs):
        yield "an output names a folder of this machine"
    shown, expected = pictures(cell)
    if shown != expected:
        yield "its pictures are not those of figures/ that it names"


#: of the assignment and of what others published
KNOWN = {"92.4", "90.34"}
TOLD = r"\d+\.\d+(?=%|\spoints)|\d[\d,]* of [\d,]*\d"


def sections(notebook):
    """The prose under each heading, and what the cells under it put out."""
    parts = [("", "")]
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("## "):
            parts.append(("", ""))
        prose, outputs = parts[-1]
        told = cell.source if cell.cell_type == "markdown" else ""
        parts[-1] = f"{prose}\n{told}", f"{outputs} {cell.get('outputs', '')}"
    return parts


def unbound(prose, outputs):
    """Numbers that the prose tells, and that none of the outputs holds."""
    told = set(re.findall(TOLD, prose)) - KNOWN
    return {one for one in told if not re.search(rf"(?<![\d.]){re.escape(one)}(?!\d)", outputs)}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_number_that_prose_tells_stands_in_an_output_of_its_section(path):
    assert [found for part in sections(read(path)) if (found := unbound(*part))] == []


def test_a_number_of_another_section_does_not_bind():
    book = nbformat.v4.new_notebook()
    for prose, shown in (("It has 91.2%.", "1"), ("It has 93.4%, 2 of 3.", "2 of 3, 91.2")):
        book.cells.append(nbformat.v4.new_markdown_cell(f"## Heading\n{prose}"))
        output = nbformat.v4.new_output("stream", text=shown)
        book.cells.append(nbformat.v4.new_code_cell("", outputs=[output]))
    assert [unbound(*part) for part in sections(book)] == [set(), {"91.2"}, {"93.4"}]


def made(path, *cells):
    nbformat.write(nbformat.v4.new_notebook(cells=[*map(nbformat.v4.new_code_cell, cells)]), path)
    return path


@pytest.fixture
def first(tmp_path, monkeypatch):
    """A function that makes the only notebook of a project."""
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    monkeypatch.setattr(notebooks, "NAMES", ("01_first",))
    return partial(made, tmp_path / "01_first.ipynb")


GIVEN = {"HW2_DATA": "~/images", "HW2_OUT": "here", "MPLBACKEND": "nope"}


def test_a_kernel_gets_what_it_can_use_of_the_users_environment(first, tmp_path, monkeypatch):
    path = first(f"import os; [os.environ.get(name) for name in {list(GIVEN)}]")
    copy = made(tmp_path / "01_first-Copy1.ipynb", "1 / 0")
    before = copy.read_bytes()
    for name, value in GIVEN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    notebooks.main()
    images, out, backend = ast.literal_eval(read(path).cells[0].outputs[0].data["text/plain"])
    assert (images, out) == (os.path.expanduser("~/images"), str(tmp_path / "here"))
    assert backend != "nope" and problems(path, read(path)) == []
    assert copy.read_bytes() == before


COMPLAINTS = {"OMP_WAIT_POLICY": "idle", "ATEN_CPU_CAPABILITY": "nonsense"}
WARNS = """
import pathlib, sys, warnings
pathlib.Path("runs").open("a").write("x")
print("hw2: trains plain", file=sys.stderr)
warnings.warn("The NVIDIA driver on your system is too old")
"""


def test_a_machines_warnings_are_told_stay_out_of_the_notebook_and_fail_nothing(
    first, tmp_path, monkeypatch, capfd
):
    path = first(WARNS, "import torch; (torch.ones(99, 99) @ torch.ones(99, 99)).sum()")
    for name, value in COMPLAINTS.items():
        monkeypatch.setenv(name, value)
    notebooks.main()
    told = capfd.readouterr().err
    assert "01_first.ipynb: hw2: trains plain" in told
    assert all(name in told for name in ("UserWarning: The NVIDIA driver", *COMPLAINTS))
    assert problems(path, read(path)) == [] and (tmp_path / "runs").read_text() == "x"


def test_the_name_of_a_socket_fits_also_where_that_of_the_temporary_folder_is_long(
    first, tmp_path, monkeypatch
):
    folder = tmp_path / ("x" * 90)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    path = first("1 + 1")
    notebooks.main()
    assert problems(path, read(path)) == []


def test_a_notebook_of_an_older_format_is_written_as_4_5(first):
    path = first("1 + 1")
    content = json.loads(path.read_text()) | {"nbformat_minor": 2}
    del content["cells"][0]["id"]
    path.write_text(json.dumps(content))
    notebooks.main()
    assert read(path).nbformat_minor == 5 and problems(path, read(path)) == []


WHOLE = PATHS[0].read_text("utf-8")
UNREADABLE = {
    "merge marks": WHOLE.replace(' "cells"', '<<<<<<< HEAD\n "cells"'),
    "empty": "",
    "nbformat 3": '{"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": []}',
    "an odd cell": WHOLE.replace('"markdown"', '"odd"'),
}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE)
def test_a_notebook_that_cannot_be_read_is_told_with_its_remedy(first, text):
    path = first()
    path.write_text(text)
    told = rf"^{path}: no readable notebook \(.+\); restore it with `git checkout HEAD"
    with pytest.raises(InputError, match=told):
        notebooks.main()
    assert path.read_text() == text


def test_a_kernel_that_dies_or_does_not_start_is_told_with_its_notebook(first, monkeypatch):
    path = first("import os; os.kill(os.getpid(), 9)")
    for program in (sys.executable, shutil.which("false")):
        monkeypatch.setattr(sys, "executable", program)
        with pytest.raises(InputError, match=f"^{path}: Kernel died"):
            notebooks.main()


ENDLESS = "import pathlib, time; pathlib.Path({0!r}).touch(); time.sleep(600)"
MAIN = """
import pathlib, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
from hw2.errors import told_in_a_line
from tools import notebooks
notebooks.FOLDER = pathlib.Path({0!r})
with told_in_a_line():
    notebooks.main()
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_request_to_end_ends_the_kernels_and_leaves_no_folder(tmp_path, number, status):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    for name in notebooks.NAMES:
        made(tmp_path / f"{name}.ipynb", ENDLESS.format(name))
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN.format(str(tmp_path))],
        cwd=PROJECT,
        start_new_session=True,
        env=os.environ | {"TMPDIR": str(temporary)},
        stderr=subprocess.PIPE,
        text=True,
    )
    while not all((tmp_path / name).exists() for name in notebooks.NAMES[:2]):
        time.sleep(0.1)
        assert process.poll() is None
    asked = time.monotonic()
    os.killpg(process.pid, number)  # the kernels are in groups of their own, as under a terminal
    told = process.communicate(timeout=60)[1]
    assert time.monotonic() - asked < 20 and "Traceback" not in told
    assert (process.returncode, [*temporary.iterdir()]) == (status, [])
    assert not any((tmp_path / name).exists() for name in notebooks.NAMES[2:])


CELLS = (
    """import os, hw2
from hw2 import report, training
print(os.environ["OMP_WAIT_POLICY"])
hw2.nothing""",
    """from hw2.errors import Bar
with Bar(total=1, desc="runs") as runs, Bar([1, 2], desc="plain, seed 0") as steps:
    print(len(list(steps)))""",
    "report.show('nope')",
    "training.fit()",
    "%run -m hw2 train --list",
)


def test_in_a_kernel_modules_are_found_bars_are_shown_an_error_is_a_line_and_commands_run(
    monkeypatch,
):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    book = nbformat.v4.new_notebook(cells=[*map(nbformat.v4.new_code_cell, CELLS)])
    names, bars, wrong, trains, command = notebooks.normal(
        nbclient.execute(book, allow_errors=True)
    ).cells
    assert names.outputs[0].text == "passive\n"
    assert names.outputs[1].evalue == "module 'hw2' has no attribute 'nothing'"
    assert [output.text for output in bars.outputs if output.name == "stdout"] == ["2\n"]
    ((line,),) = [error.traceback for error in wrong.outputs]
    assert line.startswith("hw2: figure 'nope': expected one of ")
    assert trains.outputs[0].evalue == "a notebook trained something under test"
    (listed,) = command.outputs
    assert listed.name == "stdout" and "teacher" in listed.text


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_python_without_the_package_is_told_what_to_do(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "hw2", None)
    with pytest.raises(ImportError) as told:
        exec(code(read(path))[0].source, {})
    (line,) = told.value._render_traceback_()
    assert "choose the kernel of .venv" in line


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_solutions_of_its_tasks_hold(path, request):
    """Under smoke, so that they train in seconds.

    The last notebook's are of the delivered network.
    """
    if path != PATHS[-1]:
        request.getfixturevalue("walk_done")
    notebook, names = read(path), {}
    (imports,) = [cell.source for cell in code(notebook) if "from hw2 import" in cell.source]
    exec("import hw2\n" + imports, names)
    if path == PATHS[-1]:
        names["delivered"] = Store().delivered
    if "obtain" in names:
        names["fashion"] = names["data"].fashion_mnist()
        names["distilled"] = names["obtain"]("distilled")
    last = notebook.cells[-1].source
    exec(re.search(r"Solutions</summary>\n\n```python\n(.*?)```", last, re.DOTALL)[1], names)
    for cell in code(notebook):
        if "except NotImplementedError" in cell.source:  # the check of a function to be written
            exec(cell.source.replace("print(", "told = ("), names)
            assert names["told"].endswith("is right")


def without_t_squared(z_s, z_t, labels, T, alpha):
    return distillation.kd_loss(z_s / T, z_t / T, labels, 1.0, alpha)


@pytest.mark.parametrize("loss", [partial(distillation.kd_loss, loss="kl_mean"), without_t_squared])
def test_a_wrong_loss_fails_its_check(loss):
    sources = [cell.source for cell in code(read(PATHS[1]))]
    (check,) = [source for source in sources if "my_kd_loss is right" in source]
    with pytest.raises(AssertionError, match="not close"):
        exec(check, {"torch": torch, "distillation": distillation, "my_kd_loss": loss})


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_cell_was_run_in_order_and_shows_what_it_and_the_script_should(path):
    assert problems(path, read(path)) == []
    lines = [cell.source.splitlines() for cell in code(read(path))]
    assert max(map(len, lines)) <= 12
    assert max(len(line) for cell in lines for line in cell) <= 92  # what JupyterLab shows
    nodes = [*ast.walk(ast.parse("\n".join(cell.source for cell in code(read(path)))))]
    names = [node for node in nodes if isinstance(node, ast.Name)]
    set_again = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    imported = {node.asname or node.name for node in nodes if isinstance(node, ast.alias)}
    assert set_again.isdisjoint(imported)  # the tasks use these modules
    assert sorted(notebooks.FOLDER.glob("*.ipynb")) == PATHS  # nbval runs whatever lies there


def shown(notebook):
    """The data of the first picture."""
    return next(cell for cell in code(notebook) if "report.show" in cell.source).outputs[0].data


def output(kind, **more):
    return lambda book: code(book)[1].outputs.append(nbformat.v4.new_output(kind, **more))


def mark(text):
    return lambda book: code(book)[0].update(source=f"{text}\n{code(book)[0].source}")


#: a change of a notebook -> what the gate says of it
CHANGES = (
    (lambda book: code(book)[1].update(execution_count=None), "execution count None"),
    (lambda book: book.cells.remove(code(book)[1]), "execution count 3, expected 2"),
    (output("error", ename="ValueError", evalue="", traceback=[]), "error ValueError"),
    (output("stream", name="stderr", text="warning"), "stream stderr"),
    (output("stream", name="stdout", text=f"{PROJECT}/runs"), "a folder of this machine"),
    (lambda book: shown(book).update(shown(read(PATHS[0]))), "its pictures"),
    (lambda book: shown(book).pop("text/html"), "its pictures"),
    (output("display_data", data={"image/png": ""}), "may not be compared, image/png"),
    (mark("# NBVAL_IGNORE_OUTPUT"), "a marker"),
    (mark("#PYTEST_VALIDATE_IGNORE_OUTPUT"), "a marker"),
    (lambda book: code(book)[0].metadata.update(tags=["raises-exception"]), "a marker"),
    (lambda book: book.metadata.kernelspec.update(name="ir"), "metadata"),
    (mark("1 + 1"), "the script beside it"),
    (lambda book: book.update(nbformat_minor=4), "not valid"),  # whose cells have no ids
)


@pytest.mark.parametrize(("change", "told"), CHANGES)
def test_the_gate_sees(change, told):
    broken = copy.deepcopy(read(PATHS[3]))
    assert problems(PATHS[3], broken) == []
    change(broken)
    assert any(told in problem for problem in problems(PATHS[3], broken))


def test_the_gate_accepts_what_a_front_end_rewrites():
    """As JupyterLab 4.6 saves: the kernel's words for itself, cells' ids and states; an output of a
    closed bar.
    """
    rewritten = read(PATHS[3])
    rewritten.metadata.kernelspec.update(display_name="Python 3 (ipykernel)")
    rewritten.metadata.language_info.update(version="3.12.1", mimetype="text/x-python")
    rewritten.metadata["widgets"] = {}
    for number, cell in enumerate(rewritten.cells):
        cell.id = f"{number:08x}"
        cell.metadata.update(scrolled=True, execution={"iopub.status.idle": "2026-01-01"})
    code(rewritten)[1].outputs.insert(0, nbformat.v4.new_output("display_data"))
    assert problems(PATHS[3], rewritten) == []
    assert notebooks.normal(rewritten) == read(PATHS[3])


def test_nbval_names_the_cell_whose_output_is_another(tmp_path):
    """With the project's conftest.py, which lets pictures and standard error pass."""
    cells = []
    for count, kept in enumerate(("93.25%\n", "94.51%\n"), start=1):
        outputs = [nbformat.v4.new_output("stream", text=kept)]
        cell = {"execution_count": count, "outputs": outputs}
        cells.append(nbformat.v4.new_code_cell("print('93.25%')", **cell))
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "changed.ipynb")
    shutil.copy(PROJECT / "conftest.py", tmp_path)
    words = ["-m", "pytest", "-p", "no:cacheprovider", "--nbval", "--nbval-current-env", tmp_path]
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True)
    assert "1 failed, 1 passed" in done.stdout
    assert re.findall(r"^FAILED .*::(Cell \d+)", done.stdout, re.MULTILINE) == ["Cell 1"]


def test_a_live_picture_stays_as_committed_where_nothing_changed(monkeypatch):
    """What another processor draws differs in pixels; changed code or sources are drawn anew."""
    committed = read(PATHS[0])
    drawn = nbformat.from_dict(committed)
    (live,) = [cell for cell in drawn.cells if cell.metadata == notebooks.LIVE]
    live.outputs = []
    monkeypatch.setattr(notebooks.environment, "git", lambda *words: nbformat.writes(committed))
    for uncommitted, kept in (([], True), (["hw2/views.py"], False)):
        monkeypatch.setattr(notebooks.environment, "uncommitted", lambda names=uncommitted: names)
        result = notebooks.keeping_live(nbformat.from_dict(drawn), PATHS[0])
        assert (result == committed) == kept
    monkeypatch.setattr(notebooks.environment, "uncommitted", list)
    drawn.cells[0].source += "changed"
    assert notebooks.keeping_live(nbformat.from_dict(drawn), PATHS[0]) == drawn


INTERVAL = re.compile(r"([-+]\d+\.\d+) to ([-+]\d+\.\d+)")


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_what_the_text_says_of_an_interval_and_0_an_output_of_its_section_shows(path):
    section, said, shown = "", {}, {}
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            heading = re.search(r"^## (.*)$", cell.source, re.MULTILINE)
            section = heading[1] if heading else section
            text = " ".join(cell.source.split())
            said.setdefault(section, set()).update(re.findall(r"(includ|exclud)es? 0\b", text))
        for output in cell.get("outputs", []):
            words = output.get("text", "") + str(output.get("data", ""))
            for low, high in INTERVAL.findall(words):
                within = "includ" if float(low) <= 0 <= float(high) else "exclud"
                shown.setdefault(section, set()).add(within)
    for section, claims in said.items():
        assert claims <= shown.get(section, set()), section
