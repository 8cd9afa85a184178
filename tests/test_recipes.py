"""Recipes, profiles and catalogue: every number counts for the digest, and a row is all that an
experiment needs.
"""

import json
import math
import re
import shutil
from dataclasses import fields, replace

import pytest

from hw2.assignment import NARROW
from hw2.data import PROJECT
from hw2.errors import InputError
from hw2.experiments import catalogue, compose, earlier, plan, recipes
from hw2.experiments.profiles import PROFILES
from hw2.experiments.recipes import Recipe
from hw2.experiments.store import Store
from hw2.files import read_json, write_json
from hw2.training import Fit

FIT = Fit(epochs=1, lr=0.1)
ONE, OTHER = "1" * 64, "2" * 64  # digests
COMPRESSED = Recipe(
    stage="compressed", seed=0, fit=FIT, sparse=FIT, teacher=ONE, parent=ONE, reg=0.1, ratio=0.29
)
ROWS = [(profile, name) for profile in PROFILES for name in catalogue.names(profile)]


def made(name, profile, seed=None):
    known = catalogue.seeds(name, profile) or (0,)
    return compose.recipe(name, known[0] if seed is None else seed, profile, compose.NOTHING)


def test_the_digest_changes_with_every_field():
    others = {
        "loss": "kl_mean",
        "targets": "mean",
        "stage": "x",
        "stem": "stride1",
        "weights": OTHER,
        "teacher": OTHER,
        "parent": OTHER,
        "widths": NARROW,
        "importance": "random",
        "fit": replace(FIT, epochs=6),
        "sparse": replace(FIT, epochs=6),
        "precision": "bfloat16",
        "momentum": 0.5,
        "ratio": 0.3,
        "images": 7,
        "validation": 7,
    }

    def changed(content):
        for field in fields(content):
            value = getattr(content, field.name)
            step = 1 if isinstance(value, int) else 0.5
            other = others[field.name] if field.name in others else value + step
            yield replace(content, **{field.name: other})

    recipes = [*changed(COMPRESSED), *(replace(COMPRESSED, fit=fit) for fit in changed(FIT))]
    assert len({recipe.digest for recipe in [COMPRESSED, *recipes]}) == 1 + len(recipes)
    assert replace(COMPRESSED).digest == COMPRESSED.digest


#: field of a recipe -> values that it does not take
REFUSED = {
    "temperature": (0.0, -1.0, math.nan, math.inf, "4", None),  # T^2 * KL would be inf * 0
    "alpha": (-0.1, 1.1, math.nan, "1"),
    "ratio": (1.0, -0.1, math.nan, "0.3"),
    "reg": (-1.0, math.nan, math.inf),
    "targets": ("median", 1),
    "loss": ("mse", None),
    "stage": ("", 3),
    "seed": (-1, 100, 1.5, True),
    "images": (0, 55_001, 2.5),
    "validation": (0, 5001),
    "recalibration": (0, 60_000),
    "importance": ("hessian", None),
    "pad": (-1, 15, 1.0),
    "stem": ("vgg", 1),
    "weights": ("full-s0", 1),
    "teacher": ("full-s0", 1),
    "parent": (None, "f" * 63),
    "widths": ((1, 2, 3), (0,) * 4, (1, 2, 3, 5000), (1.0,) * 4),
    "fit": (None, {"epochs": 1, "lr": 0.1}),
}
REFUSED_FIT = {
    "epochs": (-1, 1.5, None),
    "lr": (-0.1, math.nan, math.inf, 11.0, "0.1"),
    "batch": (0, 1.0),
    "warmup": (-0.1, 7, math.nan),
    "momentum": (-0.1, 1.0, 3, math.nan),
    "weight_decay": (-1e-4, 2, math.nan),
    "precision": ("bf16", None, 16),
}


@pytest.mark.parametrize(
    ("field", "value"), [(name, value) for name, values in REFUSED.items() for value in values]
)
def test_a_recipe_does_not_take_values_out_of_range(field, value):
    with pytest.raises(
        InputError,
        match=re.escape(f"{field} {value!r}: expected") if field != "widths" else "widths",
    ):
        replace(COMPRESSED, **{field: value})


@pytest.mark.parametrize(
    ("field", "value"), [(name, value) for name, values in REFUSED_FIT.items() for value in values]
)
def test_a_training_does_not_take_values_out_of_range(field, value):
    with pytest.raises(InputError, match=re.escape(f"{field} {value!r}: expected")):
        replace(FIT, **{field: value})
    with pytest.raises(InputError, match=rf"^{field} "):
        compose.changed(made("distilled", "full"), {f"fit.{field}": value})


