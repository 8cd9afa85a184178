"""The one training loop, and evaluation.

The same arguments on the same machine with the same number of threads give the same weights,
resumed or in one go.
"""

import copy
import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from hw2 import views
from hw2.data import permutation
from hw2.errors import Bar, InputError, end_if_asked
from hw2.files import check_fields, errors_naming, write_bytes
from hw2.kernels import quick, tiled
from hw2.views import Task

STEPS_KEPT = 20  # losses of the first steps, for replay
NEAR = 1e-3  # the two largest logits of an image: closer than rounding should decide
CPU = torch.device("cpu")
FORBID = {"extra": "forbid"}  # of pydantic: a dataclass takes no field but its own
#: (logits (n, 10), labels (n,), rows (n,), answers (n,)) -> loss, a scalar. `rows` are places in
#: the file of 60,000 training images, `answers` say which of the teacher's are to their views.
Objective = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Fit:
    """The numbers of one training: SGD with Nesterov momentum and one cycle of `learning_rate`."""

    epochs: Annotated[int, Field(ge=0, le=10_000)]  # 0: nothing is trained
    lr: Annotated[float, Field(ge=0, le=10)]
    batch: Annotated[int, Field(ge=1, le=60_000)] = 128
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.2  # share of all steps
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 5e-4
    precision: Literal["float32", "bfloat16"] = "float32"  # bfloat16: autocast
    __pydantic_config__ = FORBID

    def __post_init__(self):
        """`InputError` for a value out of its field's range."""
        check_fields(self)


def nothing(*arguments) -> None:
    """What is done where an option is not given."""


@dataclass(frozen=True)
class Options:
    """What only some trainings need. `after_epoch` may end training by an exception of its own."""

    label: str = "training"
    before_epoch: Callable[[int], object] = nothing  # epochs from 0
    after_backward: Callable[[], object] = nothing  # before each step of the optimizer
    after_epoch: Callable[[int, float], object] = nothing  # epochs done, validation accuracy
    first_steps: int | None = None  # ends training after so many, without validation
    environment: dict = field(default_factory=dict)  # kept in the history and in the checkpoint


@dataclass
class History:
    """A training's records."""

    epochs: list[dict] = field(default_factory=list)  # rows of history.csv
    steps: list[dict] = field(default_factory=list)  # rows of steps.csv
    machines: list[dict] = field(default_factory=list)  # each environment, from which epoch on
    earlier: float = 0.0  # seconds that interrupted processes spent
    earlier_processor: float = 0.0  # seconds of the processor that they spent

    def goes_on(self, done: int, environment: dict) -> None:
        """Note the environment that trains after `done` epochs, if it is another than before."""
        if not self.machines or environment != self.machines[-1]["environment"]:
            self.machines.append({"epochs_done": done, "environment": environment})


def learning_rate(fit: Fit, step: int, steps: int) -> float:
    """One cycle (Smith 2018): linear to `fit.lr`, then half a cosine to 0. `step` counts from 0."""
    rise = fit.warmup * steps
    if step + 1 < rise:
        return fit.lr * (step + 1) / rise
    return fit.lr * 0.5 * (1 + math.cos(math.pi * (step + 1 - rise) / (steps - rise + 1)))


def cross_entropy(logits: Tensor, labels: Tensor, rows: Tensor, answers: Tensor) -> Tensor:
    """The loss of training on labels alone, an `Objective`."""
    return functional.cross_entropy(logits, labels)


def shuffled(rows: Tensor, seed: int, epoch: int) -> Tensor:
    """The rows in an order that is a pure function of (seed, epoch)."""
    return rows[torch.from_numpy(permutation(len(rows), "shuffle", seed, epoch))]


def sgd(network: nn.Module, numbers: Fit) -> torch.optim.SGD:
    return torch.optim.SGD(
        network.parameters(),
        lr=numbers.lr,
        momentum=numbers.momentum,
        weight_decay=numbers.weight_decay,
        nesterov=numbers.momentum > 0,
        fused=True,
    )


