"""The CustomResourceDefinition, generated from the types: `python -m conch.api.crd` prints it."""

import sys
from collections.abc import Mapping
from typing import Any, Final

from conch.api import names
from conch.api.schema import Schema, build_structural_schema, remove_keyword
from conch.api.service import InferenceService
from conch.api.status import NOT_OBSERVED
from conch.plain_yaml import dump_yaml

_HEADER: Final = "# Generated from operator/src/conch/api by `make generate`. Do not edit.\n"

COLUMNS: Final[tuple[dict[str, Any], ...]] = (
    {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'},
    {"name": "URL", "type": "string", "jsonPath": ".status.url"},
    {"name": "Model", "type": "string", "jsonPath": ".status.model.name"},
    {"name": "Stable", "type": "string", "jsonPath": ".status.stable"},
    {"name": "Canary", "type": "string", "jsonPath": ".status.candidate"},
    {"name": "Weight", "type": "integer", "jsonPath": ".status.weight"},
    {"name": "Replicas", "type": "string", "jsonPath": ".status.ready"},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
)


def schema() -> Schema:
    """Return the structural schema of the resource."""
    raw = InferenceService.model_json_schema(by_alias=True, mode="validation")
    root = build_structural_schema(raw, raw["$defs"])
    fields = root["properties"]
    # The API server validates these three; a CRD may only have their types.
    root["properties"] = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        # The bound is Kubernetes' own. The API server computes the cost of the rule on the name from it.
        "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 253}}},
        "spec": fields["spec"],
        # A client that waits for a status (kstatus, Flux, Argo CD) takes an object without one for current. The API
        # server drops the status of a new object, but fills in this default whenever it reads one without a status.
        "status": remove_keyword(fields["status"], "default") | {"default": {"observedGeneration": NOT_OBSERVED}},
    }
    root["required"] = ["spec"]
    return root


def crd() -> dict[str, Any]:
    """Return the CustomResourceDefinition."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": names.CRD_NAME},
        "spec": {
            "group": names.GROUP,
            "names": {
                "kind": names.KIND,
                "listKind": names.LIST_KIND,
                "plural": names.PLURAL,
                "singular": names.SINGULAR,
                "shortNames": [names.SHORT_NAME, names.OWN_SHORT_NAME],
                "categories": [names.CATEGORY],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": names.VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": list(COLUMNS),
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": _describe_once(schema())},
                }
            ],
        },
    }


def _describe_once(root: Schema) -> Schema:
    """Remove the descriptions below fields that the CRD describes elsewhere.

    A variant has fields of the predictor, its status those of the service's, and a model of several those of `triton`
    and of the only model.
    Else the CRD would outgrow the annotation in which `kubectl apply` keeps it.
    """
    spec, status = (root["properties"][name]["properties"] for name in ("spec", "status"))
    predictor = spec["predictor"]["properties"]
    variant = spec["variants"]["items"]["properties"]["predictor"]["properties"]
    model, variant_model = (fields["models"]["items"]["properties"] for fields in (predictor, variant))
    _remove_copies(predictor, variant)
    _remove_copies(model, variant_model)
    _remove_copies(predictor["triton"]["properties"], model["triton"]["properties"])
    for fields in (model, variant["model"]["properties"]):
        _remove_copies(predictor["model"]["properties"], fields)
    _remove_copies(status, status["variants"]["items"]["properties"])
    return root


def _remove_copies(described: Mapping[str, Schema], fields: Schema) -> None:
    """Remove the descriptions below each field that is the same in `described`."""
    for name, field in fields.items():
        below = field.get("items", field).get("properties")
        other = described.get(name, {})
        if below and below == other.get("items", other).get("properties"):
            fields[name] = remove_keyword(field, "description") | {"description": field["description"]}


def to_yaml() -> str:
    """Return the CRD as YAML, byte for byte the same at every call."""
    return _HEADER + dump_yaml(crd(), width=110)


if __name__ == "__main__":
    sys.stdout.write(to_yaml())
