"""What a run is made of: frozen dataclasses with every number that matters, and the three profiles' values.

A recipe names no path, device or time. Its digest names the run: a run is loaded where a finished folder with the
same recipe exists, and trained where not. Profiles differ in these numbers only, never in code.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields, is_dataclass, replace

from hw2.errors import InputError

PROFILES = ("smoke", "cpu", "full")


#: Fields with a default that the first runs' digests count at any value. Every other one came or comes later, with the
#: default that older runs had, and counts only at another value: adding it changes no digest.
FIRST = frozenset({
    "images", "validation", "pad", "views", "view_seed", "stem", "weights", "temperature", "alpha", "teacher",
    "recalibration", "batch", "warmup", "momentum", "weight_decay", "label_smoothing", "ema", "erasing", "precision",
})  # fmt: skip


#: fields that recipes had and gave up, at the default that every run had; another value is refused
RETIRED = (("iterations", 1), ("growing", False))


def _counted(content: object) -> dict[str, object]:
    """The fields of a dataclass that its digest counts, those of dataclasses inside it likewise."""
    values = {one: getattr(content, one.name) for one in fields(content)}
    kept = {one.name: value for one, value in values.items() if one.name in FIRST or value != one.default}
    return {name: _counted(value) if is_dataclass(value) else value for name, value in kept.items()}


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
        """SHA-256 over the canonical JSON of all fields, less later ones (not in `FIRST`) at their defaults."""
        return hashlib.sha256(json.dumps(_counted(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class TeacherRecipe(Recipe):
    """`views` of them get soft targets. `weights`: SHA-256 of the file that stood in for training, or None."""

    fit: Fit
    stem: str = "imagenet"
    weights: str | None = None


@dataclass(frozen=True, kw_only=True)
class StudentRecipe(Recipe):
    """ResNet-14, distilled from `teacher` (a recipe digest); controls without distillation have alpha 0 and none.

    `loss` names the soft part (`distillation.SOFT_LOSSES`). `targets` are the teacher's logits for the view that the
    student sees (`same view`), for the image as it is (`identity`), or their mean over all cached views (`mean`).
    `widths` of the network, where they are not ResNet-14's.
    """

    fit: Fit
    temperature: float = 1.0
    alpha: float = 0.0
    teacher: str | None = None
    loss: str = "kl"
    targets: str = "same view"
    widths: tuple[int, ...] | None = None

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
    targets: str = "same view"


def parse(content: dict) -> Recipe:
    """The recipe of a recipe.json, its digest unchecked; a field that the file lacks has its default."""
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in content.items() if name != "digest"}
    values = {name: value for name, value in values.items() if (name, value) not in RETIRED}
    kinds = {"temperatures": TuningRecipe, "parent": CompressedRecipe, "stem": TeacherRecipe, "fit": StudentRecipe}
    kind = next((kind for name, kind in kinds.items() if name in values), Recipe)
    try:
        fits = {name: Fit(**values[name]) for name in ("fit", "sparse") if name in values}
        return kind(**(values | fits))
    except TypeError as error:
        raise InputError(f"no recipe ({error}); restore recipe.json with `git checkout`") from None


def read(content: dict) -> Recipe:
    """`parse`; `InputError` where the recorded digest is not that of the fields."""
    recipe = parse(content)
    try:
        digest = recipe.digest
    except (TypeError, RecursionError) as error:
        raise InputError(f"no recipe ({error}); restore recipe.json with `git checkout`") from None
    if digest != content.get("digest"):
        raise InputError("its digest is not that of its numbers; restore recipe.json with `git checkout`")
    return recipe


def difference(old: Recipe, new: Recipe) -> str:
    """The first field in which two recipes differ, with both values, in words."""

    def flat(recipe: Recipe) -> dict[str, object]:
        values = {}
        for name, value in asdict(recipe).items():
            values |= {f"{name}.{key}": v for key, v in value.items()} if isinstance(value, dict) else {name: value}
        return values

    before, after = flat(old), flat(new)
    for name in before | after:
        if before.get(name) != after.get(name):
            return f"its {name} is {before.get(name)}, {after.get(name)} is asked for"
    return "its digest is not that of its fields"


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


RATIO = 0.29  # leaves these widths, as any ratio in (0.28125, 0.296875] does
NARROW = (11, 11, 22, 45)
#: profile -> stage -> the numbers in which profiles differ; `seeds`: as many of the whole chain
NUMBERS = {
    "smoke": {
        "common": {"images": 600, "validation": 300, "views": 2},
        "teacher": {"fit": Fit(epochs=1, lr=0.02)},
        "student": {"fit": Fit(epochs=2, lr=0.1)},
        "tuning": {
            "fit": Fit(epochs=1, lr=0.1),
            "images": 300,
            "temperatures": (2.0, 4.0),
            "alphas": (0.5, 0.9),
            "seeds": (0,),
        },
        "finalist": {"fit": Fit(epochs=1, lr=0.1)},
        "compressed": {
            "sparse": Fit(epochs=1, lr=0.02, weight_decay=0.0),
            "reg": 1e-2,
            "fit": Fit(epochs=2, lr=0.05),
            "recalibration": 600,
        },
        "short": {
            "images": 300,
            "sparse": Fit(epochs=1, lr=0.02, weight_decay=0.0),
            "reg": 1e-2,
            "fit": Fit(epochs=1, lr=0.05),
            "recalibration": 300,
        },
        "frontier": {"ratios": (RATIO, 0.5), "seeds": (0,)},
        "seeds": 1,
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
        "short": {
            "images": 15000,
            "sparse": Fit(epochs=2, lr=0.03, weight_decay=0.0),
            "reg": 5e-3,
            "fit": Fit(epochs=4, lr=0.1),
        },
        "frontier": {"ratios": (0.1, 0.2, RATIO, 0.4, 0.5, 0.6, 0.7), "seeds": (0, 1)},
        "seeds": 3,
    },
    # Long training with a strong teacher: 20 to 35 hours of one core, minutes on an accelerator. Arms, ablation and
    # frontier have no numbers here yet.
    "full": {
        "common": {"views": 12},
        "targets": "mean",
        "teacher": {"stem": "stride1", "fit": Fit(epochs=20, lr=0.1, precision="bfloat16")},
        "student": {"fit": Fit(epochs=24, lr=0.2)},
        "tuning": {
            "fit": Fit(epochs=4, lr=0.2),
            "images": 15000,
            "temperatures": (1.0, 2.0, 4.0, 8.0),
            "alphas": (0.3, 0.6, 0.9, 1.0),
            "seeds": (0, 1, 2),
        },
        "finalist": {"fit": Fit(epochs=8, lr=0.2)},
        "compressed": {
            "sparse": Fit(epochs=2, lr=0.03, weight_decay=0.0),
            "reg": 5e-3,
            "fit": Fit(epochs=72, lr=0.1),
        },
        "seeds": 3,
    },
}


def has_studies(profile: str) -> bool:
    """Whether the profile has numbers for arms, ablation and frontier."""
    return "short" in NUMBERS[check_profile(profile)]


def check_studies(profile: str) -> None:
    if not has_studies(profile):
        raise InputError(f"profile {profile}: arms, ablation and frontier have no numbers in it; smoke and cpu have")


def _targets(profile: str) -> dict[str, str]:
    """What all of the profile's students with a teacher learn from, as a recipe's field."""
    return {"targets": NUMBERS[check_profile(profile)].get("targets", "same view")}


def _numbers(profile: str, stage: str) -> dict:
    return NUMBERS[check_profile(profile)]["common"] | NUMBERS[profile][stage]


def teacher(profile: str, seed: int = 0, weights: str | None = None) -> TeacherRecipe:
    recipe = TeacherRecipe(stage="teacher", seed=seed, **_numbers(profile, "teacher"))
    # The course's file was trained elsewhere: none of our training's numbers describe it.
    return replace(recipe, weights=weights, stem="imagenet", fit=Fit(epochs=0, lr=0.0)) if weights else recipe


def tuning(profile: str, teacher: str) -> TuningRecipe:
    return TuningRecipe(stage="tuning", seed=0, teacher=teacher, **_targets(profile), **_numbers(profile, "tuning"))


def distilled(
    profile: str, seed: int, teacher: str, temperature: float, alpha: float, tuned: bool = True
) -> StudentRecipe:
    """Settings that are not the search's get a folder of their own."""
    stage = "distilled" if tuned else f"distilled-T{temperature:g}-alpha{alpha:g}"
    numbers = _numbers(profile, "student") | _targets(profile)
    return StudentRecipe(stage=stage, seed=seed, teacher=teacher, temperature=temperature, alpha=alpha, **numbers)


