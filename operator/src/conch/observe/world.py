"""The World: all that is known of one service at one moment, as a frozen value.

`observe` reads it from the store; every later room is a function of it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, Self, TypeGuard

from pydantic import ValidationError

from conch.api import InferenceService
from conch.api.kinds import (
    AUTOSCALER,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    HTTP_ROUTE,
    INFERENCE_SERVICE,
    POD,
    REPLICA_SET,
    SCALED_OBJECT,
    SERVICE,
    SHARED,
    Ref,
    ServiceKey,
)
from conch.api.metrics import MetricsApi
from conch.api.names import (
    ANNOTATION_AUTHOR,
    ANNOTATION_CHANGE_CAUSE,
    ANNOTATION_DIGEST,
    ANNOTATION_GENERATION,
    ANNOTATION_OBJECT_VERSIONS,
    ANNOTATION_STABLE,
    ANNOTATION_WARMUP_DIGEST,
    LABEL_SERVICE_NAME,
)
from conch.observe.capacity import Capacity
from conch.observe.fields import annotations_of, labels_of, mapping, mappings, number
from conch.observe.gateways import Gateways, SeenGateways, named_gateways
from conch.observe.hostnames import Claim, is_accepted
from conch.observe.identity import controller_uid, is_orphan, owner_words, variant_of
from conch.observe.measured import Measured
from conch.observe.parity import parities
from conch.observe.routes import RouteConflict, find_route_conflict, read_age, read_route
from conch.observe.store import Store
from conch.observe.trim import AUTHORS
from conch.observe.trouble import Trouble
from conch.observe.warmup import present, warmups
from conch_contract import AgentReport, ParityReport, WarmupReport, names

Body = Mapping[str, Any]  # a Kubernetes object, as its manifest spells it
Endpoints = Mapping[str, frozenset[str]]
"""By Service of the service, the uids of the pods that its EndpointSlices list as ready."""


@dataclass(frozen=True)
class Pod:
    """One serving pod, as far as a decision can depend on it."""

    name: str
    uid: str
    revision: str
    variant: str
    ip: str
    ready: bool  # and the EndpointSlices of its revision's Service list it
    leaving: bool
    status: Body
    report: AgentReport | None = None

    @classmethod
    def parse(cls, body: Body, endpoints: Endpoints) -> Self:
        """Read a trimmed pod.

        A pod's own condition comes first, its place in the EndpointSlices a moment later, and a gateway that is
        told in between finds nobody behind the Service (measured on Traefik: 503 for a second or two).
        """
        meta, status = body["metadata"], body["status"]
        revision = meta.get("labels", {}).get(names.LABEL_REVISION, "")
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status["conditions"])
        over = status["phase"] in {"Failed", "Succeeded"}
        return cls(
            name=meta["name"],
            uid=meta["uid"],
            revision=revision,
            variant=meta.get("labels", {}).get(names.LABEL_VARIANT, ""),
            ip=status["podIP"],
            ready=ready and not over and meta["uid"] in endpoints.get(revision, ()),
            leaving=over or "deletionTimestamp" in meta,
            status=status,
        )


@dataclass(frozen=True)
class Revision:
    """One revision as its ControllerRevision keeps it: rendered once, applied from there ever after."""

    name: str
    number: int
    generation: int
    template: Body  # a PodTemplateSpec
    manifest: str  # the model manifest, JSON
    predictor: Body  # the user's words that made it
    author: str = ""  # the field manager that asked for it
    note: str = ""  # why, in that person's words
    digest: str = ""  # of the model's files, once it has served
    object_versions: str = ""  # in which its bucket has these files, as encode_versions writes them; empty: none
    warmup_digest: str = ""  # of the ConfigMap with which its first ready pod was warmed; empty: none

    @classmethod
    def parse(cls, body: Body) -> Self | None:
        """Read a ControllerRevision; None where its data is not that of a revision."""
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
            digest=annotations.get(ANNOTATION_DIGEST, ""),
            object_versions=annotations.get(ANNOTATION_OBJECT_VERSIONS, ""),
            warmup_digest=annotations.get(ANNOTATION_WARMUP_DIGEST, ""),
        )


def _is_template(value: Any) -> TypeGuard[Body]:
    """Whether a value is a pod template with containers."""
    spec = mapping(mapping(value).get("spec"))
    return any(mappings(spec.get("containers"))) and any(mappings(spec.get("initContainers")))


def _is_manifest(value: Any) -> TypeGuard[str]:
    """Whether a value is a model manifest of any version: a JSON object."""
    try:
        return isinstance(value, str) and isinstance(json.loads(value), dict)
    except (ValueError, RecursionError):
        return False


_JOBS: Final = frozenset({names.LABEL_WARMUP, names.LABEL_PARITY})  # on pods that do not serve


@dataclass(frozen=True)
class World:
    """One service and all that is its own."""

    service: InferenceService
    now: float  # seconds since the epoch
    children: Mapping[Ref, Body] = field(default_factory=dict)  # controlled by this very service, or by nobody any more
    strangers: Mapping[Ref, str] = field(default_factory=dict)  # labelled as ours, but somebody else's: whose
    revisions: Mapping[str, Revision] = field(default_factory=dict)
    authors: Mapping[str, str] = field(default_factory=dict)  # field managers that last wrote a variant; "": predictor
    pods: tuple[Pod, ...] = ()
    endpoints: Endpoints = field(default_factory=dict)
    metrics_api: MetricsApi = "builtin"  # who tells autoscalers of Triton, as the installer says
    prometheus: str = ""  # the URL at which KEDA asks about Triton, as the installer says
    gateways: SeenGateways | None = None  # that the service names, in its order; None: nobody watches Gateways
    hostname_conflicts: Mapping[ServiceKey, Claim] = field(default_factory=dict)  # with services of older routes
    route_conflict: RouteConflict | None = None  # with a route that no service controls
    warmups: Mapping[str, WarmupReport] = field(default_factory=dict)  # by revision, of warm-up Jobs that ended
    parities: Mapping[str, ParityReport] = field(default_factory=dict)  # by candidate, of parity Jobs that ended
    measured: Mapping[str, Measured] = field(default_factory=dict)  # by candidate, where gates look at it
    capacity: Capacity | None = None  # what GPUs there are, where a rollout asks; None: nobody has told yet
    idle_jobs: Mapping[str, Body] = field(default_factory=dict)  # by uid, the Jobs that have no pod
    warnings: Mapping[str, Trouble] = field(default_factory=dict)  # by uid, the latest Warning event of stuck objects

    @property
    def key(self) -> ServiceKey:
        """The service's name in the cluster."""
        return ServiceKey(self.service.metadata.namespace, self.service.metadata.name)

    @property
    def author(self) -> str:
        """The field manager that last wrote the predictor, or the variant as which the service is looked at."""
        return self.authors.get(self.service.variant, "")

    @property
    def routed(self) -> str | None:
        """The revision that carries the service, as the root Service last said."""
        root = self.children.get(Ref(SERVICE, self.service.track))
        return annotations_of(root).get(ANNOTATION_STABLE) or None if root else None

    def deployment(self, revision: str) -> Body | None:
        """A revision's Deployment, if there is one."""
        return self.children.get(Ref(DEPLOYMENT, revision))

    def is_known(self, revision: str) -> bool:
        """Whether a revision has a Deployment, or a ControllerRevision from which one is created again."""
        return self.deployment(revision) is not None or revision in self.revisions

    def autoscaler(self, revision: str) -> Body | None:
        """A revision's HorizontalPodAutoscaler, if there is one."""
        return self.children.get(Ref(AUTOSCALER, revision))

    def scaled_object(self, revision: str) -> Body | None:
        """A revision's ScaledObject, if there is one."""
        return self.children.get(Ref(SCALED_OBJECT, revision))

    def pods_of(self, revision: str) -> tuple[Pod, ...]:
        """The pods of a revision that are not leaving."""
        return tuple(pod for pod in self.pods if pod.revision == revision and not pod.leaving)

    def ready(self, revision: str) -> int:
        """How many pods of a revision answer requests."""
        return sum(pod.ready for pod in self.pods_of(revision))

    @property
    def listed_pods(self) -> tuple[Pod, ...]:
        """The pods that the EndpointSlices of the root Service list as ready, those that leave included."""
        listed = self.endpoints.get(self.service.track, frozenset())
        return tuple(pod for pod in self.pods if pod.uid in listed)

    def replicas(self, revision: str) -> int:
        """How many pods a revision's Deployment wants at this moment; 0 if there is none."""
        deployment = self.deployment(revision)
        return number(mapping(deployment.get("spec")).get("replicas")) if deployment else 0

    @cached_property  # asked for several times in a reconcile
    def tracks(self) -> tuple["World", ...]:
        """The world as the predictor sees it, then as each variant does: a service of its own."""
        return tuple(self.of_variant(name) for name in ("", *(variant.name for variant in self.service.spec.variants)))

    @property
    def left(self) -> tuple["World", ...]:
        """What variants left behind that are asked for no more."""
        asked = {"", *(variant.name for variant in self.service.spec.variants)}
        return tuple(self.of_variant(name) for name in sorted({variant_of(c) for c in self.children.values()} - asked))

    def of_variant(self, name: str) -> "World":
        """One variant's part of this world, and the shared objects; an empty name means the predictor."""
        children = {r: c for r, c in self.children.items() if r.kind in SHARED or variant_of(c) == name}
        return replace(
            self,
            service=self.service.of_variant(name),
            children=children,
            revisions={
                each: known for each, known in self.revisions.items() if Ref(CONTROLLER_REVISION, each) in children
            },
            pods=tuple(pod for pod in self.pods if pod.variant == name),
        )

    def with_measured(self, measured: Mapping[str, Measured]) -> "World":
        """The same world with what was measured of its candidates."""
        return replace(self, measured=measured)

    def with_warnings(self, warnings: Mapping[str, Trouble]) -> "World":
        """Return the same world with the latest Warning events of stuck objects, by uid."""
        return replace(self, warnings=warnings)

    def with_capacity(self, capacity: Capacity | None) -> "World":
        """The same world with what GPUs the cluster has."""
        return replace(self, capacity=capacity)

    def told(self, reports: Mapping[str, AgentReport]) -> "World":
        """The same world with what pods answered (by uid)."""
        return replace(self, pods=tuple(replace(pod, report=reports.get(pod.uid)) for pod in self.pods))


