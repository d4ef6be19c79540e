"""The three distributions: one version, bounds of what they require, and what their metadata refers to."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT: Final = Path(__file__).resolve().parents[2]
VERSION: Final = (ROOT / "VERSION").read_text().strip()
PACKAGES: Final = ("operator", "serving-image/contract", "serving-image/agent")
IMAGES: Final = ("operator/Dockerfile", "serving-image/Dockerfile", "serving-image/Dockerfile.cpu")
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
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE):
        found.setdefault(canonicalize_name(name), set()).add(Version(version))
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_a_distribution_has_the_version_of_the_repository(package: str) -> None:
    assert project(package)["version"] == VERSION
    contract = [str(each.specifier) for each in requirements(package) if each.name == "conch-contract"]
    assert contract == ([] if package.endswith("contract") else [f"=={VERSION}"])


def test_the_chart_has_the_version_of_the_repository() -> None:
    chart = yaml.safe_load((ROOT / "charts" / "conch" / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (VERSION, VERSION)


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_has_the_version_of_the_repository(image: str) -> None:
    stated = re.findall(r'org\.opencontainers\.image\.version="([^"]*)"', (ROOT / image).read_text())
    assert stated == [VERSION]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_requirement_has_bounds_and_the_pinned_version_is_within_them(package: str) -> None:
    for each in requirements(package):
        if each.name == "conch-contract":
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
