"""Each kind of committed artefact, changed by a careless or a dishonest hand: what finds it, and what nothing finds.

The careless hand forgets SHA256SUMS. The dishonest one makes sums, report and notebooks anew: docs/trust.md has CASES.
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import nbformat
import numpy as np
import pytest
import torch
from helpers import blacken, pytest_words

from hw2 import data, networks, report
from hw2.data import PROJECT
from hw2.experiments import catalogue, check, recipes, replay, store
from hw2.experiments.run import Run
from hw2.files import read_json, sha256, write_json
from hw2.report import style, write

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A copy of what is committed."""
    folder = tmp_path_factory.mktemp("copied")
    for name in ("runs", "figures", "notebooks", "docs"):
        shutil.copytree(PROJECT / name, folder / name)
    for path in (*PROJECT.glob("*.md"), PROJECT / "submission.csv"):
        shutil.copy(path, folder)
    return folder


@pytest.fixture
def hand(copied):
    """Changes a file of the copy, which is put back afterwards."""
    kept = {}

    def change(name, how):
        path = copied / name
        kept.setdefault(path, path.read_bytes() if path.is_file() else None)
        how(path)

    yield change
    for path, content in kept.items():
        path.unlink(missing_ok=True) if content is None else path.write_bytes(content)


@pytest.fixture
def committed(copied, monkeypatch, no_training):
    """The copy in the place of the project's own; nothing is trained there."""
    monkeypatch.setattr(data, "PROJECT", copied)
    return copied


@pytest.fixture
def stale(committed, monkeypatch):
    """What the report's check says of the copy; of the figures only the one that should change is drawn again."""
    files = style.files

    def found(*drawn_again):
        def drawn(plot, source):
            (name,) = [name for name, one in report.FIGURES.items() if one is plot]
            if name in drawn_again:
                return files(plot, source)
            return {kind: (committed / f"figures/{name}.{kind}").read_bytes() for kind in ("png", "svg", "json")}

        monkeypatch.setattr(style, "files", drawn)
        monkeypatch.setattr(check, "of_store", lambda profile: [])
        return write.stale("cpu", committed)

    return found


def flip(place, bits, path):
    """One byte with other bits."""
    content = bytearray(path.read_bytes())
    content[place] ^= bits
    path.write_bytes(content)


def cell(line, column, value, path):
    """One number of a CSV file, lines counted with the header."""
    lines = [text.split(",") for text in path.read_text().splitlines()]
    lines[line][column] = repr(value(json.loads(lines[line][column])))
    path.write_text("".join(",".join(row) + "\n" for row in lines))


def field(name, value, path):
    """One number of a JSON file."""
    content = json.loads(path.read_text())
    write_json(path, content | {name: value(content[name])})


def digit(pattern, path):
    """The last digit of the pattern's first match."""
    text = path.read_text("utf-8")
    place = re.search(pattern, text).end() - 1
    path.write_text(f"{text[:place]}{(int(text[place]) + 1) % 10}{text[place + 1 :]}", "utf-8")


def more(number):
    return number + 1


def better(share):
    return share + 0.01


OUTPUTS = {
    "figures/arms.png": blacken,
    "figures/arms.json": partial(digit, r"\d{4}"),
    "figures/arms.svg": partial(digit, r"<path [^>]*?\d"),
    "report.md": partial(digit, r"\d\d\.\d\d"),
    "docs/speed.md": partial(digit, r"\d\.\d\d"),
    "model_card.md": partial(digit, r"SHA-256 `\D*\d"),
    "README.md": partial(digit, r"parameters, \*\*\d\d\.\d\d"),
    "submission.csv": partial(digit, r"\n0,\d"),
}


def test_changed_outputs_are_named_and_left_as_they_are(committed, stale, hand):
    assert stale() == []
    for name, how in OUTPUTS.items():
        hand(name, how)
    changed = {name: (committed / name).read_bytes() for name in OUTPUTS}
    assert sorted(problem.partition(": ")[0] for problem in stale("arms")) == sorted(OUTPUTS)
    assert {name: (committed / name).read_bytes() for name in OUTPUTS} == changed


