"""The commands as a user types them: exit status, one clear line, no traceback."""

import os
import re
import shutil
import subprocess
import sys
from typing import get_type_hints

import pytest
from helpers import contents
from PIL import Image
from typer.testing import CliRunner

from hw2 import cli, grading
from hw2.data import FILES, PROJECT
from hw2.errors import Bar, Ended, InputError
from hw2.experiments import plan, walk
from hw2.experiments.run import root
from hw2.experiments.store import Store


def called(*words):
    """Exit status and lines of a command; what is no exit comes through."""
    result = CliRunner().invoke(cli.app, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output.splitlines()


def process(*words, **environment):
    how = {"capture_output": True, "text": True, "cwd": PROJECT, "env": os.environ | environment}
    return subprocess.run([sys.executable, *words], **how)


@pytest.fixture
def picture(tmp_path):
    Image.linear_gradient("L").save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_help_answers_at_once():
    done = process("-X", "importtime", "-m", "hw2", "--help")
    for command in cli.app.registered_commands:
        assert f" {command.callback.__name__} " in done.stdout
    assert done.returncode == 0
    # which take seconds to import
    assert not re.search(r"\b(torch|numpy|pandas)$", done.stderr, re.MULTILINE)


def test_each_picture_gets_a_line_also_where_the_terminal_cannot_write_its_name(picture, tmp_path):
    names = {"caf\udce9.png": r"caf\udce9.png", "靴.png": r"\u9774.png"}
    for name in names:
        shutil.copy(picture, tmp_path / name)
    paths = [str(tmp_path / name) for one in names for name in (f"no {one}", one)]
    done = process("-m", "hw2", "predict", *paths, PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    shown = list(names.values())
    for line, name in zip(done.stdout.splitlines(), shown, strict=True):
        assert re.match(re.escape(f"{tmp_path}/{name}: ") + r"[\w/ -]+ \d+\.\d%, ", line)
    for line, name in zip(done.stderr.splitlines(), shown, strict=True):
        assert line.startswith(f"hw2: {tmp_path}/no {name}: no readable picture")


def test_nothing_is_told_where_standard_error_is_closed(picture, monkeypatch):
    command = [sys.executable, "-m", "hw2", "predict", "nowhere.png", picture]
    words = ["bash", "-c", '"$@" 2>&-', "bash", *command]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, cwd=PROJECT)
    assert done.returncode == 2 and re.fullmatch(rf"{picture}: .*\n", done.stdout)
    monkeypatch.setattr(sys, "stderr", None)
    assert list(Bar(range(2))) == [0, 1]


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (InputError("a\n  b"), 2, "hw2: a b\n"),
        (OSError(28, "No space left"), 2, "hw2: [Errno 28] No space left\n"),
        (KeyboardInterrupt(), 130, ""),
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
        (("train", "everything"), "experiment 'everything': expected one of all, chain"),
        (("train", "teacher", "--weights", "nowhere.pth"), r"nowhere\.pth: no such file"),
        (("train", "plain", "--device", "gpu"), "device 'gpu'"),
        (("grade", "--weights", PROJECT / "README.md"), r"README\.md: no readable weights"),
    ],
)
def test_bad_input_gets_one_line(monkeypatch, words, told):
    monkeypatch.delenv("HW2_OUT")  # the report that is graded is the project's
    with pytest.raises(InputError, match=f"^.*{told}.*$"):
        called(*words)


def test_data_prints_place_and_digests(data):
    digests = [f"{digest}  {name}" for name, digest in FILES.items()]
    assert called("data") == (0, [str(data.folder), *digests])


def test_tune_tells_the_best_setting_and_deliver_the_run(walk_done, no_training):
    temperature, alpha = Store("smoke").setting("best")
    told = f"T = {temperature:g}, alpha = {alpha:g} has the highest mean validation accuracy"
    assert called("tune") == (0, [told])
    assert called("deliver") == (0, [str(Store("smoke").delivered)])


