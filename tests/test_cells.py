"""Cells of the notebooks, run in this process: again and again, and where nothing is delivered."""

import ast
import io
import re
from contextlib import redirect_stdout

import matplotlib.pyplot as plt
import pytest
import torch
from helpers import contents
from test_notebooks import PATHS, code, read

from hw2 import report, training
from hw2.errors import InputError
from hw2.experiments import ledger
from hw2.experiments.run import root
from hw2.experiments.store import Store
from hw2.report import write


def run(source, names):
    """What a cell prints, and the value of its last line; it trains with few images."""
    module, value = ast.parse(source.replace("[:5000]", "[:256]")), None
    last = module.body.pop() if isinstance(module.body[-1], ast.Expr) else None
    with redirect_stdout(io.StringIO()) as printed:
        exec(compile(module, "cell", "exec"), names)
        if last:
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    return printed.getvalue(), repr(value)


@pytest.fixture
def quick(monkeypatch, data, no_training):
    """No figures are drawn, few images evaluated; answers to the test images are kept ones."""
    validate = training.validate
    answers = ledger.answers(Store().delivered)
    fewer = {
        (report, "show"): lambda *figure: plt.close("all"),
        (write, "write"): lambda profile: None,
        (training, "validate"): lambda network, *two: validate(network, *(one[:9] for one in two)),
        (training, "predict"): lambda network, images: answers[: len(images)],
        (ledger, "read_test_set"): lambda *_: pytest.fail("a notebook read the test set"),
    }
    for (owner, name), instead in fewer.items():
        monkeypatch.setattr(owner, name, instead)
    monkeypatch.delenv("HW2_OUT")  # the files that are graded are the project's
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    plt.rcdefaults()


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_any_earlier_cell_can_be_run_again(path, quick):
    """Each twice in a row, then each from the last to the first: it shows what it has shown."""
    names, shown = {}, []
    files = [*root("full").rglob("*")]
    before = [file.stat().st_mtime_ns for file in files]
    for cell in code(read(path)):
        source = cell.source.replace("_000]", "00]")  # fewer images
        shown.append((source, run(source, names)))
        assert run(source, names) == shown[-1][1]
    for source, first in reversed(shown):
        assert run(source, names) == first
    assert [*root("full").rglob("*")] == files
    assert [file.stat().st_mtime_ns for file in files] == before


def test_the_summary_reads_no_test_set_and_says_what_does(walk_done, no_training):
    (root("smoke") / "delivered.json").unlink()
    before, names = contents(root("smoke")), {}
    start, imports, loading, *_ = code(read(PATHS[3]))
    for cell in (start, imports):
        run(cell.source, names)
    told = r"delivered\.json: .*; `hw2 deliver --profile smoke` names the delivered"
    with pytest.raises(InputError, match=told):
        run(loading.source, names)
    assert contents(root("smoke")) == before


def test_the_summary_writes_what_it_grades_before_it_grades():
    text = "\n".join(cell.source for cell in code(read(PATHS[3])))
    assert re.findall(r"\.(write|grade)\(", text) == ["write", "grade"]
