"""The net: the recipe behind every committed run, built from the code as it is now, is the one that was trained.

tests/digests.csv names the digests. `expected_recipes` is the only part that may change while the code is rearranged.
A row leaves the table only together with its run.
"""

import csv
import json
from functools import cache
from pathlib import Path

import pytest

from hw2 import training
from hw2.data import PROJECT
from hw2.experiments import catalogue, recipes, store
from hw2.files import read_json

RUNS = PROJECT / "runs"
with (Path(__file__).parent / "digests.csv").open() as file:
    DIGESTS = {row["name"]: row["digest"] for row in csv.DictReader(file)}


@cache
def expected_recipes():
    """Folder under runs/ -> recipe, with the settings that each profile's committed search chose."""
    found = {}
    for name in DIGESTS:
        stage, _, run = name.partition("/")
        profile, _, seed = run.rpartition("-s")
        if stage == "tuning":
            found[name] = catalogue.tuning(run, store.Settings(run))
        else:
            found[name] = catalogue.recipe(stage, profile, int(seed), store.Settings(profile))
    return found


@pytest.fixture(autouse=True)
def no_training(monkeypatch):
    monkeypatch.setattr(training, "fit", lambda *_, **__: pytest.fail("something was trained"))


@pytest.mark.parametrize("name", DIGESTS)
def test_the_code_builds_the_recipe_that_was_trained(name):
    recipe, recorded = expected_recipes()[name], read_json(RUNS / name / "recipe.json")
    assert recipe.digest == recorded["digest"] == DIGESTS[name]
    assert recipe == catalogue.read(recorded)  # which refuses a field that was given up, at any value but its default
    built = json.loads(json.dumps(recipes.written(recipe)))
    shared = recorded.keys() & built.keys()
    assert {field: built[field] for field in shared} == {field: recorded[field] for field in shared}


def test_every_run_has_its_row_and_every_row_its_run():
    there = {path.parent.relative_to(RUNS).as_posix() for path in RUNS.rglob("recipe.json")}
    assert there == DIGESTS.keys() == expected_recipes().keys()
