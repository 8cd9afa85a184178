"""A network that trains in no time, and what tests ask of two networks."""

import torch

from hw2.networks import ResNet14

TINY = (4, 4, 4, 4)  # widths


def tiny_network(seed=0):
    """A ResNet-14 with 4 channels everywhere, the same for every test."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ResNet14(TINY)


def same_bits(one, other):
    """Whether two networks hold the same parameters and buffers, bit for bit."""
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
