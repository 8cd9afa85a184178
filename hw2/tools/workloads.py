"""What `hw2 bench` measures: one function a piece of work, and the lists of cases side by side.

Training goes through `training.fit`, as every stage does, on the first images of the data set; weights are random, and
that changes no time. Alternatives that were measured and not kept run in a context that puts them back.
"""

from __future__ import annotations

import itertools
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from tqdm import tqdm

from hw2 import distillation, inference, kernels, networks, pruning, training, views
from hw2.data import FashionMNIST, fashion_mnist
from hw2.experiments import search as tuning
from hw2.experiments.recipes import NARROW, NUMBERS, RATIO, Fit, TuningRecipe
from hw2.networks import ResNet14

COMPRESSED = NARROW
IMAGES = 1024  # of an epoch of training
FIT = Fit(epochs=2, lr=0.01)


@dataclass(frozen=True)
class Case:
    """`run` does the work once: how much it was (images, calls where the unit is ms or s, GFLOP), and its seconds.

    It starts the clock itself, after what a whole run does only once.
    """

    name: str
    run: Callable[[], tuple[float, float]]
    unit: str = "images/s"
    ratio_to: str | None = None


def part(count: int) -> FashionMNIST:
    """The first so many training images as a data set of their own."""
    data = fashion_mnist()
    return replace(data, train_images=data.train_images[:count], train_labels=data.train_labels[:count])


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def train(make: Callable[[], nn.Module], count: int = IMAGES, recipe: Fit = FIT, **more) -> tuple[int, float]:
    """`training.fit` on the first `count` images: its second epoch, in which a view is cut.

    Validation is left out: it has rows of its own, and would weigh far more here than after an epoch of 55,000 images.
    """
    rows, ends = torch.arange(count), []
    with patch.object(training, "validate", lambda *_: (0.0, 0)):
        training.fit(make(), part(count), rows, rows[:10], recipe, seed=0, view_count=2,
                     after_epoch=lambda *_: ends.append(time.perf_counter()), **more)  # fmt: skip
    return count, ends[1] - ends[0]


def _alone(count: int) -> tuple[int, float]:
    """A student distilled from the cache with one thread, in a process of its own."""
    targets = torch.randn(2, count, 10).half()
    with training.threads(1), patch.object(training, "tqdm", partial(tqdm, disable=True)):
        return train(ResNet14, count, objective=distillation.cached_objective(targets, 4.0, 0.5))


def side_by_side(count: int = 2 * IMAGES, workers: int = 2) -> tuple[int, float]:
    """As many students at once, a process each, as `hw2 tune --workers` does it."""
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(_alone, [count] * workers))
    return workers * count, max(seconds for _, seconds in found)


def sparse() -> Callable[[], tuple[int, float]]:
    """Sparse learning that goes on with one network: the pruner is built once, as in a run."""
    network = ResNet14()
    hooks = pruning.sparse_learning(network, RATIO, 1e-3)
    return lambda: train(lambda: network, **hooks)


class _Pictures(Dataset):
    """The data set as classmates' answers read it: a PIL image and a chain of transforms for every picture."""

    def __init__(self, data: FashionMNIST):
        self.data = data
        self.transform = transforms.Compose([
            transforms.ToPILImage(), transforms.Grayscale(3), transforms.RandomHorizontalFlip(), transforms.ToTensor(),
            transforms.Normalize([views.MEAN] * 3, [views.STD] * 3),
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self.data.train_labels)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.data.train_images[row]), int(self.data.train_labels[row])


def classmates_loop(teacher: nn.Module, count: int = IMAGES) -> tuple[int, float]:
    """What public answers to the assignment do: pictures one by one, the ResNet-50 on every batch. One warms up."""
    student, ends = ResNet14().train(), []
    optimizer = torch.optim.Adam(student.parameters())
    for images, labels in DataLoader(_Pictures(part(count)), batch_size=128, shuffle=True):
        with torch.no_grad():
            soft = functional.softmax(teacher(images) / 4, dim=1)
        logits = student(images)
        loss = functional.cross_entropy(logits, labels)
        loss += functional.kl_div(functional.log_softmax(logits / 4, dim=1), soft, reduction="batchmean")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ends.append(time.perf_counter())
    return count - 128, ends[-1] - ends[0]


