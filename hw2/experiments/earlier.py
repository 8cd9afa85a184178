"""Recipes of the runs that are there until those of profile `long` take their place.

Their epochs cycle through `views` views, which hang on `view_seed`. Leaves with `long`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from hw2.data import FashionMNIST, random_bits
from hw2.experiments.recipes import (
    CompressedRecipe,
    StudentRecipe,
    TeacherRecipe,
    TuningRecipe,
    sha256,
)
from hw2.training import Fit
from hw2.views import Task

#: fields with a default that always entered the digest; others only where they differed from their
#: default
FIRST = frozenset(
    {
        "images",
        "validation",
        "pad",
        "views",
        "view_seed",
        "stem",
        "weights",
        "temperature",
        "alpha",
        "teacher",
        "recalibration",
        "batch",
        "warmup",
        "momentum",
        "weight_decay",
        "precision",
    }
)
#: fields that recipes and their `Fit` had and gave up, at the one value that every run had
RETIRED = {"iterations": 1, "growing": False}
RETIRED_FIT = {"ema": 0.0, "erasing": 0, "label_smoothing": 0.0}


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
        views = 0 if isinstance(self, TeacherRecipe) else self.views
        shown = (self.pad, self.view_seed, views, self.views)
        return CyclingTask(data, task.train, task.validation, *shown)


class Earlier(Cycling):
    """With a digest that leaves out what later fields have as their default."""

    @property
    def digest(self) -> str:
        return sha256(_counted(self))


@dataclass(frozen=True, kw_only=True)
class EarlierTeacherRecipe(Earlier, TeacherRecipe):
    pass


@dataclass(frozen=True, kw_only=True)
class EarlierStudentRecipe(Earlier, StudentRecipe):
    pass


@dataclass(frozen=True, kw_only=True)
class EarlierCompressedRecipe(Earlier, CompressedRecipe):
    pass


@dataclass(frozen=True, kw_only=True)
class EarlierTuningRecipe(Earlier, TuningRecipe):
    pass


@dataclass(frozen=True, kw_only=True)
class ChoiceRecipe(Cycling, StudentRecipe):
    """Of the group `choices`: its digest counts every field."""


#: kind of recipe -> its kind in today's `full`
EARLIER = {
    TeacherRecipe: EarlierTeacherRecipe,
    StudentRecipe: EarlierStudentRecipe,
    CompressedRecipe: EarlierCompressedRecipe,
    TuningRecipe: EarlierTuningRecipe,
}


def _counted(content: object) -> dict[str, object]:
    """The fields of a dataclass that an older digest counts, and those of dataclasses inside it."""
    values = {field: getattr(content, field.name) for field in fields(content)}
    counted = {
        field.name: value
        for field, value in values.items()
        if field.name in FIRST or value != field.default
    }
    counted |= RETIRED_FIT if isinstance(content, Fit) else {}
    return {
        name: _counted(value) if is_dataclass(value) else value for name, value in counted.items()
    }


def completed(content: dict) -> dict:
    """A recipe.json's fields less those that recipes gave up, with those that came later."""
    values = dict(item for item in content.items() if item not in RETIRED.items())
    for part in {"fit", "sparse"} & values.keys():
        kept = [item for item in values[part].items() if item not in RETIRED_FIT.items()]
        values[part] = dict(kept)
    later = {"importance": "norm"} if "ratio" in values else {}
    return later | values
