"""The report and its figures: what is missing, strange or blackened is named, and drawn again."""

import io
import json
import shutil

import numpy as np
import pytest
from helpers import blacken, unlike_sums
from PIL import Image

from hw2 import grading
from hw2.data import PROJECT
from hw2.report import figures, plots
from hw2.report import write as report


@pytest.fixture
def written(tmp_path):
    """A copy of what is committed."""
    shutil.copytree(PROJECT / "figures", tmp_path / "figures")
    for name in ("report.md", "model_card.md", "submission.csv", "README.md"):
        shutil.copy(PROJECT / name, tmp_path / name)
    return tmp_path


def test_a_missing_and_a_strange_figure_are_named(written):
    (written / "figures/demo.png").rename(written / "figures/stranger.png")
    assert report.stale(written) == ["figures/demo.png: missing", "figures/stranger.png: no code draws this"]


def test_writing_makes_a_changed_output_right_again_and_leaves_right_ones_alone(written):
    before = (written / "report.md").stat().st_mtime_ns
    blacken(written / "figures/arms.png")
    report.write(written)
    assert report.stale(written) == []
    assert (written / "report.md").stat().st_mtime_ns == before


@pytest.mark.parametrize(("side", "seen"), [(8, True), (1, False)])
def test_pictures_may_differ_by_less_than_a_small_block(side, seen):
    def png(pixels):
        target = io.BytesIO()
        Image.fromarray(pixels).save(target, "png")
        return target.getvalue()

    white = np.full((100, 150, 3), 255, np.uint8)
    other = white.copy()
    other[50 : 50 + side, 70 : 70 + side] = 0
    assert bool(report.differing_blocks(png(white), png(other))) is seen


@pytest.mark.parametrize("name", plots.FIGURES)
def test_a_figure_is_drawn_from_nothing_but_its_stored_data(name):
    stored = json.loads((PROJECT / f"figures/{name}.json").read_text())
    drawn = figures.render(plots.FIGURES[name].draw(stored), "png")
    assert report.differing_blocks((PROJECT / f"figures/{name}.png").read_bytes(), drawn) == []


def test_every_figure_stands_in_the_report_with_its_alternative_text():
    text = (PROJECT / "report.md").read_text("utf-8")
    for name, plot in plots.FIGURES.items():
        assert f"![{plot.alt}](figures/{name}.png)" in text


def test_the_methods_are_brief():
    methods = grading.methods_section((PROJECT / "report.md").read_text("utf-8"))
    assert 100 < len(methods.split()) <= grading.WORDS


# As it was before any test: a stage that is asked for its run writes missing sums anew.
RECORDED = (PROJECT / "runs/SHA256SUMS").read_text()


def test_everything_under_runs_is_what_its_sum_says():
    assert (PROJECT / "runs/SHA256SUMS").read_text() == RECORDED
    assert unlike_sums() == []
    assert sum(path.stat().st_size for path in (PROJECT / "runs").rglob("*")) < 48 * 2**20  # two chains