def test_a_changed_number_of_a_notebook_is_named_by_its_cell(tmp_path):
    """With the flags of `make test`, on the first cells that print."""
    notebook = nbformat.read(PROJECT / "notebooks/01_teacher.ipynb", as_version=4)
    printing = [one for one in notebook.cells if one.cell_type == "code" and "report.show" not in one.source]
    accurate = next(one for one in printing if any("%" in output.get("text", "") for output in one.outputs))
    notebook.cells = [*printing[:2], accurate]
    output = accurate.outputs[-1]
    output.text, count = re.subn(r"\d(?=%)", lambda found: str((int(found[0]) + 1) % 10), output.text)
    assert count == 1
    nbformat.write(notebook, tmp_path / "changed.ipynb")
    shutil.copy(PROJECT / "conftest.py", tmp_path)
    flags = [word for word in pytest_words()[0] if word.startswith("-")]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *flags, "changed.ipynb"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.findall(r"^FAILED (.*::Cell \d+)", done.stdout, re.MULTILINE) == ["changed.ipynb::Cell 2"]
    assert "1 failed, 2 passed" in done.stdout


def soften(path):
    """Logits of the first images that are surer than the network was."""
    logits = np.load(path)
    logits[:500] *= 1.5
    np.save(path, logits)


def nudge(path):
    """Weights changed so little that every count may stay as it was."""
    network = networks.load(path)
    with torch.no_grad():
        network.fc.bias[0] += 0.2
    networks.save(network, path)


def swap(path):
    """Two wrong answers changed for other wrong ones: the count stays."""
    classes, labels = np.load(path), data.fashion_mnist().test_labels.numpy()
    wrong = np.flatnonzero(classes != labels)[:2]
    classes[wrong] = [next(one for one in range(10) if one not in (classes[row], labels[row])) for row in wrong]
    np.save(path, classes)


def copied_from(other, path):
    shutil.copy(path.parents[2] / other / path.name, path)


def drop(line, path):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:line] + lines[line + 1 :]))


def remake(path, **change):
    """A recipe of other values, with its right digest."""
    recipe = replace(catalogue.read(read_json(path)), **change)
    write_json(path, recipes.written(recipe))


def phase(name, path):
    metrics = read_json(path)
    write_json(path, metrics | {"phases": metrics["phases"] | {name: metrics["phases"][name] + 10}})


def norm(when, path):
    norms = read_json(path)
    norms[when][0][0] += 0.01
    write_json(path, norms)


def other_views(path):
    """Soft targets of the last view, of training images, and their note."""
    targets = np.load(path, mmap_mode="r+")
    targets[-1, :100] += 1
    targets.flush()
    note = path.with_suffix(".json")
    write_json(note, read_json(note) | {"sha256": sha256(path)})


def delivered(run, path):
    write_json(path, {"run": run, "sha256": sha256(path.parent / run / "model.safetensors")})


class Case(NamedTuple):
    """A change under runs/, made after which sums, report and notebooks are made anew; who sees it, in which words."""

    what: str
    seen: str  # check, replay or nothing
    told: str
    changes: dict  # file, or run (all its files) -> what is done to its path


