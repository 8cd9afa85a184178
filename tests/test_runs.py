"""The store: a run is there whole or not at all, numbers survive, and the test set is read once."""

import hashlib
import json
import math
import multiprocessing
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import same_bits, tiny_network
from torch import nn

from hw2 import files, networks
from hw2.data import PROJECT
from hw2.errors import InputError
from hw2.experiments import recipes
from hw2.experiments import store as runs
from hw2.experiments.recipes import Recipe
from hw2.experiments.store import Run
from hw2.training import History, predict

RECIPE = Recipe(stage="plain", seed=3)
METRICS = {"val_correct": 40, "val_total": 50, "test_correct": None, "test_total": None}


def make(recipe=RECIPE, profile="cpu", network=None):
    with runs.new_folder(recipe, profile) as folder:
        networks.save(network or tiny_network(), folder / "model.safetensors")
        runs.write_training(folder, History(), METRICS, torch.device("cpu"))
    return runs.find(recipe, profile)


def everything(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_run_is_found_by_its_recipe_with_all_its_files(project):
    assert runs.find(RECIPE, "cpu") is None
    run = make()
    assert run.folder == project / "runs/plain/cpu-s3"
    assert (run.name, run.profile, run.digest) == ("plain/cpu-s3", "cpu", RECIPE.digest)
    assert everything(project / "runs") == [
        "SHA256SUMS",
        "plain",
        "plain/cpu-s3",
        *(f"plain/cpu-s3/{name}" for name in (
            "environment.json", "history.csv", "metrics.json", "model.safetensors", "recipe.json", "steps.csv"
        )),
    ]  # fmt: skip
    assert (run.val_accuracy, run.test_accuracy) == (0.8, None)
    assert run.recipe["images"] == 55000
    assert run.environment["device"] == "cpu"


def test_smoke_runs_stay_out_of_the_committed_folder(project):
    assert make(profile="smoke").folder == project / "build/smoke/runs/plain/smoke-s3"
    assert not (project / "runs").exists()


def test_a_run_of_another_recipe_seed_or_profile_is_not_taken_for_it(project):
    make()
    assert runs.find(Recipe(stage="plain", seed=3, images=100), "cpu") is None
    assert runs.find(Recipe(stage="plain", seed=4), "cpu") is None
    assert runs.find(RECIPE, "full") is None


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_a_run_that_breaks_off_leaves_nothing_and_an_earlier_one_as_it_was(project, kind):
    with pytest.raises(kind), runs.new_folder(RECIPE, "cpu") as folder:
        (folder / "metrics.json").write_text("{}")
        raise kind
    assert everything(project) == ["runs", "runs/plain"]
    make()
    before = everything(project)
    with pytest.raises(kind), runs.new_folder(RECIPE, "cpu") as folder:
        (folder / "half").write_text("")
        raise kind
    assert everything(project) == before
    assert runs.find(RECIPE, "cpu")


def test_a_run_is_not_there_before_its_block_ends(project):
    with runs.new_folder(RECIPE, "cpu"):
        assert runs.find(RECIPE, "cpu") is None
    assert runs.find(RECIPE, "cpu")


def test_a_new_recipe_takes_the_place_of_an_older_one(project):
    make()
    changed = Recipe(stage="plain", seed=3, images=100)
    with runs.new_folder(changed, "cpu") as folder:
        (folder / "only").write_text("")
    assert everything(runs.find(changed, "cpu").folder) == ["only", "recipe.json"]
    assert runs.find(RECIPE, "cpu") is None


ODD = [0.1, 1 / 3, math.pi * 1e-300, 5e-324, 1.7976931348623157e308, -0.0, 2.0**-1074 * 3, 123456789.12345679]


def test_floats_survive_a_csv_bit_for_bit(project):
    path = project / "history.csv"
    runs.write_csv(path, ("epoch", "x"), [{"epoch": number, "x": value} for number, value in enumerate(ODD)])
    table = runs.read_csv(path, ("epoch", "x"))
    assert [value.hex() for value in table.x] == [value.hex() for value in ODD]
    assert table["epoch"].tolist() == list(range(len(ODD)))
    assert b"\r" not in path.read_bytes()


def test_json_survives_and_nothing_is_left_beside_it(project):
    runs.write_json(project / "folder/a.json", {"x": ODD, "none": None})
    assert runs.read_json(project / "folder/a.json") == {"x": ODD, "none": None}
    assert everything(project / "folder") == ["a.json"]


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"a": 1', b"[1]", b"3", b"\xff\xfe\x00", b"[" * 100_000])
def test_an_unusable_json_file_is_named(project, content):
    path = project / "metrics.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as error:
        runs.read_json(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "git checkout" in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"a\n1\n",
        b"b,a\n1,2\n",
        b"a,b,c\n1,2,3\n",
        b"a,b\n1,2\n3,4,5\n",
        b"a,b\n1,2,3\n4,5,6\n",
        b"\xff\xfe\x00",
        b"a,b\n1,2\n3,\n",
        b"a,b\n1,2\n3,x\n",
    ],
    ids=[
        "missing",
        "empty",
        "too few",
        "other order",
        "too many",
        "a long row",
        "long rows",
        "not text",
        "cut off",
        "a word for a number",
    ],
)
def test_an_unusable_csv_file_is_named(project, content):
    path = project / "history.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as error:
        runs.read_csv(path, ("a", "b"))
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_a_recipe_without_digest_is_named(project):
    run = make()
    (run.folder / "recipe.json").write_text("{}")
    with pytest.raises(InputError, match=r"recipe\.json"):
        runs.find(RECIPE, "cpu")


