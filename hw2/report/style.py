"""One style for all figures; tables, in numbers first and in words last."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import matplotlib
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from hw2.experiments.store import Store
from hw2.report.statistics import spread

# Okabe and Ito's colours, which colour-blind readers can tell apart
BLUE = "#0072B2"
ORANGE = "#E69F00"
GREEN = "#009E73"
VERMILION = "#D55E00"
GREY = "#666666"
COLOURS = (BLUE, VERMILION, GREEN, ORANGE, "#CC79A7", "#56B4E9", "#000000", GREY)
MARKERS = "os^DvPX*"
STYLE = Path(__file__).with_name("templates") / "hw2.mplstyle"
# no date and no version
METADATA = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}


class Plot(NamedTuple):
    """A figure: how it is drawn from the runs, and what it shows."""

    draw: Callable[[Store], Figure]
    alt: str


class Table(NamedTuple):
    """A table: rows in numbers; how columns are written (lists are accuracies, where not said)."""

    rows: Callable[[Store], list[dict]]
    written: dict[str, Callable[[object], str]]

    def in_words(self, store: Store) -> pd.DataFrame:
        rows = self.rows(store)
        return pd.DataFrame([{name: self._word(name, row[name]) for name in row} for row in rows])

    def _word(self, column: str, value: object) -> str:
        if value is None:
            return ""
        if column in self.written:
            return self.written[column](value)
        if isinstance(value, list):
            return spread(value)
        if isinstance(value, float):
            return f"{value:.2f}"
        return f"{value:,}" if isinstance(value, int) else str(value)


FIGURES: dict[str, Plot] = {}
TABLES: dict[str, Table] = {}


def plot(alt: str):
    """Decorator: the function draws the figure of its name."""

    def register(draw: Callable[[Store], Figure]) -> Callable[[Store], Figure]:
        FIGURES[draw.__name__] = Plot(draw, alt)
        return draw

    return register


def table(name: str, **written: Callable[[object], str]):
    """Decorator: the function gives the rows of the table of this name."""

    def register(rows: Callable[[Store], list[dict]]) -> Callable[[Store], list[dict]]:
        TABLES[name] = Table(rows, written)
        return rows

    return register


def files(plot: Plot, store: Store, kinds: tuple[str, ...] = ("png", "svg")) -> dict[str, bytes]:
    """The files of a figure by their endings; the user's settings do not matter."""
    with matplotlib.rc_context():
        matplotlib.style.use(["default", STYLE])
        figure = plot.draw(store)
        figure.draw_without_rendering()
        # The layout's solver leaves last digits that differ from process to process, and SVG names
        # hang on them.
        figure.set_layout_engine("none")
        for ax in figure.axes:
            ax.set_position(np.round(ax.get_position().bounds, 5))
        return {ending: saved(figure, ending) for ending in kinds}


def saved(figure: Figure, ending: str, **options) -> bytes:
    """The figure as a file, without date and version."""
    target = io.BytesIO()
    figure.savefig(target, format=ending, metadata=METADATA[ending], **options)
    return target.getvalue()


def panels(size: tuple[float, float], *grid: int, **options) -> tuple[Figure, Axes | np.ndarray]:
    """A figure of this size in inches, and its axes: one, or a grid of rows and columns."""
    figure = Figure(figsize=size)
    return figure, figure.subplots(*grid, **options)


def percent(axis, digits: int = 0) -> None:
    axis.set_major_formatter(PercentFormatter(1.0, decimals=digits))


def heat(
    matrix: np.ndarray, texts: dict, rows: tuple, columns: tuple, cmap: str, label: str
) -> Figure:
    """Coloured squares. texts: place -> (text, whether dark); rows, columns: labels, title."""
    figure, ax = panels((6.6, 5.4))
    picture = ax.imshow(matrix, cmap=cmap, aspect="auto")
    for (row, column), (text, dark) in texts.items():
        colour = "black" if dark else "white"
        ax.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    ax.set_xticks(range(len(columns[0])), columns[0], rotation=45, ha="right")
    ax.set_yticks(range(len(rows[0])), rows[0])
    ax.set(xlabel=columns[1], ylabel=rows[1])
    ax.grid(False)
    percent(figure.colorbar(picture, ax=ax, shrink=0.8, label=label).ax.yaxis, 1)
    return figure
