"""What notebook 02 concludes from: signs, pairing and pooling are right."""

from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from hw2.experiments import recipes, stages
from hw2.report import comparisons


def run(val_correct, logits=None):
    return SimpleNamespace(
        val_accuracy=val_correct / 100,
        validation_logits=logits,
        recipe={"fit": {"epochs": 2}, "images": 1000, "temperature": 2.0, "alpha": 0.5},
        history=pd.DataFrame({"epoch": [1], "val_loss": [val_correct / 10], "val_accuracy": [val_correct / 100]}),
    )


@pytest.fixture
def arms(monkeypatch):
    """Vanilla KD gets 80 and 84 right, the labels alone 79 and 81, every other arm 85 and 87."""
    counts = {name: (85, 87) for name in recipes.ARMS} | {"vanilla": (80, 84), "labels": (79, 81)}
    found = {name: [run(count) for count in pair] for name, pair in counts.items()}
    monkeypatch.setattr(stages, "arms", lambda: found)
    return found


def test_an_arm_that_is_worse_than_vanilla_kd_has_a_negative_difference(arms):
    table = comparisons.arm_table().set_index("arm")
    assert table.validation["labels"] == "80.00 ± 1.41%"
    # -1 and -3, by seed: mean -2, and 12.706 standard errors of 1 on either side.
    assert table["minus vanilla"]["labels"] == "-2.00"
    assert table["95 % interval"]["labels"] == "-14.71 to +10.71"
    assert (table["minus vanilla"]["vanilla"], table["95 % interval"]["vanilla"]) == ("", "")
    data = comparisons.arm_differences()
    place = data["names"].index(recipes.ARMS["labels"])
    assert data["each"][place] == [-1, -3]
    assert data["intervals"][place] == pytest.approx([-2, -14.706205, 10.706205])
    assert recipes.ARMS["vanilla"] not in data["names"]


def test_curves_are_means_over_the_seeds(arms):
    (labels,) = (arm for arm in comparisons.arm_curves()["arms"] if arm["name"] == recipes.ARMS["labels"])
    assert labels == {"name": recipes.ARMS["labels"], "epoch": [1], "val_loss": [8.0], "val_accuracy": [0.8]}


def test_the_deviation_between_seeds_is_pooled_over_settings():
    rows = [(1.0, 0.5, 0, 10), (1.0, 0.5, 1, 14), (2.0, 0.5, 0, 30), (2.0, 0.5, 1, 30)]
    trials = pd.DataFrame(rows, columns=["T", "alpha", "seed", "val_correct"])
    assert comparisons.seed_deviation(trials) == pytest.approx(2.0)  # variances 8 and 0


def test_agreement_is_with_the_teachers_answer_also_where_it_is_wrong(arms, monkeypatch):
    labels = torch.arange(10)
    answers = labels.clone()
    answers[:2] = torch.tensor([5, 6])  # the teacher is wrong on two images
    copied = answers.clone()
    copied[1] = 1  # the student repeats the first mistake and not the second
    hot = lambda classes: torch.nn.functional.one_hot(classes, 10).double()  # noqa: E731
    for name, group in arms.items():
        for one in group:
            one.validation_logits = hot(copied if name == "vanilla" else labels)
    monkeypatch.setattr(stages, "teacher", lambda: None)
    monkeypatch.setattr(comparisons, "teacher_validation", lambda _: (hot(answers), labels, None))
    vanilla, alone = (arm["share"] for arm in comparisons.agreement()["arms"])
    assert [values[0] for values in vanilla] == [1, 0, *[1] * 8, 0.5]
    assert [values[0] for values in alone] == [0, 0, *[1] * 8, 0]
