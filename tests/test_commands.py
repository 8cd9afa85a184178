"""The commands that train, measure and write, in this process and on a walk of the tests' size."""

import json
import os
import shutil
from contextlib import contextmanager

import pytest
import torch
from typer.testing import CliRunner

from hw2 import cli, networks, pruning, training
from hw2.data import PROJECT
from hw2.errors import Ended, InputError
from hw2.experiments import recipes, replay, stages
from hw2.experiments import search as tuning
from hw2.experiments import store as runs
from hw2.report import write as report
from hw2.tools import bench


def called(*words):
    """Exit status and lines of a command; what is no exit comes through."""
    result = CliRunner().invoke(cli.app, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout.splitlines()


COUNTS = {
    "all": 6, "teacher": 1, "distilled": 1, "plain": 1, "compressed": 1, "scratch": 1, "unpruned": 1, "vanilla": 1,
    "pruned_labels": 1, "arms": 2 * len(recipes.ARMS), "ablation": 2 * len(recipes.ABLATION), "frontier": 2,
    "finalists": 4,
}  # fmt: skip


@pytest.mark.parametrize("stage", COUNTS)
def test_every_stage_tells_its_runs(store, monkeypatch, stage):
    seed = ["--seed", 2] if stage in ("vanilla", "pruned_labels") else []
    monkeypatch.setattr(training, "fit", lambda *_, **__: pytest.fail("something was trained"))
    status, lines = called("train", stage, *seed)
    assert (status, len(lines)) == (0, COUNTS[stage])
    for line in lines:
        name, told = line.split(": ")
        run = runs.Run(runs.root("smoke") / name)
        test = "not read" if run.test_accuracy is None else f"{run.test_accuracy:.2%}"
        parameters = f"{run.metrics['parameters']:,} parameters"
        assert told == f"{parameters}, validation {run.val_accuracy:.2%}, test {test}"


@pytest.mark.parametrize(
    ("words", "ratio", "parameters"), [(("--ratio", "0.5"), 0.5, 44_370), (("--budget", 100_000), None, 98_998)]
)
def test_pruning_goes_by_ratio_or_budget(store, words, ratio, parameters):
    _, (line,) = called("train", "compressed", *words)
    name, told = line.split("/smoke-s0: ")
    assert told.startswith(f"{parameters:,} parameters, ")
    assert name == f"compressed-{ratio or pruning.ratio_for(networks.WIDTHS, parameters):g}"


def test_the_search_is_told_trial_by_trial_with_its_finalists(store):
    status, lines = called("tune")
    assert status == 0
    trials, finalists = lines[:-2], lines[-2:]
    assert trials[0].split() == list(tuning.COLUMNS) and len(trials) == 1 + len(stages.tuned())
    for line, (temperature, alpha) in zip(finalists, tuning.finalists(stages.tuned()), strict=True):
        assert line == f"finalist: temperature {temperature:g}, alpha {alpha:g}"


def test_grading_needs_no_teacher(tmp_path, monkeypatch):
    name = stages.delivered("cpu").name
    shutil.copytree(PROJECT / "runs" / name, tmp_path / "runs" / name)
    for path in ("delivered.json", "test_ledger.csv"):
        shutil.copy(PROJECT / "runs" / path, tmp_path / "runs")
    monkeypatch.setattr(runs, "PROJECT", tmp_path)
    monkeypatch.setenv("HW2_OUT", str(PROJECT))
    status, lines = called("grade")
    assert status == 0 and lines[-1] == "8 pass, 0 fail, 1 not checkable"


@pytest.mark.parametrize(("stale", "status"), [([], 0), (["report.md: missing", "figures/a.png: missing"], 1)])
def test_the_report_is_written_or_checked(monkeypatch, tmp_path, stale, status):
    monkeypatch.setattr(report, "write", lambda: tmp_path)
    monkeypatch.setattr(report, "stale", lambda: stale)
    assert called("report") == (0, [f"written to {tmp_path}"])
    assert called("report", "--check") == (
        status, stale or ["figures, report and submission are what runs and code make"]
    )  # fmt: skip


def test_a_submission_is_written_where_it_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.setattr(report, "delivered_classes", lambda: torch.tensor([3, 0, 9]))
    monkeypatch.setenv("HW2_OUT", str(tmp_path))
    assert called("submit") == (0, [str(tmp_path / "submission.csv")])
    assert called("submit", "--out", tmp_path / "other.csv")[0] == 0
    for name in ("submission.csv", "other.csv"):
        assert (tmp_path / name).read_text() == "id,pred\n0,3\n1,0\n2,9\n"


def test_measured_speeds_are_shown_and_kept_where_that_is_asked_for(project, monkeypatch):
    row = {"name": runs.PRODUCT, "unit": "GFLOP/s", "median": 2.5, "repeats": 3, "ratio_to": None, "ratio": None}
    found = {"hardware": "a machine", "rows": [row]}
    monkeypatch.setattr(bench, "bench", lambda repeats: {**found, "repeats": repeats})
    assert called("bench", "--repeats", 3) == (0, bench.table(found).splitlines())
    assert not (project / "runs").exists()
    status, lines = called("bench", "--json", "--keep")
    assert status == 0 and json.loads("\n".join(lines)) == runs.bench() == {**found, "repeats": 5}
    assert called("bench", "--keep")[0] == 0 and runs.sittings() == 2 * [{**found, "repeats": 5}]
    assert "bench.json" in (project / "runs/SHA256SUMS").read_text()


def test_replay_fails_where_a_run_is_not_as_recorded(store, monkeypatch):
    strange = "compressed/smoke-s0"
    monkeypatch.setattr(replay, "replay", lambda run, device: ["no", "nor this"] if run.name == strange else [])
    status, lines = called("replay")
    assert status == 1 and lines == [
        "teacher/smoke-s0: as recorded", "distilled/smoke-s0: as recorded", f"{strange}: no; nor this"
    ]  # fmt: skip
    assert called("replay", "plain/smoke-s0") == (0, ["plain/smoke-s0: as recorded"])
    with monkeypatch.context() as patch:
        patch.setattr(replay, "unchecked", lambda run, device: "not checked")
        assert called("replay", "plain/smoke-s0") == (0, ["plain/smoke-s0: as recorded; not checked"])
    assert len(called("replay", "--all")[1]) == len(replay.every())
    with pytest.raises(InputError, match="no finished run 'plain/smoke-s7'; expected one of "):
        called("replay", "plain/smoke-s7")


@contextmanager
def ending(monkeypatch, error):
    def app():
        raise error

    monkeypatch.setattr(cli, "app", app)
    monkeypatch.setattr(os, "dup2", lambda *_: None)  # which would close this process's own output
    with pytest.raises(SystemExit) as ended:
        yield ended


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (InputError("a\n  b"), 2, "hw2: a b\n"),
        (OSError(28, "No space left on device"), 2, "hw2: [Errno 28] No space left on device\n"),
        (BrokenPipeError(), 141, ""),
        (Ended("plain: ended"), 143, "hw2: plain: ended\n"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(monkeypatch, capsys, error, status, told):
    with ending(monkeypatch, error) as ended:
        cli.main()
    assert ended.value.code == status
    assert capsys.readouterr().err == told
