"""Training is a pure function of its arguments, and predictions do not hang on rounding."""

import copy
import itertools
import os
import signal

import pytest
import torch
from helpers import same_bits, tiny_network
from torch.nn import functional

from hw2 import training, views
from hw2.data import permutation
from hw2.errors import Ended, InputError
from hw2.experiments.recipes import Fit
from hw2.networks import ResNet14

TRAIN, VALIDATION = torch.arange(100), torch.arange(500, 564)
PLAIN = Fit(epochs=3, lr=0.1, batch=32)
RECIPES = {
    "plain": PLAIN,
    "averaged": Fit(epochs=3, lr=0.1, batch=32, ema=0.9),
    "erasing": Fit(epochs=3, lr=0.1, batch=32, erasing=8, ema=0.5),
}


def fit(few, recipe=PLAIN, network=None, seed=0, **more):
    return training.fit(network or tiny_network(), few, TRAIN, VALIDATION, recipe, seed=seed, **more)


def test_the_learning_rate_rises_on_a_line_to_its_peak_and_falls_to_nearly_0():
    rates = [training.learning_rate(Fit(epochs=1, lr=0.4), step, 100) for step in range(100)]
    assert rates[:20] == pytest.approx([0.02 * (step + 1) for step in range(20)])
    assert max(rates) == rates[19] == 0.4
    assert all(earlier > later for earlier, later in itertools.pairwise(rates[19:]))
    assert rates[59] == pytest.approx(0.2, rel=0.03)  # halfway down
    assert 0 < rates[-1] < 0.4 / 1000


@pytest.mark.parametrize("warmup", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("steps", [1, 3, 7])
def test_the_learning_rate_stays_within_its_peak_for_any_warm_up_and_length(warmup, steps):
    rates = [training.learning_rate(Fit(epochs=1, lr=0.4, warmup=warmup), step, steps) for step in range(steps)]
    assert all(0 < rate <= 0.4 for rate in rates)


@pytest.mark.parametrize("name", RECIPES)
def test_interrupted_training_resumes_to_the_same_bits_and_history(few, tmp_path, name):
    whole, history = fit(few, RECIPES[name], view_count=2)
    torch.manual_seed(99)  # nothing may hang on torch's own generator
    again, _ = fit(few, RECIPES[name], view_count=2)
    assert same_bits(whole, again)

    checkpoint = tmp_path / "cache" / "training.pt"
    _, begun = fit(few, RECIPES[name], view_count=2, checkpoint=checkpoint, stop_after=1)
    assert begun.epochs == history.epochs[:1]
    # The new process has other initial weights in hand, which the checkpoint's replace.
    resumed, continued = fit(few, RECIPES[name], tiny_network(5), view_count=2, checkpoint=checkpoint)
    assert same_bits(whole, resumed)
    assert (continued.epochs, continued.steps) == (history.epochs, history.steps)
    assert [path.name for path in checkpoint.parent.iterdir()] == ["training.pt"]


def test_a_checkpoint_keeps_the_first_steps_environment_and_the_time_spent(few, tmp_path):
    first, second = {"threads": 1, "code": "a"}, {"threads": 2, "code": "a"}
    checkpoint = tmp_path / "training.pt"
    _, begun = fit(few, checkpoint=checkpoint, stop_after=1, environment=first)
    assert begun.environment == first and begun.earlier == begun.earlier_processor == 0
    _, resumed = fit(few, checkpoint=checkpoint, environment=second)
    assert resumed.environment == first
    assert resumed.earlier > 0 and resumed.earlier_processor > 0


def test_sigterm_ends_training_after_the_epoch_that_it_is_in(few, tmp_path):
    checkpoint, epochs = tmp_path / "training.pt", []

    def asked(epoch):
        epochs.append(epoch)
        if epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    whole, history = fit(few)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Ended, match="student: ended by SIGTERM"), training.ending_at_an_epoch():
        fit(few, checkpoint=checkpoint, before_epoch=asked, label="student")
    assert epochs == [0, 1] and signal.getsignal(signal.SIGTERM) == before
    resumed, continued = fit(few, network=tiny_network(5), checkpoint=checkpoint)
    assert same_bits(whole, resumed) and continued.epochs == history.epochs


def test_sigterm_in_the_last_epoch_ends_nothing(few):
    with training.ending_at_an_epoch():
        _, history = fit(few, before_epoch=lambda epoch: epoch == 2 and os.kill(os.getpid(), signal.SIGTERM))
    assert len(history.epochs) == 3


@pytest.mark.parametrize("widths", [(4, 4, 4, 4), (4, 4, 18, 20)])
def test_the_network_itself_is_trained_and_validated(few, widths):
    class Counting(ResNet14):
        def forward(self, x):
            if x.dtype == torch.float32:  # float64 settles near ties, on a copy
                calls.append((id(self), self.training))
            return super().forward(x)

    calls = []
    network = Counting(widths)
    trained, _ = fit(few, network=network)
    assert trained is network
    assert {one for one, _ in calls} == {id(network)} and {mode for _, mode in calls} == {True, False}


