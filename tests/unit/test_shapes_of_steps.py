"""A good candidate gets all requests in the end, with any valid steps and any requests of users."""

from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conch.api.kinds import DEPLOYMENT, HTTP_ROUTE, Ref
from tests.unit.simulation import KEY, Cluster, build_manifest, measure

PODS: Final = 3
SPLITS: Final[dict[str, dict[str, Any] | None]] = {
    "gateway": {"gateways": [{"name": "public"}], "hostnames": ["magika.example.com"]},
    "replicas": {"split": "Replicas"},
    "nothing": None,
}
WAITS: Final[list[dict[str, Any]]] = [{"pause": "Manual"}, {"pause": "1m"}, {"analysis": "1m"}]
REQUESTS: Final = ["", "promote", "promote in full", "pause", "abort", "retry"]


@st.composite
def draw_steps(draw: st.DrawFn, *, shares: bool) -> list[dict[str, Any]]:
    """Steps in any order; the weights do not go down. Without `shares` they are 0 or 100."""
    places = draw(st.lists(st.sampled_from(["share", "share", *range(len(WAITS))]), max_size=7))
    weight = st.integers(0, 100) if shares else st.sampled_from([0, 100])
    weights = iter(sorted(draw(weight) for place in places if place == "share"))
    return [{"weight": next(weights)} if place == "share" else WAITS[int(place)] for place in places]


class Course:
    """A rollout without failures; requests of users may change its course."""

    def __init__(self, split: str, steps: list[dict[str, Any]]) -> None:
        gates = [{"successRate": {"min": "99%"}}] if any("analysis" in step for step in steps) else []
        rollout = {"steps": steps, "progressDeadline": "5m", **({"analysis": gates} if gates else {})}
        self.cluster = Cluster(build_manifest(minReplicas=PODS, rollout=rollout, traffic=SPLITS[split]))
        self.cluster.reconcile()
        for _ in range(3):
            self.advance()
        assert self.cluster.condition("Ready") == ("True", "Served")
        self.cluster.edit(uri="s3://models/v2")
        self.cluster.settle()
        self.candidate = self.cluster.decision().wanted

    def advance(self) -> None:
        """Start and end pods as wanted, accept the route, and measure good answers for a minute."""
        for _ in range(3):
            for ref in [ref for ref in self.cluster.objects if ref.kind == DEPLOYMENT]:
                self.cluster.start_pods(ref.name)
            self.cluster.end_pods()
            if Ref(HTTP_ROUTE, KEY.name) in self.cluster.objects:
                self.cluster.accept_routes()
            self.cluster.settle()
        measure(self.cluster, 70, requests=700)

    def request(self, request: str) -> None:
        """Write a request, as a user does after reading the status."""
        rollout = self.cluster.status.rollout
        step = f"/{rollout.step}" if rollout and request == "promote" else ""
        generation = self.cluster.snapshot().service.metadata.generation
        self.cluster.request(f"{request.split(maxsplit=1)[0]} {generation}{step} {self.cluster.now}" if request else "")
        self.cluster.settle()

    def is_over(self) -> bool:
        """Whether there is one revision, the candidate, and it has all requests."""
        there = {ref.name for ref in self.cluster.objects if ref.kind == DEPLOYMENT}
        is_served = self.cluster.condition("Ready") == ("True", "Served")
        return is_served and self.cluster.status.rollout is None and there == {self.candidate}


@pytest.mark.parametrize("split", SPLITS)
@settings(deadline=None, max_examples=6)
@given(data=st.data())
def test_a_good_candidate_gets_all_requests_in_the_end(split: str, data: st.DataObject) -> None:
    steps = data.draw(draw_steps(shares=split != "nothing"), "steps")
    course = Course(split, steps)
    for request in data.draw(st.lists(st.sampled_from(REQUESTS), max_size=4), "requests"):
        course.request(request)
        course.advance()
    for _ in range(2 * len(steps) + 6):
        if course.is_over():
            return
        rollout = course.cluster.status.rollout
        failed = rollout is not None and rollout.phase == "Failed"
        course.request("retry" if failed else "promote")
        course.advance()
    raise AssertionError(f"stuck: {course.cluster.status.rollout}, {course.cluster.condition('Ready')}")
