"""What committed runs say of one another; each check is seen to find what it is for."""

import shutil
from functools import partial
from types import SimpleNamespace

import checks
import numpy as np
import pytest
from helpers import cell, field

import conftest
from hw2 import data
from hw2.data import PROJECT
from hw2.errors import InputError
from hw2.experiments import catalogue, search
from hw2.experiments.run import Run, root
from hw2.experiments.store import Store, delivered_profile


@pytest.mark.parametrize("run", Store().every(), ids=lambda run: run.name)
def test_a_runs_files_agree_with_one_another(run, data):
    assert checks.of_run(run, data) == []


def test_no_run_is_another_seeds_and_each_reading_is_of_its_recipe():
    runs = Store().every()
    assert list(checks.copies(runs)) == []
    by_digest = {run.digest: run for run in runs}
    assert list(checks.of_ledger(delivered_profile(), by_digest)) == []


def test_the_delivered_network_is_the_first_seeds():
    known = Store()
    assert known.delivered.folder == known.require("compressed").folder


def test_the_trials_are_those_of_the_grid():
    known = Store()
    columns = known.trials[["T", "alpha", "seed"]].to_dict("records")
    assert columns == list(search.settings(known.tuning).values())


def more(value):
    return value + 1


def less(value):
    return value - 3


def ten_more(share):
    """Of 32 images, in a fraction."""
    return share + 10 / 32


def soften(path):
    logits = np.load(path)
    logits[:16] *= 3
    np.save(path, logits)


def shift(path):
    np.save(path, (np.load(path) + 1) % 10)


def drop(line, path):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:line] + lines[line + 1 :]))


def remove(path):
    path.unlink()


#: run, file, what is done to it, what is told of it
CHANGES = [
    (
        "compressed",
        "metrics.json",
        partial(field, "parameters", less),
        "parameters, metrics.json says",
    ),
    (
        "plain",
        "metrics.json",
        partial(field, "val_correct", more),
        "the last epoch of history.csv is not",
    ),
    ("plain", "metrics.json", partial(field, "val_total", more), "is of 33 validation images"),
    ("teacher", "history.csv", partial(cell, -1, 3, more), "the last loss of history.csv"),
    (
        "plain",
        "history.csv",
        partial(cell, 1, 4, lambda share: share + 0.001),
        "is no count of 32 images",
    ),
    ("plain", "history.csv", partial(cell, 1, 1, more), "the learning rates of history.csv"),
    ("compressed", "history.csv", partial(drop, 1), "history.csv has not the 3 epochs"),
    ("plain", "steps.csv", partial(drop, 1), "steps.csv has not the 1 steps"),
    ("finalist-1", "validation_classes.npy", shift, "validation images are right"),
    ("finalist-1", "validation_classes.npy", remove, "validation_classes.npy is missing"),
    (
        "plain",
        "metrics.json",
        partial(field, "test_correct", more),
        "test images are right, the ledger has",
    ),
    ("compressed", "metrics.json", partial(field, "phases.distilled", more), "phase distilled"),
    ("compressed", "metrics.json", partial(field, "phases.sparse", more), "phase sparse"),
    (
        "compressed",
        "group_norms.json",
        partial(field, "before.0.0", more),
        "not of the weights of distilled",
    ),
]


@pytest.mark.parametrize(("name", "file", "change", "told"), CHANGES)
def test_what_contradicts_another_file_is_told(walk_done, few, name, file, change, told):
    run = Store().require(name)
    assert checks.of_run(run, few) == []
    change(run.folder / file)
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
    assert "a recipe has two readings" in list(checks.of_ledger("smoke", {}))
    stranger = Store().require("plain")
    told = list(checks.of_ledger("smoke", {Store().require("teacher").digest: stranger}))
    assert "the reading of teacher/smoke-s0 is of the recipe of plain/smoke-s0" in told


@pytest.mark.parametrize(
    ("name", "file", "change", "told"),
    [
        ("compressed", "model.safetensors", lambda path: path.write_bytes(b"x"), "SHA-256 differs"),
        ("compressed", "model.safetensors", remove, "no model.safetensors"),
        ("teacher", "soft_targets.npy", soften, "not what soft_targets.json"),
    ],
)
def test_files_that_are_not_a_runs_own_are_refused_where_they_are_read(
    walk_done, name, file, change, told
):
    change(Store().require(name).folder / file)
    with pytest.raises(InputError, match=told):
        _ = Store().delivered
        _ = Store().require("teacher").soft_targets


def test_ties_that_float16_made_may_move_the_teachers_count_and_nothing_else_may():
    run, fashion = Run(root("full") / "teacher/full-s0"), data.fashion_mnist()
    assert checks.of_run(run, fashion) == []  # float16 has one more right than float32
    run.metrics["val_correct"] -= 4
    told = "validation images are right, metrics.json says"
    assert any(told in line for line in checks.of_run(run, fashion))


def test_tests_of_a_tree_that_lacks_a_run_name_it_and_end(tmp_path, monkeypatch):
    shutil.copytree(PROJECT / "runs", tmp_path / "runs", ignore=shutil.ignore_patterns("*.npy"))
    monkeypatch.setattr(data, "PROJECT", tmp_path)
    session = SimpleNamespace(config=SimpleNamespace())
    conftest.pytest_sessionstart(session)
    shutil.rmtree(tmp_path / "runs/labels")
    with pytest.raises(pytest.exit.Exception, match="labels/full-s3 is not there"):
        conftest.pytest_sessionstart(session)
    assert "labels" in catalogue.names("full")
