"""Random stories of rollouts: the invariants hold for any sequence of changes by users, kubelet, gateway and clock."""

import copy
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from conch.api import RolloutStatus
from conch.api.kinds import (
    AUTOSCALER,
    CONFIG_MAP,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    GATEWAY,
    HTTP_ROUTE,
    INFERENCE_SERVICE,
    POD,
    SCALED_OBJECT,
    SERVICE,
    Kind,
    Ref,
)
from conch.api.metrics import MetricsApi
from conch.api.names import ANNOTATION_STABLE
from conch.observe import Snapshot, Track
from conch.observe.gateways import GatewayKey
from conch_contract import ModelState
from conch_contract.names import LABEL_SERVICE
from tests.unit.simulation import GPU, KEY, Cluster, build_manifest, build_report, list_backends, measure, read_weights
from tests.unit.state_machines import run_stories

GATES = [{"successRate": {"min": "99%"}}]
ANALYSIS = {"analysis": "1m"}
TRAFFIC = {"gateways": [{"name": "public"}], "hostnames": ["magika.example.com"]}
# Edits of a user. The gateway "internal" exists from the start.
ROUTES = [
    TRAFFIC,
    {**TRAFFIC, "hostnames": ["other.example.com", "magika.example.com"]},
    {**TRAFFIC, "gateways": [{"name": "public"}, {"name": "internal"}]},
    {**TRAFFIC, "gateways": [{"name": "internal"}]},
    {**TRAFFIC, "consistentHash": {"header": "x-session"}},
]
STEPS: list[dict[str, Any]] = [{"weight": 5}, {"pause": "1m"}, {"weight": 40}, {"pause": "Manual"}, {"weight": 80}]
MODELS = [f"s3://models/v{number}" for number in range(3)]
WAYS: list[dict[str, Any]] = [
    {"weight": 20},
    {"weight": 7},
    {"match": [{"headers": [{"name": "x-variant", "value": "b"}]}]},
    {"mirror": "50%"},
    {},
]
EDITS: list[list[dict[str, Any]]] = [
    STEPS,
    [],
    [{"weight": 40}],
    [{"weight": 5}, {"pause": "Manual"}],
    [{"weight": 50}, {"weight": 100}, {"pause": "Manual"}],
    [{"pause": "Manual"}, {"weight": 20}, {"pause": "1m"}],
    [{"weight": 5}, ANALYSIS, {"weight": 50}, ANALYSIS],
    [ANALYSIS, {"weight": 100}, ANALYSIS],
]
Edit = Callable[[dict[str, Any]], object]
ROUTE = Ref(HTTP_ROUTE, KEY.name)
DELETED = (AUTOSCALER, SCALED_OBJECT, CONFIG_MAP, DEPLOYMENT, DISRUPTION_BUDGET, HTTP_ROUTE, SERVICE)
# Edits of a child by hand: of any kind, then of one.
EDITED: list[tuple[Kind | None, Edit]] = [
    (None, lambda body: body["metadata"].pop("labels", None)),
    (None, lambda body: body["metadata"].pop("annotations", None)),
    (None, lambda body: body["metadata"].pop("ownerReferences", None)),
    (DEPLOYMENT, lambda body: body["spec"].update(replicas=0)),
    (DEPLOYMENT, lambda body: body["spec"].update(replicas=9)),
    (DEPLOYMENT, lambda body: body["spec"]["template"]["spec"]["containers"][0].update(image="other")),
    (SERVICE, lambda body: body["spec"].update(selector={"app": "other"})),
    (SERVICE, lambda body: body["metadata"].setdefault("annotations", {}).update({ANNOTATION_STABLE: "magika-none"})),
    (HTTP_ROUTE, lambda body: [ref.update(weight=0) for rule in body["spec"]["rules"] for ref in rule["backendRefs"]]),
    (HTTP_ROUTE, lambda body: [ref.update(weight=7) for rule in body["spec"]["rules"] for ref in rule["backendRefs"]]),
    (HTTP_ROUTE, lambda body: body["spec"]["rules"][0].update(backendRefs=[{"name": "magika-none", "weight": 1}])),
    (HTTP_ROUTE, lambda body: body["spec"]["rules"].pop()),
    (HTTP_ROUTE, lambda body: body["spec"].update(rules=[])),
    (HTTP_ROUTE, lambda body: body["spec"].update(parentRefs=[])),
    (DISRUPTION_BUDGET, lambda body: body["spec"].update(maxUnavailable=PODS)),
    (CONFIG_MAP, lambda body: body.update(data={})),
]
PODS = 3
PLENTY = 100
# onInsufficientCapacity, and the number of GPUs at first; the pods of most stories request none.
GPUS = [(None, 0), (None, 0), ("Hold", PODS), ("Hold", 2 * PODS), ("Recreate", PODS), ("Recreate", 2 * PODS)]
PUBLIC, INTERNAL = GatewayKey(KEY.namespace, "public"), GatewayKey(KEY.namespace, "internal")


