"""A finished run's folder, and where such folders are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from hw2 import data, distillation, networks
from hw2.errors import InputError
from hw2.experiments import catalogue, recipes, schemas
from hw2.experiments.recipes import Recipe
from hw2.files import RESTORE, read_array, read_csv, read_json, sha256

HISTORY = ("epoch", "lr", "train_loss", "val_loss", "val_accuracy")


def home(profile: str) -> Path:
    """Where runs, figures, report and submission of a profile belong: the project, but build/smoke/ for smoke."""
    return data.PROJECT / "build/smoke" if profile == "smoke" else data.PROJECT


def root(profile: str) -> Path:
    return home(profile) / "runs"


def cache(recipe: Recipe) -> Path:
    """The ignored folder of what a run needs while it trains and nobody needs afterwards."""
    return data.PROJECT / "cache" / recipe.digest[:16]


@dataclass(frozen=True)
class Run:
    """A finished run's folder, `<root>/<stage>/<profile>-s<seed>`."""

    folder: Path

    @property
    def name(self) -> str:
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def profile(self) -> str:
        return self.folder.name.rpartition("-s")[0]

    @cached_property
    def recipe(self) -> Recipe:
        """`InputError` where recipe.json is none."""
        path = self.folder / "recipe.json"
        content = read_json(path)
        try:
            return catalogue.read(content)
        except InputError as error:
            raise InputError(f"{self.name}/recipe.json: {error}") from None

    @property
    def metrics(self) -> schemas.Metrics:
        """`InputError` where a count is larger than its total."""
        path = self.folder / "metrics.json"
        metrics = read_json(path, schemas.Metrics)
        counts = [metrics["val_correct"], *metrics.get("phases", {}).values()]
        test = metrics["test_correct"], metrics["test_total"]
        if max(counts) > metrics["val_total"] or (test.count(None) == 1) or (None not in test and test[0] > test[1]):
            raise InputError(f"{path}: more images are correct than there are; {RESTORE}")
        return metrics

    @property
    def environment(self) -> schemas.Environment:
        return read_json(self.folder / "environment.json", schemas.Environment)

    @cached_property
    def history(self) -> pd.DataFrame:
        return read_csv(self.folder / "history.csv", HISTORY)

    @property
    def weights(self) -> Path:
        """The weights' file; the teacher's is too large to commit and stays in the cache of where it was trained."""
        inside = self.folder / "model.safetensors"
        return inside if inside.is_file() else cache(self.recipe) / "model.safetensors"

    def network(self) -> torch.nn.Module:
        """In evaluation mode. `InputError` where the weights are not on this machine."""
        if not isinstance(self.recipe, recipes.TeacherRecipe):
            return networks.load(self.weights)
        if not self.weights.is_file():
            raise InputError(f"{self.name}: its weights (94 MB) are not committed; train it here: `hw2 train teacher`")
        return networks.load_teacher(self.weights, self.recipe.stem)

    @cached_property
    def soft_targets(self) -> Tensor:
        """Teacher runs only: float16 logits (views, 60000, 10), checked to be this teacher's, of its views."""
        path, described = self.folder / "soft_targets.npy", self.folder / "soft_targets.json"
        expected = {"teacher": self.recipe.digest}
        expected |= {name: getattr(self.recipe, name) for name in ("pad", "view_seed", "views")}
        targets = distillation.read_cache(path)
        if read_json(described) != expected | {"sha256": sha256(path)} or len(targets) != expected["views"]:
            raise InputError(f"{path}: not what {described.name} and recipe.json say; {RESTORE}")
        return targets

    @cached_property
    def validation_logits(self) -> Tensor:
        """Where the row keeps them: float16 logits (n, 10) of the validation images."""
        return self._kept("validation_logits.npy", np.float16, 10)

    @cached_property
    def validation_classes(self) -> Tensor:
        """Where the row keeps them: predicted classes (n,) of the validation images, uint8."""
        return self._kept("validation_classes.npy", np.uint8)

    def _kept(self, name: str, kind: type, *each: int) -> Tensor:
        return torch.from_numpy(read_array(self.folder / name, kind, (self.metrics["val_total"], *each)).copy())

    def __str__(self) -> str:
        test = "not read" if self.test_accuracy is None else f"{self.test_accuracy:.2%}"
        parameters = self.metrics["parameters"]
        return f"{self.name}: {parameters:,} parameters, validation {self.val_accuracy:.2%}, test {test}"

    @property
    def val_accuracy(self) -> float:
        metrics = self.metrics
        return metrics["val_correct"] / metrics["val_total"]

    @property
    def test_accuracy(self) -> float | None:
        """None until the test set was read for this run."""
        metrics = self.metrics
        return None if metrics["test_correct"] is None else metrics["test_correct"] / metrics["test_total"]

    def at_phase(self, phase: str) -> float | None:
        """Validation accuracy of a pruned network after a phase of its compression; None where there was none."""
        metrics = self.metrics
        return metrics["phases"][phase] / metrics["val_total"] if phase in metrics["phases"] else None
