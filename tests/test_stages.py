"""The walk trains what is missing, loads what is there, and tells what does not fit together."""

import dataclasses
import json
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from helpers import tiny_network

from conftest import SHRUNKEN
from hw2 import networks, training
from hw2.errors import InputError
from hw2.experiments import recipes, stages, trainers
from hw2.experiments import search as tuning
from hw2.experiments import store as runs
from hw2.experiments.recipes import Fit

CPU = torch.device("cpu")


@pytest.fixture
def no_training(monkeypatch):
    def fail(*args, **more):
        raise AssertionError("something was trained")

    for module, name in ((training, "fit"), (tuning, "search"), (trainers.distillation, "build_cache")):
        monkeypatch.setattr(module, name, fail)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_second_walk_loads_everything_and_changes_nothing(store, no_training):
    before = contents(store)
    found = stages.walk()
    assert [run.name for run in found] == [
        "teacher/smoke-s0",
        "distilled/smoke-s0",
        "compressed/smoke-s0",
        "plain/smoke-s0",
        "scratch/smoke-s0",
        "unpruned/smoke-s0",
    ]
    assert contents(store) == before


def test_the_walk_reads_the_test_set_once_for_each_run(store, few, no_training):
    found = stages.walk()
    assert runs.ledger("smoke").recipe.tolist() == [run.digest for run in found]
    for run in found:
        network = stages.teacher_network(run) if run.recipe["stage"] == "teacher" else run.network()
        correct = int((training.predict(network, few.test_images) == few.test_labels).sum())
        assert (run.metrics["test_correct"], run.metrics["test_total"]) == (correct, 100)


def test_the_runs_hang_together(store, no_training):
    teacher, distilled, compressed, plain, *_ = stages.walk()
    assert distilled.recipe["teacher"] == compressed.recipe["teacher"] == teacher.digest
    assert compressed.recipe["parent"] == distilled.digest
    temperature, alpha = stages.chosen()
    assert (distilled.recipe["temperature"], distilled.recipe["alpha"]) == (temperature, alpha)
    assert (compressed.recipe["temperature"], plain.recipe["alpha"]) == (temperature, 0)
    assert distilled.network().widths == plain.network().widths == (16, 16, 32, 64)
    assert compressed.network().widths == (11, 11, 22, 45)
    assert (distilled.metrics["parameters"], compressed.metrics["parameters"]) == (175258, 85956)
    assert len(compressed.history) == 3  # of sparse learning and fine-tuning
    assert compressed.history["epoch"].tolist() == [1, 2, 3]


def test_the_metrics_are_those_of_the_weights(store, few, no_training):
    rows = few.split[1][:32]
    for run in stages.walk()[1:]:
        classes = training.predict(run.network(), few.train_images[rows])
        correct = int((classes == few.train_labels[rows]).sum())
        assert (run.metrics["val_correct"], run.metrics["val_total"]) == (correct, 32)
        assert run.history.val_accuracy.iloc[-1] == correct / 32


def test_every_phase_of_compression_is_judged(store, no_training):
    run = stages.compressed()
    assert list(run.metrics["phases"]) == [
        "distilled",
        "pruned_without_sparse_learning",
        "recalibrated_without_sparse_learning",
        "sparse",
        "pruned",
        "recalibrated",
        "fine_tuned",
    ]
    assert run.metrics["phases"]["fine_tuned"] == run.metrics["val_correct"]
    assert run.metrics["phases"]["distilled"] == stages.distilled().metrics["val_correct"]


def test_soft_targets_cover_training_and_validation_rows_and_no_others(store, few, no_training):
    run = stages.teacher()
    targets = run.soft_targets
    assert targets.shape == (2, 576, 10)
    rows = torch.cat([few.split[0][:64], few.split[1][:32]])
    assert targets[:, rows].isfinite().all()
    assert int(targets.isfinite().all(2).sum()) == 2 * 96
    note = json.loads((run.folder / "soft_targets.json").read_text())
    assert (note["teacher"], note["views"]) == (run.digest, 2)
    assert note["sha256"] == runs.sha256(run.folder / "soft_targets.npy")


