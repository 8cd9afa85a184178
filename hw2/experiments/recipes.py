"""What a run is made of: frozen dataclasses with every number that matters, and their digest.

A recipe names no path, device or time. Its digest names the run: a run is loaded where a finished folder with the
same recipe exists.
"""

import hashlib
import json
import textwrap
from dataclasses import asdict, dataclass, fields, is_dataclass, replace

from hw2 import distillation
from hw2.data import FashionMNIST
from hw2.errors import InputError
from hw2.files import adapter
from hw2.pruning import check_ratio
from hw2.training import FORBID, Fit, Task

#: Fields with a default that always enter the digest. Other fields enter only where they differ from their default, so
#: adding one keeps the digests of older runs.
FIRST = frozenset({
    "images", "validation", "pad", "views", "view_seed", "stem", "weights", "temperature", "alpha", "teacher",
    "recalibration", "batch", "warmup", "momentum", "weight_decay", "precision",
})  # fmt: skip
#: fields that recipes and their `Fit` had and gave up, at the one value that every run had; another is refused
RETIRED = {"iterations": 1, "growing": False}
RETIRED_FIT = {"ema": 0.0, "erasing": 0, "label_smoothing": 0.0}
COUNTS = ("images", "validation", "views", "batch", "recalibration")  # at least one; other numbers are at least 0


def _counted(content: object) -> dict[str, object]:
    """The fields of a dataclass that its digest counts, those of dataclasses inside it likewise."""
    values = {field: getattr(content, field.name) for field in fields(content)}
    counted = {field.name: value for field, value in values.items() if field.name in FIRST or value != field.default}
    counted |= RETIRED_FIT if isinstance(content, Fit) else {}
    return {name: _counted(value) if is_dataclass(value) else value for name, value in counted.items()}


@dataclass(frozen=True)
class Recipe:
    """Common to all. Epochs cycle through `views` of `view_seed`."""

    stage: str
    seed: int
    images: int = 55000  # the first so many of the training split
    validation: int = 5000
    pad: int = 2
    views: int = 8
    view_seed: int = 0
    __pydantic_config__ = FORBID

    def __post_init__(self):
        if not 0 <= self.seed < 100:
            raise InputError(f"seed {self.seed}: expected 0 to 99")
        for name, value in _flat(self).items():
            least = int(name.rpartition(".")[2] in COUNTS)
            if isinstance(value, int | float) and value < least:
                raise InputError(f"{name} {value}: expected at least {least}")

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical JSON of all fields, less later ones (not in `FIRST`) at their defaults."""
        return hashlib.sha256(json.dumps(_counted(self), sort_keys=True).encode()).hexdigest()

    @property
    def fits(self) -> list[Fit]:
        """Its trainings, in order."""
        return [self.fit]

    def task(self, data: FashionMNIST) -> Task:
        """The rows and views that the recipe's network is trained and validated on."""
        train, validation = data.split
        return Task(data, train[: self.images], validation[: self.validation], self.pad, self.views, self.view_seed)


@dataclass(frozen=True, kw_only=True)
class TeacherRecipe(Recipe):
    """Training uses a new view each epoch. Soft targets are computed for views 0 to `views` - 1."""

    fit: Fit
    stem: str = "imagenet"
    weights: str | None = None  # SHA-256 of the file that stood in for training

    def task(self, data: FashionMNIST) -> Task:
        return replace(super().task(data), views=0)


@dataclass(frozen=True, kw_only=True)
class StudentRecipe(Recipe):
    """A ResNet-14 of any `widths` (None: its own). Without a `teacher` (recipe digest) it learns from labels alone."""

    fit: Fit
    temperature: float = 1.0
    alpha: float = 0.0
    teacher: str | None = None
    loss: str = "kl"  # the soft part: a key of `distillation.SOFT_LOSSES`
    targets: str = "same view"  # the teacher's logits that are learnt from: one of `distillation.TARGETS`
    widths: tuple[int, ...] | None = None

    def __post_init__(self):
        super().__post_init__()
        distillation.check(self.temperature, self.alpha, self.loss, self.targets)
        if self.widths is not None and not (len(self.widths) == 4 and all(0 < width <= 4096 for width in self.widths)):
            raise InputError(f"widths {self.widths}: expected four, of the stem and of the stages, from 1 to 4096")


@dataclass(frozen=True, kw_only=True)
class CompressedRecipe(StudentRecipe):
    """`parent` (a recipe digest) made sparse, pruned by `ratio`, recalibrated and fine-tuned by `fit`."""

    parent: str
    sparse: Fit  # of no epochs: without sparse learning
    reg: float
    ratio: float
    recalibration: int = 10000  # training images

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
    temperatures: tuple[float, ...]
    alphas: tuple[float, ...]
    seeds: tuple[int, ...]
    teacher: str
    targets: str = "same view"


def read(kind: type[Recipe], content: dict) -> Recipe:
    """A recipe.json's recipe. `InputError` where it is none of this kind, or its digest is not that of its fields."""
    retired = (RETIRED | {"digest": content.get("digest")}).items()
    try:
        values = {name: value for name, value in content.items() if (name, value) not in retired}
        for part in {"fit", "sparse"} & values.keys():
            values[part] = dict(item for item in values[part].items() if item not in RETIRED_FIT.items())
        for schema, given in ((kind, values), *((Fit, values[part]) for part in {"fit", "sparse"} & values.keys())):
            if lacking := FIRST & {field.name for field in fields(schema)} - given.keys():
                raise ValueError(f"it lacks {', '.join(sorted(lacking))}")
        recipe = adapter(kind).validate_json(json.dumps(values, allow_nan=False), strict=True)
    except (AttributeError, ValueError, RecursionError) as error:
        raise InputError(f"no recipe ({textwrap.shorten(str(error), 200)})") from None
    if recipe.digest != content.get("digest"):
        raise InputError("its digest is not that of its numbers")
    return recipe


def written(recipe: Recipe) -> dict:
    """The content of recipe.json: every field, and what the digest counts besides."""
    content = {"digest": recipe.digest, **asdict(recipe)}
    return content | {name: content[name] | RETIRED_FIT for name in ("fit", "sparse") if name in content}


def _flat(recipe: Recipe) -> dict[str, object]:
    """Field -> value; fields of a `Fit` by their path, such as fit.lr."""
    values = {}
    for name, value in asdict(recipe).items():
        values |= {f"{name}.{key}": v for key, v in value.items()} if isinstance(value, dict) else {name: value}
    return values


def difference(old: Recipe, new: Recipe) -> str:
    """The first field in which two recipes differ, with both values, in words."""
    before, after = _flat(old), _flat(new)
    name = next((name for name in before | after if before.get(name) != after.get(name)), "digest")
    return f"its {name} is {before.get(name)}, {after.get(name)} is asked for"
