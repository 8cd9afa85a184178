"""The networks are the report's, weights survive keeping bit for bit, and unusable files are told from usable ones."""

import io
import os
import pickle
import re
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from helpers import TINY, same_bits, tiny_network
from torchsummary import summary

from hw2 import networks, views
from hw2.errors import InputError
from hw2.networks import ResNet14

COMPRESSED = (11, 11, 22, 45)


@pytest.mark.parametrize(
    ("make", "parameters"),
    [
        (ResNet14, 175258),
        (lambda: ResNet14(COMPRESSED), 85956),
        (networks.teacher, 23528522),
        (lambda: networks.teacher("stride1"), 23528522),
        (lambda: networks.teacher("small"), 23520842),
    ],
    ids=["student", "compressed", "teacher", "teacher with stride 1", "teacher with small stem"],
)
def test_networks_have_the_stated_number_of_parameters(make, parameters):
    with torch.device("meta"):
        assert networks.count_parameters(make()) == parameters


def test_torchsummary_prints_the_rows_and_totals_of_the_report(capsys):
    summary(ResNet14(COMPRESSED), (3, 28, 28), device="cpu")
    printed = capsys.readouterr().out.splitlines()
    rows = [re.split(r"\s{2,}", line.strip()) for line in printed if re.search(r"-\d+ ", line)]
    totals = [line for line in printed if ": " in line]
    expected = (Path(__file__).parent / "report_rows.txt").read_text().splitlines()
    _, *expected_rows = (line.split("\t") for line in expected if "\t" in line)
    *expected_totals, remaining = (line for line in expected if "\t" not in line)
    assert len(expected_rows) == 51
    assert rows == expected_rows
    assert totals == expected_totals
    assert remaining == f"Number of remaining parameters: {networks.count_parameters(ResNet14(COMPRESSED))}"


def test_an_unknown_stem_is_an_error():
    with pytest.raises(InputError, match="stem 'large': expected 'imagenet', 'stride1' or 'small'"):
        networks.teacher("large")


@pytest.mark.parametrize(("stem", "side"), [("imagenet", 7), ("stride1", 14), ("small", 28)])
def test_the_stem_says_how_many_pixels_enter_the_blocks(stem, side):
    seen = []
    with torch.device("meta"):
        network = networks.teacher(stem)
        network.layer1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
        network(torch.zeros(2, 3, 28, 28))
    assert seen == [(2, 64, side, side)]


def test_the_stem_stride1_has_torchvisions_tensors():
    with torch.device("meta"):
        ours, theirs = networks.teacher("stride1").state_dict(), networks.teacher().state_dict()
    assert {name: value.shape for name, value in ours.items()} == {n: value.shape for n, value in theirs.items()}


def test_residual_branches_of_the_teacher_start_at_zero():
    assert not networks.teacher().layer1[0].bn3.weight.any()