def finalist(profile: str, number: int, seed: int, teacher: str, temperature: float, alpha: float) -> StudentRecipe:
    """One of the search's two finalists (`number` from 1), trained longer than a trial."""
    numbers = _numbers(profile, "finalist") | _targets(profile)
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
    recipe = replace(recipe, teacher=teacher, temperature=temperature, alpha=alpha, targets=grid.targets)
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
        ratio=ratio,
        parent=parent["digest"],
        **_taught_as(parent),
        **_numbers(profile, "compressed"),
    )


def scratch(profile: str, seed: int, parent: dict) -> StudentRecipe:
    """The pruned network's control: its widths, trained from random weights for as long as all of its chain together.

    `parent` is the distilled run's recipe, whose teacher and settings it shares.
    """
    chain, student = _numbers(profile, "compressed"), _numbers(profile, "student")
    epochs = student["fit"].epochs + chain["sparse"].epochs + chain["fit"].epochs
    numbers = student | {"fit": replace(student["fit"], epochs=epochs)}
    return StudentRecipe(stage="scratch", seed=seed, widths=NARROW, **_taught_as(parent), **numbers)


def unpruned(profile: str, seed: int, parent: dict) -> StudentRecipe:
    """The other control: `scratch` at ResNet-14's own widths, for what the removed channels are worth."""
    return replace(scratch(profile, seed, parent), stage="unpruned", widths=None)


