"""What runs in place of PyTorch's own functions where they are slow: the same to rounding."""

import copy
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class _TiledBatchNorm(torch.autograd.Function):
    """BatchNorm in training mode of a batch in channels_last, seen as rows (n * height, width *
    channels).

    PyTorch's kernels go through the channels of one pixel at a time. On a CPU that is several times
    slower where their number is no multiple of the vector length.
    """

    @staticmethod
    def forward(
        ctx, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        width, channels = x.shape[3], x.shape[1]
        rows = _rows(x)
        means, variances = torch.ops.aten.batch_norm_update_stats(rows, None, None, 0.0)
        between, mean = torch.var_mean(means.view(width, channels), dim=0, correction=0)
        variance = between.add_(variances.view(width, channels).mean(0))
        scale = (variance + eps).rsqrt_().mul_(weight)
        scales, shifts = _tile(width, scale, torch.addcmul(bias, mean, scale, value=-1))
        y = torch.empty_like(x)
        torch.addcmul(shifts, rows, scales, out=_rows(y))
        ctx.save_for_backward(x, mean, variance, scale)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    def backward(ctx, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, mean, variance, scale = ctx.saved_tensors
        width, channels = x.shape[3], x.shape[1]
        count = x.numel() // channels
        rows, above = _rows(x), _rows(gradient.contiguous(memory_format=torch.channels_last))
        means, variances = _tile(width, mean, variance)
        # As in evaluation mode, which sums gradient and gradient * normalised x in one pass.
        _, weights, biases = torch.ops.aten.native_batch_norm_backward(
            above, rows, None, means, variances, None, None, False, ctx.eps, [False, True, True]
        )
        weights, biases = torch.stack((weights, biases)).view(2, width, channels).sum(1)
        # Ioffe & Szegedy (2015): dx = scale * (dy - mean(dy) - normalised x * mean(dy * normalised
        # x)).
        slope = (variance + ctx.eps).rsqrt_().mul_(scale).mul_(weights).div_(-count)
        shift = torch.addcmul(scale * biases / -count, mean, slope, value=-1)
        slopes, shifts, scales = _tile(width, slope, shift, scale)
        below = torch.empty_like(x)
        torch.addcmul(shifts, rows, slopes, out=_rows(below)).addcmul_(above, scales)
        return below, weights, biases, None


def _rows(x: Tensor) -> Tensor:
    """A batch in channels_last as (n * height, width * channels), without copying."""
    return x.permute(0, 2, 3, 1).view(x.shape[0] * x.shape[2], -1)


def _tile(width: int, *values: Tensor) -> Tensor:
    """Vectors (channels,), each repeated for `width` pixels: (values, width * channels)."""
    return torch.cat(values).view(len(values), 1, -1).repeat(1, width, 1).flatten(1)


class TiledBatchNorm2d(nn.BatchNorm2d):
    """PyTorch's to rounding, trained faster on a CPU where channels are no multiple of 16."""

    def forward(self, x: Tensor) -> Tensor:
        slow = x.shape[1] % 16 and x.device.type == "cpu" and x.dtype == torch.float32
        if not (self.training and slow and x.is_contiguous(memory_format=torch.channels_last)):
            return super().forward(x)
        y, mean, variance = _TiledBatchNorm.apply(x, self.weight, self.bias, self.eps)
        with torch.no_grad():
            count = x.numel() // x.shape[1]
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        return y


@contextmanager
def tiled(network: nn.Module):
    """While the block runs, the network's BatchNorm layers are `TiledBatchNorm2d`."""
    norms = [module for module in network.modules() if type(module) is nn.BatchNorm2d]
    for norm in norms:
        norm.__class__ = TiledBatchNorm2d
    try:
        yield
    finally:
        for norm in norms:
            norm.__class__ = nn.BatchNorm2d


def quick(network: nn.Module) -> nn.Module:
    """A copy for evaluation, its BatchNorm layers folded into the convolutions before them.

    In channels_last; the same function to rounding (Jacob et al. 2018, section 3.2). Each
    convolution is registered just before its norm.
    """
    copied = copy.deepcopy(network).eval()
    for parent in list(copied.modules()):
        for (first, conv), (second, norm) in pairwise(list(parent.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, first, fuse_conv_bn_eval(conv, norm))
                setattr(parent, second, nn.Identity())
    return copied.to(memory_format=torch.channels_last)
