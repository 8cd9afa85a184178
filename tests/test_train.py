"""`obtain` trains what is missing and loads what is there; the walk does so for all; one command
reads the test set.
"""

import os
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import checks
import numpy as np
import pytest
import torch
from helpers import contents, edit, tiny_network

from conftest import SHRUNKEN
from hw2 import data, networks, training, views
from hw2.data import PROJECT
from hw2.errors import Ended, InputError, ending_at_an_epoch
from hw2.experiments import catalogue, environment, ledger, plan, profiles, store, train, walk
from hw2.experiments import obtain as module
from hw2.experiments.obtain import obtain
from hw2.experiments.run import cache, root
from hw2.experiments.store import Store
from hw2.files import sha256
from hw2.report.nb04_summary import result_rows
from hw2.training import Fit

CPU = torch.device("cpu")


def runs():
    return [Store().require(*task) for task in plan.tasks("smoke") if task != plan.SEARCH]


def test_the_second_walk_and_delivery_load_everything_and_change_nothing(walk_done, no_training):
    before = contents(root("smoke"))
    walk.train_all("smoke", jobs=1)
    assert ledger.deliver("smoke") == Store("smoke").delivered == Store().require("compressed")
    assert [obtain(run.recipe.stage, run.recipe.seed) for run in runs()] == runs()
    assert contents(root("smoke")) == before
    assert {run.recipe.stage for run in runs()} == set(catalogue.names("smoke"))
    assert [Store().require(name).parameters for name in ("plain", "scratch")] == [175_258, 85_956]


def test_only_delivery_reads_the_test_set_and_once_for_each_recipe(walk_done, no_training):
    table = ledger.ledger("smoke")
    chain = catalogue.names("smoke", "chain")
    assert table.recipe.tolist() == [Store().require(name).recipe.digest for name in chain]
    for run in runs():
        assert (run.test_accuracy is not None) == (run.recipe.stage in chain)
    shutil.rmtree(Store().require("scratch").folder)
    with pytest.raises(InputError, match="scratch/smoke-s0 is not there; train it by"):
        ledger.deliver("smoke")


def test_delivery_counts_what_the_mean_of_image_and_mirror_image_gets_right(walk_done, few):
    run = Store().require("compressed")
    network = run.network().double()

    def right(images, labels):
        both = [network(views.normalise(views.cut(images, one, 0)).double()) for one in (0, 1)]
        return int((torch.stack(both).mean(0).argmax(1) == labels).sum())

    validation = right(*run.recipe.task(few).held_out)
    test = right(few.test_images, few.test_labels)
    assert run.metrics["mirrored"] == {"val_correct": validation, "test_correct": test}
    assert "mirrored" not in Store().require("scratch").metrics
    (row,) = [row for row in result_rows(Store()) if "mirror" in row["network"]]
    assert (row["validation"], row["test"]) == ([validation / 32], [test / 100])


def test_soft_targets_cover_training_and_validation_rows_and_no_others(walk_done, few, no_training):
    run = Store().require("teacher")
    run.weights.unlink()  # which are not committed
    with pytest.raises(InputError, match=r"teacher/smoke-s0: its weights .* `hw2 train teacher`"):
        run.network()
    targets = run.soft_targets
    rows = torch.cat([few.split[0][:64], few.split[1][:32]])
    assert targets.shape == (2, 576, 10) and targets[:, rows].isfinite().all()
    assert int(targets.isfinite().all(2).sum()) == 2 * 96
    path = run.folder / "soft_targets.npy"
    np.save(path, 3 * np.load(path))
    with pytest.raises(InputError, match=r"soft_targets\.npy: not what soft_targets\.json"):
        _ = Store().require("teacher").soft_targets


def test_arms_differ_in_what_they_learn(walk_done, no_training):
    arms = catalogue.names("smoke", "arms")
    losses = {tuple(Store().require(name, 2).history.train_loss) for name in arms}
    assert len(losses) == len(arms)


