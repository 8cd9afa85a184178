"""Notebook 02: the search, its finalists, the arms."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hw2.experiments import store
from hw2.report.comparisons import (
    DIFFERENCE,
    INTERVALS,
    LOSS,
    draw_forest,
    forest_of_study,
    study_rows,
)
from hw2.report.source import Source
from hw2.report.statistics import rounded
from hw2.report.style import draw_heat, plot, table


def budget(epochs: int, images: int, seeds: int) -> str:
    """What was spent on each point of a figure."""
    return (
        f"{epochs} epoch{'s' if epochs > 1 else ''} of {images:,} images, {seeds} "
        f"seed{'s' if seeds > 1 else ''}"
    )


def draw_tuning(data: dict) -> Figure:
    accuracy = np.array(data["accuracy"])
    texts = {}
    for (row, column), value in np.ndenumerate(accuracy):
        finalist = [data["temperatures"][row], data["alphas"][column]] in data["finalists"]
        text = f"{value:.2%}"
        if data["spread"]:
            text += f"\n± {100 * data['spread'][row][column]:.2f}"
        if finalist:
            text += "\nfinalist"
        dark = value > (accuracy.min() + accuracy.max()) / 2
        texts[row, column] = text, dark
    rows = [f"{value:g}" for value in data["temperatures"]], "temperature"
    columns = [f"{value:g}" for value in data["alphas"]], "alpha, weight of the KL term"
    figure = draw_heat(accuracy, texts, rows, columns, "viridis", "validation accuracy")
    figure.axes[0].set_title(data["note"], fontsize=9)
    return figure


@plot(draw_tuning, "The search: validation accuracy by temperature and alpha, over the seeds.")
def tuning(source: Source) -> dict:
    """temperatures, alphas, accuracy and spread (temperature, alpha; null for one seed), finalists,
    note.
    """
    total = source.run("teacher").metrics["val_total"]
    trials = source.trials[source.trials.alpha > 0]  # labels alone are a control
    cells = trials.assign(accuracy=trials.val_correct / total).groupby(["T", "alpha"]).accuracy
    mean = cells.mean().unstack()
    seeds = trials.seed.nunique()
    spent = budget(source.tuning.fit.epochs, source.tuning.images, seeds)
    return {
        "temperatures": mean.index.tolist(),
        "alphas": mean.columns.tolist(),
        "accuracy": rounded(mean),
        "spread": rounded(cells.std().unstack()) if seeds > 1 else None,
        "finalists": store.finalists(trials),
        "note": f"validation accuracy; {spent} a setting",
    }


def seed_deviation(trials: pd.DataFrame) -> float:
    """Standard deviation between seeds of one count of correct images, pooled over the settings;
    NaN for one seed.
    """
    return float(trials.groupby(["T", "alpha"]).val_correct.var().mean() ** 0.5)


@table("finalists")
def finalist_rows(source: Source) -> list[dict]:
    """Validation accuracies of each finalist over the seeds, in its trials and its longer runs."""
    trials, total = source.trials, source.run("teacher").metrics["val_total"]
    rows = []
    for runs in source.group("finalists").values():
        temperature, alpha = runs[0].recipe.temperature, runs[0].recipe.alpha
        short = trials[(trials["T"] == temperature) & (trials.alpha == alpha)].val_correct / total
        rows.append(
            {
                "setting": f"T = {temperature:g}, alpha = {alpha:g}",
                "short trials": short.tolist(),
                "trained longer": [run.val_accuracy for run in runs],
            }
        )
    return rows


@table("arms", **DIFFERENCE, **LOSS)
def arm_rows(source: Source) -> list[dict]:
    return study_rows(source.group("arms"))


def arm_note(source: Source) -> str:
    """What was spent on each arm, and the setting."""
    runs, arm = source.runs("vanilla"), source.run("vanilla").recipe
    return (
        f"{budget(arm.fit.epochs, arm.images, len(runs))} an arm; T = {arm.temperature:g}, "
        f"alpha = {arm.alpha:g}"
    )


@plot(
    draw_forest,
    f"Validation accuracy of each arm minus that of KD with averaged targets. {INTERVALS}",
)
def arm_differences(source: Source) -> dict:
    return forest_of_study(source.group("arms"), arm_note(source))
