"""The store: a run is there whole or not at all, numbers survive, nothing is written by who only
reads.
"""

import hashlib
import os
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from functools import cache

import numpy as np
import pytest
import torch
from helpers import contents, tiny_network

import hw2
from hw2 import data, networks
from hw2.data import PROJECT
from hw2.errors import InputError
from hw2.experiments import environment, ledger, store
from hw2.experiments.recipes import Recipe
from hw2.experiments.run import HISTORY
from hw2.experiments.store import Store
from hw2.files import read_json, sha256, write_bytes, write_csv, write_json
from hw2.training import Fit, predict

CPU = torch.device("cpu")
RECIPE = Recipe(stage="plain", seed=3, fit=Fit(epochs=1, lr=0.1))
LATER = Recipe(stage="plain", seed=3, fit=Fit(epochs=2, lr=0.1))
OTHER = Recipe(stage="plain", seed=4, fit=Fit(epochs=1, lr=0.1))
METRICS = {"val_correct": 40, "val_total": 50, "parameters": 9, "wall_s": 1.5}
METRICS |= dict.fromkeys(("test_correct", "test_total"))


def make(recipe=RECIPE, profile="full", network=None):
    with store.new_folder(recipe, profile) as folder:
        networks.save(network or tiny_network(), folder / "model.safetensors")
        write_csv(folder / "history.csv", HISTORY, [])
        write_json(folder / "metrics.json", METRICS)
        write_json(folder / "environment.json", environment.environment(CPU))
    return Store(profile).find(recipe)


def test_a_run_is_found_by_its_recipe_and_by_nothing_else(project):
    assert Store("full").find(RECIPE) is None
    run = make()
    assert run.folder == project / "runs/plain/full-s3" and run.recipe == RECIPE
    assert str(run) == "plain/full-s3: 9 parameters, validation 80.00%, test not read"
    for recipe, profile in ((LATER, "full"), (OTHER, "full"), (RECIPE, "smoke")):
        assert Store(profile).find(recipe) is None
    assert Store("full").made_by(RECIPE.digest) == run
    with pytest.raises(InputError, match="no run with the recipe"):
        Store("full").made_by(OTHER.digest)


def test_a_run_that_breaks_off_leaves_nothing_and_an_earlier_one_as_it_was(project):
    for _ in range(2):
        before = contents(project)
        with pytest.raises(KeyboardInterrupt), store.new_folder(RECIPE, "full") as folder:
            (folder / "metrics.json").write_text("{}")
            assert Store("full").place(RECIPE).exists() == bool(before)
            raise KeyboardInterrupt
        assert contents(project) == before
        make()


def test_a_new_run_takes_the_place_of_one_without_a_recipe_when_asked(project):
    folder = make().folder
    (folder / "recipe.json").unlink()
    with pytest.raises(InputError, match=r"recipe\.json: no readable JSON"):
        store.check_replaced(folder, LATER, replace=False)
    store.check_replaced(folder, LATER, replace=True)
    with store.new_folder(LATER, "full") as folder:
        (folder / "only").write_text("")
    kept = Store("full").find(LATER).folder.iterdir()
    assert sorted(path.name for path in kept) == ["only", "recipe.json"]


def test_the_test_set_is_read_once_for_each_recipe(project, few, monkeypatch):
    monkeypatch.setattr(data, "fashion_mnist", lambda: few)
    run, other = make(), make(OTHER)
    path = run.folder / "metrics.json"
    write_json(path, read_json(path) | {"new": 1})  # a field of a later version
    for one in (run, other):
        ledger.read_test_set(one)
    assert read_json(path)["new"] == 1
    classes = predict(tiny_network(), few.test_images)
    correct = int((classes == few.test_labels).sum())
    table = ledger.ledger("full")
    assert table[["run", "recipe", "correct", "total"]].values.tolist() == [
        [one.name, one.recipe.digest, correct, 100] for one in (run, other)
    ]
    for when in table.when:
        assert abs(datetime.now(UTC) - datetime.fromisoformat(when)) < timedelta(minutes=5)
    assert (run.test_accuracy, run.metrics["val_correct"]) == (correct / 100, 40)
    before = contents(project)
    ledger.read_test_set(run)
    assert ledger.answers(run).equal(classes) and contents(project) == before
    again = make()  # trained again: its metrics have no reading yet
    ledger.read_test_set(again)
    assert len(ledger.ledger("full")) == 2 and again.metrics["test_total"] == 100
    again = make(network=tiny_network(1))  # other weights of the same recipe
    before = contents(project)
    with pytest.raises(InputError, match=f"the ledger's reading says {correct}"):
        ledger.read_test_set(again)
    assert contents(project) == before


def test_predict_uses_what_is_delivered_now(project):
    answers = []
    for seed in (1, 2):
        run = make(network=tiny_network(seed))
        named = {"run": run.name, "sha256": sha256(run.weights)}
        write_json(project / "runs/delivered.json", named)
        answers.append(hw2.predict(np.eye(28)))
    assert answers[0] != answers[1]


def test_what_a_killed_process_left_aside_goes_when_the_run_is_trained_again(project):
    place = Store("full").place(RECIPE)
    write_bytes(place.with_name(f".full-s3.{RECIPE.digest[:16]}.tmp") / "half", b"")
    make()
    assert [path.name for path in (project / "runs/plain").iterdir()] == ["full-s3"]


NAMED = {"run": "compressed/full-s0", "sha256": "0" * 64}