def test_a_student_learns_from_the_mean_of_another_students_answers(walk_done, few, monkeypatch):
    recipe = Store().require("better_teacher").recipe
    teacher = Store().require("distilled")
    assert recipe.teacher == teacher.recipe.digest and recipe.targets == "mean"
    work = train.Work("smoke", CPU, few)
    targets = train.soft_targets(recipe, work)
    rows = torch.cat(few.split).sort().values
    for number in range(2):
        images = views.cut(few.train_images, number, recipe.pad)[rows]
        expected = training.logits_of(teacher.network(), images)
        assert torch.allclose(targets[number, rows].float(), expected, rtol=1e-2, atol=1e-2)
    # They are kept for weights and not for a recipe: a teacher that is trained again answers anew.
    monkeypatch.setattr(train.distillation, "build_cache", lambda *arguments: arguments[-1])
    monkeypatch.setattr(torch, "from_numpy", lambda folder: folder)
    before = train.soft_targets(recipe, work)
    networks.save(tiny_network(), teacher.weights)
    assert train.soft_targets(recipe, work) != before


def test_targets_of_the_same_view_are_of_a_teacher_with_the_same_pad(walk_done, few, no_training):
    moved = replace(Store().recipe("same_view"), pad=1)
    with pytest.raises(InputError, match=r"same_view: its pad is not that of teacher/smoke-s0"):
        train.soft_targets(moved, train.Work("smoke", CPU, few))


def same_files(before, after):
    """Whether `contents` are the same, but for what tells of machine, time and delivery."""
    changed = {path.name for path in before.keys() | after if before.get(path) != after.get(path)}
    return changed <= {"environment.json", "metrics.json", ledger.ANSWERS}


def interrupted(monkeypatch, recipe, code=None, **told):
    """Training, of other `code` perhaps, is interrupted after its first epoch of fine-tuning.

    `told` is recorded of the machine. Gives the checkpoints.
    """
    fit = training.fit
    recorded = environment.environment
    shutil.rmtree(Store().require("compressed").folder)

    def stop(epoch, accuracy):
        raise KeyboardInterrupt

    def stopped(*arguments, options, **more):
        options = replace(options, after_epoch=stop) if "fine-tuning" in options.label else options
        return fit(*arguments, options=options, **more)

    with monkeypatch.context() as one, environment.threads(1), pytest.raises(KeyboardInterrupt):
        one.setattr(training, "fit", stopped)
        one.setattr(environment, "environment", lambda device: recorded(device) | told)
        if code:
            one.setattr(environment, "code_at_start", lambda: code)
        obtain("compressed")
    return sorted(path.name for path in cache(recipe).glob("*/*.pt"))


def test_an_interrupted_run_goes_on_to_the_same_bits_and_records_where_it_began(
    walk_done, monkeypatch
):
    run = Store().require("compressed")
    before, metrics = contents(run.folder), run.metrics
    left = interrupted(monkeypatch, run.recipe, cores=77)
    assert left == ["fine-tuning.pt", "sparse-learning.pt"] and not run.folder.exists()
    with environment.threads(1):  # as the walk trains: sums are of another order with more
        again = obtain("compressed")
    assert same_files(before, contents(again.folder))
    # Sparse learning and the first epoch were told as trained by another machine than the rest.
    (later,) = again.environment["resumed"]
    assert again.environment["cores"] == 77 != later["environment"]["cores"]
    assert later["epochs_done"] == 2
    for name in ("val_correct", "val_total", "parameters", "phases"):
        assert again.metrics[name] == metrics[name]


def test_other_code_takes_no_checkpoint_and_a_finished_run_leaves_none(walk_done, monkeypatch):
    recipe = Store().require("compressed").recipe
    assert len(interrupted(monkeypatch, recipe, code="0" * 64)) == 2
    assert "resumed" not in obtain("compressed").environment
    assert not any(cache(recipe).glob("*/"))


def test_what_is_missing_is_told_before_and_trained_in_order(walk_done, monkeypatch, capsys):
    shutil.rmtree(root("smoke") / "tuning")
    trained = []
    monkeypatch.setattr(module.search, "obtain_trials", lambda *_: trained.append(plan.SEARCH))
    monkeypatch.setattr(module, "_train", lambda task, *_: trained.append(task))
    obtain("compressed")  # as far as can be known without the search
    finalists = [(name, seed) for seed in (0, 1) for name in ("finalist-1", "finalist-2")]
    assert trained == [plan.SEARCH, *finalists, ("distilled", 0), ("compressed", 0)]
    assert "trains compressed, seed 0, and 6 before it; " in capsys.readouterr().err


def test_a_finished_run_is_loaded_from_a_checkout_that_cannot_be_written(walk_done, no_training):
    shutil.rmtree(walk_done / "cache")
    (walk_done / "cache").write_text("no folder can be made here")
    assert obtain("plain") == Store().require("plain")


