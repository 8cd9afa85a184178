"""Recipes, profiles and catalogue: every number counts for the digest, and a row is all that an experiment needs."""

import json
import math
from dataclasses import asdict, dataclass, fields, replace

import pytest

from hw2.assignment import NARROW
from hw2.errors import InputError
from hw2.experiments import catalogue, plan, recipes
from hw2.experiments.catalogue import EXPERIMENTS, Recipes
from hw2.experiments.profiles import PROFILES
from hw2.experiments.recipes import CompressedRecipe, StudentRecipe
from hw2.training import Fit

FIT = Fit(epochs=1, lr=0.1)
COMPRESSED = CompressedRecipe(stage="compressed", seed=0, fit=FIT, sparse=FIT, parent="p", reg=0.1, ratio=0.29)
ROWS = [(profile, name) for profile in PROFILES for name in Recipes(profile).names()]


def made(name, profile, seed=0):
    return Recipes(profile).recipe(name, seed)


def test_the_digest_changes_with_every_field():
    words = {"loss": "kl_mean", "targets": "mean", "stage": "x", "teacher": "t", "parent": "q", "widths": NARROW}

    def other(name, value):
        if isinstance(value, Fit):
            return replace(value, epochs=value.epochs + 1)
        return words[name] if name in words else (value or 0) + 0.5

    changed = [replace(COMPRESSED, **{f.name: other(f.name, getattr(COMPRESSED, f.name))}) for f in fields(COMPRESSED)]
    numbers = [(f.name, getattr(FIT, f.name)) for f in fields(FIT)]
    changed += [replace(COMPRESSED, fit=replace(FIT, **{n: "bfloat16" if n == "precision" else v + 2}))
                for n, v in numbers]  # fmt: skip
    digests = {recipe.digest for recipe in [COMPRESSED, *changed]}
    assert len(digests) == 1 + len(fields(COMPRESSED)) + len(fields(FIT))
    assert replace(COMPRESSED).digest == COMPRESSED.digest


@dataclass(frozen=True)
class LaterFit(Fit):
    lookahead: int = 0


@pytest.mark.parametrize("name", ["fit", "sparse"])
def test_a_field_that_will_come_later_changes_a_digest_only_at_another_value(name):
    later = LaterFit(**asdict(getattr(COMPRESSED, name)))
    assert replace(COMPRESSED, **{name: later}).digest == COMPRESSED.digest
    assert replace(COMPRESSED, **{name: replace(later, lookahead=5)}).digest != COMPRESSED.digest


@pytest.mark.parametrize(
    ("field", "value"),
    [*(("temperature", value) for value in (0.0, -1.0, math.nan, math.inf, "4", None)),  # T^2 * KL would be inf * 0
     *(("alpha", value) for value in (-0.1, 1.1, math.nan, "1")),
     ("ratio", 1.0), ("ratio", -0.1), ("ratio", math.nan), ("targets", "median"), ("loss", "mse"), ("seed", -1),
     ("seed", 100)],
)  # fmt: skip
def test_a_recipe_does_not_take_values_out_of_range(field, value):
    with pytest.raises(InputError, match=f"{field} {value!r}: expected"):
        replace(COMPRESSED, **{field: value})
    assert replace(COMPRESSED, ratio=0.0, alpha=0.0, temperature=1e-3, seed=99).alpha == 0  # the bounds are taken


def test_a_field_that_was_given_up_is_taken_at_its_default_alone():
    recorded = recipes.written(COMPRESSED) | {"iterations": 1, "growing": False}
    assert recipes.read(CompressedRecipe, recorded) == COMPRESSED
    recorded["fit"] |= {"ema": 0.0, "erasing": 0}
    assert recipes.read(CompressedRecipe, recorded) == COMPRESSED
    for name, value in (("iterations", 2), ("growing", True), ("fit", recorded["fit"] | {"ema": 0.5})):
        with pytest.raises(InputError, match=f"no recipe .*{name.replace('fit', 'ema')}"):
            recipes.read(CompressedRecipe, recorded | {name: value})


def nested(depth):
    value = "x"
    for _ in range(depth):
        value = [value]
    return value


RECORDED = recipes.written(COMPRESSED)
NO_RECIPE = [(RECORDED | {name: value}, r"^no recipe \(.+\)$") for name, value in (
    ("stage", nested(50_000)), ("sparse", None), ("lr", 1), ("images", "64"), ("fit", {"epochs": 1, "lr": 0.1}),
    ("reg", math.nan),
)]  # fmt: skip
NO_RECIPE += [({key: value for key, value in RECORDED.items() if key != name}, rf"^no recipe \(.*{name}")
              for name in ("images", "temperature", "fit")]  # fmt: skip
NO_RECIPE += [(RECORDED | wrong, "its digest is not that of its numbers") for wrong in ({"digest": "x"}, {"images": 1})]


