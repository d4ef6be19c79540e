"""A serving pod: the fields on which decisions depend, of its trimmed object and of its agent's report."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from conch.api.names import ANNOTATION_ASSIGNED, ANNOTATION_ASSIGNED_AT, ANNOTATION_SERVES
from conch.observe.fields import annotations_of, mapping, moment, text
from conch_contract import AgentReport, names

Body = Mapping[str, Any]  # a Kubernetes object, as in its manifest
Endpoints = Mapping[str, frozenset[str]]
"""The uids of the pods that EndpointSlices list as ready, by name of the Service."""


@dataclass(frozen=True)
class Pod:
    """A serving pod: the fields on which decisions depend."""

    name: str
    uid: str
    revision: str  # that it has to serve
    variant: str
    ip: str
    ready: bool  # it serves its revision, and the EndpointSlices of that one's Service list it
    leaving: bool
    status: Body
    report: AgentReport | None = None
    created_at: float = 0.0  # seconds since the epoch
    failed_at: float | None = None  # the same; None: its phase is not Failed, or it was deleted
    workload: str = ""  # of whose Deployment it is; empty: its revision cannot change
    label: str = ""  # the revision by which Services select it
    is_assigned: bool = False  # its revision was assigned to it; a new pod serves that of all others
    former: str = ""  # the revision that it serves until it has loaded the assigned one; empty: it leaves its Services
    assigned_at: float = 0.0  # when it was assigned, as created_at; 0: it began with it
    listed: bool = False  # ready, whatever it serves
    is_unrecorded: bool = False  # by its report it serves its revision, which its label does not have yet

    @property
    def is_up(self) -> bool:
        """Whether its condition Ready is True, whatever the EndpointSlices list."""
        return any(c["type"] == "Ready" and c["status"] == "True" for c in self.status["conditions"])

    @property
    def is_running(self) -> bool:
        """Whether it has a node and its containers have started once; one that waits for a node has not."""
        return bool(self.status["phase"] == "Running")

    @property
    def up_since(self) -> float:
        """When its condition Ready became what it is, in seconds since the epoch; 0: it is not known."""
        return moment(text(self.status.get("readySince"))) or 0.0

    @property
    def is_changing(self) -> bool:
        """Whether its revision was changed, and it is not known to serve it yet."""
        return self.is_assigned and (self.label != self.revision or bool(self.former))

    @property
    def is_unassigned(self) -> bool:
        """Whether it serves the revision of its template, and would serve whatever all others do."""
        return bool(self.workload) and not self.is_assigned and self.label == self.revision

    @property
    def is_in_place(self) -> bool:
        """Whether it gets requests while its revision changes, and serves the former one until the other is loaded."""
        return self.is_changing and bool(self.former)

    @property
    def serves(self) -> str:
        """The revision whose requests it gets."""
        return self.former if self.is_in_place else self.revision

    @property
    def answers(self) -> bool:
        """Whether it is ready for these requests."""
        return self.ready or (self.is_in_place and self.listed)

    def with_report(self, report: AgentReport | None) -> Self:
        """Return the pod with its report. One of another revision counts as none, and the pod as not ready."""
        if report is not None and report.revision not in {"", self.revision}:
            return replace(self, report=None, ready=False)
        has_come = bool(report is not None and report.revision and report.has_loaded)
        is_recorded = self.label == self.revision and not self.former
        return replace(self, report=report, is_unrecorded=has_come and not is_recorded)

    def of_revision(self, revision: str, endpoints: Endpoints) -> Self:
        """Return the pod as one that serves a revision, by which its Service may select it."""
        pod = replace(self, revision=revision)
        listed = pod.is_up and not pod.leaving and pod.uid in endpoints.get(pod.serves, ())
        return replace(pod, listed=listed, ready=listed and not pod.is_changing)

    @classmethod
    def parse(cls, body: Body, endpoints: Endpoints) -> Self:
        """Return the pod of a trimmed object.

        A pod is ready when the EndpointSlices list it, which is a moment after its condition Ready: before that, a
        gateway has no endpoint for its Service (measured on Traefik: 503 for a second or two).
        """
        meta, status = body["metadata"], body["status"]
        labels, annotations = meta.get("labels", {}), annotations_of(body)
        label, workload = labels.get(names.LABEL_REVISION, ""), labels.get(names.LABEL_WORKLOAD, "")
        assigned = annotations.get(ANNOTATION_ASSIGNED, "") if workload else ""
        over = status["phase"] in {"Failed", "Succeeded"}
        created_at = moment(meta.get("creationTimestamp")) or 0.0
        pod = cls(
            name=meta["name"],
            uid=meta["uid"],
            revision=assigned or workload or label,
            variant=labels.get(names.LABEL_VARIANT, ""),
            ip=status["podIP"],
            ready=False,
            leaving=over or "deletionTimestamp" in meta,
            status=status,
            created_at=created_at,
            failed_at=_failed_at(status, created_at) if "deletionTimestamp" not in meta else None,
            workload=workload,
            label=label,
            is_assigned=bool(assigned),
            former=annotations.get(ANNOTATION_SERVES, "") if assigned else "",
            assigned_at=moment(annotations.get(ANNOTATION_ASSIGNED_AT)) or 0.0,
        )
        return pod.of_revision(pod.revision, endpoints)


def _failed_at(status: Body, created_at: float) -> float | None:
    """Return the time when a pod failed: the last one of its status, or its creation if the kubelet refused it."""
    if status["phase"] != "Failed":
        return None
    ends = (mapping(mapping(container.get("state")).get("terminated")) for container in status["containers"])
    times = (moment(text(time)) for time in (status["readySince"], *(end.get("finishedAt") for end in ends)))
    return max((time for time in times if time is not None), default=created_at)
