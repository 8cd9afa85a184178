"""A run that is not what its recipe makes is found, also where all sums were made anew."""

import dataclasses
import os
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from helpers import cell, contents, field

from conftest import SHRUNKEN
from hw2 import data, networks, training
from hw2.errors import InputError
from hw2.experiments import check, environment, profiles, recipes, replay, train
from hw2.experiments.catalogue import Recipes
from hw2.experiments.run import Run, root
from hw2.experiments.store import Store
from hw2.files import sha256, write_json

CPU = torch.device("cpu")


def one_more(count):
    return count + 1


WRONG = partial(cell, -1, 4, lambda share: share + 0.1)


def test_every_run_of_a_walk_is_as_recorded(walk_done):
    found, before = replay.every(Store("smoke")), contents(root("smoke"))
    assert {run.recipe.stage for run in found} == {*Recipes("smoke").names(), "tuning"}
    assert check.of_store(Store("smoke")) == []
    for run in {run.recipe.stage: run for run in found}.values():  # one of each row
        told = replay.replay(run, CPU)
        assert (told.problems, told.difference, told.alike) == ([], 0, True), told
    assert contents(root("smoke")) == before
    assert [run.name for run in replay.chain(Store("smoke"))] == [
        "teacher/smoke-s0", "distilled/smoke-s0", "compressed/smoke-s0"
    ]  # fmt: skip
    with pytest.raises(InputError, match="run 'nothing/smoke-s0': expected one under runs/"):
        replay.named(["plain/smoke-s0", "nothing/smoke-s0"], Store("smoke"))
    shutil.rmtree(Store().require("distilled").folder)
    with pytest.raises(InputError, match="no run with the recipe"):
        replay.chain(Store("smoke"))


def problems_of(run):
    try:
        return replay.replay(Run(run.folder), CPU).problems
    except InputError as error:
        return [str(error)]


def other_seed(path):
    write_json(path, recipes.written(Store("smoke").recipe("finalist-1", 1)))


@pytest.mark.parametrize(
    ("name", "file", "change", "told"),
    [("distilled", "steps.csv", partial(cell, 1, 1, lambda loss: loss * 1.0002), "the loss of step 0 is recorded as"),
     ("compressed", "history.csv", WRONG, "the last epoch of history.csv"),
     ("compressed", "metrics.json", partial(field, "val_correct", one_more), "validation images are right"),
     ("distilled", "metrics.json", partial(field, "test_correct", one_more), "test images are right"),
     ("distilled", "recipe.json", partial(field, "seed", one_more), "its digest is not that of its numbers"),
     ("finalist-1", "recipe.json", other_seed, "the loss of step 0 is recorded as"),
     ("scratch", "model.safetensors", partial(networks.save, networks.ResNet14()), "the last loss of history.csv is")],
)  # fmt: skip
def test_what_was_changed_is_told(walk_done, name, file, change, told):
    run = Store().require(name)
    change(run.folder / file)
    problems = problems_of(run)
    assert any(told in problem for problem in problems), problems


def test_the_delivered_chain_is_as_recorded(monkeypatch):
    """By the way that `hw2 replay` takes: in processes of the recorded instruction set."""
    *earlier, last = replay.chain(Store())
    found = [*replay.all_of(earlier, CPU, steps=5)]
    monkeypatch.setattr(replay, "_pruned_at_once", lambda *_: [])  # takes minutes: `make replay` does it
    for told in (*found, replay.replay(last, CPU, steps=5)):
        assert told.problems == [], told


@pytest.mark.parametrize(("stem", "last"), [("imagenet", False), ("stride1", True)])
def test_a_teacher_is_prepared_in_its_stems_layout_in_training_and_replay_alike(walk_done, monkeypatch, stem, last):
    layouts, fit = [], training.fit

    def noted(*arguments, options, **more):
        layouts.append(options.channels_last)
        return fit(*arguments, options=options, **more)

    monkeypatch.setattr(training, "fit", noted)
    numbers = SHRUNKEN | {"teacher": SHRUNKEN["teacher"] | {"stem": stem, "fit": training.Fit(epochs=2, lr=0.05)}}
    monkeypatch.setitem(profiles.PROFILES, "smoke", numbers)
    assert replay.replay(train.obtain("teacher", replace=True), CPU).problems == []
    assert layouts == [last, last]