@torch.no_grad()
def evaluate(network: Callable[[torch.Tensor], object], count: int) -> tuple[int, float]:
    """The first `count` training images through a network that is ready for it."""
    batches = fashion_mnist().train_images[:count].split(100)
    return count, timed(lambda: [network(views.normalise(images)) for images in batches])


@torch.no_grad()
def latency(call: Callable[[torch.Tensor], object], calls: int = 50) -> tuple[int, float]:
    image = views.normalise(fashion_mnist().train_images[:1])
    call(image)
    return calls, timed(lambda: [call(image) for _ in range(calls)])


def within(make_context: Callable, run: Callable) -> Callable:
    """`run` inside a context of its own each time: the alternatives that were measured and not kept."""

    def wrapped():
        with make_context():
            return run()

    return wrapped


def original(network: nn.Module) -> nn.Module:
    """The network with PyTorch's own BatchNorm."""
    for module in network.modules():
        if isinstance(module, kernels.BatchNorm2d):
            module.__class__ = nn.BatchNorm2d
    return network


def speeds(folder: Path) -> list[Case]:
    """Training, evaluation and latency; then what each measure that makes them fast brings."""
    data = fashion_mnist()
    rows = training.parts(data, 500, 0)[0]
    made = {
        "ResNet-50": networks.teacher().eval(),
        "ResNet-14": ResNet14().eval(),
        "compressed": ResNet14(COMPRESSED).eval(),
    }
    fast = {name: kernels.quick(network) for name, network in made.items()}
    runtime = {}
    for name, network in made.items():
        inference.export(network, folder / f"{name}.onnx")
        runtime[name] = inference.session(folder / f"{name}.onnx")
    inference.quantise(folder / "compressed.onnx", folder / "int8.onnx", data.train_images[rows])
    runtime["int8"] = inference.session(folder / "int8.onnx")
    onnx = {name: lambda images, call=call: call(images.contiguous().numpy()) for name, call in runtime.items()}
    padded = kernels.resized(made["compressed"], kernels.fast_widths(COMPRESSED)).to(memory_format=torch.channels_last)
    folded = kernels.folded(made["compressed"]).to(memory_format=torch.channels_last)

    pruned = {
        ratio: kernels.quick(pruning.prune(made["ResNet-14"], ratio)) for ratio in NUMBERS["cpu"]["frontier"]["ratios"]
    }

    small = partial(ResNet14, COMPRESSED)
    cached = distillation.cached_objective(torch.randn(2, IMAGES, 10).half(), 4.0, 0.5)
    live = distillation.live_objective(made["ResNet-50"], part(IMAGES).train_images, 4.0, 0.5)
    plain, narrow, loop = "ResNet-14, plain training", "compressed, plain training", "classmates' loop"
    grand, slim, one = "ResNet-50, evaluation", "compressed, evaluation", "ResNet-14, one image"
    grand_onnx, slim_onnx = "ResNet-50, ONNX Runtime", "compressed, ONNX Runtime"
    return [
        Case(loop, lambda: classmates_loop(made["ResNet-50"], 512)),
        Case(plain, lambda: train(ResNet14), ratio_to=loop),
        Case("ResNet-14, distilled from the cache", lambda: train(ResNet14, objective=cached), ratio_to=loop),
        Case("the same, against plain training", lambda: train(ResNet14, objective=cached), ratio_to=plain),
        Case("two of them side by side, a thread each", side_by_side, ratio_to=loop),
        Case("ResNet-14, distilled from a live teacher", lambda: train(ResNet14, objective=live), ratio_to=loop),
        Case("ResNet-14, sparse learning", sparse(), ratio_to=plain),
        Case(narrow, lambda: train(small), ratio_to=plain),
        Case("compressed, distilled from the cache", lambda: train(small, objective=cached), ratio_to=narrow),
        Case(grand, lambda: evaluate(fast["ResNet-50"], 500)),
        Case("ResNet-14, evaluation", lambda: evaluate(fast["ResNet-14"], 2000), ratio_to=grand),
        Case(slim, lambda: evaluate(fast["compressed"], 2000), ratio_to=grand),
        Case(grand_onnx, lambda: evaluate(onnx["ResNet-50"], 500), ratio_to=grand),
        Case(slim_onnx, lambda: evaluate(onnx["compressed"], 2000), ratio_to=grand_onnx),
        Case("compressed, ONNX Runtime, int8", lambda: evaluate(onnx["int8"], 2000), ratio_to=slim_onnx),
        Case("ResNet-50, one image", lambda: latency(fast["ResNet-50"], 20), "ms"),
        Case(one, lambda: latency(fast["ResNet-14"]), "ms"),
        Case("compressed, one image", lambda: latency(fast["compressed"]), "ms", one),
        Case("compressed, one image, ONNX Runtime", lambda: latency(onnx["compressed"]), "ms", "compressed, one image"),
        *(Case(f"pruned by {ratio:g}, one image", partial(latency, call), "ms", one) for ratio, call in pruned.items()),
        Case("plain, contiguous layout", lambda: train(ResNet14, channels_last=False), ratio_to=plain),
        Case("plain, batches of 64", lambda: train(ResNet14, recipe=replace(FIT, batch=64)), ratio_to=plain),
        Case("plain, batches of 256", lambda: train(ResNet14, recipe=replace(FIT, batch=256)), ratio_to=plain),
        Case("plain, one thread", within(partial(training.threads, 1), lambda: train(ResNet14)), ratio_to=plain),
        Case("compressed, PyTorch's BatchNorm", lambda: train(lambda: original(small())), ratio_to=narrow),
        Case("compressed, evaluation, BatchNorm apart", lambda: evaluate(padded, 2000), ratio_to=slim),
        Case("compressed, evaluation, unpadded", lambda: evaluate(folded, 2000), ratio_to=slim),
    ]  # fmt: skip


