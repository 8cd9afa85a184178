"""ResNet-14 with any widths, the ResNet-50 teacher, and how their weights are kept.

ResNet-14 is the small-image ResNet of He et al. (2016) with two basic blocks a stage, at SimKD's
widths 16/32/64.
"""

import re
import warnings
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from hw2.assignment import WIDTHS
from hw2.data import CLASSES
from hw2.errors import InputError
from hw2.files import errors_naming, write_bytes

KEYS = ("model_state_dict", "state_dict")  # where a checkpoint may keep the weights
WRAPPERS = r"^((module|_orig_mod|resnet50)\.)+"  # what wrappers put before the layers' names


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
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
            )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        # The shortcut's stride is taken before its convolution. That is the same function as a
        # strided 1x1 convolution, whose backward pass writes outside its memory for odd widths in
        # channels_last on a CPU (torch 2.15).
        if self.stride > 1:
            x = functional.avg_pool2d(x, 1, self.stride)
        return self.relu(out + self.shortcut(x))


class ResNet14(nn.Module):
    """(n, 3, 28, 28) to logits (n, 10). `widths`: channels of the stem and of the three stages."""

    def __init__(self, widths: tuple[int, int, int, int] = WIDTHS):
        super().__init__()
        inputs, *stages = widths
        self.conv1 = nn.Conv2d(3, inputs, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu = nn.ReLU(inplace=True)
        for number, (outputs, stride) in enumerate(zip(stages, (1, 2, 2), strict=True), start=1):
            blocks = nn.Sequential(
                BasicBlock(inputs, outputs, stride), BasicBlock(outputs, outputs, 1)
            )
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

    `stem="stride1"` takes the stride from `conv1`: 14 x 14 and not 7 x 7 pixels enter the blocks,
    for 299 and not 80 million multiply-adds. Residual branches start at zero (Goyal et al. 2017).
    """
    if stem not in ("imagenet", "stride1"):
        raise InputError(f"stem {stem!r}: expected 'imagenet' or 'stride1'")
    from torchvision.models import resnet50  # slow to import, and only the teacher needs it

    network = resnet50(num_classes=len(CLASSES), zero_init_residual=True)
    if stem == "stride1":
        network.conv1.stride = (1, 1)
    return network


def count_parameters(network: nn.Module) -> int:
    """Trained numbers; BatchNorm's running statistics are none."""
    return sum(parameter.numel() for parameter in network.parameters())


def save(network: nn.Module, path: Path) -> None:
    """Weights as safetensors; a ResNet-14's widths go into the metadata, for `load`."""
    metadata = {}
    if isinstance(network, ResNet14):
        metadata["widths"] = ",".join(map(str, network.widths))
    state = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
    write_bytes(Path(path), safetensors.torch.save(state, metadata))


def load(path: Path | str) -> ResNet14:
    """A ResNet-14 from `save`'s file, in evaluation mode. Raises `InputError` for anything else."""
    metadata, state = _read(path)
    return _filled(lambda: ResNet14(tuple(map(int, metadata["widths"].split(",")))), state, path)


def load_teacher(path: Path | str, stem: str) -> nn.Module:
    """A teacher from `save`'s file, in evaluation mode. Raises `InputError` for anything else."""
    return _filled(lambda: teacher(stem), _read(path)[1], path)


class _Ignored:
    """Stands for a NumPy scalar in a pickle, so that none of NumPy's code runs."""

    def __init__(self, *arguments):
        pass

    __setstate__ = __init__


#: what NumPy's scalars are pickled by; checkpoints hold them, such as a best accuracy
NUMPYS = ("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")


def load_course_teacher(path: Path | str) -> nn.Module:
    """The course's `resnet-50.pth` as a network, read without running code that the file may hold.

    It is a dict whose `model_state_dict` holds torchvision's names under the prefix `resnet50.`.
    The key `state_dict`, a bare dict of tensors, and the prefixes of PyTorch's wrappers are taken
    as well. Raises `InputError`.
    """
    known = torch.serialization.safe_globals([(_Ignored, name) for name in NUMPYS])
    try:
        with warnings.catch_warnings(), known:
            warnings.simplefilter("ignore")  # about pickle protocols
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler met, with unsafe advice
        match = re.search(r"GLOBAL (\S+)", str(error))
        held = f"it holds {match[1]}, save the `state_dict()` alone" if match else ""
        reason = held or "missing or damaged"
        expected = "expected a dict of tensors by torch.save"
        raise InputError(f"{path}: not loaded ({reason}); {expected}") from None
    if isinstance(state, dict):
        state = next((state[key] for key in KEYS if key in state), state)
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        expected = f"expected a dict of tensors, bare or under {' or '.join(KEYS)}"
        raise InputError(f"{path}: no weights; {expected}")
    state = {re.sub(WRAPPERS, "", name): value for name, value in state.items()}
    return _filled(teacher, state, path)


def _read(path: Path | str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a safetensors file."""
    remedy = "expected a safetensors file by `hw2 train`"
    told = errors_naming(path, "weights", remedy, (OSError, safetensors.SafetensorError))
    with told, safetensors.safe_open(path, "pt") as file:
        names = file.keys()
        return file.metadata() or {}, {name: file.get_tensor(name) for name in names}


def _filled(make: Callable[[], nn.Module], state: dict[str, Tensor], path: Path | str) -> nn.Module:
    """The network that `make` makes, with the weights `state` of the file `path`.

    It is of float32, on the CPU and in evaluation mode, whatever torch's defaults are.
    Torch's random numbers go on as if nothing had been loaded.
    """
    # torch raises whatever the widths, the names, the shapes or the kinds of values met.
    with errors_naming(path, "weights", "they are of another network", Exception):
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            network = make().float()
        network.load_state_dict(state)
    if not all(value.isfinite().all() for value in network.state_dict().values()):
        raise InputError(f"{path}: the weights hold values that are not finite")
    variances = [value for name, value in network.named_buffers() if name.endswith("running_var")]
    if any((value < 0).any() for value in variances):
        raise InputError(f"{path}: the weights hold a negative variance, which no training leaves")
    return network.eval()
