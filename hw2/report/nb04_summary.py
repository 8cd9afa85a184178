"""Notebook 04: the networks against each other, the delivered one at work, how fast things are."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from hw2 import pictures, training
from hw2.assignment import BASELINE
from hw2.data import CLASSES
from hw2.experiments import catalogue
from hw2.report import statistics, style
from hw2.report.nb02_distillation import by_seed
from hw2.report.source import Source
from hw2.report.statistics import bounds, points, rounded, spread, wilson
from hw2.report.style import GREY, Plot, Table, beside, distinct, draw_rows, images, percent, plot

FIGURES: dict[str, Plot] = {}
#: profile -> network, where its mean over seeds is judged, and the accuracy that we aimed at before training; of two
#: for one network the lower is the floor
AIMS = {
    "smoke": (),
    "cpu": (("distilled", "validation", 0.945), ("compressed", "test", 0.945)),
    "full": (("compressed", "test", 0.95), ("compressed", "test", 0.945)),  # 2026-11-26, before any student was trained
}
PAIRS = (
    ("distilled", "plain"),
    ("compressed", "distilled"),
    ("compressed", "plain"),
    ("compressed", "scratch"),
    ("compressed", "unpruned"),
)
SPEEDS = {"images/s": "Training, images a second", "ms": "A single image, milliseconds"}


def result_rows(source: Source) -> list[dict]:
    """The chain's networks side by side: parameters, seeds, accuracies over the seeds, the command that makes each."""
    return [
        {
            "network": catalogue.row(name).words,
            "parameters": runs[0].metrics["parameters"],
            "seeds": len(runs),
            "validation": [run.val_accuracy for run in runs],
            "test": [run.test_accuracy for run in runs if run.test_accuracy is not None],
            "made by": f"hw2 train {name} --profile {source.profile}",
        }
        for name, runs in source.group("chain").items()
    ]


@plot(FIGURES, draw_rows, "Validation and test accuracy of the networks with their parameters.", "chain")
def arms(source: Source) -> dict:
    found, note = result_rows(source), f"line: the baseline, {BASELINE:.1%}"
    rows = [f"{row['network']}\n{row['parameters']:,} parameters" for row in found]
    series = [{"name": split, "each": [row[split] for row in found]} for split in ("validation", "test")]
    return {"rows": rows, "series": series, "axis": "accuracy", "note": note, "line": BASELINE, "percent": 1}


def pair_rows(source: Source) -> list[dict]:
    """Differences in percentage points, paired by seed; McNemar's test of the first pair on the test images.

    A run whose test set was not read stays unread: only its validation counts.
    """
    labels, rows = source.fashion.test_labels, []
    for one, other in PAIRS:
        pairs = by_seed(source.runs(one), source.runs(other))
        read = [pair for pair in pairs if all(run.test_accuracy is not None for run in pair)]
        found = {"validation": [[run.val_accuracy for run in pair] for pair in pairs]}
        found["test"] = [[run.test_accuracy for run in pair] for pair in read]
        row = {"difference": f"{catalogue.row(one).words}, minus {catalogue.row(other).words}", "seeds": len(pairs)}
        for split, values in found.items():
            row[split] = statistics.paired(*100 * np.transpose(values)) if values else None
        row |= {"only one right": None, "p": None}
        if read:
            *counts, row["p"] = statistics.mcnemar(*(source.answers(run) == labels for run in read[0]))
            row["only one right"] = counts
        rows.append(row)
    return rows


def aim_rows(source: Source) -> list[dict]:
    """What was aimed at and what came of it, for the means over the seeds."""
    rows, found = [], {row["network"]: row for row in result_rows(source)}
    for name, split, aim in AIMS[source.profile]:
        words = catalogue.row(name).words
        values = found[words][split]
        verdict = None if not values else "met" if sum(values) / len(values) >= aim else "missed"
        rows.append({"network": words, "on": split, "aimed at": aim, "reached": values, "verdict": verdict})
    return rows


def class_rows(source: Source) -> list[dict]:
    """The delivered network on the test images by class: how many are right, what the others are taken for."""
    labels, predicted, rows = source.fashion.test_labels, source.answers(source.delivered), []
    for label, name in enumerate(CLASSES):
        counts = torch.bincount(predicted[labels == label], minlength=len(CLASSES))
        right = int(counts[label]), int(counts.sum())
        counts[label] = 0
        most = (CLASSES[int(counts.argmax())], int(counts.max())) if counts.any() else None
        rows.append({"class": name, "right": right, "95 % interval": wilson(*right), "most often taken for": most})
    return rows


def draw_reliability(data: dict) -> Figure:
    figure = Figure(figsize=(6, 5))
    top, bottom = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    top.plot([0, 1], [0, 1], color=GREY, ls="--", lw=1, label="perfectly calibrated")
    for arm, colour, marker in distinct(data["arms"]):
        label = f"{arm['name']}: expected calibration error {arm['error']:.1%}"
        top.plot(arm["confidence"], arm["accuracy"], color=colour, marker=marker, label=label)
        bottom.plot(arm["confidence"], arm["count"], color=colour, marker=marker, ms=4)
    top.set_ylabel("accuracy")
    top.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0))
    bottom.set(xlabel="confidence", ylabel="images", yscale="log")
    percent(top.yaxis)
    percent(bottom.xaxis)
    return figure


