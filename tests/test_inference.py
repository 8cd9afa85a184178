"""ONNX files compute what the network does, int8 nearly so, and `hw2 export` writes them whole."""

import copy
import logging
import re
import shutil
import sys

import numpy as np
import onnx
import pytest
import torch
from helpers import same_bits, tiny_network

import hw2
from hw2 import cli, inference, networks, training, views
from hw2.data import PROJECT
from hw2.errors import InputError


@pytest.fixture(scope="module")
def network():
    return hw2.load()


@pytest.fixture(scope="module")
def exported(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    inference.export(network, path)
    return path


@pytest.fixture(scope="module")
def quantised(exported, data):
    path = exported.with_name("model.int8.onnx")
    inference.quantise(exported, path, data.train_images[data.split[0][:200]])
    return path


@pytest.fixture(scope="module")
def validation(data):
    """300 images and labels of the validation split."""
    rows = data.split[1][:300]
    return data.train_images[rows], data.train_labels[rows]


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_the_file_gives_the_networks_logits_for_batches_of_any_size(network, exported, validation, count):
    images = views.normalise(validation[0][:count])
    with torch.no_grad():
        expected = network(images).numpy()
    found = inference.session(exported, threads=1)(images.numpy())
    assert found.dtype == np.float32 and found.shape == (count, 10)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)  # measured: 1e-5 apart


def test_the_file_gives_the_networks_classes_but_for_near_ties(network, exported, validation):
    logits = inference.session(exported)(views.normalise(validation[0]).numpy())
    different = logits.argmax(1) != training.predict(network, validation[0]).numpy()
    second, first = np.sort(logits, axis=1)[:, -2:].T
    assert not (different & (first - second > 1e-3)).any()


def test_exporting_is_quiet_and_leaves_a_network_in_training_as_it_is(tmp_path, data, capfd, caplog):
    network = tiny_network().train()
    network(views.normalise(data.train_images[:50]))  # moves BatchNorm's statistics off their defaults
    before = copy.deepcopy(network)
    inference.export(network, tmp_path / "model.onnx")
    inference.quantise(tmp_path / "model.onnx", tmp_path / "int8.onnx", data.train_images[:100])
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert same_bits(network, before) and all(module.training for module in network.modules())
    images = views.normalise(data.train_images[50:60])
    with torch.no_grad():
        expected = before.eval()(images).numpy()
    found = inference.session(tmp_path / "model.onnx")(images.numpy())
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_the_file_is_one_and_holds_no_folder_of_this_machine(exported, quantised):
    assert {path.name for path in exported.parent.iterdir()} == {exported.name, quantised.name}
    for path in (exported, quantised):
        assert str(PROJECT).encode() not in path.read_bytes()


def test_int8_is_smaller_and_agrees_on_most_classes(exported, quantised, validation):
    assert quantised.stat().st_size < exported.stat().st_size / 2  # measured: 0.35
    images = views.normalise(validation[0]).numpy()
    floats, integers = (inference.session(path)(images) for path in (exported, quantised))
    # Measured on all 5,000: 99.5 %; with weights in 8 bits on a CPU without VNNI: 90 %.
    assert (floats.argmax(1) == integers.argmax(1)).mean() > 0.97
    assert np.abs(floats - integers).max() > 1e-2


def test_correct_counts_over_every_batch(validation):
    images, labels = validation[0][:23], validation[1][:23].clone()
    shown = views.normalise(images).flatten(1)
    answers = np.eye(10, dtype=np.float32)[labels]

    def run(batch):
        """Answers right for each image, by looking it up."""
        return answers[torch.cdist(torch.from_numpy(batch).flatten(1), shown).argmin(1).numpy()]

    labels[[0, 7, 22]] += 1
    assert inference.correct(run, images, labels, batch=7) == 20


def another(path):
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "another", value[:1], value[1:])
    opset = onnx.helper.make_opsetid("", 20)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10), path)


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (lambda path, whole: None, "no readable ONNX file"),
        (lambda path, whole: path.write_bytes(b""), "no readable ONNX file"),
        (lambda path, whole: path.write_text("no network"), "no readable ONNX file"),
        (lambda path, whole: path.write_bytes(whole[: len(whole) // 2]), "no readable ONNX file"),
        (lambda path, whole: another(path), "another ONNX network .*: x, y"),
    ],
    ids=["missing", "empty", "text", "truncated", "another network"],
)
def test_a_file_that_cannot_be_used_is_an_input_error(write, told, exported, tmp_path):
    path = tmp_path / "bad.onnx"
    write(path, exported.read_bytes())
    with pytest.raises(InputError, match=rf"bad\.onnx: {told}"):
        inference.session(path)


@pytest.fixture
def command(tmp_path, monkeypatch, capfd):
    """`hw2` as a user types it in a folder of the test's own: status, output, errors.

    In this process: a new one would import for longer than all other tests here take.
    """
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["hw2", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, *capfd.readouterr()

    return run


def test_hw2_export_writes_the_file_and_counts(command, tmp_path, data):
    weights, path = tmp_path / "tiny.safetensors", tmp_path / "new" / "tiny.onnx"
    networks.save(tiny_network(), weights)
    status, printed, errors = command("export", "--weights", weights, "--out", path)
    assert status == 0 and errors == ""
    found = re.fullmatch(r"(.+): ([\d,]+) bytes, ([\d,]+) of 5,000 validation images correct\n", printed)
    assert found[1] == str(path)
    assert found[2] == f"{path.stat().st_size:,}"
    rows = data.split[1]
    classes = training.predict(tiny_network(), data.train_images[rows])
    right = int((classes == data.train_labels[rows]).sum())
    assert abs(int(found[3].replace(",", "")) - right) <= 2  # near ties may fall otherwise
    assert list(path.parent.iterdir()) == [path]


def test_hw2_export_int8_calibrates_on_training_images_and_counts_on_validation(
    command, exported, network, data, tmp_path, monkeypatch
):
    train, validation = data.split
    quantise = inference.quantise

    def export(given, path):
        assert same_bits(given, network)  # the delivered one
        shutil.copy(exported, path)

    def calibrate(source, target, images):
        assert torch.equal(images, data.train_images[train[:1000]])
        quantise(source, target, images[:100])

    def count(run, images, labels):
        assert torch.equal(images, data.train_images[validation])
        assert torch.equal(labels, data.train_labels[validation])
        return 4321

    for name, stub in (("export", export), ("quantise", calibrate), ("correct", count)):
        monkeypatch.setattr(inference, name, stub)
    status, printed, errors = command("export", "--int8")
    size = (tmp_path / "model.int8.onnx").stat().st_size
    assert printed == f"model.int8.onnx: {size:,} bytes, 4,321 of 5,000 validation images correct\n"
    assert status == 0 and errors == ""
    assert size < exported.stat().st_size / 2


def test_hw2_export_leaves_the_old_file_where_writing_fails(command, tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_text("old")

    def broken(network, path):
        path.write_text("half")
        raise OSError("no space left")

    monkeypatch.setattr(inference, "export", broken)
    told = "cannot be written (no space left); give another file by --out"
    assert command("export") == (2, "", f"hw2: model.onnx: {told}\n")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    status, _, errors = command("export", "--out", path / "below.onnx")
    assert status == 2 and "below.onnx: cannot be written" in errors


def test_hw2_export_tells_weights_that_cannot_be_read(command):
    status, printed, errors = command("export", "--weights", PROJECT / "README.md")
    assert status == 2 and printed == ""
    assert re.fullmatch(r"hw2: .*README\.md: no readable weights .*\n", errors)
