"""The commands as a user types them: exit status, one clear line, no traceback."""

import errno
import os
import pickle
import shutil
import subprocess
import sys

import pytest
import torch
from helpers import contents
from PIL import Image
from typer.testing import CliRunner

from hw2 import cli, networks, training
from hw2.data import FILES, PROJECT, fashion_mnist
from hw2.errors import Ended, InputError
from hw2.experiments import catalogue, replay, store, walk
from hw2.experiments.replay import Replayed
from hw2.experiments.run import root
from hw2.tools import bench


@pytest.fixture(autouse=True)
def outputs_of_the_project(monkeypatch):
    """Nothing here writes a report."""
    monkeypatch.delenv("HW2_OUT")


def called(*words):
    """Exit status and lines of a command; what is no exit comes through."""
    result = CliRunner().invoke(cli.app, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output.splitlines()


def process(*words, **environment):
    return subprocess.run(
        [sys.executable, "-m", "hw2", *words], capture_output=True, text=True, cwd=PROJECT, check=False,
        env=os.environ | environment,
    )  # fmt: skip


def test_help_answers_at_once():
    process("--help")  # warm
    started = os.times()
    done = process("--help")
    ended = os.times()  # of the processor: other tests run beside this one
    assert done.returncode == 0
    commands = ["data", "train", "tune", "deliver", "report", "figure", "grade", "submit", "predict", "replay", "bench"]
    assert all(command in done.stdout for command in commands)
    assert ended.children_user + ended.children_system - started.children_user - started.children_system < 1


def test_a_real_process_tells_bad_input_in_one_line():
    done = process("grade", "--weights", "README.md")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert done.stderr.startswith("hw2: README.md: no readable weights")


def test_names_that_the_terminal_cannot_write_are_told_all_the_same(tmp_path):
    for name, shown in (("caf\udce9.png", r"caf\udce9.png"), ("靴.png", r"\u9774.png")):
        Image.linear_gradient("L").save(tmp_path / "picture.png")
        (tmp_path / "picture.png").rename(tmp_path / name)
        done = process("predict", str(tmp_path / name), str(tmp_path / f"no {name}"), PYTHONIOENCODING="ascii")
        assert done.returncode == 2 and done.stdout.startswith(f"{tmp_path / shown}: ")
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"hw2: {tmp_path}/no {shown}: no readable picture")


def test_loading_needs_no_search():
    code = (
        "import hw2, sys; print(hw2.load().widths, sorted({'optuna', 'sqlalchemy', 'matplotlib'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT, check=False)
    assert done.stdout == "(11, 11, 22, 45) []\n", done.stderr


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (InputError("a\n  b"), 2, "hw2: a b\n"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "hw2: [Errno 28] No space left on device\n"),
        (BrokenPipeError(), 141, ""),
        (Ended("plain: ended"), 143, "hw2: plain: ended\n"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(monkeypatch, capsys, error, status, told):
    def app():
        raise error

    monkeypatch.setattr(cli, "app", app)
    monkeypatch.setattr(os, "dup2", lambda *_: None)  # which would close this process's own output
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (ended.value.code, capsys.readouterr().err) == (status, told)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("train", "teacher", "--profile", "huge"), "profile 'huge': expected one of smoke, cpu, full"),
        (("train", "everything"), "experiment 'everything': expected all, one of chain"),
        (("train", "teacher", "--weights", "nowhere.pth", "--yes"), r"nowhere\.pth: no such file"),
        (("train", "plain", "--weights", "x.pth"), "--weights: `hw2 train plain` takes none"),
        (("train", "plain", "--device", "gpu"), "device 'gpu'"),
        (("tune", "--profile", "smoke", "--storage", "study.db"), "--storage: expected a URL such as"),
        (("replay", "nothing/cpu-s0"), "run 'nothing/cpu-s0': expected"),
        (("grade", "--submission", PROJECT / "README.md"), r"README\.md: no submission"),
        (("figure", "nonsense"), "figure 'nonsense'"),
    ],
)
def test_bad_input_gets_one_line(words, told):
    with pytest.raises(InputError, match=told) as error:
        called(*words)
    assert "\n" not in str(error.value)


def test_wrong_options_are_typers_to_tell():
    for words in (("train", "plain", "--seed", "-1"), ("train", "all", "--jobs", "0"), ("nonsense",)):
        status, lines = called(*words)
        assert status == 2 and "Traceback" not in "\n".join(lines)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_pickle_bomb_does_not_go_off(tmp_path):
    sentinel, bomb, plain = tmp_path / "exploded", tmp_path / "resnet-50.pth", tmp_path / "plain.pth"
    torch.save({"model_state_dict": Bomb(str(sentinel))}, bomb)
    plain.write_bytes(pickle.dumps(Bomb(str(sentinel))))
    for words in (("train", "teacher", "--yes", "--weights", bomb), ("train", "teacher", "--yes", "--weights", plain),
                  ("grade", "--weights", bomb)):  # fmt: skip
        with pytest.raises(InputError, match=r"\.pth: "):
            called(*words)
    assert not sentinel.exists()


