"""The rubric fails what it should fail, on real weights and data."""

import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import hw2
from hw2 import cli, data, grading, networks, training
from hw2.assignment import WORDS
from hw2.data import PROJECT
from hw2.errors import InputError
from hw2.experiments import ledger
from hw2.experiments.run import root
from hw2.experiments.store import Store
from hw2.files import write_bytes

DELIVERED = Store(Store().profile).delivered
TABLE = "table and number of remaining parameters"
METHODS = "methods, at most 200 words"
ACCURACY = "test accuracy at least 92.4%"


@pytest.fixture(autouse=True)
def committed_answers(monkeypatch, classes):
    """Ten thousand images take seconds: the delivered network gives its committed answers, any
    other one class 0.

    That the weights give these answers is for replay and test_independent.
    """
    delivered = DELIVERED.network().fc.weight

    def kept(network, images):
        return classes * int(network.fc.weight.equal(delivered))

    monkeypatch.setattr(training, "predict", kept)


@pytest.fixture(scope="module")
def classes():
    return ledger.answers(DELIVERED)


def graded():
    """What was checked -> its line."""
    return {line.checked: line for line in grading.grade(DELIVERED.weights)}


def test_the_delivered_network_fails_nothing_that_its_recorded_count_does_not(handed_in):
    found = graded()
    lines = list(found.values())
    assert found.pop(ACCURACY).ok is (DELIVERED.metrics["test_correct"] >= 9240)
    assert sorted(str(line.ok) for line in found.values()) == ["None", *["True"] * 7]
    assert sum(int(line.share.removesuffix("%")) for line in lines if line.share) == 100
    assert max(map(len, grading.text(lines).splitlines())) <= 100  # columns of a terminal


def test_a_layer_that_torchsummary_does_not_see_is_an_error():
    network = networks.ResNet14((4, 4, 4, 4))
    count = networks.count_parameters(network)
    assert grading.summary_table(network).endswith(f"\nNumber of remaining parameters: {count}")
    network.unseen = torch.nn.Parameter(torch.zeros(3))
    with pytest.raises(InputError, match=f"total is not the network's {count + 3:,} parameters"):
        grading.summary_table(network)


@pytest.fixture
def handed_in(tmp_path, monkeypatch):
    """A folder with copies of report.md and submission.csv, which are graded."""
    for name in ("report.md", "submission.csv"):
        shutil.copy(PROJECT / name, tmp_path)
    monkeypatch.setenv("HW2_OUT", str(tmp_path))
    return tmp_path


def test_the_count_is_held_against_the_ledgers_reading_and_none_is_recorded(handed_in, monkeypatch):
    path = root("full") / "test_ledger.csv"
    before = path.read_bytes()
    hw2.grade()
    assert path.read_bytes() == before
    monkeypatch.setattr(ledger, "reading", lambda run: (9999, 10_000))
    with pytest.raises(InputError, match="ledger's reading"):
        hw2.grade()


def verdicts(*options, **given):
    """The table of the notebook, after a look that the command prints the same lines."""
    table = hw2.grade(**given)
    printed = CliRunner().invoke(cli.app, ["grade", *options])
    assert printed.exit_code == (1 if "fail" in table.verdict.to_list() else 0)
    for row in table.itertuples():
        assert f"{row.verdict:>13}  {row.checked}: {row.evidence}\n" in printed.output
    return table.set_index("checked").verdict


def test_notebook_and_command_grade_the_files_that_are_there(handed_in):
    assert "fail" not in verdicts().to_list()
    (handed_in / "submission.csv").write_text("id,pred\n")
    assert verdicts()["submission.csv"] == "fail"
    (handed_in / "report.md").write_text("nothing here")
    failed = verdicts()
    told = ["submission.csv", TABLE, "name and student ID", METHODS, "references"]
    assert failed[failed == "fail"].index.to_list() == told
    given = PROJECT / "submission.csv"
    assert verdicts("--submission", str(given), submission=given)["submission.csv"] == "pass"


