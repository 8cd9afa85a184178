"""ResNet-14 with any widths, the ResNet-50 teacher, and how their weights are kept.

ResNet-14 is the small-image ResNet of He et al. (2016) with two basic blocks a stage, at SimKD's widths 16/32/64.
"""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet50

from hw2.assignment import WIDTHS
from hw2.data import CLASSES
from hw2.errors import InputError
from hw2.files import write_bytes


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        # The shortcut's stride is taken before its convolution. That is the same function as a strided 1x1 convolution,
        # whose backward pass writes outside its memory for odd widths in channels_last on a CPU (torch 2.15).
        return self.relu(out + self.shortcut(functional.avg_pool2d(x, 1, self.stride) if self.stride > 1 else x))


class ResNet14(nn.Module):
    """(n, 3, 28, 28) to logits (n, 10). `widths`: channels of the stem and of the three stages.

    175,258 parameters at (16, 16, 32, 64), 85,956 at (11, 11, 22, 45).
    """

    def __init__(self, widths: tuple[int, int, int, int] = WIDTHS):
        super().__init__()
        stem, *stages = widths
        self.conv1 = nn.Conv2d(3, stem, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        inputs = stem
        for number, (outputs, stride) in enumerate(zip(stages, (1, 2, 2), strict=True), start=1):
            blocks = nn.Sequential(BasicBlock(inputs, outputs, stride), BasicBlock(outputs, outputs, 1))
            self.add_module(f"layer{number}", blocks)
            inputs = outputs
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, len(CLASSES))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @property
    def widths(self) -> tuple[int, int, int, int]:
        """Channels of stem and stages as they are now: pruning changes them."""
        stages = (self.layer1, self.layer2, self.layer3)
        return self.conv1.out_channels, *(stage[1].conv2.out_channels for stage in stages)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(self.pool(x), 1))


def teacher(stem: str = "imagenet") -> nn.Module:
    """Torchvision's ResNet-50 with a 10-way `fc`: 23,528,522 parameters.

    `stem="stride1"` takes the stride from `conv1`, so that 14 x 14 and not 7 x 7 pixels enter the blocks: the same
    parameters at 2.6 times the cost. `stem="small"` puts a 3x3 convolution of stride 1 for the 7x7 of stride 2 and its
    max-pool: 23,520,842 parameters and about 13 times the cost on 28 x 28 images. Residual branches start at zero
    (Goyal et al. 2017).
    """
    if stem not in ("imagenet", "stride1", "small"):
        raise InputError(f"stem {stem!r}: expected 'imagenet', 'stride1' or 'small'")
    network = resnet50(num_classes=len(CLASSES), zero_init_residual=True)
    if stem == "stride1":
        network.conv1.stride = (1, 1)
    if stem == "small":
        network.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        network.maxpool = nn.Identity()
    return network


def count_parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def save(network: nn.Module, path: Path) -> None:
    """Weights as safetensors; a ResNet-14's widths go into the metadata, so that `load` can rebuild it."""
    metadata = {"widths": ",".join(map(str, network.widths))} if isinstance(network, ResNet14) else {}
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_bytes(Path(path), safetensors.torch.save(state, metadata))


def load(path: Path | str) -> ResNet14:
    """A ResNet-14 from `save`'s file, in evaluation mode. Raises `InputError` for anything else."""
    remedy = "expected a safetensors file written by `hw2 train`, such as runs/compressed/*/model.safetensors"
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{path}: no readable weights ({error}); {remedy}") from None
    try:
        widths = tuple(int(width) for width in metadata["widths"].split(","))
        if len(widths) != 4 or not all(0 < width <= 1024 for width in widths):
            raise ValueError(widths)
    except (KeyError, ValueError):
        raise InputError(
            f"{path}: weights of another network (no ResNet-14 widths in its metadata); {remedy}"
        ) from None
    with torch.device("meta"):  # without memory: widths may be claimed that the tensors do not have
        _check(ResNet14(widths), state, path)
    network = ResNet14(widths)
    network.load_state_dict(state)
    return network.eval()


def load_course_teacher(path: Path | str) -> nn.Module:
    """The course's `resnet-50.pth` as a network, read without running code that the file may hold.

    It is a dict whose `model_state_dict` holds torchvision's names under the prefix `resnet50.`.
    """
    remedy = "expected the course's resnet-50.pth: a dict with `model_state_dict`"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols: whatever is not loaded is told below
            if zipfile.is_zipfile(path) and any(entry.compress_type for entry in zipfile.ZipFile(path).infolist()):
                raise ValueError("packed, as torch.save never does: it may unpack to any size")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{path}: not loaded ({error}); {remedy}") from None
    except Exception:  # torch raises whatever its unpickler met, with the advice to load unsafely: not passed on
        raise InputError(f"{path}: not loaded (damaged, or it holds more than tensors); {remedy}") from None
    state = content.get("model_state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path}: no `model_state_dict` of tensors; {remedy}")
    network = teacher()
    state = {str(name).removeprefix("resnet50."): value for name, value in state.items()}
    _check(network, state, path)
    network.load_state_dict(state)
    return network.eval()


def load_teacher(path: Path | str, stem: str) -> nn.Module:
    """A teacher from `save`'s file, in evaluation mode. Raises `InputError` for anything else."""
    try:
        state = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{path}: no readable weights ({error}); train the teacher again") from None
    network = teacher(stem)
    _check(network, state, path)
    network.load_state_dict(state)
    return network.eval()


def _check(network: nn.Module, state: dict[str, Tensor], path: Path | str) -> None:
    expected = network.state_dict()
    shared = [name for name in expected if name in state]
    problems = {
        "missing": sorted(expected.keys() - state.keys()),
        "unexpected": sorted(state.keys() - expected.keys()),
        "of another shape": [name for name in shared if state[name].shape != expected[name].shape],
        "of complex numbers": [name for name in shared if state[name].is_complex()],
    }
    told = [f"{len(names)} {what} (first: {names[0]})" for what, names in problems.items() if names]
    if told:
        kind = type(network).__name__
        raise InputError(f"{path}: weights of another network than this {kind}: tensors {json.dumps(told)[1:-1]}")
    if not all(torch.isfinite(value).all() for value in state.values()):
        raise InputError(f"{path}: the weights hold values that are not finite; train again or fetch the file again")