def growth(folder: Path) -> list[Case]:
    """Cost against images, views and settings; ratios to the smallest should be the quotients of the sizes."""
    teacher, logits = networks.teacher().eval(), torch.randn(2, 60000, 10).half()
    studies = itertools.count()

    def targets(count: int) -> tuple[int, float]:
        images, rows = part(512).train_images, torch.arange(512)
        with tempfile.TemporaryDirectory(dir=folder) as aside:
            return 1, timed(lambda: distillation.build_cache(teacher, images, rows, count, 2, 0, Path(aside)))

    def settings(count: int) -> tuple[int, float]:
        recipe = TuningRecipe(
            stage="bench",
            seed=next(studies),  # a study of its own each time
            images=IMAGES,
            validation=10,
            views=2,
            fit=Fit(1, 0.01),
            temperatures=tuple(range(1, count + 1)),
            alphas=(0.5,),
            seeds=(0,),
            teacher="",
        )
        storage = f"sqlite:///{folder / 'studies.db'}"
        return 1, timed(lambda: tuning.search(recipe, fashion_mnist(), logits, torch.device("cpu"), storage))

    kinds = {
        "images trained on": (lambda count: train(ResNet14, count), (IMAGES, 2 * IMAGES, 4 * IMAGES)),
        "views of soft targets": (targets, (1, 2, 4)),
        "settings tried": (settings, (1, 2, 4)),
    }
    return [
        Case(f"{kind}: {size:,}", partial(run, size), "s", f"{kind}: {sizes[0]:,}" if size != sizes[0] else None)
        for kind, (run, sizes) in kinds.items()
        for size in sizes
    ]
