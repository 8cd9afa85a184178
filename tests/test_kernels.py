"""What runs in place of PyTorch's own is the same function, to rounding."""

from functools import partial

import pytest
import torch
from helpers import lived
from torch import nn

from hw2 import kernels, networks, views
from hw2.assignment import NARROW
from hw2.kernels import TiledBatchNorm2d
from hw2.networks import ResNet14


def batch(channels, size, seed=0):
    x = torch.randn(6, channels, size, size, generator=torch.Generator().manual_seed(seed)) * 3 + 2
    return x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("channels", "size"), [(11, 28), (22, 14), (45, 7), (3, 1), (1, 5)])
def test_batch_norm_is_pytorchs_forward_backward_and_in_its_statistics(channels, size):
    found = []
    for make, kind in ((nn.BatchNorm2d, torch.float64), (TiledBatchNorm2d, torch.float32)):
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


def test_elsewhere_batch_norm_is_pytorchs_own():
    full, layer, x = TiledBatchNorm2d(16), TiledBatchNorm2d(11), batch(11, 8)
    made = [full(batch(16, 8)), layer(x.contiguous()), layer.eval()(x)]
    made.append(layer.train().double()(x.double()))
    assert not any("Tiled" in type(y.grad_fn).__name__ for y in made)


def test_a_network_has_the_tiled_layers_only_while_the_block_runs():
    network = ResNet14(NARROW)
    with pytest.raises(ZeroDivisionError), kernels.tiled(network):
        assert type(network.bn1) is type(network.layer3[1].bn2) is TiledBatchNorm2d
        raise ZeroDivisionError
    assert type(network.bn1) is type(network.layer3[1].bn2) is nn.BatchNorm2d


@pytest.mark.parametrize("make", [partial(ResNet14, NARROW), networks.teacher])
def test_folding_keeps_the_function_and_leaves_no_batch_norm(data, make):
    network = lived(make(), data.train_images[:60])
    folded = kernels.quick(network)
    assert network.training and not folded.training
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    images = views.normalise(data.train_images[100:120])
    with torch.no_grad():
        expected, found = network.eval()(images), folded(images)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
