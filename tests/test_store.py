"""The store: a run is there whole or not at all, numbers survive, nothing is written by who only reads."""

import hashlib
import multiprocessing
import os
import re
import subprocess
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import torch
from helpers import contents, tiny_network
from torch import nn

from hw2 import networks
from hw2.data import PROJECT
from hw2.errors import InputError
from hw2.experiments import catalogue, environment, ledger, recipes, store
from hw2.experiments.recipes import StudentRecipe
from hw2.experiments.run import HISTORY, Run, cache
from hw2.files import read_json, write_bytes, write_csv, write_json
from hw2.networks import count_parameters
from hw2.training import Fit, predict

CPU = torch.device("cpu")
RECIPE = StudentRecipe(stage="plain", seed=3, fit=Fit(epochs=1, lr=0.1))
LATER = StudentRecipe(stage="plain", seed=3, fit=Fit(epochs=2, lr=0.1))
OTHER = StudentRecipe(stage="plain", seed=4, fit=Fit(epochs=1, lr=0.1))
METRICS = {"val_correct": 40, "val_total": 50, "test_correct": None, "test_total": None, "parameters": 9}
METRICS |= {"wall_s": 1.5, "peak_memory_bytes": None}


def make(recipe=RECIPE, profile="cpu", network=None):
    with store.new_folder(recipe, profile) as folder:
        networks.save(network or tiny_network(), folder / "model.safetensors")
        write_csv(folder / "history.csv", HISTORY, [])
        write_json(folder / "metrics.json", METRICS)
        write_json(folder / "environment.json", environment.environment(CPU))
    return store.find(recipe, profile)


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def checked(folder):
    """What `sha256sum --check SHA256SUMS` does in a folder; the names that it has checked."""
    found = []
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        assert hashlib.sha256((folder / line[66:]).read_bytes()).hexdigest() == line[:64] and line[64:66] == "  "
        found.append(line[66:])
    return found


def test_a_run_is_found_by_its_recipe_and_by_nothing_else(project):
    assert store.find(RECIPE, "cpu") is None
    run = make()
    assert run.folder == project / "runs/plain/cpu-s3" and (run.name, run.profile) == ("plain/cpu-s3", "cpu")
    assert (run.recipe, run.val_accuracy, run.test_accuracy) == (RECIPE, 0.8, None)
    assert str(run) == f"plain/cpu-s3: {count_parameters(run.network()):,} parameters, validation 80.00%, test not read"
    for recipe, profile in ((LATER, "cpu"), (OTHER, "cpu"), (RECIPE, "full")):
        assert store.find(recipe, profile) is None
    assert store.made_by(RECIPE.digest, "cpu") == run
    with pytest.raises(InputError, match="no run with the recipe"):
        store.made_by(OTHER.digest, "cpu")


def test_smoke_and_own_runs_stay_out_of_the_committed_folder(project):
    assert make(profile="smoke").folder == project / "build/smoke/runs/plain/smoke-s3"
    with store.new_folder(RECIPE, "cpu", own=True):
        pass
    run = store.find(RECIPE, "cpu", own=True)
    assert run.folder.parent == project / "own/plain" and run.profile == "cpu"
    assert store.find(RECIPE, "cpu") is None and not (project / "runs").exists()
    assert "own" in (PROJECT / ".gitignore").read_text().splitlines()


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_a_run_that_breaks_off_leaves_nothing_and_an_earlier_one_as_it_was(project, kind):
    for _ in range(2):
        before = contents(project)
        with pytest.raises(kind), store.new_folder(RECIPE, "cpu") as folder:
            (folder / "metrics.json").write_text("{}")
            assert store.place(RECIPE, "cpu").exists() == bool(before)
            raise kind
        assert contents(project) == before
        make()


def test_a_new_recipe_takes_the_place_of_an_older_one_when_asked(project):
    make()
    for old, new in ((RECIPE, LATER), (None, LATER)):
        if old is None:
            (store.place(RECIPE, "cpu") / "recipe.json").unlink()
        with pytest.raises(InputError, match=r"fit\.epochs is 1, 2 is asked for; --replace|not readable"):
            store.check_replaced(store.place(new, "cpu"), new, replace=False)
        store.check_replaced(store.place(new, "cpu"), new, replace=True)
    with store.new_folder(LATER, "cpu") as folder:
        (folder / "only").write_text("")
    assert names(store.find(LATER, "cpu").folder) == ["only", "recipe.json"]


