"""What readers see: figures, tables, report.md. A notebook's figures and tables have a module."""

import base64
import html

import pandas as pd

from hw2.errors import InputError, choose

try:
    from matplotlib.figure import Figure
except ValueError as error:  # of a setting that it does not know, such as MPLBACKEND
    raise InputError(f"matplotlib: {error}; correct MPLBACKEND or the matplotlibrc") from None

# Each registers its figures and tables.
from hw2.experiments.store import Store
from hw2.report import nb02_distillation, nb03_pruning, nb04_summary, style  # noqa: F401
from hw2.report.style import FIGURES, TABLES


def show(figure: str | Figure, caption: str = "", profile: str | None = None) -> None:
    """Display a figure and its caption, which is its alternative text as well.

    `figure` is the name of one in figures/, drawn from the runs as they are now, or one that a cell
    drew, with its caption. `InputError` where a drawn figure has none.
    """
    from IPython.display import HTML, display
    from matplotlib import pyplot

    if isinstance(figure, str):
        plot = choose("figure", FIGURES, figure)
        png, caption = style.files(plot, Store(profile), kinds=("png",))["png"], plot.alt
    else:
        if not caption:
            raise InputError("show: a drawn figure without a caption; tell what it shows")
        png = style.saved(figure, "png", bbox_inches="tight")
        pyplot.close(figure)  # the kernel would show it again
    display(HTML(picture(png, caption)))


def picture(png: bytes, caption: str) -> str:
    """HTML, since front ends take the alternative text of an image from nothing else."""
    words = html.escape(caption)
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return (
        f'<figure style="margin: 0"><img alt="{words}" src="{source}">'
        f"<figcaption><em>{words}</em></figcaption></figure>"
    )


def table(name: str, profile: str | None = None) -> pd.DataFrame:
    """A table as report.md shows it, of the runs as they are now, indexed by its first column."""
    frame = choose("table", TABLES, name).in_words(Store(profile))
    return frame.set_index(frame.columns[0]) if len(frame) else frame
