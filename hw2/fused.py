"""Several students trained as one network, for accelerators that a small network leaves idle.

The students' channels stand side by side: grouped convolutions keep them apart, and one BatchNorm over all channels is
every student's own (horizontal fusion: Wang et al., HFTA, MLSys 2021). Each student's weights come out as from training
alone, to rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from hw2 import training
from hw2.errors import InputError
from hw2.experiments.recipes import check_alpha, check_temperature
from hw2.networks import ResNet14
from hw2.training import Objective


class Heads(nn.Module):
    """The students' `fc` layers: (n, count * inputs) to (n, count * outputs)."""

    def __init__(self, layer: nn.Linear, count: int):
        super().__init__()
        self.count = count
        self.weight = nn.Parameter(layer.weight.repeat(count, 1))
        self.bias = nn.Parameter(layer.bias.repeat(count))

    def forward(self, x: Tensor) -> Tensor:
        inputs = x.view(len(x), self.count, -1)
        weight = self.weight.view(self.count, -1, inputs.shape[2])
        return torch.einsum("nmi,moi->nmo", inputs, weight).flatten(1) + self.bias


class Fused(nn.Module):
    """Students of equal widths as one network: (n * count, 3, 28, 28) to logits (n * count, 10).

    Image i * count + m is student m's i-th. Tensors have ResNet-14's names and hold the students' tensors one after the
    other. Raises `InputError` for students of different widths.
    """

    def __init__(self, students: Sequence[ResNet14]):
        super().__init__()
        if len({student.widths for student in students}) != 1:
            raise InputError(f"students of widths {[s.widths for s in students]}: expected one or more of equal widths")
        self.count = len(students)
        self.body = copy.deepcopy(students[0])
        for parent in list(self.body.modules()):
            for name, layer in list(parent.named_children()):
                if isinstance(layer, nn.Conv2d):
                    wide = nn.Conv2d(
                        layer.in_channels * self.count, layer.out_channels * self.count, layer.kernel_size,
                        layer.stride, layer.padding, groups=self.count, bias=False,
                    )  # fmt: skip
                    setattr(parent, name, wide)
                elif isinstance(layer, nn.BatchNorm2d):
                    setattr(parent, name, type(layer)(layer.num_features * self.count))
        self.body.fc = Heads(students[0].fc, self.count)
        states = [student.state_dict() for student in students]
        self.body.load_state_dict({
            name: torch.cat([state[name] for state in states]) if value.ndim else value
            for name, value in states[0].items()
        })  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        side_by_side = x.reshape(len(x) // self.count, self.count * x.shape[1], *x.shape[2:])
        return self.body(side_by_side).view(len(x), -1)

    def students(self) -> list[ResNet14]:
        """The students apart, on the CPU, in evaluation mode."""
        state = {name: value.cpu() for name, value in self.body.state_dict().items()}
        conv = self.body.conv1
        widths = [conv.out_channels, *(stage[1].conv2.out_channels for stage in
                                       (self.body.layer1, self.body.layer2, self.body.layer3))]  # fmt: skip
        apart = []
        for number in range(self.count):
            student = ResNet14(tuple(width // self.count for width in widths))
            student.load_state_dict(
                {name: value.chunk(self.count)[number] if value.ndim else value for name, value in state.items()}
            )
            apart.append(student.eval())
        return apart


def cached_objective(cache: Tensor, temperatures: Sequence[float], alphas: Sequence[float]) -> Objective:
    """`distillation.cached_objective` with a temperature and an alpha for each student: the students' mean loss."""
    scale = torch.tensor([check_temperature(value) for value in temperatures], device=cache.device)
    weight = torch.tensor([check_alpha(value) for value in alphas], device=cache.device)
    count = len(scale)

    def objective(logits: Tensor, labels: Tensor, rows: Tensor, view: int) -> Tensor:
        teacher = cache[view][rows].to(logits.dtype)
        each = scale.repeat(len(rows) // count)[:, None]
        hard = functional.cross_entropy(logits, labels, reduction="none")
        soft = functional.kl_div(
            functional.log_softmax(logits / each, dim=1),
            functional.log_softmax(teacher / each, dim=1),
            reduction="none",
            log_target=True,
        )
        means = [loss.view(-1, count).mean(0) for loss in (hard, soft.sum(1))]
        return ((1 - weight) * means[0] + weight * scale**2 * means[1]).mean()

    return objective


def fit(students: Sequence[ResNet14], *args, seeds: Sequence[int], **more) -> tuple[list[ResNet14], training.History]:
    """`training.fit` of all students at once, each with its own seed's shuffling and erasing.

    Losses and accuracies of the history are means over the students.
    """
    network, history = training.fit(Fused(students), *args, seed=tuple(seeds), **more)
    return network.students(), history
