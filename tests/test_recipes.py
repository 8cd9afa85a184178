"""Recipes, profiles and catalogue: every number counts for the digest, and a row is all that an
experiment needs.
"""

import copy
import json
import math
import shutil
from dataclasses import replace

import pytest

from hw2.data import PROJECT
from hw2.errors import InputError
from hw2.experiments import catalogue, compose, earlier, plan, recipes
from hw2.experiments.profiles import PROFILES
from hw2.experiments.recipes import Recipe
from hw2.experiments.store import Store
from hw2.files import read_json, write_json
from hw2.training import Fit

FIT = Fit(epochs=1, lr=0.1)
ONE = "1" * 64  # a digest
COMPRESSED = Recipe(
    stage="compressed", seed=0, fit=FIT, sparse=FIT, teacher=ONE, parent=ONE, reg=0.1, ratio=0.29
)
ROWS = [(profile, name) for profile in PROFILES for name in catalogue.names(profile)]


def made(name, profile, seed=None):
    seed = catalogue.seeds(name, profile)[0] if seed is None else seed
    return compose.recipe(name, seed, profile, compose.NOTHING)


def other(content, name, value="another"):
    """A copy in which one field differs, unchecked."""
    changed = copy.copy(content)
    vars(changed)[name] = value
    return changed


def test_the_digest_changes_with_every_field():
    fits = [other(FIT, name) for name in vars(FIT)]
    recipes = [other(COMPRESSED, name) for name in vars(COMPRESSED)]
    recipes += [other(COMPRESSED, name, fit) for name in ("fit", "sparse") for fit in fits]
    assert len({recipe.digest for recipe in [COMPRESSED, *recipes]}) == 1 + len(recipes)
    assert replace(COMPRESSED).digest == COMPRESSED.digest


#: field of a recipe or of a `Fit` -> values that it does not take
REFUSED = {
    "temperature": (0.0, math.nan, math.inf, "4", None),  # T^2 * KL would be inf * 0
    "alpha": (-0.1, 1.1, math.nan),
    "ratio": (1.0, -0.1, math.nan, "0.3"),
    "reg": (-1.0, math.nan, math.inf),
    "targets": ("median",),
    "loss": ("mse",),
    "stage": ("",),
    "seed": (-1, 100, 1.5, True),
    "images": (0, 55_001, 2.5),
    "validation": (0, 5001),
    "recalibration": (0, 60_000),
    "importance": ("hessian",),
    "pad": (-1, 15, 1.0),
    "stem": ("vgg",),
    "weights": ("full-s0",),
    "teacher": ("full-s0",),
    "parent": (None, "f" * 63),
    "widths": ((1, 2, 3), (0,) * 4, (1.0,) * 4),
    "fit": (None, {"epochs": 1, "lr": 0.1}),
    "sparse": (None,),
    "epochs": (-1, 1.5),
    "lr": (-0.1, math.nan, math.inf, 11.0, "0.1"),
    "batch": (0, 1.0),
    "warmup": (-0.1, 7, math.nan),
    "momentum": (-0.1, 1.0, 3, math.nan),
    "weight_decay": (-1e-4, 2, math.nan),
    "precision": ("bf16",),
}


@pytest.mark.parametrize("field", [*vars(COMPRESSED), *vars(FIT)])
def test_a_recipe_and_a_training_take_no_value_out_of_range(field):
    told = field if field == "widths" else f"{field} .*: expected"
    for value in REFUSED[field]:
        with pytest.raises(InputError, match=told):
            replace(FIT if field in vars(FIT) else COMPRESSED, **{field: value})


def test_the_bounds_of_the_ranges_are_taken():
    lowest = {"ratio": 0.0, "alpha": 0.0, "temperature": 1e-3, "pad": 0}
    assert replace(COMPRESSED, **lowest, seed=99, images=55_000).alpha == 0
    assert replace(FIT, epochs=0, lr=0, warmup=1, momentum=0).lr == 0


@pytest.mark.parametrize(
    "change",
    [{"temperatures": ()}, {"temperatures": (0.0,)}, {"alphas": (2.0,)}, {"seeds": (1, 1)}],
)
def test_a_search_takes_settings_in_range_and_each_once(change):
    with pytest.raises(InputError, match=r"expected|at least 1"):
        replace(compose.tuning("full", compose.NOTHING), **change)


def test_a_field_that_was_given_up_is_taken_at_its_default_alone():
    today = earlier.EarlierRecipe(**vars(COMPRESSED))
    recorded = recipes.written(today) | {"iterations": 1, "growing": False}
    assert compose.read(recorded) == today != COMPRESSED
    assert compose.read(recipes.written(COMPRESSED)) == COMPRESSED
    for name, value in (
        ("iterations", 2),
        ("growing", True),
        ("fit", recorded["fit"] | {"ema": 0.5}),
    ):
        with pytest.raises(InputError, match=f"no recipe .*{name.replace('fit', 'ema')}"):
            compose.read(recorded | {name: value})


RECORDED = recipes.written(COMPRESSED)
NO_RECIPE = [
    (RECORDED | {"lr": 1}, r"^no recipe \(.*lr"),
    (RECORDED | {"images": "64"}, r"^no recipe \(.*images"),
    (RECORDED | {"reg": math.nan}, r"^no recipe \(.+\)$"),
    ({name: RECORDED[name] for name in RECORDED if name != "fit"}, r"^no recipe \(.*fit"),
    (RECORDED | {"digest": "x"}, "its digest is not that of its numbers"),
    (RECORDED | {"images": 1}, "its digest is not that of its numbers"),
]


