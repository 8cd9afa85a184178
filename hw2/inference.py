"""Networks for use without PyTorch: ONNX files, in float32 and int8, run by ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hw2 import views
from hw2.errors import InputError
from hw2.kernels import folded

#: normalised images, float32 (n, 3, 28, 28), as `views.normalise` makes them -> logits, float32 (n, 10)
Run = Callable[[np.ndarray], np.ndarray]


def export(network: nn.Module, path: Path) -> None:
    """An ONNX file: `images`, float32 (n, 3, 28, 28), to `logits`, float32 (n, 10), for any n.

    It computes what the network does in evaluation mode, to rounding; the network itself stays as it is. Raises
    `OSError` where the file cannot be written.
    """
    from onnxscript import ir

    program = torch.onnx.export(
        folded(network).cpu(),
        (torch.zeros(2, 3, 28, 28),),  # a batch of 1 would be taken for a constant
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: "n"},),
        verbose=False,
    )
    # The exporter notes a stack trace at every node: the folders of this machine, and 13 % of the file.
    ir.passes.common.ClearMetadataAndDocStringPass()(program.model)
    program.save(path)


def quantise(source: Path, target: Path, images: Tensor) -> None:
    """The network of `source`, a file of `export`'s, in int8; `target` may be the same path.

    Weights get a scale for each channel, activations one for each layer, from their range on `images`: uint8 training
    images (n, 28, 28).
    """
    from onnxruntime import quantization as ort

    batches = iter([{"images": views.normalise(part).numpy()} for part in images.split(100)])

    class Reader(ort.CalibrationDataReader):
        def get_next(self) -> dict | None:
            return next(batches, None)

    ort.quant_pre_process(source, target, skip_symbolic_shape=True)  # else the next line warns that it was left out
    # Weights in 7 bits: CPUs without VNNI add pairs of products in 16 bits, which 8 overflow (7 % fewer correct).
    ort.quantize_static(
        target, target, Reader(), activation_type=ort.QuantType.QUInt8, per_channel=True, reduce_range=True
    )


def session(path: Path, threads: int | None = None) -> Run:
    """An ONNX file as a function; it runs in as many threads as PyTorch does unless `threads` says otherwise.

    Raises `InputError` for what is no such file.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    try:
        loaded = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own classes have no common base but this
        raise InputError(f"{path}: no readable ONNX file ({error}); write it with `hw2 export`") from None
    names = [one.name for one in (*loaded.get_inputs(), *loaded.get_outputs())]
    if names != ["images", "logits"]:
        raise InputError(f"{path}: another ONNX network (its inputs and outputs: {', '.join(names)[:80]})")
    return lambda images: loaded.run(["logits"], {"images": images})[0]


def correct(run: Run, images: Tensor, labels: Tensor, batch: int = 500) -> int:
    """How many uint8 images (n, 28, 28) a session gives the class that `labels` (n,) say."""
    classes = [run(views.normalise(part).numpy()).argmax(1) for part in images.split(batch)]
    return int((np.concatenate(classes) == labels.numpy()).sum())
