"""The report and its figures: what is missing, strange or blackened is named, and drawn again."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from helpers import blacken, contents, edit
from matplotlib.figure import Figure

from hw2 import data, grading, report
from hw2.data import PROJECT
from hw2.errors import InputError
from hw2.experiments import catalogue, ledger, plan, store
from hw2.experiments.run import root
from hw2.experiments.store import Store
from hw2.files import read_csv, read_json, write_bytes, write_json
from hw2.report import findings, style, write
from hw2.report.statistics import Difference
from tools import pdf


@pytest.fixture
def project(walk_done, no_training):
    """A project in which the walk of smoke was done, with what the report takes from elsewhere."""
    shutil.copytree(PROJECT / "notebooks", walk_done / "notebooks")
    shutil.copy(PROJECT / "README.md", walk_done)
    return walk_done


def test_all_is_written_and_what_is_changed_is_named_and_made_right_again(
    project, tmp_path, monkeypatch
):
    before, source = contents(root("smoke")), Store("smoke")
    monkeypatch.setattr(style, "files", partial(style.files, kinds=("png",)))
    made = write.made(source)  # once: drawing takes long
    monkeypatch.setattr(write, "made", lambda source: made)
    out = write.write("smoke", tmp_path / "out")
    assert write.stale("smoke", out) == []
    text = (out / "report.md").read_text("utf-8")
    shown = re.findall(r"!\[(.*)\]\(figures/(\w+)\.png\)\n\n\*Figure (\d+)\. (.*)\*\n", text)
    numbers = [number for _, _, number, _ in shown]
    assert numbers == [str(number) for number in range(1, len(shown) + 1)] and 6 <= len(shown) <= 10
    assert numbers == sorted(set(re.findall(r"(?<!\*)Figure (\d+)", text)))
    assert all(alt == caption == report.FIGURES[name].alt for alt, name, _, caption in shown)
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda part: shown.append(part.data))
    report.show("demo", profile="smoke")
    png = (out / "figures/demo.png").read_bytes()
    assert shown == [report.picture(png, report.FIGURES["demo"].alt)]
    bags = ledger.answers(source.delivered)[data.fashion_mnist().test_labels == 8]
    share = (bags == 8).double().mean()
    assert f", Bag {share:.1%}, Ankle boot" in (out / "model_card.md").read_text("utf-8")
    submission = grading.submission_text(ledger.answers(source.delivered))
    assert (out / "submission.csv").read_bytes() == submission.encode()

    untouched = (out / "report.md").stat().st_mtime_ns
    blacken(out / "figures/frontier.png")
    (out / "figures/demo.png").rename(out / "figures/stranger.png")
    (out / "submission.csv").write_bytes(made["submission.csv"].replace(b"\n", b"\r\n"))
    problems = write.stale("smoke", out)
    files = ["figures/demo.png", "figures/frontier.png", "figures/stranger.png", "submission.csv"]
    assert sorted(line.partition(":")[0] for line in problems) == files
    assert "submission.csv: only its line ends differ; save it with LF" in problems
    write.write("smoke", out)
    assert write.stale("smoke", out) == ["figures/stranger.png: no code draws this"]
    assert (out / "report.md").stat().st_mtime_ns == untouched
    assert contents(root("smoke")) == before


def test_a_drawn_figure_is_shown_with_its_alternative_text_or_not_at_all(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda part: shown.append(part.data))
    report.show(Figure(), 'a "line"')
    assert 'alt="a &quot;line&quot;" src="data:image/png;base64,iVBOR' in shown[0]
    with pytest.raises(InputError, match="without a caption"):
        report.show(Figure())


def test_a_new_arm_is_in_list_walk_table_and_figure_by_its_row_alone(project, monkeypatch):
    new = catalogue.arm("an arm of the test's", "is it shown?", teacher=None, setting=None)
    monkeypatch.setitem(catalogue.EXPERIMENTS, "tested", new)
    runs = Store.runs
    as_labels = {"tested": "labels"}
    monkeypatch.setattr(Store, "runs", lambda self, name: runs(self, as_labels.get(name, name)))
    assert new.words in catalogue.listing("smoke") and ("tested", 2) in plan.tasks("smoke")
    assert new.words in report.table("arms")["what it is"].to_list()
    (ax,) = report.FIGURES["arm_differences"].draw(Store()).axes
    assert new.words in [label.get_text() for label in ax.get_yticklabels()]


def test_what_delivery_brings_is_asked_for_by_its_command(project):
    """A process that delivered may have been killed after it had named the network."""
    for name in ("test_correct", "test_total"):
        edit(Store().delivered.folder / "metrics.json", name, lambda _: None)
    (root("smoke") / "test_ledger.csv").unlink()
    before = contents(root("smoke"))
    with pytest.raises(InputError, match="its test set was not read; `hw2 deliver` reads it"):
        write.texts(Store())
    assert contents(root("smoke")) == before


def test_hours_are_booked_to_the_machines_that_took_them(project):
    path = Store().search_folder / "trials.csv"
    rows = read_csv(path, store.TRIALS, words=("device", "hardware"))
    rows["processor_s"] = 3600.0
    rows.loc[0, ["processor_s", "device", "hardware"]] = 7200.0, "cuda", "an accelerator"
    rows.to_csv(path, index=False)
    path = Store().require("teacher").folder / "environment.json"
    first = read_json(path) | {"hardware": "an older processor"}
    later = {"epochs_done": 1, "environment": first | {"hardware": "a newer one"}}
    write_json(path, first | {"resumed": [later, later]})
    told = write._time(Store())
    search = {row["on"].partition(",")[0]: row for row in told if row["trained"] == "search"}
    (teacher,) = (row["on"] for row in told if row["trained"] == "teacher")
    here = Store().delivered.environment["hardware"]
    accelerator = search["an accelerator"]
    assert (accelerator["core hours"], accelerator["runs"]) == (2, 1)
    assert search[here]["core hours"] == search[here]["runs"] == len(rows) - 1
    assert re.fullmatch(r"an older processor, [^;]*; a newer one, [^;]*", teacher)
    sums = {row["on"]: row["runs"] for row in told if row["trained"] == "in all"}
    assert sums[accelerator["on"]] == sums[teacher] == 1
    hardware = f"processor hours on an older processor and a newer one and {here}."
    assert hardware in write.texts(Store())["docs/training.md"]


MARKED = b"above\n<!-- result -->\nold\n<!-- /result -->\nbelow\n"
UNMARKED = {
    "no mark": MARKED.replace(b"<!-- result -->\n", b""),
    "no closing mark": MARKED.replace(b"/", b""),
    "both twice": MARKED + MARKED,
    "empty": b"",
    "latin-1": MARKED + b"\xe9",
}


def test_a_readme_gets_its_result_between_its_marks(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "PROJECT", tmp_path)
    for content in (MARKED, MARKED.replace(b"old\n", b"")):
        write_bytes(tmp_path / "README.md", content)
        assert write._readme("new\n") == MARKED.replace(b"old", b"new").decode()


@pytest.mark.parametrize("content", UNMARKED.values(), ids=UNMARKED)
def test_a_readme_without_its_marks_is_told_in_a_line(tmp_path, monkeypatch, content):
    monkeypatch.setattr(data, "PROJECT", tmp_path)
    write_bytes(tmp_path / "README.md", content)
    with pytest.raises(InputError, match=r"README\.md: no readable text with the marks .*\(.+\); "):
        write._readme("new\n")


def test_readme_and_report_claim_no_more_than_the_corrected_test_shows(project, monkeypatch):
    """An interval that excludes 0, and a p that Holm's correction takes over 5%."""
    found = Difference(-0.25, -0.46, -0.04, 0.09, 0.4)
    monkeypatch.setattr(findings, "compare", lambda *pair: found)
    path = Store().require("scratch").folder / "environment.json"
    edit(path, "hardware", lambda _: "another processor")
    texts = write.texts(Store())
    for text in (texts["README.md"], texts["report.md"]):
        assert (
            "-0.25 (-0.46 to -0.04, p = 0.090: not detected; detectable: 0.40) on validation"
            in text
        )
        assert "Besides, the two differ in hardware." in text
        assert findings.CAVEAT in text


