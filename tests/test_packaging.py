"""What installs and what is read: pins agree, imports are declared, README's commands exist,
sentences are short.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name as name_of

from hw2 import cli
from hw2.data import PROJECT
from tools import notebooks

LINES = re.findall(r"^[^#\n].*", (PROJECT / "requirements.txt").read_text(), re.MULTILINE)
PINS = {name_of(requirement.name): requirement for requirement in map(Requirement, LINES)}
META = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
EXTRAS = META["optional-dependencies"]
DIRECT = [Requirement(text) for text in META["dependencies"] + EXTRAS["make"] + EXTRAS["test"]]
#: a shell's environment, though make may call these tests
OUTSIDE = {name: os.environ[name] for name in os.environ if not name.startswith("MAKE")}


def version(requirement):
    (specifier,) = requirement.specifier
    assert specifier.operator == "==" and "*" not in specifier.version, requirement
    return specifier.version


def test_every_pin_is_exact_and_within_its_bound_and_what_exists_for_linux_alone_carries_a_marker():
    for requirement in (*DIRECT, *map(Requirement, EXTRAS["pdf"])):
        assert version(PINS[name_of(requirement.name)]) in requirement.specifier, requirement
    assert len(PINS) > 100 and len(META["dependencies"]) <= 20
    for name, pin in PINS.items():
        assert version(pin)
        if name == "triton" or name.startswith(("nvidia-", "cuda-")):
            assert str(pin.marker) == 'sys_platform == "linux"', name


def test_environment_yml_has_the_same_pins_and_the_citation_this_version():
    *conda, pip = yaml.safe_load((PROJECT / "environment.yml").read_text())["dependencies"]
    python, *torch, last = conda
    assert [python, last, pip["pip"].pop()] == ["python=3.11", "pip", "-e ."]
    builds = [one.removeprefix("py").split("=") for one in torch]
    assert [(name, build) for name, _, build in builds] == [
        ("torch", "cpu*"), ("torchvision", "cpu*"),
    ]  # fmt: skip
    found = {name: number for name, number, _ in builds}
    found |= {name_of(pin.name): version(pin) for pin in map(Requirement, pip["pip"])}
    assert found == {name_of(one.name): version(PINS[name_of(one.name)]) for one in DIRECT}
    assert yaml.safe_load((PROJECT / "CITATION.cff").read_text())["version"] == META["version"]


def modules(path):
    """The modules that a file imports, at its top or inside its functions."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_what_is_imported_is_declared():
    folders = (PROJECT / name for name in ("hw2", "tools", "tests"))
    paths = [path for folder in folders for path in folder.rglob("*.py")]
    found = {name.partition(".")[0] for path in paths for name in modules(path)}
    owners = packages_distributions()
    outside = (found - sys.stdlib_module_names) & owners.keys()
    declared = [*DIRECT, *map(Requirement, EXTRAS["weekly"] + EXTRAS["pdf"])]
    needed = {name_of(owners[name][0]) for name in outside}
    assert needed - {name_of(one.name) for one in declared} <= {"hw2-compression"}


#: file or folder of hw2/ -> what it must not import; a file that is not named is of the method
ABOVE = {
    "__init__.py": [],
    "__main__.py": [],
    "cli.py": [],
    "grading.py": ["hw2.report", "hw2.cli"],
    "report": ["hw2.cli"],
    "experiments": ["hw2.report", "hw2.grading", "hw2.cli"],
}
METHOD = ["hw2.experiments", "hw2.report", "hw2.grading", "hw2.cli"]
NOT_INSTALLED = ["tools", "tests"]


def test_imports_run_one_way():
    for path in (PROJECT / "hw2").rglob("*.py"):
        above = ABOVE.get(path.relative_to(PROJECT / "hw2").parts[0], METHOD)
        for name in modules(path):
            wrong = [one for one in above + NOT_INSTALLED if f"{name}.".startswith(f"{one}.")]
            assert wrong == [], path.name


