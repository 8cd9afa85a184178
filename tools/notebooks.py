"""Execute the four notebooks so that the same input gives the same bytes, and keep each with its
readable .py.

`python tools/notebooks.py` does it in place, or, where HW2_PROFILE is smoke, into
build/smoke/notebooks. Copies and other notebooks beside the four are left alone.
"""

import asyncio
import os
import signal
import socket
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from tqdm import tqdm

from hw2.data import PROJECT
from hw2.errors import Ended, InputError, told_in_a_line
from hw2.experiments import environment
from hw2.experiments.run import home
from hw2.experiments.store import Store
from hw2.files import errors_naming, write_text

FOLDER = PROJECT / "notebooks"
NAMES = ("01_teacher", "02_distillation", "03_pruning", "04_summary")
AT_ONCE = 2  # notebooks; most of a kernel's time is imports and drawing, which use one core
LONGEST = 80  # bytes of TMPDIR: a socket's whole name has at most 103 on macOS, 107 on Linux
#: variables that a kernel gets from the user
PASSED = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "SYSTEMROOT",
    "VIRTUAL_ENV",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "HW2_DATA",
    "HW2_OUT",
    "HW2_PROFILE",
)
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
#: the last two make `nbconvert --to script` write a .py
LANGUAGE = {"name": "python", "file_extension": ".py", "nbconvert_exporter": "python"}
METADATA = {"kernelspec": KERNEL, "language_info": LANGUAGE}
# a cell with this tag is folded, in JupyterLab as on pages
HIDDEN = {"tags": ["hide-input"], "jupyter": {"source_hidden": True}}
# one that draws what was trained before the reader's eyes: see `keeping_live`
LIVE = {"tags": ["live"]}
# the rest is for readers
FIELDS = (("kernelspec", "name"), ("kernelspec", "language"), ("language_info", "name"))


def paths() -> list[Path]:
    return [FOLDER / f"{name}.ipynb" for name in NAMES]


def read(path: Path) -> nbformat.NotebookNode:
    """A valid notebook of nbformat 4, as `normal` makes it; `InputError` for anything else."""
    remedy = f"restore it with `git checkout HEAD -- {path}`"
    with errors_naming(path, "notebook", remedy, Exception):
        notebook = nbformat.reader.reads(path.read_text("utf-8"))
        if notebook.nbformat != 4:
            raise ValueError(f"nbformat {notebook.nbformat}, expected 4")
        notebook = normal(notebook)
        nbformat.validate(notebook)
        return notebook


async def execute(path: Path) -> nbformat.NotebookNode:
    """Run every cell in this interpreter's environment, and leave out times, versions and machine
    names.

    What the cells write to standard error is told and left out: it is the machine's warnings, or
    says that something is trained. Raises `InputError` for a notebook that cannot be read, a cell
    that fails and a kernel that dies.
    """
    notebook = read(path)
    await run(notebook, path)
    for cell in notebook.cells:
        for output in [
            output for output in cell.get("outputs", []) if output.get("name") == "stderr"
        ]:
            tqdm.write(f"{path.name}: {output.text.strip()}", file=sys.stderr)
            cell.outputs.remove(output)
    notebook.metadata = nbformat.from_dict(METADATA)
    return keeping_live(normal(notebook), path)


def keeping_live(notebook: nbformat.NotebookNode, path: Path) -> nbformat.NotebookNode:
    """Cells with the tag `live` draw what was trained before the reader's eyes: on another
    processor such a picture differs in single pixels. Where neither the notebook nor hw2/ differs
    from what is committed, the committed output stays.
    """
    with suppress(OSError, ValueError):  # an archive, or a notebook from elsewhere
        if environment.uncommitted():
            return notebook
        text = environment.git("show", f"HEAD:{path.relative_to(PROJECT).as_posix()}")
        committed = normal(nbformat.reads(text, 4))
        if [cell.source for cell in committed.cells] == [cell.source for cell in notebook.cells]:
            for cell, old in zip(notebook.cells, committed.cells, strict=True):
                if cell.metadata == LIVE:
                    cell.outputs = old.outputs
    return notebook