def test_an_older_run_that_is_half_removed_is_not_there(project, monkeypatch):
    make()

    def killed(folder, **more):
        if (folder / "metrics.json").is_file():
            (folder / "metrics.json").unlink()
            raise KeyboardInterrupt

    monkeypatch.setattr(store.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        make(LATER)
    assert store.find(RECIPE, "cpu") is None and store.find(LATER, "cpu").metrics == METRICS


def constant(label):
    """A network that says `label` to every image."""
    network = tiny_network()
    nn.init.zeros_(network.fc.weight)
    network.fc.bias.data = torch.eye(10)[label]
    return network


def test_the_test_set_is_read_once_for_each_recipe(project, few):
    run, other = make(), make(OTHER)
    with pytest.raises(InputError, match="its test set was not read; `hw2 deliver` reads it"):
        ledger.answers(run, few)
    for one in (run, other):
        ledger.read_test_set(one, few)
    classes = predict(tiny_network(), few.test_images)
    correct = int((classes == few.test_labels).sum())
    table = ledger.ledger("cpu")
    assert table[["run", "recipe", "correct", "total"]].values.tolist() == [
        [one.name, one.recipe.digest, correct, 100] for one in (run, other)
    ]
    for when in table.when:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", when)
        assert abs(datetime.now(UTC) - datetime.fromisoformat(when)) < timedelta(minutes=5)
    assert (run.metrics["test_correct"], run.test_accuracy, run.metrics["val_correct"]) == (correct, correct / 100, 40)
    before = contents(project)
    ledger.read_test_set(run, few)
    assert ledger.answers(run, few).equal(classes) and contents(project) == before
    again = make()  # trained again: its metrics have no reading yet
    ledger.read_test_set(again, few)
    assert len(ledger.ledger("cpu")) == 2 and again.metrics["test_total"] == 100


def test_a_reading_that_differs_from_the_recorded_one_is_an_error(project, few):
    counts = few.test_labels.bincount(minlength=10)
    one, other = counts.argmax(), counts.argmin()
    assert counts[one] != counts[other]
    ledger.read_test_set(make(network=constant(one)), few)
    run = make(network=constant(other))
    np.save(run.folder / ledger.ANSWERS, np.full(100, other, np.uint8))
    before = contents(project)
    for read in (ledger.read_test_set, ledger.answers):
        with pytest.raises(InputError, match=f"{counts[other]} test images correct.*reading says {counts[one]}"):
            read(run, few)
    assert contents(project) == before


def test_weights_are_known_by_their_content(project):
    run = make(network=tiny_network(1))
    make(OTHER, network=tiny_network(2))
    copied, stranger = project / "copy.safetensors", project / "stranger.safetensors"
    copied.write_bytes(run.weights.read_bytes())
    networks.save(tiny_network(5), stranger)
    assert (ledger.of_weights(copied), ledger.of_weights(stranger)) == ([run], [])
    half = run.folder.with_name(f".{run.folder.name}.1.tmp")
    run.folder.rename(half)
    assert ledger.of_weights(half / "model.safetensors") == []
    smoke = make(OTHER, "smoke", tiny_network(1))  # of another store, its weights in the cache
    write_bytes(cache(OTHER) / "model.safetensors", smoke.weights.read_bytes())
    smoke.weights.unlink()
    both = [make(LATER, network=tiny_network(1)), smoke]
    assert ledger.of_weights(copied) == both


def test_folders_of_killed_processes_go_when_nobody_holds_their_lock(project):
    for recipe in (RECIPE, OTHER):
        aside = store.place(recipe, "cpu").with_name(f".cpu-s{recipe.seed}.{recipe.digest[:16]}.tmp")
        write_bytes(aside / "half", b"")
    with store.lock(OTHER):
        store.complete_sums("cpu")
        assert [path.name for path in (project / "runs/plain").iterdir()] == [aside.name]
    make(OTHER)
    assert [path.name for path in (project / "runs/plain").iterdir()] == ["cpu-s4"]


def test_large_weights_are_looked_for_in_the_cache(project):
    run = make()
    (run.folder / "model.safetensors").unlink()
    assert Run(run.folder).weights == cache(RECIPE) / "model.safetensors"


def test_whoever_is_killed_before_the_sums_leaves_none(project):
    run = make()
    with pytest.raises(KeyboardInterrupt), store.changing("cpu"):
        write_json(run.folder / "metrics.json", METRICS | {"val_correct": 0})
        raise KeyboardInterrupt
    assert not (project / "runs/SHA256SUMS").exists()
    for folder in (project / "runs", run.folder):  # which a process that was killed while it wrote left as well
        (folder / ".half.1.tmp").touch()
    store.complete_sums("cpu")
    assert not [*project.rglob(".half*")]
    assert "plain/cpu-s3/metrics.json" in checked(project / "runs")


def test_the_sums_name_every_file_of_a_profile_and_hold(project):
    make()
    make(profile="smoke")
    make(OTHER, "full")
    with store.changing("cpu"):
        write_json(project / "runs/delivered.json", {})
        write_bytes(project / "runs/plain/.cpu-s4.1.tmp/half", b"")
        for profile in ("cpu", "full"):
            write_json(project / f"runs/tuning/{profile}/recipe.json", {})
    found = checked(project / "runs")
    assert found == sorted(found) and {"delivered.json", "plain/cpu-s3/recipe.json"} < set(found) and len(found) == 13
    assert store.sums("cpu") == (project / "runs/SHA256SUMS").read_text()
    assert len(checked(project / "build/smoke/runs")) == 5
    mine = {line[66:] for line in store.sums_of("cpu").splitlines()}
    assert mine == {name for name in found if "full" not in name}


def test_one_process_at_a_time_changes_the_runs(project):
    """Or of two that add to one file, one would write over what the other has just added, and over its sums."""
    context = multiprocessing.get_context("fork")
    start = context.Barrier(2)

    def change(name):
        start.wait()
        for number in range(20):
            with store.changing("cpu"):
                path = project / "runs/count.json"
                count = read_json(path)["count"] if path.is_file() else 0
                write_json(path, {"count": count + 1})
                write_json(project / f"runs/{name}.json", {"number": number})

    processes = [context.Process(target=change, args=(name,)) for name in ("one", "other")]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert read_json(project / "runs/count.json") == {"count": 40}
    assert checked(project / "runs") == ["count.json", "one.json", "other.json"]


def test_what_a_run_keeps_of_its_answers_is_read_as_it_was_written(project):
    run = make()
    logits = np.arange(500, dtype=np.float16).reshape(50, 10)
    np.save(run.folder / "validation_logits.npy", logits)
    np.save(run.folder / "validation_classes.npy", logits[:, 0].astype(np.uint8))
    run.validation_logits[0] = 0  # the file stays
    again = Run(run.folder)
    assert again.validation_logits.numpy().tobytes() == logits.tobytes()
    assert again.validation_classes.tolist() == [10 * row % 256 for row in range(50)]
    np.save(run.folder / "validation_logits.npy", logits[1:])
    with pytest.raises(InputError, match=r"validation_logits\.npy: .*float16 \(49, 10\), expected float16"):
        _ = Run(run.folder).validation_logits


def test_the_default_profile_is_the_environments_or_the_delivered_networks(project, monkeypatch):
    assert store.default_profile() == "cpu"  # none is delivered yet
    write_json(project / "runs/delivered.json", {"run": "compressed/full-s0", "sha256": "0" * 64})
    for value, profile in (("", "full"), ("smoke", "smoke")):
        monkeypatch.setenv("HW2_PROFILE", value)
        assert store.default_profile() == profile
    monkeypatch.setenv("HW2_PROFILE", "huge")
    with pytest.raises(InputError, match="profile 'huge'"):
        store.default_profile()


@pytest.mark.parametrize(
    ("run", "sha256"),
    [(None, None), (3, ""), ("compressed/huge-s0", ""), ("../compressed/cpu-s0", ""), ("/compressed", ""),
     ("compressed/../../x-s0", ""), ("compressed/cpu-s0", "x")],
)  # fmt: skip
def test_a_delivered_network_of_no_profile_is_told(project, run, sha256):
    write_json(project / "runs/delivered.json", {"run": run, "sha256": sha256 or "0" * 64} if run else {})
    with pytest.raises(InputError, match=r"delivered\.json: not the JSON|profile 'huge'"):
        store.default_profile()


def git(*words, folder=PROJECT):
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, check=False).stdout


