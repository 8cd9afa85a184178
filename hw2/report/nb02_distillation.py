"""Notebook 02: the search, its finalists, the arms, what a student takes over, with and without the
teacher.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hw2.experiments import store
from hw2.experiments.catalogue import EXPERIMENTS
from hw2.experiments.run import Run
from hw2.report import statistics
from hw2.report.nb01_teacher import curve
from hw2.report.source import Source
from hw2.report.statistics import Interval, bounds, points, rounded
from hw2.report.style import draw_curves, draw_heat, draw_rows, plot, table

DIFFERENCE = {"minus the first": points, "95 % interval": bounds}
CROSSING = "Where a bar crosses 0, no difference was detected."


def budget(epochs: int, images: int, seeds: int) -> str:
    """What was spent on each point of a figure."""
    return (
        f"{epochs} epoch{'s' if epochs > 1 else ''} of {images:,} images, {seeds} "
        f"seed{'s' if seeds > 1 else ''}"
    )


def draw_tuning(data: dict) -> Figure:
    accuracy, texts = np.array(data["accuracy"]), {}
    for (row, column), value in np.ndenumerate(accuracy):
        finalist = [data["temperatures"][row], data["alphas"][column]] in data["finalists"]
        text = f"{value:.2%}" + (
            f"\n± {100 * data['spread'][row][column]:.2f}" if data["spread"] else ""
        )
        dark = value > (accuracy.min() + accuracy.max()) / 2
        texts[row, column] = text + ("\nfinalist" if finalist else ""), dark
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
    mean, deviation, seeds = cells.mean().unstack(), cells.std().unstack(), trials.seed.nunique()
    grid = {
        "temperatures": mean.index.tolist(),
        "alphas": mean.columns.tolist(),
        "accuracy": rounded(mean),
    }
    grid |= {
        "spread": rounded(deviation) if seeds > 1 else None,
        "finalists": store.finalists(trials),
    }
    spent = budget(source.tuning.fit.epochs, source.tuning.images, seeds)
    return grid | {"note": f"validation accuracy; {spent} a setting"}


def seed_deviation(trials: pd.DataFrame) -> float:
    """Standard deviation between seeds of one count of correct images, pooled over the settings;
    NaN for one seed.
    """
    return float(trials.groupby(["T", "alpha"]).val_correct.var().mean() ** 0.5)


@table("finalists")
def finalist_rows(source: Source) -> list[dict]:
    """Validation accuracies of each finalist over the seeds: of its trials.

    And of its longer runs.
    """
    trials, total, rows = source.trials, source.run("teacher").metrics["val_total"], []
    for runs in source.group("finalists").values():
        temperature, alpha = runs[0].recipe.temperature, runs[0].recipe.alpha
        short = trials[(trials["T"] == temperature) & (trials.alpha == alpha)].val_correct / total
        accuracies = {
            "short trials": short.tolist(),
            "trained longer": [run.val_accuracy for run in runs],
        }
        rows.append({"setting": f"T = {temperature:g}, alpha = {alpha:g}"} | accuracies)
    return rows


def by_seed(runs: list[Run], references: list[Run]) -> list[tuple[Run, Run]]:
    """Pairs of the seeds that both have."""
    return [
        (run, reference)
        for run in runs
        for reference in references
        if run.recipe.seed == reference.recipe.seed
    ]


def tested(runs: list[Run]) -> list[float]:
    """Accuracies on the test set, of the runs for which it was read."""
    return [run.test_accuracy for run in runs if run.test_accuracy is not None]


def at_phase(runs: list[Run], phase: str | None) -> list[float] | None:
    """Validation accuracies after a phase of the compression; None where the runs have none."""
    return [run.at_phase(phase) for run in runs] if phase and "phases" in runs[0].metrics else None


def difference(
    runs: list[Run], references: list[Run], accuracy: str = "val_accuracy"
) -> tuple[np.ndarray, Interval]:
    """An accuracy of `runs` minus that of `references` by seed, in percentage points; mean and
    interval.
    """
    values = 100 * np.array(
        [[getattr(run, accuracy) for run in pair] for pair in by_seed(runs, references)]
    )
    return values[:, 0] - values[:, 1], statistics.paired(*values.T)


def on_test(runs: list[Run], references: list[Run]) -> Interval | None:
    """Their `difference` on the test set, of the seeds for which both were read; None where no
    seed's were.
    """
    runs, references = (
        [run for run in row if run.test_accuracy is not None] for row in (runs, references)
    )
    return difference(runs, references, "test_accuracy")[1] if by_seed(runs, references) else None


def lost(runs: list[Run], references: list[Run]) -> Interval:
    """Last validation loss of `runs` minus that of `references`, by seed: mean and interval."""
    values = [[run.history.val_loss.iloc[-1] for run in pair] for pair in by_seed(runs, references)]
    return statistics.paired(*np.transpose(values))


def against_first(study: dict[str, list[Run]]) -> dict[str, tuple[np.ndarray, Interval]]:
    """Other row -> `difference` of its runs and the first row's."""
    (_, reference), *arms = study.items()
    return {name: difference(runs, reference) for name, runs in arms}