class Rollouts(RuleBasedStateMachine):
    """One service behind a gateway, and the changes of its environment."""

    split: ClassVar[Mapping[str, Any]] = TRAFFIC
    pods: ClassVar[Mapping[str, Any]] = {"minReplicas": PODS}
    metrics_api: ClassVar[MetricsApi] = "builtin"

    @initialize(
        on_failure=st.sampled_from(["Rollback", "Pause"]),
        far=st.integers(0, 6),
        on_gpus=st.sampled_from(GPUS),
    )
    def begin(self, on_failure: str, far: int, on_gpus: tuple[str | None, int]) -> None:
        """Serve the first model, on GPUs or not, and advance the rollout of the second one."""
        self.on_insufficient_capacity, gpus = on_gpus
        self.deleted: set[str] = set()  # Deployments that a person has deleted, and that are not back yet
        rollout = {"steps": STEPS, "onFailure": on_failure, "progressDeadline": "3m", "analysis": GATES}
        pods = dict(self.pods)
        if self.on_insufficient_capacity:
            rollout["onInsufficientCapacity"] = self.on_insufficient_capacity
            pods["resources"] = {"limits": {GPU: 1}}
        body = build_manifest(MODELS[0], rollout=rollout, traffic=dict(self.split), **pods)
        self.cluster = Cluster(body, metrics_api=self.metrics_api)
        self.cluster.controller = "gateway.envoyproxy.io/gatewayclass-controller"
        self.cluster.put_class()
        self.cluster.gpus = gpus
        self.cluster.put_gateway(INTERNAL)
        self.cluster.reconcile()
        self.cluster.start_pods(self.cluster.decision().wanted)
        self.cluster.settle()
        self.accept_routes()
        self.cluster.settle()
        self.model = 0
        if far:
            self.change_model(1)
            self.advance(far)

    def accept_routes(self) -> None:
        """Write the conditions of the gateways for the current route."""
        self.cluster.accept_routes()

    def scale(self) -> None:
        """Without an autoscaler the operator sets the number of pods."""

    def list_routed_revisions(self) -> set[str]:
        """Return the revisions that the route names."""
        return set(list_backends(self.cluster.objects[ROUTE]))

    def find_stable(self) -> str:
        """Return the stable revision."""
        name: str = self.cluster.objects[Ref(SERVICE, KEY.name)]["metadata"]["annotations"][ANNOTATION_STABLE]
        return name

    def list_revisions(self) -> list[str]:
        return sorted(ref.name for ref in self.cluster.objects if ref.kind == DEPLOYMENT)

    @rule(further=st.integers(0, 2))
    def change_model(self, further: int) -> None:
        self.model = (self.model + further) % len(MODELS)
        self.cluster.edit(uri=MODELS[self.model])
        self.cluster.settle()

    @rule(way=st.sampled_from([None, *WAYS]), model=st.integers(0, 1))
    def change_variant(self, way: dict[str, Any] | None, model: int) -> None:
        predictor = {"model": {"storageUri": f"s3://models/variant-{model}"}}
        self.cluster.edit_variants(*([] if way is None else [{"name": "b", "predictor": predictor, **way}]))
        self.cluster.settle()

    @rule(steps=st.sampled_from(EDITS), replicas=st.sampled_from([PODS, PODS, PODS + 1]))
    def edit_steps_and_replicas(self, steps: list[dict[str, Any]], replicas: int) -> None:
        self.cluster.edit_rollout(steps=steps)
        self.cluster.edit(minReplicas=replicas)
        self.cluster.settle()

    @rule(traffic=st.sampled_from(ROUTES))
    def edit_traffic(self, traffic: dict[str, Any]) -> None:
        self.cluster.edit_traffic(traffic)
        self.cluster.settle()

    @rule(seconds=st.sampled_from([30, 70]), failures=st.sampled_from([0, 0, 0, 50]))
    def answer_requests(self, seconds: int, failures: int) -> None:
        measure(self.cluster, seconds, requests=10 * seconds, failures=failures)

    @rule(data=st.data())
    def delete_child(self, data: st.DataObject) -> None:
        kept = {self.find_stable(), *self.list_routed_revisions()}
        # A revision that the route no longer names is not restored: a request in flight fails.
        ours = [r for r in self.cluster.objects if r.kind in DELETED and (r.kind != DEPLOYMENT or r.name in kept)]
        ref = data.draw(st.sampled_from(sorted(ours, key=str)))
        self.cluster.remove(ref)
        if ref.kind == DEPLOYMENT:
            self.cluster.kill_pods(ref.name)
        self.cluster.settle()
        back = {Ref(DEPLOYMENT, name) for name in {self.find_stable(), *self.list_routed_revisions()}}
        assert back <= self.cluster.objects.keys(), ref
        self.deleted |= {ref.name} if ref.kind == DEPLOYMENT else set()

    @rule(data=st.data(), edited=st.sampled_from(EDITED))
    def edit_child(self, data: st.DataObject, edited: tuple[Kind | None, Edit]) -> None:
        kind, edit = edited
        ours = [ref for ref in self.cluster.objects if ref.kind in DELETED and kind in {None, ref.kind}]
        if not ours:
            return
        body = copy.deepcopy(self.cluster.objects[data.draw(st.sampled_from(sorted(ours, key=str)))])
        edit(body)
        self.cluster.put(body)
        self.cluster.settle()

    @rule(index=st.integers(0, PODS - 1), stable=st.booleans())
    def make_pod_unready(self, index: int, stable: bool) -> None:
        for name in self.list_revisions():
            if (name == self.find_stable()) is stable and Ref(POD, f"{name}-{index}") in self.cluster.objects:
                self.cluster.put_pod(name, index, ready=False)
        self.cluster.settle()

    @rule(
        index=st.integers(0, PODS - 1),
        all_of_them=st.booleans(),
        stable=st.booleans(),
        state=st.sampled_from([ModelState.FETCHING, ModelState.LOADING, ModelState.WARMING]),
        seconds=st.sampled_from([5, 30, 100]),
    )
    def replace_pod_by_slow_one(
        self, index: int, all_of_them: bool, stable: bool, state: ModelState, seconds: int
    ) -> None:
        """After a drain, a pod loads for longer than a ready pod may be silent, and within the progress deadline."""
        rollout = self.cluster.status.rollout
        answered = rollout is not None and rollout.phase != "Failed" and self.cluster.snapshot().ready(rollout.revision)
        for name in self.list_revisions():
            for each in range(PODS) if all_of_them else [index]:
                if (name == self.find_stable()) is stable and Ref(POD, f"{name}-{each}") in self.cluster.objects:
                    generation = f"slow-{self.cluster.now}"
                    self.cluster.put_pod(name, each, ready=False, generation=generation, report=build_report(state))
        self.cluster.settle()
        self.cluster.now += seconds
        self.cluster.settle()
        rollout = self.cluster.status.rollout
        assert not (answered and rollout and rollout.phase == "Failed" and rollout.reason == "NotAnswering"), rollout

    @rule()
    def lose_candidate_pods(self) -> None:
        for name in self.list_revisions():
            if name != self.find_stable():
                self.cluster.kill_pods(name)
        self.cluster.settle()

    @rule()
    def start_pods(self) -> None:
        self.scale()
        for name in self.list_revisions():
            self.cluster.start_pods(name)
        self.cluster.settle()

    @rule(gpus=st.sampled_from([PODS, 2 * PODS - 1, 2 * PODS, PLENTY]))
    def change_gpus(self, gpus: int) -> None:
        self.cluster.gpus = gpus
        self.cluster.settle()

    @rule()
    def end_pods(self) -> None:
        self.cluster.end_pods()
        self.cluster.settle()

    @rule(times=st.integers(1, 4))
    def advance(self, times: int) -> None:
        for _ in range(times):
            self.start_pods()
            self.accept_route_if_present()
            self.answer_requests(30, failures=0)

    @rule()
    def fail_candidate_pod(self) -> None:
        for name in self.list_revisions():
            if name != self.find_stable():
                failed = build_report(ModelState.FAILED, "LoadFailed", "Triton rejects it")
                self.cluster.put_pod(name, 0, ready=False, report=failed)
        self.cluster.settle()

    @rule()
    def crash_candidate_pod(self) -> None:
        crash = {"name": "triton", "ready": False, "restartCount": 5, "lastState": {"terminated": {"exitCode": 1}}}
        for name in self.list_revisions():
            if name != self.find_stable():
                self.cluster.put_pod(name, 0, ready=False, containerStatuses=[crash])
        self.cluster.settle()

    @rule(index=st.integers(0, PODS - 1))
    def lose_node(self, index: int) -> None:
        for ref in [r for r in self.cluster.objects if r.kind == POD and r.name.endswith(f"-{index}")]:
            self.cluster.remove(ref)
        self.cluster.settle()

    @rule(index=st.integers(0, PODS - 1))
    def replace_stable_pod(self, index: int) -> None:
        self.cluster.put_pod(self.find_stable(), index, ready=True, generation="replaced")
        self.cluster.settle()

    @rule()
    def accept_route_if_present(self) -> None:
        if self.cluster.gateways.find([PUBLIC])[PUBLIC].present:
            self.accept_routes()
        self.cluster.settle()

    @rule()
    def delete_gateways(self) -> None:
        self.cluster.remove_all(GATEWAY)
        self.cluster.settle()

    @rule()
    def create_gateways(self) -> None:
        self.cluster.put_gateway(PUBLIC)
        self.cluster.put_gateway(INTERNAL)
        self.cluster.settle()

    @rule()
    def reject_route(self) -> None:
        self.cluster.accept_routes("False", "NotAllowedByListeners", "no")
        self.cluster.settle()

    @rule(seconds=st.sampled_from([1, 60, 200]))
    def advance_clock(self, seconds: int) -> None:
        self.cluster.now += seconds
        self.cluster.settle()

    @rule(
        verb=st.sampled_from(["promote", "pause", "abort", "retry"]),
        word=st.sampled_from(["", " a", " b"]),
        variant=st.sampled_from(["", "", "b"]),
    )
    def write_request(self, verb: str, word: str, variant: str) -> None:
        generation = self.cluster.objects[Ref(INFERENCE_SERVICE, KEY.name)]["metadata"]["generation"]
        self.cluster.request(f"{verb} {generation}{word}", variant)
        self.cluster.settle()

    @rule()
    def withdraw_requests(self) -> None:
        self.cluster.request("")
        self.cluster.request("", "b")
        self.cluster.settle()

    @invariant()
    def check_service(self) -> None:
        """Check all invariants on one snapshot of the service."""
        snapshot = self.cluster.snapshot()
        self.check_weights(snapshot)
        self.check_ready_revisions_have_the_requests(snapshot.tracks[0])
        self.check_predictor_has_share_of_unready_variant(snapshot)
        self.check_reachable_revisions_have_deployments(snapshot)
        self.check_stable_capacity(snapshot)
        self.check_held_candidates_have_no_pods(snapshot)
        self.check_conditions_have_reasons(snapshot)

    def check_weights(self, snapshot: Snapshot) -> None:
        shares = read_weights(self.cluster)
        whole = sum(shares.values())
        assert whole in {100, 10_000}, shares
        variant = sum(share for name, share in shares.items() if name.startswith("magika-b-"))
        spec = snapshot.service.of_variant("b").variant_spec
        assert variant * 100 in {0, whole * ((spec and spec.weight) or 0)}, (shares, spec)
        for name in list_backends(self.cluster.objects[Ref(HTTP_ROUTE, KEY.name)]):
            assert Ref(SERVICE, name) in self.cluster.objects, f"{name} has no Service"
            assert Ref(DEPLOYMENT, name) in self.cluster.objects, f"{name} has no Deployment"

    def list_predictor_revisions(self) -> list[str]:
        """The revisions of the predictor that have requests."""
        return [name for name in read_weights(self.cluster) if not name.startswith("magika-b-")]

    def check_ready_revisions_have_the_requests(self, predictor: Track) -> None:
        """Check two revisions of the predictor; none scaled to zero, and none whose GPUs another one gets."""
        rollout = predictor.service.status.rollout
        if rollout is None or rollout.phase == "Failed" or rollout.admission:
            return
        ours = self.list_predictor_revisions()
        if any(
            predictor.ready(name)
            for name in (self.find_stable(), rollout.revision)
            if rollout.weight or name == self.find_stable()
        ):
            assert all(predictor.ready(name) for name in ours), (ours, rollout)

    def check_predictor_has_share_of_unready_variant(self, snapshot: Snapshot) -> None:
        ours = [name for name, share in read_weights(self.cluster).items() if share]
        if any(snapshot.ready(name) for name in ours if not name.startswith("magika-b-")):
            theirs = [name for name in ours if name.startswith("magika-b-")]
            assert not theirs or any(snapshot.ready(name) for name in theirs), ours

    def check_reachable_revisions_have_deployments(self, snapshot: Snapshot) -> None:
        """A Deployment that a user has deleted and that has no GPUs is not restored."""
        self.deleted -= {name for name in self.deleted if Ref(DEPLOYMENT, name) in self.cluster.objects}
        short = {
            each.revision
            for each in read_rollouts(snapshot).values()
            if each is not None and each.admission == "Insufficient"
        }
        for name in self.cluster.accepted - (self.deleted & short):
            assert Ref(DEPLOYMENT, name) in self.cluster.objects, f"{name} is reached and has no Deployment"

    def check_stable_capacity(self, snapshot: Snapshot) -> None:
        rollout = snapshot.service.status.rollout
        if rollout is not None and rollout.admission == "Insufficient":
            assert self.on_insufficient_capacity == "Recreate"
            return
        assert self.cluster.objects[Ref(DEPLOYMENT, self.find_stable())]["spec"]["replicas"] >= PODS

    def check_held_candidates_have_no_pods(self, snapshot: Snapshot) -> None:
        for rollout in read_rollouts(snapshot).values():
            if rollout is not None and rollout.admission == "Pending" and rollout.reason == "InsufficientGPU":
                assert not self.has_labelled_deployment(rollout.revision) or self.is_reachable(rollout.revision)

    def has_labelled_deployment(self, name: str) -> bool:
        """Whether a revision has a Deployment with Conch's labels: one without them is repaired when wanted."""
        deployment = self.cluster.objects.get(Ref(DEPLOYMENT, name), {"metadata": {}})
        return LABEL_SERVICE in deployment["metadata"].get("labels", {})

    def is_reachable(self, name: str) -> bool:
        """Whether a request may still reach a revision: then it keeps its pods."""
        return name in self.cluster.accepted or name in self.list_routed_revisions()

    def check_conditions_have_reasons(self, snapshot: Snapshot) -> None:
        ready = snapshot.service.status.condition("Ready")
        assert ready is not None
        assert ready.reason
        assert ready.message
        rollout = snapshot.service.status.rollout
        if rollout is not None:
            assert rollout.reason, rollout
            assert rollout.message, rollout

    def teardown(self) -> None:
        """Without further failures the rollout ends: served, or failed with a condition, or waiting for a user."""
        if not hasattr(self, "cluster"):
            return
        self.withdraw_requests()
        self.cluster.put_gateway(PUBLIC)
        self.cluster.put_gateway(INTERNAL)
        self.cluster.gpus = PLENTY
        for _ in range(30):
            self.scale()
            self.cluster.end_pods()
            for name in self.list_revisions():
                replicas = self.cluster.objects[Ref(DEPLOYMENT, name)]["spec"]["replicas"]
                for index in range(replicas):
                    self.cluster.put_pod(name, index, ready=True, generation="healthy")
            self.accept_routes()
            self.cluster.settle()
            measure(self.cluster, 70, requests=700)
            snapshot = self.cluster.snapshot()
            rollouts = read_rollouts(snapshot)
            if not any(rollouts.values()):
                if self.cluster.condition("Ready") == ("True", "Served"):
                    return
            elif all(rollout is None or rollout.phase == "Failed" for rollout in rollouts.values()):
                assert self.cluster.condition("Stalled")[0] == "True"
                assert len(self.list_predictor_revisions()) == 1
                return
            for name, rollout in rollouts.items():
                if rollout is not None and rollout.reason in {"WaitsForPromotion", "PausedOnFailure"}:
                    self.cluster.request(f"promote {snapshot.service.metadata.generation} end{self.cluster.now}", name)
        raise AssertionError(f"stuck: {self.cluster.status.rollout}, {self.cluster.condition('Ready')}")


