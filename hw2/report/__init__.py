"""What readers see: figures, tables, report.md. A module a notebook holds its figures and tables, data and drawing."""

import pandas as pd

from hw2 import lazily

# The first prepares matplotlib for the others, which register their figures and tables.
from hw2.report import backend, nb01_teacher, nb02_distillation, nb03_pruning, nb04_summary, style  # noqa: F401
from hw2.report.source import Source
from hw2.report.style import FIGURES, TABLES

__getattr__ = lazily(__name__)


def show(name: str, profile: str | None = None) -> None:
    """Display a figure, drawn from the runs as they are now: byte for byte the PNG in figures/. Its caption follows.

    The caption is its alternative text, which JupyterLab and nbconvert take from no image.
    """
    from IPython.display import Image, Markdown, display

    plot = FIGURES[name]
    display(Image(style.files(plot, Source(profile), kinds=("png",))["png"], alt=plot.alt), Markdown(f"*{plot.alt}*"))


def table(name: str, profile: str | None = None) -> pd.DataFrame:
    """A table as report.md shows it, made from the runs as they are now; its first column is the index."""
    frame = TABLES[name].in_words(Source(profile))
    return frame.set_index(frame.columns[0]) if len(frame) else frame