def test_the_first_reading_of_the_test_set_is_recorded_and_later_ones_leave_no_trace(project, few):
    run, network = make(), tiny_network()
    classes = runs.read_test_set(run, network, few)
    assert classes.equal(predict(network, few.test_images))
    correct = int((classes == few.test_labels).sum())
    ledger = runs.ledger("cpu")
    assert ledger[["run", "recipe", "correct", "total"]].values.tolist() == [["plain/cpu-s3", run.digest, correct, 100]]
    assert (run.metrics["test_correct"], run.metrics["test_total"]) == (correct, 100)
    assert run.test_accuracy == correct / 100
    assert run.metrics["val_correct"] == 40

    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    assert runs.read_test_set(run, network, few).equal(classes)
    assert {path: path.read_bytes() for path in project.rglob("*") if path.is_file()} == before


def constant(label):
    """A network that says `label` to every image."""
    network = tiny_network()
    nn.init.zeros_(network.fc.weight)
    network.fc.bias.data = torch.eye(10)[label]
    return network


def test_a_reading_that_differs_from_the_recorded_one_is_an_error(project, few):
    run = make()
    counts = few.test_labels.bincount(minlength=10)
    one, other = counts.argmax(), counts.argmin()
    assert counts[one] != counts[other]
    runs.read_test_set(run, constant(one), few)
    before = (project / "runs/test_ledger.csv").read_bytes()
    told = f"{counts[other]} test images correct, but the ledger's reading says {counts[one]}"
    remedy = "restore the run and the ledger with `git checkout`"
    with pytest.raises(InputError, match=f"^plain/cpu-s3: {told}; {remedy}$"):
        runs.read_test_set(run, constant(other), few)
    assert (project / "runs/test_ledger.csv").read_bytes() == before
    assert run.metrics["test_correct"] == counts[one]


def test_every_recipe_has_a_row_of_its_own(project, few):
    first, second = make(), make(Recipe(stage="plain", seed=4))
    for run in (first, second, first):
        runs.read_test_set(run, tiny_network(), few)
    assert runs.ledger("cpu").recipe.tolist() == [first.digest, second.digest]
    assert runs.ledger("smoke").empty