def test_pages_tell_older_readings_of_the_test_set_as_the_ledger_has_them():
    rows = ledger.ledger("full")
    older = rows[rows.run.str.contains("/cpu-")]
    pages = ("docs/ledger.md", "README.md", "report.md")
    page, readme, text = (" ".join((PROJECT / name).read_text("utf-8").split()) for name in pages)
    again = older.correct[older.run == "compressed/cpu-s0"]
    assert len(again) == 3
    for correct in again:
        assert f"% | {correct / 100:.2f}% |" in page
    assert f"{len(older)} readings of an older profile" in readme
    told = f"has {len(rows)} readings of the test set. {len(older)} of them are of an older profile"
    assert told in text
    for words in (page, readme, text):
        assert "cannot be shown that no test image entered a choice" in words


@pytest.mark.parametrize("name", ["results", "arms", "phases"])
def test_a_table_reads_each_json_file_once(monkeypatch, name):
    read = Path.read_bytes
    paths = []
    monkeypatch.setattr(Path, "read_bytes", lambda path: paths.append(path) or read(path))
    report.table(name)
    counts = Counter(path for path in paths if path.suffix == ".json")
    assert len(counts) > 15 and set(counts.values()) == {1}


def test_one_figure_alone_is_written(walk_done, tmp_path):
    paths = write.write_figure("tuning", "smoke", tmp_path / "one")
    assert sorted(path.name for path in paths) == ["tuning.png", "tuning.svg"]
    assert all(path.read_bytes() for path in paths)
    with pytest.raises(InputError, match="tuning"):
        write.write_figure("stranger", "smoke", tmp_path)


