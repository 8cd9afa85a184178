"""Each kind of committed artefact, changed by a careless or a dishonest hand: what `make test` checks names it.

The careless hand forgets SHA256SUMS. The dishonest one writes the sums anew: replay or the report's check finds it.
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from functools import partial

import nbformat
import numpy as np
import pytest
import torch
from helpers import blacken, pytest_words, unlike_sums

from hw2 import data, networks, report
from hw2.data import PROJECT
from hw2.errors import InputError
from hw2.experiments import audit, replay, store
from hw2.experiments.run import Run
from hw2.files import read_csv, write_json
from hw2.report import style, write

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A copy of what is committed."""
    folder = tmp_path_factory.mktemp("copied")
    for name in ("runs", "figures", "notebooks"):
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


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("distilled/cpu-s0/model.safetensors", partial(flip, -1, 0x40)),
        ("compressed/cpu-s0/history.csv", partial(cell, -1, 4, better)),
        ("compressed/cpu-s0/environment.json", partial(field, "threads", more)),
        ("teacher/cpu-s0/soft_targets.npy", partial(flip, -1, 0x01)),
        ("tuning/cpu/trials.csv", partial(digit, r"\n.*\d")),
        ("test_ledger.csv", partial(cell, 1, 3, more)),
        ("delivered.json", partial(digit, r"cpu-s\d")),
        ("plain/cpu-s2/history.csv", lambda path: path.unlink()),
        ("plain/cpu-s2/stranger.csv", lambda path: path.write_text("")),
    ],
)
def test_what_is_changed_under_runs_is_named_by_its_sum(name, how, hand, committed):
    before = unlike_sums()
    hand(f"runs/{name}", how)
    assert [line for line in unlike_sums() if line not in before] == [f"runs/{name}: changed, missing or new"]


OUTPUTS = {
    "figures/arms.png": blacken,
    "figures/arms.json": partial(digit, r"\d{4}"),
    "figures/arms.svg": partial(digit, r"<path [^>]*?\d"),
    "report.md": partial(digit, r"\d\d\.\d\d"),
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
    (accurate,) = [one for one in printing if any("%" in output.get("text", "") for output in one.outputs)]
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


@pytest.fixture
def sums_made_anew(hand, committed):
    """Changes a file under runs/ and SHA256SUMS with it."""

    def change(name, how):
        hand(f"runs/{name}", how)
        hand("runs/SHA256SUMS", lambda path: path.write_text(store.sums("cpu")))
        assert unlike_sums() == []

    return change


@pytest.fixture
def replayed(committed, monkeypatch):
    """What replay finds in a run, less the first steps trained again, which are tests/test_replay.py's."""

    def lines(name):
        run = Run(committed / "runs" / name)
        recorded = read_csv(run.folder / "steps.csv", ("step", "loss")).loss.tolist()
        monkeypatch.setattr(replay, "first_losses", lambda *_: recorded)
        try:
            return replay.replay(run, CPU)
        except InputError as error:
            return [str(error)]

    return lines


def phase(name, path):
    """One image more right after a phase."""
    content = json.loads(path.read_text())
    content["phases"][name] += 1
    write_json(path, content)


def scaled(path):
    """Norms of the groups that are not the parent's."""
    content = json.loads(path.read_text())
    write_json(path, content | {"before": [[norm * 1.01 for norm in group] for group in content["before"]]})


def less(number):
    return number - 10_000


def copy_of(other, path):
    shutil.copy(path.parents[2] / other, path)


@pytest.mark.parametrize(
    ("name", "how", "told"),
    [
        ("compressed/cpu-s0/metrics.json", partial(field, "parameters", less), "85,956 parameters, metrics.json says"),
        ("pruned/cpu-s3/metrics.json", partial(field, "parameters", less), "85,956 parameters, metrics.json says"),
        ("teacher/cpu-s0/metrics.json", partial(field, "parameters", less), "23,528,522 parameters, metrics.json"),
        ("teacher/cpu-s0/metrics.json", partial(field, "test_correct", more), "9034 in the ledger"),
        ("plain/cpu-s1/metrics.json", partial(field, "val_correct", more), "not the accuracy of metrics.json"),
        ("plain/cpu-s1/metrics.json", partial(field, "val_total", lambda total: 4999), "validation images, the recipe"),
        ("plain/cpu-s1/metrics.json", lambda path: path.write_text("{}"), "val_correct Field required"),
        ("plain/cpu-s1/metrics.json", partial(field, "val_correct", str), "val_correct Input should be a valid int"),
        ("plain/cpu-s1/metrics.json", partial(field, "val_correct", lambda n: 5001), "more images are correct than"),
        ("plain/cpu-s1/environment.json", partial(field, "threads", lambda n: 0), "threads Input should be greater"),
        ("compressed/cpu-s1/metrics.json", partial(phase, "distilled"), "phase distilled counts"),
        ("compressed/cpu-s1/metrics.json", partial(phase, "sparse"), "phase sparse is not"),
        ("pruned/cpu-s3/group_norms.json", scaled, "not what the parent's weights give"),
        ("plain/cpu-s1/history.csv", partial(copy_of, "plain/cpu-s0/history.csv"), "not the accuracy of metrics.json"),
        ("test_ledger.csv", partial(cell, 1, 4, more), "is no count of test images"),
        ("bench.json", partial(field, "rows", lambda rows: []), "rows List should have at least 1 item"),
        ("delivered.json", partial(field, "run", lambda name: "../compressed/cpu-s0"), "run String should match"),
    ],
)
def test_with_the_sums_made_anew_the_audit_finds(name, how, told, sums_made_anew, committed, monkeypatch):
    names = {name.rpartition("/")[0], "distilled/cpu-s0", "distilled/cpu-s1", "vanilla/cpu-s3"}  # it, and parents
    few = [run for run in store.every("cpu") if run.name in names]
    monkeypatch.setattr(store, "every", lambda profile: few)  # the other runs are as they were
    sums_made_anew(name, how)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "made", lambda source: dict.fromkeys([] if source.bench and source.delivered else "?"))
        try:
            problems = write.stale("cpu", committed)
        except InputError as error:
            problems = [str(error)]
    assert any(told in line for line in problems), problems