def normal(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy without what JupyterLab and other front ends rewrite: only sources, outputs, kernel,
    language and tags.

    An output without data, which a progress bar leaves and no reader sees, is left out.
    """
    copy = nbformat.from_dict(notebook)
    copy.nbformat_minor = 5  # the first whose cells have ids
    for number, cell in enumerate(copy.cells, start=1):
        cell.id = f"cell-{number:02d}"
        tags = cell.metadata.get("tags")
        metadata = HIDDEN if tags == HIDDEN["tags"] else {"tags": tags} if tags else {}
        cell.metadata = nbformat.from_dict(metadata)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("data") != {}]
    fields = [copy.metadata.get(part, {}).get(name) for part, name in FIELDS]
    if fields == [METADATA[part][name] for part, name in FIELDS]:
        copy.metadata = nbformat.from_dict(METADATA)
    return copy


async def run(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Run in a kernel of this interpreter, with nothing of the user's but the variables in
    `PASSED`.
    """
    client = NotebookClient(
        notebook, timeout=None, kernel_name="python3", record_timing=False, coalesce_streams=True
    )
    manager = client.create_kernel_manager()
    manager.kernel_spec.argv = [
        sys.executable,
        "-m",
        "ipykernel_launcher",
        "-f",
        "{connection_file}",
    ]
    passed = {name: os.environ[name] for name in PASSED if name in os.environ}
    # a kernel's folder is that of its notebook
    for name in {"HW2_DATA", "HW2_OUT"} & passed.keys():
        passed[name] = passed[name] and os.path.abspath(os.path.expanduser(passed[name]))
    short = len(os.fsencode(tempfile.gettempdir())) <= LONGEST
    with tempfile.TemporaryDirectory(prefix="hw2-", dir=None if short else "/tmp") as private:
        # sockets in a private folder; TCP's are open to the machine's other users
        if hasattr(socket, "AF_UNIX"):
            manager.transport, manager.ip = "ipc", f"{private}/kernel"
        # Not by client.execute, whose handlers of signals end one of several kernels.
        try:
            await client.async_start_new_kernel(
                cwd=str(path.parent), env=passed | {"IPYTHONDIR": private}
            )
            await client.async_start_new_kernel_client()
            for index, cell in enumerate(notebook.cells):
                await client.async_execute_cell(cell, index, client.code_cells_executed + 1)
        except CellExecutionError as error:
            raise InputError(f"{path}: {error.ename}: {error.evalue}") from error
        except RuntimeError as error:
            # a request to end, which nbclient takes for the kernel's death
            if asyncio.current_task().cancelling():
                raise asyncio.CancelledError from None
            raise InputError(
                f"{path}: {error}: was it killed, or out of memory? Run it again"
            ) from error
        finally:
            if manager.has_kernel:
                await manager.shutdown_kernel(now=True)
            if client.kc:
                client.kc.stop_channels()


def script(notebook: nbformat.NotebookNode) -> str:
    """The notebook as a .py file in jupytext's percent format, without a header that would go
    stale.
    """
    copy = nbformat.from_dict(notebook)
    copy.metadata = nbformat.from_dict({"jupytext": {"notebook_metadata_filter": "-all"}})
    return jupytext.writes(copy, fmt="py:percent")


async def execute_all(target: Path) -> None:
    """Execute the notebooks, each written into `target` once it is whole.

    Where one fails, the others are ended.
    """
    slots = asyncio.Semaphore(AT_ONCE)
    with suppress(NotImplementedError):  # Windows
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)

    async def one(path: Path) -> None:
        async with slots:
            notebook = await execute(path)
        write_text(target / path.name, nbformat.writes(notebook) + "\n")
        if target == FOLDER:
            write_text(path.with_suffix(".py"), script(notebook))
        bar.update()

    with tqdm(desc="notebooks", unit="notebook", total=len(NAMES)) as bar:
        async with asyncio.TaskGroup() as group:
            for path in paths():
                group.create_task(one(path))


def main() -> None:
    profile = Store().profile
    try:
        asyncio.run(execute_all(FOLDER if profile == "full" else home(profile) / "notebooks"))
    except asyncio.CancelledError:
        raise Ended("the notebooks were ended by SIGTERM") from None
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


if __name__ == "__main__":
    with told_in_a_line():
        main()
