"""What a run is made of: frozen dataclasses with every number that matters, and their digest.

A recipe names no path, device or time. Its digest names the run. Every field has a type and a
range, which are checked when the recipe is made.
"""

import hashlib
import json
import textwrap
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

import pandas as pd
from pydantic import Field, ValidationError

from hw2 import views
from hw2.data import VALIDATION, FashionMNIST
from hw2.distillation import SOFT_LOSSES
from hw2.errors import InputError
from hw2.files import adapter, check_fields, first_error
from hw2.pruning import IMPORTANCES, check_ratio
from hw2.training import FORBID, Fit, Task

TRAINING = 55_000  # images of the training split
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # SHA-256
Seed = Annotated[int, Field(ge=0, le=99)]
Temperature = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Alpha = Annotated[float, Field(ge=0, le=1)]  # weight of the KL term
Targets = Literal["same view", "identity", "mean"]
Width = Annotated[int, Field(ge=1, le=4096)]


@dataclass(frozen=True, kw_only=True)
class Common:
    """What every training has."""

    stage: Annotated[str, Field(min_length=1)]  # the row of the catalogue
    seed: Seed
    fit: Fit
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
    def views(self) -> int:
        """How many views an image has."""
        return views.count(self.pad)

    def task(self, data: FashionMNIST) -> Task:
        """The rows and views that the network is trained and validated on."""
        train = data.split[0][: self.images]
        validation = data.split[1][: self.validation]
        return Task(data, train, validation, self.pad, self.seed)


@dataclass(frozen=True, kw_only=True)
class Recipe(Common):
    """A run's. What does not apply to it keeps its default."""

    # A ResNet-50, which then answers every view of every image.
    stem: Literal["imagenet", "stride1"] | None = None  # None: a ResNet-14
    weights: Digest | None = None  # of the file that stood in for the ResNet-50's training
    # A ResNet-14.
    widths: tuple[Width, Width, Width, Width] | None = None  # None: its own
    parent: Digest | None = None  # recipe whose network is trained on; None: random weights
    teacher: Digest | None = None  # recipe whose network is learnt from; None: labels alone
    temperature: Temperature = 1.0
    alpha: Alpha = 0.0
    loss: Literal[*SOFT_LOSSES] = "kl"  # the soft part
    targets: Targets = "same view"  # logits that are learnt from
    # Pruned: made sparse, pruned by `ratio`, recalibrated, then fine-tuned by `fit`.
    ratio: float | None = None  # None: nothing is pruned
    sparse: Fit | None = None  # of no epochs: without sparse learning
    reg: Annotated[float, Field(ge=0, le=100)] = 0.0
    importance: Literal[*IMPORTANCES] = "norm"  # by what channels are chosen
    recalibration: Annotated[int, Field(ge=1, le=TRAINING)] = 10000  # training images

    def __post_init__(self):
        super().__post_init__()
        if self.alpha and not self.teacher:
            raise InputError(f"alpha {self.alpha}: expected 0 without a teacher")
        if self.ratio is not None:
            check_ratio(self.ratio)
            for name in ("parent", "sparse"):
                if getattr(self, name) is None:
                    raise InputError(f"{name} None: expected one where there is a ratio")

    @property
    def fits(self) -> list[Fit]:
        """Its trainings, in order."""
        return [self.fit] if self.sparse is None else [self.sparse, self.fit]


@dataclass(frozen=True, kw_only=True)
class TuningRecipe(Common):
    """Every temperature with every alpha and seed, each a student trained by `fit`."""

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


def read(kind: type[Common], content: dict) -> Common:
    """A recipe.json's recipe; `InputError` where it is none, or its digest is another one."""
    values = {name: value for name, value in content.items() if name != "digest"}
    try:
        recipe = adapter(kind).validate_json(json.dumps(values, allow_nan=False), strict=True)
    except (AttributeError, ValueError, InputError) as error:
        reason = first_error(error) if isinstance(error, ValidationError) else str(error)
        raise InputError(f"no recipe ({textwrap.shorten(reason, 200)})") from None
    if recipe.digest != content.get("digest"):
        raise InputError("its digest is not that of its numbers")
    return recipe


def written(recipe: Common) -> dict:
    """The content of recipe.json."""
    return {"digest": recipe.digest, **asdict(recipe)}


def difference(old: Common, new: Common) -> str:
    """The first field in which two recipes differ, with both values, in words."""
    before = pd.json_normalize(asdict(old)).to_dict("records")[0]
    after = pd.json_normalize(asdict(new)).to_dict("records")[0]
    for name in before | after:
        if before.get(name) != after.get(name):
            return f"its {name} is {before.get(name)}, {after.get(name)} is asked for"
    return "its digest is another one"
