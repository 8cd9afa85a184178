"""The rubric fails what it should fail, on real weights and data."""

import gzip
from itertools import product

import pytest
import torch

from hw2 import data, grading, networks, training
from hw2.assignment import WORDS
from hw2.data import PROJECT
from hw2.errors import InputError
from hw2.experiments import environment, ledger, store
from hw2.experiments.run import root

DELIVERED = store.delivered(store.default_profile())
PREDICT = training.predict


@pytest.fixture(autouse=True)
def committed_answers(monkeypatch):
    """Ten thousand images take seconds: the delivered network gives its committed answers, any other one class 0.

    That the weights give these answers is for `test_the_graded_classes_hang_on...` below, replay and test_independent.
    """
    delivered = DELIVERED.network().fc.weight

    def kept(network, images):
        known = network.fc.weight.equal(delivered) and len(images) == 10_000
        return ledger.answers(DELIVERED, data.fashion_mnist()) if known else torch.zeros(len(images), dtype=torch.int64)

    monkeypatch.setattr(training, "predict", kept)


@pytest.fixture
def classes():
    return ledger.answers(DELIVERED, data.fashion_mnist())


@pytest.fixture
def submission(tmp_path, classes):
    path = tmp_path / "submission.csv"
    grading.write_submission(path, classes)
    return path


def graded(weights=DELIVERED.weights, submission=PROJECT / "submission.csv", text=PROJECT / "report.md"):
    lines, _ = grading.grade(weights, submission, text, data.fashion_mnist())
    return {line.checked: line for line in lines}, lines


def test_the_delivered_network_fails_nothing_that_its_recorded_count_does_not():
    found, lines = graded()
    assert found.pop("test accuracy at least 92.4%").ok is (DELIVERED.metrics["test_correct"] >= 9240)
    assert sorted(str(line.ok) for line in found.values()) == ["None", *["True"] * 7]
    assert sum(int(line.share.removesuffix("%")) for line in lines if line.share) == 100


@pytest.mark.parametrize(("right", "ok"), [(8, True), (7, False)])
def test_eight_of_ten_pictures_will_do(monkeypatch, right, ok):
    shown = torch.eye(10)
    shown[right:] = shown[right:].roll(1, 1)
    monkeypatch.setattr(grading.pictures, "probabilities", lambda network, images: shown)
    line = graded()[0]["the model classifies a picture of each class"]
    assert (line.evidence, line.ok) == (f"{right} of 10 right", ok)


def test_the_methods_are_the_text_under_their_heading():
    assert grading.methods_section("# A\n\n### Methods\n\nOne.\n\nTwo.\n\n# B\n") == "One.\n\nTwo."
    assert (grading.methods_section("## Methods \nlast"), grading.methods_section("Methods\nnone")) == ("last", "")


def test_table_and_text_hold_every_line_and_the_text_counts_the_verdicts():
    words = ("one", "5%", "a", True, "long evidence"), ("one", "", "bb", False, "e"), ("x", "30%", "c", None, "d")
    lines = [grading.Line(*line) for line in words]
    told = ["one, 5%", "         pass  a: long evidence", "         fail  bb: e", "x, 30%", "not checkable  c: d"]
    assert grading.text(lines).splitlines() == [*told, "", "1 pass, 1 fail, 1 not checkable"]
    table = grading.table(lines)
    assert table.index.tolist() == ["one", "one", "x"]
    assert table.loc["x"].to_dict() == {"share": "30%", "checked": "c", "verdict": "not checkable", "evidence": "d"}
    assert grading.failed(lines) and not grading.failed(lines[::2])


def test_a_terminal_of_100_columns_holds_the_grade():
    assert max(map(len, grading.text(graded()[1]).splitlines())) <= 100


def test_a_layer_that_torchsummary_does_not_see_is_an_error():
    network = networks.ResNet14((4, 4, 4, 4))
    count = networks.count_parameters(network)
    assert grading.summary_table(network).endswith(f"\nNumber of remaining parameters: {count}")
    network.unseen = torch.nn.Parameter(torch.zeros(3))
    with pytest.raises(InputError, match=f"^torchsummary's total is not the network's {count + 3:,} parameters; check"):
        grading.summary_table(network)


def test_too_many_parameters_and_too_low_an_accuracy_fail(tmp_path, submission):
    torch.manual_seed(0)
    networks.save(networks.ResNet14((16, 16, 32, 64)), tmp_path / "wide.safetensors")
    _, lines = graded(tmp_path / "wide.safetensors", submission)
    failed = [line.checked for line in lines if line.ok is False]
    assert [line.split(" ")[0] for line in failed] == ["at", "test", "submission.csv", "table", "the"]
    assert grading.failed(lines)


