"""Each kind of committed artefact, changed by a careless or a dishonest hand: what `make test` checks names it.

The careless hand forgets SHA256SUMS. The dishonest one writes the sums anew: replay or the report's check finds it.
"""

import json
import re
import shutil
import subprocess
import sys

import nbformat
import numpy as np
import pytest
import torch
from helpers import blacken, pytest_words, unlike_sums

from hw2 import networks, training
from hw2.data import PROJECT
from hw2.errors import InputError
from hw2.experiments import replay, stages
from hw2.experiments import store as runs
from hw2.report import outcomes, plots
from hw2.report import write as report


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A copy of what is committed."""
    folder = tmp_path_factory.mktemp("copied")
    for name in ("runs", "figures"):
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
def committed(copied, monkeypatch):
    """The copy in the place of the project's own runs; nothing is trained there."""

    def fail(*args, **more):
        raise AssertionError("something was trained")

    monkeypatch.setattr(training, "fit", fail)
    monkeypatch.setattr(runs, "PROJECT", copied)
    return copied


def flip(place, bits):
    """One byte with other bits."""

    def change(path):
        content = bytearray(path.read_bytes())
        content[place] ^= bits
        path.write_bytes(content)

    return change


def cell(line, column, value):
    """One number of a CSV file, lines counted with the header."""

    def change(path):
        lines = [text.split(",") for text in path.read_text().splitlines()]
        lines[line][column] = repr(value(json.loads(lines[line][column])))
        path.write_text("".join(",".join(row) + "\n" for row in lines))

    return change


def field(name, value):
    """One number of a JSON file."""

    def change(path):
        content = json.loads(path.read_text())
        content[name] = value(content[name])
        runs.write_json(path, content)

    return change


def digit(pattern):
    """The last digit of the pattern's first match."""

    def change(path):
        text = path.read_text("utf-8")
        place = re.search(pattern, text).end() - 1
        path.write_text(f"{text[:place]}{(int(text[place]) + 1) % 10}{text[place + 1 :]}", "utf-8")

    return change


def more(number):
    return number + 1


def better(share):
    return share + 0.01


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("distilled/cpu-s0/model.safetensors", flip(-1, 0x40)),
        ("distilled/cpu-s1/model.safetensors", flip(1000, 0x01)),
        ("compressed/cpu-s0/history.csv", cell(-1, 4, better)),
        ("compressed/cpu-s0/steps.csv", cell(1, 1, better)),
        ("compressed/cpu-s0/metrics.json", field("test_correct", more)),
        ("compressed/cpu-s0/recipe.json", field("seed", more)),
        ("compressed/cpu-s0/environment.json", field("threads", more)),
        ("teacher/cpu-s0/soft_targets.npy", flip(-1, 0x01)),
        ("teacher/cpu-s0/soft_targets.json", field("views", more)),
        ("vanilla/cpu-s3/validation_logits.npy", flip(-1, 0x01)),
        ("tuning/cpu/trials.csv", digit(r"\n.*\d")),
        ("test_ledger.csv", cell(1, 3, more)),
        ("bench.json", digit(r"\d\.\d")),
        ("delivered.json", digit(r"cpu-s\d")),
        ("plain/cpu-s2/history.csv", lambda path: path.unlink()),
        ("plain/cpu-s2/stranger.csv", lambda path: path.write_text("")),
    ],
)
def test_what_is_changed_under_runs_is_named_by_its_sum(name, how, hand, committed):
    before = unlike_sums()
    hand(f"runs/{name}", how)
    assert [line for line in unlike_sums() if line not in before] == [f"runs/{name}: changed, missing or new"]


@pytest.fixture(scope="module")
def stale(copied):
    """What the report's check has to say of the copy before it is changed."""
    return report.stale(copied)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("figures/arms.png", blacken),
        ("figures/arms.json", digit(r"\d{4}")),
        ("figures/tuning.svg", digit(r"<path [^>]*?\d")),
        ("report.md", digit(r"\d\d\.\d\d")),
        ("model_card.md", digit(r"SHA-256 `\D*\d")),
        ("README.md", digit(r"parameters, \*\*\d\d\.\d\d")),
        ("submission.csv", digit(r"\n0,\d")),
    ],
)
def test_a_changed_output_is_named_and_left_as_it_is(name, how, copied, stale, hand):
    hand(name, how)
    changed = (copied / name).read_bytes()
    (problem,) = [line for line in report.stale(copied) if line not in stale]
    assert problem.startswith(f"{name}: ")
    assert (copied / name).read_bytes() == changed


def test_a_changed_number_of_a_notebook_is_named_by_its_cell(tmp_path):
    """With the flags of `make test`, on the first cells that print."""
    notebook = nbformat.read(PROJECT / "notebooks/01_teacher.ipynb", as_version=4)
    printing = [one for one in notebook.cells if one.cell_type == "code" and "plots.show" not in one.source]
    notebook.cells = printing[:2]
    output = notebook.cells[1].outputs[-1]
    output.text, count = re.subn(r"\d(?=%)", lambda found: str((int(found[0]) + 1) % 10), output.text)
    assert count == 1
    nbformat.write(notebook, tmp_path / "changed.ipynb")
    shutil.copy(PROJECT / "conftest.py", tmp_path)
    flags = [word for word in pytest_words()[0] if word.startswith("-")]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *flags, "changed.ipynb"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.findall(r"^FAILED (.*::Cell \d+)", done.stdout, re.MULTILINE) == ["changed.ipynb::Cell 1"]
    assert "1 failed, 1 passed" in done.stdout


