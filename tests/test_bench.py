"""Speeds are measured as the report says.

And what is committed is what `make bench KEEP=1` writes.
"""

import subprocess
import sys

import pytest
import torch
from helpers import TINY, tiny_network

from hw2.data import PROJECT
from hw2.experiments import environment
from hw2.experiments.run import root
from hw2.files import read_json
from tools import bench
from tools.bench import Case


def test_ratios_are_medians_of_ratios_within_a_round(monkeypatch):
    # The machine slows down from round to round: medians alone would compare different rounds.
    monkeypatch.setattr(bench, "PAUSE", 0)
    slow, fast = iter([9, 12, 6, 2]), iter([9, 3, 12, 4])  # the first round is not counted
    cases = [
        Case("slow", lambda: next(slow)),
        Case("fast", lambda: next(fast), "ms", ratio_to="slow"),
    ]
    one, other = bench.measure(cases, 3)
    assert (one["median"], one["unit"], one["repeats"], one["ratio"]) == (6, "images/s", 3, None)
    # of 3/12, 12/6 and 4/2, not 4/6
    assert (other["median"], other["ratio_to"], other["ratio"]) == (4, "slow", 2)
    assert (other["ratio_low"], other["ratio_high"]) == (0.25, 2)


def test_values_are_images_a_second_and_milliseconds(monkeypatch, few):
    clock = iter(range(100))  # seconds: each look at it takes one
    monkeypatch.setattr(bench.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(bench, "IMAGES", 96)
    seen = []  # training is measured in the second epoch

    def objective(logits, labels, rows, answers):
        seen.append(answers)
        return logits.sum()

    assert bench.train(TINY, few, objective) == 96
    assert len(seen) == 2 and bench.train(TINY, few) == 96  # also on labels alone
    asked = []
    teacher = tiny_network().eval()
    teacher.register_forward_pre_hook(lambda module, inputs: asked.append(len(inputs[0])))
    assert bench.classmates_loop(teacher, few, 80, batch=40) == 40 and asked == [40, 40]
    monkeypatch.setattr(bench, "timeit", lambda work, number: 3.0)
    assert bench.latency(teacher, torch.zeros(1, 3, 28, 28), calls=30) == 100


@pytest.mark.parametrize(("words", "expected"), [([], []), (["--keep"], ["speeds"])])
def test_speeds_are_printed_and_kept_where_that_is_asked_for(monkeypatch, capsys, words, expected):
    kept = []
    monkeypatch.setattr(bench, "bench", lambda: "speeds")
    monkeypatch.setattr(bench, "page", lambda result: f"a page of {result}")
    monkeypatch.setattr(bench, "keep", kept.append)
    monkeypatch.setattr(sys, "argv", ["bench.py", *words])
    bench.main()
    assert (kept, capsys.readouterr().out) == (expected, "a page of speeds\n")


def test_it_starts_from_any_folder(tmp_path):
    command = [sys.executable, PROJECT / "tools/bench.py", "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "--keep" in done.stdout


def test_what_is_committed_has_the_rows_that_the_bench_has():
    kept = read_json(root("full") / "bench.json")
    rows = [(row["name"], row["unit"], row["ratio_to"]) for row in kept["rows"]]
    assert rows == [(case.name, case.unit, case.ratio_to) for case in bench.cases()]
    for row in kept["rows"]:
        assert row["median"] > 0 and list(row)[4:] == [
            "ratio_to",
            "ratio",
            "ratio_low",
            "ratio_high",
        ]
        assert row["ratio_to"] is None or row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
    assert (PROJECT / "docs/speed.md").read_text("utf-8") == bench.page(kept)


def test_a_sitting_names_the_machine_and_is_kept_whole(monkeypatch, project):
    monkeypatch.setattr(
        bench,
        "cases",
        lambda: [Case("work", lambda: 5.0), Case("more", lambda: 10.0, "ms", "work")],
    )
    result = bench.bench(1)
    monkeypatch.setattr(bench, "PROJECT", project)
    bench.keep(result)
    page = (project / "docs/speed.md").read_text("utf-8")
    assert environment.environment(torch.device("cpu"))["hardware"] in page
    assert read_json(project / "runs/bench.json") == result