_TOO_LARGE: Final = (
    "The objects in this namespace that name an InferenceService as their controller are larger than Conch reads (16"
    " MiB, and 1 MiB for each InferenceService). Not read: {objects}. Conch changes nothing of the service until they"
    " are smaller: delete those that are not Conch's."
)


@dataclass(frozen=True)
class Unreadable:
    """A service that cannot be decided on: it, or an object of its own, cannot be read. What serves stays as it is."""

    uid: str
    generation: int
    status: Body
    message: str
    reason: str = "SpecUnreadable"  # the CRD is newer than the operator
    cut: tuple[Ref, ...] = ()  # the objects of which only the metadata is kept


def observe(
    store: Store,
    key: ServiceKey,
    now: float,
    gateways: Gateways | None = None,
    metrics_api: MetricsApi = "builtin",
    *,
    prometheus: str = "",
) -> World | Unreadable | None:
    """Read a service's world; None if there is no such service or it is being deleted.

    Args:
        store: what was seen of services and their children.
        key: which service.
        now: seconds since the epoch.
        gateways: what was seen of Gateways; None where nobody watches them.
        metrics_api: who tells autoscalers of Triton.
        prometheus: the URL at which KEDA asks about Triton; empty: none is known.
    """
    objects = store.objects(key)
    body = objects.pop(Ref(INFERENCE_SERVICE, key.name), None)
    if body is None or "deletionTimestamp" in body["metadata"]:
        return None
    try:
        service = InferenceService.parse(body)
    except ValidationError as error:
        meta = body["metadata"]
        return Unreadable(meta["uid"], meta["generation"], body.get("status") or {}, _complaint(error))
    if cut := store.cut(key):
        return _too_large(body, cut)
    bodies = [objects.pop(ref) for ref in list(objects) if ref.kind == POD]
    slices = [objects.pop(ref) for ref in list(objects) if ref.kind == ENDPOINT_SLICE]
    replica_sets = [objects.pop(ref) for ref in list(objects) if ref.kind == REPLICA_SET]
    seen = None if gateways is None else gateways.look(named_gateways(body))
    uid = body["metadata"]["uid"]
    ours = {ref: child for ref, child in objects.items() if controller_uid(child) == uid or is_orphan(child, key.name)}
    endpoints = _read_endpoints(slices, ours)
    owners = store.past_owners | {each["metadata"]["uid"]: controller_uid(each) for each in replica_sets}
    serving = [pod for pod in bodies if _JOBS.isdisjoint(labels_of(pod)) and _is_of_revision(pod, ours, owners)]
    pods = [Pod.parse(pod, endpoints) for pod in serving]
    records = (Revision.parse(child) for ref, child in ours.items() if ref.kind == CONTROLLER_REVISION)
    return World(
        service=service,
        now=now,
        children=ours,
        strangers={ref: owner_words(child) for ref, child in objects.items() if ref not in ours},
        revisions={record.name: record for record in records if record is not None},
        authors=body["metadata"].get(AUTHORS, {}),
        pods=tuple(sorted(pods, key=lambda pod: pod.name)),
        endpoints=endpoints,
        metrics_api=metrics_api,
        prometheus=prometheus,
        gateways=seen,
        hostname_conflicts=_find_hostname_conflicts(store, key, ours.get(Ref(HTTP_ROUTE, key.name))),
        route_conflict=_find_route_conflict(store, service, ours.get(Ref(HTTP_ROUTE, key.name)), seen or {}),
        warmups=warmups(bodies, ours.values()),
        parities=parities(bodies, ours.values()),
        idle_jobs=_find_idle_jobs(bodies, ours.values()),
    )


