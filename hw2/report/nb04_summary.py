"""Notebook 04: the networks against each other, the delivered one at work, how fast things are."""

import numpy as np
import torch
from matplotlib.figure import Figure

from hw2.assignment import BASELINE, LIMIT
from hw2.data import CLASSES
from hw2.experiments import catalogue
from hw2.experiments.catalogue import EXPERIMENTS
from hw2.report import nb03_pruning, statistics, style
from hw2.report.comparisons import LOSS, losses, tested
from hw2.report.source import Source
from hw2.report.statistics import wilson
from hw2.report.style import (
    GREY,
    beside,
    distinct,
    draw_boxes,
    draw_heat,
    panels,
    percent,
    plot,
    table,
)

#: what was aimed at for the delivered recipe's mean on test, as written on 2026-11-26, before
#: full's students
AIMS = {"goal": 0.95, "floor": 0.945}
FEW = 20  # images: an accuracy of fewer says nothing
RATIOS = ("ratio", "ratio_low", "ratio_high")  # of the bench: a case's value divided by another's


@table("results", **LOSS)
def result_rows(source: Source) -> list[dict]:
    """The chain's networks side by side: parameters, seeds, accuracies and losses of the seeds."""
    rows = []
    for name, runs in source.group("chain").items():
        row = {
            "network": EXPERIMENTS[name].words,
            "parameters": runs[0].parameters,
            "seeds": len(runs),
            "validation": [run.val_accuracy for run in runs],
            "validation loss": losses(runs),
            "test": tested(runs),
        }
        rows.append(row)
        mirrored = [run.metrics["mirrored"] for run in runs if "mirrored" in run.metrics]
        if mirrored:
            totals = runs[0].metrics["val_total"], runs[0].metrics["test_total"]
            rows.append(
                {
                    "network": f"{row['network']}, image and mirror image averaged",
                    "parameters": runs[0].parameters,
                    "seeds": len(mirrored),
                    "validation": [one["val_correct"] / totals[0] for one in mirrored],
                    "validation loss": None,
                    "test": [one["test_correct"] / totals[1] for one in mirrored],
                }
            )
    return rows


def draw_networks(data: dict) -> Figure:
    figure, ax = panels((9, 4.6))
    sizes = [network["parameters"] for network in data["networks"]]
    for place, (network, colour, marker) in enumerate(distinct(data["networks"])):
        # networks of one size stand beside each other
        before = sizes[:place].count(sizes[place]) - (sizes.count(sizes[place]) - 1) / 2
        size = sizes[place] * 1.05**before
        ax.plot([size] * len(network["test"]), network["test"], "_", color=colour, ms=10)
        ax.plot(size, np.mean(network["test"]), marker, color=colour, ms=7, label=network["name"])
    for other in data["others"]:
        place = other["parameters"], other["accuracy"]
        ax.plot(*place, "D", color=GREY, mfc=GREY if other["chosen"] == "no" else "white")
        right = 0.9 < other["parameters"] / data["limit"] <= 1
        beside(
            ax,
            other["label"],
            place,
            (7, -3) if right else (-7, -3),
            ha="left" if right else "right",
        )
    ax.axvline(data["limit"], color=GREY, ls="--", lw=1)
    ax.axhline(data["baseline"], color=GREY, ls="--", lw=1)
    ax.set(xscale="log", xlim=(50_000, 300_000), xlabel="parameters", ylabel="test accuracy")
    ax.set_xticks((50_000, 100_000, 200_000), ("50,000", "100,000", "200,000"))
    ax.minorticks_off()
    percent(ax.yaxis, 1)
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2)
    return figure


@plot(
    draw_networks,
    "Test accuracy against parameters. Dashes: our seeds. Grey: what others published, hollow "
    "where the test set may have chosen it. Dashed lines: the limit and the baseline.",
)
def networks(source: Source) -> dict:
    """networks, a list of {name, row, parameters, test (of the seeds)} but for the teacher's;
    others, limit, baseline.
    """
    ours = [
        {"name": EXPERIMENTS[name].words, "row": name, "parameters": runs[0].parameters}
        | {"test": tested(runs)}
        for name, runs in source.group("chain").items()
        if name != "teacher" and tested(runs)
    ]
    others = nb03_pruning.public()
    return {"networks": ours, "others": others, "limit": LIMIT, "baseline": BASELINE}


@plot(
    draw_boxes,
    "How each network was made: what it started from, epochs, validation accuracy. Blue: the "
    "delivered chain. Grey: controls; those without an arrow learn from labels alone.",
)
def pipeline(source: Source) -> dict:
    """boxes and arrows; accuracies are means over the seeds."""
    main = ("teacher", "distilled", "compressed")
    chain, rows = source.group("chain"), catalogue.rows(source.profile)
    boxes = {}
    # parents first; each in the row of its parent, or in the next free one
    for name in sorted(chain, key=lambda name: (bool(rows[name].parent), name not in main)):
        run = chain[name][0]
        parent = rows[name].parent
        x = 0 if name == "teacher" else 2 if parent else 1
        y = boxes[parent]["place"][1] if parent else 0
        while [x, y] in [box["place"] for box in boxes.values()]:
            y -= 1
        epochs = " + ".join(str(fit.epochs) for fit in run.recipe.fits if fit.epochs)
        accuracy = np.mean([run.val_accuracy for run in chain[name]])
        text = f"{EXPERIMENTS[name].words}\n{run.parameters:,} parameters\n"
        text += f"{epochs} epochs, {accuracy:.2%}"
        boxes[name] = {"text": text, "place": [x, y], "main": name in main}
    views, ratio = source.run("teacher").recipe.views, source.delivered.recipe.ratio
    words = {
        "distilled": f"soft targets\nof {views} views",
        "compressed": f"sparse learning,\npruned by {ratio},\nfine-tuned",
    }
    number = {name: place for place, name in enumerate(boxes)}
    arrows = [
        [number[rows[name].parent or rows[name].teacher], number[name], words.get(name, "")]
        for name in boxes
        if rows[name].parent or rows[name].teacher
    ]
    return {"boxes": [*boxes.values()], "arrows": arrows}


