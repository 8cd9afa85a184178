"""What readers see: figures, tables, report.md. A notebook's figures and tables have a module."""

import pandas as pd

from hw2.errors import InputError, choose

try:
    import matplotlib  # noqa: F401
except ValueError as error:  # of a setting that it does not know, such as MPLBACKEND
    raise InputError(f"matplotlib: {error}; correct MPLBACKEND or the matplotlibrc") from None

# Each registers its figures and tables.
from hw2.report import nb01_teacher, nb02_distillation, nb03_pruning, nb04_summary, style  # noqa: F401
from hw2.report.source import Source
from hw2.report.style import FIGURES, TABLES


def show(name: str, profile: str | None = None) -> None:
    """Display a figure, drawn from the runs as they are now, and its caption.

    It is byte for byte the PNG in figures/. The caption is its alternative text, which JupyterLab
    and nbconvert take from no image.
    """
    from IPython.display import Image, Markdown, display

    plot = choose("figure", FIGURES, name)
    content = style.files(plot, Source(profile), kinds=("png",))["png"]
    display(Image(content, alt=plot.alt), Markdown(f"*{plot.alt}*"))


def table(name: str, profile: str | None = None) -> pd.DataFrame:
    """A table as report.md shows it, made from the runs as they are now.

    Its first column is the index.
    """
    frame = choose("table", TABLES, name).in_words(Source(profile))
    return frame.set_index(frame.columns[0]) if len(frame) else frame