def _too_large(service: Body, cut: Sequence[Ref]) -> Unreadable:
    """Return that some objects of a service are not kept."""
    meta, more = service["metadata"], f" and {len(cut) - 1} more" if cut[1:] else ""
    message = _TOO_LARGE.format(objects=f"{cut[0]}{more}")
    status = service.get("status") or {}
    return Unreadable(meta["uid"], meta["generation"], status, message, "ObjectsTooLarge", tuple(cut))


def _is_of_revision(pod: Body, children: Mapping[Ref, Body], owners: Mapping[str, str | None]) -> bool:
    """Whether a pod is one of the Deployment of the revision that its label names.

    A ReplicaSet without a controller was left behind, and the Deployment that is made anew adopts it.

    Args:
        pod: trimmed.
        children: of the service.
        owners: the uid of the controller of each ReplicaSet that is or was there, by its uid.
    """
    replica_set = controller_uid(pod)
    if replica_set is None or replica_set not in owners:
        return False
    deployment = children.get(Ref(DEPLOYMENT, labels_of(pod).get(names.LABEL_REVISION, "")))
    owner = owners[replica_set]
    return owner is None or deployment is None or owner == deployment["metadata"]["uid"]


def _read_endpoints(slices: Iterable[Body], children: Mapping[Ref, Body]) -> dict[str, frozenset[str]]:
    """Return the pods that each Service lists as ready.

    A Service has a slice for each address family and each hundred pods. Those of a deleted Service of the same name
    count for nothing: the EndpointSlice controller removes them.
    """
    found: dict[str, set[str]] = {}
    for each in slices:
        name = str(labels_of(each).get(LABEL_SERVICE_NAME, ""))
        service = children.get(Ref(SERVICE, name))
        if service is not None and controller_uid(each) == service["metadata"]["uid"]:
            found.setdefault(name, set()).update(each["pods"])
    return {name: frozenset(uids) for name, uids in found.items()}