@table("aims", **{"aimed at": "{:.1%}".format})
def aim_rows(source: Source) -> list[dict]:
    """What was aimed at and what came of it, for the delivered recipe's mean on test over the
    seeds.
    """
    reached, rows = tested(source.runs("compressed")), []
    for name, aim in AIMS.items():
        verdict = None if not reached else "met" if np.mean(reached) >= aim else "missed"
        rows.append({"": name, "aimed at": aim, "reached": reached, "verdict": verdict})
    return rows


@table("classes")
def class_rows(source: Source) -> list[dict]:
    """The delivered network on the test images by class: how many are right, what the others are
    taken for.
    """
    labels, predicted, rows = source.fashion.test_labels, source.answers(source.delivered), []
    for label, name in enumerate(CLASSES):
        counts = torch.bincount(predicted[labels == label], minlength=len(CLASSES))
        right, total = int(counts[label]), int(counts.sum())
        low, high = wilson(right, total)
        counts[label] = 0
        row = {
            "class": name,
            "right": f"{right:,} of {total:,}",
            "95 % interval": f"{low:.1%} to {high:.1%}",
        }
        most = f"{CLASSES[int(counts.argmax())]} ({int(counts.max())})" if counts.any() else None
        rows.append(row | {"most often taken for": most})
    return rows


def draw_confusion(data: dict) -> Figure:
    matrix = np.array(data["matrix"])
    wrong = np.where(np.eye(len(matrix), dtype=bool), np.nan, matrix / matrix.sum(1, keepdims=True))
    most = np.nanmax(wrong)
    texts = {
        place: (str(value), not wrong[place] > most / 2)
        for place, value in np.ndenumerate(matrix)
        if value
    }
    rows, columns = (CLASSES, "true class"), (CLASSES, "predicted class")
    return draw_heat(wrong, texts, rows, columns, "Blues", "share of the true class, errors")


@plot(
    draw_confusion,
    "The delivered network on the test set: images by true and predicted class. Colour: share "
    "of a row, errors only.",
)
def confusion(source: Source) -> dict:
    """matrix: counts (true class, predicted class)."""
    places = 10 * source.fashion.test_labels + source.answers(source.delivered)
    return {"matrix": torch.bincount(places, minlength=100).view(10, 10).tolist()}


def draw_reliability(data: dict) -> Figure:
    figure, (top, bottom) = panels((6, 5), 2, 1, height_ratios=(3, 1), sharex=True)
    top.plot([0, 1], [0, 1], color=style.GREY, ls="--", lw=1, label="perfectly calibrated")
    for arm, colour, marker in distinct(data["arms"]):
        label = f"{arm['name']}: expected calibration error {arm['error']:.2%}"
        shown = [
            value if count >= FEW else None
            for value, count in zip(arm["accuracy"], arm["count"], strict=True)
        ]
        top.plot(
            arm["confidence"], np.array(shown, float), color=colour, marker=marker, label=label
        )
        bottom.plot(arm["confidence"], arm["count"], color=colour, marker=marker, ms=4)
    top.set_ylabel("accuracy")
    top.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0))
    bottom.set(xlabel="confidence", ylabel="images", yscale="log")
    bottom.axhline(FEW, color=style.GREY, lw=1, ls=":")
    percent(top.yaxis)
    percent(bottom.xaxis)
    return figure


@plot(
    draw_reliability,
    f"Accuracy against confidence on validation. Points of under {FEW} images (dotted) are "
    f"left out.",
)
def reliability(source: Source) -> dict:
    """arms, a list of {name, confidence, accuracy, count (lists over the bins), error}: first
    seeds, on validation.
    """
    names = ("teacher", "distilled", "compressed")
    arms = {name: statistics.calibration(*source.confidences(source.run(name))) for name in names}
    return {
        "arms": [
            {"name": EXPERIMENTS[name].words, "row": name} | values for name, values in arms.items()
        ]
    }


def calibration_errors(source: Source, name: str) -> list[float]:
    """The expected calibration error on validation of each network of a row, by seed."""
    return [statistics.calibration(*source.confidences(run))["error"] for run in source.runs(name)]


@table(
    "bench",
    median=lambda value: f"{value:,.{0 if value >= 100 else 2}f}",
    **{name.replace("_", " "): "{:.2f}".format for name in RATIOS},
)
def bench_rows(source: Source) -> list[dict]:
    columns = ("name", "unit", "median", *RATIOS, "ratio_to")
    return [{name.replace("_", " "): row[name] for name in columns} for row in source.bench["rows"]]