def test_first_steps_in_bfloat16_are_left_out_where_the_processor_lacks_it(walk_done, monkeypatch):
    monkeypatch.setattr(environment, "lacks_bfloat16", lambda device: True)
    assert replay.replay(Store().require("plain"), CPU).difference == 0
    slow = dataclasses.replace(SHRUNKEN["student"]["fit"], precision="bfloat16")
    monkeypatch.setitem(profiles.PROFILES, "smoke", SHRUNKEN | {"student": {"fit": slow}})
    run = train.obtain("plain", 7)
    monkeypatch.setattr(replay, "first_losses", lambda *_: pytest.fail("trained in emulated bfloat16"))
    told = replay.replay(run, CPU)
    assert (told.problems, told.difference) == ([], None) and "bfloat16" in str(told)
    WRONG(run.folder / "history.csv")
    assert any("the last epoch of history.csv" in line for line in problems_of(run))


def test_ties_that_float16_made_may_move_the_teachers_count_and_nothing_else_may(monkeypatch):
    run, fashion = Run(root("full") / "teacher/full-s0"), data.fashion_mnist()
    assert check.of_run(run, fashion) == []  # its float16 logits have one more right than its float32 ones
    metrics = run.metrics
    monkeypatch.setattr(Run, "metrics", metrics | {"val_correct": metrics["val_correct"] - 4})
    assert any("validation images are right, metrics.json says" in line for line in check.of_run(run, fashion))


def test_soft_targets_and_phases_that_no_kept_answer_tells_of_are_computed_again(walk_done):
    teacher, pruned = Store().require("teacher"), Store().require("compressed")
    targets = np.load(teacher.folder / "soft_targets.npy")
    targets[1] += np.float16(0.5)  # another view than the one that is validated
    np.save(teacher.folder / "soft_targets.npy", targets)
    field("sha256", lambda _: sha256(teacher.folder / "soft_targets.npy"), teacher.folder / "soft_targets.json")
    assert problems_of(teacher) == ["soft targets of view 1 are not what the weights say"]
    name = "recalibrated_without_sparse_learning"
    field(f"phases.{name}", lambda count: count + 3, pruned.folder / "metrics.json")
    assert [line.partition(" of ")[0] for line in problems_of(pruned)] == [f"phase {name}"]


@pytest.mark.parametrize(
    ("name", "column", "told"),
    [("trials.csv", 7, "the last epoch of history.csv"), ("history.csv", 2, "learning rates"),
     ("steps.csv", 2, "the loss of step 0 is recorded as")],
)  # fmt: skip
def test_a_trial_is_checked_and_replayed_like_a_run(walk_done, name, column, told):
    cell(2, column, one_more, root("smoke") / "tuning/smoke" / name)  # of the second trial
    (trial,) = replay.named(["tuning/smoke/1"], Store("smoke"))
    assert any(told in problem for problem in replay.replay(trial, CPU).problems)
    seen = any("tuning/smoke: trial 1: " in problem for problem in check.of_store(Store("smoke")))
    assert seen == (name != "steps.csv")


@pytest.mark.parametrize(
    ("told", "lowered"),
    [({"instruction_set": "AVX2"}, "avx2"), ({"instruction_set": "DEFAULT"}, "default"),
     ({"instruction_set": "AVX512"}, None), ({"device": "cuda"}, None)],
)  # fmt: skip
def test_processes_get_the_instruction_set_that_was_recorded(told, lowered, monkeypatch):
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    with environment.variables(environment.lowering({"device": "cpu", "lowered_by": {}} | told)):
        assert os.environ.get("ATEN_CPU_CAPABILITY") == lowered
    assert "ATEN_CPU_CAPABILITY" not in os.environ


def test_the_page_on_trust_tells_the_tolerances():
    page = (data.PROJECT / "docs/trust.md").read_text("utf-8")
    for kind, (first, growth, most) in replay.TOLERANCES.items():
        assert f"| {kind} | {first:g} | {growth:g} | {most:g} |" in page