def test_the_count_is_held_against_the_ledgers_reading_and_none_is_recorded(tmp_path, monkeypatch):
    before = {name: (root("cpu") / name).read_bytes() for name in ("test_ledger.csv", "SHA256SUMS")}
    unread = store.finished("vanilla", DELIVERED.profile)[0]
    assert ledger.reading(unread) is None
    graded(unread.weights)
    networks.save(networks.ResNet14((4, 4, 4, 4)), tmp_path / "strange.safetensors")
    graded(tmp_path / "strange.safetensors")
    assert {name: (root("cpu") / name).read_bytes() for name in before} == before
    monkeypatch.setattr(ledger, "reading", lambda run: (9999, 10_000))
    with pytest.raises(InputError, match="ledger's reading"):
        graded()


def test_the_report_is_read_before_the_test_set(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "predict", lambda *_: pytest.fail("the test set was read"))
    with pytest.raises(InputError, match=r"report\.md: no readable report \(.*No such file.*\)"):
        graded(text=tmp_path / "report.md")


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
def test_one_parameter_and_one_image_decide(monkeypatch, more):
    labels = data.fashion_mnist().test_labels
    forged = torch.where(torch.arange(10_000) < 9240 - more, labels, (labels + 1) % 10)
    monkeypatch.setattr(networks, "count_parameters", lambda network: 100_000 + more)
    monkeypatch.setattr(grading, "summary_table", lambda network: "Number of remaining parameters")
    monkeypatch.setattr(training, "predict", lambda *_: forged)
    monkeypatch.setattr(ledger, "of_weights", lambda *_: [])
    found, _ = graded()
    for checked in ("at most 100,000 parameters", "test accuracy at least 92.4%"):
        assert found[checked].ok is not bool(more)


@pytest.mark.parametrize("line", ["2,10", "2,-1", "2,1.0", "2,", "7,1", "2,{}", None])
def test_a_wrong_submission_fails_and_says_where(submission, classes, line):
    assert grading.check_submission(submission, classes)[0]
    lines = submission.read_text().splitlines()
    lines[3:4] = [line.format((int(classes[2]) + 1) % 10)] if line else []
    submission.write_text("\n".join(lines))
    ok, told = grading.check_submission(submission, classes)
    assert not ok and ("row 2" if line else "9,999 rows") in told


WRONG = [b"", b"\x00\xff\xfe", b"a,b\n1,2\n", b"id;pred\n0;1\n", b'id,pred\n"0,1\n', b"id,pred\nx,0,1\n"]


# pandas by itself unpacks a .gz, and takes a field too many for the name of its row
@pytest.mark.parametrize("content", [*WRONG, gzip.compress(b"id,pred\n0,1\n", mtime=0)])
def test_what_is_no_submission_is_refused(tmp_path, classes, content):
    path = tmp_path / "other.csv.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"other\.csv\.gz: no submission \(.+\)"):
        grading.check_submission(path, classes)


@pytest.mark.parametrize(
    ("old", "new", "checked"),
    [
        ("311581010", "311581011", "name and student ID"),
        ("VainF/Torch-Pruning", "Torch-Pruning", "references"),
        ("DefangChen/SimKD", "SimKD", "references"),
        ("陳彥儒", "", "name and student ID"),
        ("istillation", "eaching", "methods, at most 200 words"),
        ("BasicBlock-49", "BasicBlock-50", "table and `Number of remaining parameters`"),
    ],
)
def test_a_report_that_lacks_a_part_fails_that_part(tmp_path, old, new, checked):
    text = (PROJECT / "report.md").read_text("utf-8")
    assert old in text
    (tmp_path / "report.md").write_text(text.replace(old, new), "utf-8")
    found, _ = graded(text=tmp_path / "report.md")
    found.pop("test accuracy at least 92.4%")
    assert [line.checked for line in found.values() if line.ok is False] == [checked]


@pytest.mark.parametrize(("more", "ok"), [(0, True), (1, False)])
def test_one_word_decides(tmp_path, more, ok):
    text = (PROJECT / "report.md").read_text("utf-8")
    words = WORDS + more - len(grading.methods_section(text).split())
    (tmp_path / "report.md").write_text(text.replace("### Methods\n", "### Methods\n" + "word " * words), "utf-8")
    assert graded(text=tmp_path / "report.md")[0]["methods, at most 200 words"].ok == ok


@pytest.fixture(scope="module")
def least_sure():
    """Where rounding would decide, if it did: the 400 test images whose two largest logits are closest."""
    return training.margins(training.logits_of(DELIVERED.network(), data.fashion_mnist().test_images)).argsort()[:400]


# One image at a time takes long: those 400 stand for all 10,000, which are predicted once.
@pytest.mark.parametrize(("threads", "batch", "every"), [(2, 1000, True), *product((1, 2), (1, 100, 1000), (False,))])
def test_the_graded_classes_hang_on_neither_threads_nor_batch_size(
    monkeypatch, classes, least_sure, threads, batch, every
):
    logits_of, rows = training.logits_of, slice(None) if every else least_sure
    monkeypatch.setattr(training, "logits_of", lambda network, part: logits_of(network, part, batch))
    with environment.threads(threads):
        found = PREDICT(DELIVERED.network(), data.fashion_mnist().test_images[rows])
    assert found.equal(classes[rows])
