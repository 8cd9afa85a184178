"""What a run is made of: frozen dataclasses with every number that matters, and their digest.

A recipe names no path, device or time. Its digest names the run: a run is loaded where a finished
folder with the same recipe exists. Every field has a type and a range, which are checked when the
recipe is made.
"""

import hashlib
import itertools
import json
import textwrap
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from hw2 import distillation
from hw2.data import VALIDATION, FashionMNIST
from hw2.errors import InputError
from hw2.files import adapter, check_fields, first_error
from hw2.pruning import check_ratio
from hw2.training import FORBID, Fit, Task

TRAINING = 55_000  # images of the training split
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # SHA-256
Seed = Annotated[int, Field(ge=0, le=99)]
Width = Annotated[int, Field(ge=1, le=4096)]


@dataclass(frozen=True)
class Recipe:
    """Common to all. Epochs cycle through `views` of `view_seed`."""

    stage: Annotated[str, Field(min_length=1)]
    seed: Seed
    images: Annotated[int, Field(ge=1, le=TRAINING)] = (
        TRAINING  # the first so many of the training split
    )
    validation: Annotated[int, Field(ge=1, le=VALIDATION)] = VALIDATION
    pad: Annotated[int, Field(ge=0, le=14)] = 2  # pixels by which crops move
    views: Annotated[int, Field(ge=0, le=1000)] = 8  # 0: a new view every epoch
    view_seed: Annotated[int, Field(ge=0)] = 0
    __pydantic_config__ = FORBID

    def __post_init__(self):
        check_fields(self)

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical JSON of all fields."""
        return _sha256(asdict(self))

    @property
    def fits(self) -> list[Fit]:
        """Its trainings, in order."""
        return [self.fit]

    def task(self, data: FashionMNIST) -> Task:
        """The rows and views that the recipe's network is trained and validated on."""
        train, validation = data.split
        return Task(
            data,
            train[: self.images],
            validation[: self.validation],
            self.pad,
            self.views,
            self.view_seed,
        )


@dataclass(frozen=True, kw_only=True)
class TeacherRecipe(Recipe):
    """Training uses a new view each epoch. Soft targets are computed for views 0 to `views` - 1."""

    fit: Fit
    stem: Literal["imagenet", "stride1"] = "imagenet"
    weights: Digest | None = None  # SHA-256 of the file that stood in for training

    def __post_init__(self):
        super().__post_init__()
        if self.views == 0:
            raise InputError(
                "views 0: expected at least 1, for which a teacher's soft targets are computed"
            )

    def task(self, data: FashionMNIST) -> Task:
        return replace(super().task(data), views=0)


