"""The signature policies of namespaces: which policy a namespace names, and the ConfigMaps that have them.

A label of the Namespace names the policy. Users with the roles edit and admin in a namespace cannot write the Namespace
itself, and not the ConfigMaps of the operator's namespace. What cannot be read is a policy too, under which no model is
loaded.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from conch.api.kinds import CONFIG_MAP, NAMESPACE, Kind, kind_of
from conch.api.names import ANNOTATION_SIGNATURE_PATH, LABEL_POLICY, LABEL_SIGNATURE_POLICY, SIGNATURE_POLICY
from conch.observe.fields import annotations_of, labels_of, mapping, text
from conch_contract import SignaturePolicy, names
from conch_contract.verification import LONGEST_SIGNATURE_PATH, SIGNATURE_FILE, SIGNATURE_PATH

_LONGEST: Final = 128 * 1024  # bytes of a policy: the ConfigMap of each workload has it beside the manifests


class _Entry(NamedTuple):
    uid: str
    version: int
    value: Any  # of a Namespace the name of its policy, of a ConfigMap the policy


class SignaturePolicies:
    """Last seen policies. Methods that take a change return the namespaces whose policy may have changed.

    Namespaces without the label, and ConfigMaps without theirs, are not watched: to a watch they are deleted.
    """

    def __init__(self, home: str) -> None:
        """Create the cache.

        Args:
            home: The operator's namespace, which has the ConfigMaps; empty: it runs in none.
        """
        self.home = home
        self._seen: dict[Kind, dict[str, _Entry]] = {NAMESPACE: {}, CONFIG_MAP: {}}

    def put(self, body: Mapping[str, Any]) -> frozenset[str]:
        """Add or replace an object of a watch event; versions older than the known one are ignored."""
        kind, name, meta = kind_of(body), body["metadata"]["name"], body["metadata"]
        known = self._seen[kind].get(name)
        value = text(labels_of(body).get(LABEL_SIGNATURE_POLICY)) if kind == NAMESPACE else read_policy(body)
        entry = _Entry(meta["uid"], int(meta.get("resourceVersion") or 0), value)
        if known is not None and entry.version < known.version:
            return frozenset()
        self._seen[kind][name] = entry
        return self._affected(kind, [name]) if known is None or known.value != value else frozenset()

    def discard(self, body: Mapping[str, Any]) -> frozenset[str]:
        """Remove a deleted object, unless a new one with its name exists."""
        kind, name = kind_of(body), body["metadata"]["name"]
        known = self._seen[kind].get(name)
        is_known = known is not None and known.uid == body["metadata"]["uid"]
        return self._forget(kind, [name]) if is_known else frozenset()

    def retain(self, kind: Kind, name: str, uids: frozenset[str], version: int | None) -> frozenset[str]:
        """Forget the objects that a list of this version does not have; what is newer is not in it.

        Args:
            kind: of the list.
            name: of the only object that the list may have; empty: it may have any.
            uids: of the objects in the list.
            version: of the list; None: the API server does not serve the kind.
        """
        gone = (
            each
            for each, entry in self._seen[kind].items()
            if name in {"", each} and entry.uid not in uids and (version is None or entry.version <= version)
        )
        return self._forget(kind, list(gone))

    def _forget(self, kind: Kind, gone: Iterable[str]) -> frozenset[str]:
        removed = [name for name in gone if self._seen[kind].pop(name, None) is not None]
        return self._affected(kind, removed)

    def _affected(self, kind: Kind, changed: Iterable[str]) -> frozenset[str]:
        """Return the namespaces whose policy depends on objects of a kind."""
        if kind == NAMESPACE:
            return frozenset(changed)
        policies = frozenset(changed)
        return frozenset(each for each, entry in self._seen[NAMESPACE].items() if entry.value in policies)

    def find(self, namespace: str) -> SignaturePolicy | None:
        """Return the policy of a namespace, also one that cannot be read; None: the namespace needs no signatures."""
        entry = self._seen[NAMESPACE].get(namespace)
        if entry is None:
            return None
        name = entry.value
        known = self._seen[CONFIG_MAP].get(name)
        return known.value if known is not None else SignaturePolicy(name=name, problem=self._describe_missing(name))

    def _describe_missing(self, name: str) -> str:
        label = f"The label {LABEL_SIGNATURE_POLICY} of the Namespace"
        if not name:
            return f"{label} is empty. Set it to the name of a policy."
        if not self.home:
            return f"{label} names {name!r}, and the operator runs in no namespace that could have it."
        return (
            f"{label} names {name!r}, and the namespace {self.home} has no ConfigMap {name} with the label"
            f" {LABEL_POLICY}={SIGNATURE_POLICY}. Create it, or set the label to another policy."
        )


def read_policy(config_map: Mapping[str, Any]) -> SignaturePolicy:
    """Return the policy of a ConfigMap, also one that cannot be used.

    >>> head = {"metadata": {"name": "prod"}}
    >>> read_policy({**head, "data": {"key.pub": "-----BEGIN PUBLIC KEY-----"}}).path
    'model.sig'
    >>> read_policy({**head, "data": {}}).problem
    'The ConfigMap prod of the signature policy has no keys. Write a public key, as in key.pub.'
    """
    name, data = config_map["metadata"]["name"], mapping(config_map.get("data"))
    path = text(annotations_of(config_map).get(ANNOTATION_SIGNATURE_PATH)) or SIGNATURE_FILE
    subject = f"The ConfigMap {name} of the signature policy"
    size = sum(len(key.encode()) + len(text(value).encode()) for key, value in data.items())
    problem = ""
    if config_map.get("binaryData"):
        problem = f"{subject} has binaryData. Write keys, certificates and identities as text, in data."
    elif not data:
        problem = f"{subject} has no keys. Write a public key, as in key.pub."
    elif size > _LONGEST:
        problem = f"{subject} has {size} bytes. Write at most {_LONGEST}."
    elif not re.fullmatch(SIGNATURE_PATH, path) or len(path) > LONGEST_SIGNATURE_PATH:
        shown = repr(path[:LONGEST_SIGNATURE_PATH])
        problem = f"{subject} has {shown} in {ANNOTATION_SIGNATURE_PATH}. Write a path such as model.sig."
    if problem:
        return SignaturePolicy(name=name, problem=problem)
    return SignaturePolicy.build(name, {key: text(value) for key, value in data.items()}, path)


def find_written_policy(children: Iterable[Mapping[str, Any]]) -> SignaturePolicy | None:
    """Return the policy that the operator has written into the ConfigMaps of a service; None: it has not.

    Args:
        children: The objects of the service.
    """
    data = (mapping(child.get("data")) for child in children if kind_of(child) == CONFIG_MAP)
    written = next((text(each[names.POLICY_FILE]) for each in data if names.POLICY_FILE in each), "")
    try:
        return SignaturePolicy.model_validate_json(written) if written else None
    except ValueError:
        return None
