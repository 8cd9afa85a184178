"""What committed runs say of one another; each check is seen to find what it is for."""

import shutil
from types import SimpleNamespace

import checks
import numpy as np
import pytest
from helpers import edit

import conftest
from hw2.experiments import profiles, search
from hw2.experiments.run import Run, root
from hw2.experiments.store import Store, delivered_profile


@pytest.mark.parametrize("run", Store().every(), ids=lambda run: run.name)
def test_a_runs_files_agree_with_one_another(run, data):
    assert checks.of_run(run, data) == []


def test_the_store_holds_each_seeds_own_runs_one_reading_a_recipe_and_the_grids_trials():
    known = Store()
    runs = known.every()
    assert list(checks.copies(runs)) == []
    by_digest = {run.digest: run for run in runs}
    assert list(checks.of_ledger(delivered_profile(), by_digest)) == []
    assert known.delivered.folder == known.require("compressed").folder
    columns = known.trials[["T", "alpha", "seed"]].to_dict("records")
    assert columns == list(search.settings(known.tuning).values())


def more(value):
    return value + 5


def a_little(share):
    return share + 0.001


def shift(path):
    np.save(path, (np.load(path) + 1) % 10)


def drop(path):
    header, _, *lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([header, *lines]))


def remove(path):
    path.unlink()


#: run, file, place of a value in the file or None, what is done to it, what is told of it
CHANGES = [
    ("compressed", "metrics.json", "parameters", more, "parameters, metrics.json says"),
    ("plain", "metrics.json", "val_correct", more, "the last epoch of history.csv is not"),
    ("plain", "metrics.json", "val_total", more, "is of 37 validation images"),
    ("teacher", "metrics.json", "val_correct", more, "validation images are right"),
    ("teacher", "history.csv", (-1, 3), more, "the last loss of history.csv"),
    ("plain", "history.csv", (1, 4), a_little, "is no count of 32 images"),
    ("plain", "history.csv", (1, 1), more, "the learning rates of history.csv"),
    ("compressed", "history.csv", None, drop, "history.csv has not the 3 epochs"),
    ("plain", "steps.csv", None, drop, "steps.csv has not the 1 steps"),
    ("finalist-1", "validation_classes.npy", None, shift, "validation images are right"),
    ("finalist-1", "validation_classes.npy", None, remove, "validation_classes.npy is missing"),
    ("plain", "metrics.json", "test_correct", more, "test images are right, the ledger has"),
    ("compressed", "metrics.json", "phases.distilled", more, "phase distilled"),
    ("compressed", "metrics.json", "phases.sparse", more, "phase sparse"),
    ("compressed", "group_norms.json", "before.0.0", more, "not of the weights of distilled"),
]


@pytest.mark.parametrize(("name", "file", "place", "change", "told"), CHANGES)
def test_what_contradicts_another_file_is_told(walk_done, few, name, file, place, change, told):
    run = Store().require(name)
    assert checks.of_run(run, few) == []
    path = run.folder / file
    if place:
        edit(path, place, change)
    else:
        change(path)
    lines = checks.of_run(Run(run.folder), few)
    assert any(told in line for line in lines), lines


def test_a_run_under_another_name_a_copy_and_a_second_reading_are_told(walk_done, few):
    first = Store().require("finalist-1")
    moved = first.folder.with_name("smoke-s9")
    shutil.copytree(first.folder, moved)
    assert "its recipe is of finalist-1, seed 0" in checks.of_run(Run(moved), few)
    told = "finalist-1/smoke-s9 holds numbers or weights of finalist-1/smoke-s0"
    assert told in list(checks.copies([first, Run(moved)]))
    path = root("smoke") / "test_ledger.csv"
    path.write_text(path.read_text() + path.read_text().splitlines()[1] + "\n")
    stranger = Store().require("plain")
    told = list(checks.of_ledger("smoke", {Store().require("teacher").digest: stranger}))
    assert "a recipe has two readings" in told
    assert "the reading of teacher/smoke-s0 is of the recipe of plain/smoke-s0" in told


def test_tests_of_a_tree_that_lacks_a_run_name_it_and_end(monkeypatch):
    session = SimpleNamespace(config=SimpleNamespace())
    conftest.pytest_sessionstart(session)
    seeds = profiles.PROFILES[delivered_profile()]["seeds"]
    monkeypatch.setitem(seeds, "studies", (*seeds["studies"], 99))
    with pytest.raises(pytest.exit.Exception, match=r"labels/\w+-s99 is not there"):
        conftest.pytest_sessionstart(session)