@dataclass(frozen=True, kw_only=True)
class StudentRecipe(Recipe):
    """A ResNet-14 of any `widths` (None: its own). Without a `teacher` it learns from labels alone.

    `teacher` is the digest of any recipe whose run has weights, or soft targets. A teacher's logits
    are known for its own `views`, so a student that takes a new view every epoch learns from their
    mean or from the image as it is.
    """

    fit: Fit
    temperature: float = 1.0
    alpha: float = 0.0
    teacher: Digest | None = None
    loss: str = "kl"  # the soft part: a key of `distillation.SOFT_LOSSES`
    targets: str = (
        "same view"  # the teacher's logits that are learnt from: one of `distillation.TARGETS`
    )
    widths: tuple[Width, Width, Width, Width] | None = None

    def __post_init__(self):
        super().__post_init__()
        distillation.check(self.temperature, self.alpha, self.loss, self.targets)
        if self.alpha and not self.teacher:
            raise InputError(f"alpha {self.alpha}: expected 0 without a teacher")
        if self.teacher and self.targets == "same view" and self.views == 0:
            raise InputError("views 0: expected the teacher's with the targets of the same view")


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
    temperatures: Annotated[tuple[float, ...], Field(min_length=1)]
    alphas: Annotated[tuple[float, ...], Field(min_length=1)]
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    teacher: Digest
    targets: str = "same view"

    def __post_init__(self):
        super().__post_init__()
        for temperature, alpha in itertools.product(self.temperatures, self.alphas):
            distillation.check(temperature, alpha, "kl", self.targets)
        for name in ("temperatures", "alphas", "seeds"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise InputError(f"{name} {values}: expected each once")


# Until the new runs take their place, the runs of profile `full` keep the digests that they were
# trained under.

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
#: fields that recipes and their `Fit` had and gave up, at the one value that every run had; another
#: is refused
RETIRED = {"iterations": 1, "growing": False}
RETIRED_FIT = {"ema": 0.0, "erasing": 0, "label_smoothing": 0.0}


def _counted(content: object) -> dict[str, object]:
    """The fields of a dataclass that an older digest counts, those of dataclasses inside it
    likewise.
    """
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


class _Earlier:
    """A recipe of today's `full`."""

    @property
    def digest(self) -> str:
        return _sha256(_counted(self))


class EarlierTeacherRecipe(_Earlier, TeacherRecipe):
    pass


class EarlierStudentRecipe(_Earlier, StudentRecipe):
    pass


class EarlierCompressedRecipe(_Earlier, CompressedRecipe):
    pass


class EarlierTuningRecipe(_Earlier, TuningRecipe):
    pass


#: kind of recipe -> its kind in today's `full`
EARLIER = {kind.__bases__[1]: kind for kind in _Earlier.__subclasses__()}


def _sha256(content: dict) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read(kind: type[Recipe], content: dict) -> Recipe:
    """A recipe.json's recipe.

    `InputError` where it is none of this kind, or its digest is not that of its fields.
    """
    retired = (RETIRED | {"digest": content.get("digest")}).items()
    try:
        values = {name: value for name, value in content.items() if (name, value) not in retired}
        for part in {"fit", "sparse"} & values.keys():
            values[part] = dict(
                item for item in values[part].items() if item not in RETIRED_FIT.items()
            )
        for schema, given in (
            (kind, values),
            *((Fit, values[part]) for part in {"fit", "sparse"} & values.keys()),
        ):
            if lacking := FIRST & {field.name for field in fields(schema)} - given.keys():
                raise ValueError(f"it lacks {', '.join(sorted(lacking))}")
        recipe = adapter(kind).validate_json(json.dumps(values, allow_nan=False), strict=True)
    except (AttributeError, ValueError, RecursionError) as error:
        reason = first_error(error) if isinstance(error, ValidationError) else str(error)
        raise InputError(f"no recipe ({textwrap.shorten(reason, 200)})") from None
    earlier = [EARLIER[kind](**vars(recipe))] if kind in EARLIER else []
    for known in (recipe, *earlier):
        if known.digest == content.get("digest"):
            return known
    raise InputError("its digest is not that of its numbers")


def written(recipe: Recipe) -> dict:
    """The content of recipe.json: every field, and what the digest counts besides."""
    content = {"digest": recipe.digest, **asdict(recipe)}
    if isinstance(recipe, _Earlier):
        content |= {
            name: content[name] | RETIRED_FIT for name in ("fit", "sparse") if name in content
        }
    return content


def _flat(recipe: Recipe) -> dict[str, object]:
    """Field -> value; fields of a `Fit` by their path, such as fit.lr."""
    values = {}
    for name, value in asdict(recipe).items():
        values |= (
            {f"{name}.{key}": v for key, v in value.items()}
            if isinstance(value, dict)
            else {name: value}
        )
    return values


def difference(old: Recipe, new: Recipe) -> str:
    """The first field in which two recipes differ, with both values, in words."""
    before, after = _flat(old), _flat(new)
    name = next((name for name in before | after if before.get(name) != after.get(name)), "digest")
    return f"its {name} is {before.get(name)}, {after.get(name)} is asked for"
