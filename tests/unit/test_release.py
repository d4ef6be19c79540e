"""The pure parts of `make release`: its checks, the chart's values, the SBOM."""

import json
from pathlib import Path

import pytest
import yaml

from tests.cluster.errors import ClusterError
from tests.release import chart, checks, sbom

ROOT = Path(__file__).resolve().parents[2]
SECTION = "## 1.2.3 (2026-11-28)\n"
DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize("version", ["1.2.3", "0.1.0", "1.2.3-rc.1", "1.2.3-alpha.0"])
def test_semantic_versions_are_accepted(version: str) -> None:
    checks.check_version(version)


@pytest.mark.parametrize("version", ["", "1.2", "v1.2.3", "01.2.3", "1.2.3-rc1", "1.2.3+build", "1.2.3\n", "1.2.3-x.1"])
def test_other_versions_are_refused_with_the_value_and_a_remedy(version: str) -> None:
    with pytest.raises(ClusterError) as error:
        checks.check_version(version)
    assert f"VERSION is {version!r}" in str(error.value)
    assert "make release VERSION=1.2.3" in str(error.value)


@pytest.mark.parametrize("registry", ["https://a.example/b", "a.example/B", "127.0.0.1:1/conch"])
def test_a_registry_that_does_not_answer_is_refused(registry: str) -> None:
    with pytest.raises(ClusterError, match="REGISTRY is") as error:
        checks.check_registry(registry)
    assert "hint: " in str(error.value)


def test_a_release_needs_fragments_or_the_section_of_its_version() -> None:
    assert checks.check_fragments(["1.fixed.md"], "1.2.3", "")
    assert not checks.check_fragments([], "1.2.3", SECTION)
    with pytest.raises(ClusterError, match=r"changelog\.d has 0 fragments"):
        checks.check_fragments([], "1.2.4", SECTION)


def test_changes_are_refused_but_for_those_of_the_same_release() -> None:
    changes = {"CHANGELOG.md": ["+x"], "changelog.d/1.fixed.md": [], "VERSION": ["+1.2.3"]}
    checks.check_tree({}, "1.2.3", "")
    checks.check_tree(changes, "1.2.3", SECTION)
    for wrong in (changes | {"VERSION": ["+1.2.3", "+more"]}, changes | {"new.py": []}):
        with pytest.raises(ClusterError, match="The work tree has 1 changed file"):
            checks.check_tree(wrong, "1.2.3", SECTION)
    with pytest.raises(ClusterError, match="git stash"):
        checks.check_tree(changes, "1.2.3", "")


def test_the_values_of_a_release_name_images_by_digest_and_change_no_more() -> None:
    before = (ROOT / "charts/conch/values.yaml").read_text()
    pinned = {name: (f"r.example/conch/{name}", DIGEST) for name in ("operator", "serving")}
    after = chart.pin_images(before, pinned, "1.2.3")
    old, new = yaml.safe_load(before), yaml.safe_load(after)
    for key, name in chart.VALUES.items():
        assert new[key] == old[key] | {"repository": f"r.example/conch/{name}", "tag": "1.2.3", "digest": DIGEST}
        old[key] = new[key]
    assert new == old
    assert len(after.splitlines()) == len(before.splitlines())
    with pytest.raises(ClusterError, match=r"image\.repository is in 0 lines"):
        chart.pin_images("", pinned, "1.2.3")


def test_the_sbom_lists_artifacts_and_packages_and_is_the_same_each_time() -> None:
    made = [sbom.Artifact("r.example/conch/operator", "image", "a" * 64), sbom.Artifact("c.whl", "wheel", "b" * 64)]
    texts = [(ROOT / "requirements" / name).read_text() for name in sbom.REQUIREMENTS]
    text = sbom.write_sbom("1.2.3", "2026-11-28", made, texts)
    assert text == sbom.write_sbom("1.2.3", "2026-11-28", made[::-1], texts)
    data = json.loads(text)
    assert data["bomFormat"] == "CycloneDX"
    assert data["metadata"]["component"]["version"] == "1.2.3"
    components = {each["bom-ref"]: each for each in data["components"]}
    assert components["wheel:c.whl"]["hashes"] == [{"alg": "SHA-256", "content": "b" * 64}]
    assert components["image:r.example/conch/operator"]["type"] == "container"
    pins = {pin for requirements in texts for pin in sbom.pins(requirements)}
    assert {f"pkg:pypi/{name}@{version}" for name, version in pins} <= components.keys()
    assert len(pins) > 20
