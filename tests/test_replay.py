"""A run that is not what its recipe makes is found, also where all sums were updated."""

import dataclasses
import json
import shutil

import pytest
import torch

from hw2 import networks, training
from hw2.errors import InputError
from hw2.experiments import recipes, replay, stages
from hw2.experiments import store as runs

CPU = torch.device("cpu")


def test_every_run_of_a_walk_is_as_recorded(store):
    found = replay.every()
    assert {run.folder.parent.name for run in found} >= {"teacher", "distilled", "plain", "compressed", *recipes.ARMS}
    for run in found:
        assert replay.replay(run, CPU) == [], run.name


def test_the_chain_is_the_delivered_networks(store):
    assert [run.name for run in replay.chain()] == ["teacher/smoke-s0", "distilled/smoke-s0", "compressed/smoke-s0"]


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


def untrained(run):
    networks.save(networks.ResNet14(run.network().widths), run.weights)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (rewrite("steps.csv", 1, 1, lambda loss: loss * 1.0002), "the loss of step 0 is recorded as"),
        (rewrite("history.csv", -1, 4, lambda share: share + 0.1), "the last epoch of history.csv"),
        (change("metrics.json", "val_correct", lambda count: count + 1), "validation images are right"),
        (change("metrics.json", "test_correct", lambda count: count + 1), "test images are right"),
        (untrained, "test images correct, but the ledger's reading says"),
    ],
)
@pytest.mark.parametrize("stage", ["distilled", "compressed"])
def test_what_was_changed_is_told(store, stage, change, told):
    run = getattr(stages, stage)()
    change(run)
    run = runs.Run(run.folder)
    try:
        problems = replay.replay(run, CPU)
    except InputError as error:
        problems = [str(error)]
    assert any(told in problem for problem in problems), problems


def test_another_seed_gives_other_losses(store):
    run = stages.distilled()
    recipe = recipes.distilled("smoke", 1, stages.teacher().digest, *stages.chosen())
    runs.write_json(run.folder / "recipe.json", {"digest": recipe.digest, **recipes.asdict(recipe)})
    losses = replay.first_losses(runs.Run(run.folder), CPU)
    recorded = runs.read_csv(run.folder / "steps.csv", ("step", "loss")).loss
    assert abs(losses[0] / recorded[0] - 1) > 10 * replay.FIRST


def test_a_recipe_whose_digest_is_not_its_own_is_an_error(store):
    run = stages.plain()
    change("recipe.json", "seed", lambda seed: seed + 1)(run)
    with pytest.raises(InputError, match="plain/smoke-s0: its digest is not that of its numbers"):
        replay.replay(runs.Run(run.folder), CPU)


def test_a_chain_with_a_missing_link_is_an_error(store):
    stages.delivered()
    shutil.rmtree(stages.distilled().folder)
    with pytest.raises(InputError, match="no run with the recipe"):
        replay.chain()


def test_the_delivered_chain_is_as_recorded():
    for run in replay.chain():
        assert replay.replay(run, CPU) == [], run.name


@pytest.mark.parametrize(("stem", "last"), [("imagenet", False), ("stride1", True)])
def test_a_teacher_is_prepared_in_its_stems_layout_in_training_and_replay_alike(store, monkeypatch, stem, last):
    layouts, fit = [], training.fit
    monkeypatch.setattr(training, "fit", lambda *w, **m: layouts.append(m["channels_last"]) or fit(*w, **m))
    numbers = recipes.NUMBERS["smoke"]
    monkeypatch.setitem(recipes.NUMBERS, "smoke", numbers | {"teacher": numbers["teacher"] | {"stem": stem}})
    shutil.rmtree(stages.teacher(replace=True).folder)
    run = stages.teacher()
    assert replay.replay(run, CPU) == []
    assert set(layouts) == {last}


def test_first_steps_in_bfloat16_are_left_out_where_the_processor_lacks_it(store, monkeypatch):
    run = stages.plain()
    monkeypatch.setattr(runs, "lacks_bfloat16", lambda device: True)
    assert replay.unchecked(run, CPU) == ""
    numbers = recipes.NUMBERS["smoke"]
    slow = dataclasses.replace(numbers["student"]["fit"], precision="bfloat16")
    monkeypatch.setitem(recipes.NUMBERS, "smoke", numbers | {"student": {"fit": slow}})
    run = stages.plain(seed=7)
    assert replay.unchecked(run, CPU) == "first steps not checked: bfloat16 needs hardware that this processor lacks"
    monkeypatch.setattr(replay, "first_losses", lambda *_: pytest.fail("trained in emulated bfloat16"))
    assert replay.replay(run, CPU) == []
    rewrite("history.csv", -1, 4, lambda share: share + 0.1)(run)
    assert any("the last epoch of history.csv" in line for line in replay.replay(runs.Run(run.folder), CPU))


def test_ties_that_float16_made_may_move_the_teachers_count_and_nothing_else_may(monkeypatch):
    run = runs.Run(runs.root() / "teacher/full-s0")
    assert replay._evaluate(run) == []  # its float16 logits have one more right than its float32 ones
    metrics = run.metrics
    monkeypatch.setattr(runs.Run, "metrics", metrics | {"val_correct": metrics["val_correct"] - 4})
    assert any("validation images are right, metrics.json says" in line for line in replay._evaluate(run))
