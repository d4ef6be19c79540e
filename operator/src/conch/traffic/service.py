"""Without a gateway: the root Service selects pods, so all requests go to one revision, or all pods share them."""

from collections.abc import Mapping

from conch.api.kinds import SERVICE, Ref
from conch.api.meta import Manifest, child, selector
from conch.api.names import ANNOTATION_STABLE
from conch.observe import Trouble, World
from conch.observe.fields import mapping, text
from conch.traffic.router import InForce, Shares, Way, largest
from conch_contract import names

_PROTOCOLS: Mapping[str, str] = {"http": "http", "grpc": "kubernetes.io/h2c", "metrics": "http"}


def ports(numbers: Mapping[str, int]) -> list[Manifest]:
    """Return a Service's ports, by the names that serving pods give them."""
    return [
        {"name": name, "port": port, "targetPort": name, "protocol": "TCP", "appProtocol": _PROTOCOLS[name]}
        for name, port in numbers.items()
    ]


def root_service(way: Way, selected: str | None) -> Manifest:
    """Build the Service that clients in the cluster know; `selected` None: all pods of the service answer."""
    return {
        **child(way.service, SERVICE, way.service.track, annotations={ANNOTATION_STABLE: way.serving}),
        "spec": {
            "selector": selector(way.service, selected),
            "ports": ports({"http": names.HTTP_PORT, "grpc": names.GRPC_PORT}),
        },
    }


def selected_revision(world: World) -> str | None:
    """The one revision that the root Service selects; None if it selects all, or is not there."""
    root = world.children.get(Ref(SERVICE, world.service.track)) or {}
    return text(mapping(mapping(root.get("spec")).get("selector")).get(names.LABEL_REVISION)) or None


def alone(revision: str) -> InForce:
    """Return what is in force when a Service selects one revision."""
    return InForce({revision: 100}, {revision: 100}, frozenset({revision}))


class ServiceRouter:
    """All requests to one revision: a Service has one selector."""

    atomic = True

    def selected(self, way: Way) -> str | None:
        """The revision with the larger share."""
        return largest(way.shares)

    def in_force(self, world: World) -> InForce:
        """What the Service selects is in force at once, as far as its own word goes."""
        name = selected_revision(world)
        return alone(name) if name else InForce()

    def follows(self, told: Shares, shares: Shares) -> bool:
        """Whether the revision with the larger share gets all."""
        return told == {largest(shares): 100}

    def pods(self, weight: int, capacity: int) -> int:
        """All or nothing: whoever gets requests gets all of them."""
        return capacity if weight else 1


class ReplicaRouter:
    """Requests are shared out by the number of ready pods: asked for by `traffic.split: Replicas`."""

    atomic = True

    def selected(self, way: Way) -> str | None:
        """One revision, or every pod while there is a split."""
        return next(iter(way.shares)) if len(way.shares) == 1 else None

    def in_force(self, world: World) -> InForce:
        """Tell the share that the pods come to."""
        only = selected_revision(world)
        if only:
            return alone(only)
        if Ref(SERVICE, world.service.track) not in world.children:
            return InForce()
        revisions = {pod.revision for pod in world.pods if not pod.leaving}
        ready = {name: world.ready(name) for name in sorted(revisions)}
        total = sum(ready.values())
        if not total:
            trouble = Trouble("NoReadyPods", "No pod is ready to share requests.")
            return InForce(reachable=frozenset(revisions), trouble=trouble)
        split = {name: round(100 * n / total) for name, n in ready.items() if n}
        return InForce(split, split, frozenset(revisions))

    def follows(self, told: Shares, shares: Shares) -> bool:
        """Whether one revision gets all, or several share: more the number of pods cannot say."""
        return told == shares if len(shares) == 1 else set(told) == set(shares)

    def pods(self, weight: int, capacity: int) -> int:
        """Return the pods whose ratio to `capacity` others comes nearest to the weight, at least one.

        >>> router = ReplicaRouter.__new__(ReplicaRouter)
        >>> [router.pods(weight, 9) for weight in (0, 5, 10, 25, 50, 100)]
        [1, 1, 1, 3, 9, 9]
        """
        return capacity if weight == 100 else max(1, round(capacity * weight / (100 - weight)))
