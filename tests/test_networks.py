"""The networks are the report's, weights survive keeping bit for bit, and unusable files are told
from usable ones.
"""

import os
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers import same_bits, tiny_network
from torchsummary import summary

import hw2
from hw2 import grading, networks, views
from hw2.assignment import NARROW
from hw2.errors import InputError
from hw2.networks import ResNet14


def test_torchsummary_prints_the_rows_and_totals_of_the_report(capsys):
    summary(ResNet14(NARROW), (3, 28, 28), device="cpu")
    printed = capsys.readouterr().out.splitlines()
    rows = [re.split(r"\s{2,}", line.strip()) for line in printed if re.search(r"-\d+ ", line)]
    totals = [line for line in printed if ": " in line]
    expected = (Path(__file__).parent / "report_rows.txt").read_text().splitlines()
    _, *expected_rows = (line.split("\t") for line in expected if "\t" in line)
    *expected_totals, remaining = (line for line in expected if "\t" not in line)
    assert len(expected_rows) == 51
    assert rows == expected_rows
    assert totals == expected_totals
    count = networks.count_parameters(ResNet14(NARROW))
    assert remaining == f"Number of remaining parameters: {count}"


@pytest.mark.parametrize(("stem", "side"), [("imagenet", 7), ("stride1", 14)])
def test_a_teachers_stem_says_how_many_pixels_enter_the_blocks(stem, side):
    seen = []
    with torch.device("meta"):
        network = networks.teacher(stem)
        network.layer1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
        network(torch.zeros(2, 3, 28, 28))
    assert seen == [(2, 64, side, side)] and networks.count_parameters(network) == 23528522
    with pytest.raises(InputError, match="large"):
        networks.teacher("large")


def test_weights_survive_saving_and_loading_bit_for_bit(tmp_path, data):
    network, path = ResNet14((3, 5, 7, 9)), tmp_path / "model.safetensors"
    # moves BatchNorm's statistics off their defaults
    network(views.normalise(data.train_images[:20]))
    networks.save(network, path)
    loaded = networks.load(path)
    assert loaded.widths == (3, 5, 7, 9)
    assert same_bits(network, loaded)
    assert not loaded.training
    networks.save(loaded, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


@pytest.fixture
def odd_defaults():
    """Torch's global settings as other code in the same process may leave them."""
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)


def test_loading_neither_uses_nor_changes_torchs_global_state(tmp_path, odd_defaults):
    picture, before = np.eye(28), torch.get_rng_state()
    network, likeliest = hw2.load(), hw2.predict(picture)
    torch.set_default_device(None)
    grading.summary_table(network)
    assert torch.get_rng_state().equal(before)
    for tensor in network.state_dict().values():
        assert tensor.dtype in (torch.float32, torch.int64) and tensor.device.type == "cpu"
    torch.set_default_dtype(torch.float32)
    assert same_bits(network, hw2.load()) and likeliest == hw2.predict(picture)


SPARSE = torch.eye(10)[0].to_sparse()
NAN = torch.full((10,), torch.nan)
NEGATIVE = {"bn1.running_var": torch.full((4,), -1.0)}


def ours(path, changed=None, widths="4,4,4,4"):
    """Our own weights of a tiny network, with some other tensors."""
    tensors = tiny_network().state_dict() | (changed or {})
    path.write_bytes(safetensors.torch.save(tensors, {"widths": widths} if widths else {}))


#: what lies in the place of our own weights -> the reason that is told
UNUSABLE = {
    "missing": (lambda path: None, "no readable weights"),
    "garbage": (lambda path: path.write_bytes(b"\xff" * 500), "no readable weights"),
    "no widths": (partial(ours, widths=None), "KeyError"),
    "enormous widths": (partial(ours, widths="4,4,4,1000000"), "another network"),
    "another shape": (partial(ours, changed={"fc.bias": torch.zeros(3)}), "size mismatch"),
    "NaN": (partial(ours, changed={"fc.bias": NAN}), "not finite"),
    "a negative variance": (partial(ours, changed=NEGATIVE), "a negative variance"),
}


def courses(path, network=None, prefix="resnet50.", changed=None):
    """What the course hands out: a dict with the weights under `model_state_dict`."""
    state = (network or tiny_network()).state_dict() | (changed or {})
    named = {prefix + name: tensor for name, tensor in state.items()}
    torch.save({"epoch": 3, "model_state_dict": named}, path)
    return path


def test_a_teachers_weights_survive_too_also_as_the_course_hands_them_out(tmp_path):
    path, network = tmp_path / "model.safetensors", networks.teacher("stride1")
    assert not network.layer1[0].bn3.weight.any()  # residual branches start at zero
    networks.save(network, path)
    course = courses(tmp_path / "resnet-50.pth", network)
    for loaded in (networks.load_teacher(path, "stride1"), networks.load_course_teacher(course)):
        assert same_bits(network, loaded) and not loaded.training


BESIDE = {"epoch": 3, "best": np.float64(92.4), "least": np.float32(0.2), "correct": np.int64(9240)}
USEFUL = {
    "wrapped": lambda state: {
        "model_state_dict": {f"module.resnet50.{name}": value for name, value in state.items()}
    },
    "state_dict": lambda state: {"state_dict": state},
    "bare": lambda state: state,
    "numpy beside it": lambda state: {"model_state_dict": state} | BESIDE,
}


@pytest.mark.parametrize("change", USEFUL.values(), ids=USEFUL)
def test_weights_as_people_keep_them_load_too(tmp_path, monkeypatch, change):
    monkeypatch.setattr(networks, "teacher", tiny_network)
    network, path = tiny_network(seed=1), tmp_path / "resnet-50.pth"
    torch.save(change(network.state_dict()), path)
    assert same_bits(network, networks.load_course_teacher(path))


class Bomb(str):
    """A pickle of it makes a folder of that name when it is loaded."""

    def __reduce__(self):
        return os.mkdir, (str(self),)


def test_a_pickle_that_runs_code_is_refused_before_it_does(tmp_path):
    sentinel = tmp_path / "code ran"
    path = tmp_path / "resnet-50.pth"
    torch.save({"model_state_dict": Bomb(sentinel)}, path)
    with pytest.raises(InputError, match="not loaded"):
        networks.load_course_teacher(path)
    assert not sentinel.exists()
    torch.load(path, weights_only=False)
    assert sentinel.exists()  # the bomb does go off where it is let


#: what lies in the place of the course's weights -> the reason that is told
COURSE = {
    "a whole network": (partial(torch.save, tiny_network()), "save the `state_dict()` alone"),
    "a bare tensor": (partial(torch.save, torch.zeros(3)), "expected a dict of tensors"),
    "no tensor": (partial(courses, changed={"fc.bias": 1}), "fc.bias"),
    "a sparse tensor": (partial(courses, changed={"fc.bias": SPARSE}), "sparse"),
    "other names": (partial(courses, prefix="net."), "Missing key"),
}


CASES = [(networks.load, *row) for row in UNUSABLE.values()]
CASES += [(networks.load_course_teacher, *row) for row in COURSE.values()]


@pytest.mark.parametrize(("load", "spoil", "reason"), CASES, ids=[*UNUSABLE, *COURSE])
def test_an_unusable_file_of_weights_is_named_with_the_reason_in_one_line(
    tmp_path, monkeypatch, load, spoil, reason
):
    monkeypatch.setattr(networks, "teacher", tiny_network)  # the same checks, on a small network
    path = tmp_path / "weights"
    spoil(path)
    with pytest.raises(InputError, match=f"^{path}: .*{re.escape(reason)}.*$"):
        load(path)
