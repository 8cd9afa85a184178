"""Notebook 01: the data, the teacher's training, where it errs, what its soft targets say."""

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from hw2 import distillation, training, views
from hw2.data import CLASSES
from hw2.experiments.run import Run
from hw2.report.source import Source
from hw2.report.statistics import rounded
from hw2.report.style import distinct, draw_curves, draw_heat, images, panels, percent, plot

TEMPERATURES = (1.0, 4.0, 8.0)


def draw_samples(data: dict) -> Figure:
    figure, grid = panels((9, 4.1), 4, len(CLASSES))
    for column, name in enumerate(CLASSES):
        images(grid[:, column], data["images"][column], [name, "", "", ""])
    return figure


@plot(draw_samples, "Four training images of each of the ten classes.", "data")
def samples(source: Source) -> dict:
    """images: for each class the first four of the training split."""
    data, rows = source.fashion, source.fashion.split[0]
    chosen = [rows[data.train_labels[rows] == label][:4] for label in range(len(CLASSES))]
    return {"images": [data.train_images[rows].tolist() for rows in chosen]}


def draw_views(data: dict) -> Figure:
    figure, grid = panels((9, 3.1), len(data["images"]), len(data["images"][0]))
    for number, row in enumerate(data["images"]):
        images(grid[number], row, [f"view {view}" if number == 0 else "" for view in range(len(row))])
    return figure


@plot(draw_views, "Three training images in the first eight views: cropped, flipped.", "data")
def shown_views(source: Source) -> dict:
    """images: three images of the training split, each in views 0 to 7."""
    chosen, data = source.fashion.split[0][[0, 1, 2]], source.fashion.train_images
    return {"images": torch.stack([views.cut(data, view)[chosen] for view in range(8)], dim=1).tolist()}


def curve(run: Run, name: str, *more: str) -> dict:
    """A run's history as an arm of `draw_curves`; `more` are columns."""
    columns = ("epoch", "val_loss", "val_accuracy", *more)
    return {"name": name} | {column: run.history[column].tolist() for column in columns}


@plot(draw_curves, "Loss and validation accuracy of the teacher by epoch.", "teacher")
def teacher_curves(source: Source) -> dict:
    return {"arms": [curve(source.run("teacher"), "teacher", "train_loss")]}


def draw_confusion(data: dict) -> Figure:
    matrix = np.array(data["matrix"])
    share = matrix / matrix.sum(1, keepdims=True)
    texts = {place: (str(value), share[place] < 0.5) for place, value in np.ndenumerate(matrix) if value}
    return draw_heat(share, texts, (CLASSES, "true"), (CLASSES, "predicted"), "Blues")


@plot(draw_confusion, "Counts of true against predicted class of the teacher on validation.", "teacher")
def teacher_confusion(source: Source) -> dict:
    """matrix: counts (true class, predicted class) on the validation images."""
    places = 10 * source.held_out[1] + source.teacher_logits.argmax(1)
    return {"matrix": torch.bincount(places, minlength=100).view(10, 10).tolist()}


def draw_soft_targets(data: dict) -> Figure:
    count, total = len(data["images"]), len(data["temperatures"])
    figure, grid = panels((9, 1.75 * count), count, 2, width_ratios=(1, 6), squeeze=False)
    images(grid[:, 0], data["images"], data["titles"])
    for ax, image in zip(grid[:, 1], data["probabilities"], strict=True):
        for number, (temperature, colour, _) in enumerate(distinct(data["temperatures"])):
            place = np.arange(10) + (number - (total - 1) / 2) * 0.8 / total
            ax.bar(place, image[number], 0.8 / total, color=colour, label=f"T = {temperature:g}")
        ax.set_xticks(range(10), CLASSES if ax is grid[-1, 1] else [""] * 10, fontsize=8)
        ax.set_ylim(0, 1)
        ax.grid(axis="x", visible=False)
        percent(ax.yaxis)
    grid[0, 1].legend(ncols=total, loc="upper right", fontsize=8)
    return figure


@plot(draw_soft_targets, "The teacher's probabilities for four images at temperatures 1, 4 and 8.", "teacher")
def soft_targets(source: Source) -> dict:
    """The validation images on which the teacher is right and, of four classes, least sure.

    images, titles, temperatures, probabilities (image, temperature, class).
    """
    logits, (pictures, labels) = source.teacher_logits, source.held_out
    gaps = torch.where(logits.argmax(1) == labels, training.margins(logits), torch.inf)
    order = gaps.argsort(stable=True)
    chosen = order[pd.Series(labels[order]).drop_duplicates().index[:4].tolist()]  # each class's least sure
    each = torch.stack([distillation.soft_targets(logits[chosen], value) for value in TEMPERATURES], dim=1)
    titles = [CLASSES[label] for label in labels[chosen]]
    shown = {"images": pictures[chosen].tolist(), "titles": titles, "temperatures": TEMPERATURES}
    return shown | {"probabilities": rounded(each)}
