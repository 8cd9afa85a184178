"""A finished run's folder, what its files must hold, and where such folders are."""

import functools
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, NotRequired

import numpy as np
import pandas as pd
import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor
from typing_extensions import TypedDict  # pydantic asks for it before Python 3.12

from hw2 import data, distillation, networks, pruning
from hw2.assignment import WIDTHS
from hw2.errors import InputError
from hw2.experiments import compose
from hw2.experiments.recipes import Digest, Recipe
from hw2.files import broken, read_array, read_csv, read_json, sha256

HISTORY = ("epoch", "lr", "train_loss", "val_loss", "val_accuracy")
STEPS = ("step", "loss")
#: phases of a compression in metrics.json, and those that sparse learning adds
PHASES = {"distilled", "pruned", "recalibrated", "fine_tuned"}
SPARSE = {"sparse", "pruned_without_sparse_learning", "recalibrated_without_sparse_learning"}

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Metrics(TypedDict):
    """metrics.json; the test set's counts are None until it was read for the run."""

    val_correct: NonNegativeInt
    val_total: PositiveInt
    test_correct: NonNegativeInt | None
    test_total: PositiveInt | None
    parameters: PositiveInt
    wall_s: Amount
    processor_s: NotRequired[Amount]
    phases: NotRequired[dict[str, NonNegativeInt]]
    mirrored: NotRequired["Mirrored"]


class Mirrored(TypedDict):
    """Correct images by the mean of the logits of an image and of its mirror image."""

    val_correct: NonNegativeInt
    test_correct: NonNegativeInt


class Environment(TypedDict):
    """environment.json, as at the first step."""

    packages: dict[str, str]
    python: str
    system: str
    device: Literal["cpu", "cuda"]
    hardware: str
    cores: PositiveInt
    threads: PositiveInt
    code: Digest
    commit: str | None
    instruction_set: str
    flags: list[str]
    lowered_by: dict[str, str]
    resumed: NotRequired[list["Resumed"]]  # other environments that trained on or finished the run


class Resumed(TypedDict):
    epochs_done: NonNegativeInt  # by then
    environment: Environment


class Delivered(TypedDict):
    run: Annotated[str, Field(pattern=r"^[\w.-]+/\w+-s\d+$")]
    sha256: Digest


GroupNorms = dict[str, list[list[Amount]]]  # group_norms.json: when -> a list for each group


@functools.cache
def _group_sizes(widths: tuple[int, ...]) -> list[int]:
    """Channels of each prunable group of a ResNet-14."""
    return list(map(len, pruning.group_norms(networks.ResNet14(widths))))


def home(profile: str) -> Path:
    """Where runs, figures, report and submission belong: the project, build/smoke/ for `smoke`."""
    return data.PROJECT / "build" / profile if profile == "smoke" else data.PROJECT


def root(profile: str) -> Path:
    return home(profile) / "runs"


