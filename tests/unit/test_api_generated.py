"""The generated files: what Kubernetes requires of them, and that they match the types."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from conch.api import crd, model_reference, names, reference
from conch.api.cel import VALIDATIONS

ROOT = Path(__file__).parents[2]
CRD = ROOT / "crds" / f"{names.GROUP}_{names.PLURAL}.yaml"
REFERENCE = ROOT / "docs" / "reference" / "inferenceservice.md"
MODELS = ROOT / "docs" / "reference" / "models.md"


def nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Walk a schema: each node with its path."""
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in node:
            yield from nodes(node[key], f"{path}[]")


ALL = dict(nodes(crd.schema()))
# Below these, all fields are of Kubernetes' own types, but for those that we check ourselves.
_KUBERNETES = re.compile(
    r"\.predictor\.(pod\.(affinity|(tolerations|topologySpreadConstraints|env|volumes|volumeMounts)\[\])"
    r"|autoscaling\.(metrics\[\]\.(resource|containerResource|pods|object|external)|behavior\.scale(Up|Down)))\."
)
_CHECKED = re.compile(r"\.pod\.((env|volumes|volumeMounts)\[\]\.name|volumeMounts\[\]\.mountPath)$")
NODES = {path: node for path, node in ALL.items() if _CHECKED.search(path) or not _KUBERNETES.search(path)}
PRESERVE = "x-kubernetes-preserve-unknown-fields"


def test_the_schema_is_structural() -> None:
    for path, node in ALL.items():
        if node.get(PRESERVE):
            assert not {"type", "properties", "additionalProperties"} & node.keys(), path
            continue
        assert "type" in node or node.get("x-kubernetes-int-or-string"), path
        assert node.get("type") in {None, "object", "array", "string", "integer", "boolean"}, path
        assert not {"$ref", "oneOf", "allOf", "not", "title", "const", "nullable"} & node.keys(), path
        assert not ("properties" in node and "additionalProperties" in node), path
        assert ("items" in node) == (node.get("type") == "array"), path
        for choice in node.get("anyOf", []):
            assert choice.keys() == {"type"}, path


def test_every_field_is_described_in_plain_sentences() -> None:
    for path, node in NODES.items():
        if path.startswith((".spec", ".status")) and not path.endswith("[]"):
            assert "description" in node, path
            description = node["description"]
            assert description[0].isupper(), path
            assert description.endswith("."), path
            assert "\n" not in description, path


def test_each_field_that_a_rule_reads_has_a_bound() -> None:
    # The API server reckons the cost of a rule by the longest input that the schema allows.
    for path, node in NODES.items():
        if not path.startswith(".spec") or node.get(PRESERVE):
            continue
        if node.get("type") == "array":
            assert "maxItems" in node, path
        elif node.get("type") == "string":
            assert "maxLength" in node or "enum" in node, path
        elif "additionalProperties" in node:
            assert "maxProperties" in node, path


def test_every_refusal_is_a_sentence_with_a_remedy() -> None:
    for path, node in NODES.items():
        for rule in node.get("x-kubernetes-validations", []):
            assert set(rule) <= {"rule", "message", "messageExpression", "fieldPath"}, path
            assert ";" in rule["message"] or "such as" in rule["message"], (path, rule["message"])


def test_lists_that_are_maps_require_their_key() -> None:
    for path, node in NODES.items():
        for key in node.get("x-kubernetes-list-map-keys", []):
            assert key in node["items"]["required"], path