@pytest.fixture
def repository(project, monkeypatch):
    """A project whose only commit has a file in a sub-package of hw2/, which is taken for the code that runs."""
    write_bytes(project / "hw2/inner/a.py", b"x = 1\n")
    digest = environment.code_digest()
    monkeypatch.setattr(environment, "code", lambda: digest)
    for words in (["init", "-q"], ["add", "hw2"], ["commit", "-qm", "first"]):
        git(*words, folder=project)
    return project


@pytest.mark.parametrize("name", ["hw2/inner/a.py", "hw2/new.py"])
def test_code_that_no_commit_has_trains_smoke_runs_only(repository, name):
    environment.check_code("full")
    assert environment.environment(CPU)["commit"] == git("rev-parse", "HEAD", folder=repository).decode().strip()
    (repository / name).write_text("x = 2\n")
    environment.check_code("smoke")
    with pytest.raises(InputError, match=f"hw2/ is not what HEAD has .*{name}"):
        environment.check_code("full")


def test_code_that_changed_since_the_process_began_trains_nothing(repository):
    (repository / "hw2/inner/a.py").write_text("x = 2\n")
    git("commit", "-qam", "second", folder=repository)
    with pytest.raises(InputError, match="a file changed while this process ran"):
        environment.check_code("full")


def test_an_unpacked_archive_names_no_commit(project):
    environment.check_code("full")
    assert environment.environment(CPU)["commit"] is None


