"""`obtain` trains what is missing and loads what is there; the walk does so for all; one command reads the test set."""

import json
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from helpers import contents, tiny_network

from conftest import SHRUNKEN
from hw2 import networks, training
from hw2.assignment import NARROW
from hw2.errors import Ended, InputError
from hw2.experiments import catalogue, environment, ledger, plan, profiles, store, train, walk
from hw2.experiments.run import HISTORY, cache, root
from hw2.files import read_csv, read_json, sha256, write_json
from hw2.training import Fit

CHAIN = ("teacher", "distilled", "plain", "compressed", "scratch", "unpruned")


def runs():
    return [store.require(*task) for task in plan.tasks("smoke") if task != plan.SEARCH]


def test_the_second_walk_and_delivery_load_everything_and_change_nothing(walk_done, no_training):
    before = contents(root("smoke"))
    walk.train_all("smoke", jobs=1)
    assert walk.deliver("smoke") == store.delivered("smoke") == store.require("compressed")
    assert [train.obtain(run.recipe.stage, run.recipe.seed).recipe for run in runs()] == [r.recipe for r in runs()]
    assert contents(root("smoke")) == before
    assert {run.recipe.stage for run in runs()} == set(catalogue.names("smoke"))


def test_only_delivery_reads_the_test_set_and_once_for_each_recipe(walk_done, few, no_training, monkeypatch):
    table = ledger.ledger("smoke")
    assert table.recipe.tolist() == [store.require(name).recipe.digest for name in catalogue.names("smoke", "chain")]
    for run in runs():
        assert (run.test_accuracy is not None) == (run.recipe.stage in CHAIN)
    for name in CHAIN:
        run = store.require(name)
        correct = int((training.predict(run.network(), few.test_images) == few.test_labels).sum())
        assert (run.metrics["test_correct"], run.metrics["test_total"]) == (correct, 100)
    shutil.rmtree(store.require("scratch").folder)
    with pytest.raises(InputError, match="scratch/smoke-s0 is not there; train it by `hw2 train scratch"):
        walk.deliver("smoke")


def test_the_runs_hang_together(walk_done, no_training):
    teacher, distilled, plain, compressed, scratch, unpruned = map(store.require, CHAIN)
    assert distilled.recipe.teacher == compressed.recipe.teacher == teacher.recipe.digest
    assert compressed.recipe.parent == distilled.recipe.digest
    chosen = store.Settings("smoke").setting("chosen")
    for run in (distilled, compressed, scratch, unpruned):
        assert (run.recipe.temperature, run.recipe.alpha) == chosen
    assert [run.network().widths for run in (distilled, compressed, scratch)] == [(16, 16, 32, 64), NARROW, NARROW]
    assert [run.metrics["parameters"] for run in (plain, compressed)] == [175258, 85956]
    assert compressed.history["epoch"].tolist() == [1, 2, 3]  # of sparse learning and fine-tuning
    assert len(scratch.history) == len(unpruned.history) == len(distilled.history) + 3
    for seed in catalogue.seeds("pruned", "smoke"):
        assert store.require("pruned", seed).recipe.parent == store.require("vanilla", seed).recipe.digest


def test_metrics_and_what_is_kept_are_those_of_the_weights(walk_done, few, no_training):
    images, labels = few.train_images[few.split[1][:32]], few.train_labels[few.split[1][:32]]
    for run in runs()[1:]:
        classes = training.predict(run.network(), images)
        correct = int((classes == labels).sum())
        assert (run.metrics["val_correct"], run.metrics["val_total"]) == (correct, 32)
        assert run.history.val_accuracy.iloc[-1] == correct / 32
        keep = catalogue.row(run.recipe.stage).keep
        files = {"weights": "model.safetensors", "logits": "validation_logits.npy", "classes": "validation_classes.npy",
                 "group_norms": "group_norms.json"}  # fmt: skip
        assert {one for one in files if (run.folder / files[one]).is_file()} == set(keep), run.name
        if "logits" in keep:
            logits = training.logits_of(run.network(), images)
            assert torch.allclose(logits.softmax(1), run.validation_logits.float().softmax(1), atol=1e-3)
        if "classes" in keep:
            assert run.validation_classes.tolist() == classes.tolist()


