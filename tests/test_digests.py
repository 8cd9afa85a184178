"""The net: the recipe behind every committed run, built from the code as it is now, is the one that
was trained.

tests/digests.csv names the digests. `expected` is the only part that may change while the code is
rearranged. A row leaves the table only together with its run.
"""

import csv
from pathlib import Path

import pytest

from hw2.data import PROJECT
from hw2.experiments import compose
from hw2.experiments.store import Store
from hw2.files import read_json

RUNS = PROJECT / "runs"
with (Path(__file__).parent / "digests.csv").open() as file:
    DIGESTS = {row["name"]: row["digest"] for row in csv.DictReader(file)}


def expected(name):
    """The recipe of a folder under runs/, with the settings that its profile's committed search
    chose.
    """
    stage, _, run = name.partition("/")
    if stage == "tuning":
        return Store(run).tuning
    profile, _, seed = run.rpartition("-s")
    return Store(profile).recipe(stage, int(seed))


@pytest.mark.parametrize("name", DIGESTS)
def test_the_code_builds_the_recipe_that_was_trained(name, no_training):
    recipe, recorded = expected(name), read_json(RUNS / name / "recipe.json")
    assert recipe.digest == recorded["digest"] == DIGESTS[name]
    assert recipe == compose.read(recorded)


def test_every_run_has_its_row_and_every_row_its_run():
    folders = [path.parent for path in RUNS.glob("*/*/recipe.json")]  # choices lie deeper
    assert {folder.relative_to(RUNS).as_posix() for folder in folders} == DIGESTS.keys()