@pytest.mark.parametrize(("recorded", "told"), NO_RECIPE, ids=range(len(NO_RECIPE)))
def test_a_recipe_that_is_none_is_told(recorded, told):
    with pytest.raises(InputError, match=told):
        recipes.read(Recipe, recorded)


@pytest.mark.parametrize(("profile", "name"), ROWS)
def test_a_rows_recipe_is_what_the_row_says(profile, name):
    row, recipe = catalogue.row(name, profile), made(name, profile)
    assert recipe.stage == name
    assert (recipe.stem is not None) == (name == "teacher")
    assert (recipe.ratio, recipe.widths) == (row.ratio, row.widths)
    assert (recipe.teacher is None) == (row.teacher is None) == (recipe.alpha == 0)
    if row.teacher:
        teacher, seed = catalogue.teacher(name, recipe.seed, profile)
        assert recipe.teacher == made(teacher, profile, seed).digest
    if row.parent:
        assert recipe.parent == made(row.parent, profile, recipe.seed).digest
    for field, value in row.change.items():
        assert recipes.asdict(recipe)[field] == value
    # A teacher has answered its own views only.
    if recipe.teacher and recipe.targets == "same view":
        teacher = made("teacher", profile)
        assert (recipe.pad, recipe.views) == (teacher.pad, teacher.views)


def test_a_student_that_teaches_is_of_the_learners_seed_where_there_is_one():
    assert catalogue.teacher("better_teacher", 20, "long") == ("distilled", 10)
    assert catalogue.teacher("better_teacher", 11, "long") == ("distilled", 11)


@pytest.mark.parametrize("profile", PROFILES)
def test_controls_see_as_many_images_as_what_they_are_held_against(profile):
    def images(name):
        recipe, parent = made(name, profile), catalogue.row(name, profile).parent
        own = recipe.images * sum(fit.epochs for fit in recipe.fits)
        return own + (images(parent) if parent else 0)

    assert images("scratch") == images("unpruned") == images("compressed")
    assert images("plain") == images("distilled")
    if "narrow" in catalogue.rows(profile):
        assert images("narrow") == images("narrow_plain") == images("plain")
    for group in ("arms", "ablation", "frontier", "finalists"):
        assert len({images(name) for name in catalogue.names(profile, group)}) == 1, group


def test_each_control_of_the_long_chain_differs_from_it_in_one_thing():
    def fields(name):
        return recipes.asdict(made(name, "long")) | {"stage": "", "parent": ""}

    def differ(name, other):
        return {key for key, value in fields(name).items() if fields(other).get(key) != value}

    assert differ("distilled", "narrow") == {"widths"}
    assert differ("unpruned", "scratch") == {"widths"}
    soft = {"teacher", "temperature", "alpha", "targets"}
    assert differ("plain", "distilled") == differ("narrow_plain", "narrow") == soft
    for arm in catalogue.names("long", "arms")[2:]:
        assert len(differ(arm, "vanilla")) == 1, arm
    for arm in ("pruned_at_random", "weak_reg", "strong_reg"):
        assert len(differ(arm, "pruned")) == 1, arm
    assert differ("pruned_directly", "pruned") == {"sparse", "fit"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"teacher": None}, "alpha 0.5: expected 0 without a teacher"),
        ({"stage": "plain"}, "takes no stage"),
        ({"seed": 3}, "takes no seed"),
        ({"rate": 1}, "distilled takes no rate"),
        ({"fit": 1}, "fit 1: expected"),
    ],
)
def test_a_change_that_a_recipe_does_not_take_is_told(change, told):
    with pytest.raises(InputError, match=told):
        compose.changed(made("distilled", "full"), change)


def test_a_whole_number_stands_for_a_fraction_also_in_the_digest():
    own = compose.changed(made("distilled", "full"), {"temperature": 3, "fit": Fit(epochs=1, lr=1)})
    assert compose.read(json.loads(json.dumps(recipes.written(own)))) == own


@pytest.mark.parametrize("profile", PROFILES)
def test_a_walk_trains_nothing_before_what_it_needs(profile):
    tasks = plan.tasks(profile)
    runs = sum(len(catalogue.seeds(name, profile)) for name in catalogue.names(profile))
    assert len(tasks) == len(set(tasks)) == 1 + runs
    for place, task in enumerate(tasks):
        assert set(plan.needs(task, profile)) <= set(tasks[:place]), task
    chain = [seed for name, seed in tasks if name in ("distilled", "compressed", "scratch")]
    assert chain == sorted(chain)  # seed by seed


def test_an_estimate_adds_up_what_committed_runs_of_the_same_rows_took(project):
    tasks = [("plain", 0), ("plain", 1), ("teacher", 0)]
    assert plan.estimate(tasks, Store("full")) == "time unknown: no such run was committed"
    folder = shutil.copytree(PROJECT / "runs/plain/full-s0", project / "runs/plain/full-s0")
    write_json(folder / "metrics.json", read_json(folder / "metrics.json") | {"wall_s": 7200})
    told = "4.0 hours, as committed runs took, and 1 runs of unknown time"
    assert plan.estimate(tasks, Store("full")) == told