def test_every_phase_of_compression_is_judged(walk_done, no_training):
    run, direct = store.require("compressed"), store.require("pruned_directly", 2)
    phases = ("distilled", "pruned_without_sparse_learning", "recalibrated_without_sparse_learning", "sparse", "pruned",
              "recalibrated", "fine_tuned")  # fmt: skip
    assert tuple(run.metrics["phases"]) == phases
    assert run.at_phase("fine_tuned") == run.val_accuracy and run.at_phase("nonsense") is None
    assert run.at_phase("distilled") == store.require("distilled").val_accuracy
    assert tuple(direct.metrics["phases"]) == ("distilled", "pruned", "recalibrated", "fine_tuned")


def test_soft_targets_cover_training_and_validation_rows_and_no_others(walk_done, few, no_training):
    run = store.require("teacher")
    targets = run.soft_targets
    rows = torch.cat([few.split[0][:64], few.split[1][:32]])
    assert targets.shape == (2, 576, 10) and targets[:, rows].isfinite().all()
    assert int(targets.isfinite().all(2).sum()) == 2 * 96
    note = read_json(run.folder / "soft_targets.json")
    assert (note["teacher"], note["views"]) == (run.recipe.digest, 2)
    assert note["sha256"] == sha256(run.folder / "soft_targets.npy")
    write_json(run.folder / "soft_targets.json", note | {"views": 3})
    with pytest.raises(InputError, match=r"soft_targets\.npy: not what soft_targets\.json"):
        _ = store.require("teacher").soft_targets


def test_arms_differ_in_what_they_learn(walk_done, no_training):
    losses = {name: tuple(store.require(name, 2).history.train_loss) for name in catalogue.names("smoke", "arms")}
    # The first epoch sees the image as it is, and one epoch is all there is here.
    assert losses.pop("same_view") == losses["fixed_teacher"]
    assert len(set(losses.values())) == len(losses)


def untested(folder):
    """`contents`, less the answers to the test set, which only delivery brings."""
    return {path: content for path, content in contents(folder).items() if path.name != ledger.ANSWERS}


@pytest.fixture
def one_thread():
    """As the walk trains: sums are of another order with more."""
    with environment.threads(1):
        yield


def interrupted(monkeypatch, label, **told):
    """Training that is interrupted after its first epoch of what has `label`; `told` is recorded of the machine."""
    fit, recorded = training.fit, environment.environment

    def stopped(*arguments, options, **more):
        def stop(epoch, accuracy):
            raise KeyboardInterrupt

        return fit(
            *arguments, options=replace(options, after_epoch=stop) if label in options.label else options, **more
        )

    with monkeypatch.context() as one:
        one.setattr(training, "fit", stopped)
        one.setattr(environment, "environment", lambda device: recorded(device) | told)
        with pytest.raises(KeyboardInterrupt):
            train.obtain("compressed")
    return sorted(cache(catalogue.recipe("compressed", "smoke", 0, store.Settings("smoke"))).glob("*.pt"))


def test_an_interrupted_run_goes_on_to_the_same_bits_and_records_where_it_began(walk_done, one_thread, monkeypatch):
    run = store.require("compressed")
    before = untested(run.folder)
    shutil.rmtree(run.folder)
    assert [path.name for path in interrupted(monkeypatch, "fine-tuning", cores=77)] == [
        "fine-tuning.pt", "sparse-learning.pt"
    ]  # fmt: skip
    assert not run.folder.exists()
    again = train.obtain("compressed")
    after = untested(again.folder)
    different = {path.name for path in before if before[path] != after[path]}
    assert different <= {"environment.json", "metrics.json"} and before.keys() == after.keys()
    assert again.environment["cores"] == 77
    times = {"wall_s", "processor_s", "peak_memory_bytes", "test_correct", "test_total"}
    assert {key for key, value in run.metrics.items() if again.metrics[key] != value} <= times
    assert again.metrics["wall_s"] > 0 and again.metrics["processor_s"] > 0
    left = {path.name for path in (walk_done / "cache").rglob("*") if path.is_file()}
    assert {name.partition(".")[0] for name in left} <= {"lock", "model", "study", "smoke"}


