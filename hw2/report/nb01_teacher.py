"""Notebook 01 draws its figures itself; here are a training's curves and a confusion matrix, which
later notebooks draw as well.
"""

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from hw2.data import CLASSES
from hw2.experiments.run import Run
from hw2.report.style import draw_heat


def curve(runs: list[Run], name: str, *columns: str) -> dict:
    """Histories of some seeds as an arm of `draw_curves`; `columns` are of the first."""
    first = {column: runs[0].history[column].tolist() for column in ("epoch", *columns)}
    histories = {
        column: [run.history[column].tolist() for run in runs]
        for column in ("val_loss", "val_accuracy")
    }
    return {"name": name, "row": runs[0].recipe.stage, **first, **histories}


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