def test_the_default_profile_is_the_environments_or_the_delivered_networks(project, monkeypatch):
    assert Store().profile == "full"  # none is delivered yet
    write_json(project / "runs/delivered.json", NAMED)
    for value, profile in (("", "full"), ("smoke", "smoke")):
        monkeypatch.setenv("HW2_PROFILE", value)
        assert Store().profile == profile
    monkeypatch.setenv("HW2_PROFILE", "huge")
    with pytest.raises(InputError, match="profile 'huge'"):
        Store()


OUTSIDE = ("../compressed/full-s0", "compressed/../../x-s0", "compressed/huge-s0")


@pytest.mark.parametrize("content", [{}, *(NAMED | {"run": run} for run in OUTSIDE)])
def test_a_delivered_network_of_no_profile_is_told(project, content):
    write_json(project / "runs/delivered.json", content)
    with pytest.raises(InputError, match=r"delivered\.json: no readable JSON|profile 'huge'"):
        Store()


def git(*words, folder=PROJECT):
    """Of the repository in `folder`, also where a hook runs the tests and sets GIT_DIR."""
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words]
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(command, cwd=folder, env=own, capture_output=True, check=False).stdout


def committed(folder):
    """A repository of what lies in `folder`; its commit."""
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
        git(*words, folder=folder)
    return git("rev-parse", "HEAD", folder=folder).decode().strip()


@pytest.fixture
def commit(project, monkeypatch):
    """The commit of a project with one source file; code is read anew whenever it is asked for."""
    monkeypatch.setattr(environment, "code_at_start", environment.code_digest)
    write_bytes(project / "hw2/a.py", b"x = 1\n")
    return committed(project)


def test_code_that_no_commit_has_trains_smoke_runs_only(project, commit, monkeypatch):
    monkeypatch.setattr(environment, "code_at_start", cache(environment.code_digest))
    environment.check_code("full")
    assert environment.environment(CPU)["commit"] == commit
    write_bytes(project / "hw2/inner/new.py", b"x = 2\n")
    environment.check_code("smoke")
    with pytest.raises(InputError, match=r"hw2/ is not what HEAD has .*hw2/inner/new\.py"):
        environment.check_code("full")
    committed(project)
    with pytest.raises(InputError, match="a file changed while this process ran"):
        environment.check_code("full")


def test_variables_of_git_name_no_other_repository(project, commit, monkeypatch):
    other = project / "other"
    write_bytes(other / "hw2/a.py", b"x = 2\n")
    committed(other)
    for name, path in {"DIR": ".git", "WORK_TREE": ".", "OBJECT_DIRECTORY": ".git"}.items():
        monkeypatch.setenv(f"GIT_{name}", str(other / path))
        assert environment.commit() == commit
        environment.check_code("full")


#: each hides a change from `git status`, besides what .git/info/exclude names
HIDING = [
    ["config", "status.showUntrackedFiles", "no"],
    ["update-index", "--skip-worktree", "hw2/a.py"],
    ["update-index", "--assume-unchanged", "hw2/a.py"],
]


@pytest.mark.parametrize("hide", HIDING, ids=" ".join)
def test_code_that_git_status_does_not_show_is_found(project, commit, hide):
    git(*hide, folder=project)
    (project / ".git/info/exclude").write_text("inner\n")
    for changed in ("hw2/new.py", "hw2/inner/ignored.py", "hw2/a.py"):
        environment.check_code("full")
        write_bytes(project / changed, b"x = 2\n")
        with pytest.raises(InputError, match=f"hw2/ is not what HEAD has .{changed}"):
            environment.check_code("full")
        (project / changed).unlink()


def test_another_users_folder_has_a_commit_too(project, commit, monkeypatch):
    wrapper = project / "bin/git"
    script = f'#!/bin/sh\nGIT_TEST_ASSUME_DIFFERENT_OWNER=1 exec {shutil.which("git")} "$@"\n'
    write_bytes(wrapper, script.encode())
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    assert environment.commit() == commit
    environment.check_code("full")


def test_a_repository_above_the_project_is_not_its_own(project, commit, monkeypatch):
    copy = project / "copy"
    monkeypatch.setattr(data, "PROJECT", copy)
    write_bytes(copy / "hw2/a.py", b"x = 1\n")
    environment.check_code("full")  # an unpacked archive
    assert environment.environment(CPU)["commit"] is None
    (copy / ".git").mkdir()
    with pytest.raises(InputError, match=r"fatal: not a git repository.*a run names the commit"):
        environment.check_code("full")


RUNS = Store("full").every()


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_every_committed_run_tells_its_parents_and_the_code_of_its_commit(run):
    parents = {run.recipe.teacher, run.recipe.parent} - {None}
    assert parents <= {one.digest for one in RUNS}
    for one in run.environments:
        assert one["packages"].keys() == set(environment.PACKAGES)
        commit = one["commit"]
        listed = git("ls-tree", "-r", "--name-only", commit, "hw2/").decode().split()
        if not listed:
            pytest.skip(f"commit {commit} is not in this clone")
        digest = hashlib.sha256()
        for name in sorted(name.removeprefix("hw2/") for name in listed if name.endswith(".py")):
            digest.update(name.encode() + b"\0" + git("show", f"{commit}:hw2/{name}"))
        assert one["code"] == digest.hexdigest()


def test_an_installation_without_its_clone_says_so(project):
    with pytest.raises(InputError, match=r"installed without its runs: clone it, and `pip install"):
        _ = Store("full").delivered