def test_the_sums_hold_after_the_walk(store):
    top = runs.root("smoke")
    assert (top / "SHA256SUMS").read_text() == runs.sums("smoke")
    assert "delivered.json" in runs.sums("smoke")


def test_a_missing_run_is_trained_again_to_the_same_bits_also_after_an_interruption(store, monkeypatch):
    run = stages.compressed()
    weights, digest = run.weights.read_bytes(), run.digest
    history = (run.folder / "history.csv").read_bytes()
    shutil.rmtree(run.folder)
    shutil.rmtree(store / "cache" / digest[:16])

    fit = training.fit

    def interrupted(*args, label, **more):
        fit(*args, label=label, **more, stop_after=1)
        if label == "fine-tuning":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "fit", lambda *args, **more: interrupted(*args, **more) or fit(*args, **more))
        with pytest.raises(KeyboardInterrupt):
            stages.compressed()
    assert not run.folder.exists()
    again = stages.compressed()
    assert again.weights.read_bytes() == weights
    assert (again.folder / "history.csv").read_bytes() == history


def begun(monkeypatch, **environment):
    """`stages.compressed(seed=1)`, interrupted in its second epoch of fine-tuning, where `environment` was recorded."""
    stages.distilled(seed=1)
    fit, told = training.fit, runs.environment

    def interrupted(*words, label, **more):
        if label == "fine-tuning":
            fit(*words, label=label, **more, stop_after=1)
            raise KeyboardInterrupt
        return fit(*words, label=label, **more)

    with monkeypatch.context() as patch:
        patch.setattr(training, "fit", interrupted)
        patch.setattr(runs, "environment", lambda device: told(device) | environment)
        with pytest.raises(KeyboardInterrupt):
            stages.compressed(seed=1)
    return sorted((runs.PROJECT / "cache").glob("*/*.pt"))


def test_a_run_that_goes_on_elsewhere_records_where_it_began_and_all_its_time(store, monkeypatch):
    assert [path.name for path in begun(monkeypatch, cores=77)] == ["fine-tuning.pt", "sparse.pt"]
    run = stages.compressed(seed=1)
    assert run.environment["cores"] == 77
    assert run.metrics["processor_s"] > 0 and run.metrics["wall_s"] > 0


def test_what_only_unfinished_training_needs_goes_with_its_end(store):
    left = sorted(path.name for path in (store / "cache").rglob("*") if path.is_file())
    assert {name.partition(".")[0] for name in left} <= {"lock", "model", "study", "smoke"}
    assert stages.teacher().weights.is_file()


def test_a_checkpoint_of_other_code_is_gone_on_with_by_no_other(store, monkeypatch):
    begun(monkeypatch, code="another", commit="abcdef")
    with pytest.raises(InputError, match=r"fine-tuning\.pt: this checkpoint was made by another state .* abcdef"):
        stages.compressed(seed=1)
    labels, fit = [], training.fit
    monkeypatch.setattr(training, "fit", lambda *w, label, **m: labels.append(label) or fit(*w, label=label, **m))
    assert stages.compressed(seed=1, replace=True).environment["code"] == runs.CODE
    assert labels == ["sparse", "fine-tuning"]


def test_a_damaged_checkpoint_is_told(store, monkeypatch):
    path = begun(monkeypatch)[0]
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"\.pt: this checkpoint is damaged, or older"):
        stages.compressed(seed=1)


def git(*words):
    names = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *names, *words], cwd=runs.PROJECT, check=True, capture_output=True)


@pytest.fixture
def repository(store, monkeypatch):
    """The store as a repository whose only commit has a file in hw2/, which is taken for the code that runs."""
    (store / "hw2").mkdir()
    (store / "hw2/a.py").write_text("x = 1\n")
    monkeypatch.setattr(runs, "CODE", runs.code_digest())
    git("init", "-q")
    git("add", "hw2")
    git("commit", "-qm", "first")
    return store


