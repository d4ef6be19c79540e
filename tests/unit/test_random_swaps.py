"""Random stories of Swap: whatever users, agents, gateway and clock do, requests find a pod, and none starts for it."""

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from conch.api.kinds import CONFIG_MAP, DEPLOYMENT, INFERENCE_SERVICE, POD, SERVICE, Ref
from conch_contract import ModelState, names
from tests.unit.simulation import KEY, Cluster, build_manifest
from tests.unit.state_machines import run_stories

TRAFFIC = {"gateways": [{"name": "public"}], "hostnames": ["magika.example.com"]}
STEPS: list[list[dict[str, Any]]] = [
    [],
    [{"weight": 25}, {"pause": "Manual"}, {"weight": 50}],
    [{"weight": 50}, {"pause": "1m"}],
]
STRATEGIES = [*["Swap"] * 8, "Progressive", "Recreate"]


class Swaps(RuleBasedStateMachine):
    """One service, and the changes of its environment."""

    pods = 4

    @initialize(behind_gateway=st.booleans(), steps=st.sampled_from(STEPS), far=st.integers(0, 4))
    def begin(self, behind_gateway: bool, steps: list[dict[str, Any]], far: int) -> None:
        rollout = {"strategy": "Swap", "steps": steps, "progressDeadline": "3m"}
        traffic = TRAFFIC if behind_gateway else None
        self.cluster = Cluster(build_manifest(rollout=rollout, traffic=traffic, minReplicas=self.pods))
        self.cluster.reports_on_request = True
        self.behind_gateway = behind_gateway
        self.replaced = 0
        self.always_swap, self.is_whole = True, False
        self.reconcile()
        self.start_pods()
        self.load(fails=False)
        self.accept_routes()
        self.is_whole = True
        if far:
            self.change_model(1)
            self.advance(far)

    def reconcile(self) -> None:
        """Reconcile until nothing changes; after each step requests find a pod."""
        for _ in range(20):
            actions = self.cluster.reconcile()
            self.check_requests_find_a_pod()
            if not actions:
                return

    @rule(model=st.integers(0, 2))
    def change_model(self, model: int) -> None:
        self.cluster.edit(uri=f"s3://models/v{model}")
        self.reconcile()

    @rule(strategy=st.sampled_from(STRATEGIES))
    def change_strategy(self, strategy: str) -> None:
        self.always_swap = self.always_swap and strategy == "Swap"
        steps: dict[str, Any] = {"steps": []} if strategy == "Recreate" else {}
        self.cluster.edit_rollout(strategy=strategy, **steps)
        self.reconcile()

    @rule(value=st.sampled_from(["a", "b", *[""] * 8]))
    def change_pods(self, value: str) -> None:
        """Change an environment variable; rarely, since pods start then."""
        if not value:
            return
        self.always_swap = False
        self.cluster.edit(pod={"env": [{"name": "A", "value": value}]})
        self.reconcile()

    @rule(fails=st.booleans())
    def load(self, fails: bool) -> None:
        failure = {"reason": "LoadFailed", "message": "no such operator"} if fails else {}
        self.cluster.swap(ModelState.FAILED if fails else ModelState.READY, **failure)
        self.reconcile()

    @rule(times=st.integers(1, 5))
    def advance(self, times: int) -> None:
        for _ in range(times):
            self.start_pods()
            self.load(fails=False)
            self.accept_routes()
        self.is_whole = True  # the gateway knows of lost pods, and others are there

    @rule()
    def accept_routes(self) -> None:
        if self.behind_gateway:
            self.cluster.accept_routes()
            self.reconcile()

    @rule()
    def start_pods(self) -> None:
        """Start what each Deployment lacks; such a pod begins with the label of the template."""
        for ref in [ref for ref in self.cluster.objects if ref.kind == DEPLOYMENT]:
            for index in range(self.cluster.objects[ref]["spec"].get("replicas", 1)):
                if Ref(POD, f"{ref.name}-{index}") not in self.cluster.objects:
                    self.cluster.put_pod(ref.name, index, ready=True)
        self.cluster.end_pods()
        self.reconcile()

    @rule(index=st.integers(0, 3))
    def evict(self, index: int) -> None:
        index %= self.pods
        for ref in [ref for ref in self.cluster.objects if ref.kind == POD and ref.name.endswith(f"-{index}")]:
            self.cluster.remove(ref)
            self.is_whole = False
        self.reconcile()

    @rule()
    def replace_pods_without_operator(self) -> None:
        """Between two rollouts, new pods get requests, while no operator changes their labels."""
        self.advance(2)
        is_served = self.cluster.condition("Ready") == ("True", "Served")  # by all pods: none changes any more
        if self.cluster.status.rollout is not None or not self.is_whole or not is_served:
            return
        for ref in [ref for ref in self.cluster.objects if ref.kind == POD]:
            workload, _, index = ref.name.rpartition("-")
            self.cluster.remove(ref)
            self.cluster.put_pod(workload, int(index), ready=False)
        self.cluster.swap()
        self.check_requests_find_a_pod()
        self.reconcile()

    @rule(kind=st.sampled_from([CONFIG_MAP, SERVICE]), data=st.data())
    def delete_child(self, kind: Any, data: st.DataObject) -> None:
        ours = sorted(ref.name for ref in self.cluster.objects if ref.kind == kind)
        self.cluster.remove(Ref(kind, data.draw(st.sampled_from(ours))))
        self.is_whole = False
        self.cluster.settle()

    @rule(verb=st.sampled_from(["promote", "pause", "abort", "retry"]), word=st.sampled_from(["", " a", " b"]))
    def request(self, verb: str, word: str) -> None:
        generation = self.cluster.objects[Ref(INFERENCE_SERVICE, KEY.name)]["metadata"]["generation"]
        self.cluster.request(f"{verb} {generation}{word}")
        self.reconcile()

    @rule(seconds=st.sampled_from([1, 60, 200]))
    def advance_clock(self, seconds: int) -> None:
        self.cluster.now += seconds
        self.reconcile()

    def list_pods(self) -> list[dict[str, Any]]:
        return [body for ref, body in self.cluster.objects.items() if ref.kind == POD]

    def check_requests_find_a_pod(self) -> None:
        """While no pod was lost, each Service to which requests go lists one."""
        if not self.always_swap or not self.is_whole:
            return
        targets = set(self.cluster.accepted) if self.behind_gateway else {KEY.name}
        snapshot = self.cluster.snapshot()
        for target in targets:
            if Ref(SERVICE, target) in self.cluster.objects:
                assert snapshot.endpoints.get(target), (target, self.cluster.served())

    @invariant()
    def check_pods(self) -> None:
        """A pod has the Deployment of its workload; a Swap starts none, and takes few at a time."""
        for pod in self.list_pods():
            workload = pod["metadata"]["labels"].get(names.LABEL_WORKLOAD)
            assert Ref(DEPLOYMENT, workload) in self.cluster.objects, pod["metadata"]
        if self.always_swap:
            assert sum(ref.kind == DEPLOYMENT for ref in self.cluster.objects) == 1
            snapshot = self.cluster.snapshot()
            rollout = snapshot.service.status.rollout
            if rollout is not None and rollout.phase == "Progressing":
                changing = [p for p in snapshot.pods if p.revision == rollout.revision and p.is_changing]
                assert len(changing) <= 1, changing

    @invariant()
    def check_status(self) -> None:
        """The conditions are there, and a stable revision that serves is known."""
        status = self.cluster.snapshot().service.status
        assert status.condition("Ready") is not None
        if self.always_swap and self.is_whole:
            serving = status.condition("Serving")
            assert serving is not None
            assert serving.status == "True", serving

    def teardown(self) -> None:
        """Without further failures the rollout ends: served, or failed with a condition."""
        if not hasattr(self, "cluster"):
            return
        self.cluster.request("")
        for each in range(12):
            self.advance(1)
            self.cluster.now += 61
            status = self.cluster.status
            if status.rollout is None and self.cluster.condition("Ready") == ("True", "Served"):
                assert self.cluster.served() == {status.stable: self.pods}
                return
            if status.rollout is not None and status.rollout.phase == "Failed":
                assert self.cluster.condition("Stalled")[0] == "True"
                return
            if status.rollout is not None and status.rollout.reason == "WaitsForPromotion":
                self.cluster.request(f"promote {status.observed_generation} end{each}")
        raise AssertionError(f"stuck: {self.cluster.status.rollout}, {self.cluster.condition('Ready')}")


SETTINGS = settings(
    max_examples=6,
    stateful_step_count=15,
    phases=[Phase.generate],
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


class SwapsInPlace(Swaps):
    """A service with one pod, which serves while it changes."""

    pods = 1


@pytest.mark.timeout(120)
@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("stories", [Swaps, SwapsInPlace])
def test_swaps(stories: type[Swaps], part: int) -> None:
    run_stories(stories, part, SETTINGS)