def test_another_recipes_run_is_replaced_only_when_asked(walk_done, monkeypatch):
    before = contents(root("smoke"))
    longer = {"fit": Fit(epochs=2, lr=0.05, batch=64)}
    monkeypatch.setitem(profiles.PROFILES, "smoke", SHRUNKEN | {"student": longer})
    told = "plain/smoke-s0 holds another recipe's run: its fit.epochs is 1, 2 is asked for"
    for call in (obtain, Store().require):
        with pytest.raises(InputError, match=told):
            call("plain")
    assert contents(root("smoke")) == before
    assert obtain("plain", replace=True) == Store().require("plain")


def test_own_settings_leave_the_committed_runs_alone(walk_done):
    before, usual = contents(root("smoke")), Store().require("distilled")
    run = obtain("distilled", temperature=3.0)
    assert run.recipe.temperature == 3
    assert run.folder.parent == walk_done / "build/smoke/own/distilled"
    assert obtain("distilled", temperature=3.0) == run
    assert obtain("distilled", temperature=usual.recipe.temperature) == usual
    assert contents(root("smoke")) == before


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("distilled", {"temperature": 0.0}, "temperature 0.0: expected"),
        ("compressed", {"ratio": 0.95}, "ratio 0.95: leaves no channel"),
        ("distilled", {"colour": 1}, "distilled takes no colour"),
        ("plain", {"device": "gpu"}, "device 'gpu': expected"),
        ("plain", {"device": "cuda"}, "device 'cuda': torch finds none"),
        ("plain", {"seed": -1}, "seed -1: expected"),
        ("plain", {"profile": "huge"}, "profile 'huge': expected"),
        ("unplain", {}, "experiment 'unplain': expected"),
        ("teacher", {"weights": PROJECT / "README.md"}, r"README\.md: not loaded"),
    ],
)
def test_wrong_values_are_told_before_anything_is_trained(
    project, no_training, monkeypatch, name, change, told
):
    monkeypatch.setenv("HW2_PROFILE", "smoke")  # in an empty project
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=told):
        obtain(name, **change)


def test_the_courses_teacher_takes_a_runs_place_and_all_is_trained_after_it(walk_done, monkeypatch):
    path = walk_done / "resnet-50.pth"
    given = tiny_network(7)
    torch.save({"model_state_dict": given.state_dict()}, path)
    with pytest.raises(InputError, match=r"its weights is None, .* is asked for"):
        obtain("teacher", weights=path)
    run = obtain("teacher", weights=path, replace=True)
    assert run.recipe.weights == sha256(path) and run.network().fc.weight.equal(given.fc.weight)
    assert len(run.history) == len(run.steps) == 0
    path.unlink()
    assert Store().require("teacher") == run == obtain("teacher")
    assert "hours" in plan.estimate(plan.tasks("smoke"), Store())
    assert walk.train_all("smoke", jobs=1, replace=True) == {}
    assert ledger.deliver("smoke").recipe.teacher == run.digest
    assert [line for run in runs() for line in checks.of_run(run, data.fashion_mnist())] == []


def test_the_delivered_network_is_of_the_profile_and_has_its_weights(walk_done, no_training):
    weights = Store().delivered.weights
    networks.save(tiny_network(), weights)
    with pytest.raises(InputError, match="not the delivered weights"):
        _ = Store().delivered
    weights.unlink()
    with pytest.raises(InputError, match=r"compressed/smoke-s0.*no model\.safetensors"):
        _ = Store().delivered
    edit(root("smoke") / "delivered.json", "run", lambda _: "compressed/full-s0")
    with pytest.raises(InputError, match="profile smoke: the delivered network is compressed/full"):
        _ = Store().delivered


def test_the_finalist_that_is_better_when_trained_longer_is_chosen(walk_done, no_training):
    found = store.finalists(Store("smoke").trials)
    for counts, chosen in (((10, 10), 0), ((10, 11), 1), ((11, 10), 0)):
        for number, count in enumerate(counts, start=1):
            for run in Store().runs(f"finalist-{number}"):
                edit(run.folder / "metrics.json", "val_correct", lambda _, count=count: count)
        assert Store("smoke").setting("chosen") == found[chosen]
    assert Store("smoke").recipe("distilled", 0).temperature == found[0][0]
    shutil.rmtree(Store().require("finalist-2", 1).folder)
    with pytest.raises(InputError, match="finalist-2/smoke-s1 is not there"):
        Store("smoke").setting("chosen")