def test_checkpoints_of_other_code_and_damaged_ones_are_told(walk_done, monkeypatch):
    monkeypatch.setitem(profiles.PROFILES, "full", SHRUNKEN)  # smoke begins afresh without a question
    recipe = store.require("compressed").recipe
    shutil.rmtree(store.require("compressed").folder)
    (path, _) = interrupted(monkeypatch, "fine-tuning", code="another", commit="abcdef")
    for damage, told in ((False, "from commit abcdef"), (True, "damaged, or older")):
        if damage:
            path.write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(InputError, match=rf"fine-tuning\.pt: this checkpoint is {told}"):
            train._check_checkpoints(recipe, replace=False)
    train._check_checkpoints(recipe, replace=True)
    assert not path.exists()


def test_what_is_missing_is_counted_and_its_time_told_before(walk_done, monkeypatch, capsys):
    for name in ("compressed", "finalist-1"):
        shutil.rmtree(store.require(name).folder)
    shutil.rmtree(root("smoke") / "tuning")
    finalists = [(name, seed) for name in ("finalist-1", "finalist-2") for seed in catalogue.seeds(name, "smoke")]
    todo = [plan.SEARCH, *finalists, ("distilled", 0)]  # as far as can be known while there is no search
    assert plan.missing("compressed", 0, "smoke") == todo
    told = []
    monkeypatch.setattr(plan, "announce", lambda todo, *more: told.append(todo))
    train.obtain("compressed")
    assert told == [[*todo, ("compressed", 0)]]
    bars = capsys.readouterr().err
    assert "runs for compressed, seed 0:" in bars and "compressed, seed 0, fine-tuning:" in bars
    assert "trials of the search:" in bars
    assert plan.missing("compressed", 0, "smoke") == []


def test_hours_are_told_and_minutes_are_not(capsys):
    unknown = catalogue.Unknown()
    recipe = catalogue.recipe("plain", "full", 3, unknown)
    plan.announce([("teacher", 0), plan.SEARCH, ("plain", 3)], "full", recipe)
    words, hours = re.fullmatch(
        r"hw2: trains (.*): about ([\d.]+) hours of one core\n", capsys.readouterr().err
    ).groups()
    assert words == "plain, seed 3, and 2 before it"
    assert float(hours) == pytest.approx(sum(plan.hours([("teacher", 0), plan.SEARCH, ("plain", 3)], "full")), abs=0.1)
    plan.announce([("plain", 0)], "smoke", catalogue.recipe("plain", "smoke", 0, unknown))
    assert capsys.readouterr().err == ""


def test_sigterm_ends_training_after_an_epoch(walk_done, monkeypatch):
    shutil.rmtree(store.require("plain").folder)

    def ended(label):
        raise Ended(f"{label}: ended")

    with monkeypatch.context() as patch, pytest.raises(Ended, match="plain, seed 0"):
        patch.setattr("hw2.training.end_if_asked", ended)
        train.obtain("plain")
    assert train.obtain("plain").name == "plain/smoke-s0"


