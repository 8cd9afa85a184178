"""Measured speeds, side by side in one process: interleaved rounds, medians, and ratios taken within a round.

Machines are noisy, so only what ran in the same minutes is compared.
"""

from __future__ import annotations

import importlib.metadata
import io
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from hw2 import distillation, networks, training
from hw2.experiments import store as runs
from hw2.networks import ResNet14
from hw2.tools.workloads import COMPRESSED, IMAGES, Case, growth, speeds, timed, train

PAUSE = 0.2  # seconds: the threads of ONNX Runtime spin for a while after their work and would slow the case after it


@dataclass(frozen=True)
class Row:
    """`ratio`: the median over the rounds of this row's value divided by the value of the row `ratio_to`.

    `ratio_low` and `ratio_high`: the smallest and the largest over the rounds; None where they were not kept.
    """

    name: str
    unit: str
    median: float
    repeats: int
    ratio_to: str | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None


def measure(cases: list[Case], repeats: int) -> list[Row]:
    """Every case once a round, after a round that is not counted."""
    values = {case.name: [] for case in cases}
    for _ in tqdm(range(repeats + 1), desc="rounds", unit="round", leave=False):
        for case in cases:
            time.sleep(PAUSE)
            count, seconds = case.run()
            value = {"ms": 1000 * seconds / count, "s": seconds}.get(case.unit, count / seconds)
            values[case.name].append(value)
    rows = []
    for case in cases:
        mine, told = values[case.name][1:], ()
        if case.ratio_to:
            pairs = zip(mine, values[case.ratio_to][1:], strict=True)
            ratios = [value / other for value, other in pairs]
            told = (statistics.median(ratios), min(ratios), max(ratios))
        rows.append(Row(case.name, case.unit, statistics.median(mine), repeats, case.ratio_to, *told))
    return rows


def flops(network: nn.Module) -> int:
    """Floating-point operations of a training step for one image: two for every multiply-add."""
    with FlopCounterMode(display=False) as counter:
        network.train()(torch.zeros(2, 3, 28, 28)).sum().backward()
    return counter.get_total_flops() // 2


def roofline() -> list[Case]:
    """The machine's matrix product, and training beside it: the share of its rate that training reaches."""
    side = 2048
    one, other = torch.ones(side, side), torch.ones(side, side)

    def multiply() -> tuple[float, float]:
        return 5 * 2 * side**3 / 1e9, timed(lambda: [one @ other for _ in range(5)])

    def arithmetic(widths: tuple[int, ...]) -> Callable[[], tuple[float, float]]:
        each = flops(ResNet14(widths)) / 1e9

        def run() -> tuple[float, float]:
            images, seconds = train(partial(ResNet14, widths))
            return images * each, seconds

        return run

    return [
        Case(runs.PRODUCT, multiply, "GFLOP/s"),
        Case("ResNet-14, plain training, arithmetic", arithmetic(networks.WIDTHS), "GFLOP/s", runs.PRODUCT),
        Case("compressed, plain training, arithmetic", arithmetic(COMPRESSED), "GFLOP/s", runs.PRODUCT),
    ]


def _peak(widths: tuple[int, ...] | None) -> int:
    if widths:
        train(partial(ResNet14, widths), 4 * IMAGES)
    return runs.peak_memory(torch.device("cpu")) or 0


def sizes(folder: Path) -> list[Row]:
    """Bytes on disk, and the peak memory of a process that trains, each in a process of its own."""
    made = {
        "ResNet-50": networks.teacher(),
        "ResNet-14": ResNet14(),
        "compressed": ResNet14(COMPRESSED),
    }
    rows = []
    for name, network in made.items():
        networks.save(network, folder / "model.safetensors")
        rows.append(Row(f"{name}, weights on disk", "MB", (folder / "model.safetensors").stat().st_size / 1e6, 1))
    for kind, file in (("float32", "compressed"), ("int8", "int8")):
        rows.append(Row(f"compressed, ONNX, {kind}", "MB", (folder / f"{file}.onnx").stat().st_size / 1e6, 1))
    context = multiprocessing.get_context("spawn")
    for name, widths in (("imports alone", None), ("ResNet-14", networks.WIDTHS), ("compressed", COMPRESSED)):
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            rows.append(Row(f"{name}, peak memory of training", "MB", pool.submit(_peak, widths).result() / 1e6, 1))
    return rows


def bench(repeats: int = 5) -> dict:
    """A sitting, {"when": ..., "hardware": ..., "packages": ..., "rows": [...]}: see `Row`."""
    environment = runs.environment(torch.device("cpu"))
    silent = partial(tqdm, disable=True)
    with (
        tempfile.TemporaryDirectory() as name,
        patch.object(training, "tqdm", silent),
        patch.object(distillation, "tqdm", silent),
    ):
        folder = Path(name)
        rows = measure(speeds(folder) + roofline(), repeats) + measure(growth(folder), max(repeats // 2, 1))
        rows += sizes(folder)
    hardware = f"{environment['hardware']}, {environment['cores']} cores, {environment['threads']} threads"
    packages = {name: environment["packages"][name] for name in ("torch", "torchvision", "torch-pruning")}
    packages["onnxruntime"] = importlib.metadata.version("onnxruntime")
    when = datetime.now(UTC).isoformat(timespec="minutes")
    return {"when": when, "hardware": hardware, "packages": packages, "rows": [asdict(row) for row in rows]}


def table(result: dict) -> str:
    """The rows as an aligned text table."""
    text = io.StringIO()
    print(result["hardware"], file=text)
    for row in result["rows"]:
        ratio = ""
        if row["ratio_to"]:
            ratio = f"  {row['ratio']:6.2f} ({row['ratio_low']:.2f} to {row['ratio_high']:.2f}) x {row['ratio_to']}"
        print(f"{row['name']:44} {row['median']:12,.2f} {row['unit']:9}{ratio}", file=text)
    return text.getvalue().rstrip()
