"""The pages: links lead somewhere, and what they quote is what is there."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("serving-image/*/*.md"), *ROOT.glob("operator/*.md")]
)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"```.*?```|`[^`]*`", re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(_CODE.sub("code", page.read_text())):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{target} leads nowhere"
        if anchor:
            assert anchor in anchors(there), f"{path} has no heading for #{anchor}"


def test_the_readme_shows_the_first_example() -> None:
    example = (ROOT / "examples" / "quickstart.yaml").read_text()
    manifest = example[example.index("apiVersion:") :]
    assert f"```yaml\n{manifest}```" in (ROOT / "README.md").read_text()


def test_every_make_target_that_pages_name_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        named = re.findall(r"(?:`|^)make ((?:[a-z0-9-]+ ?)+)", page.read_text(), re.MULTILINE)
        for word in " ".join(named).split():
            assert word in targets, f"{page.name}: make {word}"


def test_every_test_that_pages_name_exists() -> None:
    tests = {name for file in ROOT.glob("tests/**/*.py") for name in re.findall(r"def (test_\w+)", file.read_text())}
    for page in PAGES:
        for name in re.findall(r"`(test_\w+)`", page.read_text()):
            assert name in tests, f"{page.name}: {name}"


def test_the_pictures_of_the_packages_are_those_of_the_import_contracts() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    for contract in (contract for contract in contracts if contract["type"] == "layers"):
        names = [layer.split(" | ") for layer in contract["layers"]]
        picture = " → ".join(f"{{{' '.join(layer)}}}" if len(layer) > 1 else layer[0] for layer in names)
        assert f"`{picture}`" in (ROOT / "docs" / "architecture.md").read_text(), contract["name"]


def test_every_field_that_pages_name_exists() -> None:
    """A field in Python's spelling, or under its former name, is none that a user can write or read."""
    reference = (ROOT / "docs" / "reference" / "inferenceservice.md").read_text()
    fields = {path.replace("[]", "") for path in re.findall(r"^\| `((?:spec|status)[^`]*)`", reference, re.MULTILINE)}
    tops = {".".join(path.split(".")[:2]) for path in fields}  # other kinds have others, such as spec.replicas
    for page in [*sorted(ROOT.glob("docs/*.md")), ROOT / "README.md"]:
        for path in re.findall(r"`((?:spec|status)(?:\.[A-Za-z_]+(?:\[\])?)+)`", page.read_text()):
            is_ours = ".".join(path.replace("[]", "").split(".")[:2]) in tops
            assert not is_ours or path.replace("[]", "") in fields, f"{page.name}: {path}"
