"""What the operator may do in the cluster, row by row, with the reason.

`python -m conch.write.rbac` prints the chart's template. A row stands here only while some code makes the
call. Besides these, it reads discovery endpoints, which every service account may.
"""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from textwrap import wrap
from typing import Final

from conch.api.child_kinds import CHILD_KINDS
from conch.api.kinds import (
    API_SERVICE,
    ENDPOINT_SLICE,
    EVENT,
    GATEWAY,
    GATEWAY_CLASS,
    INFERENCE_SERVICE,
    LEASE,
    METRIC,
    NODE,
    POD,
    REPLICA_SET,
    RESOURCE_QUOTA,
    Kind,
)
from conch.api.metrics import API_SERVICE_NAME

_HEADER: Final = "# Generated from operator/src/conch/write/rbac.py by `make generate`. Do not edit.\n"
_CHILD_NOTE: Final = (
    "On children: list and watch keep the store; get asks, before a name is taken, whose it is;"
    " a server-side apply that creates an object asks for create and patch; delete is for what is wanted no more."
)
_OPERATOR: Final = '{{ include "conch.operator" $ }}'
_LEADER: Final = f"{_OPERATOR}-leader"
_ACCOUNT: Final = '{{ include "conch.serviceAccountName" $ }}'
_METRICS: Final = '{{ include "conch.metricsApi" $ }}'
_VIEWER: Final = '{{ include "conch.fullname" $ }}-view'
_EDITOR: Final = '{{ include "conch.fullname" $ }}-edit'


@dataclass(frozen=True)
class Grant:
    """Verbs on one resource, and which call of the operator needs them."""

    kind: Kind
    verbs: tuple[str, ...]
    why: str
    subresource: str = ""
    names: tuple[str, ...] = ()  # empty: all of them

    @property
    def resource(self) -> str:
        """The resource as RBAC spells it."""
        return f"{self.kind.plural}/{self.subresource}" if self.subresource else self.kind.plural


_CHILD_VERBS: Final = ("list", "watch", "get", "create", "patch", "delete")


def _child_grants(*, needs_keda: bool) -> tuple[Grant, ...]:
    children = (child for child in CHILD_KINDS if child.needs_keda == needs_keda)
    return tuple(Grant(child.kind, _CHILD_VERBS, child.why) for child in children)


# In the namespaces that the operator watches.
SERVING: Final[tuple[Grant, ...]] = (
    Grant(INFERENCE_SERVICE, ("list", "watch"), "what users ask for; the operator never writes it"),
    Grant(
        INFERENCE_SERVICE,
        ("patch",),
        "what came of it: a server-side apply of the status",
        subresource="status",
    ),
    Grant(
        INFERENCE_SERVICE,
        ("update",),
        "children name their service as an owner that waits for them (blockOwnerDeletion), and the admission"
        " plugin OwnerReferencesPermissionEnforcement, on in OpenShift, asks for this verb then."
        " Conch sets no finalizer",
        subresource="finalizers",
    ),
    *_child_grants(needs_keda=False),
    Grant(REPLICA_SET, ("list", "watch"), "to which Deployment a pod belongs: a user may write its labels"),
    Grant(POD, ("list", "watch"), "whether a revision's pods are ready, and why not; they are never written"),
    Grant(ENDPOINT_SLICE, ("list", "watch"), "whether requests reach a pod that is ready"),
    Grant(EVENT, ("create",), "the story that `kubectl describe` tells"),
    Grant(EVENT, ("list",), "why a pod does not start or a Job has none, where no status says it"),
    Grant(LEASE, ("get",), "whether another installation of Conch acts, where services are marked as its own"),
)

# The same, where KEDA drives the pods.
KEDA: Final = _child_grants(needs_keda=True)

# In the whole cluster, and only where the operator watches all of it.
CLUSTER: Final[tuple[Grant, ...]] = (
    Grant(GATEWAY, ("list", "watch"), "whether the Gateways that services name are there; they are never written"),
    Grant(GATEWAY_CLASS, ("list", "watch"), "what those Gateways support, such as timeouts"),
    Grant(
        NODE,
        ("list",),
        "what GPUs there are, before a rollout of pods that ask for some; who holds them is told by the pods, which the"
        " operator lists in the whole cluster anyway",
    ),
    Grant(RESOURCE_QUOTA, ("list",), "what GPUs the service's namespace may ask for"),
)

# The metrics API's, in the namespaces that the operator watches.
METRICS: Final[tuple[Grant, ...]] = (
    Grant(POD, ("list", "watch"), "which pods a question of an autoscaler is about, and where they are"),
)
# And in the whole cluster: an APIService belongs to no namespace.
REGISTRATION: Final[tuple[Grant, ...]] = (
    Grant(API_SERVICE, ("get", "patch"), "its certificate, in its own APIService only", names=(API_SERVICE_NAME,)),
)

# In the operator's own namespace.
OWN: Final[tuple[Grant, ...]] = (
    Grant(LEASE, ("create",), "leader election; no name can bind a creation"),
    Grant(LEASE, ("update",), "leader election, on its own Lease only", names=(_OPERATOR,)),
    Grant(LEASE, ("get",), "leader election, and whether an earlier installation in this namespace still acts"),
)