def test_validation_counts_as_predictions_are_settled(few, undecided):
    network, exact = undecided
    labels = exact[:50]
    loss, correct = training.validate(network, few.train_images[:50], labels)
    assert correct == 50
    with torch.no_grad():
        logits = torch.cat([network(views.normalise(part)) for part in few.train_images[:50].split(100)])
    assert loss == functional.cross_entropy(logits, labels).item()


def test_finished_training_is_loaded_and_not_repeated(few, tmp_path):
    whole, history = fit(few, checkpoint=tmp_path / "training.pt")

    def objective(*args):
        raise AssertionError("trained again")

    loaded, loaded_history = fit(few, network=tiny_network(5), checkpoint=tmp_path / "training.pt", objective=objective)
    assert same_bits(whole, loaded)
    assert loaded_history.epochs == history.epochs


def test_another_seed_gives_other_weights(few):
    assert not same_bits(fit(few, seed=0)[0], fit(few, seed=1)[0])


@pytest.mark.parametrize("count", [1, 2])
def test_the_same_seed_and_threads_give_the_same_bits(few, count):
    with training.threads(count):
        (one, history), (other, again) = fit(few), fit(few)
    assert same_bits(one, other)
    assert (history.epochs, history.steps) == (again.epochs, again.steps)


def test_erasing_reaches_the_batches(few):
    assert not same_bits(fit(few)[0], fit(few, Fit(epochs=3, lr=0.1, batch=32, erasing=8))[0])


def test_each_epoch_sees_every_row_once_in_the_order_of_seed_and_epoch_and_the_next_view(few):
    seen = []

    def objective(logits, labels, rows, view):
        assert labels.equal(few.train_labels[rows])
        seen.append((view, rows))
        return functional.cross_entropy(logits, labels)

    rows = torch.arange(300, 400)  # places in the file, not places among the training rows
    training.fit(tiny_network(), few, rows, VALIDATION, PLAIN, seed=4, view_count=2, objective=objective)
    for epoch, view in enumerate([0, 1, 0]):
        batches = seen[4 * epoch : 4 * epoch + 4]
        assert [number for number, _ in batches] == [view] * 4
        order = torch.from_numpy(permutation(100, "shuffle", 4, epoch))
        assert torch.cat([rows for _, rows in batches]).equal(rows[order])


def test_the_network_sees_the_epochs_view_of_each_image(few):
    class Recorder(ResNet14):
        def forward(self, x):
            if self.training:
                batches.append(x.detach().clone())
            return super().forward(x)

    batches = []
    one_batch = Fit(epochs=2, lr=0.1, batch=100)
    training.fit(Recorder((4, 4, 4, 4)), few, TRAIN, VALIDATION, one_batch, seed=0, pad=3, view_seed=5)
    for epoch, batch in enumerate(batches):
        images = views.cut(few.train_images, epoch, pad=3, seed=5)
        assert batch.equal(views.normalise(images[permutation(100, "shuffle", 0, epoch)]))


def test_views_go_round_or_never_repeat():
    assert [training.epoch_view(epoch, 3) for epoch in range(5)] == [0, 1, 2, 0, 1]
    assert [training.epoch_view(epoch, 0) for epoch in range(5)] == [0, 1, 2, 3, 4]


def test_the_history_tells_rates_losses_and_accuracies(few):
    network, history = fit(few)
    assert [list(row) for row in history.epochs] == [["epoch", "lr", "train_loss", "val_loss", "val_accuracy"]] * 3
    assert [row["epoch"] for row in history.epochs] == [1, 2, 3]
    # 100 images in batches of 32 are 4 steps an epoch.
    assert [row["lr"] for row in history.epochs] == [training.learning_rate(PLAIN, step, 12) for step in (3, 7, 11)]
    val_loss, correct = training.validate(network, few.train_images[VALIDATION], few.train_labels[VALIDATION])
    assert (history.epochs[-1]["val_loss"], history.epochs[-1]["val_accuracy"]) == (val_loss, correct / 64)
    assert [row["step"] for row in history.steps] == list(range(12))
    first = sum(row["loss"] * size for row, size in zip(history.steps, (32, 32, 32, 4), strict=False)) / 100
    assert history.epochs[0]["train_loss"] == pytest.approx(first, rel=1e-6)
    assert not network.training


def test_training_learns(few):
    _, history = training.fit(
        ResNet14((8, 8, 8, 8)), few, torch.arange(448), VALIDATION, Fit(epochs=4, lr=0.1, batch=32), seed=0
    )
    assert history.epochs[-1]["train_loss"] < 1.8  # 2.3 for a guess


def test_only_the_first_20_steps_losses_are_kept(few):
    _, history = fit(few, Fit(epochs=6, lr=0.1, batch=25))
    assert [row["step"] for row in history.steps] == list(range(20))