def output(profile: str) -> Path:
    """Where report, figures and submission go: HW2_OUT, or else the profile's home."""
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
        """What recipe.json holds, unchecked; `recipe` is checked."""
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
        except InputError as error:
            raise broken(self.folder / "recipe.json", str(error)) from None
        if not isinstance(recipe, Recipe):
            raise broken(self.folder / "recipe.json", "a search's recipe, expected a run's")
        return recipe

    @property
    def sparse(self) -> bool:
        """Whether sparse learning came before pruning."""
        return self.recipe.ratio is not None and self.recipe.sparse.epochs > 0

    @cached_property
    def metrics(self) -> Metrics:
        """`InputError` for a count over its total, and for other phases than the recipe's."""
        path = self.folder / "metrics.json"
        metrics = read_json(path, Metrics)
        phases = metrics.get("phases", {})
        read = metrics["test_total"] or 0  # test images
        if (
            max(metrics["val_correct"], *phases.values(), 0) > metrics["val_total"]
            or (metrics["test_correct"] or 0) > read
            or (metrics["test_correct"] is None) != (metrics["test_total"] is None)
        ):
            raise broken(path, "more images are correct than there are")
        expected = set() if self.recipe.ratio is None else PHASES
        if phases.keys() != expected | (SPARSE if self.sparse else set()):
            raise broken(path, "its phases are not those of its recipe")
        return metrics

    @cached_property
    def environment(self) -> Environment:
        return read_json(self.folder / "environment.json", Environment)

    @property
    def environments(self) -> list[Environment]:
        """Of every process that trained it, where they differ: the first step's first."""
        first = self.environment
        return [first, *(later["environment"] for later in first.get("resumed", []))]

    @property
    def widths(self) -> tuple[int, ...]:
        """What the recipe makes of a ResNet-14."""
        widths = self.recipe.widths or WIDTHS
        return pruning.narrowed(widths, self.recipe.ratio or 0.0)

    @property
    def parameters(self) -> int:
        return self.metrics["parameters"]

    @cached_property
    def group_norms(self) -> GroupNorms:
        """Where the row keeps them: of every channel, before and after sparse learning."""
        path = self.folder / "group_norms.json"
        norms = read_json(path, GroupNorms)
        sizes = _group_sizes(self.recipe.widths or WIDTHS)
        found = {when: list(map(len, groups)) for when, groups in norms.items()}
        if found != dict.fromkeys(["before", "after"] if self.sparse else ["before"], sizes):
            raise broken(path, f"expected the norms of {sizes} channels")
        return norms

    @cached_property
    def history(self) -> pd.DataFrame:
        return read_csv(self.folder / "history.csv", HISTORY)

    @cached_property
    def steps(self) -> pd.DataFrame:
        """The losses of the first steps."""
        return read_csv(self.folder / "steps.csv", STEPS)

    @property
    def weights(self) -> Path:
        """The weights' file, committed or else in the cache of the machine that trained it."""
        committed = self.folder / "model.safetensors"
        if committed.is_file():
            return committed
        return data.PROJECT / "cache" / self.digest[:16] / committed.name

    def network(self) -> torch.nn.Module:
        """In evaluation mode. `InputError` where the weights are not on this machine."""
        if not self.recipe.stem:
            return networks.load(self.weights)
        if not self.weights.is_file():
            remedy = "train it here: `hw2 train teacher`"
            raise InputError(f"{self.name}: its weights (94 MB) are not committed; {remedy}")
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
    def validation_classes(self) -> Tensor:
        """Where the row keeps them: predicted classes (n,) of the validation images, uint8."""
        shape = (self.metrics["val_total"],)
        return torch.from_numpy(
            read_array(self.folder / "validation_classes.npy", np.uint8, shape).copy()
        )

    def __str__(self) -> str:
        test = "not read" if self.test_accuracy is None else f"{self.test_accuracy:.2%}"
        words = f"{self.parameters:,} parameters, validation {self.val_accuracy:.2%}, test {test}"
        return f"{self.name}: {words}"

    def __repr__(self) -> str:
        # notebooks keep it: no path of a machine, no file that may be damaged
        return f"Run({self.name})"

    @property
    def val_accuracy(self) -> float:
        return self.metrics["val_correct"] / self.metrics["val_total"]

    @property
    def test_accuracy(self) -> float | None:
        """None until the test set was read for this run."""
        correct = self.metrics["test_correct"]
        return None if correct is None else correct / self.metrics["test_total"]

    @property
    def core_hours(self) -> float:
        """Of the processor, or of the clock for each thread where only that was recorded."""
        of_clock = self.metrics["wall_s"] * self.environment["threads"]
        return (self.metrics.get("processor_s") or of_clock) / 3600

    def at_phase(self, phase: str) -> float | None:
        """Validation accuracy right after a phase of the compression; None without that phase."""
        correct = self.metrics["phases"].get(phase)
        return None if correct is None else correct / self.metrics["val_total"]
