"""The commands as a user types them: exit status, one clear line, no traceback."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest
import torch
from helpers import contents, tiny_network
from PIL import Image
from typer.testing import CliRunner

from hw2 import cli, data, grading
from hw2.data import FILES, PROJECT
from hw2.errors import Ended, InputError
from hw2.experiments import replay, store, train
from hw2.experiments.catalogue import Recipes
from hw2.experiments.replay import Replayed
from hw2.experiments.run import root
from hw2.experiments.store import Store
from hw2.report import write
from hw2.tools import bench


def called(*words):
    """Exit status and lines of a command; what is no exit comes through."""
    result = CliRunner().invoke(cli.app, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output.splitlines()


def process(*words, **environment):
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, cwd=PROJECT, check=False,
        env=os.environ | environment,
    )  # fmt: skip


def test_help_answers_at_once():
    done = process("-X", "importtime", "-m", "hw2", "--help")
    commands = ["data", "train", "tune", "deliver", "report", "figure", "grade", "submit", "predict", "replay", "bench"]
    assert done.returncode == 0 and all(f" {command} " in done.stdout for command in commands)
    assert not re.search(r"\b(torch|numpy|pandas)$", done.stderr, re.MULTILINE)  # which take seconds to import


def test_each_picture_gets_a_line_also_where_the_terminal_cannot_write_its_name(tmp_path):
    names = {"caf\udce9.png": r"caf\udce9.png", "靴.png": r"\u9774.png"}
    Image.linear_gradient("L").save(tmp_path / "picture.png")
    for name in names:
        shutil.copy(tmp_path / "picture.png", tmp_path / name)
    paths = [str(tmp_path / name) for one in names for name in (f"no {one}", one)]
    done = process("-m", "hw2", "predict", *paths, PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    for line, shown in zip(done.stdout.splitlines(), names.values(), strict=True):
        assert re.match(re.escape(f"{tmp_path}/{shown}: ") + r"[\w/ -]+ \d+\.\d%, ", line)
    for line, shown in zip(done.stderr.splitlines(), names.values(), strict=True):
        assert line.startswith(f"hw2: {tmp_path}/no {shown}: no readable picture")


def test_loading_needs_no_search():
    unneeded = {"optuna", "sqlalchemy", "matplotlib"}
    done = process("-c", f"import hw2, sys; print(hw2.load().widths, {unneeded} & sys.modules.keys())")
    assert done.stdout == "(11, 11, 22, 45) set()\n", done.stderr


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [(InputError("a\n  b"), 2, "hw2: a b\n"), (OSError(28, "No space left"), 2, "hw2: [Errno 28] No space left\n"),
     (BrokenPipeError(), 141, ""), (Ended("plain: ended"), 143, "hw2: plain: ended\n")],
)  # fmt: skip
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
    [(("train", "teacher", "--profile", "huge"), "profile 'huge': expected one of smoke, full"),
     (("train", "everything"), "experiment 'everything': expected one of all, chain"),
     (("train", "teacher", "--weights", "nowhere.pth", "--yes"), r"nowhere\.pth: no such file"),
     (("train", "plain", "--weights", "x.pth"), "--weights: `hw2 train plain` takes none"),
     (("train", "plain", "--device", "gpu"), "device 'gpu'"),
     (("tune", "--profile", "smoke", "--storage", "study.db"), "--storage: expected a URL such as"),
     (("replay", "nothing/full-s0"), "run 'nothing/full-s0': expected"),
     (("grade", "--weights", PROJECT / "README.md"), r"README\.md: no readable weights"),
     (("figure", "nonsense"), "figure 'nonsense'")],
)  # fmt: skip
def test_bad_input_gets_one_line(monkeypatch, words, told):
    monkeypatch.delenv("HW2_OUT")  # the report that is graded is the project's
    with pytest.raises(InputError, match=told) as error:
        called(*words)
    assert "\n" not in str(error.value)


def test_another_teacher_is_asked_for_first(walk_done):
    path = walk_done / "resnet-50.pth"
    torch.save({"model_state_dict": tiny_network().state_dict()}, path)
    before = contents(root("smoke"))
    result = CliRunner().invoke(cli.app, ["train", "teacher", "--weights", str(path)], input="n\n")
    assert result.exit_code == 1 and "become stale" in result.output
    assert contents(root("smoke")) == before
    assert called("train", "teacher", "--weights", path, "--yes")[0] == 0
    assert Store().require("teacher").recipe.weights


def test_data_prints_place_and_digests(data):
    assert called("data") == (0, [str(data.folder), *(f"{digest}  {name}" for name, (digest, _) in FILES.items())])


def test_tune_tells_the_best_setting_and_deliver_the_run(walk_done, no_training):
    temperature, alpha = store.best(Store("smoke").trials)
    assert called("tune") == (0, [f"T = {temperature:g}, alpha = {alpha:g} has the highest mean validation accuracy"])
    assert called("deliver") == (0, [str(Store("smoke").delivered)])


@pytest.mark.parametrize(("profile", "ok", "status"), [("full", False, 1), ("full", True, 0), ("smoke", False, 0)])
def test_grading_exits_with_1_when_something_fails(walk_done, monkeypatch, profile, ok, status):
    line = grading.Line("part", "5%", "checked", ok, "evidence")
    monkeypatch.setattr(grading, "grade", lambda *_: [line])
    monkeypatch.setattr(data, "PROJECT", PROJECT if profile == "full" else walk_done)
    assert called("grade", "--profile", profile) == (status, grading.text([line]).splitlines())


def test_measured_speeds_are_kept_where_that_is_asked_for(monkeypatch):
    kept = []
    monkeypatch.setattr(bench, "bench", lambda rounds: rounds)
    monkeypatch.setattr(bench, "table", lambda rounds: f"{rounds} rounds")
    monkeypatch.setattr(bench, "keep", kept.append)
    assert (called("bench", "--rounds", 3), kept) == ((0, ["3 rounds"]), [])
    assert (called("bench", "--keep"), kept) == ((0, ["5 rounds"]), [5])


@pytest.mark.parametrize("name", ["chain", "plain"])
def test_train_tells_its_runs_one_a_line(walk_done, no_training, name):
    status, lines = called("train", name)
    expected = [Store().require(one, seed) for one in Recipes("smoke").members(name)
                for seed in Recipes("smoke").seeds(one)]  # fmt: skip
    assert (status, lines) == (0, [str(run) for run in expected])


def test_of_several_runs_those_that_can_be_trained_are_and_status_1_names_the_others(walk_done, monkeypatch):
    def obtain(name, seed, **more):
        if name == "distilled":
            raise InputError("its loss is not finite")
        return f"{name}, {seed}"

    monkeypatch.setattr(train, "obtain", obtain)
    result = CliRunner().invoke(cli.app, ["train", "chain"])
    told = [f"{name}, 0" for name in ("teacher", "plain", "scratch", "unpruned")]
    assert result.exit_code == 1 and result.stdout.splitlines() == told
    assert result.stderr.splitlines()[-2:] == [
        "distilled, seed 0 failed: its loss is not finite", "1 that need them were not trained"
    ]  # fmt: skip
    with pytest.raises(InputError, match="its loss is not finite"):  # alone, it is told as any other
        called("train", "distilled", "--seed", 0)


def test_whoever_only_reads_leaves_every_byte_of_the_runs(walk_done, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HW2_OUT", "out")
    (root("smoke") / "SHA256SUMS").unlink()  # nobody may write it again
    before = contents(root("smoke"))
    monkeypatch.setattr(replay, "all_of", lambda runs, device: [replay.replay(run, device) for run in runs])
    weights = Store().require("vanilla", 2).weights
    Image.linear_gradient("L").save(tmp_path / "a.png")
    for words in (
        ("train", "--list"), ("train", "--estimate"), ("replay", "plain/smoke-s0"), ("predict", tmp_path / "a.png"),
        ("submit", "--out", tmp_path / "s.csv"), ("submit", "--weights", weights, "--out", tmp_path / "t.csv"),
    ):  # fmt: skip
        assert called(*words)[0] == 0, words
    assert contents(root("smoke")) == before
    assert called("submit") == (0, ["out/submission.csv"])
    assert (tmp_path / "out/submission.csv").read_bytes() == (tmp_path / "s.csv").read_bytes()


def test_a_tilde_is_the_home_folder_in_every_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    Image.linear_gradient("L").save(tmp_path / "a.png")
    assert called("predict", "~/a.png")[1][0].startswith(f"{tmp_path}/a.png: ")
    with pytest.raises(InputError, match=f"{tmp_path}/none: no such folder"):
        called("data", "--root=~/none")
    monkeypatch.setenv("HW2_OUT", "~no-such-user/x")  # which nobody can expand
    assert write.output("full") == Path("~no-such-user/x")
    for command in cli.app.registered_commands:
        for name, kind in get_type_hints(command.callback, include_extras=True).items():
            if "Path" in str(kind):
                assert kind.__metadata__[0].parser == cli.user_path, (command.callback, name)


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
