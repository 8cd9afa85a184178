"""Recipes: every field counts for the digest, and bad numbers do not get in."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace

import pytest

from hw2.errors import InputError
from hw2.experiments import recipes
from hw2.experiments.recipes import CompressedRecipe, Fit, Recipe, StudentRecipe

FIT = Fit(epochs=1, lr=0.1)
COMPRESSED = CompressedRecipe(stage="compressed", seed=0, fit=FIT, sparse=FIT, parent="p", reg=0.1, ratio=0.29)


def test_the_digest_is_that_of_the_canonical_json():
    text = b'{"images": 55000, "pad": 2, "seed": 1, "stage": "x", "validation": 5000, "view_seed": 0, "views": 8}'
    assert Recipe(stage="x", seed=1).digest == hashlib.sha256(text).hexdigest()


def test_the_digest_changes_with_every_field():
    def other(value):
        if isinstance(value, Fit):
            return replace(value, epochs=value.epochs + 1)
        return value + "x" if isinstance(value, str) else (value or 0) + 0.5

    changed = [replace(COMPRESSED, **{f.name: other(getattr(COMPRESSED, f.name))}) for f in fields(COMPRESSED)]
    changed += [replace(COMPRESSED, fit=replace(FIT, **{f.name: other(getattr(FIT, f.name))})) for f in fields(FIT)]
    digests = {recipe.digest for recipe in [COMPRESSED, *changed]}
    assert len(digests) == 1 + len(fields(COMPRESSED)) + len(fields(FIT))
    assert replace(COMPRESSED).digest == COMPRESSED.digest


def test_fields_that_came_later_leave_older_digests_as_they_were():
    recipe = StudentRecipe(stage="x", seed=0, fit=FIT)
    older = {name: value for name, value in asdict(recipe).items() if name not in ("loss", "targets", "widths")}
    assert recipe.digest == hashlib.sha256(json.dumps(older, sort_keys=True).encode()).hexdigest()
    assert replace(recipe, loss="decoupled").digest != recipe.digest != replace(recipe, targets="identity").digest
    assert replace(recipe, widths=(11, 11, 22, 45)).digest != recipe.digest


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
    ("field", "value", "told"),
    [
        ("temperature", 0.0, "temperature 0.0: expected a number above 0"),
        ("temperature", -1.0, "temperature -1.0: expected a number above 0"),
        ("temperature", float("nan"), "temperature nan: expected a number above 0"),
        ("temperature", float("inf"), "temperature inf: expected a number above 0"),  # T^2 * KL is then inf * 0
        ("alpha", -0.1, "alpha -0.1: expected the weight of the KL term"),
        ("alpha", 1.1, "alpha 1.1: expected the weight of the KL term"),
        ("alpha", float("nan"), "alpha nan: expected the weight of the KL term"),
        ("ratio", 1.0, "pruning ratio 1.0: expected at least 0 and below 1"),
        ("ratio", -0.1, "pruning ratio -0.1: expected at least 0 and below 1"),
        ("ratio", float("nan"), "pruning ratio nan: expected at least 0 and below 1"),
    ],
)
def test_a_recipe_does_not_take_numbers_out_of_range(field, value, told):
    with pytest.raises(InputError) as error:
        replace(COMPRESSED, **{field: value})
    assert str(error.value).startswith(told)


def test_the_bounds_themselves_are_taken():
    assert replace(COMPRESSED, ratio=0.0, alpha=1.0).ratio == 0
    assert replace(COMPRESSED, alpha=0.0, temperature=1e-3).alpha == 0


def test_an_unknown_profile_is_an_error():
    with pytest.raises(InputError, match="profile 'huge': expected one of smoke, cpu, full"):
        recipes.plain("huge", 0)


@pytest.mark.parametrize("profile", recipes.PROFILES)
def test_each_profile_has_numbers_for_every_stage(profile):
    parent = recipes.distilled(profile, 0, "t", 4.0, 0.9)
    small = recipes.compressed(profile, 0, {"digest": parent.digest, **asdict(parent)})
    made = [recipes.teacher(profile), recipes.tuning(profile, "t"), parent, recipes.plain(profile, 0), small]
    assert [recipe.stage for recipe in made] == ["teacher", "tuning", "distilled", "plain", "compressed"]
    assert len({recipe.digest for recipe in made}) == 5
    # Fine-tuning keeps the parent's teacher and settings; only the soft targets' views exist.
    assert (small.parent, small.teacher, small.temperature, small.alpha) == (parent.digest, "t", 4.0, 0.9)
    assert {recipe.views for recipe in made} == {made[0].views}
    assert max(recipe.images for recipe in made) == made[0].images


def test_the_control_has_the_distilled_students_budget():
    plain, distilled = recipes.plain("cpu", 3), recipes.distilled("cpu", 3, "t", 4.0, 0.9)
    differing = {f.name for f in fields(StudentRecipe) if getattr(plain, f.name) != getattr(distilled, f.name)}
    assert differing == {"stage", "temperature", "alpha", "teacher"}
    assert plain.alpha == 0


def test_a_teacher_from_the_courses_file_names_no_training():
    given = recipes.teacher("full", 0, weights="abc")
    assert (given.weights, given.stem, given.fit.epochs) == ("abc", "imagenet", 0)
    assert given.digest != recipes.teacher("full").digest


def test_the_full_teacher_is_the_one_that_was_handed_over():
    assert recipes.teacher("full").digest == "f18aea8f9de6a551f6d742bfc84ddc02ce407ab8bacefeb63cb87b2779fedec2"


def test_all_of_fulls_students_with_a_teacher_learn_from_its_mean_over_the_views():
    parent = recipes.distilled("full", 0, "t", 2.0, 0.9)
    read = {"digest": parent.digest, **asdict(parent)}
    taught = [parent, recipes.tuning("full", "t"), recipes.finalist("full", 1, 0, "t", 2.0, 0.9)]
    taught += [make("full", 0, read) for make in (recipes.compressed, recipes.scratch, recipes.unpruned)]
    assert {recipe.targets for recipe in taught} == {"mean"}
    assert recipes.plain("full", 0).targets == recipes.distilled("cpu", 0, "t", 2.0, 0.9).targets == "same view"
    assert taught[-2].fit.epochs == taught[-1].fit.epochs == 24 + 2 + 72


def test_full_has_no_numbers_for_arms_ablation_and_frontier_yet():
    with pytest.raises(InputError, match="profile full: arms, ablation and frontier have no numbers in it"):
        recipes.check_studies("full")


def test_the_first_field_that_differs_is_named_with_both_values():
    other = replace(COMPRESSED, fit=replace(FIT, lr=0.2), reg=9.0)
    assert recipes.difference(COMPRESSED, other) == "its fit.lr is 0.1, 0.2 is asked for"
    plain = StudentRecipe(stage="compressed", seed=0, fit=FIT)
    assert recipes.difference(plain, COMPRESSED) == "its parent is None, p is asked for"


STUDIED = [profile for profile in recipes.PROFILES if recipes.has_studies(profile)]


@pytest.mark.parametrize("profile", STUDIED)
def test_the_ablations_arms_see_equally_many_images(profile):
    grid = recipes.tuning(profile, "t")
    for name in recipes.ABLATION:
        recipe = recipes.ablated(name, grid, profile, 3, 2.0, 0.5, "t", "p")
        epochs = recipe.fit.epochs
        if isinstance(recipe, CompressedRecipe):
            epochs += recipe.sparse.epochs + grid.fit.epochs  # its parent's
            assert recipe.images == grid.images
        assert (
            recipe.images * epochs
            == recipes.ablated("scratch_labels", grid, profile, 3, 2.0, 0.5, "t", "p").fit.epochs * grid.images
        )
        assert (recipe.teacher is None) == ("labels" in name)


@pytest.mark.parametrize("profile", recipes.PROFILES)
def test_the_estimate_adds_up(profile):
    head, *stages, total, disk = recipes.estimate(profile).splitlines()
    minutes = [int(line.split(" min")[0].split()[-1]) for line in [*stages, total]]
    assert head == f"profile {profile}, 1 seed"
    assert len(stages) == 9 + 3 * recipes.has_studies(profile)
    assert minutes[-1] == pytest.approx(sum(minutes[:-1]), abs=6)  # each is rounded
    assert "MB" in disk


def test_the_estimate_knows_the_stem_and_processors_without_bfloat16():
    def teacher(*words):
        (line,) = [line for line in recipes.estimate(*words).splitlines() if line.startswith("teacher")]
        return int(line.split()[1])

    assert teacher("full", 1, False) == pytest.approx(15 * teacher("full", 1, True), rel=0.01)
    assert teacher("cpu", 1, False) == teacher("cpu", 1, True)
    per_epoch = teacher("cpu") / 6
    assert teacher("full", 1, True) / 20 == pytest.approx(2.6 * recipes.BFLOAT16[True] * per_epoch, rel=0.05)


def test_more_seeds_take_more_time_in_the_students_lines_alone():
    once, twice = (recipes.estimate("full", seeds).splitlines() for seeds in (1, 2))
    assert {line.split()[0] for line, other in zip(once, twice, strict=True) if line != other} == {
        "profile", "distilled", "plain", "compressed", "scratch", "unpruned", "in"
    }  # fmt: skip


def test_a_field_that_was_given_up_is_taken_at_its_default_alone():
    recorded = {"digest": COMPRESSED.digest, **asdict(COMPRESSED), "iterations": 1, "growing": False}
    assert recipes.read(recorded) == COMPRESSED
    for name, value in (("iterations", 2), ("growing", True)):
        with pytest.raises(InputError, match=f"no recipe .*{name}"):
            recipes.read(recorded | {name: value})


def test_a_recipe_that_is_nested_without_end_is_none():
    deep = "x"
    for _ in range(50_000):
        deep = [deep]
    with pytest.raises(InputError, match="no recipe"):
        recipes.read(asdict(COMPRESSED) | {"stage": deep})
