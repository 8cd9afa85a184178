"""The rubric fails what it should fail, on real weights and data."""

import gzip

import pytest
import torch

from hw2 import data, grading, networks, outcomes, runs, stages, training
from hw2.data import PROJECT
from hw2.errors import InputError

KEPT = {}


@pytest.fixture(scope="module")
def classes():
    return outcomes.delivered_classes()


@pytest.fixture(autouse=True)
def each_network_once(monkeypatch):
    """Ten thousand images take seconds: what a network predicts is kept from test to test."""
    predict = runs.predict

    def remembered(network, images):
        key = network.fc.weight.detach().numpy().tobytes(), len(images)
        if key not in KEPT:
            KEPT[key] = predict(network, images)
        return KEPT[key]

    monkeypatch.setattr(runs, "predict", remembered)


@pytest.fixture
def submission(tmp_path, classes):
    path = tmp_path / "submission.csv"
    grading.write_submission(path, classes)
    return path


def graded(weights=None, submission=PROJECT / "submission.csv", text=PROJECT / "report.md"):
    lines, _ = grading.grade(weights or stages.delivered().weights, submission, text, data.fashion_mnist())
    return {line.checked: line for line in lines}, lines


def test_the_delivered_network_fails_nothing_that_its_recorded_count_does_not():
    found, lines = graded()
    accuracy = found.pop("test accuracy at least 92.4%")
    enough = stages.delivered().metrics["test_correct"] >= 9240
    assert accuracy.verdict == (grading.PASS if enough else grading.FAIL)
    assert grading.FAIL not in [line.verdict for line in found.values()]
    assert [line.verdict for line in lines].count(grading.OPEN) == 1
    assert sum(int(line.share.removesuffix("%")) for line in lines if line.share) == 100


def test_too_many_parameters_and_too_low_an_accuracy_fail(tmp_path, submission):
    torch.manual_seed(0)
    networks.save(networks.ResNet14((16, 16, 32, 64)), tmp_path / "wide.safetensors")
    found, lines = graded(tmp_path / "wide.safetensors", submission)
    assert found["at most 100,000 parameters"].verdict == grading.FAIL
    assert found["test accuracy at least 92.4%"].verdict == grading.FAIL
    assert found["submission.csv"].verdict == grading.FAIL
    assert found["table and `Number of remaining parameters`"].verdict == grading.FAIL
    assert found["the model classifies a picture of each class"].verdict == grading.FAIL
    assert grading.failed(lines)


def test_one_parameter_decides(monkeypatch):
    for count, verdict in ((100_000, grading.PASS), (100_001, grading.FAIL)):
        monkeypatch.setattr(networks, "count_parameters", lambda network, count=count: count)
        monkeypatch.setattr(grading, "summary_table", lambda network: "Number of remaining parameters")
        assert graded()[0]["at most 100,000 parameters"].verdict == verdict


def test_one_image_decides(monkeypatch, classes):
    # Exactly 9,240 of 10,000 reach the baseline, 9,239 do not.
    labels = data.fashion_mnist().test_labels
    for correct, verdict in ((9240, grading.PASS), (9239, grading.FAIL)):
        forged = torch.where(torch.arange(10_000) < correct, labels, (labels + 1) % 10)
        monkeypatch.setattr(grading.runs, "read_test_set", lambda *_, forged=forged: forged)
        assert graded()[0]["test accuracy at least 92.4%"].verdict == verdict


def swap(path, line, text):
    lines = path.read_text().splitlines()
    lines[line] = text
    path.write_text("\n".join(lines) + "\n")


def test_a_whole_submission_passes(submission, classes):
    assert grading.check_submission(submission, classes) == (True, "10,000 rows, each what the weights predict")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda path, classes: path.write_text("\n".join(path.read_text().splitlines()[:-1])), "9,999 rows"),
        (lambda path, classes: swap(path, 3, "2,10"), "row 2: label '10'"),
        (lambda path, classes: swap(path, 3, "2,-1"), "row 2: label '-1'"),
        (lambda path, classes: swap(path, 3, "2,1.0"), "row 2: label '1.0'"),
        (lambda path, classes: swap(path, 3, "7,1"), "row 2: id '7'"),
        (lambda path, classes: swap(path, 3, f"2,{(int(classes[2]) + 1) % 10}"), "1 rows are not"),
    ],
)
def test_a_wrong_submission_fails_and_says_where(submission, classes, change, told):
    change(submission, classes)
    passed, text = grading.check_submission(submission, classes)
    assert not passed and told in text


@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe", b"a,b\n1,2\n", b"id;pred\n0;1\n", b'id,pred\n"0,1\n'])
def test_what_is_no_submission_is_refused(tmp_path, classes, content):
    path = tmp_path / "other.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"other\.csv: no submission"):
        grading.check_submission(path, classes)


def test_a_column_that_the_header_lacks_is_refused(submission, classes):
    header, *rows = submission.read_text().splitlines()
    submission.write_text("\n".join([header, *(f"x,{row}" for row in rows)]))
    with pytest.raises(InputError, match="no submission"):
        grading.check_submission(submission, classes)


def test_a_packed_submission_is_not_unpacked(submission, classes):
    path = submission.with_name("submission.csv.gz")
    path.write_bytes(gzip.compress(submission.read_bytes()))
    with pytest.raises(InputError, match="no submission"):
        grading.check_submission(path, classes)


@pytest.mark.parametrize(
    ("old", "new", "checked"),
    [
        ("311581010", "311581011", "name and student ID"),
        ("VainF/Torch-Pruning", "Torch-Pruning", "references"),
        ("BasicBlock-49", "BasicBlock-50", "table and `Number of remaining parameters`"),
        ("### Methods\n", "### Methods\n" + "word " * 100, "methods, at most 200 words"),
    ],
)
def test_a_report_that_lacks_a_part_fails_that_part(tmp_path, old, new, checked):
    text = (PROJECT / "report.md").read_text("utf-8")
    assert old in text
    (tmp_path / "report.md").write_text(text.replace(old, new), "utf-8")
    found, _ = graded(text=tmp_path / "report.md")
    found.pop("test accuracy at least 92.4%")
    assert [line.checked for line in found.values() if line.verdict == grading.FAIL] == [checked]


@pytest.fixture(scope="module")
def least_sure(classes):
    """Where rounding would decide, if it did: the 400 test images whose two largest logits are closest."""
    first, second = training.logits_of(stages.delivered().network(), data.fashion_mnist().test_images).topk(2)[0].T
    return (first - second).argsort()[:400]


def predicted(monkeypatch, threads, batch, images):
    logits_of = training.logits_of
    with monkeypatch.context() as patch, training.threads(threads):
        patch.setattr(training, "logits_of", lambda network, part, **more: logits_of(network, part, batch, **more))
        return training.predict(stages.delivered().network(), images)


def test_the_graded_classes_hang_on_neither_threads_nor_batch_size(monkeypatch, classes):
    threads = 2 if torch.get_num_threads() == 1 else 1  # `classes` came of this process's number, 100 at a time
    assert predicted(monkeypatch, threads, 1000, data.fashion_mnist().test_images).equal(classes)


# One image at a time takes long: those 400 stand for all 10,000.
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [1, 100, 1000])
def test_nor_do_those_of_the_least_sure_images(monkeypatch, classes, least_sure, threads, batch):
    images = data.fashion_mnist().test_images[least_sure]
    assert predicted(monkeypatch, threads, batch, images).equal(classes[least_sure])