def test_readings_stay_in_the_profile_of_the_run_with_the_time_in_utc(project, few):
    first, second = make(profile="smoke"), make(Recipe(stage="plain", seed=4), profile="smoke")
    for run in (first, second, first):
        runs.read_test_set(run, tiny_network(), few)
    ledger = runs.ledger("smoke")
    assert ledger.recipe.tolist() == [first.digest, second.digest]
    now = datetime.now(UTC)
    for when in ledger.when:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", when)
        assert timedelta(seconds=-1) < now - datetime.fromisoformat(when) < timedelta(minutes=5)
    assert "test_ledger.csv" in check(project / "build/smoke/runs")
    assert not (project / "runs").exists()
    assert runs.of_weights(first.weights, "smoke") == first and runs.of_weights(first.weights, "cpu") is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a,b\n1,2,3\n", "no readable CSV (rows have more fields than the header); restore it with `git checkout`"),
        ("a,b,c\n", "columns a,b,c, expected a,b"),
        ("a,b\n1,\n", "a row lacks a value; restore it with `git checkout`"),
        ("a,b\n1,x\n", "a column of numbers holds something else; restore it with `git checkout`"),
        ("a,b\n1,True\n", "a column of numbers holds something else; restore it with `git checkout`"),
    ],
)
def test_a_table_that_is_none_is_told_in_full(project, text, told):
    path = project / "table.csv"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        runs.read_csv(path, ("a", "b"))
    assert str(error.value) == f"{path}: {told}"


def test_a_run_trained_again_gets_its_recorded_reading_without_a_new_row(project, few):
    runs.read_test_set(make(), tiny_network(), few)
    again = make()  # the same recipe gives the same network: its metrics have no reading yet
    assert again.test_accuracy is None
    runs.read_test_set(again, tiny_network(), few)
    assert len(runs.ledger("cpu")) == 1
    assert again.metrics["test_total"] == 100


def test_weights_of_no_run_are_read_without_a_trace(project, few):
    runs.read_test_set(None, tiny_network(), few)
    assert everything(project) == []


def test_weights_are_known_by_their_content(project):
    run = make(network=tiny_network(1))
    make(Recipe(stage="plain", seed=4), network=tiny_network(2))
    copied, stranger = project / "copy.safetensors", project / "stranger.safetensors"
    copied.write_bytes(run.weights.read_bytes())
    networks.save(tiny_network(5), stranger)
    assert runs.of_weights(copied, "cpu") == run
    assert runs.of_weights(stranger, "cpu") is None


def test_weights_of_a_run_that_was_being_written_are_no_runs(project):
    run = make()
    half = run.folder.with_name(f".{run.folder.name}.1.tmp")
    run.folder.rename(half)
    assert runs.of_weights(half / "model.safetensors", "cpu") is None