def test_the_audit_finds_a_run_in_anothers_place_a_copied_seed_and_a_seed_too_many(committed, hand, tmp_path):
    (committed / "cache").mkdir(exist_ok=True)
    shutil.move(committed / "runs/plain/cpu-s1", tmp_path)
    shutil.copytree(committed / "runs/plain/cpu-s0", committed / "runs/plain/cpu-s1")
    shutil.copytree(tmp_path / "cpu-s1", committed / "runs/plain/cpu-s7")
    told = "\n".join(audit.problems("cpu"))
    for name in ("cpu-s1", "cpu-s7"):
        shutil.rmtree(committed / "runs/plain" / name)
    shutil.move(tmp_path / "cpu-s1", committed / "runs/plain")
    assert "plain/cpu-s1: its recipe is of plain, seed 0" in told
    assert "plain/cpu-s1: its history is that of plain/cpu-s0" in told
    assert "plain/cpu-s7: its recipe is of plain, seed 1" in told


@pytest.mark.parametrize(
    ("run", "file", "how", "told"),
    [
        ("finalist-1/cpu-s0", "validation_logits.npy", soften, "last loss of history.csv"),
        ("finalist-1/cpu-s0", "history.csv", partial(cell, -1, 4, better), "is not the accuracy of metrics.json"),
        ("finalist-1/cpu-s0", "history.csv", partial(cell, -1, 3, better), "last loss of history.csv"),
        ("finalist-1/cpu-s0", "history.csv", partial(cell, 1, 1, better), "learning rates of history.csv"),
        ("finalist-1/cpu-s0", "metrics.json", partial(field, "val_correct", lambda n: n + 20), "validation images"),
        ("plain/cpu-s0", "test_classes.npy", swap, "test_classes.npy is not what the weights predict"),
        ("plain/cpu-s0", "test_classes.npy", partial(flip, -1, 0x01), "the ledger's reading says"),
        ("teacher/cpu-s0", "soft_targets.npy", partial(flip, -1, 0x01), "soft_targets.npy: not what soft_targets.json"),
        ("vanilla/cpu-s3", "model.safetensors", nudge, "last loss of history.csv"),
    ],
)
def test_with_the_sums_made_anew_replay_finds(run, file, how, told, sums_made_anew, replayed):
    assert replayed(run) == []
    sums_made_anew(f"{run}/{file}", how)
    problems = replayed(run)
    assert any(told in problem for problem in problems), problems


def test_the_delivered_weights_are_known_to_the_last_bit(committed, sums_made_anew):
    name = store.delivered("cpu").name
    sums_made_anew(f"{name}/model.safetensors", partial(flip, -4, 0x01))
    with pytest.raises(InputError, match=rf"{name}: model\.safetensors is not the delivered one"):
        store.delivered("cpu")


def worst_trial(path):
    """One image more for the worst setting: the choice stays what it was."""
    column = path.read_text().splitlines()[0].split(",").index("val_correct")
    counts = [int(line.split(",")[column]) for line in path.read_text().splitlines()[1:]]
    cell(counts.index(min(counts)) + 1, column, more, path)


def test_with_the_sums_made_anew_the_reports_check_finds_what_figures_show(stale, sums_made_anew):
    sums_made_anew("compressed/cpu-s0/history.csv", partial(cell, 2, 4, better))
    sums_made_anew("teacher/cpu-s0/metrics.json", partial(field, "test_correct", more))
    sums_made_anew("tuning/cpu/trials.csv", worst_trial)
    sums_made_anew("bench.json", partial(digit, r'"ratio": \d'))
    figures = ("compressed_curves", "arms", "tuning", "speed")
    told = {line.partition(": ")[0] for line in stale(*figures)}
    assert told >= {f"figures/{figure}.json" for figure in figures}


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("test_ledger.csv", partial(cell, 1, 3, more)),
        # What no figure and no table shows: the report names the sums that it was made from.
        ("labels/cpu-s3/history.csv", partial(cell, 2, 2, better)),
        ("labels/cpu-s3/steps.csv", partial(cell, 5, 1, better)),
    ],
)
def test_with_the_sums_made_anew_the_report_names_others(name, how, committed, sums_made_anew):
    def named():
        return hashlib.sha256(store.sums_of("cpu").encode()).hexdigest() in (committed / "report.md").read_text("utf-8")

    assert named()
    sums_made_anew(name, how)
    assert not named()
