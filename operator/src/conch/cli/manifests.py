"""Manifests of users, read without a cluster: the services of a file, and their unknown fields."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

import yaml
from pydantic import ValidationError

from conch.api import InferenceService
from conch.api.crd import crd
from conch.api.names import KIND
from conch.cli.options import CommandError, is_object_name


def read_services(file: TextIO) -> list[dict[str, Any]]:
    """Return the InferenceServices of a file; other documents are skipped.

    Raises:
        CommandError: it is not YAML, or has no InferenceService.
    """
    try:
        documents = _parse_documents(file.read())
    except yaml.YAMLError as error:
        raise CommandError(f"{file.name} is not YAML: {' '.join(str(error).split())}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise CommandError(f"{file.name} is not a manifest: {' '.join(str(error).split())}") from error
    found = [one for document in documents for one in _list_items(document) if one.get("kind") == KIND]
    if not found:
        raise CommandError(f"{file.name} has no InferenceService; name a manifest of one with --filename")
    for document in found:
        meta = document.get("metadata")
        if not isinstance(meta, dict) or not meta.get("name"):
            raise CommandError(f"an InferenceService of {file.name} has no metadata.name; give it one")
        for field in ("name", "namespace"):
            if meta.get(field) is not None and not is_object_name(meta[field]):
                raise CommandError(
                    f"metadata.{field} {meta[field]!r} of {file.name} is not a name: expected one such as magika"
                )
    return found


class _Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: a date is text."""


_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _parse_documents(text: str) -> list[Any]:
    """Return the documents of a file as JSON has them.

    A file of JSON is read as such, as kubectl does: YAML knows no surrogate pairs.

    Raises:
        yaml.YAMLError, ValueError, TypeError, RecursionError: it is neither, or has values that JSON cannot express.
    """
    try:
        documents = [json.loads(text)]
    except ValueError:
        documents = list(yaml.load_all(text, _Loader))
    # No object of Kubernetes holds a date, NaN or half of a surrogate pair.
    values: list[Any] = json.loads(json.dumps(documents, ensure_ascii=False, allow_nan=False).encode())
    return values


def _list_items(document: Any) -> Iterator[dict[str, Any]]:
    """Yield the objects of a document: itself, or the items of a List."""
    if not isinstance(document, dict):
        return
    if str(document.get("kind")).endswith("List") and isinstance(document.get("items"), list):
        for item in document["items"]:
            yield from _list_items(item)
    else:
        yield document


def build_offline_body(manifest: Mapping[str, Any], namespace: str | None) -> dict[str, Any]:
    """Return a manifest as a new object of the API server.

    Raises:
        CommandError: it has fields that the resource does not have. (Only the API server evaluates the CEL rules.)
    """
    name = manifest["metadata"]["name"]
    unknown = sorted(_list_unknown_fields(manifest.get("spec"), _get_schema()["properties"]["spec"], "spec"))
    if unknown:
        raise CommandError(f"{name}: unknown field {', '.join(unknown)}; see: kubectl explain inferenceservice.spec")
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
        value = "" if first["type"] == "missing" else f" is {first.get('input')!r}"
        raise CommandError(
            f"{name}: {where}{value}: {first['msg']}; see: kubectl explain inferenceservice.spec"
        ) from error
    return body


def _get_schema() -> Mapping[str, Any]:
    schema: Mapping[str, Any] = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def _list_unknown_fields(value: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    """Yield the fields that the schema does not have: the API server would drop them, and kubectl refuses them."""
    if isinstance(value, Mapping) and "properties" in schema:
        for key, item in value.items():
            known = schema["properties"].get(key)
            if known is not None:
                yield from _list_unknown_fields(item, known, f"{path}.{key}")
            elif not schema.get("x-kubernetes-preserve-unknown-fields"):
                yield f"{path}.{key}"
    elif isinstance(value, Mapping) and isinstance(schema.get("additionalProperties"), Mapping):
        for key, item in value.items():
            yield from _list_unknown_fields(item, schema["additionalProperties"], f"{path}.{key}")
    elif isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from _list_unknown_fields(item, schema["items"], f"{path}[{index}]")