@pytest.mark.parametrize(("recorded", "told"), NO_RECIPE, ids=range(len(NO_RECIPE)))
def test_a_recipe_that_is_none_is_told(recorded, told):
    with pytest.raises(InputError, match=told):
        recipes.read(CompressedRecipe, recorded)


@pytest.mark.parametrize(
    ("name", "value"),
    [("images", 0), ("reg", -1.0), ("fit", replace(FIT, batch=0)), ("widths", (1, 2, 3)), ("widths", (0,) * 4)],
)  # fmt: skip
def test_numbers_that_nothing_can_be_made_with_are_told_whatever_the_digest(name, value):
    with pytest.raises(InputError, match=r"expected (at least|four)"):
        recipes.read(CompressedRecipe, recipes.written(replace(COMPRESSED, **{name: value})))


@pytest.mark.parametrize(("profile", "name"), ROWS)
def test_a_rows_recipe_is_what_the_row_says(profile, name):
    row, recipe = EXPERIMENTS[name], made(name, profile)
    assert type(recipe) is row.kind and recipe.stage == name
    if isinstance(recipe, StudentRecipe):
        assert recipe.teacher == (made("teacher", profile).digest if row.teacher else None)
        assert (recipe.alpha == 0) == (row.teacher is None) and recipe.widths == row.widths
    if row.parent:
        assert recipe.parent == made(row.parent, profile).digest and recipe.ratio == row.ratio
    for field, value in row.change:
        assert recipes.asdict(recipe)[field] == value if "." not in field else getattr(recipe.fit, field[4:]) == value
    # Soft targets exist for the teacher's views only.
    assert recipe.views == made("teacher", profile).views


@pytest.mark.parametrize("profile", PROFILES)
def test_no_two_rows_of_a_profile_are_one_recipe(profile):
    arms = Recipes(profile).names("arms")
    assert len({replace(made(name, profile), stage="x", seed=seed).digest for name in arms for seed in (0, 1)}) == (
        2 * len(arms)
    )


def test_smoke_makes_every_row_short():
    for name in EXPERIMENTS:
        recipe = made(name, "smoke")
        assert recipe.images <= 600 and recipe.views == 2, name
        assert recipe.fit.epochs <= 5 and getattr(recipe, "sparse", Fit(0, 0)).epochs <= 1, name


@pytest.mark.parametrize("profile", PROFILES)
def test_controls_see_as_many_images_as_what_they_are_held_against(profile):
    def images(name):
        recipe = made(name, profile)
        own = recipe.images * (recipe.fit.epochs + getattr(recipe, "sparse", Fit(0, 0)).epochs)
        return own + (images(EXPERIMENTS[name].parent) if EXPERIMENTS[name].parent else 0)

    assert images("scratch") == images("unpruned") == images("compressed")
    assert images("plain") == images("distilled")
    assert len({images(name) for name in Recipes(profile).names("ablation")}) == 1
    assert len({images(name) for name in Recipes(profile).names("arms")}) == 1


@pytest.mark.parametrize(
    ("call", "told"),
    [(lambda: made("unplain", "full"), "experiment 'unplain': expected"),
     (lambda: made("plain", "huge"), "profile 'huge': expected one of smoke, full"),
     (lambda: catalogue.changed(made("plain", "full"), {"fit.rate": 1}), r"plain takes no fit\.rate"),
     (lambda: catalogue.changed(made("plain", "full"), {"images": 2.5}), r"images 2\.5: expected a number"),
     (lambda: catalogue.read({}), "experiment 'None'")],
)  # fmt: skip
def test_unknown_names_are_told(call, told):
    with pytest.raises(InputError, match=told):
        call()


def test_a_whole_number_stands_for_a_fraction_also_in_the_digest():
    own = catalogue.changed(made("distilled", "full"), {"temperature": 3, "fit.lr": 1})
    assert catalogue.read(json.loads(json.dumps(recipes.written(own)))) == own


@pytest.mark.parametrize("profile", PROFILES)
def test_a_walk_trains_nothing_before_what_it_needs(profile):
    tasks = plan.tasks(Recipes(profile))
    assert len(tasks) == len(set(tasks)) == 1 + sum(len(Recipes(profile).seeds(n)) for n in Recipes(profile).names())
    for place, (name, seed) in enumerate(tasks):
        assert set(plan.needs(name, seed, Recipes(profile))) <= set(tasks[:place]), name


def test_the_estimate_adds_up_and_counts_the_search():
    head, *groups, total = plan.estimate("full").splitlines()
    hours = {line.split()[0]: float(line.split()[-2]) for line in groups}
    assert "full" in head and hours.keys() == {"chain", "search", "finalists", "arms", "ablation", "frontier"}
    assert sum(hours.values()) == pytest.approx(float(total.split()[-2]), abs=0.5)
    assert hours["chain"] > hours["search"] > 0
