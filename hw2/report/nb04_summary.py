"""Notebook 04: the networks against each other, the delivered one at work, how fast things are."""

import io
import textwrap

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageOps
from torch import Tensor

import hw2
from hw2 import pictures
from hw2.assignment import BASELINE
from hw2.data import CLASSES
from hw2.experiments.catalogue import EXPERIMENTS
from hw2.experiments.run import Run
from hw2.report import statistics, style
from hw2.report.nb01_teacher import confused, draw_confusion
from hw2.report.nb02_distillation import difference, on_test, tested
from hw2.report.source import Source
from hw2.report.statistics import bounds, points, rounded, wilson
from hw2.report.style import distinct, draw_boxes, draw_rows, images, panels, percent, plot, table
from hw2.training import exact_logits, logits_of

#: what was aimed at for the delivered recipe's mean on test, as written on 2026-11-26, before
#: full's students
AIMS = {"goal": 0.95, "floor": 0.945}
PAIRS = (
    ("distilled", "plain"),
    ("compressed", "distilled"),
    ("compressed", "plain"),
    ("compressed", "scratch"),
    ("compressed", "unpruned"),
)
FEW = 20  # images: an accuracy of fewer says nothing
RATIOS = ("ratio", "ratio_low", "ratio_high")  # of the bench: a case's value divided by another's


@table("results")
def result_rows(source: Source) -> list[dict]:
    """The chain's networks side by side: parameters, seeds, accuracies over the seeds."""
    rows = []
    for name, runs in source.group("chain").items():
        row = {
            "network": EXPERIMENTS[name].words,
            "parameters": runs[0].parameters,
            "seeds": len(runs),
        }
        rows.append(row | {"validation": [run.val_accuracy for run in runs], "test": tested(runs)})
    return rows


@plot(draw_rows, "Validation and test accuracy of the networks. Filled: means, hollow: seeds.")
def networks(source: Source) -> dict:
    results, note = result_rows(source), f"dashed: the baseline, {BASELINE:.1%}"
    rows = [f"{row['network']}\n{row['parameters']:,} parameters" for row in results]
    series = [
        {"name": split, "each": [row[split] for row in results]} for split in ("validation", "test")
    ]
    return {
        "rows": rows,
        "series": series,
        "axis": "accuracy",
        "note": note,
        "line": BASELINE,
        "percent": 1,
    }


