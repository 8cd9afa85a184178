"""What is trained: EXPERIMENTS, one row each. From it come recipes, help, walk, tables, estimate and provenance.

A variant is a row with a change. `recipe` builds an experiment's recipe from its row, profile and seed, from the
setting that the search chose, and from whether the course's file stands in for the teacher. The first row of a group is
the one that the others are compared with.
"""

import dataclasses
from dataclasses import dataclass

from hw2.assignment import NARROW, RATIO
from hw2.errors import InputError
from hw2.experiments import recipes
from hw2.experiments.profiles import PROFILES, check_profile
from hw2.experiments.recipes import CompressedRecipe, Recipe, StudentRecipe, TeacherRecipe, TuningRecipe
from hw2.training import Fit


@dataclass(frozen=True)
class Experiment:
    """A row. Fields are named as the recipe's where they become a part of it."""

    words: str  # in tables, figures, help
    question: str  # what its numbers answer
    group: str  # chain, finalists, arms, ablation, frontier
    numbers: str  # key of the profile
    teacher: str | None = None  # row whose soft targets are learnt from
    setting: str | None = None  # temperature and alpha: chosen, study, finalist-1, finalist-2
    parent: str | None = None  # row whose network is pruned, of the same seed
    seeds: str = "walk"  # key of the profile's seeds
    epochs: str | None = None  # None: the numbers' own; chain: as long as compressed; direct: no sparse learning
    widths: tuple[int, ...] | None = None
    ratio: float | None = None
    change: tuple[tuple[str, object], ...] = ()  # fields of the recipe, or of its `fit` as fit.NAME
    keep: tuple[str, ...] = ("weights",)  # weights, logits, classes, group_norms
    profiles: tuple[str, ...] = tuple(PROFILES)  # that train it

    @property
    def kind(self) -> type[Recipe]:
        if self.group == "chain" and self.numbers == "teacher":
            return TeacherRecipe
        return CompressedRecipe if self.parent else StudentRecipe


class Unknown:
    """What a recipe asks of a profile's runs, answered without any: `store.Settings` knows."""

    def setting(self, which: str) -> tuple[float, float]:
        """Temperature and alpha: `best` of the search, those of `finalist-1` or `-2`, or `chosen`."""
        return 1.0, 0.5

    def course_file(self, seed: int) -> str | None:
        """SHA-256 of the file that stands in for the teacher's training, or None."""
        return None


_CHOSEN = {"teacher": "teacher", "setting": "chosen"}
_PRUNED = {"numbers": "compressed", "parent": "distilled", "ratio": RATIO, "keep": ("weights", "group_norms")}
_ARM = {"group": "arms", "numbers": "study", "seeds": "arms", "keep": ("logits",)}
_KD = {"teacher": "teacher", "setting": "study"}
_ABLATION = {"group": "ablation", "seeds": "arms", "keep": ("classes", "group_norms")}
_CUT = _ABLATION | {"numbers": "study pruning", "parent": "vanilla", "ratio": RATIO}
_FRONTIER = _CHOSEN | {"group": "frontier", "numbers": "frontier", "parent": "distilled", "seeds": "frontier"}
_OLD = ("smoke", "cpu")  # what full does not train

