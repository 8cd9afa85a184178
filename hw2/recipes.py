"""What a run is made of: frozen dataclasses with every number that matters, and the three profiles' values.

A recipe names no path, device or time. Its digest names the run: a run is loaded where a finished folder with the
same recipe exists, and trained where not. Profiles differ in these numbers only, never in code.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace

from hw2.errors import InputError

PROFILES = ("smoke", "cpu", "full")


#: fields that recipes did not have when the first runs were made, at the values that these runs had
LATER = {"loss": "kl", "targets": "same view"}


@dataclass(frozen=True)
class Fit:
    """One training: SGD with Nesterov momentum, learning rate linear up to `lr`, then down along a half cosine."""

    epochs: int
    lr: float
    batch: int = 128
    warmup: float = 0.2  # share of all steps
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    ema: float = 0.0  # decay of the averaged weights; 0: none
    erasing: int = 0  # side of the erased square in pixels; 0: none
    precision: str = "float32"  # or "bfloat16": autocast


@dataclass(frozen=True)
class Recipe:
    """Common to all stages. `views` of seed `view_seed` are cycled through, one an epoch; 0: a new one every epoch."""

    stage: str
    seed: int
    images: int = 55000  # the first so many of the training split
    validation: int = 5000
    pad: int = 2
    views: int = 8
    view_seed: int = 0

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical JSON of all fields, less those of `LATER` at their defaults."""
        fields = {name: value for name, value in asdict(self).items() if (name, value) not in LATER.items()}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class TeacherRecipe(Recipe):
    """`views` of them get soft targets. `weights`: SHA-256 of the file that stood in for training, or None."""

    fit: Fit
    stem: str = "imagenet"
    weights: str | None = None


@dataclass(frozen=True, kw_only=True)
class StudentRecipe(Recipe):
    """ResNet-14, distilled from `teacher` (a recipe digest); controls without distillation have alpha 0 and none.

    `loss` names the soft part (`distillation.SOFT_LOSSES`); `targets` are the teacher's answers to the view that the
    student sees, or to the image as it is (`identity`).
    """

    fit: Fit
    temperature: float = 1.0
    alpha: float = 0.0
    teacher: str | None = None
    loss: str = LATER["loss"]
    targets: str = LATER["targets"]

    def __post_init__(self):
        check_temperature(self.temperature)
        check_alpha(self.alpha)


@dataclass(frozen=True, kw_only=True)
class CompressedRecipe(StudentRecipe):
    """`parent` (a recipe digest) made sparse, pruned by `ratio`, recalibrated and fine-tuned by `fit`."""

    parent: str
    sparse: Fit
    reg: float
    ratio: float
    recalibration: int = 10000  # training images

    def __post_init__(self):
        super().__post_init__()
        check_ratio(self.ratio)


@dataclass(frozen=True, kw_only=True)
class TuningRecipe(Recipe):
    """Every temperature with every alpha and seed, each a student trained by `fit`."""

    fit: Fit
    temperatures: tuple[float, ...]
    alphas: tuple[float, ...]
    seeds: tuple[int, ...]
    teacher: str


def read(content: dict) -> Recipe:
    """The recipe of a recipe.json; `InputError` where it is none or its digest is not that of its fields."""
    fields = {name: value for name, value in content.items() if name != "digest"}
    kind = CompressedRecipe if "parent" in fields else TeacherRecipe if "stem" in fields else StudentRecipe
    try:
        fits = {name: Fit(**fields[name]) for name in ("fit", "sparse") if name in fields}
        recipe = kind(**(fields | fits))
    except TypeError as error:
        raise InputError(f"no recipe ({error}); restore recipe.json with `git checkout`") from None
    if recipe.digest != content.get("digest"):
        raise InputError("its digest is not that of its numbers; restore recipe.json with `git checkout`")
    return recipe


def check_temperature(value: float) -> float:
    if not 0 < value < math.inf:
        raise InputError(f"temperature {value}: expected a number above 0; 2 to 8 is usual")
    return value


def check_alpha(value: float) -> float:
    if not 0 <= value <= 1:
        raise InputError(f"alpha {value}: expected the weight of the KL term, from 0 to 1")
    return value


def check_ratio(value: float) -> float:
    if not 0 <= value < 1:
        raise InputError(f"pruning ratio {value}: expected at least 0 and below 1; the report's is 0.29")
    return value


def check_profile(name: str) -> str:
    if name not in PROFILES:
        raise InputError(f"profile {name!r}: expected one of {', '.join(PROFILES)}")
    return name


