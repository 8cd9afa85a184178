"""Notebook 04: the delivered network at work on test images and on pictures of one's own."""

import io

import torch
from matplotlib.figure import Figure
from PIL import Image, ImageOps
from torch import Tensor

import hw2
from hw2 import pictures
from hw2.data import CLASSES
from hw2.report.source import Source
from hw2.report.statistics import rounded
from hw2.report.style import GREEN, VERMILION, images, panels, plot
from hw2.training import exact_logits, logits_of


def draw_predictions(data: dict) -> Figure:
    listed = []
    for true, values in zip(data["true"], data["probabilities"], strict=True):
        order = sorted(range(len(CLASSES)), key=lambda label: -values[label])
        listed.append(order[:3] + [true] * (true not in order[:3]))
    bars = max(map(len, listed))
    figure, grid = panels((9, 3.4 + 0.36 * bars), 4, 5, height_ratios=(6, bars) * 2)
    images(grid[::2].flat, data["images"], [CLASSES[true] for true in data["true"]])
    cells = zip(grid[1::2].flat, listed, data["true"], data["probabilities"], strict=True)
    for ax, labels, true, values in cells:
        for place, label in enumerate(labels):
            colour = GREEN if label == true else VERMILION
            ax.barh(place, 1, 0.8, color=colour, alpha=0.12)
            ax.barh(place, values[label], 0.8, color=colour, alpha=0.5)
            words = f"{CLASSES[label]} {values[label]:.0%}"
            ax.text(0.02, place, words, fontsize=7.5, va="center")
        ax.set(xlim=(0, 1), ylim=(bars - 0.5, -0.5))
        ax.axis("off")
    return figure


def _shown(rows: Tensor, source: Source) -> dict:
    """images, true (class numbers), probabilities (image, class) of some test images, by the
    delivered network.
    """
    shown, true = source.fashion.test_images[rows], source.fashion.test_labels[rows]
    values = rounded(pictures.probabilities(source.delivered.network(), shown))
    return {"images": shown.tolist(), "true": true.tolist(), "probabilities": values}


@plot(
    draw_predictions,
    "A test image of each class under its true class, and the three likeliest classes. Green: "
    "the true class.",
)
def demo(source: Source) -> dict:
    labels = source.fashion.test_labels
    return _shown(
        torch.stack([(labels == label).nonzero()[0, 0] for label in range(len(CLASSES))]), source
    )


@plot(
    draw_predictions,
    "The ten mistakes on the test set with the lowest probability of the true class. Above: the "
    "true class. Below: the three likeliest classes, then the true one (green).",
)
def mistakes(source: Source) -> dict:
    images, labels, network = (
        source.fashion.test_images,
        source.fashion.test_labels,
        source.delivered.network(),
    )
    rows = (source.answers(source.delivered) != labels).nonzero().flatten()
    # exact ones are slow: they settle the order of a few
    for count, logits in ((40, logits_of), (10, exact_logits)):
        true = logits(network, images[rows]).softmax(1)[torch.arange(len(rows)), labels[rows]]
        rows = rows[true.argsort(stable=True)[:count]]
    return _shown(rows, source)


def upload() -> None:
    """A button that takes a picture of one's own and shows its classes; for a live kernel."""
    import ipywidgets
    from IPython.display import display

    button, shown = ipywidgets.FileUpload(accept="image/*"), ipywidgets.Output()

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
