"""What the search, its finalists and the arms show: the data of notebook 02's figures."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

from hw2 import training
from hw2.data import CLASSES, fashion_mnist
from hw2.experiments import recipes, stages
from hw2.experiments import search as tuning
from hw2.experiments.store import Run
from hw2.report import statistics as measures
from hw2.report.statistics import rounded, spread


def teacher_validation(run: Run) -> tuple[Tensor, Tensor, Tensor]:
    """The teacher's logits (n, 10) of the validation images as they are (view 0), their labels, their rows."""
    data = fashion_mnist()
    rows = training.parts(data, run.recipe["images"], run.recipe["validation"])[1]
    return run.soft_targets[0][rows].double(), data.train_labels[rows], rows


def _budget(recipe: dict, count: int) -> str:
    """What was spent on each point of a figure."""
    seeds = f"{count} seed{'s' if count > 1 else ''}"
    epochs = recipe["fit"]["epochs"]
    return f"{epochs} epoch{'s' if epochs > 1 else ''} of {recipe['images']:,} images, {seeds}"


def tuning_map() -> dict:
    trials = stages.tuned()
    total = stages.teacher().metrics["val_total"]
    mean, deviation = (
        trials.pivot_table(index="T", columns="alpha", values="val_correct", aggfunc=how, dropna=False) / total
        for how in ("mean", "std")
    )
    several = trials.seed.nunique() > 1
    return {
        "temperatures": mean.index.tolist(),
        "alphas": mean.columns.tolist(),
        "accuracy": rounded(mean),
        "spread": rounded(deviation) if several else [[None] * mean.shape[1]] * len(mean),
        "finalists": [list(setting) for setting in tuning.finalists(trials)],
        "note": f"{_trial_budget(trials)} a setting" + ("; mean ± standard deviation" if several else ""),
    }


def _trial_budget(trials: pd.DataFrame) -> str:
    first = trials.iloc[0]
    return _budget({"fit": {"epochs": int(first.epochs)}, "images": int(first.images)}, trials.seed.nunique())


def seed_deviation(trials: pd.DataFrame) -> float:
    """Standard deviation between seeds of one count of correct images, pooled over the settings; NaN for one seed."""
    return float(trials.groupby(["T", "alpha"]).val_correct.var().mean() ** 0.5)


def finalists() -> dict:
    trials, found = stages.tuned(), stages.finalists()
    total = stages.teacher().metrics["val_total"]
    short = [trials[(trials["T"] == t) & (trials.alpha == alpha)].val_correct / total for t, alpha in found]
    longer = next(iter(found.values()))
    budgets = _trial_budget(trials), _budget(longer[0].recipe, len(longer))
    return {
        "names": [f"T = {t:g}, alpha = {alpha:g}" for t, alpha in found],
        "short": [rounded(values) for values in short],
        "longer": [[run.val_accuracy for run in group] for group in found.values()],
        "budgets": [text.replace(", ", ",\n") for text in budgets],
    }


def finalist_table() -> pd.DataFrame:
    """Mean and standard deviation of the finalists' validation accuracy: their trials, and trained longer."""
    data = finalists()
    columns = {"setting": data["names"]}
    for column, budget in zip(("short", "longer"), data["budgets"], strict=True):
        columns[budget.replace("\n", " ")] = [spread(values) for values in data[column]]
    return pd.DataFrame(columns)


def _arm_note(found: dict[str, list[Run]]) -> str:
    recipe = found["vanilla"][0].recipe
    budget = _budget(recipe, len(found["vanilla"]))
    return f"{budget} an arm; T = {recipe['temperature']:g}, alpha = {recipe['alpha']:g}"


def minus(reference: str, found: dict[str, list[Run]]) -> dict[str, tuple[list[float], tuple]]:
    """Other arm -> differences from `reference` by seed, in percentage points; their mean and 95 % interval."""
    accuracy = {name: [100 * run.val_accuracy for run in group] for name, group in found.items()}
    reference = accuracy.pop(reference)
    return {
        name: ([a - b for a, b in zip(values, reference, strict=True)], measures.paired(values, reference))
        for name, values in accuracy.items()
    }


def arm_table() -> pd.DataFrame:
    """Validation accuracy of each arm; its mean difference from vanilla KD in percentage points and 95 % interval."""
    rows, found = [], stages.arms()
    differences = minus("vanilla", found)
    for name, group in found.items():
        mean, low, high = differences[name][1] if name in differences else (None, None, None)
        rows.append(
            {
                "arm": name,
                "learns from": recipes.ARMS[name],
                "validation": spread([run.val_accuracy for run in group]),
                "minus vanilla": "" if mean is None else f"{mean:+.2f}",
                "95 % interval": measures.bounds(low, high),
            }
        )
    return pd.DataFrame(rows)


def arm_curves() -> dict:
    """Means over the seeds."""
    found = stages.arms()
    means = {
        name: {column: _mean(run.history[column] for run in group) for column in ("epoch", "val_loss", "val_accuracy")}
        for name, group in found.items()
    }
    return {"arms": [{"name": recipes.ARMS[name]} | means[name] for name in found], "note": _arm_note(found)}


def _mean(columns) -> list:
    return rounded(sum(columns := list(columns)) / len(columns))


def arm_differences() -> dict:
    found = stages.arms()
    return difference_plot("vanilla", found, recipes.ARMS) | {"note": _arm_note(found)}


def difference_plot(reference: str, found: dict[str, list[Run]], words: dict[str, str]) -> dict:
    """What `figures.differences` draws, less its note."""
    differences = minus(reference, found)
    return {
        "names": [words[name] for name in differences],
        "reference": words[reference],
        "each": [rounded(each) for each, _ in differences.values()],
        "intervals": [[None if v is None else rounded(v) for v in interval] for _, interval in differences.values()],
    }


def agreement() -> dict:
    """Share of images on which a student gives the teacher's answer: by class, and where the teacher is wrong."""
    found = stages.arms()
    logits, labels, _ = teacher_validation(stages.teacher())
    answers = logits.argmax(1)
    wrong = answers != labels
    shown = []
    for name in ("vanilla", "labels"):
        each = []
        for run in found[name]:
            mine = run.validation_logits.argmax(1)
            each.append([*measures.agreement(mine, answers, labels), _share(mine[wrong] == answers[wrong])])
        shown.append({"name": recipes.ARMS[name], "share": rounded(list(zip(*each, strict=True)))})
    return {"rows": [*CLASSES, "where the teacher is wrong"], "arms": shown, "note": _arm_note(found)}


def _share(true: Tensor) -> float:
    return float(true.double().mean())


def student_reliability() -> dict:
    """All seeds of an arm together."""
    found = stages.arms()
    labels = teacher_validation(stages.teacher())[1]
    shown = []
    for name in ("labels", "vanilla", "smoothed"):
        probabilities = torch.cat([run.validation_logits.double().softmax(1) for run in found[name]])
        together = measures.calibration(probabilities, labels.repeat(len(found[name])))
        shown.append({"name": recipes.ARMS[name]} | together)
    return {"arms": shown, "note": _arm_note(found)}