def _taught_as(parent: dict) -> dict:
    return {name: parent[name] for name in ("teacher", "temperature", "alpha")} | {
        "targets": parent.get("targets", "same view")  # runs of before the field lack it
    }


def frontier(profile: str, seed: int, parent: dict, ratio: float) -> CompressedRecipe:
    """The distilled run, whose recipe `parent` is, pruned by any ratio and fine-tuned shortly."""
    numbers = _numbers(profile, "short")
    stage, taught = f"frontier-{ratio:g}", _taught_as(parent)
    return CompressedRecipe(stage=stage, seed=seed, ratio=ratio, parent=parent["digest"], **taught, **numbers)


#: arms of the ablation: what each does to reach 85,956 parameters
ABLATION = {
    "pruned": "the whole recipe",
    "pruned_directly": "without sparse learning",
    "pruned_labels": "labels alone from sparse learning on",
    "scratch_distilled": "the same widths from scratch, KD",
    "scratch_labels": "from scratch, labels alone",
}


def ablated(
    name: str,
    grid: TuningRecipe,
    profile: str,
    seed: int,
    temperature: float,
    alpha: float,
    teacher: str,
    parent: str,
) -> StudentRecipe:
    """`parent` is the arm `vanilla` of this seed. All arms have seen as many images once they are done.

    The arm without sparse learning is fine-tuned for longer, and training from scratch takes as long as the parent's
    training, sparse learning and fine-tuning together.
    """
    short = _numbers(profile, "short")
    taught = {"teacher": teacher, "temperature": temperature, "alpha": alpha, "targets": grid.targets}
    if name in ("pruned_labels", "scratch_labels"):
        taught = {}
    total = grid.fit.epochs + short["sparse"].epochs + short["fit"].epochs
    if name.startswith("scratch"):
        common = {key: getattr(grid, key) for key in ("images", "validation", "pad", "views", "view_seed")}
        fit = replace(grid.fit, epochs=total)
        return StudentRecipe(stage=name, seed=seed, widths=NARROW, fit=fit, **taught, **common)
    if name == "pruned_directly":
        rest = total - grid.fit.epochs
        fits = {"sparse": replace(short["sparse"], epochs=0), "fit": replace(short["fit"], epochs=rest)}
        short = short | fits
    return CompressedRecipe(stage=name, seed=seed, parent=parent, ratio=RATIO, **taught, **short)


