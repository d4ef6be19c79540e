"""Permissions of the operator in the cluster, one row each, with the reason.

`python -m conch.write.rbac` prints the chart's template. Each row has a call in the code. The
operator also reads discovery endpoints, which every service account may do.
"""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from textwrap import wrap
from typing import Final

from conch.api.child_kinds import CHILD_KINDS
from conch.api.kinds import (
    API_SERVICE,
    CONFIG_MAP,
    ENDPOINT_SLICE,
    EVENT,
    GATEWAY,
    GATEWAY_CLASS,
    INFERENCE_SERVICE,
    LEASE,
    METRIC,
    NAMESPACE,
    NODE,
    POD,
    REPLICA_SET,
    RESOURCE_QUOTA,
    Kind,
)
from conch.api.metrics import API_SERVICE_NAME
from conch.api.names import ANNOTATION_LABEL_SELECTOR

_HEADER: Final = "# Generated from operator/src/conch/write/rbac.py by `make generate`. Do not edit.\n"
_CHILD_NOTE: Final = (
    "Children: list and watch fill the cache; get reads the owner of an object before its name is used; a"
    " server-side apply that creates an object requires create and patch; delete removes obsolete objects."
)
_OPERATOR: Final = '{{ include "conch.operator" $ }}'
_LEADER: Final = f"{_OPERATOR}-leader"
# Several installations, each for some namespaces, may have the same name.
_NAMESPACE_READER: Final = f"{{{{ $.Release.Namespace }}}}-{_OPERATOR}-namespaces"
_ACCOUNT: Final = '{{ include "conch.serviceAccountName" $ }}'
_METRICS: Final = '{{ include "conch.metricsApi" $ }}'
_VIEWER: Final = '{{ include "conch.fullname" $ }}-view'
_EDITOR: Final = '{{ include "conch.fullname" $ }}-edit'


@dataclass(frozen=True)
class Grant:
    """Verbs on one resource, and the reason."""

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


def _build_child_grants(*, needs_keda: bool) -> tuple[Grant, ...]:
    children = (child for child in CHILD_KINDS if child.needs_keda == needs_keda)
    return tuple(Grant(child.kind, _CHILD_VERBS, child.why) for child in children)


# In the namespaces that the operator watches.
SERVING: Final[tuple[Grant, ...]] = (
    Grant(INFERENCE_SERVICE, ("list", "watch"), "the services; the operator never writes their spec"),
    Grant(
        INFERENCE_SERVICE,
        ("patch",),
        "a server-side apply of the status",
        subresource="status",
    ),
    Grant(
        INFERENCE_SERVICE,
        ("update",),
        "children name their service as an owner that waits for them (blockOwnerDeletion), and the admission"
        " plugin OwnerReferencesPermissionEnforcement, on in OpenShift, requires this verb then."
        " Conch sets no finalizer",
        subresource="finalizers",
    ),
    *_build_child_grants(needs_keda=False),
    Grant(REPLICA_SET, ("list", "watch"), "to which Deployment a pod belongs: a user may write its labels"),
    Grant(
        POD,
        ("list", "watch", "patch"),
        "whether a revision's pods are ready, and why not; and the label of their revision, which Swap changes",
    ),
    Grant(ENDPOINT_SLICE, ("list", "watch"), "whether requests reach a pod that is ready"),
    Grant(EVENT, ("create",), "the events that `kubectl describe` shows"),
    Grant(EVENT, ("list",), "why a pod does not start or a Job has none, where no status has the reason"),
    Grant(LEASE, ("get",), "whether another installation of Conch is active, where the status of services names it"),
)

# The same, where KEDA drives the pods.
KEDA: Final = _build_child_grants(needs_keda=True)

NAMESPACES: Final = Grant(NAMESPACE, ("list", "watch"), "the label with which a Namespace requires signed models")
# Where the operator watches some namespaces only.
_SOME_NAMESPACES: Final = replace(NAMESPACES, names=('{{ join ", " .Values.watchNamespaces }}',))

# In the whole cluster, and only where the operator watches all of it.
CLUSTER: Final[tuple[Grant, ...]] = (
    Grant(GATEWAY, ("list", "watch"), "whether the Gateways that services name are there; they are never written"),
    Grant(GATEWAY_CLASS, ("list", "watch"), "what those Gateways support, such as timeouts"),
    Grant(
        NODE,
        ("list",),
        "the allocatable GPUs, before a rollout of pods with GPUs; the allocated ones are those of all pods, which the"
        " operator lists in the whole cluster",
    ),
    Grant(RESOURCE_QUOTA, ("list",), "the quota of GPUs of the service's namespace"),
    NAMESPACES,
)

# The metrics API's, in the namespaces that the operator watches.
METRICS: Final[tuple[Grant, ...]] = (
    Grant(POD, ("list", "watch"), "the pods that an autoscaler's request concerns, and their addresses"),
)
# And in the whole cluster: an APIService belongs to no namespace.
REGISTRATION: Final[tuple[Grant, ...]] = (
    Grant(API_SERVICE, ("get", "patch"), "its certificate, in its own APIService only", names=(API_SERVICE_NAME,)),
)

# In the operator's own namespace.
OWN: Final[tuple[Grant, ...]] = (
    Grant(LEASE, ("create",), "leader election; no name can bind a creation"),
    Grant(LEASE, ("update",), "leader election, on its own Lease only", names=(_OPERATOR,)),
    Grant(LEASE, ("get",), "leader election, and whether an earlier installation in this namespace is still active"),
    Grant(CONFIG_MAP, ("list", "watch"), "the signature policies that Namespaces name"),
)