EXPERIMENTS = {
    "teacher": Experiment("ResNet-50, the teacher", "what can be learnt from?", "chain", "teacher", seeds="first"),
    "plain": Experiment("ResNet-14 alone", "what do labels alone reach?", "chain", "student"),
    "distilled": Experiment("ResNet-14, distilled", "what do soft targets add?", "chain", "student", **_CHOSEN),
    "compressed": Experiment("pruned and fine-tuned", "what is left at half the size?", "chain", **_PRUNED, **_CHOSEN),
    "scratch": Experiment(
        "the same widths from scratch", "does pruning beat training its widths at once?", "chain", "student",
        seeds="scratch", epochs="chain", widths=NARROW, **_CHOSEN,
    ),
    "unpruned": Experiment(
        "ResNet-14, trained as long", "what are the removed channels worth?", "chain", "student",
        seeds="first", epochs="chain", **_CHOSEN,
    ),
    **{
        f"finalist-{number}": Experiment(
            f"finalist {number} of the search", "does the search's ranking hold in longer training?", "finalists",
            "finalist", "teacher", f"finalist-{number}", seeds="search", keep=("logits",),
        )
        for number in (1, 2)
    },
    "vanilla": Experiment(
        "vanilla KD", "the arm that the others are held against", **_ARM | _KD | {"keep": ("weights", "logits")}
    ),
    "labels": Experiment("the labels alone", "does distillation help?", **_ARM),
    "smoothed": Experiment(
        "label smoothing 0.1, no teacher", "is it smoothing?", **_ARM, profiles=_OLD,
        change=(("fit.label_smoothing", 0.1),),
    ),
    "kl_mean": Experiment(
        "KD with the `mean` reduction", "what does the common bug cost?", **_ARM | _KD, change=(("loss", "kl_mean"),)
    ),
    "same_view": Experiment(
        "KD, targets of the view that the student sees", "do student and teacher need the same view?", **_ARM | _KD,
        profiles=("smoke", "full"), change=(("targets", "same view"),),
    ),
    "fixed_teacher": Experiment(
        "KD, targets of the un-augmented image", "do views matter?", **_ARM | _KD, change=(("targets", "identity"),)
    ),
    "decoupled": Experiment(
        "decoupled KD", "does weighing the parts apart help?", **_ARM | _KD, profiles=_OLD,
        change=(("loss", "decoupled"),),
    ),
    "standardised": Experiment(
        "KD of standardised logits", "does a free range help?", **_ARM | _KD, profiles=_OLD,
        change=(("loss", "standardised"),),
    ),
    "pruned": Experiment("the whole recipe", "the arm that the others are held against", **_CUT | _KD),
    "pruned_directly": Experiment(
        "without sparse learning", "what does sparse learning add?", **_CUT | _KD, epochs="direct"
    ),
    "pruned_labels": Experiment("labels alone from sparse learning on", "does KD help after pruning?", **_CUT),
    "scratch_distilled": Experiment(
        "the same widths from scratch, KD", "does pruning beat training its widths at once?",
        **_ABLATION | _KD | {"keep": ("classes",)}, numbers="study", epochs="chain", widths=NARROW, profiles=_OLD,
    ),
    "scratch_labels": Experiment(
        "from scratch, labels alone", "the same without a teacher", **_ABLATION | {"keep": ("classes",)},
        numbers="study", epochs="chain", widths=NARROW, profiles=_OLD,
    ),
    **{
        f"frontier-{ratio:g}": Experiment(
            f"pruned by {ratio:g}", "how far can it go?", **_FRONTIER, ratio=ratio, profiles=profiles,
            keep=("classes", "group_norms"),
        )
        for ratio, profiles in (
            (0.0, ("full",)), (0.1, ("cpu",)), (0.2, ("cpu", "full")), (RATIO, ("smoke", "cpu", "full")),
            (0.4, ("cpu",)), (0.5, ("smoke", "cpu", "full")), (0.6, ("cpu",)), (0.7, ("cpu", "full")),
        )
    },
}  # fmt: skip