def test_grading_exits_with_0_also_when_a_smoke_network_fails(walk_done, monkeypatch):
    line = grading.Line("part", "5%", "checked", False, "evidence")
    monkeypatch.setattr(grading, "grade", lambda *_: [line])
    assert called("grade") == (0, grading.text([line]).splitlines())


@pytest.mark.parametrize("name", ["chain", "plain"])
def test_train_tells_its_runs_one_a_line(walk_done, no_training, name):
    status, lines = called("train", name)
    expected = [Store().require(*task) for task in plan.members(name, None, "smoke")]
    assert (status, lines) == (0, [str(run) for run in expected])


REFUSED = [
    (("train", "all", "--seed", "7"), "`hw2 train all` takes no --seed"),
    (("train", "plain", "--jobs", "2"), "`hw2 train plain` takes no --jobs"),
    (("train", "plain", "--weights", "x.pth"), "`hw2 train plain` takes no --weights"),
    (("train", "teacher", "--list"), "--list takes no 'teacher'"),
    (("train", "--list", "--estimate"), "--list takes no --estimate"),
    (("train", "--estimate", "--jobs", "1"), "--estimate takes no --jobs"),
    (("predict", "x.png", "--weights", "w", "--profile", "smoke"), "--weights takes no --profile"),
]


@pytest.mark.parametrize(("words", "told"), REFUSED)
def test_an_option_that_a_call_cannot_honour_is_refused(walk_done, no_training, words, told):
    before = contents(walk_done)
    with pytest.raises(InputError, match=re.escape(told)):
        called(*words)
    assert contents(walk_done) == before


def test_an_estimate_is_of_what_is_named(walk_done, no_training):
    assert called("train", "--estimate") == (0, [plan.estimate(plan.tasks("smoke"), Store())])
    status, (line,) = called("train", "plain", "--seed", 3, "--estimate")
    assert status == 0 and line.startswith("0.0 hours")


def test_of_several_runs_those_that_can_be_trained_are_and_status_1_names_the_others(
    walk_done, monkeypatch
):
    def obtained(name, seed, **more):
        if name == "distilled":
            raise InputError("its loss is not finite")
        return f"{name}, {seed}"

    monkeypatch.setattr(walk, "obtain", obtained)
    result = CliRunner().invoke(cli.app, ["train", "chain"])
    told = [f"{name}, 0" for name in ("teacher", "plain", "narrow", "scratch", "narrow_plain")]
    assert result.exit_code == 1 and result.stdout.splitlines() == told
    told = "hw2: distilled, seed 0, and what needs it: its loss is not finite"
    assert result.stderr.splitlines()[-1] == told
    # alone, it is told as any other
    with pytest.raises(InputError, match="its loss is not finite"):
        called("train", "distilled", "--seed", 0)


def test_whoever_only_reads_leaves_every_byte_of_the_runs(
    walk_done, monkeypatch, tmp_path, picture
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HW2_OUT", "out")
    before = contents(root("smoke"))
    weights = Store().require("vanilla", 2).weights
    for words in (
        ("train", "--list"),
        ("train", "--estimate"),
        ("predict", picture),
        ("submit", "--out", tmp_path / "s.csv"),
        ("submit", "--weights", weights, "--out", tmp_path / "t.csv"),
    ):
        assert called(*words)[0] == 0, words
    assert contents(root("smoke")) == before
    assert called("submit") == (0, ["out/submission.csv"])
    assert (tmp_path / "out/submission.csv").read_bytes() == (tmp_path / "s.csv").read_bytes()


def test_a_tilde_is_the_home_folder_in_every_path(picture, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert called("predict", "~/a.png")[1][0].startswith(f"{picture}: ")
    with pytest.raises(InputError, match=f"{tmp_path}/none: no such folder"):
        called("data", "--root=~/none")
    for command in cli.app.registered_commands:
        for name, kind in get_type_hints(command.callback, include_extras=True).items():
            if "Path" in str(kind):
                assert kind.__metadata__[0].parser == cli.user_path, (command.callback, name)
