"""The Snapshot: the state of one service at one time, as a frozen value, and its tracks.

`reading` builds it from the stores; all later packages are functions of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Self, TypeGuard

from conch.api import InferenceService
from conch.api.child_kinds import SHARED
from conch.api.kinds import AUTOSCALER, CONTROLLER_REVISION, DEPLOYMENT, SCALED_OBJECT, SERVICE, Ref, ServiceKey
from conch.api.metrics import MetricsApi
from conch.api.names import (
    ANNOTATION_AUTHOR,
    ANNOTATION_CHANGE_CAUSE,
    ANNOTATION_CONTENTS,
    ANNOTATION_GENERATION,
    ANNOTATION_MODEL,
    ANNOTATION_STABLE,
    ANNOTATION_WORKLOAD,
)
from conch.observe.capacity import Capacity
from conch.observe.contents import Contents, decode_contents, read_old_contents
from conch.observe.fields import annotations_of, mapping, mappings, number, text
from conch.observe.finding import Finding
from conch.observe.gateways import SeenGateways
from conch.observe.hostnames import Claim
from conch.observe.identity import variant_of
from conch.observe.measured import Measured
from conch.observe.pod import Body, Endpoints, Pod
from conch.observe.routes import RouteConflict
from conch_contract import AgentReport, JobReport, SignaturePolicy, names
from conch_contract.parsing import parse_json
from conch_contract.revision_jobs import Report_co, RevisionJob


@dataclass(frozen=True)
class Revision:
    """A revision, as its ControllerRevision stores it: rendered once, and applied from there."""

    name: str
    number: int
    generation: int
    template: Body  # a PodTemplateSpec
    manifest: str  # the model manifest, JSON
    predictor: Body  # the predictor of the spec
    author: str = ""  # the field manager that wrote the predictor
    note: str = ""  # the change cause, an annotation of the service
    contents: Contents = field(default_factory=dict)  # of its models, once it has served
    workload: str = ""  # whose pods serve it; empty: pods of its own

    @property
    def has_lasting_pods(self) -> bool:
        """Whether pods of its template can serve other revisions, one after another."""
        return names.LABEL_WORKLOAD in mapping(mapping(self.template.get("metadata")).get("labels"))

    @property
    def entry(self) -> str:
        """Name of the model that clients call; empty: another writer removed it."""
        annotations = mapping(mapping(self.template.get("metadata")).get("annotations"))
        return text(annotations.get(ANNOTATION_MODEL))

    @property
    def sources(self) -> Mapping[str, str]:
        """Identities of the listings that it was created for, by model; empty: it was created for a spec."""
        found = {text(model.get("name")): text(model.get("sourceIdentity")) for model in _read_models(self.manifest)}
        return {name: identity for name, identity in found.items() if identity}

    @property
    def optional_models(self) -> frozenset[str]:
        """Names of the models that are not required."""
        return frozenset(text(model.get("name")) for model in _read_models(self.manifest) if not _is_required(model))

    @classmethod
    def parse(cls, body: Body) -> Self | None:
        """Return the revision of a ControllerRevision; None: its data is not that of a revision."""
        meta, data, annotations = body["metadata"], mapping(body.get("data")), annotations_of(body)
        template, manifest, predictor = (data.get(field) for field in ("template", "manifest", "predictor"))
        if not (_is_template(template) and _is_manifest(manifest) and isinstance(predictor, Mapping)):
            return None
        return cls(
            name=meta["name"],
            number=number(body.get("revision")),
            generation=number(annotations.get(ANNOTATION_GENERATION)),
            template=template,
            manifest=manifest,
            predictor=predictor,
            author=annotations.get(ANNOTATION_AUTHOR, ""),
            note=annotations.get(ANNOTATION_CHANGE_CAUSE, ""),
            contents=_read_contents(annotations, manifest),
            workload=annotations.get(ANNOTATION_WORKLOAD, ""),
        )


def _is_template(value: Any) -> TypeGuard[Body]:
    """Whether a value is a pod template with containers."""
    spec = mapping(mapping(value).get("spec"))
    return any(mappings(spec.get("containers"))) and any(mappings(spec.get("initContainers")))


def _read_contents(annotations: Mapping[str, str], manifest: str) -> Contents:
    """Return the contents of a revision's annotations; empty: they are not those of all models of the manifest."""
    model_names = [text(model.get("name")) for model in _read_models(manifest) if _is_required(model)]
    contents = decode_contents(annotations.get(ANNOTATION_CONTENTS, ""))
    if not contents and len(model_names) == 1:
        contents = read_old_contents(annotations, model_names[0])
    return contents if all(name in contents for name in model_names) else {}


def _read_models(manifest: str) -> list[dict[str, Any]]:
    models: list[dict[str, Any]] = parse_json(manifest)["models"]
    return models


