"""One function a figure: the data in (what stands in NAME.json), a matplotlib Figure out. Style and saving in one
place.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; curves differ in their markers as well.
"""

from __future__ import annotations

import io
import json

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from hw2.data import CLASSES

BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"
COLOURS = (BLUE, VERMILION, GREEN, ORANGE, "#CC79A7", "#56B4E9", "#000000", GREY)
MARKERS = "os^DvPX*"
STYLE = {
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e5e5",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "hw2",
    "svg.fonttype": "path",
}


def styled(draw):
    """Draw in the project's style, whatever style the notebook or the user's settings have."""

    def wrapped(data: dict) -> Figure:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(STYLE)
            figure = draw(data)
            figure.draw_without_rendering()  # lay out while the style is in force
            # The layout's solver leaves last digits that differ from process to process, and SVG names hang on them.
            figure.set_layout_engine("none")
            for ax in figure.axes:
                ax.set_position(np.round(ax.get_position().bounds, 5))
            return figure

    wrapped.__doc__, wrapped.__name__ = draw.__doc__, draw.__name__
    return wrapped


def render(figure: Figure, kind: str) -> bytes:
    """PNG or SVG bytes that hold no date and no version, so that drawing again gives the same."""
    target = io.BytesIO()
    empty = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}[kind]
    with matplotlib.rc_context({"svg.hashsalt": "hw2", "svg.fonttype": "path"}):
        figure.savefig(target, format=kind, metadata=empty)
    return target.getvalue()