def differences(study: dict[str, list[Run]], note: str) -> dict:
    """What `style.draw_rows` draws of `against_first`."""
    comparison = against_first(study)
    gaps = [rounded(values) for values, _ in comparison.values()]
    limits = [
        None if low is None else rounded([low, high]) for _, (_, low, high) in comparison.values()
    ]
    series = [{"name": "mean, seeds, 95 % interval", "each": gaps, "bounds": limits}]
    axis = (
        f"validation accuracy minus that of {EXPERIMENTS[next(iter(study))].words}, "
        f"percentage points"
    )
    words = [EXPERIMENTS[name].words for name in comparison]
    return {"rows": words, "series": series, "axis": axis, "note": note, "line": 0, "percent": None}


def study_rows(study: dict[str, list[Run]], **phases: str) -> list[dict]:
    """Each row of a study: its accuracies on validation, and how it differs from the first in
    percentage points.

    `phases`: column -> phase of the compression after which the accuracy is told as well.
    """
    comparison, rows = against_first(study), []
    for name, runs in study.items():
        after = {column: at_phase(runs, phase) for column, phase in phases.items()}
        gap = dict.fromkeys(DIFFERENCE, comparison[name][1] if name in comparison else None)
        row = {"arm": name, "what it is": EXPERIMENTS[name].words, **after}
        rows.append(row | {"validation": [run.val_accuracy for run in runs]} | gap)
    return rows


@table("arms", **DIFFERENCE)
def arm_rows(source: Source) -> list[dict]:
    return study_rows(source.group("arms"))


def arm_note(source: Source) -> str:
    """What was spent on each arm, and the setting."""
    runs, arm = source.runs("vanilla"), source.run("vanilla").recipe
    return (
        f"{budget(arm.fit.epochs, arm.images, len(runs))} an arm; T = {arm.temperature:g}, "
        f"alpha = {arm.alpha:g}"
    )


@plot(draw_rows, f"Validation accuracy of each arm minus vanilla KD's. {CROSSING}")
def arm_differences(source: Source) -> dict:
    return differences(source.group("arms"), arm_note(source))


@plot(
    draw_rows, "Share of the teacher's errors that students repeat, too. Bars: range of the seeds."
)
def agreement(source: Source) -> dict:
    """Of the validation images on which the teacher is wrong, those on which a student gives the
    same answer.
    """
    answers, names = source.teacher_logits.argmax(1), ("vanilla", "labels")
    wrong = answers != source.held_out[1]
    repeats = [
        [(run.validation_logits.argmax(1) == answers)[wrong] for run in source.runs(name)]
        for name in names
    ]
    series = [
        {
            "name": "mean, seeds",
            "each": [rounded([hits.double().mean() for hits in seeds]) for seeds in repeats],
        }
    ]
    note, axis = (
        arm_note(source),
        f"share of the teacher's {int(wrong.sum())} errors on validation, repeated",
    )
    rows = [EXPERIMENTS[name].words for name in names]
    return {"rows": rows, "series": series, "axis": axis, "note": note, "line": None, "percent": 0}


@plot(
    draw_curves, "Validation loss and accuracy by epoch, a line a seed. Early epochs lie outside."
)
def student_curves(source: Source) -> dict:
    arms = [
        curve(source.runs(name), words)
        for name, words in (("distilled", "distilled"), ("plain", "alone"))
    ]
    return {"arms": arms, "start": 3 * len(arms[0]["epoch"]) // 4 + 1}
