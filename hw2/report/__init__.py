"""What readers see: figures, tables, report.md. A module a notebook holds its figures and tables, data and drawing."""

from __future__ import annotations

import pandas as pd

# The first prepares matplotlib for the others, which register their figures and tables.
from hw2.report import backend, nb01_teacher, nb02_distillation, nb03_pruning, nb04_summary, style  # noqa: F401
from hw2.report.source import Source
from hw2.report.style import FIGURES, TABLES


def show(name: str, profile: str | None = None):
    """A figure as a notebook shows it, drawn from the runs as they are now: byte for byte the PNG in figures/."""
    from IPython.display import Image

    return Image(style.files(FIGURES[name], Source(profile), kinds=("png",))["png"], alt=FIGURES[name].alt)


def table(name: str, profile: str | None = None) -> pd.DataFrame:
    """A table as report.md shows it, made from the runs as they are now; its first column is the index."""
    frame = TABLES[name].in_words(Source(profile))
    return frame.set_index(frame.columns[0]) if len(frame) else frame
