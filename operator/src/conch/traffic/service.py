"""Without a gateway: the root Service selects pods, so all requests go to one revision, or all pods share them.

A change of the selector is in force when the Service's EndpointSlices list the pods of the new revision and of no
other. What kube-proxy has made of them no API reports.
"""

from collections import Counter
from collections.abc import Mapping

from conch.api import InferenceService
from conch.api.kinds import SERVICE, Ref
from conch.api.meta import Manifest, child, selector, workload_selector
from conch.api.names import ANNOTATION_APPLIED_HASH, ANNOTATION_STABLE
from conch.api.reasons import Reason
from conch.observe import Finding, Track
from conch.observe.compare import fingerprint
from conch.observe.fields import annotations_of, mapping, text
from conch.traffic.router import ObservedTraffic, Shares, TrackRoute, largest
from conch_contract import names

_PROTOCOLS: Mapping[str, str] = {"http": "http", "grpc": "kubernetes.io/h2c", "metrics": "http"}


def ports(numbers: Mapping[str, int]) -> list[Manifest]:
    """Return a Service's ports, by the names that serving pods give them."""
    return [
        {"name": name, "port": port, "targetPort": name, "protocol": "TCP", "appProtocol": _PROTOCOLS[name]}
        for name, port in numbers.items()
    ]


def select_pods(service: InferenceService, revision: str, swapped_workload: str) -> dict[str, str]:
    """Return the selector of the pods of a revision.

    Args:
        service: The service.
        revision: Name of the revision.
        swapped_workload: The workload whose pods all get its requests: they serve it after a Swap, and new ones, with
            the label of an earlier revision, answer without an operator that changes it. Empty: the label counts.
    """
    return workload_selector(service, swapped_workload) if swapped_workload else selector(service, revision)


def build_root_service(track_route: TrackRoute, selected: str | None) -> Manifest:
    """Build the Service that clients in the cluster use; `selected` None: all pods of the service answer."""
    service = track_route.service
    workload = track_route.swapped_workloads.get(selected or "", "")
    return {
        **child(service, SERVICE, service.track, annotations={ANNOTATION_STABLE: track_route.serving}),
        "spec": {
            "selector": select_pods(service, selected, workload) if selected else selector(service),
            "ports": ports({"http": names.HTTP_PORT, "grpc": names.GRPC_PORT}),
        },
    }


def selected_revision(track: Track) -> str | None:
    """Return the one revision that the root Service selects; None if it selects all, or does not exist.

    Of a workload it is the one that all its pods serve.
    """
    workload = track.selected_workload(track.service.track)
    if not workload:
        root = track.children.get(Ref(SERVICE, track.service.track)) or {}
        return text(mapping(mapping(root.get("spec")).get("selector")).get(names.LABEL_REVISION)) or None
    served = {pod.serves for pod in track.listed_pods if pod.workload == workload}
    return served.pop() if len(served) == 1 else track.routed


def wrote_stable(track: Track) -> bool:
    """Whether ANNOTATION_STABLE of the root Service is as Conch wrote it.

    The hash of the applied manifest covers it. For an operator whose manifest of the Service differs it is unknown.
    """
    root = track.children.get(Ref(SERVICE, track.service.track))
    if root is None or track.routed is None:
        return False
    selected, workload = selected_revision(track), track.selected_workload(track.service.track)
    swapped = {selected: workload} if selected and workload else {}
    manifest = build_root_service(TrackRoute(track.service, track.routed, {}, swapped_workloads=swapped), selected)
    return annotations_of(root).get(ANNOTATION_APPLIED_HASH) == fingerprint(manifest)


def listed_revisions(track: Track) -> Counter[str]:
    """Return how many pods of each revision the EndpointSlices of the root Service list as ready."""
    return Counter(pod.serves for pod in track.listed_pods)


