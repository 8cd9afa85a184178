"""What installs: pins agree with one another, and the README's commands exist."""

import re
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hw2.data import PROJECT

PINS = {
    canonicalize_name(requirement.name): requirement
    for line in (PROJECT / "requirements.txt").read_text().splitlines()
    if line and not line.startswith("#")
    for requirement in [Requirement(line)]
}
META = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
DIRECT = [Requirement(text) for text in META["dependencies"] + META["optional-dependencies"]["test"]]


def version(requirement):
    (specifier,) = requirement.specifier
    assert specifier.operator == "==" and "*" not in specifier.version, requirement
    return specifier.version


def test_every_pin_is_exact():
    assert len(PINS) > 100
    for pin in PINS.values():
        assert version(pin)


@pytest.mark.parametrize("requirement", DIRECT, ids=lambda requirement: requirement.name)
def test_a_dependency_is_pinned_within_its_bound(requirement):
    assert version(PINS[canonicalize_name(requirement.name)]) in requirement.specifier


def test_environment_yml_has_the_same_pins():
    *conda, pip = yaml.safe_load((PROJECT / "environment.yml").read_text())["dependencies"]
    assert conda == ["python=3.11", "pip"]
    *pins, project = pip["pip"]
    assert project == "-e ."
    found = {canonicalize_name(Requirement(pin).name): version(Requirement(pin)) for pin in pins}
    assert found == {name: version(PINS[name]) for name in (canonicalize_name(one.name) for one in DIRECT)}


def test_what_exists_for_linux_alone_carries_a_marker():
    for name, pin in PINS.items():
        if name == "triton" or name.startswith(("nvidia-", "cuda-")):
            assert str(pin.marker) == 'sys_platform == "linux"', name


def test_the_readme_gives_two_commands_that_exist_and_ci_runs_the_test():
    readme = (PROJECT / "README.md").read_text("utf-8")
    assert "```\nmake report\nmake test\n```" in readme
    targets = re.findall(r"^([a-z]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    for target in set(re.findall(r"\bmake ([a-z]+)", readme)):
        assert target in targets
    for path in (".ci/run", ".github/workflows/test.yml"):
        assert "make test" in (PROJECT / path).read_text()


def test_the_citation_is_valid_yaml_and_names_this_version():
    citation = yaml.safe_load((PROJECT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0" and citation["version"] == META["version"]