def test_the_commit_is_recorded(repository):
    head = (repository / ".git" / (repository / ".git/HEAD").read_text().split()[1]).read_text().strip()
    assert stages.plain(seed=5).environment["commit"] == head


@pytest.mark.parametrize("name", ["hw2/a.py", "hw2/new.py"])
def test_code_that_no_commit_has_trains_smoke_runs_only(repository, name, monkeypatch):
    runs.check_code("full")
    (repository / name).write_text("x = 2\n")
    with pytest.raises(InputError, match=rf"hw2/ is not what HEAD has \({name}\)"):
        stages.plain("cpu", 0)
    with pytest.raises(InputError, match="hw2/ is not what HEAD has"):
        runs.check_code("full")
    assert stages.plain(seed=5).val_accuracy


def test_code_that_was_changed_and_committed_while_this_process_ran_trains_nothing(repository):
    (repository / "hw2/a.py").write_text("x = 2\n")
    git("commit", "-qam", "second")
    with pytest.raises(InputError, match="a file changed while this process ran"):
        runs.check_code("full")


def test_training_in_bfloat16_without_the_hardware_is_told_before(store, monkeypatch, capsys):
    slow = Fit(epochs=1, lr=0.05, batch=64, precision="bfloat16")
    monkeypatch.setitem(recipes.NUMBERS, "smoke", other("student", fit=slow))
    for lacks in (True, False):
        monkeypatch.setattr(runs, "lacks_bfloat16", lambda device, lacks=lacks: lacks)
        stages.plain(seed=5 + lacks)
        assert ("no bfloat16: training takes about 15 times" in capsys.readouterr().err) is lacks


@pytest.mark.parametrize(
    ("flags", "environment", "lacks"),
    [
        ("avx2 avx512_bf16", {}, False),
        ("amx_bf16", {}, False),
        ("avx2 avx512f", {}, True),
        ("avx512_bf16", {"ONEDNN_MAX_CPU_ISA": "AVX2"}, True),
        ("avx512_bf16", {"ATEN_CPU_CAPABILITY": "avx2"}, True),
        ("avx512_bf16", {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}, False),
    ],
)
def test_bfloat16_needs_instructions_that_are_not_turned_off(monkeypatch, flags, environment, lacks):
    for name in runs.LOWERING:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(runs, "_processor", lambda: ("a processor", flags.split()))
    assert runs.lacks_bfloat16(CPU) is lacks
    assert not runs.lacks_bfloat16(torch.device("cuda"))
    told = runs.environment(CPU)
    assert (told["flags"], told["lowered_by"]) == (flags.split(), environment)


def test_full_refuses_the_studies_that_it_has_no_numbers_for(store, no_training):
    for stage in (stages.arms, stages.ablation, stages.frontier, lambda profile: stages.arm("labels", profile)):
        with pytest.raises(InputError, match="profile full: arms, ablation and frontier have no numbers"):
            stage("full")


def test_another_ratio_is_another_run(store):
    run = stages.compressed(ratio=0.25)
    assert run.metrics["parameters"] == 98998
    with pytest.raises(InputError, match="pruning ratio 1"):
        stages.compressed(ratio=1.0)


def test_without_epochs_of_sparse_learning_there_is_none(store, monkeypatch):
    numbers = recipes.NUMBERS["smoke"]
    never = numbers["compressed"] | {"sparse": dataclasses.replace(numbers["compressed"]["sparse"], epochs=0)}
    monkeypatch.setitem(recipes.NUMBERS, "smoke", numbers | {"compressed": never})
    run = stages.compressed(ratio=0.5)
    assert set(run.metrics["phases"]) == {"distilled", "pruned", "recalibrated", "fine_tuned"}
    assert len(run.history) == never["fit"].epochs


