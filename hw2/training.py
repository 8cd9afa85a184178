"""The one training loop, and evaluation. Knows nothing of profiles, folders of runs, or plots.

Training is a pure function of its arguments: shuffling of (seed, epoch), augmentation of the view. The same seed on the
same machine with the same number of threads gives the same weights, also when it was interrupted and resumed.
"""

from __future__ import annotations

import copy
import io
import math
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm

from hw2 import views
from hw2.data import FashionMNIST, permutation
from hw2.errors import Ended, InputError
from hw2.experiments.recipes import Fit
from hw2.files import write_bytes
from hw2.kernels import quick

STEPS_KEPT = 20  # losses of the first steps, for replay
NEAR = 1e-3  # the two largest logits of an image: closer than rounding should decide
#: (logits (n, 10), labels (n,), rows (n,), view) -> loss, a scalar. `rows` are places in the file of 60,000.
Objective = Callable[[Tensor, Tensor, Tensor, int], Tensor]


@dataclass
class History:
    """Rows of history.csv and steps.csv, as dictionaries; what was there at the first step (`runs.environment`).

    `earlier` and `earlier_processor` are the seconds, of the clock and of the processor, that interrupted runs had
    spent before this one.
    """

    epochs: list[dict] = field(default_factory=list)
    steps: list[dict] = field(default_factory=list)
    environment: dict = field(default_factory=dict)
    earlier: float = 0.0
    earlier_processor: float = 0.0


_asked_to_end = threading.Event()