def test_of_two_processes_that_want_a_run_one_waits_and_finds_it(walk_done, monkeypatch, capsys):
    fits = []
    fit = training.fit
    monkeypatch.setattr(training, "fit", lambda *a, **more: fits.append(1) or fit(*a, **more))
    recipe = Store("smoke").recipe("plain", 5)
    with ThreadPoolExecutor(1) as pool:
        with store.lock(recipe):
            other = pool.submit(obtain, "plain", 5)
            while "waiting for it" not in capsys.readouterr().err:
                assert not other.done()
                time.sleep(0.01)
        assert other.result(timeout=60).recipe == recipe
    assert obtain("plain", 5).recipe == recipe and fits == [1]


WAITING = {
    "one run": partial(obtain, "plain"),
    "the walk": partial(walk.walk, [("plain", 0)], "smoke", "cpu", False),
}


@pytest.mark.parametrize("wait", WAITING.values(), ids=WAITING)
def test_a_process_that_waits_for_a_run_ends_by_sigterm(walk_done, no_training, wait):
    held = store.lock(Store("smoke").recipe("plain"))
    over = threading.Event()
    shutil.rmtree(root("smoke") / "plain")
    with ThreadPoolExecutor(1) as other:  # a thread has a lock of its own, as a process does
        other.submit(held.__enter__).result()
        other.submit(over.wait, 30)
        other.submit(held.__exit__, None, None, None)
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with pytest.raises(Ended), ending_at_an_epoch():
            wait()
        over.set()


def test_as_many_processes_walk_as_processors_may_be_used(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {5}, raising=False)
    assert environment.cores() == 1
    alone = []
    monkeypatch.setattr(walk, "walk", lambda *arguments: alone.append(arguments) or {})
    assert walk.train_all("smoke") == {} and len(alone) == 1


def test_two_processes_share_the_walk(walk_done, few):
    """Each trains what the other does not: seen from this process, whose numbers are the tests'."""
    before = contents(root("smoke"))
    for name in ("plain", "kl_mean", "compressed"):
        shutil.rmtree(root("smoke") / name)
    with ThreadPoolExecutor(1) as pool:
        with store.lock(Store("smoke").recipe("plain", 0)):
            other = pool.submit(walk.walk, plan.tasks("smoke"), "smoke", "cpu", False)
            while not (root("smoke") / "compressed/smoke-s0").is_dir():
                assert not other.done()
                time.sleep(0.05)
        other.result(timeout=60)
    assert same_files(before, contents(root("smoke")))


def test_a_run_that_fails_ends_no_other_and_is_named(walk_done, monkeypatch, capfd):
    """A diverging ResNet-14 alone, and a defect in an arm: whatever needs neither is trained."""
    for name in ("plain", "labels", "kl_mean", "weak_reg"):
        shutil.rmtree(root("smoke") / name)
    fit = training.fit
    tried = []

    def failing(*arguments, options, **more):
        tried.append(options.label)
        if "plain" in options.label:
            raise InputError("plain: the loss is\nnot finite")
        if "labels" in options.label:
            raise ZeroDivisionError
        return fit(*arguments, options=options, **more)

    monkeypatch.setattr(training, "fit", failing)
    arguments = plan.tasks("smoke"), "smoke", "cpu", False
    with ThreadPoolExecutor(2) as pool:
        walks = [pool.submit(walk.walk, *arguments) for _ in range(2)]
        failures = [each.result(timeout=60) for each in walks]
    diverged = "plain: the loss is not finite"
    assert failures == [{("plain", 0): diverged, ("labels", 2): "ZeroDivisionError"}] * 2
    for name in ("plain", "labels"):
        assert sum(name in label for label in tried) == 2  # once in each process
    assert Store().require("kl_mean", 2) and Store().require("weak_reg", 2)
    told = capfd.readouterr().err
    assert f"hw2: plain, seed 0 failed: {diverged}\n" in told and "ZeroDivisionError\n" in told


def test_processes_tell_what_failed(monkeypatch):
    monkeypatch.setattr(walk, "_worker", _failing_worker)
    assert walk.train_all("smoke", jobs=2) == {("plain", 0): "not finite"}
    monkeypatch.setattr(walk, "_worker", _killed_worker)
    with pytest.raises(InputError, match="a process was killed"):
        walk.train_all("smoke", jobs=2)


def _failing_worker(*arguments):
    return {("plain", 0): "not finite"}


def _killed_worker(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)