ARM, PLAIN, PRUNED, LEDGER = "finalist-1/cpu-s0", "plain/cpu-s1", "pruned/cpu-s3", "test_ledger.csv"
counted = partial(field, "val_correct", lambda count: count + 20)
scored = partial(cell, -1, 4, lambda share: (share * 5000 + 20) / 5000)
one_right = partial(field, "test_correct", more)
CASES = [
    Case("parameters of metrics.json", "check", "85,956 parameters, metrics.json says 75,956",
         {"compressed/cpu-s0/metrics.json": partial(field, "parameters", lambda count: count - 10_000)}),
    Case("validation count of metrics.json", "check", "the last epoch of history.csv is not",
         {f"{ARM}/metrics.json": counted}),
    Case("validation count in metrics.json and history.csv, answers kept", "check", "validation images are right",
         {f"{ARM}/metrics.json": counted, f"{ARM}/history.csv": scored}),
    Case("validation count in metrics.json and history.csv, weights kept", "replay", "validation images are right",
         {f"{PLAIN}/metrics.json": counted, f"{PLAIN}/history.csv": scored}),
    Case("last validation loss of history.csv, logits kept", "check", "the last loss of history.csv",
         {f"{ARM}/history.csv": partial(cell, -1, 3, better)}),
    Case("last validation loss of history.csv, weights kept", "replay", "the last loss of history.csv",
         {f"{PLAIN}/history.csv": partial(cell, -1, 3, better)}),
    Case("an earlier accuracy of history.csv that is no count", "check", "is no count of 5000 images",
         {f"{ARM}/history.csv": partial(cell, 1, 4, lambda share: share + 0.00001)}),
    Case("an earlier accuracy of history.csv, by whole images", "nothing", "",
         {f"{ARM}/history.csv": partial(cell, 1, 4, lambda share: (round(share * 5000) + 5) / 5000)}),
    Case("a learning rate of history.csv", "check", "the learning rates of history.csv",
         {f"{ARM}/history.csv": partial(cell, 1, 1, better)}),
    Case("an epoch left out of history.csv", "check", "history.csv has not the 3 epochs",
         {f"{ARM}/history.csv": partial(drop, 1)}),
    Case("a step left out of steps.csv", "check", "steps.csv has not the 20 steps",
         {f"{ARM}/steps.csv": partial(drop, 5)}),
    Case("logits surer than they were", "check", "the last loss of history.csv",
         {f"{ARM}/validation_logits.npy": soften}),
    Case("kept answers removed", "check", "validation_logits.npy is missing",
         {f"{ARM}/validation_logits.npy": lambda path: path.unlink()}),
    Case("weights", "replay", "the last loss of history.csv", {"vanilla/cpu-s3/model.safetensors": nudge}),
    Case("weights that are delivered", "check", "is not the delivered one",
         {"compressed/cpu-s0/model.safetensors": partial(flip, -4, 0x01)}),
    Case("another seed's weights delivered", "check", "names compressed/cpu-s1, expected compressed/cpu-s0",
         {"delivered.json": partial(delivered, "compressed/cpu-s1")}),
    Case("test count of metrics.json", "check", "test images are right, the ledger has",
         {"plain/cpu-s0/metrics.json": one_right}),
    Case("the teacher's test count of metrics.json", "check", "test images are right, the ledger has",
         {"teacher/cpu-s0/metrics.json": one_right}),
    Case("the teacher's test count in metrics.json and ledger, no answers kept", "nothing", "",
         {"teacher/cpu-s0/metrics.json": one_right, LEDGER: partial(cell, 1, 3, more)}),
    Case("test count in metrics.json and ledger, answers kept", "check", "the ledger's reading says",
         {"plain/cpu-s0/metrics.json": one_right, LEDGER: partial(cell, 4, 3, more)}),
    Case("kept answers to the test set, their count unchanged", "replay", "test_classes.npy is not what the weights",
         {"plain/cpu-s0/test_classes.npy": swap}),
    Case("a row of the ledger removed", "check", "the ledger has no reading", {LEDGER: partial(drop, 1)}),
    Case("a row of the ledger twice", "check", "a recipe has two readings",
         {LEDGER: lambda path: path.write_text(path.read_text() + path.read_text().splitlines()[1] + "\n")}),
    Case("a row of the ledger under another run's name", "check", "is of the recipe of plain/cpu-s0",
         {LEDGER: lambda path: path.write_text(path.read_text().replace(",plain/cpu-s0", ",plain/cpu-s9"))}),
    Case("a date of the ledger", "nothing", "", {LEDGER: partial(digit, r"T\d\d:\d\d:\d")}),
    Case("phase: the parent's count", "check", "phase distilled",
         {f"{PRUNED}/metrics.json": partial(phase, "distilled")}),
    Case("phase: after sparse learning", "check", "phase sparse", {f"{PRUNED}/metrics.json": partial(phase, "sparse")}),
    Case("phase: pruned without sparse learning", "replay", "pruned again it is",
         {f"{PRUNED}/metrics.json": partial(phase, "pruned_without_sparse_learning")}),
    Case("phase: pruned after sparse learning", "nothing", "", {f"{PRUNED}/metrics.json": partial(phase, "pruned")}),
    Case("group norms before sparse learning", "check", "group_norms.json is not of the weights of vanilla/cpu-s3",
         {f"{PRUNED}/group_norms.json": partial(norm, "before")}),
    Case("group norms after sparse learning", "nothing", "", {f"{PRUNED}/group_norms.json": partial(norm, "after")}),
    Case("soft targets", "check", "not what soft_targets.json",
         {"teacher/cpu-s0/soft_targets.npy": partial(flip, -1, 0x01)}),
    Case("soft targets of training images and their sum, weights not in the cache", "nothing", "",
         {"teacher/cpu-s0/soft_targets.json": lambda path: None, "teacher/cpu-s0/soft_targets.npy": other_views}),
    Case("a seed removed", "check", "labels/cpu-s5 is not there", {"labels/cpu-s5": lambda path: path.unlink()}),
    Case("a run copied as a further seed", "check", "labels/cpu-s4 holds numbers or weights of labels/cpu-s3",
         {"labels/cpu-s4": lambda path: path.name == "recipe.json" or copied_from("labels/cpu-s3", path)}),
    Case("a recipe of another seed under a run's name", "check", "its seed is 7, 3 is asked for",
         {"labels/cpu-s3/recipe.json": partial(remake, seed=7)}),
    Case("a number of a recipe", "check", "its digest is not that of its numbers",
         {"labels/cpu-s3/recipe.json": partial(field, "images", more)}),
    Case("a trial's setting in trials.csv", "check", "trials.csv is not of its recipe's grid",
         {"tuning/cpu/trials.csv": partial(cell, 1, 1, more)}),
    Case("threads, hardware or seconds of a run", "nothing", "",
         {f"{ARM}/environment.json": partial(field, "cores", more),
          f"{ARM}/metrics.json": partial(field, "wall_s", more)}),
    Case("a speed of bench.json", "nothing", "", {"bench.json": partial(digit, r'"median": \d')}),
]  # fmt: skip