@pytest.mark.parametrize(
    ("name", "command", "content"),
    [
        ("submission.csv", "submit", None),
        ("submission.csv", "submit", b""),
        ("submission.csv", "submit", b"a,b\n1,2\n"),
        ("report.md", "report", b"\xe9"),
    ],
)
def test_a_file_that_cannot_be_graded_is_told_in_a_line(handed_in, name, command, content):
    (handed_in / name).unlink()
    if content is not None:
        (handed_in / name).write_bytes(content)
    told = rf"{name}: no readable \w+ \(.+\); `hw2 {command}` writes one$"
    with pytest.raises(InputError, match=told):
        hw2.grade()


def test_a_grade_reads_no_other_runs(handed_in, monkeypatch):
    read = Path.read_bytes
    paths = []
    monkeypatch.setattr(Path, "read_bytes", lambda path: paths.append(path) or read(path))
    hw2.grade()
    names = {path.name for path in paths if path.suffix == ".json"}
    assert names == {"delivered.json", "recipe.json"}
    assert {path.parent for path in paths if path.name == "recipe.json"} == {DELIVERED.folder}


def test_weights_of_ones_own_need_no_other_run(handed_in, monkeypatch):
    """Nor a README that can be written into, a search or a delivered network."""
    monkeypatch.setattr(data, "PROJECT", handed_in)
    weights = shutil.copy(DELIVERED.weights, handed_in / "mine.safetensors")
    write_bytes(handed_in / "runs/plain/full-s0/recipe.json", b"damaged")
    assert "fail" not in verdicts("--weights", weights, weights=weights).to_list()


@pytest.mark.parametrize("more", [0, 1])
def test_one_parameter_image_picture_or_word_decides(handed_in, monkeypatch, more):
    labels, shown = data.fashion_mnist().test_labels, torch.eye(10)
    shown[8 - more :] = shown[8 - more :].roll(1, 1)
    forged = torch.where(torch.arange(10_000) < 9240 - more, labels, (labels + 1) % 10)
    monkeypatch.setattr(networks, "count_parameters", lambda network: 100_000 + more)
    monkeypatch.setattr(grading, "summary_table", lambda network: "Number of remaining parameters")
    monkeypatch.setattr(grading.pictures, "probabilities", lambda network, images: shown)
    monkeypatch.setattr(training, "predict", lambda *_: forged)
    text = (PROJECT / "report.md").read_text("utf-8")
    words = "word " * (WORDS + more - len(grading.methods_section(text).split()))
    text = text.replace("### Methods\n", "### Methods\n" + words)
    (handed_in / "report.md").write_text(text, "utf-8")
    found = graded()
    demo = "a picture of each class, at least 8 right"
    for checked in ("at most 100,000 parameters", ACCURACY, METHODS, demo):
        assert found[checked].ok is not bool(more)


def test_a_wrong_submission_fails_and_says_where(tmp_path, classes):
    path, wrong = tmp_path / "submission.csv", classes.clone()
    path.write_text(grading.submission_text(classes))
    assert grading.check_submission(path, classes)[0]
    wrong[2] = (wrong[2] + 1) % 10
    for given, told in ((wrong, "row 2"), (classes[1:], "9,999 rows")):
        path.write_text(grading.submission_text(given))
        ok, evidence = grading.check_submission(path, classes)
        assert not ok and told in evidence


@pytest.mark.parametrize(
    ("old", "new", "checked"),
    [
        ("311581010", "311581011", "name and student ID"),
        ("陳彥儒", "", "name and student ID"),
        ("VainF/Torch-Pruning", "Torch-Pruning", "references"),
        ("istillation", "eaching", METHODS),
        ("BasicBlock-49", "BasicBlock-50", TABLE),
    ],
)
def test_a_report_that_lacks_a_part_fails_that_part(handed_in, old, new, checked):
    text = (PROJECT / "report.md").read_text("utf-8")
    assert old in text
    (handed_in / "report.md").write_text(text.replace(old, new), "utf-8")
    found = graded()
    found.pop(ACCURACY)
    assert [line.checked for line in found.values() if line.ok is False] == [checked]
