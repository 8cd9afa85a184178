"""A run that is not what its recipe makes is found, also where all sums were made anew."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from conftest import SHRUNKEN
from hw2 import data, networks, training
from hw2.errors import InputError
from hw2.experiments import catalogue, check, environment, ledger, profiles, recipes, replay, store, train
from hw2.experiments.run import Run, root
from hw2.files import read_csv, sha256, write_json

CPU = torch.device("cpu")


def test_every_run_of_a_walk_is_as_recorded(walk_done):
    found = replay.every("smoke")
    assert {run.recipe.stage for run in found} == {*catalogue.names("smoke"), "tuning"}
    assert check.of_store("smoke") == []
    for run in found:
        told = replay.replay(run, CPU)
        assert (told.problems, told.difference, told.alike) == ([], 0, True), told
    assert [run.name for run in replay.chain("smoke")] == [
        "teacher/smoke-s0", "distilled/smoke-s0", "compressed/smoke-s0"
    ]  # fmt: skip
    with pytest.raises(InputError, match="run 'nothing/smoke-s0': expected one under runs/"):
        replay.named(["plain/smoke-s0", "nothing/smoke-s0"], "smoke")
    shutil.rmtree(store.require("distilled").folder)
    with pytest.raises(InputError, match="no run with the recipe"):
        replay.chain("smoke")


def change(name, field, value):
    def changed(run):
        content = json.loads((run.folder / name).read_text())
        content[field] = value(content[field])
        (run.folder / name).write_text(json.dumps(content))

    return changed


def rewrite(name, line, column, value):
    def changed(run):
        lines = [text.split(",") for text in (run.folder / name).read_text().splitlines()]
        lines[line][column] = repr(value(float(lines[line][column])))
        (run.folder / name).write_text("\n".join(map(",".join, lines)) + "\n")

    return changed


def problems_of(run):
    try:
        return replay.replay(Run(run.folder), CPU).problems
    except InputError as error:
        return [str(error)]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (rewrite("steps.csv", 1, 1, lambda loss: loss * 1.0002), "the loss of step 0 is recorded as"),
        (rewrite("history.csv", -1, 4, lambda share: share + 0.1), "the last epoch of history.csv"),
        (change("metrics.json", "val_correct", lambda count: count + 1), "validation images are right"),
        (change("metrics.json", "test_correct", lambda count: count + 1), "test images are right"),
        (change("recipe.json", "seed", lambda seed: seed + 1), "its digest is not that of its numbers"),
    ],
)
@pytest.mark.parametrize("name", ["distilled", "compressed"])
def test_what_was_changed_is_told(walk_done, name, change, told):
    run = store.require(name)
    change(run)
    assert any(told in problem for problem in problems_of(run)), problems_of(run)


def test_a_teacher_whose_weights_are_in_the_cache_needs_no_kept_answers(walk_done):
    """As the teacher of cpu, which was read before answers were kept, on the machine that has its weights."""
    run = store.require("teacher")
    assert run.weights.is_file() and run.test_accuracy is not None
    (run.folder / ledger.ANSWERS).unlink()
    assert replay.replay(run, CPU).problems == []


def test_other_weights_are_told(walk_done):
    run = store.require("vanilla", 2)
    networks.save(networks.ResNet14(), run.weights)
    assert any("the last loss of history.csv is" in problem for problem in problems_of(run))


def test_another_seed_gives_other_losses(walk_done, few):
    run = store.require("distilled")
    recorded = read_csv(run.folder / "steps.csv", ("step", "loss")).loss
    other = catalogue.recipe("distilled", "smoke", 1, store.Settings("smoke"))
    write_json(run.folder / "recipe.json", recipes.written(other))
    losses = replay.first_losses(Run(run.folder), CPU, few, 20)
    assert replay.compared(recorded.tolist(), losses, "student, float32")[0]


def test_the_delivered_chain_is_as_recorded():
    """By the way that `hw2 replay` takes: in processes of the recorded instruction set."""
    for told in replay.all_of(replay.chain(store.default_profile()), CPU, steps=5):
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
    assert replay.replay(store.require("plain"), CPU).difference == 0
    slow = dataclasses.replace(SHRUNKEN["student"]["fit"], precision="bfloat16")
    monkeypatch.setitem(profiles.PROFILES, "smoke", SHRUNKEN | {"student": {"fit": slow}})
    run = train.obtain("plain", 7)
    monkeypatch.setattr(replay, "first_losses", lambda *_: pytest.fail("trained in emulated bfloat16"))
    told = replay.replay(run, CPU)
    assert (told.problems, told.difference) == ([], None) and "bfloat16" in str(told)
    rewrite("history.csv", -1, 4, lambda share: share + 0.1)(run)
    assert any("the last epoch of history.csv" in line for line in problems_of(run))


def test_ties_that_float16_made_may_move_the_teachers_count_and_nothing_else_may(monkeypatch):
    run, fashion = Run(root("full") / "teacher/full-s0"), data.fashion_mnist()
    assert check.of_run(run, fashion) == []  # its float16 logits have one more right than its float32 ones
    metrics = run.metrics
    monkeypatch.setattr(Run, "metrics", metrics | {"val_correct": metrics["val_correct"] - 4})
    assert any("validation images are right, metrics.json says" in line for line in check.of_run(run, fashion))


@pytest.mark.parametrize("run", [run for run in store.every("full") if run.recipe.stage == "teacher"], ids=str)
def test_a_teachers_record_is_its_weights_answer(run):
    """Weights are too large to commit: skipped where this machine has none."""
    if not run.weights.is_file():
        pytest.skip(f"{run.name}: its weights (94 MB) are not in the cache")
    assert list(replay._evaluate(run, data.fashion_mnist())) == []


def test_soft_targets_and_phases_that_no_kept_answer_tells_of_are_computed_again(walk_done):
    teacher, pruned = store.require("teacher"), store.require("compressed")
    targets = np.load(teacher.folder / "soft_targets.npy")
    targets[1] += np.float16(0.5)  # another view than the one that is validated
    np.save(teacher.folder / "soft_targets.npy", targets)
    change("soft_targets.json", "sha256", lambda _: sha256(teacher.folder / "soft_targets.npy"))(teacher)
    assert problems_of(teacher) == ["soft targets of view 1 are not what the weights say"]
    name = "recalibrated_without_sparse_learning"
    change("metrics.json", "phases", lambda phases: phases | {name: phases[name] + 3})(pruned)
    assert [line.partition(" of ")[0] for line in problems_of(pruned)] == [f"phase {name}"]


@pytest.mark.parametrize(
    ("name", "line", "column", "told"),
    [("trials.csv", 2, 7, "the last epoch of history.csv"), ("history.csv", 2, 2, "learning rates"),
     ("steps.csv", 2, 2, "the loss of step 0 is recorded as")],
)  # fmt: skip
def test_a_trial_is_checked_and_replayed_like_a_run(walk_done, name, line, column, told):
    folder = root("smoke") / "tuning/smoke"
    lines = [text.split(",") for text in (folder / name).read_text().splitlines()]
    lines[line][column] = str(json.loads(lines[line][column]) + 1)
    (folder / name).write_text("\n".join(map(",".join, lines)) + "\n")
    number = int(lines[line][0])
    trial = next(one for one in replay.every("smoke") if one.name == f"tuning/smoke/{number}")
    assert any(told in problem for problem in replay.replay(trial, CPU).problems)
    seen = any(f"tuning/smoke: trial {number}: " in problem for problem in check.of_store("smoke"))
    assert seen == (name != "steps.csv")


@pytest.mark.parametrize(
    ("told", "lowered"),
    [({"instruction_set": "AVX2"}, "avx2"), ({"instruction_set": "DEFAULT"}, "default"), ({}, "avx2"),
     ({"instruction_set": "AVX512"}, None), ({"device": "cuda"}, None)],
)  # fmt: skip
def test_processes_are_started_with_the_instruction_set_that_was_recorded(told, lowered, monkeypatch):
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    with environment.variables(environment.lowering({"device": "cpu"} | told)):
        words = [sys.executable, "-c", "import os; print(os.environ.get('ATEN_CPU_CAPABILITY'))"]
        assert subprocess.run(words, capture_output=True, text=True).stdout == f"{lowered}\n"
    assert "ATEN_CPU_CAPABILITY" not in os.environ


def test_the_page_on_trust_tells_the_tolerances():
    page = (data.PROJECT / "docs/trust.md").read_text("utf-8")
    for kind, (first, growth, most) in replay.TOLERANCES.items():
        assert f"| {kind} | {first:g} | {growth:g} | {most:g} |" in page
