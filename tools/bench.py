"""Measured speeds, side by side in one process: interleaved rounds, medians, and ratios taken
within a round.

`python tools/bench.py [--keep]`, on an otherwise idle machine: about ten minutes.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from timeit import timeit
from typing import NamedTuple

import torch
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision import transforms

from hw2 import distillation, kernels, networks, training, views
from hw2.assignment import NARROW, WIDTHS
from hw2.data import PROJECT, FashionMNIST, fashion_mnist
from hw2.errors import told_in_a_line
from hw2.experiments import environment
from hw2.experiments.run import root
from hw2.files import write_json, write_text
from hw2.report import style, write

IMAGES = 1024  # of an epoch of training
PAUSE = 0.2  # seconds: threads spin for a while after their work and would slow the case after it
PAGE = """# Speed

`make bench KEEP=1` measured these speeds on {hardware}, with torch {packages[torch]}.

{table}

Values are medians of interleaved rounds. Ratios are taken within a round, since the machine's own speed drifts. `ratio low` and
`ratio high` are the extremes over the rounds: where this range includes 1, no difference was detected. Of images a second more is better, of
milliseconds less. Training from the cache leaves out the teacher's one pass that fills it. The classmates' loop is what public answers to the
assignment do. It takes pictures one by one through PIL and runs the ResNet-50 on every batch.
"""  # noqa: E501


class Case(NamedTuple):
    """`run` does the work once and returns its value in `unit`."""

    name: str
    run: Callable[[], float]
    unit: str = "images/s"
    ratio_to: str | None = None


def train(
    widths: tuple[int, ...],
    data: FashionMNIST,
    objective: training.Objective = training.cross_entropy,
) -> float:
    """Images a second of `training.fit`: a ResNet-14's second epoch, in which a view is cut, of
    `IMAGES` images.
    """
    times, task = [], training.Task(data, torch.arange(IMAGES), torch.arange(10))
    options = training.Options(after_epoch=lambda *_: times.append(time.perf_counter()))
    training.fit(
        networks.ResNet14(widths),
        training.Fit(2, 0.01),
        task,
        seed=0,
        objective=objective,
        options=options,
    )
    return IMAGES / (times[1] - times[0])


def classmates_loop(
    teacher: torch.nn.Module, data: FashionMNIST, count: int = 512, batch: int = 128
) -> float:
    """Images a second, after a first batch, of public answers: pictures one by one, the teacher in
    every step.
    """
    steps = (
        transforms.ToPILImage(),
        transforms.Grayscale(3),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
    )
    transform = transforms.Compose(
        [*steps, transforms.Normalize([views.MEAN] * 3, [views.STD] * 3)]
    )

    def collate(rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.stack([transform(data.train_images[row]) for row in rows]), data.train_labels[
            rows
        ]

    student, ends = networks.ResNet14().train(), []
    optimizer = torch.optim.Adam(student.parameters())
    for images, labels in DataLoader(
        range(count), batch_size=batch, shuffle=True, collate_fn=collate
    ):
        with torch.no_grad():
            soft = functional.softmax(teacher(images) / 4, dim=1)
        logits = student(images)
        soft_loss = functional.kl_div(
            functional.log_softmax(logits / 4, dim=1), soft, reduction="batchmean"
        )
        optimizer.zero_grad()
        (functional.cross_entropy(logits, labels) + soft_loss).backward()
        optimizer.step()
        ends.append(time.perf_counter())
    return (count - batch) / (ends[-1] - ends[0])


@torch.no_grad()
def latency(network: torch.nn.Module, image: torch.Tensor, calls: int = 50) -> float:
    """Milliseconds a call of a network that is ready for evaluation, for one normalised image (1,
    3, 28, 28).
    """
    network(image)
    return 1000 * timeit(lambda: network(image), number=calls) / calls


def cases() -> list[Case]:
    """Training against what classmates do; what pruning brings in training and for one image."""
    data, teacher = fashion_mnist(), networks.teacher().eval()
    image = views.normalise(data.train_images[:1])
    cached = distillation.cached_objective(torch.randn(2, IMAGES, 10).half(), 4.0, 0.5)
    whole, small = (kernels.quick(networks.ResNet14(widths).eval()) for widths in (WIDTHS, NARROW))
    loop, plain, single = "classmates' loop", "ResNet-14, plain training", "ResNet-14, one image"
    return [
        Case(loop, lambda: classmates_loop(teacher, data)),
        Case(plain, lambda: train(WIDTHS, data), ratio_to=loop),
        Case(
            "ResNet-14, distilled from the cache",
            lambda: train(WIDTHS, data, cached),
            ratio_to=loop,
        ),
        Case("compressed, plain training", lambda: train(NARROW, data), ratio_to=plain),
        Case(single, lambda: latency(whole, image), "ms"),
        Case("compressed, one image", lambda: latency(small, image), "ms", single),
    ]


def measure(cases: list[Case], rounds: int) -> list[dict]:
    """Every case once a round, after a round that is not counted; a row a case.

    `median` is over the rounds. `ratio` is the median of this row's value divided by that of the
    row `ratio_to` in the same round, `ratio_low` and `ratio_high` are the smallest and the largest
    of the rounds.
    """
    values = {case.name: [] for case in cases}
    for case in cases * (rounds + 1):
        time.sleep(PAUSE)
        values[case.name].append(case.run())
    rows = []
    for case in cases:
        measured, ratio = values[case.name][1:], dict.fromkeys(("ratio", "ratio_low", "ratio_high"))
        if case.ratio_to:
            ratios = [
                value / reference
                for value, reference in zip(measured, values[case.ratio_to][1:], strict=True)
            ]
            ratio = {
                "ratio": statistics.median(ratios),
                "ratio_low": min(ratios),
                "ratio_high": max(ratios),
            }
        row = {
            "name": case.name,
            "unit": case.unit,
            "median": statistics.median(measured),
            "repeats": rounds,
        }
        rows.append(row | {"ratio_to": case.ratio_to} | ratio)
    return rows


def bench(rounds: int = 5) -> dict:
    """A sitting, {"when": ..., "hardware": ..., "packages": ..., "rows": [...]}: see `measure`."""
    machine = environment.environment(torch.device("cpu"))
    return {
        "when": time.strftime("%Y-%m-%dT%H:%M+00:00", time.gmtime()),
        "hardware": "{hardware}, {cores} cores, {threads} threads".format_map(machine),
        "packages": {
            name: machine["packages"][name] for name in ("torch", "torchvision", "torch-pruning")
        },
        "rows": measure(cases(), rounds),
    }


def page(result: dict) -> str:
    """docs/speed.md."""
    columns = ("name", "unit", "median", "ratio", "ratio_low", "ratio_high", "ratio_to")
    rows = [{name.replace("_", " "): row[name] for name in columns} for row in result["rows"]]
    table = style.Table(lambda source: rows, {"median": "{:,.3g}".format})
    return PAGE.format(table=write.markdown(table, None), **result)


def keep(result: dict) -> None:
    """Write runs/bench.json and docs/speed.md, in the place of those of an earlier sitting."""
    write_json(root("full") / "bench.json", result)
    write_text(PROJECT / "docs/speed.md", page(result))


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure speeds side by side.")
    parser.add_argument(
        "--keep", action="store_true", help="write runs/bench.json and docs/speed.md"
    )
    arguments = parser.parse_args()
    result = bench()
    print(page(result))
    if arguments.keep:
        keep(result)


if __name__ == "__main__":
    with told_in_a_line():
        main()
