"""The one training loop, and evaluation.

The same arguments on the same machine with the same number of threads give the same weights, resumed or in one go.
"""

import copy
import io
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from hw2 import views
from hw2.data import FashionMNIST, permutation
from hw2.errors import Bar, InputError, end_if_asked
from hw2.files import check_fields, reading, write_bytes
from hw2.kernels import quick, tiled

STEPS_KEPT = 20  # losses of the first steps, for replay
NEAR = 1e-3  # the two largest logits of an image: closer than rounding should decide
FORBID = {"extra": "forbid"}  # of pydantic, which reads recipe files: no field that is not there
#: (logits (n, 10), labels (n,), rows (n,), view) -> loss, a scalar. `rows` are places in the file of 60,000.
Objective = Callable[[Tensor, Tensor, Tensor, int], Tensor]


@dataclass(frozen=True)
class Fit:
    """The numbers of one training: SGD with Nesterov momentum, one cycle of the learning rate (`learning_rate`)."""

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


@dataclass(frozen=True)
class Task:
    """Rows of the training file to train and validate on. Epochs cycle through `views`; 0: a new view every epoch."""

    data: FashionMNIST
    train: Tensor
    validation: Tensor
    pad: int = 2
    views: int = 0
    view_seed: int = 0

    @property
    def held_out(self) -> tuple[Tensor, Tensor]:
        """Validation images, uint8 (n, 28, 28), and their labels (n,)."""
        return self.data.train_images[self.validation], self.data.train_labels[self.validation]


@dataclass(frozen=True)
class Options:
    """What only some trainings need. `after_epoch` may end training by an exception of its own."""

    label: str = "training"
    before_epoch: Callable[[int], object] = lambda epoch: None  # epochs from 0
    after_backward: Callable[[], object] = lambda: None  # before each step of the optimizer
    after_epoch: Callable[[int, float], object] = lambda done, accuracy: None  # epochs done, validation accuracy
    channels_last: bool = True
    first_steps: int | None = None  # ends training after so many, without validation or checkpoint
    environment: dict = field(default_factory=dict)  # kept in the history and in the checkpoint


@dataclass
class History:
    """A training's records."""

    epochs: list[dict] = field(default_factory=list)  # rows of history.csv
    steps: list[dict] = field(default_factory=list)  # rows of steps.csv
    environment: dict = field(default_factory=dict)  # at the first step
    resumed: list[dict] = field(default_factory=list)  # others that went on: epochs done by then, environment
    earlier: float = 0.0  # seconds that interrupted processes spent
    earlier_processor: float = 0.0  # seconds of the processor that they spent

    def went_on(self, done: int, environment: dict) -> None:
        """Note that training goes on after `done` epochs in this environment, where that is another one."""
        if environment != (self.resumed[-1]["environment"] if self.resumed else self.environment):
            self.resumed.append({"epochs_done": done, "environment": environment})


def learning_rate(fit: Fit, step: int, steps: int) -> float:
    """One cycle (Smith 2018) of `steps` steps: linear to `fit.lr`, then a half cosine back to 0. `step` from 0."""
    rise = fit.warmup * steps
    if step + 1 < rise:
        return fit.lr * (step + 1) / rise
    return fit.lr * 0.5 * (1 + math.cos(math.pi * (step + 1 - rise) / (steps - rise + 1)))


def cross_entropy(logits: Tensor, labels: Tensor, rows: Tensor, view: int) -> Tensor:
    """The loss of training on labels alone, an `Objective`."""
    return functional.cross_entropy(logits, labels)


class _Training:
    """A training under way: what a checkpoint holds of it, and its next epoch."""

    def __init__(self, network: nn.Module, numbers: Fit, task: Task, seed: int, objective, options: Options, device):
        self.network, self.numbers, self.task, self.seed = network, numbers, task, seed
        self.objective, self.options = objective, options
        self.layout = torch.channels_last if options.channels_last else torch.contiguous_format
        network.to(device, memory_format=self.layout)
        settings = {"lr": numbers.lr, "momentum": numbers.momentum, "weight_decay": numbers.weight_decay}
        self.optimizer = torch.optim.SGD(network.parameters(), nesterov=numbers.momentum > 0, fused=True, **settings)
        self.images, self.labels = task.data.train_images.to(device), task.data.train_labels.to(device)
        self.per_epoch = math.ceil(len(task.train) / numbers.batch)
        self.history, self.done = History(environment=options.environment), 0
        self.words = f"{options.label}, seed {seed}, {numbers}, {len(task.train)} images"
        self.started, self.processor = time.monotonic(), time.process_time()

    def load(self, path: Path) -> None:
        # torch raises whatever its unpickler or the shapes met.
        with reading(path, f"checkpoint of {self.words}", "delete it to begin again", Exception):
            state = torch.load(path, map_location=self.images.device, weights_only=True)
            if state["words"] != self.words:
                raise ValueError(f"it is of {state['words']}")
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.history, self.done = History(**state["history"]), state["done"]
            if self.done < self.numbers.epochs:
                self.history.went_on(self.done, self.options.environment)

    def save(self, path: Path) -> None:
        earlier = self.history.earlier + time.monotonic() - self.started
        processor = self.history.earlier_processor + time.process_time() - self.processor
        history = vars(self.history) | {"earlier": earlier, "earlier_processor": processor}
        state = {"done": self.done, "words": self.words, "history": history}
        state |= {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}
        content = io.BytesIO()  # into a file torch.save raises whatever its C++ meets on a full disk
        torch.save(state, content)
        write_bytes(path, content.getbuffer())

    def steps(self) -> Iterator[int]:
        """Train an epoch, and add its row to the history. Yields each step's number, counted from the first epoch."""
        numbers, task, epoch = self.numbers, self.task, self.done
        view = epoch % task.views if task.views else epoch
        images = views.cut(self.images, view, task.pad, task.view_seed)
        order = task.train[torch.from_numpy(permutation(len(task.train), "shuffle", self.seed, epoch))]
        device = self.images.device
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=numbers.precision == "bfloat16")
        self.network.train()
        total, lr = torch.zeros((), device=device, dtype=torch.float64), 0.0
        for step, rows in enumerate(order.to(device).split(numbers.batch), start=epoch * self.per_epoch):
            lr = self.optimizer.param_groups[0]["lr"] = learning_rate(numbers, step, numbers.epochs * self.per_epoch)
            self.optimizer.zero_grad(set_to_none=True)
            with autocast:
                logits = self.network(views.normalise(images[rows]).contiguous(memory_format=self.layout))
            loss = self.objective(logits.float(), self.labels[rows], rows, view)
            loss.backward()
            self.options.after_backward()
            self.optimizer.step()
            total += loss.detach() * len(rows)
            if step < STEPS_KEPT:
                self.history.steps.append({"step": step, "loss": loss.item()})
            yield step
        self.done = epoch + 1
        self.history.epochs.append({"epoch": epoch + 1, "lr": lr, "train_loss": total.item() / len(order)})

    def validate(self) -> float:
        """Add to the history's last row what the network does on the validation images; its accuracy."""
        rows, last = self.task.validation, self.history.epochs[-1]
        val_loss, correct = validate(self.network, self.images[rows], self.labels[rows])
        last |= {"val_loss": val_loss, "val_accuracy": correct / len(rows)}
        if not math.isfinite(last["train_loss"] + val_loss):
            problem = f"{self.options.label}: the loss is not finite in epoch {self.done}"
            raise InputError(f"{problem}; lower lr ({self.numbers.lr}) or reg")
        return last["val_accuracy"]


