"""Notebook 04: the delivered network at work on test images and on pictures of one's own."""

import io

import torch
from matplotlib.figure import Figure
from PIL import Image, ImageOps
from torch import Tensor, nn

import hw2
from hw2 import pictures
from hw2.data import CLASSES
from hw2.report.source import Source
from hw2.report.style import GREEN, VERMILION, panels, plot
from hw2.training import exact_logits, logits_of


def draw_predictions(network: nn.Module, images: Tensor, labels: Tensor) -> Figure:
    """Ten images (10, 28, 28) under their true classes, with the likeliest classes."""
    probabilities = pictures.probabilities(network, images).tolist()
    listed = []
    for label, values in zip(labels.tolist(), probabilities, strict=True):
        order = sorted(range(len(CLASSES)), key=lambda each: -values[each])
        listed.append(order[:3] + [label] * (label not in order[:3]))
    bars = max(map(len, listed))
    figure, grid = panels((9, 3.4 + 0.36 * bars), 4, 5, height_ratios=(6, bars) * 2)
    for ax, image, label in zip(grid[::2].flat, images.numpy(), labels.tolist(), strict=True):
        # dark where the data set is bright
        ax.imshow(image, cmap="gray_r", vmin=0, vmax=255, interpolation="nearest")
        ax.set_title(CLASSES[label], fontsize=8)
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
        ax.spines[:].set(visible=True, color="#cccccc")
    cells = zip(grid[1::2].flat, listed, labels.tolist(), probabilities, strict=True)
    for ax, classes, label, values in cells:
        for place, each in enumerate(classes):
            colour = GREEN if each == label else VERMILION
            ax.barh(place, 1, 0.8, color=colour, alpha=0.12)
            ax.barh(place, values[each], 0.8, color=colour, alpha=0.5)
            words = f"{CLASSES[each]} {values[each]:.0%}"
            ax.text(0.02, place, words, fontsize=7.5, va="center")
        ax.set(xlim=(0, 1), ylim=(bars - 0.5, -0.5))
        ax.axis("off")
    return figure


def _draw(rows: Tensor, source: Source) -> Figure:
    shown = source.fashion.test_images[rows]
    return draw_predictions(source.delivered.network(), shown, source.fashion.test_labels[rows])


@plot(
    "A test image of each class under its true class, and the three likeliest classes. Green: "
    "the true class.",
)
def demo(source: Source) -> Figure:
    labels = source.fashion.test_labels
    firsts = [(labels == label).nonzero()[0, 0] for label in range(len(CLASSES))]
    return _draw(torch.stack(firsts), source)


@plot(
    "The ten mistakes on the test set with the lowest probability of the true class. Above: the "
    "true class. Below: the three likeliest classes, then the true one (green).",
)
def mistakes(source: Source) -> Figure:
    labels = source.fashion.test_labels
    network = source.delivered.network()
    rows = (source.answers(source.delivered) != labels).nonzero().flatten()
    # exact ones are slow: they settle the order of a few
    for count, logits in ((40, logits_of), (10, exact_logits)):
        probabilities = logits(network, source.fashion.test_images[rows]).softmax(1)
        true = probabilities[torch.arange(len(rows)), labels[rows]]
        rows = rows[true.argsort(stable=True)[:count]]
    return _draw(rows, source)


def upload() -> None:
    """A button that takes a picture of one's own and shows its classes; for a live kernel."""
    import ipywidgets
    from IPython.display import display

    button = ipywidgets.FileUpload(accept="image/*")
    shown = ipywidgets.Output()

    @shown.capture(clear_output=True)
    def predict(change: dict) -> None:
        for uploaded in button.value:  # none once the upload is cleared
            file = io.BytesIO(uploaded.content)
            file.name = uploaded.name  # for the line that tells of a file that is no picture
            likeliest = list(hw2.predict(file).items())[:3]
            picture = ImageOps.exif_transpose(Image.open(file))
            display(picture, {name: f"{value:.1%}" for name, value in likeliest})

    button.observe(predict, "value")
    display(button, shown)