@contextmanager
def ending_at_an_epoch():
    """While the block runs, SIGTERM lets the epoch (or the view of soft targets) finish and then raises `Ended`."""
    before = signal.signal(signal.SIGTERM, lambda *_: _asked_to_end.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        _asked_to_end.clear()


def end_if_asked(label: str) -> None:
    if _asked_to_end.is_set():
        raise Ended(f"{label}: ended by SIGTERM; the same command goes on from here")


@contextmanager
def threads(count: int):
    """That many threads of PyTorch's own while the block runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def pick_device(name: str = "auto") -> torch.device:
    """`auto` is the accelerator where there is one."""
    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"device {name!r}: expected auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device 'cuda': torch finds none on this machine; use auto or cpu")
    return torch.device("cuda" if name == "auto" and torch.cuda.is_available() else name.replace("auto", "cpu"))


def learning_rate(fit: Fit, step: int, steps: int) -> float:
    """One cycle (Smith 2018): linear from 0 to `fit.lr` over the warm-up, a half cosine back to 0. `step` from 0."""
    rise = fit.warmup * steps
    if step + 1 < rise:
        return fit.lr * (step + 1) / rise
    return fit.lr * 0.5 * (1 + math.cos(math.pi * (step + 1 - rise) / (steps - rise + 1)))


def cross_entropy(label_smoothing: float = 0.0) -> Objective:
    def objective(logits: Tensor, labels: Tensor, rows: Tensor, view: int) -> Tensor:
        return functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)

    return objective


def epoch_view(epoch: int, count: int) -> int:
    """The view that an epoch (from 0) sees: the identity first, then on; around again after `count` (0: never)."""
    return epoch % count if count else epoch


def fit(
    network: nn.Module,
    data: FashionMNIST,
    train: Tensor,
    validation: Tensor,
    recipe: Fit,
    *,
    seed: int,
    pad: int = 2,
    view_count: int = 0,
    view_seed: int = 0,
    objective: Objective | None = None,
    after_backward: Callable[[], None] | None = None,
    before_epoch: Callable[[int], None] | None = None,
    after_epoch: Callable[[int, float], None] | None = None,
    channels_last: bool = True,
    device: torch.device | None = None,
    checkpoint: Path | None = None,
    environment: dict | None = None,
    label: str = "training",
    stop_after: int | None = None,
    first_steps: int | None = None,
) -> tuple[nn.Module, History]:
    """Train `network` on the rows `train`; validate on the rows `validation` after every epoch.

    Returns the network to keep on the CPU, and the history: `network`, trained in place, or where `recipe.ema` is set
    the averaged one.
    With `checkpoint`, training resumes from the last finished epoch in that file, which keeps the `environment` of the
    first step. `stop_after` ends it early, after so many epochs (the schedule stays the recipe's): for tests. So does
    `first_steps`, after so many steps and without validation, checkpoint or average: for replay. `after_epoch` is told
    the number of epochs done and the validation accuracy, and may end training by an exception of its own.
    """
    device = device or torch.device("cpu")
    objective = objective or cross_entropy(recipe.label_smoothing)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # float32 means float32: on by default for convolutions
    network.to(device, memory_format=layout)
    average = None
    if recipe.ema:
        average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema), use_buffers=True)
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.momentum > 0,
        fused=True,
    )
    history, done = History(environment=environment or {}), 0
    if checkpoint and checkpoint.is_file():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        if average:
            average.load_state_dict(state["average"])
        history, done = History(**state["history"]), state["done"]

    started, processor = time.monotonic(), time.process_time()
    images, labels = data.train_images.to(device), data.train_labels.to(device)
    per_epoch = math.ceil(len(train) / recipe.batch)
    steps = recipe.epochs * per_epoch
    autocast = torch.autocast(device.type, torch.bfloat16) if recipe.precision == "bfloat16" else nullcontext()
    with tqdm(total=steps, initial=done * per_epoch, desc=label, unit="step", leave=False, mininterval=2) as bar:
        for epoch in range(done, min(recipe.epochs, stop_after or recipe.epochs)):
            end_if_asked(label)
            view = epoch_view(epoch, view_count)
            seen = views.cut(images, view, pad, view_seed)
            order = train[torch.from_numpy(permutation(len(train), "shuffle", seed, epoch))].to(device)
            if before_epoch:
                before_epoch(epoch)
            network.train()
            total, lr = torch.zeros((), device=device, dtype=torch.float64), 0.0
            for part, rows in enumerate(order.split(recipe.batch)):
                step = epoch * per_epoch + part
                lr = optimizer.param_groups[0]["lr"] = learning_rate(recipe, step, steps)
                inputs = views.normalise(seen[rows])
                if recipe.erasing:
                    views.erase(inputs, rows, recipe.erasing, seed, epoch)
                optimizer.zero_grad(set_to_none=True)
                with autocast:
                    logits = network(inputs.contiguous(memory_format=layout))
                loss = objective(logits.float(), labels[rows], rows, view)
                loss.backward()
                if after_backward:
                    after_backward()
                optimizer.step()
                if average:
                    average.update_parameters(network)
                total += loss.detach() * len(rows)
                if step < STEPS_KEPT:
                    history.steps.append({"step": step, "loss": loss.item()})
                bar.update()
                if first_steps == step + 1:
                    return network, history
            kept = average.module if average else network
            val_loss, correct = validate(kept, images[validation], labels[validation])
            history.epochs.append(
                {
                    "epoch": epoch + 1,
                    "lr": lr,
                    "train_loss": total.item() / len(order),
                    "val_loss": val_loss,
                    "val_accuracy": correct / len(validation),
                }
            )
            if not math.isfinite(history.epochs[-1]["train_loss"] + val_loss):
                raise InputError(f"{label}: the loss is not finite in epoch {epoch + 1}; lower lr ({recipe.lr}) or reg")
            bar.set_postfix(val_accuracy=f"{correct / len(validation):.4f}")
            if checkpoint:
                state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "done": epoch + 1}
                state |= {"average": average.state_dict() if average else {}}
                spent = {
                    "earlier": history.earlier + time.monotonic() - started,
                    "earlier_processor": history.earlier_processor + time.process_time() - processor,
                }
                state |= {"history": vars(history) | spent}
                content = io.BytesIO()
                torch.save(state, content)  # into a file it raises whatever its C++ meets on a full disk
                write_bytes(checkpoint, content.getbuffer())
            if after_epoch:
                after_epoch(epoch + 1, correct / len(validation))
    kept = copy.deepcopy(average.module) if average else network
    return kept.cpu().eval(), history


@torch.no_grad()
def logits_of(network: nn.Module, images: Tensor, batch: int = 100, dtype: torch.dtype = torch.float32) -> Tensor:
    """Logits (n, 10) of uint8 images (n, 28, 28), in evaluation mode, on the network's device."""
    fast = quick(network)
    return torch.cat([fast(views.normalise(part).to(dtype)) for part in images.split(batch)])


def evaluate(network: nn.Module, images: Tensor, labels: Tensor, batch: int = 100) -> tuple[float, int]:
    """Mean cross-entropy and count of correct predictions."""
    logits = logits_of(network, images, batch)
    return functional.cross_entropy(logits, labels).item(), int((logits.argmax(1) == labels).sum())


@torch.no_grad()
def validate(network: nn.Module, images: Tensor, labels: Tensor, batch: int = 100) -> tuple[float, int]:
    """Mean cross-entropy and count of correct predictions, of the network itself: nothing folded, padded or copied.

    What training records and metrics.json counts. Near ties are settled as in `predict`. Leaves evaluation mode on.
    """
    network.eval()
    logits = torch.cat([network(views.normalise(part)) for part in images.split(batch)])
    classes = _settled(network, images, logits)
    return functional.cross_entropy(logits, labels).item(), int((classes == labels).sum())


def predict(network: nn.Module, images: Tensor) -> Tensor:
    """Classes (n,) of uint8 images (n, 28, 28) that do not hang on rounding."""
    return _settled(network, images, logits_of(network, images))


def _settled(network: nn.Module, images: Tensor, logits: Tensor) -> Tensor:
    """The logits' classes. Where the two largest lie within `NEAR` of each other, float64 decides.

    float32 differs between machines, numbers of threads and batch sizes by about 1e-5.
    """
    first, second = logits.topk(2).values.unbind(1)
    classes = logits.argmax(1)
    near = (first - second < NEAR).nonzero().flatten()
    if len(near):
        exact = copy.deepcopy(network).double()
        classes[near] = logits_of(exact, images[near], dtype=torch.float64).argmax(1)
    return classes


def parts(data: FashionMNIST, images: int, validation: int) -> Sequence[Tensor]:
    """Training and validation rows, of which a recipe may use the first so many."""
    train, held_out = data.split
    return train[:images], held_out[:validation]