# For users: aggregated into Kubernetes' own roles view, edit and admin.
VIEW: Final[tuple[Grant, ...]] = (
    Grant(INFERENCE_SERVICE, ("get", "list", "watch"), "read services"),
    Grant(INFERENCE_SERVICE, ("get",), "read their status alone", subresource="status"),
)
# The metrics of autoscalers, for users.
VIEW_METRICS: Final[tuple[Grant, ...]] = (Grant(METRIC, ("get",), "read the metrics of autoscalers"),)
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
        *_render_comment(_CHILD_NOTE),
        *_render_rules(SERVING),
        '{{- if eq .Values.autoscaling.metricsApi "keda" }}',
        *_render_rules(KEDA),
        "{{- end }}",
        "{{- end }}",
        "{{- if .Values.rbac.create }}",
        "{{- range .Values.watchNamespaces }}",
        *_render_role_and_binding("Role", _OPERATOR, ['  {{- include "conch.rules" $ }}'], namespace="{{ . }}"),
        "{{- else }}",
        *_render_role_and_binding(
            "ClusterRole", _OPERATOR, ['  {{- include "conch.rules" $ }}', *_render_rules(CLUSTER)]
        ),
        "{{- end }}",
        "{{- if .Values.watchNamespaces }}",
        *_render_role_and_binding("ClusterRole", _NAMESPACE_READER, _render_rules([_SOME_NAMESPACES])),
        "{{- end }}",
        *_render_role_and_binding("Role", _LEADER, _render_rules(OWN), namespace="{{ .Release.Namespace }}"),
        "{{- end }}",
        '{{- if and .Values.rbac.create (eq .Values.autoscaling.metricsApi "builtin") }}',
        "{{- range .Values.watchNamespaces }}",
        *_render_role_and_binding("Role", _METRICS, _render_rules(METRICS), namespace="{{ . }}", account=_METRICS),
        "{{- else }}",
        *_render_role_and_binding("ClusterRole", _METRICS, _render_rules(METRICS), account=_METRICS),
        "{{- end }}",
        *_render_role_and_binding(
            "ClusterRole", f"{_METRICS}-registration", _render_rules(REGISTRATION), account=_METRICS
        ),
        # Kubernetes' own roles for aggregated APIs.
        *_render_binding("ClusterRole", f"{_METRICS}-delegator", "system:auth-delegator", account=_METRICS),
        *_render_binding(
            "Role",
            _METRICS,
            "extension-apiserver-authentication-reader",
            namespace="kube-system",
            account=_METRICS,
        ),
        "{{- end }}",
        "{{- if .Values.rbac.userRoles }}",
        *_render_role("ClusterRole", _VIEWER, _render_rules(VIEW), joins=("view", "edit", "admin")),
        *_render_role("ClusterRole", _EDITOR, _render_rules(EDIT), joins=("edit", "admin")),
        '{{- if eq .Values.autoscaling.metricsApi "builtin" }}',
        *_render_role("ClusterRole", f"{_METRICS}-view", _render_rules(VIEW_METRICS), joins=("view", "edit", "admin")),
        "{{- end }}",
        "{{- end }}",
    ]
    return "\n".join(lines) + "\n"


def _render_role_and_binding(
    kind: str, name: str, rules: Iterable[str], namespace: str = "", account: str = _ACCOUNT
) -> Iterator[str]:
    """Yield a role, and its binding to a service account of Conch."""
    yield from _render_role(kind, name, rules, namespace)
    yield from _render_binding(kind, name, name, namespace, account)


def _render_binding(kind: str, name: str, role: str, namespace: str = "", account: str = _ACCOUNT) -> Iterator[str]:
    """Yield the binding of a role to a service account of Conch."""
    yield from _render_head(f"{kind}Binding", name, namespace)
    yield "roleRef:"
    yield "  apiGroup: rbac.authorization.k8s.io"
    yield f"  kind: {kind}"
    yield f"  name: {role}"
    yield "subjects:"
    yield "  - kind: ServiceAccount"
    yield f"    name: {account}"
    yield "    namespace: {{ $.Release.Namespace }}"


def _render_role(
    kind: str, name: str, rules: Iterable[str], namespace: str = "", joins: Iterable[str] = ()
) -> Iterator[str]:
    yield from _render_head(kind, name, namespace)
    for role in joins:
        yield f'    rbac.authorization.k8s.io/aggregate-to-{role}: "true"'
    if name == _OPERATOR:  # by which the installation of another release finds this one, and what it serves
        yield "  {{- with $.Values.watchLabelSelector }}"
        yield "  annotations:"
        yield f"    {ANNOTATION_LABEL_SELECTOR}: {{{{ . | quote }}}}"
        yield "  {{- end }}"
    yield "rules:"
    yield from rules


def _render_head(kind: str, name: str, namespace: str) -> Iterator[str]:
    yield "---"
    yield "apiVersion: rbac.authorization.k8s.io/v1"
    yield f"kind: {kind}"
    yield "metadata:"
    yield f"  name: {name}"
    if namespace:
        yield f"  namespace: {namespace}"
    yield "  labels:"
    yield '    {{- include "conch.labels" $ | nindent 4 }}'


def _render_rules(grants: Iterable[Grant]) -> Iterator[str]:
    for grant in grants:
        yield from _render_comment(f"{grant.why[0].upper()}{grant.why[1:]}.")
        yield f'  - apiGroups: ["{grant.kind.group}"]'
        yield f"    resources: [{grant.resource}]"
        if grant.names:
            yield f"    resourceNames: [{', '.join(grant.names)}]"
        yield f"    verbs: [{', '.join(grant.verbs)}]"


def _render_comment(text: str) -> list[str]:
    return wrap(text, 108, initial_indent="  # ", subsequent_indent="  # ")


if __name__ == "__main__":
    sys.stdout.write(to_yaml())
