"""Training is a pure function of its arguments, and predictions do not hang on rounding."""

import copy
import itertools
import os
import signal
from dataclasses import fields
from functools import partial

import pytest
import torch
from helpers import same_bits, tiny_network
from torch.nn import functional

from hw2 import training, views
from hw2.data import permutation
from hw2.errors import Ended, InputError, ending_at_an_epoch
from hw2.experiments import environment
from hw2.networks import ResNet14
from hw2.training import Fit, Options, Task

TRAIN, VALIDATION = torch.arange(100), torch.arange(500, 564)
PLAIN = Fit(epochs=2, lr=0.1, batch=40)  # three steps an epoch


OPTIONS = {field.name for field in fields(Options)}


def fit(few, numbers=PLAIN, network=None, task=None, *, seed=0, **more):
    """`training.fit` of a tiny network on 100 images; `more` are its arguments or options."""
    network = network or tiny_network()
    task = task or Task(few, TRAIN, VALIDATION)
    options = Options(**{name: more.pop(name) for name in OPTIONS & more.keys()})
    return training.fit(network, numbers, task, seed=seed, options=options, **more)


def test_the_learning_rate_rises_on_a_line_to_its_peak_and_falls_to_nearly_0():
    for warmup, steps in itertools.product((0.0, 1.0, 0.2), (1, 3, 7, 100)):
        numbers = Fit(epochs=1, lr=0.4, warmup=warmup)
        rates = [training.learning_rate(numbers, step, steps) for step in range(steps)]
        assert all(0 < rate <= 0.4 for rate in rates)
    assert rates[:20] == pytest.approx([0.02 * (step + 1) for step in range(20)])
    assert all(earlier > later for earlier, later in itertools.pairwise(rates[19:]))
    assert rates[59] == pytest.approx(0.2, rel=0.03)  # halfway down
    assert rates[-1] < 0.4 / 1000


class Stop(Exception):
    pass


def stop(*_):
    raise Stop


def test_interrupted_training_resumes_to_the_same_bits_and_history(few, tmp_path):
    run = partial(fit, few)
    whole, history = run()
    torch.manual_seed(99)  # nothing may hang on torch's own generator
    assert same_bits(whole, run()[0]) and not same_bits(whole, run(seed=1)[0])

    checkpoint = tmp_path / "cache" / "training.pt"
    first, second = {"threads": 1}, {"threads": 2}
    with pytest.raises(Stop):
        run(checkpoint=checkpoint, after_epoch=stop, environment=first)
    # The new process has other initial weights in hand, which the checkpoint's replace.
    resumed, continued = run(network=tiny_network(5), checkpoint=checkpoint, environment=second)
    assert same_bits(whole, resumed)
    assert (continued.epochs, continued.steps) == (history.epochs, history.steps)
    assert continued.machines == [
        {"epochs_done": 0, "environment": first},
        {"epochs_done": 1, "environment": second},
    ]
    assert continued.earlier > 0 and continued.earlier_processor > 0 == history.earlier
    assert [path.name for path in checkpoint.parent.iterdir()] == ["training.pt"]

    # trains no more
    loaded, kept = run(network=tiny_network(5), checkpoint=checkpoint, objective=stop)
    assert same_bits(whole, loaded) and kept.epochs == history.epochs


def test_sigterm_ends_training_after_the_epoch_that_it_is_in(few, tmp_path):
    checkpoint, epochs = tmp_path / "training.pt", []

    def asked(epoch):
        epochs.append(epoch)
        os.kill(os.getpid(), signal.SIGTERM)

    whole, history = fit(few)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Ended, match="training"), ending_at_an_epoch():
        fit(few, checkpoint=checkpoint, before_epoch=asked)
    with ending_at_an_epoch():  # it comes in the last epoch, and ends nothing
        resumed, continued = fit(few, checkpoint=checkpoint, before_epoch=asked)
    assert epochs == [0, 1] and signal.getsignal(signal.SIGTERM) == before
    assert same_bits(whole, resumed) and continued.epochs == history.epochs


@pytest.mark.parametrize(
    ("damage", "more", "told"),
    [
        (0, {"seed": 1}, "it is of training, seed 0"),
        (0, {"network": ResNet14((8, 8, 8, 8))}, "size mismatch"),
        (1000, {}, ""),
    ],
)
def test_a_checkpoint_of_another_training_or_cut_off_is_told(few, tmp_path, damage, more, told):
    fit(few, checkpoint=(path := tmp_path / "training.pt"))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - damage])
    told = rf"no readable checkpoint of .*{told}.*delete it to begin again"
    with pytest.raises(InputError, match=told):
        fit(few, checkpoint=path, **more)