def test_bfloat16_is_asked_of_processor_and_variables(monkeypatch):
    for flags, variables, lacks in (
        (["avx2"], {}, True), (["amx_bf16"], {}, False), (["avx512_bf16"], {"ATEN_CPU_CAPABILITY": "avx2"}, True),
    ):  # fmt: skip
        monkeypatch.setattr(environment, "_processor", lambda flags=flags: ("a processor", flags))
        monkeypatch.setattr(os, "environ", variables)
        assert environment.lacks_bfloat16(CPU) == lacks
        assert environment.environment(CPU)["lowered_by"] == variables


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert environment.pick_device("auto") == environment.pick_device("cpu") == CPU
    for name in ("gpu", "cuda"):
        with pytest.raises(InputError, match=f"device '{name}'"):
            environment.pick_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert environment.pick_device("auto").type == environment.pick_device("cuda").type == "cuda"


FOLDERS = sorted(path.parent for path in PROJECT.glob("runs/*/*/recipe.json") if path.parent.name[0] != ".")
IDS = [f"{folder.parent.name}/{folder.name}" for folder in FOLDERS]


def origin(folder):
    """Environments and parents that a run's folder tells, after a look at whether they are whole."""
    content, told = read_json(folder / "recipe.json"), read_json(folder / "environment.json")
    recipe = catalogue.read(content)
    assert {name for name in recipes.FIRST if hasattr(recipe, name)} <= content.keys()
    later = {"commit", "instruction_set", "flags", "lowered_by"}  # older runs lack all of them
    now = environment.environment(CPU).keys()
    for one in (environments := told.get("environments", [told])):
        assert one.keys() - {"entered_by_hand"} in (now, now - later)
        assert one["packages"].keys() == set(environment.PACKAGES)
        assert re.fullmatch("[0-9a-f]{64}", one["code"])
    return environments, {content[name] for name in ("teacher", "parent") if content.get(name)}


@pytest.mark.parametrize("folder", FOLDERS, ids=IDS)
def test_every_committed_run_tells_its_recipe_environment_code_and_parents(folder):
    environments, parents = origin(folder)
    assert parents <= {read_json(path / "recipe.json")["digest"] for path in FOLDERS}
    for one in environments:
        if (commit := one.get("commit")) is None:
            assert "instruction_set" not in one  # recorded before commits were
            continue
        listed = git("ls-tree", "-r", "--name-only", commit, "hw2/").decode().split()
        if not listed:
            pytest.skip(f"commit {commit} is not in this clone")
        digest = hashlib.sha256()
        for name in sorted(name.removeprefix("hw2/") for name in listed if name.endswith(".py")):
            digest.update(name.encode() + b"\0" + git("show", f"{commit}:hw2/{name}"))
        assert one["code"] == digest.hexdigest()


@pytest.mark.parametrize("name", ["recipe.json", "environment.json"])
@pytest.mark.parametrize("change", [lambda content: content.clear(), lambda content: content.pop(next(iter(content)))])
def test_a_run_that_tells_less_is_seen(project, name, change):
    path = make().folder / name
    origin(path.parent)
    content = read_json(path)
    change(content)
    write_json(path, content)
    with pytest.raises((AssertionError, KeyError, InputError)):
        origin(path.parent)
