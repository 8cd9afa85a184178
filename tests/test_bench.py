"""Speeds are measured as the report says, and what is committed is what `hw2 bench` writes."""

import dataclasses
import json
import os
from types import SimpleNamespace

import pytest
import torch
from helpers import tiny_network

from hw2 import networks, training
from hw2.experiments import store as runs
from hw2.networks import ResNet14
from hw2.report import plots
from hw2.tools import bench, workloads
from hw2.tools.workloads import COMPRESSED, Case


def test_ratios_are_medians_of_ratios_within_a_round():
    # The machine slows down from round to round: medians alone would compare different rounds.
    slow, fast = iter([9, 1, 2, 6]), iter([9, 4, 1, 3])  # seconds; the first round is not counted
    cases = [Case("slow", lambda: (12, next(slow))), Case("fast", lambda: (12, next(fast)), ratio_to="slow")]
    first, second = bench.measure(cases, 3)
    assert (first.median, first.ratio, first.repeats) == (6.0, None, 3)
    assert (second.median, second.ratio_to, second.ratio) == (4.0, "slow", 2.0)  # of 1/4, 2/1 and 6/3, not 4 / 6
    assert (second.ratio_low, second.ratio_high, first.ratio_low) == (0.25, 2.0, None)


@pytest.mark.parametrize(("unit", "value"), [("images/s", 5.0), ("ms", 200.0), ("s", 2.0), ("GFLOP/s", 5.0)])
def test_units(unit, value):
    (row,) = bench.measure([Case("work", lambda: (10, 2.0), unit)], 1)
    assert row.median == value


def test_operations_of_a_training_step():
    # Two for each multiply-add, forward and twice backward; the stem needs no gradient of its input.
    assert bench.flops(ResNet14()) / 1e6 == pytest.approx(122, abs=1)
    assert bench.flops(ResNet14(COMPRESSED)) / 1e6 == pytest.approx(59, abs=1)


def test_the_work_is_done_on_as_many_images_as_it_says(monkeypatch, few):
    monkeypatch.setattr(workloads, "fashion_mnist", lambda: few)
    seen = []
    tiny = tiny_network()
    tiny.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])) if module.training else None)
    count, seconds = workloads.train(lambda: tiny, 96, dataclasses.replace(workloads.FIT, batch=32))
    assert count == 96 and sum(seen) == 2 * 96 and seconds > 0
    asked = []
    teacher = tiny_network().eval()
    teacher.register_forward_pre_hook(lambda module, inputs: asked.append(len(inputs[0])))
    count, seconds = workloads.classmates_loop(teacher, 168)
    assert count == 40 and sum(asked) == 168 and seconds > 0
    asked.clear()
    count, seconds = workloads.evaluate(teacher, 150)
    assert count == sum(asked) == 150 and seconds > 0


def test_alternatives_are_put_back():
    before = torch.get_num_threads()
    inside = workloads.within(lambda: training.threads(1), torch.get_num_threads)
    assert inside() == 1 and torch.get_num_threads() == before


def test_pytorchs_own_batch_norm_is_what_the_comparison_uses():
    own = workloads.original(tiny_network())
    kinds = {type(module) for module in own.modules() if isinstance(module, torch.nn.BatchNorm2d)}
    assert kinds == {torch.nn.BatchNorm2d}


class Inline:
    """A pool of processes that does the work in this one."""

    def __init__(self, *_, **__):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, work, *words):
        return SimpleNamespace(result=lambda: work(*words))

    def map(self, work, values):
        return map(work, values)


