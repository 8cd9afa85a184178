"""Pruning removes the weakest channels and nothing else; sparse learning makes them weak; BatchNorm
is measured.
"""

import copy

import pytest
import torch
from helpers import lived, same_bits, tiny_network
from torch import nn

from hw2 import pruning, views
from hw2.assignment import NARROW
from hw2.errors import InputError
from hw2.networks import ResNet14, count_parameters


@pytest.mark.parametrize(
    ("ratio", "widths", "parameters"),
    [
        (0.0, (16, 16, 32, 64), 175258),
        (0.28, (11, 11, 23, 46), 90448),
        (0.29, (11, 11, 22, 45), 85956),
        (0.30, (11, 11, 22, 44), 83313),
    ],
)
def test_a_ratio_gives_its_widths(ratio, widths, parameters):
    network = pruning.prune(ResNet14(), ratio)
    assert network.widths == widths
    assert count_parameters(network) == parameters


@pytest.mark.parametrize("ratio", [1.0, -0.01, float("nan"), 0.95])
def test_a_ratio_out_of_range_is_an_error(ratio):
    # int(16 * 0.05) is 0: the pruner would leave that group at its full width and say nothing.
    with pytest.raises(InputError, match="pruning ratio"):
        pruning.prune(ResNet14(), ratio)


BLOCKS = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1)]
#: a group's name -> layers that make its channels, and layers that take them
GROUPS = {
    "layer1, added by shortcuts": (
        "conv1 layer1.0.conv2 layer1.1.conv2",
        "layer1.0.conv1 layer1.1.conv1 layer2.0.conv1 layer2.0.shortcut.0",
    ),
    "layer2, added by shortcuts": (
        "layer2.0.conv2 layer2.0.shortcut.0 layer2.1.conv2",
        "layer2.1.conv1 layer3.0.conv1 layer3.0.shortcut.0",
    ),
    "layer3, added by shortcuts": (
        "layer3.0.conv2 layer3.0.shortcut.0 layer3.1.conv2",
        "layer3.1.conv1 fc",
    ),
}
for block in BLOCKS:
    GROUPS[f"{block}, between convolutions"] = f"{block}.conv1", f"{block}.conv2"


def norm_of(name):
    """The BatchNorm after a convolution."""
    return name.replace("shortcut.0", "shortcut.1").replace("conv", "bn")


def scaled(network, share, factor):
    """Multiply that share of every group's channels, chosen at random; returns the others' numbers,
    by the group's name.
    """
    generator, kept = torch.Generator().manual_seed(0), {}
    for group, (makers, takers) in GROUPS.items():
        width = network.get_submodule(makers.split()[0]).out_channels
        order = torch.randperm(width, generator=generator)
        count = width - int(width * (1 - share))
        chosen = order[:count]
        for name in makers.split():
            for module in (network.get_submodule(name), network.get_submodule(norm_of(name))):
                for parameter in module.parameters():
                    parameter.data[chosen] *= factor
        for name in takers.split():
            network.get_submodule(name).weight.data[:, chosen] *= factor
        kept[group] = order[count:].sort().values
    return kept


@pytest.fixture
def network(data):
    torch.manual_seed(0)
    return lived(ResNet14(), data.train_images[:60]).eval()


def test_the_strongest_channels_stay_and_the_output_with_them_and_the_original_as_it_was(
    network, data
):
    kept = scaled(network, 0.29, 0.0)
    before = copy.deepcopy(network)
    with torch.no_grad():  # also where the caller has switched gradients off
        pruned = pruning.prune(network, 0.29)
    assert pruned.widths == (11, 11, 22, 45) and not pruned.training
    assert all(parameter.requires_grad for parameter in pruned.parameters())
    images = views.normalise(data.test_images[:30])
    with torch.no_grad():
        torch.testing.assert_close(pruned(images), network(images), rtol=1e-4, atol=1e-4)
    # Weights and statistics of those that stay are untouched.
    first, last = kept["layer1, added by shortcuts"], kept["layer3, added by shortcuts"]
    assert pruned.conv1.weight.equal(network.conv1.weight[first])
    assert pruned.layer1[0].bn2.running_var.equal(network.layer1[0].bn2.running_var[first])
    assert pruned.fc.weight.equal(network.fc.weight[:, last])
    for parameter in pruned.parameters():  # which shares nothing with the original
        parameter.data.zero_()
    assert same_bits(network, before)


def test_every_group_has_its_norms_and_name(network):
    kept = scaled(network, 0.29, 0.0)
    found = dict(zip(pruning.GROUPS, pruning.group_norms(network), strict=True))
    assert found.keys() == kept.keys()
    # where channels were silenced, their norm is zero and no other's
    for name, norms in found.items():
        assert torch.tensor(norms).nonzero().flatten().equal(kept[name])


def test_no_group_of_a_network_has_channels_that_are_all_equal():
    """Torch-Pruning's regulariser would divide 0 by 0: random weights are enough to tell channels
    apart.
    """
    for seed in range(5):
        torch.manual_seed(seed)
        for norms in pruning.group_norms(ResNet14(NARROW)):
            assert max(norms) > 1.05 * min(norms)


def test_sparse_learning_pushes_weak_channels_down_more_than_strong_ones(network):
    scaled(network, 0.29, 0.5)
    before = pruning.group_norms(network)
    hooks = pruning.sparse_learning(network, 0.29, 0.1)
    hooks["before_epoch"](0)
    parameters = [*network.parameters()]
    for _ in range(20):  # steps of the regulariser alone
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        hooks["after_backward"]()
        for parameter in parameters:
            parameter.data -= 0.05 * parameter.grad
    after = pruning.group_norms(network)
    for old, new in zip(map(torch.tensor, before), map(torch.tensor, after), strict=True):
        shrunk = (new / old)[old.argsort()]
        assert shrunk[0] < min(shrunk[-1], 0.97)


def test_recalibration_measures_batchnorm_alone_whatever_it_was(data):
    network, images = tiny_network(), data.train_images[:1200].clone()
    images[1000:] //= 4  # the last batch counts as much as the others, and is unlike them
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.running_mean.fill_(9)
    before = copy.deepcopy(network)
    pruning.recalibrate(network, images)
    weights = zip(network.parameters(), before.parameters(), strict=True)
    assert all(one.equal(other) for one, other in weights)
    # The first BatchNorm, by the definition: the mean over batches of 500 of their means and
    # unbiased variances.
    with torch.no_grad():
        made = [before.conv1(views.normalise(part)).double() for part in images.split(500)]
    made = [part.transpose(0, 1).flatten(1) for part in made]
    # PyTorch's sums over 392,000 float32 numbers are exact to about 1e-3.
    means, variances = (sum(of(part, 1) for part in made) / 3 for of in (torch.mean, torch.var))
    torch.testing.assert_close(network.bn1.running_mean.double(), means, rtol=2e-3, atol=1e-3)
    torch.testing.assert_close(network.bn1.running_var.double(), variances, rtol=2e-3, atol=1e-3)
    assert {(int(norm.num_batches_tracked), norm.momentum) for norm in norms} == {(3, 0.1)}
    assert not network.training