def row(name: str) -> Experiment:
    """The row of that name, or `InputError`."""
    if not isinstance(name, str) or name not in EXPERIMENTS:
        raise InputError(f"experiment {name!r}: expected one of {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]


def names(profile: str, group: str | None = None) -> list[str]:
    """The rows that a profile trains, of one group or of all, in the catalogue's order."""
    check_profile(profile)
    return [name for name, one in EXPERIMENTS.items() if profile in one.profiles and group in (None, one.group)]


def members(name: str, profile: str) -> list[str]:
    """The rows that a name stands for: a row's own, or a group's."""
    groups = dict.fromkeys(one.group for one in EXPERIMENTS.values())
    if name not in EXPERIMENTS and name not in groups:
        raise InputError(f"experiment {name!r}: expected all, one of {', '.join([*groups, *EXPERIMENTS])}")
    return names(profile, name) if name in groups else [name]


def listing(profile: str) -> str:
    """The rows that a profile trains, a line each: group, name, seeds and what is asked."""
    lines = []
    for name in names(profile):
        one = row(name)
        numbers = ",".join(map(str, seeds(name, profile)))
        lines.append(f"{one.group:10} {name:18} seeds {numbers:6} {one.words}: {one.question}")
    return "\n".join(lines)


def setting(name: str, profile: str) -> str | None:
    """Which temperature and alpha a row is trained at: `best`, `chosen`, a finalist's; None for labels alone."""
    which = row(name).setting
    return PROFILES[check_profile(profile)]["setting of studies"] if which == "study" else which


def seeds(name: str, profile: str) -> tuple[int, ...]:
    """The seeds with which the profile trains a row, its first one first."""
    return PROFILES[check_profile(profile)]["seeds"][row(name).seeds]


def tuning(profile: str, settings: Unknown) -> TuningRecipe:
    """The recipe of the profile's search."""
    numbers = PROFILES[check_profile(profile)]
    teacher = recipe("teacher", profile, 0, settings).digest
    return TuningRecipe(
        stage="tuning", seed=0, teacher=teacher, targets=numbers["targets"], **numbers["common"] | numbers["tuning"]
    )


def recipe(name: str, profile: str, seed: int, settings: Unknown) -> Recipe:
    """The recipe of a row's run."""
    one, numbers = row(name), PROFILES[check_profile(profile)]
    if profile not in one.profiles:
        raise InputError(f"profile {profile} does not train {name}: expected one of {', '.join(one.profiles)}")
    values = {"stage": name, "seed": seed} | numbers["common"] | numbers[one.numbers]
    if one.kind is TeacherRecipe and (file := settings.course_file(seed)):
        # The course's file was trained elsewhere: none of our training's numbers describe it.
        values |= {"weights": file, "stem": "imagenet", "fit": Fit(epochs=0, lr=0.0)}
    if one.teacher:
        temperature, alpha = settings.setting(setting(name, profile))
        teacher = recipe(one.teacher, profile, 0, settings).digest
        values |= {"temperature": temperature, "alpha": alpha, "teacher": teacher, "targets": numbers["targets"]}
    if one.parent:
        values |= {"parent": recipe(one.parent, profile, seed, settings).digest, "ratio": one.ratio}
    if one.widths:
        values["widths"] = one.widths
    values |= _lengths(one, profile, values)
    return changed(one.kind(**values), dict(one.change))


def _lengths(one: Experiment, profile: str, values: dict) -> dict:
    """`fit` and `sparse` where the row's `epochs` are not its numbers' own."""
    if one.epochs == "chain":  # as many in one schedule as the pruned network has in all
        pruned = EXPERIMENTS["compressed" if one.group == "chain" else "pruned"]
        numbers = PROFILES[profile]
        total = values["fit"].epochs + numbers[pruned.numbers]["sparse"].epochs + numbers[pruned.numbers]["fit"].epochs
        return {"fit": dataclasses.replace(values["fit"], epochs=total)}
    if one.epochs == "direct":  # fine-tuned for as long as others are made sparse and fine-tuned
        total = values["sparse"].epochs + values["fit"].epochs
        return {
            "sparse": dataclasses.replace(values["sparse"], epochs=0),
            "fit": dataclasses.replace(values["fit"], epochs=total),
        }
    return {}


def read(content: dict) -> Recipe:
    """The recipe of a recipe.json, by its stage: a row's name, or `tuning`."""
    stage = content.get("stage")
    return recipes.read(TuningRecipe if stage == "tuning" else row(stage).kind, content)


def changed(recipe: Recipe, change: dict[str, object]) -> Recipe:
    """The recipe with other values; `fit.NAME` is a field of its `fit`. `InputError` for a field that it lacks."""
    known = vars(recipe) | {f"fit.{name}": value for name, value in vars(recipe.fit).items()}
    for name, value in change.items():
        if name not in known:
            raise InputError(f"{recipe.stage} takes no {name}: expected one of {', '.join(known)}")
        if isinstance(known[name], int | float) and not isinstance(value, int | float):
            raise InputError(f"{name} {value!r}: expected a number, such as {known[name]}")
    fits = {name.partition(".")[2]: value for name, value in change.items() if name.startswith("fit.")}
    values = {name: value for name, value in change.items() if not name.startswith("fit.")}
    if fits:
        values["fit"] = dataclasses.replace(recipe.fit, **fits)
    return dataclasses.replace(recipe, **values)
