"""Notebook 01: the data, the teacher's training, where it errs, what its soft targets say."""

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from hw2 import distillation, training, views
from hw2.data import CLASSES
from hw2.experiments.run import Run
from hw2.report.source import Source
from hw2.report.statistics import rounded
from hw2.report.style import (
    distinct,
    draw_curves,
    draw_grid,
    draw_heat,
    images,
    panels,
    percent,
    plot,
)


@plot(draw_grid, "Four training images of each of the ten classes, dark on white.")
def samples(source: Source) -> dict:
    data, rows = source.fashion, source.fashion.split[0]
    examples = [rows[data.train_labels[rows] == label][:4] for label in range(len(CLASSES))]
    return {"images": data.train_images[torch.stack(examples, 1)].tolist(), "titles": CLASSES}


@plot(draw_grid, "Three training images in the first eight epochs: moved, mirrored.")
def shown_views(source: Source) -> dict:
    task = source.run("distilled").recipe.task(source.fashion)
    images = task.data.train_images
    shown = [views.cut(images, task.view(epoch), task.pad) for epoch in range(8)]
    chosen = torch.stack([view[task.train[:3]] for view in shown], dim=1)
    return {"images": chosen.tolist(), "titles": [f"epoch {epoch + 1}" for epoch in range(8)]}


def curve(runs: list[Run], name: str, *columns: str) -> dict:
    """Histories of some seeds as an arm of `draw_curves`; `columns` are of the first."""
    first = {column: runs[0].history[column].tolist() for column in ("epoch", *columns)}
    histories = {
        column: [run.history[column].tolist() for run in runs]
        for column in ("val_loss", "val_accuracy")
    }
    return {"name": name, "row": runs[0].recipe.stage, **first, **histories}


@plot(
    draw_curves,
    "The teacher by epoch. The training loss is of moved images, a mean over the epoch.",
)
def teacher_curves(source: Source) -> dict:
    return {"arms": [curve(source.runs("teacher"), "validation", "train_loss")]}


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


def confused(true: Tensor, predicted: Tensor) -> dict:
    """matrix: counts (true class, predicted class)."""
    return {"matrix": torch.bincount(10 * true + predicted, minlength=100).view(10, 10).tolist()}


@plot(
    draw_confusion,
    "The teacher on validation: images by true and predicted class. Colour: share of a row, "
    "errors only.",
)
def teacher_confusion(source: Source) -> dict:
    return confused(source.held_out[1], source.teacher_logits.argmax(1))


def draw_soft_targets(data: dict) -> Figure:
    count, total = len(data["images"]), len(data["temperatures"])
    figure, grid = panels((9, 1.6 * count), count, 2, width_ratios=(1, 6))
    images(grid[:, 0], data["images"], data["titles"])
    for ax, image in zip(grid[:, 1], data["probabilities"], strict=True):
        for number, (temperature, colour, _) in enumerate(distinct(data["temperatures"])):
            place = np.arange(10) + (number - (total - 1) / 2) * 0.8 / total
            ax.bar(place, image[number], 0.8 / total, color=colour, label=f"T = {temperature:g}")
        ax.set_xticks(range(10), CLASSES if ax is grid[-1, 1] else [""] * 10, fontsize=8)
        ax.set_ylim(0, 1)
        ax.grid(axis="x", visible=False)
        percent(ax.yaxis)
    grid[0, 1].legend(ncols=total, loc="lower right", bbox_to_anchor=(1.0, 1.0), fontsize=8)
    return figure


@plot(
    draw_soft_targets,
    "The teacher's probabilities for a clear and three doubtful images, at T = 1 and at the "
    "chosen T.",
)
def soft_targets(source: Source) -> dict:
    """The validation image on which the teacher is surest, and three on which it is right and, of a
    class, least sure.

    images, titles, temperatures, probabilities (image, temperature, class).
    """
    logits, (pictures, labels) = source.teacher_logits, source.held_out
    margins = torch.where(logits.argmax(1) == labels, training.margins(logits), torch.nan)
    order = margins.argsort(stable=True)[: int(margins.isfinite().sum())]  # NaN comes last
    firsts = pd.Series(labels[order]).drop_duplicates().index[:3].tolist()
    chosen = order[[len(order) - 1, *firsts]]
    temperatures = (1.0, source.setting("chosen")[0])
    probabilities = torch.stack(
        [distillation.soft_targets(logits[chosen], value) for value in temperatures], dim=1
    )
    shown = {
        "images": pictures[chosen].tolist(),
        "titles": [CLASSES[label] for label in labels[chosen]],
    }
    return shown | {"temperatures": temperatures, "probabilities": rounded(probabilities)}
