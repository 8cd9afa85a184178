"""What runs in place of PyTorch's own is the same function, to rounding."""

import copy

import pytest
import torch
from helpers import same_bits
from torch import nn

from hw2 import kernels, networks, training, views
from hw2.experiments.recipes import Fit
from hw2.kernels import BatchNorm2d
from hw2.networks import ResNet14

ODD, PADDED = (11, 11, 22, 45), (11, 11, 24, 48)


def batch(channels, size, seed=0):
    x = torch.randn(6, channels, size, size, generator=torch.Generator().manual_seed(seed)) * 3 + 2
    return x.contiguous(memory_format=torch.channels_last)


def moved(network, data):
    """The network after some batches, so that no BatchNorm is at its defaults any more."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2.0, generator=generator)
            nn.init.uniform_(module.bias, -1.0, 1.0, generator=generator)
    network.train()
    for part in data.train_images[:90].split(30):
        network(views.normalise(part))
    return network


@pytest.mark.parametrize(("channels", "size"), [(11, 28), (22, 14), (45, 7), (3, 1), (1, 5)])
def test_batch_norm_is_pytorchs_forward_backward_and_in_its_statistics(channels, size):
    found = []
    for make, kind in ((nn.BatchNorm2d, torch.float64), (BatchNorm2d, torch.float32)):
        layer = make(channels, dtype=kind)
        with torch.no_grad():
            layer.weight.copy_(torch.linspace(0.5, 2, channels))
            layer.bias.copy_(torch.linspace(-1, 1, channels))
        x = batch(channels, size).to(kind).requires_grad_()
        for seed in (0, 1):  # statistics move twice
            y = layer(x)
            (y * batch(channels, size, 7 + seed)).sum().backward()
        found.append([y, x.grad, layer.weight.grad, layer.bias.grad, *layer.buffers()])
    assert type(found[1][0].grad_fn).__name__ == "_TiledBatchNormBackward"
    for ours, theirs in zip(found[1], found[0], strict=True):
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.mark.parametrize(
    ("channels", "change"),
    [
        (16, lambda layer, x: (layer, x)),
        (11, lambda layer, x: (layer.eval(), x)),
        (11, lambda layer, x: (layer, x.contiguous())),
        (11, lambda layer, x: (layer.double(), x.double())),
    ],
    ids=["full vectors", "evaluation", "another layout", "float64"],
)
def test_elsewhere_batch_norm_is_pytorchs_own(channels, change):
    layer, x = change(BatchNorm2d(channels), batch(channels, 8))
    assert "Tiled" not in type(layer(x).grad_fn).__name__


@pytest.mark.parametrize("make", [lambda: ResNet14(ODD), networks.teacher], ids=["student", "teacher"])
def test_folding_keeps_the_function_and_leaves_no_batch_norm(data, make):
    torch.manual_seed(0)
    network = moved(make(), data).eval()
    folded = kernels.folded(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    images = views.normalise(data.train_images[100:130])
    with torch.no_grad():
        expected, found = network(images), folded(images)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize(
    ("widths", "fast"), [(ODD, PADDED), ((16, 16, 32, 64),) * 2, ((4, 4, 4, 4),) * 2, ((12, 12, 24, 48),) * 2]
)
def test_only_wide_odd_layers_are_padded(widths, fast):
    assert kernels.fast_widths(widths) == fast


def test_padding_keeps_the_function_and_can_be_taken_back(data):
    network = moved(ResNet14(ODD), data).eval()
    state = torch.random.get_rng_state()
    padded = kernels.resized(network, PADDED)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert padded.widths == PADDED and not padded.training
    images = views.normalise(data.train_images[100:130])
    with torch.no_grad():
        torch.testing.assert_close(padded(images), network(images), rtol=1e-4, atol=1e-4)
    assert same_bits(kernels.resized(padded, ODD), network)


def test_padded_channels_stay_zero_in_training(few):
    torch.manual_seed(0)
    padded = kernels.resized(ResNet14((4, 4, 18, 20)), (4, 4, 24, 24))
    trained, _ = training.fit(
        copy.deepcopy(padded), few, torch.arange(96), torch.arange(500, 532), Fit(1, 0.1, batch=32), seed=0
    )
    for width, name in ((18, "layer2"), (20, "layer3")):
        layer, before = getattr(trained, name)[1], getattr(padded, name)[1]
        assert not torch.equal(layer.conv2.weight, before.conv2.weight)
        for value in (layer.conv2.weight, layer.bn2.weight, layer.bn2.bias, layer.conv1.weight.transpose(0, 1)):
            assert not value[width:].any() and value[:width].any()


def test_hooks_keep_the_network_that_they_know(few):
    network = ResNet14((4, 4, 18, 20))
    seen = []
    trained, _ = training.fit(
        network, few, torch.arange(96), torch.arange(500, 532), Fit(1, 0.1, batch=32), seed=0,
        after_backward=lambda: seen.append(network.fc.weight.grad is not None),
    )  # fmt: skip
    assert seen == [True] * 3 and trained is network