# For people: joined to Kubernetes' own roles view, edit and admin.
VIEW: Final[tuple[Grant, ...]] = (
    Grant(INFERENCE_SERVICE, ("get", "list", "watch"), "read services"),
    Grant(INFERENCE_SERVICE, ("get",), "read their status alone", subresource="status"),
)
# What an autoscaler is told, told to people.
VIEW_METRICS: Final[tuple[Grant, ...]] = (Grant(METRIC, ("get",), "read what autoscalers are told"),)
EDIT: Final[tuple[Grant, ...]] = (
    Grant(
        INFERENCE_SERVICE,
        ("create", "update", "patch", "delete", "deletecollection"),
        "change services; their status is the operator's",
    ),
)


def to_yaml() -> str:
    """Return the chart's template, byte for byte the same at every call."""
    lines = [
        _HEADER.rstrip(),
        '{{- define "conch.rules" }}',
        *_comment(_CHILD_NOTE),
        *_rules(SERVING),
        '{{- if eq .Values.autoscaling.metricsApi "keda" }}',
        *_rules(KEDA),
        "{{- end }}",
        "{{- end }}",
        "{{- if .Values.rbac.create }}",
        "{{- range .Values.watchNamespaces }}",
        *_granted("Role", _OPERATOR, ['  {{- include "conch.rules" $ }}'], namespace="{{ . }}"),
        "{{- else }}",
        *_granted("ClusterRole", _OPERATOR, ['  {{- include "conch.rules" $ }}', *_rules(CLUSTER)]),
        "{{- end }}",
        *_granted("Role", _LEADER, _rules(OWN), namespace="{{ .Release.Namespace }}"),
        "{{- end }}",
        '{{- if and .Values.rbac.create (eq .Values.autoscaling.metricsApi "builtin") }}',
        "{{- range .Values.watchNamespaces }}",
        *_granted("Role", _METRICS, _rules(METRICS), namespace="{{ . }}", account=_METRICS),
        "{{- else }}",
        *_granted("ClusterRole", _METRICS, _rules(METRICS), account=_METRICS),
        "{{- end }}",
        *_granted("ClusterRole", f"{_METRICS}-registration", _rules(REGISTRATION), account=_METRICS),
        # Kubernetes' own roles for aggregated APIs.
        *_bound("ClusterRole", f"{_METRICS}-delegator", "system:auth-delegator", account=_METRICS),
        *_bound(
            "Role",
            _METRICS,
            "extension-apiserver-authentication-reader",
            namespace="kube-system",
            account=_METRICS,
        ),
        "{{- end }}",
        "{{- if .Values.rbac.userRoles }}",
        *_role("ClusterRole", _VIEWER, _rules(VIEW), joins=("view", "edit", "admin")),
        *_role("ClusterRole", _EDITOR, _rules(EDIT), joins=("edit", "admin")),
        '{{- if eq .Values.autoscaling.metricsApi "builtin" }}',
        *_role("ClusterRole", f"{_METRICS}-view", _rules(VIEW_METRICS), joins=("view", "edit", "admin")),
        "{{- end }}",
        "{{- end }}",
    ]
    return "\n".join(lines) + "\n"


def _granted(kind: str, name: str, rules: Iterable[str], namespace: str = "", account: str = _ACCOUNT) -> Iterator[str]:
    """Yield a role, and its binding to a service account of ours."""
    yield from _role(kind, name, rules, namespace)
    yield from _bound(kind, name, name, namespace, account)


def _bound(kind: str, name: str, role: str, namespace: str = "", account: str = _ACCOUNT) -> Iterator[str]:
    """Yield the binding of a role to a service account of ours."""
    yield from _head(f"{kind}Binding", name, namespace)
    yield "roleRef:"
    yield "  apiGroup: rbac.authorization.k8s.io"
    yield f"  kind: {kind}"
    yield f"  name: {role}"
    yield "subjects:"
    yield "  - kind: ServiceAccount"
    yield f"    name: {account}"
    yield "    namespace: {{ $.Release.Namespace }}"


def _role(kind: str, name: str, rules: Iterable[str], namespace: str = "", joins: Iterable[str] = ()) -> Iterator[str]:
    yield from _head(kind, name, namespace)
    for role in joins:
        yield f'    rbac.authorization.k8s.io/aggregate-to-{role}: "true"'
    yield "rules:"
    yield from rules


def _head(kind: str, name: str, namespace: str) -> Iterator[str]:
    yield "---"
    yield "apiVersion: rbac.authorization.k8s.io/v1"
    yield f"kind: {kind}"
    yield "metadata:"
    yield f"  name: {name}"
    if namespace:
        yield f"  namespace: {namespace}"
    yield "  labels:"
    yield '    {{- include "conch.labels" $ | nindent 4 }}'


def _rules(grants: Iterable[Grant]) -> Iterator[str]:
    for grant in grants:
        yield from _comment(f"{grant.why[0].upper()}{grant.why[1:]}.")
        yield f'  - apiGroups: ["{grant.kind.group}"]'
        yield f"    resources: [{grant.resource}]"
        if grant.names:
            yield f"    resourceNames: [{', '.join(grant.names)}]"
        yield f"    verbs: [{', '.join(grant.verbs)}]"


def _comment(text: str) -> list[str]:
    return wrap(text, 108, initial_indent="  # ", subsequent_indent="  # ")


if __name__ == "__main__":
    sys.stdout.write(to_yaml())