def test_another_teacher_is_asked_for_first(walk_done, monkeypatch):
    path = walk_done / "resnet-50.pth"
    network = networks.teacher()
    torch.save({"model_state_dict": {f"resnet50.{k}": v for k, v in network.state_dict().items()}}, path)
    before = contents(root("smoke"))
    result = CliRunner().invoke(cli.app, ["train", "teacher", "--weights", str(path)], input="n\n")
    assert result.exit_code == 1 and "become stale" in result.output
    assert contents(root("smoke")) == before
    assert called("train", "teacher", "--weights", path, "--yes")[0] == 0
    assert store.require("teacher").recipe.weights


def test_data_prints_place_and_digests(data):
    status, lines = called("data")
    assert status == 0 and len(lines) == 5
    for name, (digest, _) in FILES.items():
        assert f"{digest}  {name}" in lines


@pytest.mark.parametrize("name", ["chain", "arms", "frontier", "plain"])
def test_train_tells_its_runs_one_a_line(walk_done, no_training, name):
    status, lines = called("train", name)
    expected = [store.require(one, seed) for one in catalogue.members(name, "smoke")
                for seed in catalogue.seeds(one, "smoke")]  # fmt: skip
    assert (status, lines) == (0, [str(run) for run in expected])


def test_whoever_only_reads_leaves_every_byte_of_the_runs(walk_done, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HW2_OUT", "out")
    (root("smoke") / "SHA256SUMS").unlink()  # nobody may write it again
    before = contents(root("smoke"))
    monkeypatch.setattr(replay, "all_of", lambda runs, device: [replay.replay(run, device) for run in runs])
    weights = store.require("vanilla", 2).weights
    Image.linear_gradient("L").save(tmp_path / "a.png")
    for words in (
        ("train", "--list"), ("train", "--estimate"), ("replay", "--all"), ("predict", tmp_path / "a.png"),
        ("submit", "--out", tmp_path / "s.csv"), ("submit", "--weights", weights, "--out", tmp_path / "t.csv"),
    ):  # fmt: skip
        assert called(*words)[0] == 0, words
    assert contents(root("smoke")) == before
    assert called("submit") == (0, ["out/submission.csv"])
    assert (tmp_path / "out/submission.csv").read_bytes() == (tmp_path / "s.csv").read_bytes()


def test_replay_fails_where_a_run_is_not_as_recorded(walk_done, monkeypatch):
    strange = "compressed/smoke-s0"

    def told(runs, device):
        return [Replayed(one.name, ["no", "nor this"] if one.name == strange else [], 0.0, True) for one in runs]

    monkeypatch.setattr(replay, "all_of", told)
    status, lines = called("replay")
    assert status == 1 and lines[2] == f"{strange}: no; nor this" and len(lines) == 4
    assert lines[3].startswith("2 of 3 as recorded; first losses of 2 bit for bit, of 0 within the tolerance")
    status, lines = called("replay", "plain/smoke-s0")
    assert status == 0 and lines[0] == "plain/smoke-s0: as recorded, first losses bit for bit"


def test_tune_tells_the_best_setting(walk_done, no_training):
    temperature, alpha = store.best(store.trials("smoke"))
    status, (line,) = called("tune")
    assert status == 0 and f"T = {temperature:g}, alpha = {alpha:g}" in line


def test_deliver_tells_the_run(walk_done, no_training):
    assert called("deliver") == (0, [str(store.delivered("smoke"))])
    monkey = root("smoke") / "plain"
    shutil.rmtree(monkey)
    with pytest.raises(InputError, match="plain/smoke-s0 is not there"):
        walk.deliver("smoke")


def test_grading_exits_with_1_when_something_fails(tmp_path, monkeypatch):
    short = tmp_path / "short.csv"
    short.write_text("".join((PROJECT / "submission.csv").read_text().splitlines(keepends=True)[:-1]))
    monkeypatch.setattr(training, "fit", lambda *_, **__: pytest.fail("something was trained"))
    status, lines = called("grade", "--submission", short)
    assert status == 1 and any("9,999 rows, expected 10,000" in line for line in lines)


def test_predict_knows_pictures_of_any_size_and_goes_on_after_a_bad_one(tmp_path):
    data = fashion_mnist()
    row = int((data.test_labels == 1).nonzero()[0])
    grey = Image.fromarray(data.test_images[row].numpy())
    grey.save(tmp_path / "small.png")
    Image.eval(grey, lambda value: 255 - value).resize((280, 280)).convert("RGB").save(tmp_path / "large.jpg")
    (tmp_path / "none.png").write_text("no picture")
    status, lines = called("predict", tmp_path / "small.png", tmp_path / "none.png", tmp_path / "large.jpg")
    assert status == 2 and sum(": Trouser " in line for line in lines) == 2
    assert sum("none.png: no readable picture" in line for line in lines) == 1


def test_measured_speeds_are_shown_and_kept_where_that_is_asked_for(project, monkeypatch):
    row = {"name": "work", "unit": "ms", "median": 2.5, "repeats": 3, "ratio_to": None, "ratio": None}
    found = {"when": "now", "hardware": "a machine", "packages": {}, "rows": [row]}
    monkeypatch.setattr(bench, "bench", lambda rounds: {**found, "rounds": rounds})
    assert called("bench", "--rounds", 3) == (0, bench.table(found).splitlines())
    assert not (project / "runs").exists()
    assert called("bench", "--keep")[0] == 0
    assert "bench.json" in (project / "runs/SHA256SUMS").read_text()