def dump(data: dict) -> str:
    """The text of NAME.json."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False) + "\n"


def _images(axes, pictures: list, titles: list[str]) -> None:
    for ax, picture, title in zip(axes, pictures, titles, strict=True):
        ax.imshow(np.array(picture), cmap="gray_r", vmin=0, vmax=255, interpolation="nearest")
        ax.set_title(title, fontsize=8)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.grid(False)
        for spine in ax.spines.values():
            spine.set_visible(True)
            spine.set_color("#cccccc")


def _percent(ax, axis: str = "y", digits: int = 0) -> None:
    from matplotlib.ticker import PercentFormatter

    getattr(ax, f"{axis}axis").set_major_formatter(PercentFormatter(1.0, decimals=digits))


@styled
def samples(data: dict) -> Figure:
    """data: images, for each class a list of pictures (28 x 28, 0 to 255)."""
    rows = len(data["images"][0])
    figure = Figure(figsize=(9, 0.95 * rows + 0.3))
    grid = figure.subplots(rows, len(CLASSES))
    for column, name in enumerate(CLASSES):
        titles = [name] + [""] * (rows - 1)
        _images(grid[:, column], data["images"][column], titles)
    return figure


@styled
def curves(data: dict) -> Figure:
    """data: arms, a list of {name, epoch, val_loss, val_accuracy}; marks, optional [epoch, text] pairs.

    An arm may have train_loss: a loss with soft targets, which is no cross-entropy, must not stand beside val_loss.
    """
    many = len(data["arms"]) > 3
    figure = Figure(figsize=(11 if many else 9, 3.4))
    left, right = figure.subplots(1, 2)
    for arm, colour, marker in zip(data["arms"], COLOURS, MARKERS, strict=False):
        prefix = f"{arm['name']}: " if len(data["arms"]) > 1 else ""
        if "train_loss" in arm:
            left.plot(arm["epoch"], arm["train_loss"], ":", color=colour, marker=marker, ms=4, label="training loss")
        left.plot(arm["epoch"], arm["val_loss"], color=colour, marker=marker, ms=4, label=prefix + "validation loss")
        right.plot(arm["epoch"], arm["val_accuracy"], color=colour, marker=marker, ms=4, label=arm["name"])
    for epoch, text in data.get("marks", []):
        for ax in (left, right):
            ax.axvline(epoch, color=GREY, lw=1, ls="--")
        right.annotate(text, (epoch, 0.94), xycoords=("data", "axes fraction"), xytext=(4, 0),
                       textcoords="offset points", color=GREY, fontsize=9)  # fmt: skip
    left.set(xlabel="epoch", ylabel="loss", title="Loss")
    right.set(xlabel="epoch", ylabel="validation accuracy", title="Accuracy on the validation split")
    _percent(right)
    if many:
        right.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    else:
        left.legend()
    if 1 < len(data["arms"]) <= 3:
        right.legend(loc="lower right")
    if "note" in data:
        left.set_title("Loss on the validation split")
        figure.suptitle(data["note"], fontsize=10, color=GREY)
    for ax in (left, right):
        ax.xaxis.get_major_locator().set_params(integer=True)
    return figure


@styled
def confusion(data: dict) -> Figure:
    """data: matrix, counts (true class, predicted class)."""
    matrix = np.array(data["matrix"])
    share = matrix / matrix.sum(1, keepdims=True)
    figure = Figure(figsize=(6.6, 5.6))
    ax = figure.subplots()
    picture = ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*matrix.shape):
        if matrix[row, column]:
            colour = "white" if share[row, column] > 0.5 else "black"
            ax.text(column, row, matrix[row, column], ha="center", va="center", color=colour, fontsize=8)
    ax.set_xticks(range(10), CLASSES, rotation=45, ha="right")
    ax.set_yticks(range(10), CLASSES)
    ax.set(xlabel="predicted", ylabel="true")
    ax.grid(False)
    bar = figure.colorbar(picture, ax=ax, label="share of the true class", shrink=0.8)
    bar.outline.set_visible(False)
    return figure


@styled
def soft_targets(data: dict) -> Figure:
    """data: images, titles, temperatures, probabilities (image, temperature, class)."""
    count = len(data["images"])
    figure = Figure(figsize=(9, 1.75 * count))
    grid = figure.subplots(count, 2, width_ratios=(1, 6), squeeze=False)
    _images(grid[:, 0], data["images"], data["titles"])
    colours = (BLUE, ORANGE, GREEN, VERMILION)
    total = len(data["temperatures"])
    for ax, image in zip(grid[:, 1], data["probabilities"], strict=True):
        for number, (temperature, values) in enumerate(zip(data["temperatures"], image, strict=True)):
            place = np.arange(10) + (number - (total - 1) / 2) * 0.8 / total
            ax.bar(place, values, 0.8 / total, color=colours[number], label=f"T = {temperature:g}")
        ax.set_xticks(range(10), [""] * 10)
        ax.set_ylim(0, 1)
        ax.grid(axis="x", visible=False)
        _percent(ax)
    grid[-1, 1].set_xticks(range(10), CLASSES, fontsize=8)
    grid[0, 1].legend(ncols=total, loc="upper right", fontsize=8)
    return figure


@styled
def reliability(data: dict) -> Figure:
    """data: arms, a list of {name, confidence, accuracy, count (lists over the bins), error}; note, optional."""
    figure = Figure(figsize=(6, 5))
    top, bottom = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    top.plot([0, 1], [0, 1], color=GREY, ls="--", lw=1, label="perfectly calibrated")
    for arm, colour, marker in zip(data["arms"], COLOURS, MARKERS, strict=False):
        label = f"{arm['name']}: expected calibration error {arm['error']:.1%}"
        top.plot(arm["confidence"], arm["accuracy"], color=colour, marker=marker, label=label)
        bottom.plot(arm["confidence"], arm["count"], color=colour, marker=marker, ms=4)
    top.set_ylabel("accuracy")
    if "note" in data:
        figure.suptitle(data["note"], fontsize=9, color=GREY)
    top.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0))
    bottom.set(xlabel="confidence", ylabel="images", yscale="log")
    for axis, ax in (("y", top), ("x", bottom)):
        _percent(ax, axis)
    return figure


@styled
def tuning(data: dict) -> Figure:
    """data: temperatures, alphas, accuracy, spread (temperature, alpha; null for one seed), finalists, note."""
    accuracy = np.array(data["accuracy"])
    figure = Figure(figsize=(7, 4.2))
    ax = figure.subplots()
    picture = ax.imshow(accuracy, cmap="viridis", aspect="auto")
    middle = (accuracy.min() + accuracy.max()) / 2
    for (row, column), value in np.ndenumerate(accuracy):
        finalist = [data["temperatures"][row], data["alphas"][column]] in data["finalists"]
        spread = data["spread"][row][column]
        lines = [f"{value:.2%}", "" if spread is None else f"± {100 * spread:.2f}", "finalist" if finalist else ""]
        text = "\n".join(line for line in lines if line)
        ax.text(column, row, text, ha="center", va="center", color="black" if value > middle else "white",
                weight="bold" if finalist else "normal", fontsize=9)  # fmt: skip
    ax.set_xticks(range(len(data["alphas"])), [f"{value:g}" for value in data["alphas"]])
    ax.set_yticks(range(len(data["temperatures"])), [f"{value:g}" for value in data["temperatures"]])
    ax.set(xlabel="alpha, weight of the KL term", ylabel="temperature")
    ax.set_title(data["note"], fontsize=10, color=GREY)
    ax.grid(False)
    from matplotlib.ticker import PercentFormatter

    bar = figure.colorbar(picture, ax=ax, label="validation accuracy", format=PercentFormatter(1.0, decimals=1))
    bar.outline.set_visible(False)
    return figure


@styled
def finalists(data: dict) -> Figure:
    """data: names, short and longer (accuracies over the seeds, for each setting), budgets (two texts)."""
    figure = Figure(figsize=(6, 3.6))
    ax = figure.subplots()
    for name, short, longer, colour, marker, shift in zip(
        data["names"], data["short"], data["longer"], COLOURS, MARKERS, (-0.03, 0.03), strict=False
    ):
        ax.plot([shift, 1 + shift], [np.mean(short), np.mean(longer)], color=colour, marker=marker, ms=9, label=name)
        for place, values in enumerate((short, longer)):
            ax.plot([place + shift] * len(values), values, ls="", color=colour, marker=marker, mfc="white", ms=5)
    ax.set_xticks([0, 1], data["budgets"])
    ax.set(ylabel="validation accuracy", xlim=(-0.4, 1.4))
    ax.grid(axis="x", visible=False)
    _percent(ax, digits=1)
    ax.legend(loc="upper left")
    return figure


@styled
def differences(data: dict) -> Figure:
    """data: names, reference, each (differences over the seeds), intervals ([mean, low, high]; low and high may be
    null), all in percentage points; note."""
    figure = Figure(figsize=(8.5, 0.5 * len(data["names"]) + 1.4))
    ax = figure.subplots()
    for row, (each, (mean, low, high)) in enumerate(zip(data["each"], data["intervals"], strict=True)):
        if low is not None:
            ax.plot([low, high], [row, row], color=BLUE, lw=2, label="95 % interval" if row == 0 else None)
        ax.plot(each, [row] * len(each), "o", mfc="white", color=GREY, ms=5, label="a seed" if row == 0 else None)
        ax.plot([mean], [row], "D", color=BLUE, ms=7, label="mean" if row == 0 else None)
    ax.axvline(0, color=GREY, ls="--", lw=1)
    ax.set_yticks(range(len(data["names"])), data["names"])
    ax.set_ylim(len(data["names"]) - 0.4, -0.6)
    ax.set_xlabel(f"validation accuracy minus that of {data['reference']}, percentage points")
    ax.set_title(data["note"], fontsize=9, color=GREY)
    ax.grid(axis="y", visible=False)
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


@styled
def agreement(data: dict) -> Figure:
    """data: rows, arms (a list of {name, share: for each row, over the seeds}), note."""
    figure = Figure(figsize=(8.5, 4.8))
    ax = figure.subplots()
    for number, arm in enumerate(data["arms"]):
        place = np.arange(len(data["rows"])) + (number - (len(data["arms"]) - 1) / 2) * 0.3
        means = [np.mean(values) for values in arm["share"]]
        ax.plot(means, place, ls="", color=COLOURS[number], marker=MARKERS[number], ms=7, label=arm["name"])
        for row, values in zip(place, arm["share"], strict=True):
            ax.plot([min(values), max(values)], [row, row], color=COLOURS[number], lw=1.5)
    ax.axhline(len(CLASSES) - 0.5, color=GREY, lw=1)
    ax.set_yticks(range(len(data["rows"])), data["rows"])
    ax.invert_yaxis()
    ax.set_xlabel("share of validation images on which student and teacher agree")
    ax.set_title(data["note"], fontsize=9, color=GREY)
    _percent(ax, "x")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


@styled
def norms(data: dict) -> Figure:
    """data: names, before and after (norms in order of size, for each group), removed (channels a group), note."""
    columns = 3
    rows = -(-len(data["names"]) // columns)
    figure = Figure(figsize=(9, 2.2 * rows + 0.5))
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for ax, name, before, after, removed in zip(
        axes, data["names"], data["before"], data["after"], data["removed"], strict=True
    ):
        place = np.arange(1, len(before) + 1)
        ax.axvspan(0.5, removed + 0.5, color="#eeeeee", lw=0)
        ax.plot(place, before, color=VERMILION, ls="--", label="before sparse learning")
        ax.plot(place, after, color=BLUE, label="after")
        ax.set_title(name, fontsize=9)
        ax.set(xlim=(0.5, len(before) + 0.5), ylim=(0, None))
    for ax in axes[::columns]:
        ax.set_ylabel("group norm")
    for ax in axes[-columns:]:
        ax.set_xlabel("channels, weakest first")
    axes[0].legend(loc="upper left", fontsize=8)
    figure.suptitle(f"{data['note']}; grey: channels that leave", fontsize=10, color=GREY)
    return figure


@styled
def frontier(data: dict) -> Figure:
    """data: parameters, ratios, validation (over the seeds, for each ratio), note; delivered {parameters, validation,
    test}; public, a list of {name, parameters, accuracy, chosen}; limit, the parameters that are allowed."""
    figure = Figure(figsize=(10.5, 5.4))
    whole, near = figure.subplots(1, 2, width_ratios=(5, 4))
    means = [np.mean(values) for values in data["validation"]]
    whole.plot(data["parameters"], means, color=BLUE, marker="o", ms=6, label=data["note"])
    for parameters, values, ratio, mean in zip(
        data["parameters"], data["validation"], data["ratios"], means, strict=True
    ):
        whole.plot([parameters] * len(values), values, ls="", marker="_", color=BLUE, ms=9)
        whole.annotate(f"{ratio:g}", (parameters, mean), xytext=(0, -16), textcoords="offset points", color=BLUE,
                       fontsize=8, ha="center")  # fmt: skip
    mine = [(split, data["delivered"][split]) for split in ("validation", "test") if data["delivered"][split]]
    for ax in (whole, near):
        for split, values in mine:
            label = f"the delivered recipe, mean over seeds: {split}"
            ax.plot([data["delivered"]["parameters"]], [np.mean(values)], ls="", marker="*", ms=14, label=label,
                    color=BLUE if split == "validation" else VERMILION)  # fmt: skip
        kinds = dict.fromkeys(one["chosen"] for one in data["public"])
        for kind, face in zip(kinds, ("white", GREY), strict=True):
            shown = [one for one in data["public"] if one["chosen"] == kind]
            ax.plot([one["parameters"] for one in shown], [one["accuracy"] for one in shown], ls="", marker="D",
                    mfc=face, color=GREY, ms=6, label=f"others, {kind}: test")  # fmt: skip
        _percent(ax, digits=1)
        ax.set(xlabel="parameters", ylabel="accuracy")
    small = [one for one in data["public"] if one["parameters"] <= data["limit"]]
    for one in data["public"]:
        ax, side = (near, 1) if one in small else (whole, -1)
        ax.annotate(one["name"], (one["parameters"], one["accuracy"]), xytext=(side * 9, 0), fontsize=8, va="center",
                    textcoords="offset points", ha="left" if side > 0 else "right", color=GREY)  # fmt: skip
    heights = [one["accuracy"] for one in small] + [np.mean(values) for _, values in mine]
    near.set(xlim=(0.83 * data["limit"], 1.2 * data["limit"]), ylim=(min(heights) - 0.002, max(heights) + 0.002))
    near.set_title(f"at most {data['limit']:,} parameters")
    near.set_xticks([85_000, 95_000, 105_000], ["85,000", "95,000", "105,000"])
    whole.set(xscale="log", title="pruned by several ratios")
    ticks = [20_000, 50_000, 100_000, 200_000]
    whole.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    whole.minorticks_off()
    figure.legend(*whole.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    return figure


@styled
def phases(data: dict) -> Figure:
    """data: names, sparse (accuracy with sparse learning), direct (without; None where there is no such phase)."""
    figure = Figure(figsize=(8, 3.8))
    ax = figure.subplots()
    place = np.arange(len(data["names"]))
    ax.plot(place, data["sparse"], color=BLUE, marker="o", label="with sparse learning (the delivered network)")
    known = [number for number, value in enumerate(data["direct"]) if value is not None]
    ax.plot(known, [data["direct"][number] for number in known], color=VERMILION, marker="s", ls="--",
            label="pruned without sparse learning")  # fmt: skip
    for number, value in enumerate(data["sparse"]):
        ax.annotate(f"{value:.1%}", (number, value), xytext=(0, 8), textcoords="offset points", ha="center",
                    color=BLUE, fontsize=9)  # fmt: skip
    for number in known[1:]:
        value = data["direct"][number]
        ax.annotate(f"{value:.1%}", (number, value), xytext=(0, -14), textcoords="offset points", ha="center",
                    color=VERMILION, fontsize=9)  # fmt: skip
    ax.set_xticks(place, data["names"])
    ax.set(ylabel="validation accuracy", ylim=(-0.08, 1.1))
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    _percent(ax)
    return figure


@styled
def arms(data: dict) -> Figure:
    """data: names, parameters, validation and test (lists over the seeds, for each arm), baseline."""
    figure = Figure(figsize=(8, 0.62 * len(data["names"]) + 1.3))
    ax = figure.subplots()
    for row, (validation, test) in enumerate(zip(data["validation"], data["test"], strict=True)):
        ax.plot(validation, [row - 0.12] * len(validation), "o", mfc="white", color=BLUE, ms=8,
                label="validation" if row == 0 else None)  # fmt: skip
        ax.plot(test, [row + 0.12] * len(test), "D", color=VERMILION, ms=7, label="test" if row == 0 else None)
    ax.axvline(data["baseline"], color=GREY, ls="--", lw=1)
    ax.annotate("baseline", (data["baseline"], 1), xycoords=("data", "axes fraction"), xytext=(3, 2),
                textcoords="offset points", color=GREY, fontsize=9)  # fmt: skip
    labels = [f"{name}\n{count:,} parameters" for name, count in zip(data["names"], data["parameters"], strict=True)]
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.set_xlabel("accuracy")
    _percent(ax, "x", 1)
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


@styled
def predictions(data: dict) -> Figure:
    """data: images, true (class numbers), probabilities (image, class)."""
    count = len(data["images"])
    columns = 5
    figure = Figure(figsize=(10, 2.25 * (count // columns)))
    grid = figure.subplots(count // columns, 2 * columns, width_ratios=(1, 1.1) * columns, squeeze=False)
    for number in range(count):
        row, column = divmod(number, columns)
        left, right = grid[row, 2 * column], grid[row, 2 * column + 1]
        values, true = data["probabilities"][number], data["true"][number]
        _images([left], [data["images"][number]], [CLASSES[true]])
        top = sorted(range(10), key=lambda label: (-values[label], label))[:3]
        colours = [GREEN if label == true else VERMILION for label in top]
        right.barh([0.2, 1.2, 2.2], [values[label] for label in top], 0.4, color=colours)
        for place, label in enumerate(top):
            right.text(0, place - 0.06, f"{CLASSES[label]} {values[label]:.0%}", fontsize=7.5, va="bottom")
        right.set(xlim=(0, 1.35), ylim=(2.6, -0.6))
        right.axis("off")
    return figure


@styled
def speed(data: dict) -> Figure:
    """data: panels, a list of {title, unit, names, values}; a bar for each name."""
    heights = [len(panel["names"]) for panel in data["panels"]]
    figure = Figure(figsize=(8.5, 0.36 * sum(heights) + 0.9 * len(heights)))
    axes = figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    for ax, panel in zip(axes, data["panels"], strict=True):
        place = range(len(panel["names"]))
        ax.barh(place, panel["values"], 0.62, color=BLUE)
        for row, value in zip(place, panel["values"], strict=True):
            ax.annotate(f"{value:,.{0 if value >= 100 else 2}f}", (value, row), xytext=(4, 0),
                        textcoords="offset points", va="center", fontsize=9)  # fmt: skip
        ax.set_yticks(place, panel["names"])
        ax.invert_yaxis()
        ax.set(xlabel=panel["unit"], title=panel["title"])
        ax.margins(x=0.1)
        ax.grid(axis="y", visible=False)
    return figure
