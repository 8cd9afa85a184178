"""The net: the recipe behind every committed run, built from the code as it is now, is the one that was trained.

tests/digests.csv names the digests. `expected_recipes` is the only part that may change while the code is rearranged.
A row leaves the table only together with its run.
"""

import csv
import json
from dataclasses import asdict
from functools import cache
from pathlib import Path

import pytest

from hw2 import training
from hw2.experiments import recipes, stages
from hw2.experiments import search as tuning
from hw2.experiments import store as runs

with (Path(__file__).parent / "digests.csv").open() as file:
    DIGESTS = {row["name"]: row["digest"] for row in csv.DictReader(file)}


@cache
def expected_recipes() -> dict[str, recipes.Recipe]:
    """Folder under runs/ -> recipe, with the settings that each profile's committed search chose."""
    return cpu() | full()


def full() -> dict[str, recipes.Recipe]:
    """Its runs land one by one."""
    made = [recipes.teacher("full"), *(recipes.plain("full", seed) for seed in range(3))]
    found = {f"{recipe.stage}/full-s{recipe.seed}": recipe for recipe in made}
    return {name: recipe for name, recipe in found.items() if name in DIGESTS}


def cpu() -> dict[str, recipes.Recipe]:
    profile = "cpu"
    teacher = recipes.teacher(profile)
    grid = recipes.tuning(profile, teacher.digest)
    trials, chosen = stages.tuned(profile), stages.chosen(profile)
    found = {f"tuning/{profile}": grid, f"teacher/{profile}-s0": teacher}

    def add(recipe: recipes.Recipe) -> recipes.Recipe:
        found[f"{recipe.stage}/{profile}-s{recipe.seed}"] = recipe
        return recipe

    def as_read(recipe: recipes.Recipe) -> dict:
        return {"digest": recipe.digest, **asdict(recipe)}

    for number, setting in enumerate(tuning.finalists(trials), start=1):
        for seed in grid.seeds:
            add(recipes.finalist(profile, number, seed, teacher.digest, *setting))
    for seed in range(3):
        add(recipes.plain(profile, seed))
        distilled = add(recipes.distilled(profile, seed, teacher.digest, *chosen))
        compressed = add(recipes.compressed(profile, seed, as_read(distilled)))
        if seed < 2:
            for ratio in recipes.NUMBERS[profile]["frontier"]["ratios"]:
                add(recipes.frontier(profile, seed, as_read(distilled), ratio))
        if seed == 0:
            add(recipes.scratch(profile, seed, as_read(distilled)))
            add(recipes.unpruned(profile, seed, as_read(distilled)))
            delivered = compressed
    for seed in recipes.arm_seeds(grid):
        for name in recipes.ARMS:
            origin = delivered if name == "compressed_teacher" else teacher
            add(recipes.arm(name, grid, seed, *tuning.best(trials), origin.digest))
        parent = found[f"vanilla/{profile}-s{seed}"]
        for name in recipes.ABLATION:
            best = tuning.best(trials)
            add(recipes.ablated(name, grid, profile, seed, *best, teacher.digest, parent.digest))
    return found


@pytest.fixture(autouse=True)
def no_training(monkeypatch):
    monkeypatch.setattr(training, "fit", lambda *_, **__: pytest.fail("something was trained"))


@pytest.mark.parametrize("name", DIGESTS)
def test_the_code_builds_the_recipe_that_was_trained(name):
    recipe, recorded = expected_recipes()[name], runs.read_json(runs.root() / name / "recipe.json")
    assert recipe.digest == recorded["digest"] == DIGESTS[name]
    assert recipe == recipes.read(recorded)  # which refuses a field that was given up, at any value but its default
    built = json.loads(json.dumps(asdict(recipe)))
    shared = recorded.keys() & built.keys()
    assert {field: built[field] for field in shared} == {field: recorded[field] for field in shared}


def test_every_run_has_its_row_and_every_row_its_run():
    there = {path.parent.relative_to(runs.root()).as_posix() for path in runs.root().rglob("recipe.json")}
    assert there == DIGESTS.keys() == expected_recipes().keys()
