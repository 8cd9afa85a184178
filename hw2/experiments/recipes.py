"""What a run is made of: frozen dataclasses with every number that matters, and their digest.

A recipe names no path, device or time. Its digest names the run. Every field has a type and a
range, which are checked when the recipe is made.
"""

import hashlib
import json
import textwrap
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from hw2 import views
from hw2.data import VALIDATION, FashionMNIST
from hw2.errors import InputError
from hw2.files import adapter, check_fields, first_error
from hw2.pruning import check_ratio
from hw2.training import FORBID, Fit, Task

TRAINING = 55_000  # images of the training split
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # SHA-256
Seed = Annotated[int, Field(ge=0, le=99)]
Temperature = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Alpha = Annotated[float, Field(ge=0, le=1)]  # weight of the KL term
Targets = Literal["same view", "identity", "mean"]
Width = Annotated[int, Field(ge=1, le=4096)]


@dataclass(frozen=True)
class Recipe:
    """Common to all."""

    stage: Annotated[str, Field(min_length=1)]
    seed: Seed
    images: Annotated[int, Field(ge=1, le=TRAINING)] = TRAINING  # the first of the training split
    validation: Annotated[int, Field(ge=1, le=VALIDATION)] = VALIDATION
    pad: Annotated[int, Field(ge=0, le=14)] = 1  # pixels by which views are moved
    __pydantic_config__ = FORBID

    def __post_init__(self):
        check_fields(self)

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical JSON of all fields."""
        return sha256(asdict(self))

    @property
    def fits(self) -> list[Fit]:
        """Its trainings, in order."""
        return [self.fit]

    @property
    def views(self) -> int:
        """How many views an image has."""
        return views.count(self.pad)

    def task(self, data: FashionMNIST) -> Task:
        """The rows and views that the recipe's network is trained and validated on."""
        train = data.split[0][: self.images]
        validation = data.split[1][: self.validation]
        return Task(data, train, validation, self.pad, self.seed)


@dataclass(frozen=True, kw_only=True)
class TeacherRecipe(Recipe):
    """A ResNet-50, which then answers every view of every image."""

    fit: Fit
    stem: Literal["imagenet", "stride1"] = "imagenet"
    weights: Digest | None = None  # SHA-256 of the file that stood in for training


@dataclass(frozen=True, kw_only=True)
class StudentRecipe(Recipe):
    """A ResNet-14 of any `widths` (None: its own). Without a `teacher` it learns from labels alone.

    `teacher` is the digest of any recipe whose run has weights, or soft targets.
    """

    fit: Fit
    temperature: Temperature = 1.0
    alpha: Alpha = 0.0
    teacher: Digest | None = None
    loss: Literal["kl", "kl_mean"] = "kl"  # the soft part
    targets: Targets = "same view"  # logits that are learnt from
    widths: tuple[Width, Width, Width, Width] | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.alpha and not self.teacher:
            raise InputError(f"alpha {self.alpha}: expected 0 without a teacher")


@dataclass(frozen=True, kw_only=True)
class ContinuedRecipe(StudentRecipe):
    """The network of `parent`, a recipe's digest, trained on by `fit`."""

    parent: Digest


@dataclass(frozen=True, kw_only=True)
class CompressedRecipe(ContinuedRecipe):
    """The parent's network made sparse, pruned by `ratio`, recalibrated and fine-tuned by `fit`."""

    sparse: Fit  # of no epochs: without sparse learning
    reg: Annotated[float, Field(ge=0, le=100)]
    ratio: float
    importance: Literal["norm", "random"] = "norm"  # by what channels are chosen
    recalibration: Annotated[int, Field(ge=1, le=TRAINING)] = 10000  # training images

    def __post_init__(self):
        super().__post_init__()
        check_ratio(self.ratio)

    @property
    def fits(self) -> list[Fit]:
        return [self.sparse, self.fit]


@dataclass(frozen=True, kw_only=True)
class TuningRecipe(Recipe):
    """Every temperature with every alpha and seed, each a student trained by `fit`."""

    fit: Fit
    temperatures: Annotated[tuple[Temperature, ...], Field(min_length=1)]
    alphas: Annotated[tuple[Alpha, ...], Field(min_length=1)]
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    teacher: Digest
    targets: Targets = "same view"

    def __post_init__(self):
        super().__post_init__()
        for name in ("temperatures", "alphas", "seeds"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise InputError(f"{name} {values}: expected each once")


def sha256(content: dict) -> str:
    """Of the canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read(kind: type[Recipe], content: dict) -> Recipe:
    """A recipe.json's recipe.

    `InputError` where it is none of this kind, or its digest is not that of its fields.
    """
    values = {name: value for name, value in content.items() if name != "digest"}
    try:
        recipe = adapter(kind).validate_json(json.dumps(values, allow_nan=False), strict=True)
    except (AttributeError, ValueError) as error:
        reason = first_error(error) if isinstance(error, ValidationError) else str(error)
        raise InputError(f"no recipe ({textwrap.shorten(reason, 200)})") from None
    if recipe.digest != content.get("digest"):
        raise InputError("its digest is not that of its numbers")
    if lacking := flat(asdict(recipe)).keys() - flat(values).keys():
        raise InputError(f"no recipe (it lacks {', '.join(sorted(lacking))})")
    return recipe


def written(recipe: Recipe) -> dict:
    """The content of recipe.json."""
    return {"digest": recipe.digest, **asdict(recipe)}


def flat(values: dict) -> dict[str, object]:
    """Field -> value; fields of a `Fit` by their path, such as fit.lr."""
    named = {}
    for name, value in values.items():
        if isinstance(value, dict):
            named |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            named[name] = value
    return named


def difference(old: Recipe, new: Recipe) -> str:
    """The first field in which two recipes differ, with both values, in words."""
    before = flat(asdict(old))
    after = flat(asdict(new))
    for name in before | after:
        if before.get(name) != after.get(name):
            return f"its {name} is {before.get(name)}, {after.get(name)} is asked for"
    return "its digest is another one"