def test_an_older_run_that_is_half_removed_is_not_there(project, monkeypatch):
    older, newer = make(), Recipe(stage="plain", seed=3, images=100)

    def killed(folder, **more):
        if (folder / "metrics.json").is_file():
            (folder / "metrics.json").unlink()
            raise KeyboardInterrupt

    monkeypatch.setattr(runs.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        make(newer)
    assert runs.find(RECIPE, "cpu") is None
    assert runs.find(newer, "cpu").metrics == METRICS
    assert older.folder.is_dir()


def test_whoever_is_killed_before_the_sums_leaves_none(project):
    run = make()
    with pytest.raises(KeyboardInterrupt), runs.changing("cpu"):
        runs.write_json(run.folder / "metrics.json", METRICS | {"val_correct": 0})
        raise KeyboardInterrupt
    assert not (project / "runs/SHA256SUMS").exists()
    runs.ensure_sums("cpu")
    assert "plain/cpu-s3/metrics.json" in check(project / "runs")
    (project / "runs/SHA256SUMS").write_text("as it is")
    runs.ensure_sums("cpu")
    assert (project / "runs/SHA256SUMS").read_text() == "as it is"


def test_one_process_at_a_time_changes_the_runs(project):
    """Or of two that add to one file, one would write over what the other has just added, and over its sums."""
    context = multiprocessing.get_context("fork")
    start = context.Barrier(2)

    def change(name):
        start.wait()
        for number in range(20):
            with runs.changing("cpu"):
                path = project / "runs/count.json"
                count = runs.read_json(path)["count"] if path.is_file() else 0
                runs.write_json(path, {"count": count + 1})
                runs.write_json(project / f"runs/{name}.json", {"number": number})

    processes = [context.Process(target=change, args=(name,)) for name in ("one", "other")]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert runs.read_json(project / "runs/count.json") == {"count": 40}
    assert check(project / "runs") == ["count.json", "one.json", "other.json"]


def test_large_weights_are_looked_for_in_the_cache(project):
    run = make()
    cached = runs.cache(RECIPE) / "model.safetensors"
    assert run.weights == run.folder / "model.safetensors"
    (run.folder / "model.safetensors").unlink()
    assert Run(run.folder).weights == cached


def check(folder):
    """What `sha256sum --check SHA256SUMS` does in a folder; the names that it has checked."""
    names = []
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        digest, name = line[:64], line[66:]
        assert line[64:66] == "  "
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
        names.append(name)
    return names


def test_the_sums_name_every_file_and_hold(project):
    make()
    runs.write_json(project / "runs/delivered.json", {})
    (project / "runs/plain/.cpu-s4.1.tmp").mkdir()
    (project / "runs/plain/.cpu-s4.1.tmp/half").write_text("")
    with runs.changing("cpu"):
        pass
    names = check(project / "runs")
    assert len(names) == 7
    assert {"delivered.json", "plain/cpu-s3/recipe.json", "plain/cpu-s3/model.safetensors"} < set(names)
    assert names == sorted(names)
    assert runs.sums("cpu") == (project / "runs/SHA256SUMS").read_text()  # the sums are not of themselves


def test_each_profile_has_sums_of_its_own_and_files_written_aside_are_left_out(project):
    for name in ("a.b", ".hidden", "plain/.aside"):
        files.write_bytes(project / "build/smoke/runs" / name, b"")
    runs.write_json(project / "runs/of_the_cpu.json", {})
    runs.ensure_sums("cpu")
    assert check(project / "runs") == ["of_the_cpu.json"]
    assert not (project / "build/smoke/runs/SHA256SUMS").exists()
    runs.ensure_sums("smoke")
    assert check(project / "build/smoke/runs") == ["a.b"]


def test_json_is_written_for_readers_of_differences(project):
    runs.write_json(project / "a.json", {"a": 1, "b": [2]})
    assert (project / "a.json").read_text() == '{\n "a": 1,\n "b": [\n  2\n ]\n}\n'


def test_the_sums_do_not_hang_on_the_name_of_the_folder_above(project, monkeypatch):
    hidden = project / ".hidden"
    monkeypatch.setattr(runs, "PROJECT", hidden)
    runs.write_json(hidden / "runs/delivered.json", {})
    with runs.changing("cpu"):
        pass
    assert check(hidden / "runs") == ["delivered.json"]


def test_the_environment_tells_what_numbers_may_depend_on(project):
    told = runs.environment(torch.device("cpu"))
    assert (
        told["packages"]["torch"] == torch.__version__.partition("+")[0]
        or told["packages"]["torch"] == torch.__version__
    )
    assert set(told["packages"]) == set(runs.PACKAGES)
    assert (told["device"], told["cores"]) == ("cpu", os.cpu_count())
    assert json.loads(json.dumps(told)) == told


def test_the_code_digest_changes_with_the_code(project):
    (project / "hw2").mkdir()
    (project / "hw2/a.py").write_text("x = 1\n")
    first = runs.code_digest()
    (project / "hw2/a.py").write_text("x = 2\n")
    assert runs.code_digest() != first


CPU = "processor\t: 0\nmodel name\t: A: fast one\nmodel name\t: another\n"


@pytest.mark.parametrize(
    ("text", "name"), [(CPU, "A: fast one"), ("processor\t: 0\n", "unknown"), (None, "by platform")]
)
def test_the_hardware_is_the_processor_or_the_accelerator(monkeypatch, text, name):
    read_text = runs.Path.read_text

    def read(path, *words, **more):
        if str(path) != "/proc/cpuinfo":
            return read_text(path, *words, **more)
        if text is None:
            raise FileNotFoundError(path)
        return text

    monkeypatch.setattr(runs.Path, "read_text", read)
    monkeypatch.setattr(runs.platform, "processor", lambda: "by platform")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"accelerator {device.index}")
    assert runs.environment(torch.device("cpu"))["hardware"] == name
    assert runs.environment(torch.device("cuda", 1))["hardware"] == "accelerator 1"


