"""Speeds are measured as the report says; what is committed is what `make bench KEEP=1` writes."""

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
    cases = [Case("slow", slow.__next__), Case("fast", fast.__next__, "ms", ratio_to="slow")]
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


@pytest.mark.parametrize("words", [[], ["--keep"]])
def test_speeds_are_printed_and_kept_where_that_is_asked_for(monkeypatch, capsys, project, words):
    cases = [Case("work", lambda: 5.0), Case("more", lambda: 10.0, "ms", "work")]
    monkeypatch.setattr(bench, "cases", lambda: cases)
    monkeypatch.setattr(bench, "PAUSE", 0)
    monkeypatch.setattr(bench, "PROJECT", project)
    monkeypatch.setattr(sys, "argv", ["bench.py", *words])
    bench.main()
    printed = capsys.readouterr().out
    assert environment.environment(torch.device("cpu"))["hardware"] in printed
    assert (project / "docs/speed.md").exists() == bool(words)
    if words:
        kept = read_json(project / "runs/bench.json")
        assert (project / "docs/speed.md").read_text("utf-8") == bench.page(kept)
        assert [row["ratio"] for row in kept["rows"]] == [None, 2]


def test_what_is_committed_has_the_rows_that_the_bench_has():
    kept = read_json(root("full") / "bench.json")
    rows = [(row["name"], row["unit"], row["ratio_to"]) for row in kept["rows"]]
    assert rows == [(case.name, case.unit, case.ratio_to) for case in bench.cases()]
    for row in kept["rows"]:
        assert row["median"] > 0
        assert row["ratio_to"] is None or row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
    assert (PROJECT / "docs/speed.md").read_text("utf-8") == bench.page(kept)
