"""From a row of the catalogue to its recipe, and from a recipe.json back to the recipe."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from hw2.errors import InputError, choose
from hw2.experiments import catalogue, earlier, recipes
from hw2.experiments.profiles import PROFILES
from hw2.experiments.recipes import Common, Recipe, TuningRecipe
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
    kind = earlier.EarlierTuningRecipe if profile == "full" else TuningRecipe
    return kind(stage="tuning", seed=0, teacher=taught_by.digest, targets="mean", **values)


def recipe(name: str, seed: int, profile: str, known: Known) -> Recipe:
    """The recipe of a row's run."""
    row = catalogue.row(name, profile)
    numbers = choose("profile", PROFILES, profile)
    values = {"stage": name, "seed": seed, "widths": row.widths, "ratio": row.ratio}
    values |= numbers["common"] | numbers[row.numbers]
    if "stem" in values and (file := known.course_file(seed)):
        # It was trained elsewhere: none of our training's numbers describe it.
        values |= {"weights": file, "stem": "imagenet", "fit": Fit(epochs=0, lr=0.0)}
    if row.teacher:
        taught_by = recipe(*catalogue.teacher(name, seed, profile), profile, known)
        temperature, alpha = known.setting(row.setting)
        values |= {"temperature": temperature, "alpha": alpha}
        values |= {"teacher": taught_by.digest, "targets": "mean"}
    if row.parent:
        values["parent"] = recipe(row.parent, seed, profile, known).digest
    kind = earlier.EarlierRecipe if profile == "full" else Recipe
    return changed(kind(**values), row.change)


def read(content: dict) -> Common:
    """The recipe of a recipe.json, by its stage: a row's name, or `tuning`."""
    stage = content.get("stage")
    kind, older = TuningRecipe, earlier.EarlierTuningRecipe
    if stage != "tuning":
        choose("experiment", catalogue.EXPERIMENTS, stage)
        kind, older = Recipe, earlier.EarlierRecipe
    if "views" in content:
        return recipes.read(older, earlier.completed(content))
    return recipes.read(kind, content)


def changed(recipe: Recipe, change: dict[str, object]) -> Recipe:
    """The recipe with other values; `InputError` where one is refused."""
    known = [name for name in vars(recipe) if name not in ("stage", "seed")]
    for name in change:
        if name not in known:
            raise InputError(f"{recipe.stage} takes no {name}: expected one of {', '.join(known)}")
    return replace(recipe, **change)
