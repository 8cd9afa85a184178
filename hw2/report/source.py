"""What figures and tables are made from: a profile's runs and search, the data set."""

from functools import cache, cached_property

import torch
from torch import Tensor

from hw2 import data, pictures
from hw2.experiments import ledger
from hw2.experiments.run import Run
from hw2.experiments.store import Store
from hw2.report.statistics import BINS, DIGITS
from hw2.training import NEAR, logits_of, margins

#: float32's rounding may move a probability p by this times p (1 - p); 1e-5 was measured
ROUNDING = 8e-5


class Source(Store):
    """A profile's finished runs and the data set, each thing read once.

    It never trains and never writes. One lives as long as a call of `show`, `table` or `write`: the
    next call sees what was trained meanwhile.
    """

    def __init__(self, profile: str | None = None):
        super().__init__(profile)
        self.fashion = data.fashion_mnist()
        self.answers, self.confidences = cache(self.answers), cache(self.confidences)

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

    def confidences(self, run: Run) -> tuple[Tensor, Tensor]:
        """Of each validation image (n,): the network's confidence, and whether it is right.

        float64 decides where float32's rounding could move an answer, or a confidence into another
        bin of `statistics.calibration` or to another of the numbers that it sums.
        """
        images, labels = self.held_out
        if run.recipe.stem:
            confidence, classes = self.teacher_logits.softmax(1).max(1)
            return confidence, classes == labels
        network = run.network()
        logits = logits_of(network, images)
        confidence, classes = logits.double().softmax(1).max(1)
        to_edge = _distance(confidence, 1 / BINS)
        to_half = _distance(confidence - 0.5 / 10**DIGITS, 1 / 10**DIGITS)
        near = torch.minimum(to_edge, to_half) < ROUNDING * confidence * (1 - confidence)
        near |= margins(logits) < NEAR
        confidence[near], classes[near] = pictures.probabilities(network, images[near]).max(1)
        return confidence, classes == labels


def _distance(values: Tensor, step: float) -> Tensor:
    """To the nearest multiple of `step`."""
    return (values / step - (values / step).round()).abs() * step