def test_defaults_stand_in_the_spec_only() -> None:
    defaults = {path: node["default"] for path, node in NODES.items() if "default" in node}
    variants = ".spec.variants[].predictor."
    own = {path: value for path, value in defaults.items() if not path.startswith(variants)}
    for path in defaults.keys() - own.keys():
        assert path.removeprefix(variants).count("."), f"{path}: a default would stand over the predictor's field"
        assert defaults[path] == own[path.replace(variants, ".spec.predictor.")]
    # And one for a status that no operator has written yet.
    assert own.pop(".status") == {"observedGeneration": -1}
    assert own == {
        ".spec.predictor.minReplicas": 1,
        ".spec.predictor.model.storage.verify.signature.path": "model.sig",
        ".spec.predictor.models[].storage.verify.signature.path": "model.sig",
        ".spec.predictor.models[].warmup.tolerance": "0.1%",
        ".spec.predictor.models[].warmup.stable": {},
        ".spec.predictor.models[].warmup.stable.percentile": 99,
        ".spec.predictor.models[].warmup.stable.within": "20%",
        ".spec.predictor.models[].warmup.timeout": "5m",
        ".spec.rollout.analysis[].failureLimit": 0,
        ".spec.rollout.analysis[].interval": "10s",
        ".spec.rollout.analysis[].prometheus.timeout": "5s",
        ".spec.rollout.analysis[].parity.minAgreement": "99%",
        ".spec.rollout.analysis[].parity.requests": 20,
        ".spec.rollout.onFailure": "Rollback",
        ".spec.rollout.strategy": "Progressive",
        ".spec.predictor.warmup.stable": {},
        ".spec.predictor.warmup.stable.percentile": 99,
        ".spec.predictor.warmup.stable.within": "20%",
        ".spec.predictor.warmup.timeout": "5m",
        ".spec.predictor.warmup.tolerance": "0.1%",
        ".spec.predictor.triton": {},
        ".spec.predictor.triton.shmSize": "64Mi",
        ".spec.predictor.triton.tracing.rate": 1000,
        ".spec.predictor.models[].required": True,
        ".spec.predictor.models[].triton.versionPolicy.latest.numVersions": 1,
        ".spec.predictor.triton.versionPolicy.latest.numVersions": 1,
        ".spec.rollout": {},
        ".spec.rollout.progressDeadline": "15m",
        ".spec.rollout.historyLimit": 10,
        ".spec.rollout.onInsufficientCapacity": "Hold",
    }


def test_every_number_of_the_spec_has_bounds() -> None:
    """Else one outside the range of the child's field is stored, and fails where no user sees it."""
    spec = {path: node for path, node in NODES.items() if path.startswith(".spec")}
    numbers = {path: node for path, node in spec.items() if node.get("type") in {"integer", "number"}}
    foreign = [node for path, node in ALL.items() if path not in NODES and node.get("type") in {"integer", "number"}]
    assert [node for node in foreign if node.get("format") != "int64" and "maximum" not in node] == []
    assert [path for path, node in numbers.items() if not node.keys() & {"maximum", "enum"}] == []
    assert [path for path, node in numbers.items() if not node.keys() & {"minimum", "enum", VALIDATIONS}] == []
    # Amounts and decimal numbers are int-or-string; durations are text.
    texts = {path: str(node["x-kubernetes-validations"]) for path, node in spec.items() if VALIDATIONS in node}
    amounts = [path for path, node in spec.items() if node.get("x-kubernetes-int-or-string")]
    assert [path for path in amounts if "1P" not in texts[path] and "not a number" not in texts[path]] == []
    durations = [path for path, rules in texts.items() if "a duration" in rules]
    assert [path for path in durations if "duration(self) <= duration(" not in texts[path]] == []
    assert len(durations) >= 10


def test_the_crd_has_a_status_and_no_scale() -> None:
    version = crd.crd()["spec"]["versions"][0]
    assert version["subresources"] == {"status": {}}
    assert [column["name"] for column in version["additionalPrinterColumns"]] == [
        "Ready",
        "URL",
        "Model",
        "Stable",
        "Canary",
        "Weight",
        "Replicas",
        "Age",
    ]


def test_the_crd_is_small() -> None:
    """It fits into kubectl's annotation of the last applied manifest (262,144 bytes), with a tenth to spare."""
    assert len(json.dumps(crd.crd(), separators=(",", ":"))) < 235_000


def test_no_field_takes_a_value_that_is_nested_without_end() -> None:
    bottomless = [
        path
        for path, node in ALL.items()
        if node.get(PRESERVE)
        and (node.get("maxProperties") != 0 or (node.get("maxItems") != 0 and "items" not in node))
    ]
    assert bottomless == []


@pytest.mark.parametrize(
    ("path", "text"),
    [(CRD, crd.to_yaml()), (REFERENCE, reference.markdown()), (MODELS, model_reference.markdown())],
    ids=["crd", "reference", "models"],
)
def test_a_generated_file_matches_the_types(path: Path, text: str) -> None:
    assert path.read_text() == text, f"{path} is out of date; run make generate"


def test_the_crd_reads_back() -> None:
    assert yaml.safe_load(crd.to_yaml()) == crd.crd()


@pytest.mark.parametrize("driver", ["flocker", "glusterfs", "photonPersistentDisk", "quobyte", "scaleIO", "storageos"])
def test_a_volume_of_a_driver_that_no_kubelet_has_is_an_unknown_field(driver: str) -> None:
    volumes = [node for path, node in ALL.items() if path.endswith("pod.volumes[]")]
    assert volumes
    assert all("emptyDir" in node["properties"] and driver not in node["properties"] for node in volumes)


def test_a_list_is_atomic_by_default_and_the_schema_does_not_repeat_it() -> None:
    assert "atomic" not in {node.get("x-kubernetes-list-type") for node in ALL.values()}
