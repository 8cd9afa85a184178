"""One style for all figures, and what several of them draw alike; tables, in numbers first and in
words last.
"""

import io
import json
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

from hw2.errors import InputError
from hw2.report.source import Source
from hw2.report.statistics import spread

# Okabe and Ito's colours, which colour-blind readers can tell apart; curves differ in their markers
# as well
BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"
COLOURS = (BLUE, VERMILION, GREEN, ORANGE, "#CC79A7", "#56B4E9", "#000000", GREY)
MARKERS = "os^DvPX*"
# these colours, in every figure
ROWS = (
    "distilled",
    "plain",
    "compressed",
    "teacher",
    "scratch",
    "unpruned",
    "narrow",
    "narrow_plain",
)
STYLE = Path(__file__).with_name("templates") / "hw2.mplstyle"
# no date and no version
METADATA = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}


class Plot(NamedTuple):
    """A figure: its data (what stands in NAME.json), how that is drawn, what it shows."""

    data: Callable[[Source], dict]
    draw: Callable[[dict], Figure]
    alt: str


class Table(NamedTuple):
    """A table: its rows, in numbers, and for some columns how a value is written.

    Other lists hold accuracies.
    """

    rows: Callable[[Source], list[dict]]
    written: dict[str, Callable[[object], str]]

    def in_words(self, source: Source) -> pd.DataFrame:
        return pd.DataFrame(
            [{name: self._word(name, row[name]) for name in row} for row in self.rows(source)]
        )

    def _word(self, column: str, value: object) -> str:
        if value is None:
            return ""
        if column in self.written:
            return self.written[column](value)
        if isinstance(value, float):
            return f"{value:.2f}"
        return (
            spread(value)
            if isinstance(value, list)
            else f"{value:,}"
            if isinstance(value, int)
            else str(value)
        )


FIGURES: dict[str, Plot] = {}
TABLES: dict[str, Table] = {}


def plot(draw: Callable[[dict], Figure], alt: str):
    """Decorator: the function gives the data of the figure of its name."""

    def register(data: Callable[[Source], dict]) -> Callable[[Source], dict]:
        FIGURES[data.__name__] = Plot(data, draw, alt)
        return data

    return register


def table(name: str, **written: Callable[[object], str]):
    """Decorator: the function gives the rows of the table of this name."""

    def register(rows: Callable[[Source], list[dict]]) -> Callable[[Source], list[dict]]:
        TABLES[name] = Table(rows, written)
        return rows

    return register


def files(plot: Plot, source: Source, kinds: tuple[str, ...] = ("png", "svg")) -> dict[str, bytes]:
    """The files of a figure by their endings, drawn from its JSON alone; the user's settings do not
    matter.
    """
    text = json.dumps(plot.data(source), separators=(",", ":"), allow_nan=False) + "\n"
    content = {"json": text.encode()}
    with matplotlib.rc_context():
        matplotlib.style.use(["default", STYLE])
        figure = plot.draw(json.loads(text))
        figure.draw_without_rendering()
        # The layout's solver leaves last digits that differ from process to process, and SVG names
        # hang on them.
        figure.set_layout_engine("none")
        for ax in figure.axes:
            ax.set_position(np.round(ax.get_position().bounds, 5))
        content |= {ending: saved(figure, ending) for ending in kinds}
    return content


def saved(figure: Figure, ending: str, **options) -> bytes:
    """The figure as a file, without date and version."""
    target = io.BytesIO()
    figure.savefig(target, format=ending, metadata=METADATA[ending], **options)
    return target.getvalue()


def panels(size: tuple[float, float], *grid: int, **options) -> tuple[Figure, Axes | np.ndarray]:
    """A figure of this size in inches, and its axes: one, or as many as rows and columns of the
    grid say.
    """
    figure = Figure(figsize=size)
    return figure, figure.subplots(*grid, **options)