def test_the_delivered_network_is_the_compressed_one_and_no_other(store, no_training):
    run = stages.delivered("smoke")
    assert run == stages.compressed()
    networks.save(tiny_network(), run.weights)
    with pytest.raises(InputError, match=r"compressed/smoke-s0: model\.safetensors is not the delivered one"):
        stages.delivered("smoke")


def test_a_delivered_network_that_is_not_there_is_named(store):
    stages.delivered("smoke").weights.unlink()
    with pytest.raises(InputError, match="compressed/smoke-s0"):
        stages.delivered("smoke")
    (runs.root("smoke") / "delivered.json").unlink()
    with pytest.raises(InputError, match=r"delivered\.json"):
        stages.delivered("smoke")


def test_a_teacher_without_its_weights_still_has_soft_targets(store, no_training):
    run = stages.teacher()
    run.weights.unlink()
    assert stages.teacher().soft_targets.shape == (2, 576, 10)
    assert stages.distilled().name == "distilled/smoke-s0"
    with pytest.raises(InputError, match=r"teacher/smoke-s0: its weights .* `hw2 train teacher`"):
        stages.teacher_network(run)


@pytest.mark.parametrize("stage", [stages.teacher, stages.tuned, stages.distilled, stages.plain, stages.compressed,
                                   stages.walk, stages.delivered])  # fmt: skip
def test_an_unknown_profile_is_an_error_at_every_stage(store, no_training, stage):
    with pytest.raises(InputError, match="profile 'huge': expected one of smoke, cpu, full"):
        stage("huge")


def test_an_unknown_profile_in_the_environment_is_an_error(store, no_training, monkeypatch):
    monkeypatch.setenv("HW2_PROFILE", "huge")
    with pytest.raises(InputError, match="profile 'huge'"):
        stages.walk()


def land(recipe, profile):
    """A finished run of another chain, as far as its name and recipe go."""
    with runs.new_folder(recipe, profile):
        pass


def test_without_a_profile_the_chain_is_the_delivered_networks(store, no_training, monkeypatch):
    monkeypatch.delenv("HW2_PROFILE")
    for profile in ("cpu", "full"):
        land(recipes.plain(profile, 0), profile)
    assert stages.default_profile() == "cpu"  # none is delivered yet
    for profile in ("full", "cpu"):
        runs.write_json(runs.root() / "delivered.json", {"run": f"compressed/{profile}-s0", "sha256": "x"})
        assert stages.plain().name == f"plain/{profile}-s0"
    assert stages.plain("full").name == "plain/full-s0"


@pytest.mark.parametrize("words", [{}, {"run": 3, "sha256": "x"}, {"run": "compressed/huge-s0", "sha256": "x"}])
def test_a_delivered_network_of_no_profile_is_told(store, monkeypatch, words):
    monkeypatch.delenv("HW2_PROFILE")
    runs.write_json(runs.root() / "delivered.json", words)
    with pytest.raises(InputError, match=r"delivered\.json: expected|profile 'huge'"):
        stages.plain()


def test_an_empty_variable_counts_as_unset(store, monkeypatch):
    monkeypatch.setenv("HW2_PROFILE", "")
    assert stages.default_profile() == "cpu"
    runs.write_json(runs.root() / "delivered.json", {"run": "compressed/full-s0", "sha256": "x"})
    assert stages.default_profile() == "full"


def test_another_profiles_delivered_network_is_not_shown(store):
    runs.write_json(runs.root("smoke") / "delivered.json", {"run": "compressed/cpu-s0", "sha256": "x"})
    with pytest.raises(InputError, match="profile smoke: the delivered network is compressed/cpu-s0"):
        stages.delivered()


def test_a_walk_leaves_another_profiles_network_delivered(store, no_training):
    path, words = runs.root("smoke") / "delivered.json", {"run": "compressed/cpu-s0", "sha256": "x"}
    runs.write_json(path, words)
    stages.walk()
    assert runs.read_json(path) == words


