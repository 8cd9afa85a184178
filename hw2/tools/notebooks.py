"""Execute the four notebooks so that the same input gives the same bytes, and keep each with its readable .py.

`python -m hw2.tools.notebooks` does it in place, or, where HW2_PROFILE is smoke, into build/smoke/notebooks.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from tqdm import tqdm

from hw2.data import PROJECT
from hw2.errors import InputError
from hw2.experiments import stages
from hw2.experiments import store as runs

FOLDER = PROJECT / "notebooks"
AT_ONCE = 2  # notebooks; most of a kernel's time is imports and drawing, which use one core
WIDGET = "application/vnd.jupyter.widget-view+json"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def paths() -> list[Path]:
    return sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))


def execute(path: Path) -> nbformat.NotebookNode:
    """Run every cell in this interpreter's environment; an error in a cell is nbclient's `CellExecutionError`.

    Times, versions and machine names are left out. Where something was trained there are progress bars: then the
    notebook runs once more, on the finished runs. What still warns is an error.
    """
    notebook = run(path)
    if noise(notebook):
        notebook = run(path)
    if text := noise(notebook):
        raise InputError(f"{path}: a cell shows more than its result: {text.strip().splitlines()[-1]}")
    return clean(notebook)


def noise(notebook: nbformat.NotebookNode) -> str:
    """What the cells wrote to standard error, progress bars among it."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    bars = ["a progress bar" for output in outputs if WIDGET in output.get("data", {})]
    return "\n".join([output.text for output in outputs if output.get("name") == "stderr"] + bars)


def run(path: Path) -> nbformat.NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=None, kernel_name="python3", record_timing=False)
    # Kernels are looked up by name: this interpreter's own must win over a user's `python3`.
    client.create_kernel_manager().kernel_spec.argv[0] = sys.executable
    # Kernels run beside each other: one that waits for a core must not hold another one up by spinning.
    return client.execute(cwd=str(path.parent), env=os.environ | {"OMP_WAIT_POLICY": "passive"})


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    notebook.metadata = nbformat.from_dict(METADATA)
    for number, cell in enumerate(notebook.cells, start=1):
        cell.id = f"cell-{number:02d}"
        cell.metadata = nbformat.from_dict({})
    return notebook


def script(notebook: nbformat.NotebookNode) -> str:
    """The notebook as a .py file in jupytext's percent format, without a header that would go stale."""
    copy = nbformat.from_dict(notebook)
    copy.metadata = nbformat.from_dict({"jupytext": {"notebook_metadata_filter": "-all"}})
    return jupytext.writes(copy, fmt="py:percent")


def main() -> None:
    profile = stages.default_profile()
    target = FOLDER if profile != "smoke" else runs.home(profile) / "notebooks"
    with ThreadPoolExecutor(AT_ONCE) as pool:
        executed = tqdm(pool.map(execute, paths()), desc="notebooks", unit="notebook", total=len(paths()))
        for path, notebook in zip(paths(), executed, strict=True):
            runs.write_text(target / path.name, nbformat.writes(notebook) + "\n")
            if target == FOLDER:
                runs.write_text(path.with_suffix(".py"), script(notebook))


if __name__ == "__main__":
    main()