def test_the_readmes_commands_exist():
    pages = ("README.md", "docs/use.md")
    readme = "".join((PROJECT / name).read_text("utf-8") for name in pages)
    targets = re.findall(r"^([a-z]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"\bmake ([a-z]+)[`\n]", readme)) <= set(targets)
    commands = {command.callback.__name__ for command in cli.app.registered_commands}
    assert set(re.findall(r"`hw2 ([a-z]+)", readme)) <= commands


def test_a_folder_named_hw2_does_not_hide_the_package(tmp_path):
    (tmp_path / "hw2").mkdir()  # as of a clone, seen from the folder above it
    environment = OUTSIDE | {"PYTHONPATH": ""}
    command = [sys.executable, "-c", "import hw2; print(hw2.__file__)"]
    printed = subprocess.check_output(command, cwd=tmp_path, env=environment, text=True)
    assert printed == f"{PROJECT}/hw2/__init__.py\n"


@pytest.fixture
def installed(tmp_path):
    """A project in which make has nothing to install: its .venv holds a path to it, as an editable
    install does.
    """
    project = tmp_path / "project"
    (project / "hw2").mkdir(parents=True)
    (project / "hw2/__init__.py").touch()
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(PROJECT / name, project)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", project / ".venv"], check=True)
    (packages,) = project.glob(".venv/lib/python*/site-packages")
    (packages / "hw2.pth").write_text(str(project))
    (project / ".venv/.ready").touch()
    assert not remade(project)
    return project


def remade(project):
    """Whether `make setup` would make .venv from nothing."""
    words = ["make", "--dry-run", "setup"]
    printed = subprocess.check_output(words, cwd=project, env=OUTSIDE, text=True)
    removed = "rm -rf .venv\n" in printed
    assert removed == ("-m venv .venv\n" in printed)
    return removed


def test_make_makes_a_venv_again_that_was_copied_or_moved_or_lost_its_python(installed, tmp_path):
    assert remade(shutil.copytree(installed, tmp_path / "copy", symlinks=True))
    (tmp_path / "link").symlink_to(installed)
    assert not remade(tmp_path / "link")
    moved = installed.rename(tmp_path / "moved")
    assert remade(moved)
    moved.rename(installed)
    assert not remade(installed)
    for path in installed.glob(".venv/bin/python*"):
        path.unlink()
    assert remade(installed)


def test_continuous_integration_tests_the_project_that_it_lies_in(tmp_path):
    for folder in (tmp_path, tmp_path / "other"):
        shutil.copytree(PROJECT / ".ci", folder / ".ci")
        (folder / "Makefile").write_text("test:\n\t@echo $(CURDIR)\n")
    environment = OUTSIDE | {"CDPATH": str(tmp_path / "other")}
    printed = subprocess.check_output(".ci/run", cwd=tmp_path, env=environment, text=True)
    assert printed == f"{tmp_path}\n"


LONGEST = 25  # words of a sentence
CODE = r"```.*?```|<!--.*?-->|\$\$.*?\$\$|<[^>]+>|^[#|].*$"  # and tables and headings


def prose(path):
    """The text of a page or notebook, less code, tables, headings, formulas and addresses."""
    text = path.read_text("utf-8")
    if path.suffix == ".ipynb":
        cells = nbformat.reads(text, as_version=4).cells
        text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    text = re.sub(CODE, "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`]*`|\$[^$]*\$", "X", re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text))


def sentences(text):
    for block in re.split(r"\n\s*\n|\n\s*(?:[-*]|\d+\.)\s", text):
        yield from re.split(r"(?<=[.!?])\s+(?=[A-Z\"(])", " ".join(block.split()))


def words(sentence):
    return len(re.findall(r"[\w%'’.,+-]*\w", sentence))


def test_sentences_are_short():
    text = "One two. " + "Word " * 31 + "end.\n\n- A B `c d` e."
    assert [words(one) for one in sentences(text)] == [2, 32, 5]
    for path in (*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md"), *notebooks.paths()):
        long = [one for one in sentences(prose(path)) if words(one) > LONGEST]
        assert long == [], path.name