def test_weights_survive_saving_and_loading_bit_for_bit(tmp_path, data):
    network = ResNet14((3, 5, 7, 9))
    network(views.normalise(data.train_images[:20]))  # moves BatchNorm's statistics off their defaults
    networks.save(network, tmp_path / "model.safetensors")
    loaded = networks.load(tmp_path / "model.safetensors")
    assert loaded.widths == (3, 5, 7, 9)
    assert same_bits(network, loaded)
    assert not loaded.training
    networks.save(loaded, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()


def written(path, state=None, **metadata):
    """A safetensors file of a tiny network's tensors, changed by `state`."""
    tensors = {name: tensor.clone() for name, tensor in tiny_network().state_dict().items()} | (state or {})
    path.write_bytes(safetensors.torch.save(tensors, metadata))
    return path


TINY_TEXT = ",".join(map(str, TINY))
UNUSABLE = {
    "missing": (lambda path: path, "no readable weights"),
    "folder": (lambda path: path.mkdir() or path, "no readable weights"),
    "empty": (lambda path: path.write_bytes(b"") or path, "no readable weights"),
    "garbage": (lambda path: path.write_bytes(b"\xff" * 500) and path, "no readable weights"),
    "a pickle": (lambda path: path.write_bytes(pickle.dumps({"a": 1})) and path, "no readable weights"),
    "cut off": (
        lambda path: path.write_bytes(written(path, widths=TINY_TEXT).read_bytes()[:-9]) and path,
        "no readable weights",
    ),
    "no widths": (written, "no ResNet-14 widths"),
    "widths of text": (lambda path: written(path, widths="a,b,c,d"), "no ResNet-14 widths"),
    "three widths": (lambda path: written(path, widths="4,4,4"), "no ResNet-14 widths"),
    "a width of 0": (lambda path: written(path, widths="4,0,4,4"), "no ResNet-14 widths"),
    "a huge width": (lambda path: written(path, widths="4,4,4,1000000"), "no ResNet-14 widths"),
    "other widths": (lambda path: written(path, widths="4,4,4,5"), "of another shape"),
    "an odd shape": (lambda path: written(path, {"fc.bias": torch.zeros(3)}, widths=TINY_TEXT), "of another shape"),
    "complex numbers": (
        lambda path: written(path, {"fc.bias": torch.zeros(10, dtype=torch.complex64)}, widths=TINY_TEXT),
        "1 of complex numbers",
    ),
    "one too many": (lambda path: written(path, {"extra": torch.zeros(3)}, widths=TINY_TEXT), "1 unexpected"),
    "NaN": (
        lambda path: written(path, {"fc.bias": torch.full((10,), torch.nan)}, widths=TINY_TEXT),
        "not finite",
    ),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_an_unusable_file_of_weights_is_named_with_the_reason(tmp_path, kind):
    spoil, told = UNUSABLE[kind]
    path = spoil(tmp_path / "model.safetensors")
    with pytest.raises(InputError) as error:
        networks.load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_widths_that_are_only_claimed_make_room_for_nothing(tmp_path, monkeypatch):
    path = written(tmp_path / "model.safetensors", widths="1024,1024,1024,1024")

    def built(widths):
        assert torch.empty(0).is_meta, "half a gigabyte of weights for a file of a few kilobytes"
        return ResNet14(widths)

    monkeypatch.setattr(networks, "ResNet14", built)
    with pytest.raises(InputError, match="of another shape"):
        networks.load(path)


def course_file(path, network, prefix="resnet50.", change=None):
    """What the course hands out: a dict with the weights under `model_state_dict`."""
    state = {prefix + name: tensor for name, tensor in network.state_dict().items()} | (change or {})
    torch.save({"epoch": 3, "model_state_dict": state}, path)
    return path


def test_the_courses_resnet_50_loads(tmp_path):
    network = networks.teacher()
    loaded = networks.load_course_teacher(course_file(tmp_path / "resnet-50.pth", network))
    assert same_bits(network, loaded)
    assert not loaded.training


class Bomb:
    def __init__(self, sentinel):
        self.sentinel = sentinel

    def __reduce__(self):
        return os.mkdir, (str(self.sentinel),)


def test_a_pickle_that_runs_code_is_refused_before_it_does(tmp_path):
    sentinel, path = tmp_path / "code ran", tmp_path / "resnet-50.pth"
    for content in (pickle.dumps(Bomb(sentinel), protocol=2), None):
        if content is None:  # in torch's own zip container
            torch.save({"model_state_dict": Bomb(sentinel)}, path)
        else:
            path.write_bytes(content)
        with pytest.raises(InputError) as error:
            networks.load_course_teacher(path)
        assert str(error.value).startswith(f"{path}: not loaded (")
        assert not sentinel.exists()
    torch.load(path, weights_only=False)
    assert sentinel.exists()  # the bomb does go off where it is let


def deflated(path):
    """A file that torch would unpack to whatever size it says."""
    whole = course_file(path, tiny_network()).read_bytes()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert torch.load(path)["epoch"] == 3
    return path


COURSE = {
    "packed": (deflated, "not loaded"),
    "missing": (lambda path: path, "not loaded"),
    "garbage": (lambda path: path.write_bytes(b"garbage") and path, "not loaded"),
    "a bare tensor": (lambda path: torch.save(torch.zeros(3), path) or path, "no `model_state_dict` of tensors"),
    "no dict": (lambda path: torch.save({"model_state_dict": [1]}, path) or path, "no `model_state_dict` of tensors"),
    "no tensors": (
        lambda path: torch.save({"model_state_dict": {"fc.bias": 1}}, path) or path,
        "no `model_state_dict` of tensors",
    ),
    "other names": (lambda path: course_file(path, tiny_network(), prefix="net."), "missing (first: bn1.bias)"),
    "other shapes": (lambda path: course_file(path, ResNet14((4, 4, 4, 5))), "of another shape"),
    "complex numbers": (
        lambda path: course_file(
            path, tiny_network(), change={"resnet50.fc.bias": torch.zeros(10, dtype=torch.complex64)}
        ),
        "1 of complex numbers",
    ),
    "NaN": (
        lambda path: course_file(path, tiny_network(), change={"resnet50.fc.bias": torch.full((10,), torch.nan)}),
        "not finite",
    ),
}


@pytest.mark.parametrize("kind", COURSE)
def test_another_file_than_the_courses_is_named_with_the_reason(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(networks, "teacher", tiny_network)  # the same checks, on a small network
    spoil, told = COURSE[kind]
    path = spoil(tmp_path / "resnet-50.pth")
    with pytest.raises(InputError) as error:
        networks.load_course_teacher(path)
    assert str(error.value).startswith(f"{path}: ")
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_the_stride_before_the_shortcuts_convolution_is_the_strided_convolution():
    block = networks.BasicBlock(11, 22, 2)
    x = torch.randn(5, 11, 28, 28)
    weight = block.shortcut[0].weight
    inside = block.shortcut[0](torch.nn.functional.avg_pool2d(x, 1, block.stride))
    assert torch.equal(inside, torch.nn.functional.conv2d(x, weight, stride=2))
