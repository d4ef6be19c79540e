"""Entries of the store: one object each, as compressed JSON."""

import zlib
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from conch.api.kinds import ENDPOINT_SLICE, INFERENCE_SERVICE, POD, REPLICA_SET, kind_of
from conch.observe.fields import labels_of, mapping, mappings, text
from conch.observe.gateways import GatewayKey, list_gateways
from conch.observe.identity import controlling_service, is_orphan
from conch_contract import names

# Objects of Kubernetes' controllers do not count: little of each one is kept.
UNCOUNTED: Final = frozenset({INFERENCE_SERVICE, REPLICA_SET, POD, ENDPOINT_SLICE})


class Entry(NamedTuple):
    """An object."""

    uid: str
    version: int
    packed: bytes
    size: int  # bytes of JSON that count
    is_cut: bool  # it is beyond the limit, so only its metadata is kept
    is_foreign: bool  # it has the label of a service that does not own it
    is_left_out: bool = False  # another installation serves its service, so only its metadata is kept


class Summary(NamedTuple):
    """Fields that are read of all services at once, without unpacking."""

    generation: int
    ready: str  # status of the condition Ready
    gateways: frozenset[GatewayKey]


def is_whole_body(body: Mapping[str, Any]) -> bool:
    """Whether more than the metadata of an object is kept.

    A user may write the label of a service. An object that the service neither controls nor controlled is foreign:
    decisions depend only on its name and its owner.
    """
    service = labels_of(body).get(names.LABEL_SERVICE, "")
    is_own = controlling_service(body) is not None or is_orphan(body, service)
    return kind_of(body) in UNCOUNTED or is_own


def read_version(body: Mapping[str, Any]) -> int:
    """Return the resourceVersion of an object; 0: it has none."""
    return int(body["metadata"].get("resourceVersion") or 0)


def summarize(service: Mapping[str, Any]) -> Summary:
    """Return the summary of a service."""
    conditions = mappings(mapping(service.get("status")).get("conditions"))
    ready = next((text(each.get("status")) for each in conditions if each.get("type") == "Ready"), "Unknown")
    return Summary(service["metadata"].get("generation", 0), ready, frozenset(list_gateways(service)))


def unpack(entry: Entry) -> dict[str, Any]:
    """Return the fields of an object that are kept."""
    body: dict[str, Any] = msgspec.json.decode(zlib.decompress(entry.packed))
    return body