def test_the_averaged_network_is_the_exponential_mean_of_the_steps(few):
    network, after = tiny_network(), []

    def keep():  # called before the optimizer's step: what the step before has left
        after.append(network.fc.weight.detach().clone())

    averaged, _ = fit(few, Fit(epochs=1, lr=0.1, batch=40, ema=0.75), network, after_backward=keep)
    first, second, third = *after[1:], network.fc.weight
    expected = 0.75 * (0.75 * first + 0.25 * second) + 0.25 * third
    torch.testing.assert_close(averaged.fc.weight, expected, rtol=1e-5, atol=1e-7)


def test_before_epoch_runs_once_an_epoch_and_after_backward_sees_gradients(few):
    network, calls = tiny_network(), []
    fit(few, PLAIN, network, before_epoch=lambda epoch: calls.append("epoch"),
        after_backward=lambda: calls.append(network.fc.weight.grad is not None))  # fmt: skip
    assert calls == (["epoch"] + [True] * 4) * 3


def test_label_smoothing_is_the_objectives(few):
    logits, labels = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
    objective = training.cross_entropy(0.2)
    log = torch.log_softmax(logits, 1)[0]
    assert objective(logits, labels, None, 0).item() == pytest.approx(-(0.9 * log[0] + 0.1 * log[1]).item())


def test_a_loss_that_is_not_finite_is_an_error_that_names_the_rate(few, tmp_path):
    def objective(logits, labels, rows, view):
        return logits.sum() * torch.inf

    with pytest.raises(InputError, match=r"student: the loss is not finite in epoch 1; lower lr \(0.1\)"):
        fit(few, objective=objective, label="student", checkpoint=tmp_path / "training.pt")
    assert not (tmp_path / "training.pt").exists()


def test_weights_that_the_last_step_made_nan_are_an_error_too(few):
    network = tiny_network()

    def spoil():
        network.fc.weight.grad.fill_(torch.nan)

    # One step: its loss is still finite, the network after it is not.
    with pytest.raises(InputError, match="not finite"):
        fit(few, Fit(epochs=1, lr=0.1, batch=100), network, after_backward=spoil)


def test_a_device_is_auto_cpu_or_an_accelerator_that_is_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert training.pick_device("auto") == training.pick_device("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match="device 'cuda': torch finds none on this machine; use auto or cpu"):
        training.pick_device("cuda")
    with pytest.raises(InputError, match="device 'tpu': expected auto, cpu or cuda"):
        training.pick_device("tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert training.pick_device("auto") == training.pick_device("cuda") == torch.device("cuda")
    assert training.pick_device("cpu") == torch.device("cpu")


@pytest.fixture
def undecided(few):
    """An untrained network whose ten logits are nearly equal, and its classes in float64."""
    network = tiny_network().eval()
    with torch.no_grad():
        network.fc.weight.mul_(1e-5)
        network.fc.bias.fill_(10.0)  # so large that float32 cannot tell most of the logits apart
    exact = training.logits_of(copy.deepcopy(network).double(), few.train_images, dtype=torch.float64)
    rounded = training.logits_of(network, few.train_images).argmax(1)
    assert (rounded != exact.argmax(1)).any()  # float32 alone would be wrong
    return network, exact.argmax(1)


def test_predictions_are_those_of_float64(few, undecided):
    network, exact = undecided
    assert training.predict(network, few.train_images).equal(exact)
    assert network.fc.weight.dtype == torch.float32


@pytest.mark.parametrize(("gap", "settled"), [(9e-4, True), (1.1e-3, False)])
def test_float64_decides_where_the_two_largest_logits_lie_within_a_thousandth(few, gap, settled):
    class Wavering(torch.nn.Module):
        def forward(self, x):
            logits = torch.zeros(len(x), 10, dtype=x.dtype)
            logits[:, 3 if x.dtype == torch.float64 else 7] = gap
            return logits

    assert training.predict(Wavering(), few.test_images[:5]).tolist() == [3 if settled else 7] * 5


def test_predictions_hang_on_neither_batch_size_nor_threads(few, undecided):
    network, exact = undecided
    images, threads = few.train_images[:40], torch.get_num_threads()
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            for batch in (1, 15, 40):
                classes = torch.cat([training.predict(network, part) for part in images.split(batch)])
                assert classes.equal(exact[:40])
    finally:
        torch.set_num_threads(threads)


def test_evaluation_counts_and_averages_over_all_batches(few):
    network = tiny_network()
    logits = training.logits_of(network, few.train_images, batch=100)
    assert logits.shape == (576, 10)
    torch.testing.assert_close(logits, training.logits_of(network, few.train_images, batch=576))
    loss, correct = training.evaluate(network, few.train_images, few.train_labels)
    plain = [-torch.log_softmax(row, 0)[label].item() for row, label in zip(logits, few.train_labels, strict=True)]
    assert loss == pytest.approx(sum(plain) / 576, rel=1e-5)
    assert correct == sum(int(row.argmax()) == int(label) for row, label in zip(logits, few.train_labels, strict=True))


def test_parts_are_the_first_rows_of_the_split(data):
    train, validation = training.parts(data, 7, 3)
    assert train.equal(data.split[0][:7])
    assert validation.equal(data.split[1][:3])
