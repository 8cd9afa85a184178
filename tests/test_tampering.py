"""Each kind of committed artefact, changed by a careless or a dishonest hand: what finds it, and what nothing finds.

The careless hand forgets SHA256SUMS. The dishonest one makes sums, report and notebooks anew: docs/trust.md has CASES.
"""

import re
import shutil
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from helpers import blacken, cell, contents, field

import conftest
from hw2 import data, networks
from hw2.data import PROJECT
from hw2.experiments import catalogue, check, recipes, replay, store
from hw2.experiments.run import Run, root
from hw2.experiments.store import Store
from hw2.files import read_json, sha256, write_json
from hw2.report import write
from hw2.report.source import Source

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
def committed(copied, monkeypatch, no_training):
    """The copy in the place of the project's own; nothing is trained there."""
    monkeypatch.setattr(data, "PROJECT", copied)
    return copied


@pytest.fixture
def hand(committed):
    """Changes files of the copy, which are put back afterwards; for a folder, each of its files."""
    kept = {}

    def change(changes):
        for name, how in changes.items():
            path = committed / name
            for one in sorted(path.iterdir()) if path.is_dir() else [path]:
                kept.setdefault(one, one.read_bytes() if one.is_file() else None)
                how(one)

    yield change
    for path, content in kept.items():
        path.unlink(missing_ok=True) if content is None else path.write_bytes(content)


def flip(place, bits, path):
    """One byte with other bits."""
    content = bytearray(path.read_bytes())
    content[place] ^= bits
    path.write_bytes(content)


def digit(pattern, path):
    """The last digit of the pattern's first match."""
    text = path.read_text("utf-8")
    place = re.search(pattern, text).end() - 1
    path.write_text(f"{text[:place]}{(int(text[place]) + 1) % 10}{text[place + 1 :]}", "utf-8")


more, less, better = (lambda value, by=by: value + by for by in (1, -10, 0.01))

OUTPUTS = {
    "figures/networks.png": blacken,
    "figures/networks.json": partial(digit, r"\d{4}"),
    "figures/networks.svg": partial(digit, r"<path [^>]*?\d"),
    "report.md": partial(digit, r"\d\d\.\d\d"),
    "docs/speed.md": partial(digit, r"\d\.\d\d"),
    "model_card.md": partial(digit, r"SHA-256 `\D*\d"),
    "README.md": partial(digit, r"parameters, \*\*\d\d\.\d\d"),
    "submission.csv": partial(digit, r"\n0,\d"),
}


def test_committed_outputs_are_what_runs_give_and_changed_ones_are_named(committed, hand, monkeypatch):
    made = write.made(Source("full"))  # once: drawing takes long
    monkeypatch.setattr(write, "made", lambda source: made)
    monkeypatch.setattr(check, "of_store", lambda profile: [])
    assert write.stale("full", committed) == []
    hand(OUTPUTS)
    before = contents(committed)
    assert sorted(problem.partition(": ")[0] for problem in write.stale("full", committed)) == sorted(OUTPUTS)
    assert contents(committed) == before


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
    """A wrong answer changed for another wrong one: the count stays."""
    classes, labels = np.load(path), data.fashion_mnist().test_labels.numpy()
    row = np.flatnonzero(classes != labels)[0]
    classes[row] = next(one for one in range(10) if one not in (classes[row], labels[row]))
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


def other_views(path):
    """Soft targets of the last view, of training images, and their note."""
    targets = np.load(path)
    targets[-1, :100] += 1
    np.save(path, targets)
    field("sha256", lambda _: sha256(path), path.with_suffix(".json"))


def delivered(run, path):
    write_json(path, {"run": run, "sha256": sha256(path.parent / run / "model.safetensors")})


class Case(NamedTuple):
    """A change under runs/, made after which sums, report and notebooks are made anew; who sees it, in which words."""

    what: str
    seen: str  # check, replay or nothing
    told: str
    changes: dict  # file, or run (all its files) -> what is done to its path