@pytest.mark.parametrize(
    ("call", "part", "values", "told"),
    [
        (lambda **more: train.obtain("plain", **more), "student", {"fit": Fit(epochs=2, lr=0.05, batch=64)},
         "plain/smoke-s0 holds another recipe's run: its fit.epochs is 1, 2 is asked for"),
        (lambda **more: train.obtain("compressed", **more), "compressed", {"reg": 0.5},
         "compressed/smoke-s0 holds another recipe's run: its reg is 0.01, 0.5 is asked for"),
    ],
)  # fmt: skip
def test_another_recipes_run_is_replaced_only_when_asked(walk_done, monkeypatch, call, part, values, told):
    before = contents(root("smoke"))
    monkeypatch.setitem(profiles.PROFILES, "smoke", SHRUNKEN | {part: SHRUNKEN[part] | values})
    with monkeypatch.context() as patch:
        patch.setattr(training, "fit", lambda *_, **__: pytest.fail("something was trained"))
        for one in (call, lambda: store.require(part.replace("student", "plain"))):
            with pytest.raises(InputError, match=told):
                one()
    assert contents(root("smoke")) == before
    call(replace=True)
    monkeypatch.setattr(training, "fit", lambda *_, **__: pytest.fail("something was trained"))
    call()


def test_own_settings_leave_the_committed_runs_alone(walk_done):
    before = contents(root("smoke"))
    run = train.obtain("distilled", temperature=3.0)
    assert run.recipe.temperature == 3 and run.folder.parent == walk_done / "build/smoke/own/distilled"
    assert train.obtain("distilled", temperature=3.0) == run
    assert train.obtain("distilled", temperature=store.require("distilled").recipe.temperature).name == (
        "distilled/smoke-s0"
    )
    assert contents(root("smoke")) == before


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("distilled", {"temperature": 0.0}, "temperature 0.0: expected"),
        ("distilled", {"temperature": "4"}, "temperature '4': expected"),
        ("compressed", {"ratio": 1.0}, "ratio 1.0: expected"),
        ("compressed", {"ratio": 0.95}, "ratio 0.95: leaves no channel"),
        ("distilled", {"colour": 1}, "distilled takes no colour"),
        ("plain", {"device": "gpu"}, "device 'gpu': expected"),
        ("plain", {"seed": -1}, "seed -1: expected"),
        ("plain", {"profile": "huge"}, "profile 'huge': expected"),
        ("unplain", {}, "experiment 'unplain': expected"),
        ("teacher", {"weights": "nowhere.pth"}, r"nowhere\.pth: no such file"),
    ],
)
def test_wrong_values_are_told_before_anything_is_trained(walk_done, no_training, name, change, told):
    for folder in root("smoke").glob("*/smoke-s*"):
        shutil.rmtree(folder)
    with pytest.raises(InputError, match=told):
        train.obtain(name, **change)


def test_the_courses_teacher_takes_no_runs_place_unasked(walk_done, no_training):
    path, given = walk_done / "resnet-50.pth", tiny_network(7)
    before = contents(root("smoke"))
    path.write_bytes(b"garbage")
    with pytest.raises(InputError, match=r"resnet-50\.pth: not loaded"):
        train.obtain("teacher", weights=path)
    torch.save({"model_state_dict": {f"resnet50.{k}": v for k, v in given.state_dict().items()}}, path)
    with pytest.raises(InputError, match=r"its fit\.epochs is 1, 0 is asked for"):
        train.obtain("teacher", weights=path)
    assert contents(root("smoke")) == before


def test_the_courses_teacher_stays_the_teacher(walk_done, monkeypatch):
    path, given = walk_done / "resnet-50.pth", tiny_network(7)
    torch.save({"model_state_dict": {f"resnet50.{k}": v for k, v in given.state_dict().items()}}, path)
    monkeypatch.setattr(training, "fit", lambda *_, **__: pytest.fail("something was trained"))
    run = train.obtain("teacher", weights=path, replace=True)
    assert run.recipe.weights == sha256(path) and run.network().fc.weight.equal(given.fc.weight)
    path.unlink()
    assert store.require("teacher") == run == train.obtain("teacher")


def test_a_teacher_without_its_weights_still_has_soft_targets(walk_done, no_training):
    run = store.require("teacher")
    run.weights.unlink()
    assert store.require("teacher").soft_targets.shape == (2, 576, 10)
    with pytest.raises(InputError, match=r"teacher/smoke-s0: its weights .* `hw2 train teacher`"):
        run.network()