def test_the_code_is_known_by_names_and_contents_of_its_files(project):
    for name in ("b.py", "a.py", "notes.txt"):
        files.write_bytes(project / "hw2" / name, f"in {name}".encode())
    told = b"a.py\0in a.py" + b"b.py\0in b.py"
    assert runs.code_digest() == hashlib.sha256(told).hexdigest()


def test_losses_of_the_first_steps_are_kept_in_two_columns(project):
    with runs.new_folder(RECIPE, "cpu") as folder:
        history = History(steps=[{"step": 0, "loss": 2.5}, {"step": 1, "loss": 0.1}])
        runs.write_training(folder, history, METRICS, torch.device("cpu"))
    run = runs.find(RECIPE, "cpu")
    assert (run.folder / "steps.csv").read_text() == "step,loss\n0,2.5\n1,0.1\n"


def test_a_runs_network_is_of_its_weights(project):
    assert same_bits(make(network=tiny_network(3)).network(), tiny_network(3))


def test_peak_memory_is_in_bytes():
    assert 2**26 < runs.peak_memory(torch.device("cpu")) < 2**40


STATUS = "VmPeak:\t  900 kB\nVmHWM:\t  123 kB\nVmRSS:\t  50 kB\n"


@pytest.mark.parametrize(
    ("status", "system", "expected"),
    [(STATUS, "Linux", 123 * 1024), ("", "Linux", 7 * 1024), (None, "FreeBSD", 7 * 1024), (None, "Darwin", 7)],
)
def test_peak_memory_is_what_the_system_says(monkeypatch, status, system, expected):
    import resource

    def read(path, *_):
        assert str(path) == "/proc/self/status"
        if status is None:
            raise FileNotFoundError(path)
        return status

    def usage(who):
        assert who == resource.RUSAGE_SELF
        return SimpleNamespace(ru_maxrss=7)

    monkeypatch.setattr(runs.Path, "read_text", read)
    monkeypatch.setattr(runs.platform, "system", lambda: system)
    monkeypatch.setattr(resource, "getrusage", usage)
    assert runs.peak_memory(torch.device("cpu")) == expected


def test_peak_memory_of_windows_is_not_known_and_an_accelerators_is_its_own(monkeypatch):
    monkeypatch.setattr(runs.Path, "read_text", lambda *_: "")
    monkeypatch.setitem(sys.modules, "resource", None)
    assert runs.peak_memory(torch.device("cpu")) is None
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 11 if device.index == 1 else 0)
    assert runs.peak_memory(torch.device("cuda", 1)) == 11


def test_what_a_run_keeps_of_its_answers_is_read_as_it_was_written(project):
    run = make()
    logits = np.arange(500, dtype=np.float16).reshape(50, 10)
    np.save(run.folder / "validation_logits.npy", logits)
    np.save(run.folder / "validation_classes.npy", logits[:, 0].astype(np.uint8))
    run.validation_logits[0] = 0  # the file stays
    again = Run(run.folder)
    assert again.validation_logits.numpy().tobytes() == logits.tobytes()
    assert again.validation_classes.tolist() == [10 * row % 256 for row in range(50)]


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.zeros((50, 10), np.float32), r"float32 \(50, 10\), expected float16 \(50, 10\)"),
        (np.zeros((49, 10), np.float16), r"float16 \(49, 10\), expected float16 \(50, 10\)"),
        (None, "no readable array .+; restore it with `git checkout`"),
    ],
)
def test_answers_of_another_kind_are_an_error(project, array, told):
    run = make()
    if array is not None:
        np.save(run.folder / "validation_logits.npy", array)
    with pytest.raises(InputError, match=rf"/validation_logits\.npy: {told}$"):
        _ = run.validation_logits


