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
from hw2.experiments import environment, ledger
from hw2.experiments.run import root
from hw2.experiments.store import Store
from hw2.files import write_bytes

DELIVERED = Store(Store().profile).delivered
PREDICT = training.predict


@pytest.fixture(autouse=True)
def committed_answers(monkeypatch, classes):
    """Ten thousand images take seconds: the delivered network gives its committed answers, any
    other one class 0.

    That the weights give these answers is for `test_the_graded_classes_hang_on...` below, replay
    and test_independent.
    """
    delivered = DELIVERED.network().fc.weight

    def kept(network, images):
        return (
            classes
            if network.fc.weight.equal(delivered)
            else torch.zeros(len(images), dtype=torch.int64)
        )

    monkeypatch.setattr(training, "predict", kept)


@pytest.fixture(scope="module")
def classes():
    return ledger.answers(DELIVERED, data.fashion_mnist())


def graded(
    weights=DELIVERED.weights, submission=PROJECT / "submission.csv", text=PROJECT / "report.md"
):
    lines = grading.grade(weights, submission, text, data.fashion_mnist())
    return {line.checked: line for line in lines}, lines


def test_the_delivered_network_fails_nothing_that_its_recorded_count_does_not():
    found, lines = graded()
    assert found.pop("test accuracy at least 92.4%").ok is (
        DELIVERED.metrics["test_correct"] >= 9240
    )
    assert sorted(str(line.ok) for line in found.values()) == ["None", *["True"] * 7]
    assert sum(int(line.share.removesuffix("%")) for line in lines if line.share) == 100
    assert max(map(len, grading.text(lines).splitlines())) <= 100  # columns of a terminal


def test_table_and_text_tell_every_line_and_only_a_failure_fails():
    words = (
        ("one", "5%", "a", True, "long evidence"),
        ("one", "", "bb", False, "e"),
        ("x", "30%", "c", None, "d"),
    )
    lines = [grading.Line(*line) for line in words]
    *_, last, _, count = grading.text(lines).splitlines()
    assert (last, count) == ("not checkable  c: d", "1 pass, 1 fail, 1 not checkable")
    assert grading.table(lines).verdict.tolist() == ["pass", "fail", "not checkable"]
    assert grading.failed(lines) and not grading.failed(lines[::2])


def test_a_layer_that_torchsummary_does_not_see_is_an_error():
    network = networks.ResNet14((4, 4, 4, 4))
    count = networks.count_parameters(network)
    assert grading.summary_table(network).endswith(f"\nNumber of remaining parameters: {count}")
    network.unseen = torch.nn.Parameter(torch.zeros(3))
    with pytest.raises(
        InputError,
        match=f"^torchsummary's total is not the network's {count + 3:,} parameters; check",
    ):
        grading.summary_table(network)


def test_the_count_is_held_against_the_ledgers_reading_and_none_is_recorded(tmp_path, monkeypatch):
    path = root("full") / "test_ledger.csv"
    before = path.read_bytes()
    unread = Store(DELIVERED.profile).runs("vanilla")[0]
    assert ledger.reading(unread) is None
    graded(unread.weights)
    networks.save(networks.ResNet14((4, 4, 4, 4)), tmp_path / "strange.safetensors")
    graded(tmp_path / "strange.safetensors")
    assert path.read_bytes() == before
    monkeypatch.setattr(ledger, "reading", lambda run: (9999, 10_000))
    with pytest.raises(InputError, match="ledger's reading"):
        graded()


@pytest.fixture
def handed_in(tmp_path, monkeypatch):
    """A folder with copies of report.md and submission.csv, which are graded."""
    for name in ("report.md", "submission.csv"):
        shutil.copy(PROJECT / name, tmp_path)
    monkeypatch.setenv("HW2_OUT", str(tmp_path))
    return tmp_path


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
    assert failed[failed == "fail"].index.to_list() == [
        "submission.csv",
        "table and number of remaining parameters",
        "name and student ID",
        "methods, at most 200 words",
        "references",
    ]
    given = PROJECT / "submission.csv"
    assert verdicts("--submission", str(given), submission=given)["submission.csv"] == "pass"