def fit(
    network: nn.Module,
    numbers: Fit,
    task: Task,
    *,
    seed: int,
    objective: Objective = cross_entropy,
    options: Options | None = None,
    device: torch.device | None = None,
    checkpoint: Path | None = None,
) -> tuple[nn.Module, History]:
    """Train `network`; validate after every epoch.

    Returns `network`, trained in place, on the CPU and in evaluation mode, and the history. With `checkpoint`, training
    resumes from the last finished epoch in that file. Raises `InputError` where the loss is not finite, `Ended` after
    an epoch in which SIGTERM came (`errors.ending_at_an_epoch`).
    """
    options, device = options or Options(), device or torch.device("cpu")
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # float32 means float32: on by default for convolutions
    training = _Training(network, numbers, task, seed, objective, options, device)
    if checkpoint and checkpoint.is_file():
        training.load(checkpoint)
    total, done = numbers.epochs * training.per_epoch, training.done * training.per_epoch
    bar = Bar(total=total, initial=done, desc=options.label, unit="step", mininterval=2)
    with bar, tiled(network):
        while training.done < numbers.epochs:
            end_if_asked(options.label)
            options.before_epoch(training.done)
            for step in training.steps():
                bar.update()
                if options.first_steps == step + 1:
                    return network, training.history
            accuracy = training.validate()
            bar.set_postfix(val_accuracy=f"{accuracy:.4f}")
            if checkpoint:
                training.save(checkpoint)
            options.after_epoch(training.done, accuracy)
    return network.cpu().eval(), training.history


@torch.no_grad()
def logits_of(network: nn.Module, images: Tensor, batch: int = 100) -> Tensor:
    """Logits (n, 10) of uint8 images (n, 28, 28) in evaluation mode, on the network's device and of its type."""
    fast, dtype = quick(network), next(network.parameters()).dtype
    return torch.cat([fast(views.normalise(part).to(dtype)) for part in images.split(batch)])


def exact_logits(network: nn.Module, images: Tensor) -> Tensor:
    """`logits_of` in float64, for what must not hang on rounding: float32 differs between machines by about 1e-5."""
    return logits_of(copy.deepcopy(network).double(), images)


def margins(logits: Tensor) -> Tensor:
    """By how much each image's largest logit exceeds its second: (n, classes) to (n,), at least 0."""
    first, second = logits.topk(2).values.unbind(1)
    return first - second


@torch.no_grad()
def validate(network: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, int]:
    """Mean cross-entropy and count of correct predictions, of the network itself: neither folded nor copied.

    uint8 images (n, 28, 28), labels (n,). Near ties are settled as in `predict`. Leaves evaluation mode on.
    """
    network.eval()
    logits = torch.cat([network(views.normalise(part)) for part in images.split(100)])
    classes = _settled(network, images, logits)
    return functional.cross_entropy(logits, labels).item(), int((classes == labels).sum())


def predict(network: nn.Module, images: Tensor) -> Tensor:
    """Classes (n,) of uint8 images (n, 28, 28) that do not hang on rounding. `InputError` where a logit overflows."""
    logits = logits_of(network, images)
    if not torch.isfinite(logits).all():
        raise InputError("the network's logits overflow: no training leaves such weights")
    return _settled(network, images, logits)


def _settled(network: nn.Module, images: Tensor, logits: Tensor) -> Tensor:
    """The logits' classes. Where the two largest lie within `NEAR` of each other, float64 decides."""
    classes = logits.argmax(1)
    near = (margins(logits) < NEAR).nonzero().flatten()
    if len(near):
        classes[near] = exact_logits(network, images[near]).argmax(1)
    return classes