ARM, PLAIN, PRUNED, LEDGER = "finalist-1/full-s0", "plain/full-s1", "pruned/full-s3", "test_ledger.csv"
READING = (root("full") / LEDGER).read_text().partition(",plain/full-s0,")[0].count("\n")  # its line
counted = partial(field, "val_correct", lambda count: count + 20)
scored = partial(cell, -1, 4, lambda share: (share * 5000 + 20) / 5000)
one_right = partial(field, "test_correct", more)
CASES = [
    Case("parameters of metrics.json", "check", "85,956 parameters, metrics.json says 75,956",
         {"compressed/full-s0/metrics.json": partial(field, "parameters", lambda count: count - 10_000)}),
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
    Case("an epoch left out of history.csv", "check", "history.csv has not the 8 epochs",
         {f"{ARM}/history.csv": partial(drop, 1)}),
    Case("a step left out of steps.csv", "check", "steps.csv has not the 20 steps",
         {f"{ARM}/steps.csv": partial(drop, 5)}),
    Case("logits surer than they were", "check", "the last loss of history.csv",
         {f"{ARM}/validation_logits.npy": soften}),
    Case("kept answers removed", "check", "validation_logits.npy is missing",
         {f"{ARM}/validation_logits.npy": lambda path: path.unlink()}),
    Case("weights", "replay", "the last loss of history.csv", {"vanilla/full-s3/model.safetensors": nudge}),
    Case("weights that are delivered", "check", "not the delivered weights",
         {"compressed/full-s0/model.safetensors": partial(flip, -4, 0x01)}),
    Case("another seed's weights delivered", "check", "names compressed/full-s1, expected compressed/full-s0",
         {"delivered.json": partial(delivered, "compressed/full-s1")}),
    Case("test count of metrics.json", "check", "test images are right, the ledger has",
         {"plain/full-s0/metrics.json": one_right}),
    Case("the teacher's test count of metrics.json", "check", "test images are right, the ledger has",
         {"teacher/full-s0/metrics.json": one_right}),
    Case("test count in metrics.json and ledger, answers kept", "check", "the ledger's reading says",
         {"plain/full-s0/metrics.json": one_right, LEDGER: partial(cell, READING, 3, more)}),
    Case("kept answers to the test set, their count unchanged", "replay", "test_classes.npy is not what the weights",
         {"plain/full-s0/test_classes.npy": swap}),
    Case("a row of the ledger removed", "check", "its test set was not read", {LEDGER: partial(drop, READING)}),
    Case("a row of the ledger twice", "check", "a recipe has two readings",
         {LEDGER: lambda path: path.write_text(path.read_text() + path.read_text().splitlines()[1] + "\n")}),
    Case("a row of the ledger under another run's name", "check", "is of the recipe of plain/full-s0",
         {LEDGER: lambda path: path.write_text(path.read_text().replace(",plain/full-s0", ",plain/full-s9"))}),
    Case("a date of the ledger", "nothing", "", {LEDGER: partial(digit, r"T\d\d:\d\d:\d")}),
    Case("phase: the parent's count", "check", "phase distilled",
         {f"{PRUNED}/metrics.json": partial(field, "phases.distilled", less)}),
    Case("phase: after sparse learning", "check", "phase sparse",
         {f"{PRUNED}/metrics.json": partial(field, "phases.sparse", less)}),
    Case("phase: pruned without sparse learning", "replay", "pruned again it is",
         {f"{PRUNED}/metrics.json": partial(field, "phases.pruned_without_sparse_learning", less)}),
    Case("phase: pruned after sparse learning", "nothing", "",
         {f"{PRUNED}/metrics.json": partial(field, "phases.pruned", less)}),
    Case("group norms before sparse learning", "check", "group_norms.json is not of the weights of vanilla/full-s3",
         {f"{PRUNED}/group_norms.json": partial(field, "before.0.0", better)}),
    Case("group norms after sparse learning", "nothing", "",
         {f"{PRUNED}/group_norms.json": partial(field, "after.0.0", better)}),
    Case("sensitivity of the first group, pruned by half", "replay", "pruned again it is",
         {"distilled/full-s0/sensitivity.json": partial(field, "correct.0.2", less)}),
    Case("sensitivity of another group or ratio", "nothing", "",
         {"distilled/full-s0/sensitivity.json": partial(field, "correct.1.0", less)}),
    Case("sensitivity of other weights", "check", "not of these weights",
         {"distilled/full-s0/sensitivity.json": partial(field, "weights", lambda one: one[::-1])}),
    Case("soft targets", "check", "not what soft_targets.json",
         {"teacher/full-s0/soft_targets.npy": partial(flip, -1, 0x01)}),
    Case("soft targets of training images and their sum, weights not in the cache", "nothing", "",
         {"teacher/full-s0/soft_targets.json": lambda path: None, "teacher/full-s0/soft_targets.npy": other_views}),
    Case("a seed removed", "check", "labels/full-s5 is not there", {"labels/full-s5": lambda path: path.unlink()}),
    Case("a run copied as a further seed", "check", "labels/full-s4 holds numbers or weights of labels/full-s3",
         {"labels/full-s4": lambda path: path.name == "recipe.json" or copied_from("labels/full-s3", path)}),
    Case("a recipe of another seed under a run's name", "check", "its seed is 7, 3 is asked for",
         {"labels/full-s3/recipe.json": partial(remake, seed=7)}),
    Case("a number of a recipe", "check", "its digest is not that of its numbers",
         {"labels/full-s3/recipe.json": partial(field, "view_seed", more)}),
    Case("a trial's setting in trials.csv", "check", "trials.csv is not of its recipe's grid",
         {"tuning/full/trials.csv": partial(cell, 1, 1, more)}),
    Case("threads, hardware or seconds of a run", "nothing", "",
         {f"{ARM}/environment.json": partial(field, "cores", more),
          f"{ARM}/metrics.json": partial(field, "wall_s", more)}),
    Case("a speed of bench.json", "nothing", "", {"bench.json": partial(digit, r'"median": \d')}),
]  # fmt: skip