class WithoutGateway(Rollouts):
    """The stories without a gateway: shares by the number of pods."""

    split: ClassVar[Mapping[str, Any]] = {"split": "Replicas"}

    def accept_routes(self) -> None:
        """Without a gateway no route is accepted."""

    def list_routed_revisions(self) -> set[str]:
        """The revisions of the status: the root Service selects the pods of both."""
        rollout = self.cluster.status.rollout
        return {self.find_stable()} | ({rollout.revision} if rollout is not None and rollout.weight else set())

    def list_predictor_revisions(self) -> list[str]:
        """The revisions with pods."""
        deployments = [self.cluster.objects[Ref(DEPLOYMENT, name)] for name in self.list_revisions()]
        return [each["metadata"]["name"] for each in deployments if each["spec"]["replicas"]]

    def change_variant(self) -> None:
        """A variant with requests needs a gateway."""

    def edit_traffic(self) -> None:
        """The service stays without a gateway."""

    def delete_gateways(self) -> None:
        """Without a gateway there is no change."""

    def create_gateways(self) -> None:
        """Without a gateway there is no change."""

    def reject_route(self) -> None:
        """Without a gateway there is no change."""

    @invariant()
    def check_service(self) -> None:
        """Check that both revisions together have the pods of the spec, and that requests reach a ready one."""
        snapshot = self.cluster.snapshot()
        rollout = snapshot.service.status.rollout
        if rollout is None or rollout.admission != "Insufficient":
            replicas = [
                self.cluster.objects[Ref(DEPLOYMENT, name)]["spec"]["replicas"] for name in self.list_revisions()
            ]
            assert sum(replicas) >= PODS, replicas
        self.check_held_candidates_have_no_pods(snapshot)
        self.check_conditions_have_reasons(snapshot)
        answering = [name for name in self.list_revisions() if snapshot.ready(name)]
        if self.find_stable() in answering:
            selector = self.cluster.objects[Ref(SERVICE, KEY.name)]["spec"]["selector"]
            assert any(selector.items() <= self.read_labels(name).items() for name in answering), (selector, answering)

    def read_labels(self, revision: str) -> Mapping[str, str]:
        """The labels of a revision's pods."""
        template = self.cluster.objects[Ref(DEPLOYMENT, revision)]["spec"]["template"]
        labels: Mapping[str, str] = template["metadata"]["labels"]
        return labels


