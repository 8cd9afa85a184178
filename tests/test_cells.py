"""Cells of the notebooks, run in this process: again and again, and where nothing is delivered."""

import ast
import io
from contextlib import redirect_stdout

import pytest
from helpers import contents
from test_notebooks import PATHS, code, read

from hw2.errors import InputError
from hw2.experiments.run import root


def run(source, names):
    """What a cell prints, and the value of its last line."""
    module, value = ast.parse(source), None
    last = module.body.pop() if isinstance(module.body[-1], ast.Expr) else None
    with redirect_stdout(io.StringIO()) as printed:
        exec(compile(module, "cell", "exec"), names)
        if last:
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    return printed.getvalue(), repr(value)


def test_the_summary_reads_no_test_set_and_says_what_does(walk_done, no_training):
    (root("smoke") / "delivered.json").unlink()
    before, names = contents(root("smoke")), {}
    start, imports, *_ = code(read(PATHS[3]))
    run(start.source, names)
    with pytest.raises(InputError, match=r"delivered\.json: .*; `hw2 deliver --profile smoke` names the delivered"):
        run(imports.source, names)
    assert contents(root("smoke")) == before
