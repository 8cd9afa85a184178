"""A finished run's folder, and where such folders are."""

import functools
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from hw2 import data, distillation, networks, pruning
from hw2.assignment import WIDTHS
from hw2.errors import InputError
from hw2.experiments import compose, schemas
from hw2.experiments.recipes import CompressedRecipe, Recipe, TeacherRecipe, TuningRecipe
from hw2.files import broken, read_array, read_csv, read_json, sha256

HISTORY = ("epoch", "lr", "train_loss", "val_loss", "val_accuracy")
STEPS = ("step", "loss")
#: phases of a compression in metrics.json, and those that sparse learning adds
PHASES = {"distilled", "pruned", "recalibrated", "fine_tuned"}
SPARSE = {"sparse", "pruned_without_sparse_learning", "recalibrated_without_sparse_learning"}


@functools.cache
def _group_sizes(widths: tuple[int, ...]) -> list[int]:
    return list(map(len, pruning.group_norms(networks.ResNet14(widths))))


def home(profile: str) -> Path:
    """Where runs, figures, report and submission belong: the project, build/smoke/ for `smoke`."""
    return data.PROJECT / "build" / profile if profile == "smoke" else data.PROJECT


def root(profile: str) -> Path:
    return home(profile) / "runs"


def output(profile: str) -> Path:
    """Where report, figures and submission go: the profile's home, unless HW2_OUT names another
    folder.
    """
    return Path(os.path.expanduser(os.environ.get("HW2_OUT") or home(profile)))


def cache(recipe: Recipe) -> Path:
    """The ignored folder of what a run needs while it trains and nobody needs afterwards."""
    return data.PROJECT / "cache" / recipe.digest[:16]