def test_measured_speeds_are_those_of_runs_whatever_the_profile(project, monkeypatch):
    monkeypatch.setenv("HW2_PROFILE", "smoke")
    with pytest.raises(InputError, match=r"bench\.json: no speeds"):
        runs.bench()
    slow, fast = ({"rows": [{"name": runs.PRODUCT, "median": rate}, {"name": "work", "median": 9}]} for rate in (1, 2))
    runs.write_json(project / "runs/bench.json", {"sittings": [slow, fast, slow]})
    assert (runs.sittings(), runs.bench()) == ([slow, fast, slow], fast)


def test_an_empty_ledger_has_the_ledgers_columns(project):
    assert tuple(runs.ledger("cpu").columns) == runs.LEDGER
    assert isinstance(runs.ledger("cpu"), pd.DataFrame)


FILES = [path.relative_to(PROJECT) for path in (PROJECT / "runs").glob("*/**/*") if path.is_file()]
FOLDERS = sorted({PROJECT / path.parent for path in FILES if not any(part[0] == "." for part in path.parts)})


def origin(folder):
    """Digest, environment and parents that a run's folder tells, after a look at whether they are whole."""
    fields, environment = runs.read_json(folder / "recipe.json"), runs.read_json(folder / "environment.json")
    recipe = recipes.read(fields)
    assert {name for name in recipes.FIRST if hasattr(recipe, name)} <= fields.keys()
    later = {"commit", "instruction_set", "flags", "lowered_by"}  # older runs lack all of them
    environment = environment.get("environments", [environment])[0]  # of the search's first trial
    told = environment.keys() - {"entered_by_hand"}
    assert told in (now := runs.environment(torch.device("cpu")).keys(), now - later)
    assert environment["packages"].keys() == set(runs.PACKAGES)
    assert re.fullmatch("[0-9a-f]{64}", environment["code"])
    return recipe.digest, environment, {fields[name] for name in ("teacher", "parent") if fields.get(name)}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: f"{folder.parent.name}/{folder.name}")
def test_every_committed_run_tells_its_recipe_environment_code_and_parents(folder):
    there = {runs.read_json(path / "recipe.json")["digest"] for path in FOLDERS}
    _, _, parents = origin(folder)
    assert parents <= there


def git(*words):
    return subprocess.run(["git", *words], cwd=PROJECT, capture_output=True, check=False).stdout


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: f"{folder.parent.name}/{folder.name}")
def test_the_commit_that_a_run_names_has_the_code_that_it_names(folder):
    told = runs.read_json(folder / "environment.json")
    for environment in told.get("environments", [told]):
        commit = environment.get("commit")
        if commit is None:
            assert "instruction_set" not in environment  # recorded before commits were
            continue
        listed = git("ls-tree", "-r", "--name-only", commit, "hw2/").decode().split()
        if not listed:
            pytest.skip(f"commit {commit} is not in this clone")
        digest = hashlib.sha256()
        for name in sorted(name for name in listed if name.endswith(".py")):
            digest.update(name.removeprefix("hw2/").encode() + b"\0" + git("show", f"{commit}:{name}"))
        assert environment["code"] == digest.hexdigest()


@pytest.mark.parametrize("name", ["recipe.json", "environment.json"])
@pytest.mark.parametrize("change", [lambda content: content.clear(), lambda content: content.popitem()])
def test_a_run_that_tells_less_is_seen(project, name, change):
    path = make().folder / name
    assert origin(path.parent)
    content = runs.read_json(path)
    change(content)
    runs.write_json(path, content)
    with pytest.raises((AssertionError, KeyError, InputError)):
        origin(path.parent)