#: profile -> stage -> the numbers in which profiles differ
NUMBERS = {
    "smoke": {
        "common": {"images": 1000, "validation": 500, "views": 2},
        "teacher": {"fit": Fit(epochs=1, lr=0.02)},
        "student": {"fit": Fit(epochs=2, lr=0.1)},
        "tuning": {
            "fit": Fit(epochs=1, lr=0.1),
            "images": 500,
            "temperatures": (2.0, 4.0),
            "alphas": (0.5, 0.9),
            "seeds": (0,),
        },
        "finalist": {"fit": Fit(epochs=1, lr=0.1)},
        "compressed": {
            "sparse": Fit(epochs=1, lr=0.02, weight_decay=0.0),
            "reg": 1e-2,
            "fit": Fit(epochs=2, lr=0.05),
            "recalibration": 1000,
        },
    },
    # Two cores: the teacher gets few epochs and ends below what the student reaches alone. A short trial may flatter
    # such a teacher, which knows more than a student that has only begun: hence the finalists.
    "cpu": {
        "common": {"views": 6},
        "teacher": {"fit": Fit(epochs=6, lr=0.1)},
        "student": {"fit": Fit(epochs=7, lr=0.2)},
        "tuning": {
            "fit": Fit(epochs=4, lr=0.2),
            "images": 15000,
            "temperatures": (1.0, 2.0, 4.0, 8.0),
            "alphas": (0.2, 0.5, 0.8, 1.0),
            "seeds": (0, 1, 2),
        },
        "finalist": {"fit": Fit(epochs=3, lr=0.2)},
        # Sparse learning that is strong enough to prune without any loss cost far more than that on validation, and
        # few epochs of fine-tuning did not bring it back. Five epochs of fine-tuning fell short on validation as well;
        # twenty did not, and faster training of odd widths, which rounds differently, left time for four more.
        "compressed": {
            "sparse": Fit(epochs=1, lr=0.03, weight_decay=0.0),
            "reg": 5e-3,
            "fit": Fit(epochs=24, lr=0.1),
        },
    },
    "full": {
        "common": {"views": 8},
        "teacher": {
            "stem": "small",
            "fit": Fit(epochs=60, lr=0.2, batch=256, ema=0.999, erasing=14, precision="bfloat16"),
        },
        "student": {"fit": Fit(epochs=150, lr=0.4, batch=256, ema=0.999, erasing=8, precision="bfloat16")},
        "tuning": {
            "fit": Fit(epochs=30, lr=0.4, batch=256, ema=0.999, precision="bfloat16"),
            "temperatures": (1.0, 2.0, 4.0, 8.0),
            "alphas": (0.3, 0.6, 0.9, 1.0),
            "seeds": (0, 1, 2),
        },
        "finalist": {"fit": Fit(epochs=60, lr=0.4, batch=256, ema=0.999, precision="bfloat16")},
        "compressed": {
            "sparse": Fit(epochs=40, lr=0.02, batch=256, weight_decay=0.0, precision="bfloat16"),
            "reg": 1e-3,
            "fit": Fit(epochs=200, lr=0.2, batch=256, ema=0.999, erasing=8, precision="bfloat16"),
        },
    },
}
RATIO = 0.29  # leaves widths 11/11/22/45: any ratio in (0.28125, 0.296875] does


def _numbers(profile: str, stage: str) -> dict:
    return NUMBERS[check_profile(profile)]["common"] | NUMBERS[profile][stage]


def teacher(profile: str, seed: int = 0, weights: str | None = None) -> TeacherRecipe:
    recipe = TeacherRecipe(stage="teacher", seed=seed, **_numbers(profile, "teacher"))
    # The course's file was trained elsewhere: none of our training's numbers describe it.
    return replace(recipe, weights=weights, stem="imagenet", fit=Fit(epochs=0, lr=0.0)) if weights else recipe


def tuning(profile: str, teacher: str) -> TuningRecipe:
    return TuningRecipe(stage="tuning", seed=0, teacher=teacher, **_numbers(profile, "tuning"))


def distilled(
    profile: str, seed: int, teacher: str, temperature: float, alpha: float, tuned: bool = True
) -> StudentRecipe:
    """Settings that are not the search's get a folder of their own."""
    stage = "distilled" if tuned else f"distilled-T{temperature:g}-alpha{alpha:g}"
    numbers = _numbers(profile, "student")
    return StudentRecipe(stage=stage, seed=seed, teacher=teacher, temperature=temperature, alpha=alpha, **numbers)


def finalist(profile: str, number: int, seed: int, teacher: str, temperature: float, alpha: float) -> StudentRecipe:
    """One of the search's two finalists (`number` from 1), trained longer than a trial."""
    numbers = _numbers(profile, "finalist")
    return StudentRecipe(
        stage=f"finalist-{number}",
        seed=seed,
        teacher=teacher,
        temperature=temperature,
        alpha=alpha,
        **numbers,
    )