def _is_required(model: Mapping[str, Any]) -> bool:
    return model.get("required") is not False


def _is_manifest(value: Any) -> TypeGuard[str]:
    """Whether a value is a model manifest of any version: JSON with a list of models, which are objects."""
    try:
        models = mapping(parse_json(value)).get("models") if isinstance(value, str) else None
    except ValueError:
        return False
    return isinstance(models, list) and all(isinstance(model, dict) for model in models)


@dataclass(frozen=True)
class ObservedService:
    """What is observed of a service: the fields that a snapshot and its tracks have in common."""

    service: InferenceService
    now: float  # seconds since the epoch
    children: Mapping[Ref, Body] = field(default_factory=dict)  # controlled by this service, or without a controller
    revisions: Mapping[str, Revision] = field(default_factory=dict)
    pods: tuple[Pod, ...] = ()
    endpoints: Endpoints = field(default_factory=dict)
    metrics_api: MetricsApi = "builtin"  # serves Triton's metrics to autoscalers; a setting of the installation
    prometheus: str = ""  # the URL from which KEDA reads Triton's metrics; a setting of the installation
    signature_policy: SignaturePolicy | None = None  # of the namespace; None: it has none
    gateways: SeenGateways | None = None  # of the service, in its order; None: Gateways are not watched
    hostname_conflict: tuple[ServiceKey, Claim] | None = None  # with the service that gets the requests of a hostname
    route_conflict: RouteConflict | None = None  # with a route that no service controls
    job_reports: Mapping[str, JobReport] = field(default_factory=dict)  # by name of the Job; see `find_report`
    measured: Mapping[str, Measured] = field(default_factory=dict)  # by candidate, where gates evaluate it
    capacity: Capacity | None = None  # where a rollout needs admission; None: not read yet
    idle_jobs: Mapping[str, Body] = field(default_factory=dict)  # by uid, the Jobs without a pod
    warnings: Mapping[str, Finding] = field(default_factory=dict)  # by uid, the latest Warning event of stuck objects

    @property
    def key(self) -> ServiceKey:
        """Namespace and name of the service."""
        return ServiceKey(self.service.metadata.namespace, self.service.metadata.name)

    def deployment(self, workload: str) -> Body | None:
        """Return a workload's Deployment, if there is one."""
        return self.children.get(Ref(DEPLOYMENT, workload))

    def is_known(self, revision: str) -> bool:
        """Whether a revision has a Deployment, or a ControllerRevision from which one is created again."""
        return self.deployment(self.workload_of(revision)) is not None or revision in self.revisions

    def workload_of(self, revision: str) -> str:
        """Return the workload whose pods serve a revision: its own, which has its name, or that of an earlier one.

        Its ControllerRevision names it; after the loss of that, its pods do.
        """
        record = self.revisions.get(revision)
        labels = (pod.workload for pod in self.pods if pod.revision == revision and pod.workload)
        found = record.workload if record else next(labels, "")
        is_there = found in self.revisions or self.deployment(found) is not None
        return found if found and is_there else revision

    def list_revisions_with_pods(self) -> frozenset[str]:
        """Return the revisions with pods: their own, those of a workload that their Service selects, or due ones."""
        served = {pod.revision for pod in self.pods}
        served |= {ref.name for ref in self.children if ref.kind == SERVICE and self.selected_workload(ref.name)}
        deployments = {ref.name for ref in self.children if ref.kind == DEPLOYMENT}
        swapped = {pod.workload for pod in self.pods if pod.workload != pod.revision} - served
        return frozenset((deployments - swapped) | {name for name in served if self.is_known(name)})

    def selected_workload(self, service: str) -> str:
        """Return the workload that a Service selects, whatever the labels of its pods; empty: none."""
        spec = mapping(self.children.get(Ref(SERVICE, service), {}).get("spec"))
        return text(mapping(spec.get("selector")).get(names.LABEL_WORKLOAD))

    def pods_in(self, workload: str) -> tuple[Pod, ...]:
        """Return the pods of a workload that do not terminate, whichever revisions they serve."""
        return tuple(pod for pod in self.pods if (pod.workload or pod.revision) == workload and not pod.leaving)

    def autoscaler(self, workload: str) -> Body | None:
        """Return a workload's HorizontalPodAutoscaler, if there is one."""
        return self.children.get(Ref(AUTOSCALER, workload))

    def scaled_object(self, workload: str) -> Body | None:
        """Return a workload's ScaledObject, if there is one."""
        return self.children.get(Ref(SCALED_OBJECT, workload))

    def pods_of(self, revision: str) -> tuple[Pod, ...]:
        """Return the pods of a revision that do not terminate."""
        return tuple(pod for pod in self.pods if pod.revision == revision and not pod.leaving)

    def ready(self, revision: str) -> int:
        """Return the number of ready pods that serve a revision."""
        return sum(pod.answers for pod in self.pods if pod.serves == revision and not pod.leaving)

    def find_report(self, job: RevisionJob[Report_co], revision: str) -> Report_co | None:
        """Return the report of a revision's Job; None while there is none."""
        report = self.job_reports.get(job.format_name(revision))
        return report if isinstance(report, job.report) else None

    def replicas(self, workload: str) -> int:
        """Return the replicas of a workload's Deployment; 0 if there is none."""
        deployment = self.deployment(workload)
        return number(mapping(deployment.get("spec")).get("replicas")) if deployment else 0