#: images a second on two cores, measured by the committed `cpu` runs' wall time
RATES = {"teacher": 170, "soft targets": 600, "student": 780}
STEMS = {"imagenet": 1, "stride1": 2.6, "small": 13}  # times the cost
#: how many times as long a teacher trains in bfloat16, by whether the processor has it (measured with stem stride1)
BFLOAT16 = {True: 0.56, False: 0.56 * 15}


def estimate(profile: str, seeds: int = 1, bfloat16: bool = True) -> str:
    """Time on two cores and disk that the walk of a profile takes for so many seeds, a line a stage.

    `bfloat16`: whether the processor has instructions for it.
    """
    grand, grid = teacher(profile), tuning(profile, "")
    student, longer = plain(profile, 0), finalist(profile, 1, 0, "", 1.0, 0.0)
    parent = asdict(student) | {"digest": "", "teacher": ""}
    small, scratched = compressed(profile, 0, parent), scratch(profile, 0, parent)
    slower = STEMS[grand.stem]
    trainer = slower * (BFLOAT16[bfloat16] if grand.fit.precision == "bfloat16" else 1)
    settings, arms = len(grid.temperatures) * len(grid.alphas), len(grid.seeds)

    def trained(recipe: Recipe) -> float:
        epochs = recipe.fit.epochs + (recipe.sparse.epochs if hasattr(recipe, "sparse") else 0)
        return recipe.images * epochs / RATES["student"]

    seconds = {
        "teacher": trainer * grand.images * grand.fit.epochs / RATES["teacher"],
        "soft targets": slower * (grand.images + grand.validation) * grand.views / RATES["soft targets"],
        f"tuning, {settings * arms} trials": settings * arms * trained(grid),
        "two finalists": 2 * arms * trained(longer),
    }
    if has_studies(profile):
        edge, short = NUMBERS[profile]["frontier"], frontier(profile, 0, parent, RATIO)
        ablation = [ablated(name, grid, profile, 0, 1.0, 0.0, "", "") for name in ABLATION]
        seconds |= {
            f"{len(ARMS)} arms": len(ARMS) * arms * trained(grid),
            "ablation": arms * sum(trained(recipe) for recipe in ablation),
            "frontier": len(edge["ratios"]) * len(edge["seeds"]) * trained(short),
        }
    seconds |= {
        "distilled": seeds * trained(student),
        "plain": seeds * trained(student),
        "compressed": seeds * trained(small),
        "scratch": seeds * trained(scratched),
        "unpruned": seeds * trained(scratched),
    }
    lines = [f"{name:20} {value / 60:8.0f} min" for name, value in seconds.items()]
    total = f"{'in all':20} {sum(seconds.values()) / 60:8.0f} min on two cores; an accelerator takes a small part of it"
    disk = f"{'disk':20} {(300 + 2.4 * grand.views):8.0f} MB: checkpoints, the teacher's weights, soft targets"
    head = f"profile {profile}, {seeds} seed{'s' if seeds > 1 else ''}"
    return "\n".join([head, *lines, total, disk])
