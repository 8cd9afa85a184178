"""Sentences that readers meet have at most 25 words."""

import re

import nbformat
import pytest

from hw2.data import PROJECT
from hw2.tools import notebooks

LONGEST = 25


def prose(path):
    """The text of a page or notebook, less code, tables, headings, formulas and addresses of links."""
    text = path.read_text("utf-8")
    if path.suffix == ".ipynb":
        cells = nbformat.reads(text, as_version=4).cells
        text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    text = re.sub(r"```.*?```|<!--.*?-->|\$\$.*?\$\$|<[^>]+>|^[#|].*$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`]*`|\$[^$]*\$", "X", re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text))


def sentences(text):
    blocks = re.split(r"\n\s*\n|\n\s*(?:[-*]|\d+\.)\s", text)
    return [one for block in blocks for one in re.split(r"(?<=[.!?])\s+(?=[A-Z\"(])", " ".join(block.split()))]


@pytest.mark.parametrize(
    "path", [*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md"), *notebooks.paths()], ids=lambda path: path.name
)
def test_sentences_are_short(path):
    assert [one for one in sentences(prose(path)) if len(re.findall(r"[\w%'’.,+-]*\w", one)) > LONGEST] == []


def test_a_long_sentence_is_seen():
    assert [len(one.split()) for one in sentences("One two. " + "Word " * 31 + "end.\n\n- A B `c d` e.")] == [2, 32, 6]