@dataclass(frozen=True, repr=False)
class Run:
    """A finished run's folder, `<root>/<stage>/<profile>-s<seed>`."""

    folder: Path

    @property
    def name(self) -> str:
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def profile(self) -> str:
        return self.folder.name.rpartition("-s")[0]

    @property
    def stage(self) -> str:
        """The row of the catalogue."""
        return self.folder.parent.name

    @cached_property
    def recorded(self) -> dict:
        """What recipe.json holds, unchecked: `recipe` holds its digest against its fields."""
        return read_json(self.folder / "recipe.json")

    @property
    def digest(self) -> str:
        return self.recorded.get("digest", "")

    @cached_property
    def recipe(self) -> Recipe:
        """`InputError` where recipe.json is none."""
        content = self.recorded
        try:
            recipe = compose.read(content)
            if isinstance(recipe, TuningRecipe):
                raise InputError("a search's recipe, expected a run's")
        except InputError as error:
            raise broken(self.folder / "recipe.json", str(error)) from None
        return recipe

    @property
    def sparse(self) -> bool:
        """Whether sparse learning came before pruning."""
        return isinstance(self.recipe, CompressedRecipe) and self.recipe.sparse.epochs > 0

    @cached_property
    def metrics(self) -> schemas.Metrics:
        """`InputError` where a count is larger than its total, or phases are not those of the
        recipe.
        """
        path = self.folder / "metrics.json"
        metrics = read_json(path, schemas.Metrics)
        phases, test = metrics.get("phases", {}), (metrics["test_correct"], metrics["test_total"])
        counts = [metrics["val_correct"], *phases.values()]
        if (
            max(counts) > metrics["val_total"]
            or (test.count(None) == 1)
            or (None not in test and test[0] > test[1])
        ):
            raise broken(path, "more images are correct than there are")
        expected = PHASES if isinstance(self.recipe, CompressedRecipe) else set()
        if phases.keys() != expected | (SPARSE if self.sparse else set()):
            raise broken(path, "its phases are not those of its recipe")
        return metrics

    @cached_property
    def environment(self) -> schemas.Environment:
        return read_json(self.folder / "environment.json", schemas.Environment)

    @property
    def environments(self) -> list[schemas.Environment]:
        """Of every process that trained it, where they differ: the first step's first."""
        first = self.environment
        return [first, *(later["environment"] for later in first.get("resumed", []))]

    @property
    def widths(self) -> tuple[int, ...]:
        """What the recipe makes of a ResNet-14."""
        widths = self.recipe.widths or WIDTHS
        return (
            pruning.narrowed(widths, self.recipe.ratio)
            if isinstance(self.recipe, CompressedRecipe)
            else widths
        )

    @cached_property
    def parameters(self) -> int:
        """Counted: of the weights where they are committed, else of the network that the recipe
        makes.
        """
        if (self.folder / "model.safetensors").is_file():
            return networks.count_parameters(self.network())
        with torch.device("meta"):
            teacher = isinstance(self.recipe, TeacherRecipe)
            network = (
                networks.teacher(self.recipe.stem) if teacher else networks.ResNet14(self.widths)
            )
        return networks.count_parameters(network)

    @cached_property
    def group_norms(self) -> schemas.GroupNorms:
        """Where the row keeps them: of as many channels as there are, `after` where sparse learning
        came in between.
        """
        path = self.folder / "group_norms.json"
        norms, sizes = (
            read_json(path, schemas.GroupNorms),
            _group_sizes(self.recipe.widths or WIDTHS),
        )
        lengths = {when: list(map(len, groups)) for when, groups in norms.items()}
        if lengths != dict.fromkeys(["before", "after"] if self.sparse else ["before"], sizes):
            raise broken(path, f"expected the norms of {sizes} channels")
        return norms

    @cached_property
    def sensitivity(self) -> schemas.Sensitivity:
        """Where it was measured, of these weights (`deliver.measure`)."""
        path, remedy = self.folder / "sensitivity.json", "`hw2 deliver` measures it"
        table = read_json(path, schemas.Sensitivity, remedy)
        lengths = [len(table["ratios"])] * len(_group_sizes(self.widths))
        if table["weights"] != sha256(self.weights) or list(map(len, table["correct"])) != lengths:
            raise broken(path, "not of these weights, or not of each group", f"delete it; {remedy}")
        return table

    @cached_property
    def history(self) -> pd.DataFrame:
        return read_csv(self.folder / "history.csv", HISTORY)

    @cached_property
    def steps(self) -> pd.DataFrame:
        """The losses of the first steps."""
        return read_csv(self.folder / "steps.csv", STEPS)

    @property
    def weights(self) -> Path:
        """The weights' file; the teacher's is too large to commit and stays in the cache of where
        it was trained.
        """
        inside = self.folder / "model.safetensors"
        cached = data.PROJECT / "cache" / self.digest[:16] / "model.safetensors"
        return inside if inside.is_file() else cached

    def network(self) -> torch.nn.Module:
        """In evaluation mode. `InputError` where the weights are not on this machine."""
        if not isinstance(self.recipe, TeacherRecipe):
            return networks.load(self.weights)
        if not self.weights.is_file():
            raise InputError(
                f"{self.name}: its weights (94 MB) are not committed; train it here: `hw2 "
                f"train teacher`"
            )
        return networks.load_teacher(self.weights, self.recipe.stem)

    @cached_property
    def soft_targets(self) -> Tensor:
        """Teacher runs only: float16 logits (views, 60000, 10), checked to be this teacher's."""
        path = self.folder / "soft_targets.npy"
        targets = distillation.read_cache(path)
        told = read_json(self.folder / "soft_targets.json")
        true = {"teacher": self.recipe.digest, "views": len(targets), "sha256": sha256(path)}
        if not true.items() <= told.items():
            raise broken(path, "not what soft_targets.json and recipe.json say")
        return targets

    @cached_property
    def validation_logits(self) -> Tensor:
        """Where the row keeps them: float16 logits (n, 10) of the validation images."""
        return self._array("validation_logits.npy", np.float16, 10)

    @cached_property
    def validation_classes(self) -> Tensor:
        """Where the row keeps them: predicted classes (n,) of the validation images, uint8."""
        return self._array("validation_classes.npy", np.uint8)

    def _array(self, name: str, dtype: type, *columns: int) -> Tensor:
        return torch.from_numpy(
            read_array(self.folder / name, dtype, (self.metrics["val_total"], *columns)).copy()
        )

    def _summary(self) -> dict[str, str]:
        test = "not read" if self.test_accuracy is None else f"{self.test_accuracy:.2%}"
        return {
            "parameters": f"{self.parameters:,}",
            "validation": f"{self.val_accuracy:.2%}",
            "test": test,
        }

    def __str__(self) -> str:
        return "{}: {parameters} parameters, validation {validation}, test {test}".format(
            self.name, **self._summary()
        )

    def __repr__(self) -> str:
        # notebooks keep it: no path of a machine, no file that may be damaged
        return f"Run({self.name})"

    def _repr_html_(self) -> str:
        return pd.DataFrame(self._summary(), index=[self.name]).to_html()

    @property
    def val_accuracy(self) -> float:
        metrics = self.metrics
        return metrics["val_correct"] / metrics["val_total"]

    @property
    def test_accuracy(self) -> float | None:
        """None until the test set was read for this run."""
        metrics = self.metrics
        return (
            None
            if metrics["test_correct"] is None
            else metrics["test_correct"] / metrics["test_total"]
        )

    @property
    def core_hours(self) -> float:
        """Of the processor that training took, or of the clock for each thread where only that was
        recorded.
        """
        metrics = self.metrics
        return (
            metrics.get("processor_s") or metrics["wall_s"] * self.environment["threads"]
        ) / 3600

    def at_phase(self, phase: str) -> float | None:
        """Validation accuracy of a pruned network after a phase of its compression; None where
        there was none.
        """
        metrics = self.metrics
        return (
            metrics["phases"][phase] / metrics["val_total"] if phase in metrics["phases"] else None
        )