class DrivenByKeda(Rollouts):
    """The stories with KEDA, which sets the number of pods and may set 0."""

    pods: ClassVar[Mapping[str, Any]] = {
        "minReplicas": 0,
        "maxReplicas": PODS,
        "autoscaling": {"triggers": [{"type": "kafka", "metadata": {"topic": "pictures", "lagThreshold": "50"}}]},
    }
    metrics_api: ClassVar[MetricsApi] = "keda"

    wanted = PODS  # pods for the demand

    @rule(wanted=st.integers(0, PODS))
    def change_demand(self, wanted: int) -> None:
        self.wanted = wanted
        self.scale()
        self.cluster.settle()

    def scale(self) -> None:
        """Set the pods for the demand, and no fewer than minReplicaCount."""
        for name in self.list_revisions():
            driven = self.cluster.objects.get(Ref(SCALED_OBJECT, name))
            if driven is not None:
                body = copy.deepcopy(self.cluster.objects[Ref(DEPLOYMENT, name)])
                body["spec"]["replicas"] = max(self.wanted, driven["spec"]["minReplicaCount"])
                self.cluster.put(body)
        self.cluster.end_pods()

    def edit_steps_and_replicas(self) -> None:
        """KEDA sets the replicas."""

    def check_stable_capacity(self, snapshot: Snapshot) -> None:
        """KEDA sets the capacity, which may be 0."""

    def check_ready_revisions_have_the_requests(self, predictor: Track) -> None:
        """A revision scaled to zero has requests too."""

    def check_predictor_has_share_of_unready_variant(self, snapshot: Snapshot) -> None:
        """A variant scaled to zero has requests too."""

    def teardown(self) -> None:
        """Set the demand to all pods from here on."""
        self.wanted = PODS
        super().teardown()


def read_rollouts(snapshot: Snapshot) -> dict[str, RolloutStatus | None]:
    """The rollout of the predictor, and of the variant if there is one."""
    names = ["", *(variant.name for variant in snapshot.service.spec.variants)]
    return {name: snapshot.service.of_variant(name).status.rollout for name in names}


PARTS = 4  # each is a test, so that they run in parallel
SETTINGS = settings(stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize(
    ("stories", "count"),
    [
        pytest.param(stories, count, id=stories.__name__)
        for stories, count in ((Rollouts, 10), (WithoutGateway, 5), (DrivenByKeda, 5))
    ],
)
def test_rollouts(stories: type[Rollouts], count: int, part: int) -> None:
    run_stories(stories, part, settings(SETTINGS, max_examples=count))
