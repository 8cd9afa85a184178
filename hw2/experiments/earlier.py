"""Recipes of the runs that are there until those of profile `long` take their place.

Their epochs cycle through `views` views, which hang on `view_seed`. Leaves with `long`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from hw2.data import FashionMNIST, random_bits
from hw2.experiments.recipes import Recipe, TuningRecipe, sha256
from hw2.views import Task

#: fields that recipes and their `Fit` had and gave up, at the one value that every run had
RETIRED = {"iterations": 1, "growing": False}
RETIRED_FIT = {"ema": 0.0, "erasing": 0, "label_smoothing": 0.0}
#: fields that count for a digest: of all, of a teacher, a student, a compression, the search
ALL = ("stage", "seed", "images", "validation", "pad", "views", "view_seed", "fit")
TEACHER = ("stem", "weights")
STUDENT = ("temperature", "alpha", "teacher", "loss", "targets", "widths")
COMPRESSED = (*STUDENT, "parent", "sparse", "reg", "ratio", "importance", "recalibration")
SEARCH = ("temperatures", "alphas", "seeds", "teacher", "targets")
#: fields that came later, which count only where they differ from this
LATER = {"loss": "kl", "targets": "same view", "widths": None, "importance": "norm"}


@dataclass(frozen=True)
class CyclingTask(Task):
    """Epochs cycle through `views`; 0: a new view every epoch. View 0 is the image itself."""

    views: int = 0
    known: int = 0  # views that whoever teaches answers

    def view(self, epoch: int) -> Tensor:
        return self._numbers(epoch % self.views if self.views else epoch)

    def answer(self, epoch: int) -> Tensor:
        return torch.full((len(self.data.train_images),), epoch % self.views if self.views else 0)

    def answered(self) -> Sequence[Tensor]:
        return [self._numbers(index) for index in range(self.known)]

    def _numbers(self, index: int) -> Tensor:
        images = len(self.data.train_images)
        if index == 0:
            return torch.zeros(images, dtype=torch.int64)
        bits = random_bits(images, "view", self.seed, index)
        side = 2 * self.pad + 1
        rows = torch.from_numpy((bits >> 8).astype("int64")) % side
        columns = torch.from_numpy((bits >> 32).astype("int64")) % side
        mirrored = torch.from_numpy((bits & 1).astype("int64"))
        centre = side * self.pad + self.pad
        return 2 * ((rows * side + columns - centre) % side**2) + mirrored


@dataclass(frozen=True, kw_only=True)
class Cycling:
    """The fields of a recipe of today's `full`."""

    pad: Annotated[int, Field(ge=0, le=14)] = 2
    views: Annotated[int, Field(ge=0, le=1000)] = 8
    view_seed: Annotated[int, Field(ge=0)] = 0

    def task(self, data: FashionMNIST) -> Task:
        task = super().task(data)
        views = 0 if getattr(self, "stem", None) else self.views
        shown = (self.pad, self.view_seed, views, self.views)
        return CyclingTask(data, task.train, task.validation, *shown)

    @property
    def digest(self) -> str:
        names = STUDENT
        if self.stage == "tuning":
            names = SEARCH
        elif self.stem:
            names = TEACHER
        elif self.ratio is not None:
            names = COMPRESSED
        values = {name: value for name, value in asdict(self).items() if name in ALL + names}
        values = {name: values[name] for name in values if values[name] != LATER.get(name, "")}
        for fit in {"fit", "sparse"} & values.keys():
            values[fit] |= RETIRED_FIT
        return sha256(values)


@dataclass(frozen=True, kw_only=True)
class EarlierRecipe(Cycling, Recipe):
    pass


@dataclass(frozen=True, kw_only=True)
class EarlierTuningRecipe(Cycling, TuningRecipe):
    pass


def completed(content: dict) -> dict:
    """A recipe.json's fields less those that recipes gave up."""
    values = dict(item for item in content.items() if item not in RETIRED.items())
    for part in {"fit", "sparse"} & values.keys():
        if values[part]:
            kept = [item for item in values[part].items() if item not in RETIRED_FIT.items()]
            values[part] = dict(kept)
    return values