@plot(
    draw_boxes,
    "From the teacher to the delivered network, and the controls; accuracies on validation.",
)
def pipeline(source: Source) -> dict:
    """boxes and arrows; accuracies are means over the seeds."""
    main, controls, boxes = (
        ("teacher", "distilled", "compressed"),
        ("plain", "unpruned", "scratch"),
        [],
    )
    for number, name in enumerate(main + controls):
        runs, place = source.runs(name), (number % 3, 1 - number // 3)
        caption = (
            f"{runs[0].parameters:,} parameters, {np.mean([run.val_accuracy for run in runs]):.2%}"
        )
        text = textwrap.fill(EXPERIMENTS[name].words, 30) + f"\n{caption}"
        boxes.append({"text": text, "place": place, "main": name in main})
    views, ratio = source.run("teacher").recipe.views, source.delivered.recipe.ratio
    arrows = [
        [0, 1, f"soft targets\nof {views} views"],
        [1, 2, f"sparse learning,\npruned by {ratio},\nfine-tuned"],
    ]
    return {"boxes": boxes, "arrows": arrows}


def _points_and_bounds(interval: statistics.Interval) -> str:
    return points(interval) + (f" ({bounds(interval)})" if bounds(interval) else "")


def p_value(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def mcnemar(source: Source, first: Run, second: Run) -> tuple[int, int, float]:
    """`statistics.mcnemar` of two networks on the test images."""
    return statistics.mcnemar(
        *(source.answers(run) == source.fashion.test_labels for run in (first, second))
    )


@table("pairs", validation=_points_and_bounds, test=_points_and_bounds, p=p_value)
def pair_rows(source: Source) -> list[dict]:
    """Differences in percentage points, paired by seed; McNemar's test of the first pair on the
    test images.

    A run whose test set was not read stays unread: only its validation counts.
    """
    rows = []
    for name, reference in PAIRS:
        runs, references = source.runs(name), source.runs(reference)
        (differences, validation), test = difference(runs, references), on_test(runs, references)
        row = {"difference": f"{EXPERIMENTS[name].words}, minus {EXPERIMENTS[reference].words}"}
        row |= {
            "seeds": len(differences),
            "validation": validation,
            "test": test,
            "only one right": None,
            "p": None,
        }
        if test:
            first, second, row["p"] = mcnemar(source, runs[0], references[0])
            row["only one right"] = f"{first} : {second}"
        rows.append(row)
    return rows


def unlike(source: Source, name: str, other: str) -> list[str]:
    """What sets two rows' trainings apart besides what is asked: hardware, learning rate."""
    rows = source.runs(name), source.runs(other)
    machines = [{host["hardware"] for run in row for host in run.environments} for row in rows]
    rates = [row[0].recipe.fit.lr for row in rows]
    differs = {"hardware": machines[0] != machines[1], "learning rate": rates[0] != rates[1]}
    return [words for words in differs if differs[words]]


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


@plot(
    draw_confusion,
    "The delivered network on the test set: images by true and predicted class. Colour: share "
    "of a row, errors only.",
)
def confusion(source: Source) -> dict:
    return confused(source.fashion.test_labels, source.answers(source.delivered))


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


def draw_predictions(data: dict) -> Figure:
    figure, grid = panels((9, 5.6), 4, 5, height_ratios=(1.5, 1) * 2)
    images(grid[::2].flat, data["images"], [CLASSES[true] for true in data["true"]])
    for ax, true, values in zip(grid[1::2].flat, data["true"], data["probabilities"], strict=True):
        top = sorted(range(len(CLASSES)), key=lambda label, values=values: (-values[label], label))[
            :3
        ]
        colours = [style.GREEN if label == true else style.VERMILION for label in top]
        ax.barh([0.2, 1.2, 2.2], [values[label] for label in top], 0.4, color=colours)
        for place, label in enumerate(top):
            ax.text(
                0, place - 0.06, f"{CLASSES[label]} {values[label]:.0%}", fontsize=7.5, va="bottom"
            )
        ax.set(xlim=(0, 1.1), ylim=(2.6, -0.6))
        ax.axis("off")
    return figure


def _shown(rows: Tensor, source: Source) -> dict:
    """images, true (class numbers), probabilities (image, class) of some test images, by the
    delivered network.
    """
    shown, true = source.fashion.test_images[rows], source.fashion.test_labels[rows]
    values = rounded(pictures.probabilities(source.delivered.network(), shown))
    return {"images": shown.tolist(), "true": true.tolist(), "probabilities": values}


@plot(
    draw_predictions,
    "A test image of each class under its true class, and the three likeliest classes. Green: "
    "the true one.",
)
def demo(source: Source) -> dict:
    labels = source.fashion.test_labels
    return _shown(
        torch.stack([(labels == label).nonzero()[0, 0] for label in range(len(CLASSES))]), source
    )


@plot(
    draw_predictions,
    "The ten mistakes on the test set with the lowest probability of the true class (green).",
)
def mistakes(source: Source) -> dict:
    images, labels, network = (
        source.fashion.test_images,
        source.fashion.test_labels,
        source.delivered.network(),
    )
    rows = (source.answers(source.delivered) != labels).nonzero().flatten()
    # exact ones are slow: they settle the order of a few
    for count, logits in ((40, logits_of), (10, exact_logits)):
        true = logits(network, images[rows]).softmax(1)[torch.arange(len(rows)), labels[rows]]
        rows = rows[true.argsort(stable=True)[:count]]
    return _shown(rows, source)


def upload() -> None:
    """A button that takes a picture of one's own and shows its classes; for a live kernel."""
    import ipywidgets
    from IPython.display import display

    button, shown = ipywidgets.FileUpload(accept="image/*"), ipywidgets.Output()

    @shown.capture(clear_output=True)
    def predict(change: dict) -> None:
        for uploaded in button.value:  # none once the upload is cleared
            file = io.BytesIO(uploaded.content)
            file.name = uploaded.name  # for the line that tells of a file that is no picture
            likeliest = list(hw2.predict(file).items())[:3]
            picture = ImageOps.exif_transpose(Image.open(file))
            display(picture, {name: f"{value:.1%}" for name, value in likeliest})

    button.observe(predict, "value")
    display(button, shown)


@table(
    "bench",
    median=lambda value: f"{value:,.{0 if value >= 100 else 2}f}",
    **{name.replace("_", " "): "{:.2f}".format for name in RATIOS},
)
def bench_rows(source: Source) -> list[dict]:
    columns = ("name", "unit", "median", *RATIOS, "ratio_to")
    return [{name.replace("_", " "): row[name] for name in columns} for row in source.bench["rows"]]


@plot(
    draw_rows,
    "How many times as fast as another case each case is, with the range over the rounds.",
)
def speed(source: Source) -> dict:
    """Of every case that the bench compares with another: ratios of speed, which for a time is the
    inverse ratio.
    """
    rows = [row for row in source.bench["rows"] if row["ratio_to"]]
    ratios = [
        [row[name] if row["unit"] == "images/s" else 1 / row[name] for name in RATIOS]
        for row in rows
    ]
    names = [f"{row['name']},\nagainst {row['ratio_to']}" for row in rows]
    series = {
        "name": "median",
        "each": [[row[0]] for row in ratios],
        "bounds": [sorted(row[1:]) for row in ratios],
    }
    note = "ratios are taken within a round; bars: from the smallest to the largest of the rounds"
    return {
        "rows": names,
        "series": [series],
        "axis": "times as fast",
        "note": note,
        "line": 1,
        "percent": None,
    }