@plot(
    FIGURES, draw_reliability, "Accuracy against confidence of teacher, distilled and delivered network on validation.",
    "teacher", "distilled", "compressed",
)  # fmt: skip
def reliability(source: Source) -> dict:
    """arms, a list of {name, confidence, accuracy, count (lists over the bins), error}: first seeds, on validation."""
    names = ("teacher", "distilled", "compressed")
    found = {name: statistics.calibration(*source.confidences(name)) for name in names}
    return {"arms": [{"name": catalogue.row(name).words} | values for name, values in found.items()]}


def draw_predictions(data: dict) -> Figure:
    rows = len(data["images"]) // 5
    figure = Figure(figsize=(10, 2.25 * rows))
    grid = figure.subplots(rows, 10, width_ratios=(1, 1.1) * 5, squeeze=False).reshape(-1, 2)
    images(grid[:, 0], data["images"], [CLASSES[true] for true in data["true"]])
    for ax, true, values in zip(grid[:, 1], data["true"], data["probabilities"], strict=True):
        top = sorted(range(len(CLASSES)), key=lambda label, values=values: (-values[label], label))[:3]
        colours = [style.GREEN if label == true else style.VERMILION for label in top]
        ax.barh([0.2, 1.2, 2.2], [values[label] for label in top], 0.4, color=colours)
        for place, label in enumerate(top):
            ax.text(0, place - 0.06, f"{CLASSES[label]} {values[label]:.0%}", fontsize=7.5, va="bottom")
        ax.set(xlim=(0, 1.35), ylim=(2.6, -0.6))
        ax.axis("off")
    return figure


def _shown(rows: Tensor, source: Source) -> dict:
    """images, true (class numbers), probabilities (image, class) of some test images, by the delivered network."""
    shown, true = source.fashion.test_images[rows], source.fashion.test_labels[rows]
    values = rounded(pictures.probabilities(source.delivered.network(), shown))
    return {"images": shown.tolist(), "true": true.tolist(), "probabilities": values}


@plot(FIGURES, draw_predictions, "A test image of each class with the three likeliest classes.", "compressed")
def demo(source: Source) -> dict:
    labels = source.fashion.test_labels
    return _shown(torch.stack([(labels == label).nonzero()[0, 0] for label in range(len(CLASSES))]), source)


@plot(FIGURES, draw_predictions, "The ten worst mistakes on the test set with three guesses each.", "compressed")
def mistakes(source: Source) -> dict:
    """The ten mistakes with the lowest probability for the true class."""
    data, network = source.fashion, source.delivered.network()

    def worst(rows: Tensor, values: Tensor, count: int) -> Tensor:
        true = values[torch.arange(len(rows)), data.test_labels[rows]]
        return rows[true.argsort(stable=True)[:count]]

    wrong = (source.answers(source.delivered) != data.test_labels).nonzero().flatten()
    # Exact probabilities are slow: they settle the order of the few that come into question.
    few = worst(wrong, training.logits_of(network, data.test_images[wrong]).softmax(1), 40)
    return _shown(worst(few, pictures.probabilities(network, data.test_images[few]), 10), source)


def _speed(value: float) -> str:
    return f"{value:,.{0 if value >= 100 else 2}f}"


def draw_speed(data: dict) -> Figure:
    figure = Figure(figsize=(8.5, 0.36 * len(data["rows"]) + 1.8))
    groups = {unit: [row for row in data["rows"] if row["unit"] == unit] for unit in SPEEDS}
    axes = figure.subplots(len(groups), 1, height_ratios=list(map(len, groups.values())))
    for ax, (unit, rows) in zip(axes, groups.items(), strict=True):
        ax.barh([row["name"] for row in rows], [row["median"] for row in rows], 0.62, color=style.BLUE)
        for place, row in enumerate(rows):
            beside(ax, _speed(row["median"]), (row["median"], place), (4, 0), va="center")
        ax.invert_yaxis()
        ax.set_title(SPEEDS[unit])
        ax.margins(x=0.1)
        ax.grid(axis="y", visible=False)
    return figure


@plot(FIGURES, draw_speed, "Measured speed of training and on a single image, side by side.", "bench")
def speed(source: Source) -> dict:
    """rows, a list of {name, unit, median}."""
    return {"rows": [{name: row[name] for name in ("name", "unit", "median")} for row in source.bench["rows"]]}


def _fraction(counts: tuple[int, int]) -> str:
    return f"{counts[0]:,} of {counts[1]:,}"


def _points_and_bounds(difference: statistics.Interval) -> str:
    return points(difference) + (f" ({bounds(difference)})" if bounds(difference) else "")


TABLES = {
    "results": Table(
        result_rows,
        {"network": str, "parameters": "{:,}".format, "seeds": "{:,}".format, "validation": spread, "test": spread,
         "made by": str},
    ),
    "pairs": Table(
        pair_rows,
        {"difference": str, "seeds": "{:,}".format, "validation": _points_and_bounds, "test": _points_and_bounds,
         "only one right": lambda counts: f"{counts[0]} : {counts[1]}",
         "p": lambda p: f"{p:.3f}" if p >= 0.001 else "< 0.001"},
    ),
    "aims": Table(
        aim_rows, {"network": str, "on": str, "aimed at": "{:.1%}".format, "reached": spread, "verdict": str}
    ),
    "classes": Table(
        class_rows,
        {"class": str, "right": _fraction, "95 % interval": lambda limits: f"{limits[0]:.1%} to {limits[1]:.1%}",
         "most often taken for": lambda most: f"{most[0]} ({most[1]})"},
    ),
    "bench": Table(
        lambda source: source.bench["rows"],
        {"name": str, "unit": str, "median": _speed, "ratio": "{:.2f}".format, "ratio_low": "{:.2f}".format,
         "ratio_high": "{:.2f}".format, "ratio_to": str},
    ),
}  # fmt: skip