def test_a_figure_follows_no_setting_of_the_users(tmp_path):
    (tmp_path / "matplotlibrc").write_text("savefig.dpi: 300\nfont.size: 30\nwrong\n")
    folders = {"MATPLOTLIBRC": str(tmp_path), "MPLCONFIGDIR": "/proc/nowhere", "HOME": "/proc/no"}

    def figure(**more):
        words = [sys.executable, "-m", "hw2", "figure", "frontier", "--out", tmp_path]
        told = os.environ | folders | more
        return subprocess.run(words, env=told, cwd=PROJECT, capture_output=True, text=True)

    done = figure(MPLBACKEND="nosuch")
    assert done.returncode == 2 and "hw2: matplotlib: " in done.stderr.splitlines()[-1]
    assert figure().returncode == 0
    committed = PROJECT / "figures/frontier.png"
    assert (tmp_path / "frontier.png").read_bytes() == committed.read_bytes()


@pytest.mark.weekly
def test_the_pdf_is_the_same_each_time_and_what_it_lacks_is_told(tmp_path):
    first, second = pdf.pdf(PROJECT), pdf.pdf(PROJECT)
    assert first == second and first.startswith(b"%PDF-")
    assert first.count(b"NotoSerifCJK") > 0  # the name's characters are embedded
    with pytest.raises(InputError, match=r"report\.md: cannot be set .*; `hw2 report` writes it"):
        pdf.pdf(tmp_path)
    for content, told in ((b"![none](figures/none.png)", r"none\.svg"), (b"\xe9", "decode")):
        (tmp_path / "report.md").write_bytes(content)
        with pytest.raises(InputError, match=rf"report\.md: cannot be set .*{told}"):
            pdf.pdf(tmp_path)
