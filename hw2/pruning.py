"""Group-level pruning with Torch-Pruning's GroupNormPruner (DepGraph: Fang et al., CVPR 2023).

Channels that depend on each other, through a shortcut for instance, form a group and leave together. First the group
norms are pushed apart in training (sparse learning), then the weakest channels are removed, then BatchNorm's running
statistics, which belonged to the wider network, are measured again.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch_pruning as tp
from torch import Tensor, nn

from hw2 import views
from hw2.errors import InputError
from hw2.experiments.recipes import RATIO, check_ratio
from hw2.networks import ResNet14, count_parameters


class Pruner(tp.pruner.GroupNormPruner):
    """GroupNormPruner, safe where all channels of a group are equally strong.

    Its scale is then 0 / 0, which would fill the gradients with NaN; a group whose importance is NaN it leaves alone.
    """

    _regularizing = False

    def estimate_importance(self, group, *args, **kwargs):
        importance = super().estimate_importance(group, *args, **kwargs)
        if self._regularizing and importance.max() == importance.min():
            return torch.full_like(importance, torch.nan)
        return importance

    def regularize(self, *args, **kwargs):
        self._regularizing = True
        try:
            return super().regularize(*args, **kwargs)
        finally:
            self._regularizing = False


def narrowed(widths: tuple[int, ...], ratio: float) -> tuple[int, ...]:
    """What the pruner leaves of so many channels."""
    return tuple(int(width * (1 - ratio)) for width in widths)


def pruner(network: ResNet14, ratio: float, reg: float = 0.0) -> Pruner:
    """A pruner by the groups' L2 norms that removes `ratio` of the channels of every group and keeps `fc`'s outputs.

    `reg` is the strength of the regulariser: call `regularize(network)` between backward and the optimizer's step.
    """
    check_ratio(ratio)
    device = next(network.parameters()).device
    return Pruner(
        network,
        torch.zeros(1, 3, 28, 28, device=device),
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        reg=reg,
        pruning_ratio=ratio,
        ignored_layers=[network.fc],
    )


def sparse_learning(network: ResNet14, ratio: float, reg: float) -> dict:
    """What `training.fit` must be given to train `network` with the regulariser."""
    regulariser = pruner(network, ratio, reg)

    def before_epoch(epoch: int) -> None:
        regulariser.update_regularizer()

    return {"before_epoch": before_epoch, "after_backward": lambda: regulariser.regularize(network)}


def prune(network: ResNet14, ratio: float) -> ResNet14:
    """A pruned copy with new, independent parameters; its widths are `narrowed`."""
    check_ratio(ratio)
    if min(narrowed(network.widths, ratio)) < 1:  # the library would leave such a group as it is, without a word
        raise InputError(f"pruning ratio {ratio}: leaves no channel of the narrowest group ({min(network.widths)})")
    narrow = ResNet14(network.widths)
    narrow.load_state_dict(network.state_dict())
    with torch.enable_grad():
        pruner(narrow, ratio).step()
    # Rebuilding proves that widths and weights are all there is to keep, and leaves no trace of the library.
    fresh = ResNet14(narrow.widths)
    fresh.load_state_dict(narrow.state_dict())
    return fresh.eval()


def ratio_for(widths: tuple[int, ...], budget: int) -> float:
    """The smallest pruning ratio that leaves a ResNet-14 of these widths at most `budget` parameters.

    Widths change only at multiples of 1 / width. Of the ratios that give the same network it is the report's where that
    is one of them, and the middle one elsewhere.
    Raises `InputError` where even one channel a group is too many.
    """
    steps = sorted({removed / width for width in widths for removed in range(width)} | {1.0})
    ratios = [RATIO if low < RATIO <= high else (low + high) / 2 for low, high in pairwise(steps)]
    ratios = [0.0] + [ratio for ratio in ratios if min(narrowed(widths, ratio))]
    for ratio in ratios:
        if count_parameters(ResNet14(narrowed(widths, ratio))) <= budget:
            return ratio
    raise InputError(f"budget of {budget:,} parameters: not met with one channel in the narrowest group")


def group_norms(network: ResNet14) -> list[list[float]]:
    """L2 norm of every channel of every prunable group, in the network's order."""
    with torch.enable_grad():
        measured = pruner(network, 0.0)
    with torch.no_grad():
        return [measured.estimate_importance(group).sqrt().tolist() for group in measured._groups]


def group_names() -> list[str]:
    """A ResNet-14's prunable groups in words, in the order of `group_norms`."""
    names = []
    with torch.enable_grad():
        groups = pruner(ResNet14(), 0.0)._groups
    for group in groups:
        layers = [step.dep.target.name.split(" ")[0] for step in group if isinstance(step.dep.target.module, nn.Conv2d)]
        coupled = len(layers) > 2  # one convolution's outputs and the next one's inputs, where nothing is added
        last = layers[1].rsplit(".", 1)[0]
        names.append(f"{last.split('.')[0]}, added by shortcuts" if coupled else f"{last}, between convolutions")
    return names


@torch.no_grad()
def recalibrate(network: nn.Module, images: Tensor, batch: int = 500) -> None:
    """Measure BatchNorm's running statistics afresh on uint8 training images (n, 28, 28), in place.

    Averages over all batches with equal weight (momentum None) and leaves every parameter as it is.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    network.train()
    for part in images.split(batch):
        network(views.normalise(part))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()