def test_the_delivered_network_is_the_named_one_and_no_other(walk_done, no_training):
    run, path = store.delivered("smoke"), root("smoke") / "delivered.json"
    write_json(path, {"run": "compressed/cpu-s0", "sha256": "0" * 64})
    with pytest.raises(InputError, match="profile smoke: the delivered network is compressed/cpu-s0"):
        store.delivered("smoke")
    walk.deliver("smoke")
    networks.save(tiny_network(), run.weights)
    with pytest.raises(InputError, match=r"compressed/smoke-s0: model\.safetensors is not the delivered one"):
        store.delivered("smoke")
    run.weights.unlink()
    with pytest.raises(InputError, match=r"compressed/smoke-s0: .*no model\.safetensors"):
        store.delivered("smoke")


def score(name, count):
    for seed in catalogue.seeds(name, "smoke"):
        run = store.require(name, seed)
        write_json(run.folder / "metrics.json", run.metrics | {"val_correct": count})


def test_the_finalist_that_is_better_when_trained_longer_is_chosen(walk_done, no_training):
    found = store.finalists(store.trials("smoke"))
    for counts, chosen in (((10, 10), 0), ((10, 11), 1), ((11, 10), 0)):
        for number, count in enumerate(counts, start=1):
            score(f"finalist-{number}", count)
        assert store.Settings("smoke").setting("chosen") == found[chosen]
    assert catalogue.recipe("distilled", "smoke", 0, store.Settings("smoke")).temperature == found[0][0]
    shutil.rmtree(store.require("finalist-2", 1).folder)
    with pytest.raises(InputError, match="finalist-2/smoke-s1 is not there"):
        store.Settings("smoke").setting("chosen")


def test_of_two_processes_that_want_a_run_one_waits_and_finds_it(walk_done, monkeypatch, capsys):
    fits, fit = [], training.fit
    monkeypatch.setattr(training, "fit", lambda *a, options, **m: fits.append(1) or fit(*a, options=options, **m))
    recipe = catalogue.recipe("plain", "smoke", 5, store.Settings("smoke"))
    with ThreadPoolExecutor(1) as pool:
        with store.lock(recipe) as mine:
            assert mine
            other = pool.submit(train.obtain, "plain", 5)
            while "waiting for it" not in capsys.readouterr().err:
                assert not other.done()
                time.sleep(0.01)
        assert other.result(timeout=60).recipe == recipe
    assert fits == [1] and train.obtain("plain", 5).recipe == recipe


def test_two_processes_share_the_walk(walk_done, few):
    """Each trains what the other does not: seen from this process, whose numbers are the tests'."""
    before = untested(root("smoke"))
    for name in ("plain", "kl_mean", "compressed"):
        shutil.rmtree(root("smoke") / name)
    held = catalogue.recipe("plain", "smoke", 0, store.Settings("smoke"))
    with ThreadPoolExecutor(1) as pool:
        with store.lock(held):
            other = pool.submit(walk.work, "smoke", "cpu", False)
            while not (root("smoke") / "compressed/smoke-s0").is_dir():
                assert not other.done()
                time.sleep(0.05)
        other.result(timeout=60)
    after = untested(root("smoke"))
    assert before.keys() == after.keys()
    changed = {path.name for path in before if before[path] != after[path]}
    assert changed <= {"metrics.json", "environment.json", "SHA256SUMS"}


def test_history_and_steps_are_whole(walk_done):
    run = store.require("distilled")
    assert len(read_csv(run.folder / "history.csv", HISTORY)) == 1
    steps = read_csv(run.folder / "steps.csv", ("step", "loss"))
    assert steps.step.tolist() == [0] and steps.loss.gt(0).all()  # one batch of 64
    assert json.loads((run.folder / "recipe.json").read_text())["digest"] == run.recipe.digest