def test_the_parts_of_a_bench_are_put_together(monkeypatch, tmp_path):
    """Without the hours of training: each part is one case, and processes are this one."""
    trained = []

    def train(make, count=1000, **_):
        trained.append((make().widths, count))
        return count, 2.0

    monkeypatch.setattr(bench, "train", train)
    monkeypatch.setattr(bench, "timed", lambda work: 1.0)
    monkeypatch.setattr(bench, "PAUSE", 0)
    monkeypatch.setattr(bench, "ProcessPoolExecutor", Inline)

    def speeds(folder):
        for name in ("compressed.onnx", "int8.onnx"):
            (folder / name).write_bytes(bytes(1000))
        return [Case("work", lambda: (10, 2.0))]

    monkeypatch.setattr(bench, "speeds", speeds)
    monkeypatch.setattr(bench, "growth", lambda folder: [Case("more", lambda: (1, 3.0), "s")])
    found = bench.bench(4)
    rows = {row["name"]: row for row in found["rows"]}
    assert (rows["work"]["median"], rows["work"]["repeats"], rows["more"]["repeats"]) == (5.0, 4, 2)
    assert rows["matrix product, float32"]["median"] == pytest.approx(5 * 2 * 2048**3 / 1e9)
    share = rows["compressed, plain training, arithmetic"]
    assert share["median"] == pytest.approx(500 * bench.flops(ResNet14(COMPRESSED)) / 1e9)
    assert share["ratio"] == pytest.approx(share["median"] / rows["matrix product, float32"]["median"])
    assert rows["compressed, ONNX, int8"]["median"] == 0.001
    assert rows["ResNet-50, weights on disk"]["median"] == pytest.approx(94.4, abs=0.1)
    assert rows["imports alone, peak memory of training"]["median"] > 10
    assert {widths for widths, _ in trained} == {networks.WIDTHS, COMPRESSED}
    assert found["packages"].keys() == {"torch", "torchvision", "torch-pruning", "onnxruntime"}
    assert found["hardware"].endswith(f"{os.cpu_count()} cores, {torch.get_num_threads()} threads")


def test_cases_of_growth_do_what_they_are_named_after(monkeypatch, tmp_path):
    done = []
    monkeypatch.setattr(workloads, "train", lambda make, count: done.append(count) or (count, 1.0))
    monkeypatch.setattr(workloads.networks, "teacher", tiny_network)
    monkeypatch.setattr(
        workloads.distillation, "build_cache", lambda teacher, images, rows, views, *_: done.append((len(rows), views))
    )
    monkeypatch.setattr(workloads.tuning, "search", lambda recipe, *_: done.append(recipe.temperatures))
    cases = {case.name: case for case in workloads.growth(tmp_path)}
    assert [case.ratio_to for case in cases.values()].count(None) == 3
    for name in ("images trained on: 2,048", "views of soft targets: 4", "settings tried: 2"):
        cases[name].run()
    assert done == [2048, (512, 4), (1, 2)]


def test_two_students_side_by_side_are_told_as_one_rate(monkeypatch):
    monkeypatch.setattr(workloads, "ProcessPoolExecutor", Inline)
    monkeypatch.setattr(workloads, "train", lambda *_, **__: (64, 2.0 + torch.get_num_threads()))
    assert workloads.side_by_side(64) == (128, 3.0)


@pytest.mark.parametrize("number", range(len(runs.sittings())))
def test_what_is_committed_is_whole(number):
    found = runs.sittings()[number]
    assert json.loads(json.dumps(found)) == found and found.keys() == {"when", "hardware", "packages", "rows"}
    names = [row["name"] for row in found["rows"]]
    assert len(names) == len(set(names)) and names == [row["name"] for row in runs.bench()["rows"]]
    assert found["hardware"] == runs.bench()["hardware"]  # the report names one
    for row in found["rows"]:
        assert row.keys() == {field.name for field in dataclasses.fields(bench.Row)}
        assert row["median"] > 0 and row["repeats"] >= 1
        assert (row["ratio"] is None) == (row["ratio_to"] is None)
        assert row["ratio_to"] is None or row["ratio_to"] in names
        if row["ratio_low"] is not None:
            assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]


def test_the_table_names_every_row_and_every_range():
    rows = [bench.Row("one", "s", 2.0, 3), bench.Row("other", "s", 4.0, 3, "one", 2.0, 1.5, 2.5)]
    lines = bench.table({"hardware": "a machine", "rows": [dataclasses.asdict(row) for row in rows]}).splitlines()
    assert lines[0] == "a machine" and lines[1].split() == ["one", "2.00", "s"]
    assert lines[2].split() == ["other", "4.00", "s", "2.00", "(1.50", "to", "2.50)", "x", "one"]


def test_the_figure_shows_what_was_measured():
    rows = {row["name"]: row["median"] for row in runs.bench()["rows"]}
    for panel in plots.FIGURES["speed"].data()["panels"]:
        assert panel["values"] == pytest.approx([rows[name] for name in panel["names"]], abs=1e-6)


def test_the_weights_on_disk_are_four_bytes_a_parameter():
    rows = {row["name"]: row["median"] for row in runs.bench()["rows"]}
    for name, network in (("ResNet-14", ResNet14()), ("compressed", ResNet14(COMPRESSED))):
        assert rows[f"{name}, weights on disk"] * 1e6 / networks.count_parameters(network) == pytest.approx(
            4.1, abs=0.2
        )
