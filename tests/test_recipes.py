"""Recipes, profiles and catalogue: every number counts for the digest, and a row is all that an experiment needs."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields, replace

import pytest

from hw2.assignment import NARROW
from hw2.errors import InputError
from hw2.experiments import catalogue, plan, recipes
from hw2.experiments.catalogue import EXPERIMENTS, Experiment, Unknown
from hw2.experiments.profiles import PROFILES
from hw2.experiments.recipes import CompressedRecipe, Recipe, StudentRecipe
from hw2.training import Fit

FIT = Fit(epochs=1, lr=0.1)
COMPRESSED = CompressedRecipe(stage="compressed", seed=0, fit=FIT, sparse=FIT, parent="p", reg=0.1, ratio=0.29)
ROWS = [(profile, name) for profile in PROFILES for name in catalogue.names(profile)]


def made(name, profile, seed=0):
    return catalogue.recipe(name, profile, seed, Unknown())


def test_the_digest_is_that_of_the_canonical_json():
    text = b'{"images": 55000, "pad": 2, "seed": 1, "stage": "x", "validation": 5000, "view_seed": 0, "views": 8}'
    assert Recipe(stage="x", seed=1).digest == hashlib.sha256(text).hexdigest()


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


def test_fields_that_came_later_leave_older_digests_as_they_were():
    recipe = StudentRecipe(stage="x", seed=0, fit=FIT)
    older = {name: value for name, value in asdict(recipe).items() if name not in ("loss", "targets", "widths")}
    older["fit"] |= recipes.RETIRED_FIT
    assert recipe.digest == hashlib.sha256(json.dumps(older, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class LaterFit(Fit):
    lookahead: int = 0


@dataclass(frozen=True, kw_only=True)
class LaterRecipe(CompressedRecipe):
    crops: tuple[int, ...] = (1, 2)


@pytest.mark.parametrize("name", ["fit", "sparse"])
def test_a_field_that_will_come_later_changes_a_digest_only_at_another_value(name):
    values = {field.name: getattr(COMPRESSED, field.name) for field in fields(COMPRESSED)}
    assert LaterRecipe(**values).digest == COMPRESSED.digest != LaterRecipe(**values, crops=(1,)).digest
    later = LaterFit(**asdict(values[name]))
    assert replace(COMPRESSED, **{name: later}).digest == COMPRESSED.digest
    assert replace(COMPRESSED, **{name: replace(later, lookahead=5)}).digest != COMPRESSED.digest


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("temperature", value) for value in (0.0, -1.0, float("nan"), float("inf"))),  # T^2 * KL would be inf * 0
        *(("alpha", value) for value in (-0.1, 1.1, float("nan"))),
        *(("ratio", value) for value in (1.0, -0.1, float("nan"))),
        ("targets", "median"), ("seed", -1), ("seed", 100),
    ],
)  # fmt: skip
def test_a_recipe_does_not_take_values_out_of_range(field, value):
    with pytest.raises(InputError, match=f"{field} {value!r}: expected"):
        replace(COMPRESSED, **{field: value})


def test_the_bounds_themselves_are_taken():
    assert replace(COMPRESSED, ratio=0.0, alpha=1.0).ratio == 0
    assert replace(COMPRESSED, alpha=0.0, temperature=1e-3, seed=99).alpha == 0


def test_a_field_that_was_given_up_is_taken_at_its_default_alone():
    recorded = recipes.written(COMPRESSED) | {"iterations": 1, "growing": False}
    assert recipes.read(CompressedRecipe, recorded) == COMPRESSED
    recorded["fit"] |= {"ema": 0.0, "erasing": 0}
    assert recipes.read(CompressedRecipe, recorded) == COMPRESSED
    for name, value in (("iterations", 2), ("growing", True), ("fit", recorded["fit"] | {"ema": 0.5})):
        with pytest.raises(InputError, match=f"no recipe .*{name.replace('fit', 'ema')}"):
            recipes.read(CompressedRecipe, recorded | {name: value})


def test_a_recipe_that_is_none_is_told():
    deep = "x"
    for _ in range(50_000):
        deep = [deep]
    recorded = recipes.written(COMPRESSED)
    kinds = {"stage": deep, "sparse": None, "lr": 1, "images": "64", "fit": {"epochs": 1, "lr": 0.1}, "reg": math.nan}
    for name, value in kinds.items():
        with pytest.raises(InputError, match=r"^no recipe \(.+\)$"):
            recipes.read(CompressedRecipe, recorded | {name: value})
    for name in ("images", "temperature", "fit"):
        with pytest.raises(InputError, match=rf"^no recipe \(.*{name}"):
            recipes.read(CompressedRecipe, {key: value for key, value in recorded.items() if key != name})
    for wrong in ({"digest": "x"}, {"images": 1}):
        with pytest.raises(InputError, match="its digest is not that of its numbers"):
            recipes.read(CompressedRecipe, recorded | wrong)


@pytest.mark.parametrize(
    ("name", "value"),
    [("images", 0), ("reg", -1.0), ("fit", replace(FIT, batch=0)), ("widths", (1, 2, 3)), ("widths", (0,) * 4)],
)  # fmt: skip
def test_numbers_that_nothing_can_be_made_with_are_told_whatever_the_digest(name, value):
    with pytest.raises(InputError, match=r"expected (at least|four)"):
        recipes.read(CompressedRecipe, recipes.written(replace(COMPRESSED, **{name: value})))


def test_the_first_field_that_differs_is_named_with_both_values():
    other = replace(COMPRESSED, fit=replace(FIT, lr=0.2), reg=9.0)
    assert recipes.difference(COMPRESSED, other) == "its fit.lr is 0.1, 0.2 is asked for"
    plain = StudentRecipe(stage="compressed", seed=0, fit=FIT)
    assert recipes.difference(plain, COMPRESSED) == "its parent is None, p is asked for"


@pytest.mark.parametrize(("profile", "name"), ROWS)
def test_a_rows_recipe_is_what_the_row_says(profile, name):
    row, recipe = EXPERIMENTS[name], made(name, profile)
    assert type(recipe) is row.kind and recipe.stage == name
    if isinstance(recipe, StudentRecipe):
        assert (recipe.teacher is None) == (row.teacher is None)
        assert recipe.teacher in (None, made("teacher", profile).digest)
        assert (recipe.alpha == 0) == (row.teacher is None)
        assert recipe.widths == row.widths
    if row.parent:
        assert recipe.parent == made(row.parent, profile).digest and recipe.ratio == row.ratio
    for field, value in row.change:
        assert recipes.asdict(recipe)[field] == value if "." not in field else getattr(recipe.fit, field[4:]) == value
    assert made(name, profile, 1).digest != recipe.digest
    # Soft targets exist for the teacher's views only.
    assert recipe.views == made("teacher", profile).views


@pytest.mark.parametrize("profile", PROFILES)
def test_no_two_rows_of_a_profile_are_one_recipe(profile):
    found = {replace(made(name, profile), stage="x").digest for name in catalogue.names(profile, "arms")}
    assert len(found) == len(catalogue.names(profile, "arms"))
    assert len({made(name, profile).digest for name in catalogue.names(profile)}) == len(catalogue.names(profile))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_smoke_transform_makes_any_row_short(name, monkeypatch):
    """Also those that smoke leaves out."""
    monkeypatch.setitem(EXPERIMENTS, name, replace(EXPERIMENTS[name], profiles=tuple(PROFILES)))
    recipe = made(name, "smoke")
    assert recipe.images <= 600 and recipe.views == 2
    assert recipe.fit.epochs <= 5 and getattr(recipe, "sparse", Fit(0, 0)).epochs <= 1


@pytest.mark.parametrize("profile", PROFILES)
def test_controls_see_as_many_images_as_what_they_are_held_against(profile):
    def images(name):
        recipe = made(name, profile)
        own = recipe.images * (recipe.fit.epochs + getattr(recipe, "sparse", Fit(0, 0)).epochs)
        return own + (images(EXPERIMENTS[name].parent) if EXPERIMENTS[name].parent else 0)

    assert images("scratch") == images("unpruned") == images("compressed")
    assert images("plain") == images("distilled")
    assert len({images(name) for name in catalogue.names(profile, "ablation")}) == 1
    assert len({images(name) for name in catalogue.names(profile, "arms")}) == 1


def test_full_learns_from_the_teacher_that_was_handed_over_and_from_its_mean_over_the_views():
    assert made("teacher", "full").digest == "f18aea8f9de6a551f6d742bfc84ddc02ce407ab8bacefeb63cb87b2779fedec2"
    assert made("scratch", "full").fit.epochs == 24 + 2 + 72
    taught = [name for name in catalogue.names("full") if EXPERIMENTS[name].teacher and not EXPERIMENTS[name].change]
    assert {made(name, "full").targets for name in taught} == {"mean"}


def test_unknown_names_are_told():
    for call in (lambda: made("unplain", "full"), lambda: catalogue.members("unplain", "full")):
        with pytest.raises(InputError, match="experiment 'unplain': expected"):
            call()
    with pytest.raises(InputError, match="profile 'huge': expected one of smoke, cpu, full"):
        made("plain", "huge")
    with pytest.raises(InputError, match="profile full does not train smoothed"):
        made("smoothed", "full")
    with pytest.raises(InputError, match=r"plain takes no fit\.rate"):
        catalogue.changed(made("plain", "full"), {"fit.rate": 1})
    with pytest.raises(InputError, match="experiment None"):
        catalogue.read({})


def test_a_new_row_is_all_that_listing_walk_and_help_need(monkeypatch):
    new = replace(EXPERIMENTS["kl_mean"], words="a new arm", change=(("temperature", 9.0),))
    monkeypatch.setitem(EXPERIMENTS, "new", new)
    assert isinstance(new, Experiment) and made("new", "smoke").temperature == 9
    assert "new" in catalogue.members("arms", "smoke")
    assert "a new arm" in catalogue.listing("smoke")
    assert ("new", 1) in plan.tasks("smoke")


@pytest.mark.parametrize("profile", PROFILES)
def test_a_walk_trains_nothing_before_what_it_needs(profile):
    tasks = plan.tasks(profile)
    assert len(tasks) == len(set(tasks)) == 1 + sum(len(catalogue.seeds(n, profile)) for n in catalogue.names(profile))
    for place, (name, seed) in enumerate(tasks):
        assert set(plan.needs(name, seed, profile)) <= set(tasks[:place]), name


def test_the_estimate_adds_up_and_counts_the_search():
    head, *groups, total = plan.estimate("full").splitlines()
    hours = {line.split()[0]: float(line.split()[-2]) for line in groups}
    assert "full" in head and hours.keys() == {"chain", "search", "finalists", "arms", "ablation", "frontier"}
    assert sum(hours.values()) == pytest.approx(float(total.split()[-2]), abs=0.5)
    assert hours["chain"] > hours["search"] > 0
