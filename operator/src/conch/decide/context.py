"""The context of a rollout: the two revisions of a track, and what is known of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from conch.api import InferenceService
from conch.observe import Track
from conch.traffic import ObservedTraffic, TrafficRouter


@dataclass(frozen=True)
class RolloutContext:
    """A revision that the spec requests, and the one that carries the service; where they are the same, no rollout."""

    track: Track
    router: TrafficRouter
    traffic: ObservedTraffic
    wanted: str
    stable: str
    swap_obstacle: str = ""  # why the stable revision's pods cannot serve the wanted one; empty: they can, or are its
    swaps_in_place: bool = False  # whether they serve while they change to it
    sources: Mapping[str, str] = field(default_factory=dict)  # as in Decision

    @property
    def gave_its_name(self) -> bool:
        """Whether the pods of the stable revision began with the wanted one: pods of its own would have their name."""
        return self.wanted != self.stable and self.track.workload_of(self.stable) == self.wanted

    @property
    def service(self) -> InferenceService:
        """The service as the predictor, or as a variant."""
        return self.track.service


def least_replicas(service: InferenceService) -> int:
    """Return the minimum of replicas of a revision that is not scaled to zero."""
    return max(service.spec.predictor.min_replicas, 1)


def most_replicas(service: InferenceService) -> int:
    """Return the maximum of replicas; without maxReplicas it is minReplicas."""
    predictor = service.spec.predictor
    return predictor.max_replicas or predictor.min_replicas
