"""What readers see: figures, tables, report.md. A module a notebook holds its figures and tables, data and drawing."""

from __future__ import annotations

import pandas as pd

from hw2.errors import InputError
from hw2.report import nb01_teacher, nb02_distillation, nb03_pruning, nb04_summary, style
from hw2.report.source import Source

_MODULES = (nb01_teacher, nb02_distillation, nb03_pruning, nb04_summary)
FIGURES: dict[str, style.Plot] = {name: plot for module in _MODULES for name, plot in module.FIGURES.items()}
TABLES: dict[str, style.Table] = {name: table for module in _MODULES for name, table in module.TABLES.items()}


def figure(name: str) -> style.Plot:
    """The figure of that name, or `InputError`."""
    if name not in FIGURES:
        raise InputError(f"figure {name!r}: expected one of {', '.join(FIGURES)}")
    return FIGURES[name]


def show(name: str, profile: str | None = None):
    """A figure as a notebook shows it, drawn from the runs as they are now: byte for byte the PNG in figures/."""
    from IPython.display import Image

    plot = figure(name)
    return Image(style.files(plot, Source(profile), kinds=("png",))["png"], alt=plot.alt)


def table(name: str, profile: str | None = None) -> pd.DataFrame:
    """A table as report.md shows it, made from the runs as they are now; its first column is the index."""
    if name not in TABLES:
        raise InputError(f"table {name!r}: expected one of {', '.join(TABLES)}")
    frame = TABLES[name].in_words(Source(profile))
    return frame.set_index(frame.columns[0])
