"""The commands as a user types them: exit status, one clear line, no traceback."""

import errno
import io
import os
import pickle
import subprocess
import sys

import pytest
import torch
from PIL import Image

from hw2 import cli, networks, pictures
from hw2.data import FILES, PROJECT, fashion_mnist
from hw2.errors import InputError
from hw2.experiments import stages


def hw2(*arguments, **environment):
    clean = {name: value for name, value in os.environ.items() if name not in ("HW2_OUT", "HW2_PROFILE")}
    return subprocess.run(
        [sys.executable, "-m", "hw2", *map(str, arguments)],
        capture_output=True, text=True, cwd=PROJECT, env=clean | environment, timeout=300, check=False,
    )  # fmt: skip


def refused(done, *told):
    assert done.returncode == 2, done
    (line,) = done.stderr.splitlines()
    assert line.startswith("hw2: ") and "Traceback" not in line
    for text in told:
        assert text in line
    assert done.stdout == ""


def test_help_answers_at_once():
    hw2("--help")  # warm
    seconds = []
    for _ in range(3):
        started = os.times()
        done = hw2("--help")
        ended = os.times()  # of the processor: other tests run beside this one
        seconds.append(ended.children_user + ended.children_system - started.children_user - started.children_system)
    assert done.returncode == 0
    for command in ("data", "train", "tune", "report", "grade", "submit", "predict"):
        assert command in done.stdout
    assert min(seconds) < 0.5


def test_data_prints_place_and_digests():
    done = hw2("data")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 5
    for name, (digest, _) in FILES.items():
        assert f"{digest}  {name}" in done.stdout


def test_a_damaged_data_file_is_named(tmp_path):
    for name in FILES:
        (tmp_path / name).write_bytes(b"\0" * 100)
    refused(hw2("data", "--root", tmp_path), "train-images-idx3-ubyte", "100 bytes", "delete it")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("train", "teacher", "--profile", "huge"), "smoke, cpu, full"),
        (("train", "everything"), "finalists, arms, ablation, frontier, teacher, plain, distilled"),
        (("train", "distilled", "--temperature", "0"), "temperature 0.0"),
        (("train", "distilled", "--temperature", "nan"), "temperature nan"),
        (("train", "distilled", "--alpha", "1.5"), "alpha 1.5"),
        (("train", "compressed", "--ratio", "1.0"), "pruning ratio 1.0"),
        (("train", "compressed", "--ratio", "-0.1"), "pruning ratio -0.1"),
        (("train", "teacher", "--weights", "nowhere.pth"), "nowhere.pth: no such file"),
        (("train", "plain", "--weights", "x.pth"), "--weights: `hw2 train plain` takes none"),
        (("train", "distilled", "--budget", "1000"), "--budget: `hw2 train distilled` takes none"),
        (("train", "arms", "--seed", "1"), "--seed: `hw2 train arms` trains all of its seeds"),
        (("train", "compressed", "--budget", "1000", "--ratio", "0.2"), "--ratio and --budget"),
        (("replay", "nothing/cpu-s0"), "no finished run 'nothing/cpu-s0'"),
        (("grade", "--weights", "README.md"), "README.md: no readable weights"),
        (("grade", "--submission", "README.md"), "README.md: no submission"),
        (("predict", "README.md"), "README.md: no readable picture"),
    ],
)
def test_bad_input_gets_one_line(arguments, told):
    refused(hw2(*arguments), told)


def test_a_full_disk_gets_one_line(monkeypatch, capsys):
    def full():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/there/model.safetensors")

    monkeypatch.setattr(cli, "app", full)
    with pytest.raises(SystemExit) as exit:
        cli.main()
    assert exit.value.code == 2
    assert capsys.readouterr().err == "hw2: [Errno 28] No space left on device: '/there/model.safetensors'\n"


def test_an_unknown_profile_in_the_environment_is_told():
    refused(hw2("grade", HW2_PROFILE="huge"), "huge")


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_pickle_bomb_does_not_go_off(tmp_path):
    sentinel, bomb = tmp_path / "exploded", tmp_path / "resnet-50.pth"
    torch.save({"model_state_dict": Bomb(str(sentinel))}, bomb)
    plain = tmp_path / "plain.pth"
    plain.write_bytes(pickle.dumps(Bomb(str(sentinel))))
    for path in (bomb, plain):
        refused(hw2("train", "teacher", "--weights", path), path.name)
    refused(hw2("grade", "--weights", bomb), bomb.name)
    assert not sentinel.exists()


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "student.pth"
    torch.save({"model_state_dict": networks.ResNet14().state_dict()}, path)
    refused(hw2("train", "teacher", "--weights", path), "student.pth: weights of another network")


def test_grading_exits_with_1_when_something_fails(tmp_path):
    short = tmp_path / "short.csv"
    short.write_text("".join((PROJECT / "submission.csv").read_text().splitlines(keepends=True)[:-1]))
    done = hw2("grade", "--submission", short)
    assert done.returncode == 1 and "9,999 rows, expected 10,000" in done.stdout


def test_grading_what_is_committed_exits_by_its_recorded_count():
    done = hw2("grade")
    missed = stages.delivered().metrics["test_correct"] < 9240
    assert done.returncode == missed, done
    assert f"{int(missed)} fail, 1 not checkable" in done.stdout


def test_predict_knows_pictures_of_any_size_and_kind(tmp_path):
    data = fashion_mnist()
    row = int((data.test_labels == 1).nonzero()[0])
    grey = Image.fromarray(data.test_images[row].numpy())
    grey.save(tmp_path / "small.png")
    large = Image.eval(grey, lambda value: 255 - value).resize((280, 280)).convert("RGB")
    large.save(tmp_path / "large.jpg")
    done = hw2("predict", tmp_path / "small.png", tmp_path / "large.jpg")
    assert done.returncode == 0, done
    for line in done.stdout.splitlines():
        assert ": Trouser " in line


def test_a_picture_of_the_data_set_is_read_as_it_is(tmp_path):
    image = fashion_mnist().test_images[0]
    Image.fromarray(image.numpy()).save(tmp_path / "boot.png")
    assert torch.equal(pictures.read(tmp_path / "boot.png"), image)
    alpha = Image.fromarray(255 - image.numpy()).convert("RGBA")
    alpha.putalpha(Image.fromarray(((image > 0) * 255).to(torch.uint8).numpy()))
    target = io.BytesIO()
    alpha.save(target, "png")
    (tmp_path / "alpha.png").write_bytes(target.getvalue())
    assert torch.equal(pictures.read(tmp_path / "alpha.png"), image)


def test_a_picture_whose_reader_raises_anything_is_refused(tmp_path):
    # Pillow's AVIF reader raises RuntimeError for this one, its TIFF reader warns.
    target = io.BytesIO()
    Image.new("RGB", (20, 17)).save(target, "AVIF")
    path = tmp_path / "picture"
    path.write_bytes(target.getvalue().replace(b"iloc", b"free"))
    with pytest.raises(InputError, match="no readable picture"):
        pictures.read(path)
