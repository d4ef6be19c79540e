"""Manifests as people write them, read without a cluster: what is in a file, and fields that nobody knows."""

from collections.abc import Iterator, Mapping
from typing import Any, TextIO

import yaml
from pydantic import ValidationError

from conch.api import InferenceService
from conch.api.crd import crd
from conch.api.names import KIND
from conch.cli.options import Refused


def services(file: TextIO) -> list[dict[str, Any]]:
    """Return the InferenceServices of a file; other documents are passed over.

    Raises:
        Refused: it is no YAML, or there is no InferenceService in it.
    """
    try:
        documents = list(yaml.safe_load_all(file))
    except yaml.YAMLError as error:
        raise Refused(f"{file.name} is not YAML: {' '.join(str(error).split())}") from error
    found = [document for document in documents if isinstance(document, dict) and document.get("kind") == KIND]
    if not found:
        raise Refused(f"{file.name} holds no InferenceService; name a manifest of one with --filename")
    for document in found:
        if not isinstance(document.get("metadata"), dict) or not document["metadata"].get("name"):
            raise Refused(f"an InferenceService of {file.name} has no metadata.name; give it one")
    return found


def offline_body(manifest: Mapping[str, Any], namespace: str | None) -> dict[str, Any]:
    """Return a manifest as a new object of the API server would look.

    Raises:
        Refused: it says what the resource does not know. (Its CEL rules are the API server's to judge.)
    """
    name = manifest["metadata"]["name"]
    unknown = sorted(_unknown(manifest.get("spec"), _schema()["properties"]["spec"], "spec"))
    if unknown:
        raise Refused(f"{name}: unknown field {', '.join(unknown)}; see: kubectl explain inferenceservice.spec")
    meta = {
        **manifest["metadata"],
        "namespace": namespace or manifest["metadata"].get("namespace") or "default",
        "uid": "offline",
        "generation": 1,
    }
    body = {**manifest, "metadata": meta}
    body.pop("status", None)
    try:
        InferenceService.parse(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        said = "" if first["type"] == "missing" else f" is {first.get('input')!r}"
        raise Refused(f"{name}: {where}{said}: {first['msg']}; see: kubectl explain inferenceservice.spec") from error
    return body


def _schema() -> Mapping[str, Any]:
    schema: Mapping[str, Any] = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def _unknown(value: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    """Yield the fields that the schema does not have: the API server would drop them, and kubectl refuses them."""
    if isinstance(value, Mapping) and "properties" in schema:
        for key, item in value.items():
            known = schema["properties"].get(key)
            if known is not None:
                yield from _unknown(item, known, f"{path}.{key}")
            elif not schema.get("x-kubernetes-preserve-unknown-fields"):
                yield f"{path}.{key}"
    elif isinstance(value, Mapping) and isinstance(schema.get("additionalProperties"), Mapping):
        for key, item in value.items():
            yield from _unknown(item, schema["additionalProperties"], f"{path}.{key}")
    elif isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from _unknown(item, schema["items"], f"{path}[{index}]")