def _find_idle_jobs(pods: Iterable[Body], children: Iterable[Body]) -> dict[str, Body]:
    """Return the Jobs that have no pod, by uid."""
    owners = {owner["uid"] for pod in pods for owner in pod["metadata"].get("ownerReferences") or ()}
    return {job["metadata"]["uid"]: job for job in present(children) if job["metadata"]["uid"] not in owners}


def _find_hostname_conflicts(store: Store, key: ServiceKey, route: Body | None) -> dict[ServiceKey, Claim]:
    """Return the services with an older route for a hostname of this one, which gateways prefer; and the hostname."""
    if route is None:
        return {}
    found = store.hostnames.others(key)
    routes = {other: store.get(other, Ref(HTTP_ROUTE, other.name)) for other in found}
    return {
        other: found[other]
        for other, body in routes.items()
        if body and read_age(body) < read_age(route) and is_accepted(body, found[other])
    }


def _find_route_conflict(
    store: Store, service: InferenceService, body: Body | None, gateways: SeenGateways
) -> RouteConflict | None:
    """Return how a route that no service controls takes requests of this one."""
    hostnames = service.spec.traffic.hostnames if service.spec.traffic else ()
    found = store.routes.at(hostnames) if body is not None else []
    route = read_route(body) if body is not None and found else None
    if route is None:
        return None
    foreign = (each for each in found if each.age.route != route.age.route)
    return find_route_conflict(route, foreign, service.model_name, gateways)


def _complaint(error: ValidationError) -> str:
    """Say which field holds what nobody expected, and what to do."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return (
        f"{where} is {first.get('input')!r}, which this operator cannot read ({first['msg']})."
        " Upgrade the operator to the version of the CRD, or change the field."
    )