@dataclass(frozen=True)
class Track(ObservedService):
    """The predictor or one variant, as a service of its own: its spec, status, children, revisions and pods.

    Objects that all tracks share, such as the HTTPRoute, are children of each.
    """

    author: str = ""  # the field manager that last wrote its spec

    @property
    def routed(self) -> str | None:
        """The revision that serves the track, by the annotation of its root Service."""
        root = self.children.get(Ref(SERVICE, self.service.track))
        return annotations_of(root).get(ANNOTATION_STABLE) or None if root else None

    @property
    def listed_pods(self) -> tuple[Pod, ...]:
        """The pods that the EndpointSlices of the root Service list as ready, terminating ones included."""
        listed = self.endpoints.get(self.service.track, frozenset())
        return tuple(pod for pod in self.pods if pod.uid in listed)


@dataclass(frozen=True)
class Snapshot(ObservedService):
    """The state of one service at one time, with all tracks."""

    foreign_objects: Mapping[Ref, str] = field(default_factory=dict)  # with the service's label, and another owner
    authors: Mapping[str, str] = field(default_factory=dict)  # field managers that last wrote a variant; "": predictor

    @cached_property
    def tracks(self) -> tuple[Track, ...]:
        """The predictor, then the variants in the spec's order."""
        return tuple(map(self._track, ("", *(variant.name for variant in self.service.spec.variants))))

    @cached_property
    def removed_tracks(self) -> tuple[Track, ...]:
        """Variants that were removed from the spec and still have children."""
        present = {"", *(variant.name for variant in self.service.spec.variants)}
        return tuple(map(self._track, sorted({variant_of(child) for child in self.children.values()} - present)))

    def _track(self, variant: str) -> Track:
        """Return the track of a variant; an empty name is the predictor."""
        children = {r: c for r, c in self.children.items() if r.kind in SHARED or variant_of(c) == variant}
        revisions = {name: each for name, each in self.revisions.items() if Ref(CONTROLLER_REVISION, name) in children}
        shared = {each.name: getattr(self, each.name) for each in fields(ObservedService)}
        own = {
            "service": self.service.of_variant(variant),
            "children": children,
            "revisions": revisions,
            "pods": tuple(pod for pod in self.pods if pod.variant == variant),
            "author": self.authors.get(variant, ""),
        }
        return Track(**{**shared, **own})

    def with_measured(self, measured: Mapping[str, Measured]) -> Self:
        """Return the same snapshot with the measurements of its candidates."""
        return self._with(measured=measured)

    def with_warnings(self, warnings: Mapping[str, Finding]) -> Self:
        """Return the same snapshot with the latest Warning events of stuck objects, by uid."""
        return self._with(warnings=warnings)

    def with_capacity(self, capacity: Capacity | None) -> Self:
        """Return the same snapshot with the capacity of the cluster."""
        return self._with(capacity=capacity)

    def _with(self, **changes: Any) -> Self:
        """Return the snapshot with changed fields, which it shares with its tracks."""
        changed = replace(self, **changes)
        for name in ("tracks", "removed_tracks"):
            if name in vars(self):
                vars(changed)[name] = tuple(replace(track, **changes) for track in vars(self)[name])
        return changed

    def without_future_times(self) -> Self:
        """Return the snapshot without times after `now` in the status of its service."""
        status = self.service.status.limit_times(self.now)
        service = self.service.model_copy(update={"status": status})
        return self if status is self.service.status else replace(self, service=service)

    def with_new_pods(self) -> Self:
        """Return the same snapshot where new pods of a workload serve the revision of the others.

        Their label is that of the template, which may be the one of an earlier revision.
        """
        root = self.children.get(Ref(SERVICE, self.key.name))
        stable = (annotations_of(root).get(ANNOTATION_STABLE) if root else None) or self.service.status.stable or ""
        workload = self.workload_of(stable)
        if workload == stable:
            return self
        pods = (
            pod.of_revision(stable, self.endpoints) if pod.workload == workload and not pod.is_assigned else pod
            for pod in self.pods
        )
        return replace(self, pods=tuple(pods))

    def with_reports(self, reports: Mapping[str, AgentReport]) -> Self:
        """Return the same snapshot with the reports of pods, by uid."""
        return replace(self, pods=tuple(pod.with_report(reports.get(pod.uid)) for pod in self.pods))
