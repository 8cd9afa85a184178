"""From a row of the catalogue to its recipe, and from a recipe.json back to the recipe."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from hw2.errors import InputError, choose
from hw2.experiments import catalogue, earlier, recipes
from hw2.experiments.catalogue import Experiment
from hw2.experiments.profiles import PROFILES
from hw2.experiments.recipes import (
    CompressedRecipe,
    ContinuedRecipe,
    Recipe,
    StudentRecipe,
    TeacherRecipe,
    TuningRecipe,
)
from hw2.training import Fit

Setting = tuple[float, float]  # temperature and alpha


class Known(NamedTuple):
    """What recipes ask of finished runs."""

    setting: Callable[[str], Setting]  # chosen, finalist-1, finalist-2
    course_file: Callable[[int], str | None]  # seed -> SHA-256 of what stands in for the teacher


#: for lists and checks before anything is trained: any setting will do
NOTHING = Known(lambda which: (3.0, 0.5), lambda seed: None)


def tuning(profile: str, known: Known) -> TuningRecipe:
    """The recipe of the search."""
    numbers = choose("profile", PROFILES, profile)
    values = numbers["common"] | numbers["tuning"]
    taught_by = recipe("teacher", catalogue.seeds("teacher", profile)[0], profile, known)
    return _of_profile(TuningRecipe, profile)(
        stage="tuning", seed=0, teacher=taught_by.digest, targets="mean", **values
    )


def recipe(name: str, seed: int, profile: str, known: Known) -> Recipe:
    """The recipe of a row's run."""
    chosen = catalogue.row(name, profile)
    numbers = choose("profile", PROFILES, profile)
    values = {"stage": name, "seed": seed} | numbers["common"] | numbers[chosen.numbers]
    if chosen.numbers == "teacher":
        made = _teacher(values, profile, known.course_file(seed))
    elif chosen.ratio is not None:
        made = _compressed(chosen, values, profile, known)
    else:
        made = _student(chosen, values, profile, known)
    return changed(made, chosen.change)


def _teacher(values: dict, profile: str, file: str | None) -> TeacherRecipe:
    if file:  # it was trained elsewhere: none of our training's numbers describe it
        values |= {"weights": file, "stem": "imagenet", "fit": Fit(epochs=0, lr=0.0)}
    return _of_profile(TeacherRecipe, profile)(**values)


def _student(chosen: Experiment, values: dict, profile: str, known: Known) -> StudentRecipe:
    values |= _soft_targets(chosen, values, profile, known)
    if chosen.widths:
        values["widths"] = chosen.widths
    if not chosen.parent:
        if chosen.group == "choices":
            return earlier.ChoiceRecipe(**values)
        return _of_profile(StudentRecipe, profile)(**values)
    parent = recipe(chosen.parent, values["seed"], profile, known)
    return ContinuedRecipe(parent=parent.digest, **values)


def _compressed(chosen: Experiment, values: dict, profile: str, known: Known) -> CompressedRecipe:
    values |= _soft_targets(chosen, values, profile, known)
    parent = recipe(chosen.parent, values["seed"], profile, known)
    kind = _of_profile(CompressedRecipe, profile)
    return kind(parent=parent.digest, ratio=chosen.ratio, **values)


def _soft_targets(chosen: Experiment, values: dict, profile: str, known: Known) -> dict:
    """The fields that tell from what a student learns besides the labels."""
    if not chosen.teacher:
        return {}
    temperature, alpha = known.setting(chosen.setting)
    taught_by = recipe(*catalogue.teacher(values["stage"], values["seed"], profile), profile, known)
    return {
        "temperature": temperature,
        "alpha": alpha,
        "teacher": taught_by.digest,
        "targets": "mean",
    }


def _of_profile(kind: type[Recipe], profile: str) -> type[Recipe]:
    """The kind of recipe, with the digest that the runs of `full` have until they are replaced."""
    return earlier.EARLIER[kind] if profile == "full" else kind


def read(content: dict) -> Recipe:
    """The recipe of a recipe.json, by its stage: a row's name, or `tuning`."""
    kind = _kind(content)
    if "views" in content:
        chosen = catalogue.EXPERIMENTS.get(content["stage"])
        of_choices = chosen is not None and chosen.group == "choices"
        kind = earlier.ChoiceRecipe if of_choices else earlier.EARLIER[kind]
        content = earlier.completed(content)
    return recipes.read(kind, content)


def _kind(content: dict) -> type[Recipe]:
    stage = content.get("stage")
    if stage == "tuning":
        return TuningRecipe
    chosen = choose("experiment", catalogue.EXPERIMENTS, stage)
    if chosen.numbers == "teacher":
        return TeacherRecipe
    if "ratio" in content:
        return CompressedRecipe
    return ContinuedRecipe if "parent" in content else StudentRecipe


def changed(recipe: Recipe, change: dict[str, object]) -> Recipe:
    """The recipe with other values; `fit.NAME` is a field of its `fit`.

    `InputError` for a field that it lacks, for its row and seed, and for what a field refuses.
    """
    fields = vars(recipe) | {f"fit.{name}": value for name, value in vars(recipe.fit).items()}
    own = {}
    of_fit = {}
    for name, value in change.items():
        if name not in fields or name in ("stage", "seed"):
            known = ", ".join(fields.keys() - {"stage", "seed"})
            raise InputError(f"{recipe.stage} takes no {name}: expected one of {known}")
        if name.startswith("fit."):
            of_fit[name.removeprefix("fit.")] = value
        else:
            own[name] = value
    return replace(recipe, **{"fit": replace(recipe.fit, **of_fit)} | own)
