"""JupyterLab in a browser without a window: what reading, running and saving a notebook leaves in
its files.

    python -m pytest tests/lab.py

It needs Playwright (the extra `weekly`) and a Chromium or Chrome of the system. `make weekly` calls
it.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request

import nbformat
import pytest
from test_notebooks import PATHS, problems, read

from hw2.data import PROJECT
from tools import notebooks

api = pytest.importorskip(
    "playwright.sync_api", reason="Playwright is not installed: pip install -e '.[weekly]'"
)
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None
)
pytestmark = [
    pytest.mark.weekly,
    pytest.mark.skipif(not BROWSER, reason="there is no Chromium or Chrome"),
]
RUN_MS = 900_000  # milliseconds that a notebook may take beside other work
AUTOSAVE_MS = 130_000  # JupyterLab's own interval is two minutes
BARS = """
import time
from hw2.errors import Bar
for step in Bar(range(40), desc="plain, seed 1"):
    time.sleep(0.1)
"""
WRONG = "import hw2\nhw2.report.show('nope')"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of notebooks/, and one of progress bars and an error."""
    copy = shutil.copytree(notebooks.FOLDER, tmp_path_factory.mktemp("lab") / "notebooks")
    cells = [nbformat.v4.new_code_cell(source) for source in (BARS, WRONG)]
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata=notebooks.METADATA), copy / "bars.ipynb"
    )
    return copy


@pytest.fixture(scope="module")
def opened(folder):
    """A function that opens one of the notebooks in JupyterLab and gives its page."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = (
        f"--no-browser --port={port} --IdentityProvider.token= --LabApp.expose_app_in_browser=True"
    )
    command = ["make", "lab", f"LAB={folder}", f"FLAGS={flags}"]
    server = subprocess.Popen(command, cwd=PROJECT, start_new_session=True)
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api").close()
                break
            except OSError:
                time.sleep(1)
        with api.sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])

            def page_of(name):
                page = browser.new_page(viewport={"width": 1100, "height": 1400})
                page.goto(f"http://127.0.0.1:{port}/lab/tree/{name}?reset", timeout=RUN_MS)
                ready(page)
                return page

            yield page_of
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def ready(page):
    page.get_by_text("Python 3 (ipykernel) | Idle").first.wait_for(timeout=RUN_MS)


def command(page, *names):
    """Execute JupyterLab's commands; each is waited for."""
    for name in names:
        page.evaluate(f"window.jupyterapp.commands.execute('{name}')")


def test_reading_running_and_saving_leaves_what_the_gates_accept(opened, folder):
    path = folder / PATHS[0].name
    before = path.read_bytes(), path.with_suffix(".py").read_bytes()
    page = opened(path.name)
    assert page.get_by_text("Jupyter news").count() == 0
    page.wait_for_timeout(AUTOSAVE_MS)
    assert path.read_bytes() != before[0], "JupyterLab rewrites the metadata; nothing was tried"
    assert problems(path, read(path)) == []
    command(page, "notebook:run-all-cells", "docmanager:save")
    assert page.get_by_text("Four training images of each").first.is_visible()
    assert problems(path, read(path)) == []
    assert path.with_suffix(".py").read_bytes() == before[1]
    shown, committed = (notebooks.normal(read(one)).cells for one in (path, PATHS[0]))
    assert shown == committed


def test_saving_writes_the_script_of_the_changed_notebook(opened, folder):
    path = folder / PATHS[1].name
    page = opened(path.name)
    cells = "window.jupyterapp.shell.currentWidget.content.model.sharedModel.cells"
    page.evaluate(f"{cells}[0].setSource('# A heading of the reader')")
    command(page, "docmanager:save")
    assert (
        path.with_suffix(".py")
        .read_text("utf-8")
        .startswith("# %% [markdown]\n# # A heading of the reader\n")
    )
    assert problems(path, read(path)) == []


def test_progress_is_shown_and_an_error_is_a_line(opened, folder):
    page = opened("bars.ipynb")
    page.evaluate("void window.jupyterapp.commands.execute('notebook:run-all-cells')")
    page.get_by_text("plain, seed 1:").first.wait_for(timeout=RUN_MS)
    page.get_by_text("hw2: figure 'nope': expected one of tuning").first.wait_for(timeout=RUN_MS)
    command(page, "docmanager:save")
    _, wrong = notebooks.normal(read(folder / "bars.ipynb")).cells
    assert len(wrong.outputs) == 1 and len(wrong.outputs[0].traceback) == 1
    page.reload()
    ready(page)
    assert page.get_by_text("Error displaying widget").count() == 0
