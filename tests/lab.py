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

import pytest
from test_notebooks import PATHS, problems, read

from hw2.data import PROJECT
from tools import notebooks

api = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[weekly]'")
NAMES = ("chromium", "google-chrome", "chromium-browser")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = [
    pytest.mark.weekly,
    pytest.mark.skipif(not BROWSER, reason="there is no Chromium or Chrome"),
]
RUN_MS = 900_000  # milliseconds that a notebook may take beside other work
AUTOSAVE_MS = 130_000  # JupyterLab's own interval is two minutes


@pytest.fixture
def path(tmp_path):
    """A copy of the first notebook, with those beside it."""
    return shutil.copytree(notebooks.FOLDER, tmp_path / "notebooks") / PATHS[0].name


@pytest.fixture
def page(path):
    """The notebook, opened in JupyterLab."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = f"--no-browser --port={port} --IdentityProvider.token="
    flags += " --LabApp.expose_app_in_browser=True"
    command = ["make", "lab", f"LAB={path.parent}", f"FLAGS={flags}"]
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
            page = browser.new_page(viewport={"width": 1100, "height": 1400})
            page.goto(f"http://127.0.0.1:{port}/lab/tree/{path.name}?reset", timeout=RUN_MS)
            page.get_by_text("Python 3 (ipykernel) | Idle").first.wait_for(timeout=RUN_MS)
            yield page
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def command(page, *names):
    """Execute JupyterLab's commands; each is waited for."""
    for name in names:
        page.evaluate(f"window.jupyterapp.commands.execute('{name}')")


def test_reading_running_and_saving_leaves_what_the_gates_accept(path, page):
    before = [one.read_bytes() for one in (PATHS[0], PATHS[0].with_suffix(".py"))]
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
    # Saving writes the script of a changed notebook, too.
    cells = "window.jupyterapp.shell.currentWidget.content.model.sharedModel.cells"
    page.evaluate(f"{cells}[0].setSource('# A heading of the reader')")
    command(page, "docmanager:save")
    script = path.with_suffix(".py").read_text("utf-8")
    assert script.startswith("# %% [markdown]\n# # A heading of the reader\n")
    assert problems(path, read(path)) == []