def change_with_sums(hand, case):
    hand({f"runs/{name}": how for name, how in case.changes.items()})
    hand({"runs/SHA256SUMS": lambda path: path.write_text(store.sums("full"))})


def replayed(run, monkeypatch):
    """What replay finds in a run, less the first steps trained again, which are tests/test_replay.py's."""
    monkeypatch.setattr(replay, "first_losses", lambda *_: run.steps.loss.tolist())
    return replay.replay(run, CPU).problems


def test_what_is_committed_passes_every_check(committed):
    assert check.of_store(Store("full")) == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_with_sums_report_and_notebooks_made_anew(case, hand, monkeypatch):
    """Of the runs only the changed ones, two that the ledger tells of, their parents and other seeds are looked at."""
    of_run, runs, touched = (
        check.of_run,
        Store("full").every(),
        {"/".join(name.split("/")[:2]) for name in case.changes},
    )
    told = touched | ({"plain/full-s0", "teacher/full-s0"} if LEDGER in case.changes else set())
    near = {name.partition("/")[0] for name in told} | {"vanilla", "distilled"}
    kept = [run.folder for run in runs if run.folder.parent.name in near]
    monkeypatch.setattr(Store, "every", lambda _: [Run(one) for one in kept if (one / "recipe.json").is_file()])
    monkeypatch.setattr(check, "of_run", lambda run, fashion: of_run(run, fashion) if run.name in told else [])
    change_with_sums(hand, case)
    lines = check.of_store(Store("full"))
    assert any(case.told in line for line in lines) if case.seen == "check" else lines == [], lines


def test_tests_of_a_tree_that_lacks_a_run_name_it_and_end(hand, committed):
    session = SimpleNamespace(config=SimpleNamespace())
    conftest.pytest_sessionstart(session)
    hand({"runs/labels/full-s5/recipe.json": lambda path: path.unlink()})
    with pytest.raises(pytest.exit.Exception, match="labels/full-s5"):
        conftest.pytest_sessionstart(session)


@pytest.mark.weekly
@pytest.mark.parametrize("case", [case for case in CASES if case.seen != "check"], ids=lambda case: case.what)
def test_replay_sees_it_or_nothing_does(case, hand, monkeypatch):
    change_with_sums(hand, case)
    names = {"/".join(name.split("/")[:2]) for name in case.changes}
    problems = [line for run in Store("full").every() if run.name in names for line in replayed(run, monkeypatch)]
    assert any(case.told in line for line in problems) if case.seen == "replay" else problems == [], problems


def test_the_page_on_trust_shows_every_case():
    page = (PROJECT / "docs/trust.md").read_text("utf-8")
    words = {"check": "`hw2 report --check`", "replay": "`hw2 replay`", "nothing": "nothing, git excepted"}
    rows = [f"| {case.what} | {words[case.seen]} |" for case in CASES]
    assert re.findall(r"^\| [^|]* \| (?:`hw2 re.*`|nothing, .*) \|$", page, re.MULTILINE) == rows


def test_what_is_changed_under_runs_is_named_by_its_sum(hand, committed):
    changes = {
        "distilled/full-s0/model.safetensors": partial(flip, -1, 0x40),
        "plain/full-s2/history.csv": lambda path: path.unlink(),
        "plain/full-s2/stranger.csv": lambda path: path.write_text(""),
        "test_ledger.csv": partial(cell, 1, 3, more),
    }
    hand({f"runs/{name}": how for name, how in changes.items()})
    assert list(check.sums("full")) == [f"{', '.join(changes)}: changed, missing or new"]


def test_missing_sums_are_told_and_stay_missing(hand, committed, monkeypatch):
    monkeypatch.setattr(check, "of_run", lambda *_: [])
    hand({"runs/SHA256SUMS": lambda path: path.unlink()})
    assert check.of_store(Store("full")) == ["SHA256SUMS: missing"]
    assert not (committed / "runs/SHA256SUMS").exists()