def other(stage, **values):
    """The smoke profile with other numbers for a stage."""
    numbers = recipes.NUMBERS["smoke"]
    return numbers | {stage: numbers[stage] | values}


@pytest.mark.parametrize(
    ("stage", "values", "told"),
    [
        (lambda **more: stages.plain(**more), ("student", {"fit": Fit(epochs=2, lr=0.05, batch=64)}),
         "plain/smoke-s0 holds another recipe's run: its fit.epochs is 1, 2 is asked for"),
        (lambda **more: stages.compressed(**more), ("compressed", {"reg": 0.5}),
         "compressed/smoke-s0 holds another recipe's run: its reg is 0.01, 0.5 is asked for"),
        (lambda **more: stages.tuned(**more), ("tuning", {"alphas": (0.5,)}),
         "tuning/smoke holds another recipe's run: its alphas is (0.9,), (0.5,) is asked for"),
    ],
)  # fmt: skip
def test_another_recipes_run_is_replaced_only_when_asked(store, monkeypatch, stage, values, told):
    before = contents(runs.root("smoke"))
    monkeypatch.setitem(recipes.NUMBERS, "smoke", other(values[0], **values[1]))
    with monkeypatch.context() as patch:
        patch.setattr(training, "fit", lambda *_, **__: pytest.fail("something was trained"))
        with pytest.raises(InputError) as error:
            stage()
    assert str(error.value) == f"{told}; --replace (replace=True) trains in its place"
    assert contents(runs.root("smoke")) == before
    stage(replace=True)
    monkeypatch.setattr(training, "fit", lambda *_, **__: pytest.fail("something was trained"))
    stage()


def test_a_run_without_its_recipe_is_not_replaced_unasked(store, no_training):
    (stages.plain().folder / "recipe.json").unlink()
    with pytest.raises(InputError, match=r"plain/smoke-s0/recipe\.json: no readable JSON"):
        stages.plain()


def test_the_courses_teacher_takes_the_place_of_training(store, monkeypatch):
    own, path = stages.teacher(), store / "resnet-50.pth"
    given = tiny_network(7)
    torch.save({"model_state_dict": {f"resnet50.{k}": v for k, v in given.state_dict().items()}}, path)

    def fail(*args, **more):
        raise AssertionError("something was trained")

    monkeypatch.setattr(training, "fit", fail)
    with pytest.raises(
        InputError, match=r"teacher/smoke-s0 holds another recipe's run: its fit\.epochs is 1, 0 is asked"
    ):
        stages.teacher(weights=path)
    run = stages.teacher(weights=path, replace=True)
    assert run.digest != own.digest
    assert run.recipe["weights"] == runs.sha256(path)
    assert stages.teacher_network(run).fc.weight.equal(given.fc.weight)
    path.unlink()
    assert stages.teacher().digest == run.digest  # it stays the teacher
    with pytest.raises(InputError, match=r"resnet-50\.pth: no such file"):
        stages.teacher(weights=path)


def test_an_unusable_file_of_the_courses_changes_nothing(store, no_training):
    path, before = store / "resnet-50.pth", contents(runs.root("smoke"))
    path.write_bytes(b"garbage")
    with pytest.raises(InputError, match=r"resnet-50\.pth: not loaded"):
        stages.teacher(weights=path)
    assert contents(runs.root("smoke")) == before


@pytest.mark.parametrize("name", recipes.ARMS)
def test_an_arm_is_vanilla_kd_with_one_thing_otherwise(store, no_training, name):
    vanilla, arm = stages.arm("vanilla", seed=2).recipe, stages.arm(name, seed=2).recipe
    grid = recipes.tuning("smoke", stages.teacher().digest)
    changed = {key: arm[key] for key in arm if arm[key] != vanilla[key] and key not in ("digest", "stage")}
    alone = {"teacher": None, "temperature": 1.0, "alpha": 0.0}
    expected = {
        "vanilla": {},
        "labels": alone,
        "smoothed": alone | {"fit": vanilla["fit"] | {"label_smoothing": 0.1}},
        "fixed_teacher": {"targets": "identity"},
        "compressed_teacher": {"teacher": stages.compressed().digest},
    }
    assert changed == expected.get(name, {"loss": name})
    # The budget is a trial's, the setting the search's best.
    assert (vanilla["images"], vanilla["fit"]) == (grid.images, recipes.asdict(grid.fit))
    assert (vanilla["temperature"], vanilla["alpha"]) == tuning.best(stages.tuned())


