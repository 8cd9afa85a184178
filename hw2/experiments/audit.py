"""Do the files of a store agree with each other? What can be computed again in seconds, without training.

`replay` evaluates weights and trains first steps again; this reads what was recorded, and counts what was kept.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from hw2 import data, networks, pruning
from hw2.errors import InputError
from hw2.experiments import catalogue, ledger, schemas, store
from hw2.experiments.recipes import CompressedRecipe, Recipe, TeacherRecipe
from hw2.experiments.run import HISTORY, Run, root
from hw2.files import read_csv, read_json


def problems(profile: str) -> list[str]:
    """A line for each contradiction among the finished runs in the profile's store, its ledger and its search."""
    runs, found, seen = store.every(profile), [], {}
    for run in runs:
        try:
            found += [f"{run.name}: {line}" for line in _of_run(run)]
            content = run.recipe.stage, run.profile, (run.folder / "history.csv").read_bytes()
        except (InputError, OSError) as error:
            found.append(f"{run.name}: {error}")
            continue
        if run.recipe.fit.epochs and (other := seen.setdefault(content, run)) is not run:
            found.append(f"{run.name}: its history is that of {other.name}")
    for row in ledger.ledger(profile).itertuples():
        if row.total != len(data.fashion_mnist().test_labels) or not 0 <= row.correct <= row.total:
            found.append(f"test_ledger.csv: {row.run}, {row.correct} of {row.total} is no count of test images")
    profiles = sorted({run.profile for run in runs})
    return found + [f"tuning/{one}: {line}" for one in profiles for line in _of_search(one)]


def _of_run(run: Run) -> Iterator[str]:
    recipe, metrics, history, _ = run.recipe, run.metrics, run.history, run.environment
    if store.place(recipe, run.profile) != run.folder:
        yield f"its recipe is of {recipe.stage}, seed {recipe.seed}"
    if recipe.seed not in catalogue.seeds(recipe.stage, run.profile):
        yield f"the profile trains no seed {recipe.seed} of it"
    if (count := networks.count_parameters(_network(run))) != metrics["parameters"]:
        yield f"its network has {count:,} parameters, metrics.json says {metrics['parameters']:,}"
    if metrics["val_total"] != recipe.validation:
        yield f"metrics.json counts {metrics['val_total']:,} validation images, the recipe {recipe.validation:,}"
    if len(history) and history.val_accuracy.iloc[-1] != run.val_accuracy:
        yield "the last epoch of history.csv is not the accuracy of metrics.json"
    if ledger.recorded(run) != metrics["test_correct"]:
        yield f"{metrics['test_correct']} test images in metrics.json, {ledger.recorded(run)} in the ledger"
    if isinstance(recipe, CompressedRecipe):
        yield from _of_compression(run, recipe)


def _network(run: Run) -> torch.nn.Module:
    """Of the committed weights, or else as the recipe would make it; without memory where it is the teacher's."""
    recipe = run.recipe
    if isinstance(recipe, TeacherRecipe):
        with torch.device("meta"):
            return networks.teacher(recipe.stem)
    if (run.folder / "model.safetensors").is_file():
        return run.network()
    return networks.ResNet14(pruning.narrowed(recipe.widths or networks.WIDTHS, getattr(recipe, "ratio", 0.0)))


def _of_compression(run: Run, recipe: CompressedRecipe) -> Iterator[str]:
    phases, parent = run.metrics.get("phases", {}), store.made_by(recipe.parent, run.profile)
    for phase, expected in (("distilled", parent.metrics["val_correct"]), ("fine_tuned", run.metrics["val_correct"])):
        if phases.get(phase) != expected:
            yield f"phase {phase} counts {phases.get(phase)} validation images, the run that it is of {expected}"
    if recipe.sparse.epochs and (
        phases.get("sparse") != round(run.history.val_accuracy[recipe.sparse.epochs - 1] * recipe.validation)
    ):
        yield "phase sparse is not the accuracy of its epoch in history.csv"
    kept = run.folder / "group_norms.json"
    if kept.is_file() and (parent.folder / "model.safetensors").is_file():
        norms, again = read_json(kept, schemas.GroupNorms)["before"], pruning.group_norms(parent.network())
        if len(norms) != len(again) or not all(map(_close, norms, again)):
            yield "group_norms.json is not what the parent's weights give"


def _close(one: list[float], other: list[float]) -> bool:
    return len(one) == len(other) and np.allclose(one, other, rtol=1e-4, atol=1e-6)


def _of_search(profile: str) -> Iterator[str]:
    """Counts and epochs of trials.csv against the trials' own histories, where the search kept them."""
    path = root(profile) / "tuning" / profile / "history.csv"
    if not path.is_file():
        return
    recipe: Recipe = catalogue.tuning(profile, store.Settings(profile))
    history = read_csv(path, ("trial", *HISTORY)).groupby("trial").tail(1).set_index("trial")
    for row in store.trials(profile).itertuples():
        last = history.loc[row.trial] if row.trial in history.index else None
        if last is None or (last.epoch, round(last.val_accuracy * recipe.validation)) != (row.epochs, row.val_correct):
            yield f"trial {row.trial} of trials.csv is not what its history says"
