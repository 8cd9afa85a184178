"""What the search, its finalists and the arms show: the data of notebook 02's figures."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

from hw2 import measures, recipes, stages, training, tuning
from hw2.data import fashion_mnist
from hw2.measures import rounded, spread
from hw2.runs import Run


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
    mean, spread = (
        trials.pivot_table(index="T", columns="alpha", values="val_correct", aggfunc=how, dropna=False) / total
        for how in ("mean", "std")
    )
    first, count = trials.iloc[0], trials.seed.nunique()
    return {
        "temperatures": mean.index.tolist(),
        "alphas": mean.columns.tolist(),
        "accuracy": mean.to_numpy().tolist(),
        "spread": spread.to_numpy().tolist() if count > 1 else [[None] * mean.shape[1]] * len(mean),
        "finalists": [list(setting) for setting in tuning.finalists(trials)],
        "note": _budget({"fit": {"epochs": int(first.epochs)}, "images": int(first.images)}, count) + " a setting",
    }


def finalists() -> dict:
    trials, found = stages.tuned(), stages.finalists()
    total = stages.teacher().metrics["val_total"]
    short = [trials[(trials["T"] == t) & (trials.alpha == alpha)].val_correct / total for t, alpha in found]
    longer = next(iter(found.values()))
    return {
        "names": [f"T = {t:g}, alpha = {alpha:g}" for t, alpha in found],
        "short": [values.tolist() for values in short],
        "longer": [[run.val_accuracy for run in group] for group in found.values()],
        "budgets": [
            "a trial:\n" + tuning_map()["note"],
            "longer:\n" + _budget(longer[0].recipe, len(longer)) + " a setting",
        ],
    }


def finalist_table() -> pd.DataFrame:
    """Mean and spread of the finalists' validation accuracy: their trials, and trained longer."""
    data = finalists()
    columns = {"setting": data["names"]}
    for column in ("short", "longer"):
        columns[column] = [spread(values) for values in data[column]]
    return pd.DataFrame(columns)


LEARNING = {
    "vanilla": "vanilla KD",
    "labels": "labels alone",
    "smoothed": "label smoothing",
    "kl_mean": "KD with `mean` reduction",
    "identity": "targets of the plain image",
    "decoupled": "decoupled KD",
    "standardised": "standardised logits",
    "better_teacher": "KD from a better teacher",
}


def _arm_note(found: dict[str, list[Run]]) -> str:
    recipe = found["vanilla"][0].recipe
    budget = _budget(recipe, len(found["vanilla"]))
    return f"{budget} an arm; T = {recipe['temperature']:g}, alpha = {recipe['alpha']:g}"


def arm_table() -> pd.DataFrame:
    """Validation accuracy of each arm; its mean difference from vanilla KD in percentage points and 95 % interval."""
    rows = []
    found = stages.arms()
    reference = [100 * run.val_accuracy for run in found["vanilla"]]
    for name, group in found.items():
        mean, low, high = measures.paired([100 * run.val_accuracy for run in group], reference)
        interval = "" if low is None or name == "vanilla" else f"{low:+.2f} to {high:+.2f}"
        rows.append(
            {
                "arm": name,
                "learns from": recipes.ARMS[name],
                "validation": spread([run.val_accuracy for run in group]),
                "minus vanilla": f"{mean:+.2f}" if name != "vanilla" else "",
                "95 % interval": interval,
            }
        )
    return pd.DataFrame(rows)


def arm_curves() -> dict:
    found = stages.arms()
    means = {
        name: {column: _mean(run.history[column] for run in group) for column in ("epoch", "val_loss", "val_accuracy")}
        for name, group in found.items()
    }
    return {"arms": [{"name": LEARNING[name]} | means[name] for name in found], "note": _arm_note(found)}


def _mean(columns) -> list:
    return rounded(sum(columns := list(columns)) / len(columns))


def arm_differences() -> dict:
    found = stages.arms()
    accuracy = {name: [run.val_accuracy for run in group] for name, group in found.items()}
    reference = accuracy.pop("vanilla")
    return {
        "names": [LEARNING[name] for name in accuracy],
        "reference": "vanilla KD",
        "each": [rounded([a - b for a, b in zip(values, reference, strict=True)]) for values in accuracy.values()],
        "intervals": [
            [None if value is None else rounded(value) for value in measures.paired(values, reference)]
            for values in accuracy.values()
        ],
        "note": f"{_arm_note(found)}; 95 % intervals over the seeds",
    }


def agreement() -> dict:
    found = stages.arms()
    logits, labels, _ = teacher_validation(stages.teacher())
    shown = []
    for name in ("vanilla", "labels"):
        each = [measures.agreement(run.validation_logits.argmax(1), logits.argmax(1), labels) for run in found[name]]
        shown.append({"name": LEARNING[name], "share": rounded(list(zip(*each, strict=True)))})
    return {"arms": shown, "note": _arm_note(found)}


def student_reliability() -> dict:
    """All seeds of an arm together."""
    found = stages.arms()
    labels = teacher_validation(stages.teacher())[1]
    shown = []
    for name in ("labels", "vanilla", "smoothed"):
        probabilities = torch.cat([run.validation_logits.double().softmax(1) for run in found[name]])
        together = measures.calibration(probabilities, labels.repeat(len(found[name])))
        shown.append({"name": LEARNING[name]} | together)
    return {"arms": shown, "note": _arm_note(found)}