def test_the_walk_leaves_the_arms_with_seeds_that_the_search_did_not_use(store, no_training):
    found = stages.arms()
    assert list(found) == list(recipes.ARMS)
    assert [[run.name for run in group] for group in found.values()] == [
        [f"{name}/smoke-s{seed}" for seed in (2, 3)] for name in found
    ]
    assert all(run.test_accuracy is None for group in found.values() for run in group)


def test_arms_and_finalists_keep_logits_that_give_their_count(store, no_training, few):
    labels = few.train_labels[few.split[1][:32]]
    found = [*stages.arms().values(), *stages.finalists().values()]
    for run in (run for group in found for run in group):
        assert int((run.validation_logits.argmax(1) == labels).sum()) == run.metrics["val_correct"]
        assert (run.folder / "model.safetensors").exists() == (run.recipe["stage"] == "vanilla")
        logits = training.logits_of(run.network(), few.train_images[few.split[1][:32]])
        assert torch.allclose(logits.softmax(1), run.validation_logits.float().softmax(1), atol=1e-3)


def test_the_ablation_and_the_frontier_keep_classes_that_give_their_count(store, no_training, few):
    labels = few.train_labels[few.split[1][:32]]
    found = [run for group in [*stages.ablation().values(), *stages.frontier().values()] for run in group]
    assert len(found) == len(recipes.ABLATION) * 2 + 2
    for run in found:
        assert int((run.validation_classes == labels).sum()) == run.metrics["val_correct"]
        assert not (run.folder / "model.safetensors").exists() and run.test_accuracy is None
        classes = training.predict(run.network(), few.train_images[few.split[1][:32]])
        assert run.validation_classes.tolist() == classes.tolist()


def test_the_ablation_prunes_vanillas_network_of_the_same_seed(store, no_training):
    parents = [run.digest for run in stages.arms()["vanilla"]]
    for name in ("pruned", "pruned_directly", "pruned_labels"):
        assert [run.recipe["parent"] for run in stages.ablation()[name]] == parents
    assert "sparse" not in stages.ablated("pruned_directly", seed=2).metrics["phases"]
    assert stages.ablated("scratch_labels", seed=2).network().widths == recipes.NARROW


def test_an_unknown_arm_of_the_ablation_is_an_error():
    with pytest.raises(InputError, match="arm 'unpruned': expected one of pruned, pruned_directly"):
        stages.ablated("unpruned")


@pytest.mark.parametrize(("stage", "like"), [("scratch", 1), ("unpruned", 0)])
def test_a_control_from_scratch_sees_as_many_images_as_the_whole_chain(store, no_training, stage, like):
    chain, control = [stages.distilled(), stages.compressed()], getattr(stages, stage)()
    assert len(control.history) == sum(len(run.history) for run in chain)
    assert control.network().widths == chain[like].network().widths and control.test_accuracy is not None
    assert [control.recipe[key] for key in ("teacher", "temperature", "alpha")] == [
        chain[0].recipe[key] for key in ("teacher", "temperature", "alpha")
    ]


def test_logits_that_cannot_be_read_are_named(store):
    run = stages.arm("labels", seed=2)
    path = run.folder / "validation_logits.npy"
    np.save(path, np.zeros((31, 10), np.float16))
    with pytest.raises(InputError, match=r"validation_logits\.npy: float16 \(31, 10\)"):
        _ = run.validation_logits
    path.write_bytes(b"garbage")
    with pytest.raises(InputError, match=r"validation_logits\.npy: no readable array"):
        _ = run.validation_logits


