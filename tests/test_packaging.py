"""What installs: pins agree with one another, imports are declared, and the README's commands exist."""

import re
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name as name_of

from hw2 import cli
from hw2.data import PROJECT

LINES = [line for line in (PROJECT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
PINS = {name_of(requirement.name): requirement for requirement in map(Requirement, LINES)}
META = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
EXTRAS = META["optional-dependencies"]
DIRECT = [Requirement(text) for text in META["dependencies"] + EXTRAS["test"]]


def version(requirement):
    (specifier,) = requirement.specifier
    assert specifier.operator == "==" and "*" not in specifier.version, requirement
    return specifier.version


@pytest.mark.parametrize(
    "requirement", [*DIRECT, *map(Requirement, EXTRAS["pdf"])], ids=lambda requirement: requirement.name
)
def test_a_dependency_is_pinned_within_its_bound(requirement):
    assert version(PINS[name_of(requirement.name)]) in requirement.specifier


def test_every_pin_is_exact_and_what_exists_for_linux_alone_carries_a_marker():
    assert len(PINS) > 100
    for name, pin in PINS.items():
        assert version(pin)
        if name == "triton" or name.startswith(("nvidia-", "cuda-")):
            assert str(pin.marker) == 'sys_platform == "linux"', name


def test_environment_yml_has_the_same_pins_and_the_citation_this_version():
    *conda, pip = yaml.safe_load((PROJECT / "environment.yml").read_text())["dependencies"]
    python, *torch, last = conda
    assert [python, last, pip["pip"].pop()] == ["python=3.11", "pip", "-e ."]
    builds = {name.removeprefix("py"): (number, build) for name, number, build in (one.split("=") for one in torch)}
    assert builds.keys() == {"torch", "torchvision"} and {build for _, build in builds.values()} == {"cpu*"}
    found = {name: number for name, (number, _) in builds.items()}
    found |= {name_of(pin.name): version(pin) for pin in map(Requirement, pip["pip"])}
    assert found == {name_of(one.name): version(PINS[name_of(one.name)]) for one in DIRECT}
    assert yaml.safe_load((PROJECT / "CITATION.cff").read_text())["version"] == META["version"]


def test_what_is_imported_is_declared():
    source = "".join(path.read_text("utf-8") for top in ("hw2", "tests") for path in (PROJECT / top).rglob("*.py"))
    owners, found = packages_distributions(), set(re.findall(r"^ *(?:import|from) (\w+)", source, re.MULTILINE))
    needed = {name_of(owners[name][0]) for name in found - sys.stdlib_module_names if name in owners}
    declared = [*DIRECT, *map(Requirement, EXTRAS["weekly"] + EXTRAS["pdf"])]
    assert needed - {name_of(one.name) for one in declared} <= {"hw2-compression"}


def test_the_readmes_commands_exist():
    readme, makefile = (PROJECT / "README.md").read_text("utf-8"), (PROJECT / "Makefile").read_text()
    assert set(re.findall(r"\bmake ([a-z]+)[`\n]", readme)) <= set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    commands = {command.name or command.callback.__name__ for command in cli.app.registered_commands}
    assert set(re.findall(r"`hw2 ([a-z]+)", readme)) <= commands