@pytest.mark.parametrize("content", [b"\xe9", None])
@pytest.mark.parametrize(
    ("name", "command"), [("submission.csv", "submit"), ("report.md", "report")]
)
def test_a_file_that_cannot_be_graded_is_told_in_a_line(
    handed_in, monkeypatch, name, command, content
):
    if name == "report.md":  # it is read first
        monkeypatch.setattr(training, "predict", lambda *_: pytest.fail("the test set was read"))
    (handed_in / name).unlink()
    if content:
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


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [("bn1.running_var", -1.0, "a negative variance"), ("fc.weight", 3e38, "logits overflow")],
)
def test_weights_that_no_training_leaves_are_refused_and_not_graded(tmp_path, name, value, told):
    network = DELIVERED.network()
    network.state_dict()[name].fill_(value)
    networks.save(network, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=told):
        PREDICT(networks.load(tmp_path / "a.safetensors"), data.fashion_mnist().test_images[:10])


@pytest.mark.parametrize("more", [0, 1])
def test_one_parameter_image_picture_or_word_decides(tmp_path, monkeypatch, more):
    labels, shown = data.fashion_mnist().test_labels, torch.eye(10)
    shown[8 - more :] = shown[8 - more :].roll(1, 1)
    forged = torch.where(torch.arange(10_000) < 9240 - more, labels, (labels + 1) % 10)
    monkeypatch.setattr(networks, "count_parameters", lambda network: 100_000 + more)
    monkeypatch.setattr(grading, "summary_table", lambda network: "Number of remaining parameters")
    monkeypatch.setattr(grading.pictures, "probabilities", lambda network, images: shown)
    monkeypatch.setattr(training, "predict", lambda *_: forged)
    monkeypatch.setattr(ledger, "of_weights", lambda *_: [])
    text = (PROJECT / "report.md").read_text("utf-8")
    words = "word " * (WORDS + more - len(grading.methods_section(text).split()))
    (tmp_path / "report.md").write_text(
        text.replace("### Methods\n", "### Methods\n" + words), "utf-8"
    )
    found, _ = graded(text=tmp_path / "report.md")
    for checked in (
        "at most 100,000 parameters",
        "test accuracy at least 92.4%",
        "methods, at most 200 words",
        "a picture of each class, at least 8 right",
    ):
        assert found[checked].ok is not bool(more)


@pytest.mark.parametrize("line", ["2,1.0", "2,", "7,1", "2,{}", None])
def test_a_wrong_submission_fails_and_says_where(tmp_path, classes, line):
    submission = tmp_path / "submission.csv"
    submission.write_text(grading.submission_text(classes))
    assert grading.check_submission(submission, classes)[0]
    lines = submission.read_text().splitlines()
    lines[3:4] = [line.format((int(classes[2]) + 1) % 10)] if line else []
    submission.write_text("\n".join(lines))
    ok, told = grading.check_submission(submission, classes)
    assert not ok and ("row 2" if line else "9,999 rows") in told


@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe", b"a,b\n1,2\n"])
def test_what_is_no_submission_is_refused(tmp_path, classes, content):
    path = tmp_path / "other.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"other\.csv: no readable submission \(.+\)"):
        grading.check_submission(path, classes)


@pytest.mark.parametrize(
    ("old", "new", "checked"),
    [
        ("311581010", "311581011", "name and student ID"),
        ("陳彥儒", "", "name and student ID"),
        ("VainF/Torch-Pruning", "Torch-Pruning", "references"),
        ("DefangChen/SimKD", "SimKD", "references"),
        ("istillation", "eaching", "methods, at most 200 words"),
        ("BasicBlock-49", "BasicBlock-50", "table and number of remaining parameters"),
    ],
)
def test_a_report_that_lacks_a_part_fails_that_part(tmp_path, old, new, checked):
    text = (PROJECT / "report.md").read_text("utf-8")
    assert old in text
    (tmp_path / "report.md").write_text(text.replace(old, new), "utf-8")
    found, _ = graded(text=tmp_path / "report.md")
    found.pop("test accuracy at least 92.4%")
    assert [line.checked for line in found.values() if line.ok is False] == [checked]


@pytest.fixture(scope="module")
def least_sure():
    """Where rounding would decide, if it did: of 2,000 test images the 100 whose two largest logits
    are closest.
    """
    logits = training.logits_of(DELIVERED.network(), data.fashion_mnist().test_images[:2000])
    return training.margins(logits).argsort()[:100]


@pytest.mark.parametrize(("threads", "batch"), [(1, 1), (1, 100), (2, 7)])
def test_the_graded_classes_hang_on_neither_threads_nor_batch_size(
    monkeypatch, classes, least_sure, threads, batch
):
    logits_of = training.logits_of
    monkeypatch.setattr(
        training, "logits_of", lambda network, part: logits_of(network, part, batch)
    )
    with environment.threads(threads):
        found = PREDICT(DELIVERED.network(), data.fashion_mnist().test_images[least_sure])
    assert found.equal(classes[least_sure])