def test_every_field_is_held_against_its_range_and_the_bounds_are_taken():
    assert REFUSED.keys() >= {f.name for f in fields(COMPRESSED)} - {"sparse"}
    assert REFUSED_FIT.keys() == {f.name for f in fields(FIT)}
    assert (
        replace(
            COMPRESSED, ratio=0.0, alpha=0.0, temperature=1e-3, seed=99, pad=0, images=55_000
        ).alpha
        == 0
    )
    assert replace(FIT, epochs=0, lr=0, warmup=1, momentum=0) == Fit(
        0, 0.0, warmup=1.0, momentum=0.0
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"teacher": None, "alpha": 0.5}, "alpha 0.5: expected 0 without a teacher"),
        ({"stage": "distilled"}, "takes no stage"),
        ({"seed": 3}, "takes no seed"),
    ],
)
def test_fields_that_do_not_go_together_are_told(change, told):
    with pytest.raises(InputError, match=told):
        compose.changed(COMPRESSED, change)


@pytest.mark.parametrize(
    "change",
    [
        {"temperatures": ()},
        {"temperatures": (0.0,)},
        {"alphas": (2.0,)},
        {"seeds": (1, 1)},
        {"seeds": (-1,)},
    ],
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
    (RECORDED | {name: value}, r"^no recipe \(.+\)$")
    for name, value in (
        ("sparse", None),
        ("lr", 1),
        ("images", "64"),
        ("reg", math.nan),
    )
]
NO_RECIPE += [
    ({key: value for key, value in RECORDED.items() if key != name}, rf"^no recipe \(.*{name}")
    for name in ("seed", "fit")
]
NO_RECIPE += [
    (RECORDED | wrong, "its digest is not that of its numbers")
    for wrong in ({"digest": "x"}, {"images": 1})
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
        assert recipe.teacher == made(*taught_by(name, profile, recipe.seed)).digest
    if row.parent:
        assert recipe.parent == made(row.parent, profile, recipe.seed).digest
    for field, value in row.change.items():
        assert recipes.asdict(recipe)[field] == value
    # A teacher has answered its own views only.
    if recipe.teacher and recipe.targets == "same view":
        teacher = made("teacher", profile)
        assert (recipe.pad, recipe.views) == (teacher.pad, teacher.views)


def taught_by(name, profile, seed):
    teacher, number = catalogue.teacher(name, seed, profile)
    assert number == seed or seed not in catalogue.seeds(teacher, profile)
    return teacher, profile, number


def test_a_student_that_teaches_is_of_the_learners_seed_where_there_is_one():
    assert catalogue.teacher("better_teacher", 20, "long") == ("distilled", 10)
    assert catalogue.teacher("better_teacher", 11, "long") == ("distilled", 11)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", ["teacher", "distilled"])
def test_who_teaches_answers_every_view_of_the_recipe(few, profile, name):
    recipe = made(name, profile)
    assert len(recipe.task(few).answered()) == recipe.views > 0


@pytest.mark.parametrize("profile", PROFILES)
def test_no_two_rows_of_a_profile_are_one_recipe(profile):
    arms = catalogue.names(profile, "arms")
    assert len(
        {
            replace(made(name, profile), stage="x", seed=seed).digest
            for name in arms
            for seed in (0, 1)
        }
    ) == (2 * len(arms))


def test_smoke_makes_every_row_short():
    for name in catalogue.names("smoke"):
        recipe = made(name, "smoke")
        assert recipe.images <= 600 and recipe.pad == 0, name
        assert sum(fit.epochs for fit in recipe.fits) <= 3, name


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
    ("call", "told"),
    [
        (lambda: made("unplain", "full"), "experiment 'unplain': expected"),
        (lambda: made("plain", "huge"), "profile 'huge': expected one of smoke, full"),
        (
            lambda: compose.changed(made("plain", "full"), {"fit.rate": 1}),
            r"plain takes no fit\.rate",
        ),
        (
            lambda: compose.changed(made("plain", "full"), {"images": 2.5}),
            r"images 2\.5: expected a valid integer",
        ),
        (lambda: compose.read({}), "experiment None"),
    ],
)
def test_unknown_names_are_told(call, told):
    with pytest.raises(InputError, match=told):
        call()


def test_a_whole_number_stands_for_a_fraction_also_in_the_digest():
    own = compose.changed(made("distilled", "full"), {"temperature": 3, "fit.lr": 1})
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
