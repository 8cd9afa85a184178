"""What figures and tables are made from: a profile's runs, its search, the bench and the data set."""

from functools import cache, cached_property

from torch import Tensor

from hw2 import data, pictures
from hw2.experiments import ledger, schemas
from hw2.experiments.run import Run
from hw2.experiments.store import Store
from hw2.files import read_json
from hw2.training import NEAR, logits_of, margins


class Source(Store):
    """A profile's finished runs and the data set, each thing read once. It never trains and never writes.

    One lives as long as a call of `show`, `table` or `write`: the next call sees what was trained meanwhile.
    """

    def __init__(self, profile: str | None = None):
        super().__init__(profile)
        self.fashion = data.fashion_mnist()
        self.answers, self.confidences = cache(self.answers), cache(self.confidences)

    @cached_property
    def bench(self) -> dict:
        """A machine's speeds, which belong to no profile."""
        return read_json(data.PROJECT / "runs/bench.json", schemas.Bench)

    def answers(self, run: Run) -> Tensor:
        """Classes (n,) that the run's network predicts for the test images; checked against the ledger."""
        return ledger.answers(run, self.fashion)

    @property
    def held_out(self) -> tuple[Tensor, Tensor]:
        """Validation images, uint8 (n, 28, 28), and their labels (n,)."""
        return self.run("teacher").recipe.task(self.fashion).held_out

    @cached_property
    def teacher_logits(self) -> Tensor:
        """The teacher's logits (n, 10) of the validation images as they are (view 0), float64."""
        teacher = self.run("teacher")
        return teacher.soft_targets[0][teacher.recipe.task(self.fashion).validation].double()

    def confidences(self, name: str) -> tuple[Tensor, Tensor]:
        """How sure a row's first network is of its answer to each validation image, (n,), and which answers are right.

        In whole thousandths; where float32's rounding could show, float64 decides.
        """
        images, labels = self.held_out
        logits = self.teacher_logits if name == "teacher" else logits_of(self.run(name).network(), images)
        confidence, classes = logits.double().softmax(1).max(1)
        if name != "teacher":
            near = ((1000 * confidence % 1 - 0.5).abs() < 0.02) | (margins(logits) < NEAR)
            confidence[near], classes[near] = pictures.probabilities(self.run(name).network(), images[near]).max(1)
        return (1000 * confidence).round() / 1000, classes == labels