def test_arms_differ_in_what_they_learn(store, no_training):
    losses = {name: tuple(group[0].history.train_loss) for name, group in stages.arms().items()}
    # The first epoch sees the identity, and one epoch is all there is here.
    assert losses.pop("fixed_teacher") == losses["vanilla"]
    assert len(set(losses.values())) == len(losses)


def test_a_fixed_teachers_targets_differ_from_the_second_view_on(store, monkeypatch):
    monkeypatch.setitem(SHRUNKEN["tuning"], "fit", Fit(epochs=2, lr=0.05, batch=64))
    stages.tuned(replace=True)
    first, second = (
        list(stages.arm(name, seed=2, replace=True).history.train_loss) for name in ("vanilla", "fixed_teacher")
    )
    assert first[0] == second[0] and first[1] != second[1]


def test_an_unknown_arm_is_an_error():
    with pytest.raises(InputError, match="arm 'unplain': expected one of vanilla, labels"):
        stages.arm("unplain")


def score(group, count):
    for run in group:
        runs.write_json(run.folder / "metrics.json", run.metrics | {"val_correct": count})


def test_the_finalist_that_is_better_when_trained_longer_is_chosen_and_distilled(store, monkeypatch):
    first, second = stages.finalists()
    assert [first, second] == tuning.finalists(stages.tuned())
    score(stages.finalists()[first], 10)
    score(stages.finalists()[second], 10)
    assert stages.chosen() == first
    score(stages.finalists()[second], 11)
    recipe = stages.distilled(replace=True).recipe
    assert stages.chosen() == second == (recipe["temperature"], recipe["alpha"])


def test_each_profile_has_its_own_search(store, monkeypatch):
    top = runs.root("smoke")
    (top / "tuning" / "smoke").rename(top / "tuning" / "full")
    searched = []
    monkeypatch.setattr(tuning, "search", lambda *words: searched.append(words[0].digest) or tuning.Found([], []))
    stages.tuned()
    assert searched == [recipes.tuning("smoke", stages.teacher().digest).digest]
    assert (top / "tuning/smoke/recipe.json").is_file() and (top / "tuning/full/trials.csv").is_file()


def test_of_two_processes_that_want_a_run_one_waits_and_finds_it(store, monkeypatch, capsys):
    fits, fit = [], training.fit

    def counted(*args, **more):
        fits.append(more["label"])
        return fit(*args, **more)

    monkeypatch.setattr(training, "fit", counted)
    recipe = recipes.plain("smoke", 5)
    with ThreadPoolExecutor(1) as pool:
        with runs.lock(recipe):
            other = pool.submit(stages.plain, None, 5)
            while "waiting for it" not in capsys.readouterr().err:
                assert not other.done()
                time.sleep(0.01)
            trainers.student(recipe, "smoke", CPU, None)
        assert other.result(timeout=60).digest == recipe.digest
    assert fits == ["plain"]


def test_sums_that_a_killed_process_left_unwritten_are_written_by_the_next_stage(store, no_training):
    sums = runs.root("smoke") / "SHA256SUMS"
    before = sums.read_text()
    sums.unlink()
    stages.plain()
    assert sums.read_text() == before


def test_trials_without_their_recipe_are_searched_again(store, monkeypatch):
    # As a process leaves them that is killed while it writes another search's trials.
    written = []
    monkeypatch.setattr(runs, "write_csv", lambda path, *more: written.append(path.with_name("recipe.json").exists()))
    monkeypatch.setattr(tuning, "search", lambda *arguments: tuning.Found([], []))
    monkeypatch.setitem(recipes.NUMBERS["smoke"], "tuning", recipes.NUMBERS["smoke"]["tuning"] | {"alphas": (0.5,)})
    stages.tuned(replace=True)
    assert written == [False] * 3
