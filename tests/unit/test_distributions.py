"""The distributions: one version, their modules, bounds of what they require, and what their metadata refers to."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

import grimp
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT: Final = Path(__file__).resolve().parents[2]
VERSION: Final = (ROOT / "VERSION").read_text().strip()
PACKAGES: Final = ("operator", "operator/core", "operator/kubectl", "serving-image/contract", "serving-image/agent")
OWN: Final = {"conch-contract", "conch-core", "conch-agent"}
IMAGES: Final = ("operator/Dockerfile", "serving-image/Dockerfile", "serving-image/Dockerfile.cpu")
# The modules of a distribution, where they have other names, and those of its own requirements that its API has.
MODULES: Final = {"pyyaml": {"yaml"}, "pydantic": {"pydantic", "pydantic_core"}, "aiohttp": {"aiohttp", "yarl"}}
# Their major versions count years or releases.
UNBOUNDED: Final = {"structlog", "cryptography"}


def project(package: str) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / package / "pyproject.toml").read_text())["project"]
    return table


def requirements(package: str) -> list[Requirement]:
    table = project(package)
    extras = [line for extra in table.get("optional-dependencies", {}).values() for line in extra]
    return [Requirement(line) for line in [*table["dependencies"], *extras]]


def pinned() -> dict[str, set[Version]]:
    """Return the versions of each package in requirements/dev.txt; there are two where they depend on the Python."""
    found: dict[str, set[Version]] = {}
    text = (ROOT / "requirements" / "dev.txt").read_text()
    for name, version in re.findall(r"^([\w.-]+)(?:\[[^]]*\])?==([^\s;]+)", text, re.MULTILINE):
        found.setdefault(canonicalize_name(name), set()).add(Version(version))
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_a_distribution_has_the_version_of_the_repository(package: str) -> None:
    assert project(package)["version"] == VERSION
    own = {str(each.specifier) for each in requirements(package) if each.name in OWN}
    assert own == (set() if package.endswith("contract") else {f"=={VERSION}"})


def test_the_chart_has_the_version_of_the_repository() -> None:
    chart = yaml.safe_load((ROOT / "charts" / "conch" / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (VERSION, VERSION)


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_has_the_version_of_the_repository(image: str) -> None:
    stated = re.findall(r'org\.opencontainers\.image\.version="([^"]*)"', (ROOT / image).read_text())
    assert stated == [VERSION]


def build_target(package: str) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / package / "pyproject.toml").read_text())
    found: dict[str, Any] = table["tool"]["hatch"]["build"]
    return found


def included(package: str) -> set[str]:
    """Return the entries of operator/src/conch that the wheel includes."""
    target = build_target(package)
    if "only-include" in target:
        return {path.rpartition("/")[2] for path in target["only-include"]}
    left_out = {path.rpartition("/")[2] for path in target["exclude"]}
    return {path.name for path in (ROOT / "operator/src/conch").iterdir()} - left_out - {"__pycache__"}


def test_each_module_of_the_operators_source_tree_is_in_one_distribution() -> None:
    entries = [entry for package in ("operator", "operator/core", "operator/kubectl") for entry in included(package)]
    tree = {path.name for path in (ROOT / "operator/src/conch").iterdir()} - {"__pycache__"}
    assert sorted(entries) == sorted(tree)


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("operator/core", ("operator/core",)),
        ("operator/kubectl", ("operator/core", "operator/kubectl")),
        ("operator", ("operator/core", "operator")),
    ],
)
def test_a_distribution_imports_only_modules_of_what_it_requires(package: str, allowed: tuple[str, ...]) -> None:
    graph = grimp.build_graph("conch", include_external_packages=True)
    own = {f"conch.{entry.removesuffix('.py')}" for entry in included(package)} & graph.modules
    available = {entry.removesuffix(".py") for each in allowed for entry in included(each)}
    modules = {module for top in own for module in {top, *graph.find_descendants(top)}}
    imported = {found for module in modules for found in graph.find_modules_directly_imported_by(module)}
    inside = {found.split(".")[1] for found in imported if found.startswith("conch.")}
    assert inside <= available
    outside = {found for found in imported if not found.startswith("conch.")} - set(sys.stdlib_module_names)
    names = [each.name for each in requirements(package)]
    provided = {module for name in names for module in MODULES.get(name, {name.replace("-", "_")})}
    assert outside - {"conch"} <= provided


@pytest.mark.parametrize("package", PACKAGES)
def test_a_requirement_has_bounds_and_the_pinned_version_is_within_them(package: str) -> None:
    for each in requirements(package):
        if each.name in OWN:
            continue
        bounds = {bound.operator for bound in each.specifier}
        assert bounds == ({">="} if each.name in UNBOUNDED else {">=", "<"}), each
        versions = pinned()[canonicalize_name(each.name)]
        assert all(each.specifier.contains(version) for version in versions), (str(each), versions)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_distribution_has_the_licence_and_a_readme(package: str) -> None:
    table = project(package)
    assert table["license"] == "Apache-2.0"
    assert table["license-files"] == ["LICENSE"]
    assert (ROOT / package / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert (ROOT / package / table["readme"]).read_text().startswith("# ")