def test_each_epoch_sees_every_row_once_in_the_order_of_seed_and_epoch_and_the_next_view(few):
    batches, told = [], []
    network = tiny_network()

    def recorded(layer, inputs):
        if layer.training:
            batches.append(inputs[0].detach().clone())

    def objective(logits, labels, rows, answers):
        assert labels.equal(few.train_labels[rows])
        told.append((answers, rows))
        return logits.sum()

    rows = torch.arange(300, 400)  # places in the file, not places among the training rows
    task = Task(few, rows, VALIDATION, pad=3, seed=5)
    network.conv1.register_forward_pre_hook(recorded)
    numbers = Fit(epochs=3, lr=1e-6, batch=50)
    fit(few, numbers, network, task, seed=4, objective=objective)
    for epoch in range(3):
        own = slice(2 * epoch, 2 * epoch + 2)
        order = rows[permutation(100, "shuffle", 4, epoch)]
        answers, places = (torch.cat(parts) for parts in zip(*told[own], strict=True))
        assert places.equal(order) and answers.equal(task.view(epoch)[order])
        shown = views.cut(few.train_images, task.view(epoch), pad=3)
        assert torch.cat(batches[own]).equal(views.normalise(shown[order]))
    assert all(batch.is_contiguous(memory_format=torch.channels_last) for batch in batches)


def test_the_history_tells_rates_losses_and_accuracies(few):
    told, task = [], Task(few, TRAIN, VALIDATION)
    network, history = fit(few, after_epoch=lambda *args: told.append(args))
    columns = ["epoch", "lr", "train_loss", "val_loss", "val_accuracy"]
    assert [list(row) for row in history.epochs] == [columns] * 2
    assert [row["epoch"] for row in history.epochs] == [1, 2]
    assert told == [(row["epoch"], row["val_accuracy"]) for row in history.epochs]
    rates = [training.learning_rate(PLAIN, step, 6) for step in (2, 5)]
    assert [row["lr"] for row in history.epochs] == rates
    val_loss, correct = training.validate(network, *task.held_out)
    last = history.epochs[-1]
    assert (last["val_loss"], last["val_accuracy"]) == (val_loss, correct / 64)
    assert [row["step"] for row in history.steps] == list(range(6))
    losses = [row["loss"] for row in history.steps[:3]]
    mean = 0.4 * losses[0] + 0.4 * losses[1] + 0.2 * losses[2]
    assert history.epochs[0]["train_loss"] == pytest.approx(mean, rel=1e-6)
    assert not network.training
    task = Task(few, torch.arange(256), VALIDATION)
    _, history = fit(few, Fit(epochs=4, lr=0.1, batch=16), task=task)
    assert history.epochs[-1]["train_loss"] < 2.0  # 2.3 for a guess
    assert [row["step"] for row in history.steps] == list(range(20))


def test_the_recipes_precision_reaches_the_loss(few):
    found = []
    for kind in ("float32", "bfloat16"):
        _, history = fit(few, Fit(1, 0.1, precision=kind), first_steps=1)
        found.append(history.steps[0]["loss"])
    plain, other = found
    assert other == pytest.approx(plain, rel=0.02) and other != plain


def test_a_loss_that_is_not_finite_is_an_error_that_names_the_rate(few, tmp_path):
    network = tiny_network()
    infinite = {"objective": lambda logits, *_: logits.sum() * torch.inf, "label": "student"}
    with pytest.raises(InputError, match=r"student: .* epoch 1.*lr \(0.1\)"):
        fit(few, checkpoint=tmp_path / "a.pt", **infinite)
    assert not (tmp_path / "a.pt").exists()

    # One step: its loss is still finite, the network after it is not.
    def spoil():
        network.fc.weight.grad.fill_(torch.nan)

    with pytest.raises(InputError, match="not finite"):
        fit(few, Fit(1, 0.1, batch=100), network, after_backward=spoil)


@pytest.fixture(scope="module")
def undecided(few):
    """An untrained network whose ten logits are nearly equal, images, their classes in float64."""
    network, images = tiny_network().eval(), few.train_images[:100]
    with torch.no_grad():
        network.fc.weight.mul_(1e-5)
        network.fc.bias.fill_(10.0)  # so large that float32 cannot tell most of the logits apart
        exact = copy.deepcopy(network).double()(views.normalise(images).double()).argmax(1)
    # float32 alone would be wrong
    assert (training.logits_of(network, images).argmax(1) != exact).any()
    return network, images, exact


@pytest.mark.parametrize("number", [1, 2])
def test_predictions_are_those_of_float64_for_any_batch_and_number_of_threads(undecided, number):
    network, images, exact = undecided
    with environment.threads(number):
        for batch in (1, 5, 100):
            parts = images.split(batch)[:12]
            classes = torch.cat([training.predict(network, part) for part in parts])
            assert classes.equal(exact[: len(classes)])
    assert network.fc.weight.dtype == torch.float32


def test_validation_counts_as_predictions_are_settled_and_takes_the_networks_own_loss(undecided):
    network, images, exact = undecided
    labels = exact.clone()
    labels[:20] = (labels[:20] + 1) % 10
    loss, correct = training.validate(network, images, labels)
    assert correct == 80
    with torch.no_grad():
        expected = functional.cross_entropy(network(views.normalise(images)), labels).item()
    assert loss == pytest.approx(expected, rel=1e-6)


def test_weights_whose_logits_overflow_predict_nothing(few):
    network = tiny_network()
    network.fc.weight.data.fill_(torch.inf)
    with pytest.raises(InputError, match="logits overflow"):
        training.predict(network, few.test_images[:5])
