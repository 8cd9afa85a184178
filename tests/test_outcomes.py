"""The networks against each other: the right pairs, the right signs, the right images."""

from types import SimpleNamespace

import pytest
import torch

from hw2.experiments import stages
from hw2.experiments import store as runs
from hw2.report import outcomes
from hw2.report import statistics as measures


def run(stage, seed, validation, test):
    return SimpleNamespace(
        folder=f"{stage}-{seed}", recipe={"seed": seed}, val_accuracy=validation, test_accuracy=test, profile="cpu"
    )


@pytest.fixture
def chain(monkeypatch):
    """Plain has seeds 0 and 1, the others 0, 1 and 2; of four test images plain gets one right and the others three."""
    found = {
        "plain": [run("plain", 0, 0.90, 0.80), run("plain", 1, 0.92, 0.82)],
        "distilled": [run("distilled", seed, 0.91, 0.82) for seed in range(3)],
        "compressed": [run("compressed", seed, 0.95 + seed / 100, 0.945) for seed in range(3)],
        "scratch": [run("scratch", 0, 0.94, 0.94)],
        "unpruned": [run("unpruned", 0, 0.96, 0.95)],
    }
    answers = {
        "plain-0": [0, 9, 9, 9],
        "distilled-0": [9, 1, 2, 3],
        "compressed-0": [9, 1, 2, 3],
        "scratch-0": [0, 1, 2, 3],
        "unpruned-0": [0, 1, 2, 3],
    }
    monkeypatch.setattr(outcomes, "seeds", lambda stage: found[stage])
    monkeypatch.setattr(outcomes, "answers", lambda folder: torch.tensor(answers[folder]))
    monkeypatch.setattr(outcomes, "delivered_classes", lambda: torch.tensor([0, 1, 2, 2]))
    monkeypatch.setattr(outcomes, "fashion_mnist", lambda: SimpleNamespace(test_labels=torch.tensor([0, 1, 2, 3])))
    monkeypatch.setattr(outcomes.stages, "compressed", lambda: found["compressed"][0])
    return found


def test_pairs_are_of_the_seeds_that_both_networks_have(chain):
    first = outcomes.pair_table().iloc[0]
    assert first.seeds == 2
    assert first.validation.startswith("+0.00 (")  # +1 and -1
    assert first.test.startswith("+1.00 (")  # +2 and 0
    assert first["only one right"] == "3 : 1"


def test_a_pair_that_never_differs_has_no_evidence(chain):
    second = outcomes.pair_table().iloc[1]
    assert (second["only one right"], second.p) == ("0 : 0", "1.000")
    assert second.validation.startswith("+5.00 (")


def test_a_run_whose_test_set_was_not_read_stays_unread(chain, monkeypatch):
    monkeypatch.setattr(outcomes, "answers", lambda folder: pytest.fail(f"{folder} was read"))
    for each in chain["plain"] + chain["compressed"]:
        each.test_accuracy = None
    for _, row in outcomes.pair_table().iterrows():
        assert (row.test, row["only one right"], row.p) == ("not read", "", "")
    assert outcomes.pair_table().validation[2].startswith("+4.50 (")  # +5 and +4
    table = outcomes.aim_table().set_index("network")
    assert (table["mean"]["pruned and fine-tuned"], table.verdict["pruned and fine-tuned"]) == ("not read", "")


def test_an_aim_is_met_from_its_very_value_on(chain):
    table = outcomes.aim_table().set_index("network").verdict
    assert table[outcomes.NETWORKS["compressed"]] == "met"
    assert table[outcomes.NETWORKS["distilled"]] == "missed"


def test_each_class_says_what_its_mistakes_were_taken_for(chain, monkeypatch):
    monkeypatch.setattr(outcomes, "CLASSES", ["a", "b", "c", "d"])
    table = outcomes.class_table().set_index("class")
    assert table.right["a"] == "1 of 1"
    assert table["most often taken for"]["a"] == ""
    assert (table.right["d"], table["most often taken for"]["d"]) == ("0 of 1", "c (1)")


def test_phases_are_summed_up_over_the_seeds(chain):
    names = ("distilled", "sparse", "pruned", "recalibrated", "fine_tuned")
    for number, each in enumerate(chain["compressed"]):
        phases = {name: 50 + number for name in names}
        phases |= {f"{name}_without_sparse_learning": 10 for name in names[2:4]}
        each.metrics = {"phases": phases, "val_total": 100}
    table = outcomes.phase_table().set_index("phase")
    assert table["with sparse learning"]["right after pruning"] == "51.00 ± 1.00%"
    assert table["without"]["right after pruning"] == "10.00 ± 0.00%"
    assert table["without"]["fine-tuned"] == ""


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (5, 5, 1.0),
        (6, 0, 2 / 64),
        (2, 8, 2 * (1 + 10 + 45) / 1024),  # the binomial tail by hand
    ],
)
def test_mcnemar_counts_only_images_on_which_one_is_right(first, second, p):
    one = torch.tensor([True] * first + [False] * second + [True, True, False])
    other = torch.tensor([False] * first + [True] * second + [True, True, False])
    assert measures.mcnemar(one, other) == (first, second, pytest.approx(p))


def test_seeds_of_an_older_recipe_are_left_out(store):
    for seed in (0, 1):
        stages.compressed(seed=seed)
    assert [run.recipe["seed"] for run in outcomes.seeds("compressed")] == [0, 1]
    path = stages.distilled().folder / "recipe.json"
    later = ("loss", "targets", "widths")
    older = {name: value for name, value in runs.read_json(path).items() if name not in later}
    runs.write_json(path, older)
    assert [run.recipe["seed"] for run in outcomes.seeds("distilled")] == [0, 1]
    path = stages.distilled(seed=1).folder / "recipe.json"
    runs.write_json(path, runs.read_json(path) | {"digest": "another"})
    assert [run.recipe["seed"] for run in outcomes.seeds("compressed")] == [0]  # its parent is gone
    runs.write_json(path, runs.read_json(path) | {"temperature": 9.0})
    assert [run.recipe["seed"] for run in outcomes.seeds("distilled")] == [0]
