"""Reader of a service's Snapshot from the stores: its children, the pods of its revisions, and its conflicts."""

from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from conch.api import InferenceService
from conch.api.kinds import (
    CONTROLLER_REVISION,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    HTTP_ROUTE,
    INFERENCE_SERVICE,
    POD,
    REPLICA_SET,
    SERVICE,
    Ref,
    ServiceKey,
)
from conch.api.metrics import MetricsApi
from conch.api.names import LABEL_SERVICE_NAME
from conch.api.reasons import Reason
from conch.observe.cache_fields import AUTHORS
from conch.observe.fields import labels_of
from conch.observe.gateways import Gateways, SeenGateways, list_gateways
from conch.observe.identity import controller_uid, is_orphan, owner_words
from conch.observe.jobs import find_idle_jobs, read_reports
from conch.observe.pod import Body, Pod
from conch.observe.routes import RouteConflict, find_route_conflict, read_route
from conch.observe.snapshot import Revision, Snapshot
from conch.observe.store import Store
from conch_contract import SignaturePolicy, names
from conch_contract.revision_jobs import REVISION_JOBS

_JOBS: Final = frozenset(job.label for job in REVISION_JOBS)  # labels of pods that do not serve
_TOO_LARGE: Final = (
    "The objects in this namespace that name an InferenceService as their controller are larger than Conch reads (16"
    " MiB, and 1 MiB for each InferenceService). Not read: {objects}. Conch changes nothing of the service until they"
    " are smaller: delete those that are not Conch's."
)


@dataclass(frozen=True)
class Unreadable:
    """A service in quarantine: it, or one of its objects, cannot be read. Its objects stay as they are."""

    uid: str
    generation: int
    status: Body
    message: str
    reason: str = Reason.SPEC_UNREADABLE  # the CRD is newer than the operator
    cut: tuple[Ref, ...] = ()  # the objects of which the store keeps only the metadata


def observe(
    store: Store,
    key: ServiceKey,
    now: float,
    gateways: Gateways | None = None,
    metrics_api: MetricsApi = "builtin",
    *,
    prometheus: str = "",
    policy: SignaturePolicy | None = None,
) -> Snapshot | Unreadable | None:
    """Return the snapshot of a service; None: it does not exist or is being deleted.

    Args:
        store: the last seen services and children.
        key: the service.
        now: seconds since the epoch.
        gateways: the last seen Gateways; None: they are not watched.
        metrics_api: the server of Triton's metrics for autoscalers.
        prometheus: the URL from which KEDA reads Triton's metrics; empty: there is none.
        policy: the signature policy of the namespace; None: it has none.
    """
    objects = store.objects(key)
    body = objects.pop(Ref(INFERENCE_SERVICE, key.name), None)
    if body is None or "deletionTimestamp" in body["metadata"] or store.left_out(key):
        return None  # the deletion of what is left out queues the service
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
    seen = None if gateways is None else gateways.find(list_gateways(body))
    uid = body["metadata"]["uid"]
    ours = {ref: child for ref, child in objects.items() if controller_uid(child) == uid or is_orphan(child, key.name)}
    endpoints = _read_endpoints(slices, ours)
    present_owners = {each["metadata"]["uid"]: controller_uid(each) for each in replica_sets}
    owners = ChainMap(present_owners, store.past_owners.of(key.namespace))
    serving = [pod for pod in bodies if _JOBS.isdisjoint(labels_of(pod)) and _is_of_revision(pod, ours, owners)]
    pods = [Pod.parse(pod, endpoints) for pod in serving]
    records = (Revision.parse(child) for ref, child in ours.items() if ref.kind == CONTROLLER_REVISION)
    return Snapshot(
        service=service,
        now=now,
        children=ours,
        foreign_objects={ref: owner_words(child) for ref, child in objects.items() if ref not in ours},
        revisions={record.name: record for record in records if record is not None},
        authors=body["metadata"].get(AUTHORS, {}),
        pods=tuple(sorted(pods, key=lambda pod: pod.name)),
        endpoints=endpoints,
        metrics_api=metrics_api,
        prometheus=prometheus,
        signature_policy=policy,
        gateways=seen,
        hostname_conflict=store.hostnames.conflict(key) if Ref(HTTP_ROUTE, key.name) in ours else None,
        route_conflict=_find_route_conflict(store, service, ours.get(Ref(HTTP_ROUTE, key.name)), seen or {}),
        job_reports=read_reports(bodies, ours.values()),
        idle_jobs=find_idle_jobs(bodies, ours.values()),
    ).with_new_pods()


def _too_large(service: Body, cut: Sequence[Ref]) -> Unreadable:
    """Return the quarantine of a service of which the store keeps some objects only in part."""
    meta, more = service["metadata"], f" and {len(cut) - 1} more" if cut[1:] else ""
    message = _TOO_LARGE.format(objects=f"{cut[0]}{more}")
    status = service.get("status") or {}
    return Unreadable(meta["uid"], meta["generation"], status, message, Reason.OBJECTS_TOO_LARGE, tuple(cut))


def _is_of_revision(pod: Body, children: Mapping[Ref, Body], owners: Mapping[str, str | None]) -> bool:
    """Whether a pod is one of the Deployment of the workload, or else the revision, that its label names.

    A ReplicaSet without a controller is an orphan, which the new Deployment adopts.

    Args:
        pod: trimmed.
        children: of the service.
        owners: the uid of the controller of each present or deleted ReplicaSet, by its uid.
    """
    replica_set = controller_uid(pod)
    if replica_set is None or replica_set not in owners:
        return False
    labels = labels_of(pod)
    workload = labels.get(names.LABEL_WORKLOAD) or labels.get(names.LABEL_REVISION, "")
    deployment = children.get(Ref(DEPLOYMENT, workload))
    owner = owners[replica_set]
    return owner is None or deployment is None or owner == deployment["metadata"]["uid"]


def _read_endpoints(slices: Iterable[Body], children: Mapping[Ref, Body]) -> dict[str, frozenset[str]]:
    """Return the uids of the pods that the EndpointSlices of each Service list as ready.

    A Service has a slice for each address family and each hundred pods. Those of a deleted Service with the same
    name are ignored: the EndpointSlice controller removes them.
    """
    found: dict[str, set[str]] = {}
    for each in slices:
        name = str(labels_of(each).get(LABEL_SERVICE_NAME, ""))
        service = children.get(Ref(SERVICE, name))
        if service is not None and controller_uid(each) == service["metadata"]["uid"]:
            found.setdefault(name, set()).update(each["pods"])
    return {name: frozenset(uids) for name, uids in found.items()}


def _find_route_conflict(
    store: Store, service: InferenceService, body: Body | None, gateways: SeenGateways
) -> RouteConflict | None:
    """Return the conflict with a route that no service controls; None: there is none."""
    hostnames = service.spec.traffic.hostnames if service.spec.traffic else ()
    found = store.routes.at(hostnames) if body is not None else []
    route = read_route(body) if body is not None and found else None
    if route is None:
        return None
    foreign = (each for each in found if each.age.route != route.age.route)
    return find_route_conflict(route, foreign, service.model_name, gateways)


def _complaint(error: ValidationError) -> str:
    """Return the message for a field with an unexpected value."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return (
        f"{where} is {first.get('input')!r}, which this operator cannot read ({first['msg']})."
        " Upgrade the operator to the version of the CRD, or change the field."
    )
