"""Group-level pruning with Torch-Pruning's GroupNormPruner (DepGraph: Fang et al., CVPR 2023).

Channels that depend on each other, through a shortcut for instance, form a group and leave
together. Sparse learning pushes the group norms apart, the weakest channels are removed, and
BatchNorm's running statistics are measured again.
"""

import copy

import torch
import torch_pruning as tp
from torch import Tensor, nn

from hw2 import views
from hw2.assignment import WIDTHS
from hw2.errors import InputError, choose
from hw2.networks import ResNet14

#: name in a recipe -> what ranks channels: L2 norms of groups, or torch's random numbers
IMPORTANCES = {
    "norm": tp.importance.GroupMagnitudeImportance(p=2),
    "random": tp.importance.RandomImportance(),
}
#: a ResNet-14's prunable groups in words, in the order of `groups`
GROUPS = (
    "layer3, added by shortcuts",
    "layer2, added by shortcuts",
    "layer1, added by shortcuts",
    "layer1.0, between convolutions",
    "layer1.1, between convolutions",
    "layer2.0, between convolutions",
    "layer2.1, between convolutions",
    "layer3.0, between convolutions",
    "layer3.1, between convolutions",
)


def check_ratio(value: float, widths: tuple[int, ...] = WIDTHS) -> None:
    """`InputError` for what is no ratio, or leaves a group of these widths without a channel."""
    if not 0 <= value < 1:
        expected = "expected at least 0 and below 1; the report's is 0.29"
        raise InputError(f"pruning ratio {value}: {expected}")
    if min(narrowed(widths, value)) < 1:  # the library would leave such a group as it is
        problem = f"leaves no channel of the narrowest group ({min(widths)})"
        raise InputError(f"pruning ratio {value}: {problem}")


def narrowed(widths: tuple[int, ...], ratio: float) -> tuple[int, ...]:
    """What the pruner leaves of so many channels."""
    return tuple(int(width * (1 - ratio)) for width in widths)


@torch.enable_grad()
def pruner(
    network: ResNet14,
    ratio: float,
    reg: float = 0.0,
    importance: str = "norm",
) -> tp.pruner.GroupNormPruner:
    """A pruner that removes `ratio` of the channels of every group, and keeps `fc`'s outputs.

    `importance` is a key of `IMPORTANCES`. `reg` is the strength of the
    regulariser: call `regularize(network)` between backward and the optimizer's step.
    """
    return tp.pruner.GroupNormPruner(
        network,
        torch.zeros(1, 3, 28, 28, device=next(network.parameters()).device),
        choose("importance", IMPORTANCES, importance),
        reg=reg,
        pruning_ratio=ratio,
        ignored_layers=[network.fc],
    )


def groups(pruner: tp.pruner.GroupNormPruner) -> list[tp.Group]:
    """All groups that may be pruned; `GROUPS` are their names."""
    found = pruner.DG.get_all_groups(pruner.ignored_layers, pruner.root_module_types)
    return list(found)


def sparse_learning(network: ResNet14, ratio: float, reg: float) -> dict:
    """Fields of `training.Options` with which `training.fit` trains with the regulariser."""
    regulariser = pruner(network, ratio, reg)
    return {
        "before_epoch": lambda epoch: regulariser.update_regularizer(),
        "after_backward": lambda: regulariser.regularize(network),
    }


def prune(network: ResNet14, ratio: float, importance: str = "norm") -> ResNet14:
    """A pruned copy with new, independent parameters, of widths `narrowed`; see `pruner`."""
    check_ratio(ratio, network.widths)
    narrow = ResNet14(network.widths)
    narrow.load_state_dict(network.state_dict())
    pruner(narrow, ratio, importance=importance).step()
    # Rebuilding proves that widths and weights are all there is to keep.
    fresh = ResNet14(narrow.widths)
    fresh.load_state_dict(narrow.state_dict())
    return fresh.eval()


def prune_group(network: ResNet14, number: int, ratio: float) -> nn.Module:
    """A copy that lost `ratio` of one group's channels, the weakest; its place in `groups`."""
    copied = copy.deepcopy(network).eval()
    estimator = pruner(copied, 0.0)
    group = groups(estimator)[number]
    order = estimator.estimate_importance(group).argsort()
    group.prune(order[: int(len(order) * ratio)].tolist())
    return copied


def group_norms(network: ResNet14) -> list[list[float]]:
    """L2 norm of every channel of every prunable group, in the order of `groups`.

    As Torch-Pruning gives them: divided by the root mean square of the group's norms.
    """
    estimator = pruner(network, 0.0)
    with torch.no_grad():
        return [estimator.estimate_importance(group).sqrt().tolist() for group in groups(estimator)]


@torch.no_grad()
def recalibrate(network: nn.Module, images: Tensor) -> None:
    """Measure BatchNorm's running statistics afresh on uint8 images (n, 28, 28), in place.

    Parameters stay. Averages over batches of 500 with equal weight (momentum None).
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    network.train()
    for part in images.split(500):
        network(views.normalise(part).to(norms[0].weight.dtype))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()