def plain(profile: str, seed: int) -> StudentRecipe:
    """The distilled student's control: the labels alone, all else equal."""
    return StudentRecipe(stage="plain", seed=seed, **_numbers(profile, "student"))


#: arms at the budget of the search's trials and its best setting: what each learns from
ARMS = {
    "vanilla": "vanilla KD",
    "labels": "the labels alone",
    "smoothed": "label smoothing 0.1, no teacher",
    "kl_mean": "KD with the `mean` reduction",
    "fixed_teacher": "KD, targets of the un-augmented image",
    "decoupled": "decoupled KD",
    "standardised": "KD of standardised logits",
    "compressed_teacher": "KD from the compressed network",
}
WITHOUT_TEACHER = ("labels", "smoothed")


def arm_seeds(grid: TuningRecipe) -> tuple[int, ...]:
    """As many as the grid has, and others: its best setting is best on its own seeds partly by luck."""
    return tuple(max(grid.seeds) + 1 + number for number in range(len(grid.seeds)))


def arm(name: str, grid: TuningRecipe, seed: int, temperature: float, alpha: float, teacher: str) -> StudentRecipe:
    """`teacher` is a recipe's digest: the grid's own but for `compressed_teacher`."""
    common = {key: getattr(grid, key) for key in ("images", "validation", "pad", "views", "view_seed", "fit")}
    recipe = StudentRecipe(stage=name, seed=seed, **common)
    if name == "smoothed":
        recipe = replace(recipe, fit=replace(grid.fit, label_smoothing=0.1))
    if name in WITHOUT_TEACHER:
        return recipe
    recipe = replace(recipe, teacher=teacher, temperature=temperature, alpha=alpha)
    if name == "fixed_teacher":  # Beyer et al. (CVPR 2022) call it so
        return replace(recipe, targets="identity")
    return replace(recipe, loss=name) if name in ("kl_mean", "decoupled", "standardised") else recipe


def compressed(profile: str, seed: int, parent: dict, ratio: float = RATIO) -> CompressedRecipe:
    """`parent` is the distilled run's recipe as read from its folder: fine-tuning keeps its teacher and settings.

    Another ratio than the report's gets a folder of its own.
    """
    return CompressedRecipe(
        stage="compressed" if ratio == RATIO else f"compressed-{ratio:g}",
        seed=seed,
        parent=parent["digest"],
        teacher=parent["teacher"],
        temperature=parent["temperature"],
        alpha=parent["alpha"],
        ratio=ratio,
        **_numbers(profile, "compressed"),
    )


#: images a second on two cores, measured by the committed `cpu` runs' wall time; the small stem costs 13 times as much
RATES = {"teacher": 170, "soft targets": 600, "student": 780}
SMALL_STEM = 13


def estimate(profile: str, seeds: int = 1) -> str:
    """Time on two cores and disk that the walk of a profile takes, a line a stage."""
    grand, grid = teacher(profile), tuning(profile, "")
    student, small = (
        plain(profile, 0),
        compressed(profile, 0, asdict(plain(profile, 0)) | {"digest": "", "teacher": ""}),
    )
    slower = SMALL_STEM if grand.stem == "small" else 1
    settings = len(grid.temperatures) * len(grid.alphas) * len(grid.seeds)
    trial = grid.images * grid.fit.epochs / RATES["student"]
    longer = finalist(profile, 1, 0, "", 1.0, 0.0)
    seconds = {
        "teacher": slower * grand.images * grand.fit.epochs / RATES["teacher"],
        "soft targets": slower * (grand.images + grand.validation) * grand.views / RATES["soft targets"],
        f"tuning, {settings} trials": settings * trial,
        "two finalists": 2 * len(grid.seeds) * longer.images * longer.fit.epochs / RATES["student"],
        f"{len(ARMS)} arms": len(ARMS) * len(grid.seeds) * trial,
        "distilled": seeds * student.images * student.fit.epochs / RATES["student"],
        "plain": seeds * student.images * student.fit.epochs / RATES["student"],
        "compressed": seeds * small.images * (small.sparse.epochs + small.fit.epochs) / RATES["student"],
    }
    lines = [f"{name:20} {value / 60:8.0f} min" for name, value in seconds.items()]
    total = f"{'in all':20} {sum(seconds.values()) / 60:8.0f} min on two cores; an accelerator takes a small part of it"
    disk = f"{'disk':20} {(300 + 2.4 * grand.views):8.0f} MB: checkpoints, the teacher's weights, soft targets"
    return "\n".join([f"profile {profile}", *lines, total, disk])