def soften(path):
    """Logits of the first images that are surer than the network was."""
    logits = np.load(path)
    logits[:500] *= 1.5
    np.save(path, logits)


def sums_anew(path):
    with runs.changing("cpu"):
        pass


@pytest.fixture
def sums_made_anew(hand, committed):
    """Changes a file under runs/ and SHA256SUMS with it."""

    def change(name, how):
        hand(f"runs/{name}", how)
        hand("runs/SHA256SUMS", sums_anew)
        assert unlike_sums() == []

    return change


@pytest.fixture
def replayed(committed, monkeypatch):
    """What replay finds in a run, less the first steps trained again, which are tests/test_replay.py's."""

    def lines(name):
        run = runs.Run(committed / "runs" / name)
        recorded = runs.read_csv(run.folder / "steps.csv", ("step", "loss")).loss.tolist()
        monkeypatch.setattr(replay, "first_losses", lambda run, device: recorded)
        try:
            return replay.replay(run, torch.device("cpu"))
        except InputError as error:
            return [str(error)]

    return lines


@pytest.mark.parametrize(
    ("run", "file", "how", "told"),
    [
        ("finalist-1/cpu-s0", "validation_logits.npy", soften, "history.csv has a loss of"),
        ("finalist-1/cpu-s0", "history.csv", cell(-1, 4, better), "is not the accuracy of metrics.json"),
        ("finalist-1/cpu-s0", "history.csv", cell(-1, 3, lambda loss: loss * 0.99), "history.csv has a loss of"),
        ("finalist-1/cpu-s0", "history.csv", cell(1, 1, lambda rate: rate * 0.99), "learning rates of history.csv"),
        ("finalist-1/cpu-s0", "metrics.json", field("val_correct", lambda count: count + 20), "validation images"),
        ("teacher/cpu-s0", "soft_targets.npy", flip(-1, 0x01), "soft_targets.npy: not what soft_targets.json"),
    ],
)
def test_with_the_sums_made_anew_replay_finds(run, file, how, told, sums_made_anew, replayed):
    assert replayed(run) == []
    sums_made_anew(f"{run}/{file}", how)
    problems = replayed(run)
    assert any(told in problem for problem in problems), problems


def test_with_the_sums_made_anew_replay_finds_other_weights(sums_made_anew, replayed):
    def nudge(path):
        network = networks.load(path)
        with torch.no_grad():
            network.fc.bias[0] += 0.2
        networks.save(network, path)

    sums_made_anew("vanilla/cpu-s3/model.safetensors", nudge)
    # So small a change may leave every count as it was: the loss tells.
    assert any("history.csv has a loss of" in problem for problem in replayed("vanilla/cpu-s3"))


def test_the_delivered_weights_are_known_to_the_last_bit(committed, sums_made_anew):
    name = stages.delivered().name
    sums_made_anew(f"{name}/model.safetensors", flip(-4, 0x01))
    with pytest.raises(InputError, match=rf"{name}: model\.safetensors is not the delivered one"):
        stages.delivered()


def worst_trial(path):
    """One image more for the worst setting: the choice stays what it was."""
    column = path.read_text().splitlines()[0].split(",").index("val_correct")
    counts = [int(line.split(",")[column]) for line in path.read_text().splitlines()[1:]]
    cell(counts.index(min(counts)) + 1, column, more)(path)


@pytest.mark.parametrize(
    ("name", "how", "figure", "told"),
    [
        ("compressed/cpu-s0/history.csv", cell(2, 4, better), "compressed_curves", "figures/compressed_curves.json"),
        ("teacher/cpu-s0/metrics.json", field("test_correct", more), "arms", "figures/arms.json"),
        ("tuning/cpu/trials.csv", worst_trial, "tuning", "figures/tuning.json"),
        ("test_ledger.csv", cell(1, 3, more), None, "report.md"),
        # What no figure and no table shows: the report names the sums that it was made from.
        ("labels/cpu-s3/history.csv", cell(2, 2, lambda loss: loss * 0.99), None, "report.md"),
        ("labels/cpu-s3/steps.csv", cell(5, 1, lambda loss: loss * 0.99), None, "report.md"),
        ("bench.json", digit(r'"median": \d'), "speed", "figures/speed.json"),
    ],
)
def test_with_the_sums_made_anew_the_reports_check_finds(
    name, how, figure, told, copied, stale, sums_made_anew, monkeypatch
):
    sums_made_anew(name, how)
    # Only the figure that should change is drawn again, and no network is asked again: weights are the committed ones.
    again, answers = plots.drawn.__wrapped__, outcomes.answers
    monkeypatch.setattr(report, "drawn", lambda one: again(one) if one == figure else plots.drawn(one))
    monkeypatch.setattr(outcomes, "answers", lambda folder: answers(PROJECT / folder.relative_to(copied)))
    assert told in {line.partition(": ")[0] for line in report.stale(copied) if line not in stale}
