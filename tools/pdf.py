"""report.md as report.pdf: `python tools/pdf.py [FILE]`.

Pandoc makes Typst's markup, Typst sets the pages.
"""

import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from hw2.errors import InputError, told_in_a_line
from hw2.experiments.store import Store
from hw2.files import write_bytes
from hw2.report.write import output

STYLE = Path(__file__).with_name("report.typ")
WIDE = 850  # points of a figure that is as wide as the text: letters of all figures are of one size
FIGURE = re.compile(r"\]\(figures/(\w+)\.png\)(\n\n\*Figure .*\*)?")


def pdf(folder: Path) -> bytes:
    """The report in `folder`, with its figures as vector graphics.

    The same input gives the same bytes.

    Raises `InputError` where the report or a figure is missing, or the extra `pdf` is not
    installed.
    """
    try:
        import pypandoc
        import typst
    except ImportError as error:
        raise InputError(
            f"{error.name} is not installed; `make pdf` or `pip install '.[pdf]'` brings it"
        ) from None
    try:
        text = (folder / "report.md").read_text("utf-8")
        # Typst reads what lies under its root alone
        with TemporaryDirectory(dir=folder, prefix=".pdf-") as workspace:

            def vector(found: re.Match) -> str:
                path = folder / f"figures/{found[1]}.svg"
                points = float(re.search(r'width="([\d.]+)pt"', path.read_text("utf-8"))[1])
                return f"](../figures/{path.name}){{width={points / WIDE:.0%}}}"

            # Typst sets the captions, from the alternative texts, and keeps them with their
            # figures.
            body = pypandoc.convert_text(
                FIGURE.sub(vector, text),
                "typst",
                format="gfm+implicit_figures+attributes",
                extra_args=["--wrap=none", "--columns=10000"],  # columns as wide as they need
            )
            page = Path(workspace, "report.typ")
            page.write_text(STYLE.read_text("utf-8") + body, "utf-8")
            fonts = [STYLE.parent / "fonts"]
            return typst.compile(
                page, root=folder, font_paths=fonts, ignore_system_fonts=True, timestamp=0
            )
    except (OSError, ValueError, typst.TypstError) as error:
        raise InputError(
            f"{folder}/report.md: cannot be set ({error}); `hw2 report` writes it"
        ) from None


def main() -> None:
    folder = output(Store().profile)
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else folder / "report.pdf"
    write_bytes(path, pdf(folder))
    print(path)


if __name__ == "__main__":
    with told_in_a_line():
        main()