@dataclass
class Checkpoint:
    """A training's state after an epoch, in a file from which it resumes."""

    path: Path | None  # None: none is kept
    words: str  # of which training it is
    network: nn.Module
    optimizer: torch.optim.Optimizer
    history: History
    started: float = field(default_factory=time.monotonic)
    processor: float = field(default_factory=time.process_time)

    def load(self) -> None:
        """Take the file's state where there is one; `InputError` where it is another training's."""
        if self.path is None or not self.path.is_file():
            return
        device = next(self.network.parameters()).device
        content = f"checkpoint of {self.words}"
        # torch raises whatever its unpickler or the shapes met.
        with errors_naming(self.path, content, "delete it to begin again", Exception):
            state = torch.load(self.path, map_location=device, weights_only=True)
            if state["words"] != self.words:
                raise ValueError(f"it is of {state['words']}")
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            vars(self.history).update(state["history"])

    def save(self) -> None:
        if self.path is None:
            return
        seconds = time.monotonic() - self.started
        processor = time.process_time() - self.processor
        history = vars(self.history) | {
            "earlier": self.history.earlier + seconds,
            "earlier_processor": self.history.earlier_processor + processor,
        }
        state = {
            "words": self.words,
            "history": history,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        content = io.BytesIO()  # torch.save into a file tells of a full disk by its own C++ errors
        torch.save(state, content)
        write_bytes(self.path, content.getbuffer())


def fit(
    network: nn.Module,
    numbers: Fit,
    task: Task,
    *,
    seed: int,
    objective: Objective = cross_entropy,
    options: Options | None = None,
    device: torch.device = CPU,
    checkpoint: Path | None = None,
) -> tuple[nn.Module, History]:
    """Train `network`, in place; validate after every epoch.

    Returns it, on the CPU and in evaluation mode, and the history. Training resumes from the last
    finished epoch in `checkpoint`. Raises `InputError` where the loss is not finite, `Ended` after
    an epoch in which SIGTERM came.
    """
    options = options or Options()
    network.to(device, memory_format=torch.channels_last)
    words = f"{options.label}, seed {seed}, {numbers}, {len(task.train)} images"
    state = Checkpoint(checkpoint, words, network, sgd(network, numbers), History())
    state.load()
    optimizer, history = state.optimizer, state.history
    images, labels = task.data.train_images.to(device), task.data.train_labels.to(device)
    per_epoch = math.ceil(len(task.train) / numbers.batch)
    steps = numbers.epochs * per_epoch
    with _bar(options.label, len(history.epochs) * per_epoch, steps) as bar, tiled(network):
        for epoch in range(len(history.epochs), numbers.epochs):
            end_if_asked(options.label)
            history.goes_on(epoch, options.environment)
            options.before_epoch(epoch)
            network.train()
            shown = views.cut(images, task.view(epoch), task.pad)
            answers = task.answer(epoch).to(device)
            losses = torch.zeros((), device=device, dtype=torch.float64)
            batches = shuffled(task.train, seed, epoch).to(device).split(numbers.batch)
            for step, rows in enumerate(batches, start=epoch * per_epoch):
                lr = learning_rate(numbers, step, steps)
                optimizer.param_groups[0]["lr"] = lr
                optimizer.zero_grad(set_to_none=True)
                with _precision(numbers, device):
                    logits = network(views.normalise(shown[rows]))
                loss = objective(logits.float(), labels[rows], rows, answers[rows])
                loss.backward()
                options.after_backward()
                optimizer.step()
                losses += loss.detach() * len(rows)
                if step < STEPS_KEPT:
                    history.steps.append({"step": step, "loss": loss.item()})
                bar.update()
                if options.first_steps == step + 1:
                    return network, history
            row = {"epoch": epoch + 1, "lr": lr, "train_loss": losses.item() / len(task.train)}
            held_out = images[task.validation], labels[task.validation]
            row = _told(row, network, *held_out, options.label, numbers)
            history.epochs.append(row)
            state.save()
            bar.set_postfix(val_accuracy=f"{row['val_accuracy']:.4f}")
            options.after_epoch(epoch + 1, row["val_accuracy"])
    return network.cpu().eval(), history


def _bar(label: str, done: int, steps: int) -> Bar:
    return Bar(initial=done, total=steps, desc=label, unit="step", mininterval=2)


def _precision(numbers: Fit, device: torch.device) -> torch.autocast:
    """What the forward pass computes in. float32 means float32, on CUDA too."""
    torch.backends.cudnn.allow_tf32 = False
    reduced = numbers.precision == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=reduced)


def _told(
    row: dict, network: nn.Module, images: Tensor, labels: Tensor, label: str, numbers: Fit
) -> dict:
    """A row of the history, validated; `InputError` where training diverged."""
    loss, correct = validate(network, images, labels)
    if not math.isfinite(row["train_loss"] + loss):
        problem = f"the loss is not finite in epoch {row['epoch']}"
        raise InputError(f"{label}: {problem}; lower lr ({numbers.lr}) or reg")
    return row | {"val_loss": loss, "val_accuracy": correct / len(labels)}


@torch.no_grad()
def logits_of(network: nn.Module, images: Tensor, batch: int = 100) -> Tensor:
    """Logits (n, 10) of uint8 images (n, 28, 28), in evaluation mode, of the network's type."""
    fast = quick(network)
    dtype = next(network.parameters()).dtype
    return torch.cat([fast(views.normalise(part).to(dtype)) for part in images.split(batch)])


def exact_logits(network: nn.Module, images: Tensor) -> Tensor:
    """`logits_of` in float64: those of float32 differ between machines by about 1e-5."""
    return logits_of(copy.deepcopy(network).double(), images)


def margins(logits: Tensor) -> Tensor:
    """By how much each image's largest logit exceeds its second: (n, classes) to (n,)."""
    first, second = logits.topk(2).values.unbind(1)
    return first - second


@torch.no_grad()
def validate(network: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, int]:
    """Mean cross-entropy and count of correct predictions; leaves evaluation mode on.

    uint8 images (n, 28, 28), labels (n,). The logits are those of the network itself, its BatchNorm
    layers not folded. Near ties are settled as in `predict`.
    """
    network.eval()
    logits = torch.cat([network(views.normalise(part)) for part in images.split(100)])
    classes = _settled(network, images, logits)
    return functional.cross_entropy(logits, labels).item(), int((classes == labels).sum())


def predict(network: nn.Module, images: Tensor) -> Tensor:
    """Classes (n,) that do not hang on rounding; `InputError` where a logit overflows."""
    logits = logits_of(network, images)
    if not torch.isfinite(logits).all():
        raise InputError("the network's logits overflow: no training leaves such weights")
    return _settled(network, images, logits)


def _settled(network: nn.Module, images: Tensor, logits: Tensor) -> Tensor:
    """The logits' classes; where the two largest lie within `NEAR`, float64 decides."""
    classes = logits.argmax(1)
    near = (margins(logits) < NEAR).nonzero().flatten()
    if len(near):
        classes[near] = exact_logits(network, images[near]).argmax(1)
    return classes
