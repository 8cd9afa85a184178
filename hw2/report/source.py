"""What figures and tables are made from: a profile's runs and search, the data set."""

from functools import cache, cached_property

from torch import Tensor

from hw2 import data
from hw2.experiments import ledger
from hw2.experiments.run import Run
from hw2.experiments.store import Store


class Source(Store):
    """A profile's finished runs and the data set, each thing read once.

    It never trains and never writes. One lives as long as a call of `show`, `table` or `write`: the
    next call sees what was trained meanwhile.
    """

    def __init__(self, profile: str | None = None):
        super().__init__(profile)
        self.fashion = data.fashion_mnist()
        self.answers = cache(self.answers)

    def answers(self, run: Run) -> Tensor:
        """Predicted classes (n,) of the test images, checked against the ledger."""
        return ledger.answers(run, self.fashion)

    @property
    def held_out(self) -> tuple[Tensor, Tensor]:
        """Validation images, uint8 (n, 28, 28), and their labels (n,)."""
        return self.require("teacher").recipe.task(self.fashion).held_out

    @cached_property
    def teacher_logits(self) -> Tensor:
        """The teacher's logits (n, 10) of the validation images as they are (view 0), float64."""
        teacher = self.require("teacher")
        return teacher.soft_targets[0][teacher.recipe.task(self.fashion).validation].double()