@pytest.fixture
def sums_made_anew(hand, committed):
    """Changes files under runs/ and SHA256SUMS with them."""

    def change(changes):
        for name, how in changes.items():
            path = committed / "runs" / name
            for one in sorted(path.iterdir()) if path.is_dir() else [path]:
                hand(one.relative_to(committed), how)
        hand("runs/SHA256SUMS", lambda path: path.write_text(store.sums("cpu")))

    return change


def replayed(run, monkeypatch):
    """What replay finds in a run, less the first steps trained again, which are tests/test_replay.py's."""
    monkeypatch.setattr(replay, "first_losses", lambda *_: run.steps.loss.tolist())
    return replay.replay(run, CPU).problems


def test_what_is_committed_passes_every_check(committed):
    assert check.of_store("cpu") == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_with_sums_report_and_notebooks_made_anew(case, sums_made_anew, committed, monkeypatch):
    """Of the runs only the changed ones, two that the ledger tells of, their parents and other seeds are looked at."""
    of_run, runs, touched = check.of_run, store.every("cpu"), {"/".join(name.split("/")[:2]) for name in case.changes}
    told = touched | ({"plain/cpu-s0", "teacher/cpu-s0"} if LEDGER in case.changes else set())
    near = {name.partition("/")[0] for name in told} | {"vanilla", "distilled"}
    monkeypatch.setattr(
        store,
        "every",
        lambda profile: [
            Run(run.folder) for run in runs if run.folder.parent.name in near and (run.folder / "recipe.json").is_file()
        ],
    )
    monkeypatch.setattr(check, "of_run", lambda run, fashion: of_run(run, fashion) if run.name in told else [])
    sums_made_anew(case.changes)
    lines = check.of_store("cpu")
    assert any(case.told in line for line in lines) if case.seen == "check" else lines == [], lines


