"""What the operator may do and what it did: its RBAC rules beside the API server's audit log."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.kube import Kube, Object


class Use(NamedTuple):
    """One verb on one kind of object; `resource` holds the subresource, as RBAC spells it."""

    group: str
    resource: str
    verb: str

    def __str__(self) -> str:
        """Spell it as a person would."""
        return f"{self.verb} {self.resource}{'.' if self.group else ''}{self.group}"


@dataclass(frozen=True)
class Account:
    """A service account."""

    namespace: str
    name: str

    @property
    def user(self) -> str:
        """Its name in the audit log."""
        return f"system:serviceaccount:{self.namespace}:{self.name}"

    def is_among(self, subjects: list[Mapping[str, Any]]) -> bool:
        """Whether a binding names it."""
        key = ("ServiceAccount", self.namespace, self.name)
        return any((s.get("kind"), s.get("namespace"), s.get("name")) == key for s in subjects)


def granted(kube: Kube, account: Account) -> set[Use]:
    """Return all that the account's own bindings let it do."""
    found: set[Use] = set()
    for binding in _bindings(kube):
        if account.is_among(binding.get("subjects") or []):
            for rule in _role(kube, binding).get("rules") or []:
                found |= {
                    Use(group, resource, verb)
                    for group in rule.get("apiGroups", [])
                    for resource in rule.get("resources", [])
                    for verb in rule["verbs"]
                }
    return found


def used(log: Path, account: Account) -> set[Use]:
    """Return all that the account was seen to do and was let.

    An apply that created its object needs two verbs; the log names one, and the status code shows which case it is.
    """
    found: set[Use] = set()
    for entry in _entries(log, account, 0):
        if "objectRef" in entry and not _forbidden(entry):
            use = _use(entry)
            found.add(use)
            if use.verb == "patch" and entry.get("responseStatus", {}).get("code") == 201:
                found.add(use._replace(verb="create"))
    return found


def refused(log: Path, account: Account, since: int) -> list[str]:
    """Return what RBAC did not let the account do, in what was logged behind an offset."""
    rejections = (
        f"{_use(e)}: {e['responseStatus'].get('message', '')}" for e in _entries(log, account, since) if _forbidden(e)
    )
    return sorted(set(rejections))


def _entries(log: Path, account: Account, since: int) -> Iterator[Object]:
    mark = f'"{account.user}"'.encode()
    with log.open("rb") as file:
        file.seek(since)
        for line in file:
            if mark in line and line.endswith(b"}\n"):
                entry: Object = json.loads(line)
                if entry["user"]["username"] == account.user:
                    yield entry


def _forbidden(entry: Object) -> bool:
    """Whether RBAC forbids the request; a quota and an admission plugin answer with the same code."""
    return bool(entry.get("annotations", {}).get("authorization.k8s.io/decision") == "forbid")


def _use(entry: Object) -> Use:
    ref = entry.get("objectRef", {})
    resource = "/".join(part for part in (ref.get("resource", ""), ref.get("subresource", "")) if part)
    return Use(ref.get("apiGroup", ""), resource or entry.get("requestURI", ""), entry["verb"])


def _bindings(kube: Kube) -> list[Object]:
    text = kube.run("get", "clusterrolebindings,rolebindings", "--all-namespaces", "--output=json")
    return list(json.loads(text)["items"])


def _role(kube: Kube, binding: Object) -> Object:
    ref, namespace = binding["roleRef"], binding["metadata"].get("namespace")
    place = [f"--namespace={namespace}"] if namespace and ref["kind"] == "Role" else []
    found: Object = json.loads(kube.run("get", ref["kind"].lower(), ref["name"], "--output=json", *place))
    return found