def distinct(items: list) -> list[tuple]:
    """Each with a colour and a marker: a network's own ones, by its `row`.

    `InputError` where there are too few.
    """
    if len(items) > len(COLOURS):
        raise InputError(
            f"{len(items)} curves in a figure: readers can tell {len(COLOURS)} apart; draw fewer"
        )
    rows = [item.get("row") if isinstance(item, dict) else None for item in items]
    places = [ROWS.index(row) if row in ROWS else number for number, row in enumerate(rows)]
    return [
        (item, COLOURS[place], MARKERS[place]) for item, place in zip(items, places, strict=True)
    ]


def beside(ax, text: str, place: tuple, offset: tuple, colour: str = GREY, **options) -> None:
    """A text so many points away from a place in the data."""
    paper = {"fc": "white", "ec": "none", "alpha": 0.8, "pad": 0.5}  # over lines that it may lie on
    ax.annotate(
        text,
        place,
        xytext=offset,
        textcoords="offset points",
        color=colour,
        fontsize=8,
        bbox=paper,
        **options,
    )


def percent(axis, digits: int = 0) -> None:
    axis.set_major_formatter(PercentFormatter(1.0, decimals=digits))


def images(axes, pictures: list, titles: list[str]) -> None:
    """Pictures (28 x 28, 0 to 255), dark where the data set is bright, one on each of the axes."""
    for ax, picture, title in zip(axes, pictures, titles, strict=True):
        ax.imshow(np.array(picture), cmap="gray_r", vmin=0, vmax=255, interpolation="nearest")
        ax.set_title(title, fontsize=8)
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
        ax.spines[:].set(visible=True, color="#cccccc")


def draw_boxes(data: dict) -> Figure:
    """data: boxes, a list of {text, place [x, y], main (coloured)}; arrows, a list of [from, to,
    text], which turn halfway between two columns.
    """
    places = np.array([box["place"] for box in data["boxes"]])
    (left, bottom), (right, top) = places.min(0) - 0.5, places.max(0) + 0.5
    figure, ax = panels((9, 0.95 * (top - bottom)))
    ax.set(xlim=(left, right), ylim=(bottom, top))
    ax.axis("off")
    drawn = []
    for box in data["boxes"]:
        frame = {"boxstyle": "round,pad=0.5", "fc": "white", "ec": BLUE if box["main"] else GREY}
        text = ax.text(*box["place"], box["text"], ha="center", va="center", fontsize=9, bbox=frame)
        drawn.append(text)
    for start, end, text in data["arrows"]:
        (x, y), (to, height) = places[[start, end]]
        middle = (x + to) / 2
        ax.plot([x, middle, middle], [y, y, height], color=GREY, lw=1)
        head = {"arrowstyle": "->", "color": GREY, "shrinkA": 0}
        head["patchB"] = drawn[end].get_bbox_patch()
        ax.annotate("", (to, height), (middle, height), arrowprops=head)
        ax.text(middle, (y + height) / 2, text, ha="center", va="bottom", fontsize=8, color=GREY)
    return figure


def draw_heat(
    matrix: np.ndarray, texts: dict, rows: tuple, columns: tuple, cmap: str, label: str
) -> Figure:
    """A square a value, coloured; texts: (row, column) -> (text, whether it is dark); rows,
    columns: labels, title.
    """
    figure, ax = panels((6.6, 5.4))
    picture = ax.imshow(matrix, cmap=cmap, aspect="auto")
    for (row, column), (text, dark) in texts.items():
        ax.text(
            column,
            row,
            text,
            ha="center",
            va="center",
            color="black" if dark else "white",
            fontsize=8,
        )
    ax.set_xticks(range(len(columns[0])), columns[0], rotation=45, ha="right")
    ax.set_yticks(range(len(rows[0])), rows[0])
    ax.set(xlabel=columns[1], ylabel=rows[1])
    ax.grid(False)
    percent(figure.colorbar(picture, ax=ax, shrink=0.8, label=label).ax.yaxis, 1)
    return figure