def find_endpoint_lag(track: Track, revision: str) -> Finding | None:
    """Return the finding for a root Service that leads to another revision yet, or not to this one; None: it does.

    The EndpointSlices of a service that scales lag behind by a pod or two for a moment. So no more pods have to be
    listed than the user allows as the least. A change of the selector replaces all pods in one write, or in several of
    which the last ones remove the old pods.
    """
    others = listed_revisions(track).keys() - {revision}
    counted = sum(pod.answers and pod.serves == revision for pod in track.listed_pods)
    floor = max(track.service.spec.predictor.min_replicas, 1)
    replicas = track.replicas(track.workload_of(revision))
    if not others and counted >= min(track.ready(revision), floor, replicas):
        return None
    return Finding(
        Reason.ENDPOINTS_PENDING,
        f"Requests to Service {track.service.track} go to revision {revision} when its EndpointSlices list the ready"
        " pods of that revision, and no others. kube-controller-manager updates them.",
    )


def percentages(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the shares that these numbers of pods come to.

    >>> percentages({"a": 2, "b": 1}), percentages({})
    ({'a': 67, 'b': 33}, {})
    """
    total = sum(counts.values())
    return {name: round(100 * counts[name] / total) for name in sorted(counts) if counts[name]}


def _observe_one(track: Track, revision: str) -> ObservedTraffic:
    """Return the observed traffic when the root Service selects one revision."""
    if find_endpoint_lag(track, revision) is None:
        return ObservedTraffic({revision: 100}, {revision: 100}, frozenset({revision}))
    listed = listed_revisions(track)
    return ObservedTraffic(observed_weights=percentages(listed), reachable=frozenset({revision, *listed}))


class ServiceRouter:
    """All requests to one revision: a Service has one selector."""

    atomic = True

    def select(self, track_route: TrackRoute) -> str | None:
        """Return the revision with the larger share."""
        return largest(track_route.shares)

    def observe(self, track: Track) -> ObservedTraffic:
        """Return the revision that the Service selects, once its EndpointSlices list just its pods."""
        name = selected_revision(track)
        return _observe_one(track, name) if name else ObservedTraffic()

    def verify_weights(self, observed: Shares, desired: Shares) -> bool:
        """Whether the revision with the larger share gets all."""
        return observed == {largest(desired): 100}

    def pods(self, weight: int, capacity: int) -> int:
        """The capacity: a revision gets all requests or none."""
        return capacity if weight else 1


class ReplicaRouter:
    """Requests are shared out by the number of ready pods: `traffic.split: Replicas`."""

    atomic = True

    def select(self, track_route: TrackRoute) -> str | None:
        """Return the only revision with a share, or None: all pods while there is a split."""
        return next(iter(track_route.shares)) if len(track_route.shares) == 1 else None

    def observe(self, track: Track) -> ObservedTraffic:
        """Return the share that the pods in the Service's EndpointSlices come to."""
        only = selected_revision(track)
        if only:
            return _observe_one(track, only)
        if Ref(SERVICE, track.service.track) not in track.children:
            return ObservedTraffic()
        split = percentages(listed_revisions(track))
        reachable = frozenset({*split, *(pod.serves for pod in track.pods if not pod.leaving)})
        if not split:
            obstacle = Finding(Reason.NO_READY_PODS, "No pod is ready to share requests.")
            return ObservedTraffic(reachable=reachable, obstacle=obstacle)
        return ObservedTraffic(split, split, reachable)

    def verify_weights(self, observed: Shares, desired: Shares) -> bool:
        """Whether one revision gets all requests, or several share them: a number of pods shows no more."""
        return observed == desired if len(desired) == 1 else set(observed) == set(desired)

    def pods(self, weight: int, capacity: int) -> int:
        """Return the pods whose ratio to `capacity` others comes nearest to the weight, at least one.

        >>> router = ReplicaRouter.__new__(ReplicaRouter)
        >>> [router.pods(weight, 9) for weight in (0, 5, 10, 25, 50, 100)]
        [1, 1, 1, 3, 9, 9]
        """
        return capacity if weight == 100 else max(1, round(capacity * weight / (100 - weight)))