def test_tests_of_a_tree_that_lacks_a_run_name_it_and_end(hand, copied):
    hand("runs/labels/cpu-s5/recipe.json", lambda path: path.unlink())
    code = "import sys, pathlib, pytest; from hw2 import data; data.PROJECT = pathlib.Path(sys.argv[1])"
    words = [sys.executable, "-c", f"{code}; sys.exit(pytest.main([sys.argv[2]]))", copied, __file__]
    done = subprocess.run(words, capture_output=True, text=True, cwd=PROJECT)
    assert done.returncode == 2 and "labels/cpu-s5" in done.stdout + done.stderr


@pytest.mark.weekly
@pytest.mark.parametrize("case", [case for case in CASES if case.seen != "check"], ids=lambda case: case.what)
def test_replay_sees_it_or_nothing_does(case, sums_made_anew, committed, monkeypatch):
    sums_made_anew(case.changes)
    names = {"/".join(name.split("/")[:2]) for name in case.changes}
    problems = [line for run in store.every("cpu") if run.name in names for line in replayed(run, monkeypatch)]
    assert any(case.told in line for line in problems) if case.seen == "replay" else problems == [], problems


def test_the_page_on_trust_shows_every_case():
    page = (PROJECT / "docs/trust.md").read_text("utf-8")
    words = {"check": "`hw2 report --check`", "replay": "`hw2 replay`", "nothing": "nothing, git excepted"}
    rows = [f"| {case.what} | {words[case.seen]} |" for case in CASES]
    assert re.findall(r"^\| .* \| (?:`hw2 re.*`|nothing, .*) \|$", page, re.MULTILINE) == rows


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("distilled/cpu-s0/model.safetensors", partial(flip, -1, 0x40)),
        ("test_ledger.csv", partial(cell, 1, 3, more)),
        ("plain/cpu-s2/history.csv", lambda path: path.unlink()),
        ("plain/cpu-s2/stranger.csv", lambda path: path.write_text("")),
    ],
)
def test_what_is_changed_under_runs_is_named_by_its_sum(name, how, hand, committed):
    hand(f"runs/{name}", how)
    assert list(check.sums("cpu")) == [f"{name}: changed, missing or new"]


def test_missing_sums_are_told_and_stay_missing(hand, committed, monkeypatch):
    monkeypatch.setattr(check, "of_run", lambda *_: [])
    hand("runs/SHA256SUMS", lambda path: path.unlink())
    assert check.of_store("cpu") == ["SHA256SUMS: missing"]
    assert not (committed / "runs/SHA256SUMS").exists()


@pytest.mark.parametrize(
    ("name", "how"),
    [
        # What no figure and no table shows: docs/figures.md names the sums that it was made from.
        ("labels/cpu-s3/history.csv", partial(cell, 2, 2, better)),
        ("labels/cpu-s3/steps.csv", partial(cell, 5, 1, better)),
    ],
)
def test_with_the_sums_made_anew_the_page_on_figures_names_others(name, how, committed, sums_made_anew):
    def named():
        page = (committed / "docs/figures.md").read_text("utf-8")
        return hashlib.sha256(store.sums_of("cpu").encode()).hexdigest() in page

    assert named()
    sums_made_anew({name: how})
    assert not named()
