"""Random stories of rollouts: whatever users, kubelet, gateway and clock do, some things are always so."""

import copy
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
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

GATES = [{"successRate": {"min": "99%"}}]
ANALYSIS = {"analysis": "1m"}
TRAFFIC = {"gateways": [{"name": "public"}], "hostnames": ["magika.example.com"]}
# What a user may make of it meanwhile. The gateway "internal" is there from the first.
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
# What somebody makes of a child by hand: of any kind, then of one.
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
# What happens when they are short, and how many there are at first; most stories are of pods that ask for none.
GPUS = [(None, 0), (None, 0), ("Hold", PODS), ("Hold", 2 * PODS), ("Recreate", PODS), ("Recreate", 2 * PODS)]
PUBLIC, INTERNAL = GatewayKey(KEY.namespace, "public"), GatewayKey(KEY.namespace, "internal")


class Rollouts(RuleBasedStateMachine):
    """One service behind a gateway, and all that can happen to it."""

    split: ClassVar[Mapping[str, Any]] = TRAFFIC
    pods: ClassVar[Mapping[str, Any]] = {"minReplicas": PODS}
    metrics_api: ClassVar[MetricsApi] = "builtin"

    @initialize(
        on_failure=st.sampled_from(["Rollback", "Pause"]),
        far=st.integers(0, 6),
        on_gpus=st.sampled_from(GPUS),
    )
    def begin(self, on_failure: str, far: int, on_gpus: tuple[str | None, int]) -> None:
        """Serve the first model, on GPUs or not, and bring the second one as far as that."""
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
        self.take_up()
        self.cluster.settle()
        self.model = 0
        if far:
            self.change_the_model(1)
            self.all_goes_well_for_a_while(far)

    def take_up(self) -> None:
        """Let the gateways answer to the route as it is."""
        self.cluster.accept_routes()

    def autoscalers_act(self) -> None:
        """There is none: the number of pods is the operator's."""

    def led_to(self) -> set[str]:
        """The revisions that are to have requests."""
        return set(list_backends(self.cluster.objects[ROUTE]))

    def stable(self) -> str:
        """The revision that carries the service."""
        name: str = self.cluster.objects[Ref(SERVICE, KEY.name)]["metadata"]["annotations"][ANNOTATION_STABLE]
        return name

    def revisions(self) -> list[str]:
        return sorted(ref.name for ref in self.cluster.objects if ref.kind == DEPLOYMENT)

    @rule(further=st.integers(0, 2))
    def change_the_model(self, further: int) -> None:
        self.model = (self.model + further) % len(MODELS)
        self.cluster.edit(uri=MODELS[self.model])
        self.cluster.settle()

    @rule(way=st.sampled_from([None, *WAYS]), model=st.integers(0, 1))
    def a_variant_comes_changes_or_goes(self, way: dict[str, Any] | None, model: int) -> None:
        predictor = {"model": {"storageUri": f"s3://models/variant-{model}"}}
        self.cluster.edit_variants(*([] if way is None else [{"name": "b", "predictor": predictor, **way}]))
        self.cluster.settle()

    @rule(steps=st.sampled_from(EDITS), replicas=st.sampled_from([PODS, PODS, PODS + 1]))
    def steps_and_replicas_are_edited(self, steps: list[dict[str, Any]], replicas: int) -> None:
        self.cluster.edit_rollout(steps=steps)
        self.cluster.edit(minReplicas=replicas)
        self.cluster.settle()

    @rule(traffic=st.sampled_from(ROUTES))
    def traffic_is_edited(self, traffic: dict[str, Any]) -> None:
        self.cluster.edit_traffic(traffic)
        self.cluster.settle()

    @rule(seconds=st.sampled_from([30, 70]), failures=st.sampled_from([0, 0, 0, 50]))
    def requests_are_answered(self, seconds: int, failures: int) -> None:
        measure(self.cluster, seconds, requests=10 * seconds, failures=failures)

    @rule(data=st.data())
    def somebody_deletes_a_child(self, data: st.DataObject) -> None:
        kept = {self.stable(), *self.led_to()}
        # Of a revision that the route names no more nothing comes back: a request that is on its way fails.
        ours = [r for r in self.cluster.objects if r.kind in DELETED and (r.kind != DEPLOYMENT or r.name in kept)]
        ref = data.draw(st.sampled_from(sorted(ours, key=str)))
        self.cluster.remove(ref)
        if ref.kind == DEPLOYMENT:
            self.cluster.kill_pods(ref.name)
        self.cluster.settle()
        back = {Ref(DEPLOYMENT, name) for name in {self.stable(), *self.led_to()}}
        assert back <= self.cluster.objects.keys(), ref
        self.deleted |= {ref.name} if ref.kind == DEPLOYMENT else set()

    @rule(data=st.data(), edited=st.sampled_from(EDITED))
    def somebody_edits_a_child(self, data: st.DataObject, edited: tuple[Kind | None, Edit]) -> None:
        kind, edit = edited
        ours = [ref for ref in self.cluster.objects if ref.kind in DELETED and kind in {None, ref.kind}]
        if not ours:
            return
        body = copy.deepcopy(self.cluster.objects[data.draw(st.sampled_from(sorted(ours, key=str)))])
        edit(body)
        self.cluster.put(body)
        self.cluster.settle()

    @rule(index=st.integers(0, PODS - 1), stable=st.booleans())
    def a_pod_is_ready_no_more(self, index: int, stable: bool) -> None:
        for name in self.revisions():
            if (name == self.stable()) is stable and Ref(POD, f"{name}-{index}") in self.cluster.objects:
                self.cluster.put_pod(name, index, ready=False)
        self.cluster.settle()

    @rule(
        index=st.integers(0, PODS - 1),
        all_of_them=st.booleans(),
        stable=st.booleans(),
        state=st.sampled_from([ModelState.FETCHING, ModelState.LOADING, ModelState.WARMING]),
        seconds=st.sampled_from([5, 30, 100]),
    )
    def the_successor_of_a_pod_loads_for_long(
        self, index: int, all_of_them: bool, stable: bool, state: ModelState, seconds: int
    ) -> None:
        """After a drain: for longer than a pod that answered may be silent, and within the progress deadline."""
        rollout = self.cluster.status.rollout
        answered = rollout is not None and rollout.phase != "Failed" and self.cluster.snapshot().ready(rollout.revision)
        for name in self.revisions():
            for each in range(PODS) if all_of_them else [index]:
                if (name == self.stable()) is stable and Ref(POD, f"{name}-{each}") in self.cluster.objects:
                    generation = f"slow-{self.cluster.now}"
                    self.cluster.put_pod(name, each, ready=False, generation=generation, report=build_report(state))
        self.cluster.settle()
        self.cluster.now += seconds
        self.cluster.settle()
        rollout = self.cluster.status.rollout
        assert not (answered and rollout and rollout.phase == "Failed" and rollout.reason == "NotAnswering"), rollout

    @rule()
    def all_pods_of_the_candidate_are_lost(self) -> None:
        for name in self.revisions():
            if name != self.stable():
                self.cluster.kill_pods(name)
        self.cluster.settle()

    @rule()
    def pods_start(self) -> None:
        self.autoscalers_act()
        for name in self.revisions():
            self.cluster.start_pods(name)
        self.cluster.settle()

    @rule(gpus=st.sampled_from([PODS, 2 * PODS - 1, 2 * PODS, PLENTY]))
    def gpus_come_or_go(self, gpus: int) -> None:
        self.cluster.gpus = gpus
        self.cluster.settle()

    @rule()
    def pods_go_that_are_wanted_no_more(self) -> None:
        self.cluster.end_pods()
        self.cluster.settle()

    @rule(times=st.integers(1, 4))
    def all_goes_well_for_a_while(self, times: int) -> None:
        for _ in range(times):
            self.pods_start()
            self.the_gateway_follows()
            self.requests_are_answered(30, failures=0)

    @rule()
    def a_pod_of_the_candidate_fails(self) -> None:
        for name in self.revisions():
            if name != self.stable():
                failed = build_report(ModelState.FAILED, "LoadFailed", "Triton says no")
                self.cluster.put_pod(name, 0, ready=False, report=failed)
        self.cluster.settle()

    @rule()
    def a_pod_of_the_candidate_crashes(self) -> None:
        crash = {"name": "triton", "ready": False, "restartCount": 5, "lastState": {"terminated": {"exitCode": 1}}}
        for name in self.revisions():
            if name != self.stable():
                self.cluster.put_pod(name, 0, ready=False, containerStatuses=[crash])
        self.cluster.settle()

    @rule(index=st.integers(0, PODS - 1))
    def a_node_is_lost(self, index: int) -> None:
        for ref in [r for r in self.cluster.objects if r.kind == POD and r.name.endswith(f"-{index}")]:
            self.cluster.remove(ref)
        self.cluster.settle()

    @rule(index=st.integers(0, PODS - 1))
    def a_pod_of_the_stable_revision_is_replaced(self, index: int) -> None:
        self.cluster.put_pod(self.stable(), index, ready=True, generation="again")
        self.cluster.settle()

    @rule()
    def the_gateway_follows(self) -> None:
        if self.cluster.gateways.find([PUBLIC])[PUBLIC].present:
            self.take_up()
        self.cluster.settle()

    @rule()
    def the_gateway_goes_away(self) -> None:
        self.cluster.remove_all(GATEWAY)
        self.cluster.settle()

    @rule()
    def the_gateway_is_back(self) -> None:
        self.cluster.put_gateway(PUBLIC)
        self.cluster.put_gateway(INTERNAL)
        self.cluster.settle()

    @rule()
    def the_gateway_refuses(self) -> None:
        self.cluster.accept_routes("False", "NotAllowedByListeners", "no")
        self.cluster.settle()

    @rule(seconds=st.sampled_from([1, 60, 200]))
    def time_passes(self, seconds: int) -> None:
        self.cluster.now += seconds
        self.cluster.settle()

    @rule(
        verb=st.sampled_from(["promote", "pause", "abort", "retry"]),
        word=st.sampled_from(["", " a", " b"]),
        variant=st.sampled_from(["", "", "b"]),
    )
    def a_person_asks(self, verb: str, word: str, variant: str) -> None:
        generation = self.cluster.objects[Ref(INFERENCE_SERVICE, KEY.name)]["metadata"]["generation"]
        self.cluster.request(f"{verb} {generation}{word}", variant)
        self.cluster.settle()

    @rule()
    def a_person_lets_go(self) -> None:
        self.cluster.request("")
        self.cluster.request("", "b")
        self.cluster.settle()

    @invariant()
    def some_things_are_always_so(self) -> None:
        """All of them hold of one look at the service."""
        snapshot = self.cluster.snapshot()
        self.shares_are_whole_and_lead_somewhere(snapshot)
        self.who_answers_gets_the_requests(snapshot.tracks[0])
        self.who_answers_gets_the_share_of_a_variant_that_does_not(snapshot)
        self.what_the_gateway_may_still_reach_has_its_pods(snapshot)
        self.the_stable_revision_keeps_its_capacity(snapshot)
        self.what_is_held_has_no_pods(snapshot)
        self.what_is_not_ready_says_why(snapshot)

    def shares_are_whole_and_lead_somewhere(self, snapshot: Snapshot) -> None:
        shares = read_weights(self.cluster)
        whole = sum(shares.values())
        assert whole in {100, 10_000}, shares
        variant = sum(share for name, share in shares.items() if name.startswith("magika-b-"))
        asked = snapshot.service.of_variant("b").variant_spec
        assert variant * 100 in {0, whole * ((asked and asked.weight) or 0)}, (shares, asked)
        for name in list_backends(self.cluster.objects[Ref(HTTP_ROUTE, KEY.name)]):
            assert Ref(SERVICE, name) in self.cluster.objects, f"{name} has no Service"
            assert Ref(DEPLOYMENT, name) in self.cluster.objects, f"{name} has no Deployment"

    def ours(self) -> list[str]:
        """The revisions of the predictor that have requests."""
        return [name for name in read_weights(self.cluster) if not name.startswith("magika-b-")]

    def who_answers_gets_the_requests(self, predictor: Track) -> None:
        """Between two revisions of the predictor; one that sleeps or makes room for another is not meant."""
        rollout = predictor.service.status.rollout
        if rollout is None or rollout.phase == "Failed" or rollout.admission:
            return
        ours = self.ours()
        if any(
            predictor.ready(name)
            for name in (self.stable(), rollout.revision)
            if rollout.weight or name == self.stable()
        ):
            assert all(predictor.ready(name) for name in ours), (ours, rollout)

    def who_answers_gets_the_share_of_a_variant_that_does_not(self, snapshot: Snapshot) -> None:
        ours = [name for name, share in read_weights(self.cluster).items() if share]
        if any(snapshot.ready(name) for name in ours if not name.startswith("magika-b-")):
            theirs = [name for name in ours if name.startswith("magika-b-")]
            assert not theirs or any(snapshot.ready(name) for name in theirs), ours

    def what_the_gateway_may_still_reach_has_its_pods(self, snapshot: Snapshot) -> None:
        """Where a person has deleted its Deployment and there are no GPUs for it, nothing can bring the pods back."""
        self.deleted -= {name for name in self.deleted if Ref(DEPLOYMENT, name) in self.cluster.objects}
        short = {
            each.revision
            for each in rollouts_of(snapshot).values()
            if each is not None and each.admission == "Insufficient"
        }
        for name in self.cluster.accepted - (self.deleted & short):
            assert Ref(DEPLOYMENT, name) in self.cluster.objects, f"{name} is reached and has no Deployment"

    def the_stable_revision_keeps_its_capacity(self, snapshot: Snapshot) -> None:
        rollout = snapshot.service.status.rollout
        if rollout is not None and rollout.admission == "Insufficient":
            assert self.on_insufficient_capacity == "Recreate"
            return
        assert self.cluster.objects[Ref(DEPLOYMENT, self.stable())]["spec"]["replicas"] >= PODS

    def what_is_held_has_no_pods(self, snapshot: Snapshot) -> None:
        for rollout in rollouts_of(snapshot).values():
            if rollout is not None and rollout.admission == "Pending" and rollout.reason == "InsufficientGPU":
                assert not self.sees_pods_of(rollout.revision) or self.reached(rollout.revision)

    def sees_pods_of(self, name: str) -> bool:
        """Whether a revision has a Deployment that Conch knows: one that lost its labels is repaired when wanted."""
        deployment = self.cluster.objects.get(Ref(DEPLOYMENT, name), {"metadata": {}})
        return LABEL_SERVICE in deployment["metadata"].get("labels", {})

    def reached(self, name: str) -> bool:
        """Whether a request may still reach a revision: then it keeps its pods, whatever becomes of it."""
        return name in self.cluster.accepted or name in self.led_to()

    def what_is_not_ready_says_why(self, snapshot: Snapshot) -> None:
        ready = snapshot.service.status.condition("Ready")
        assert ready is not None
        assert ready.reason
        assert ready.message
        rollout = snapshot.service.status.rollout
        if rollout is not None:
            assert rollout.reason, rollout
            assert rollout.message, rollout

    def teardown(self) -> None:
        """When everything goes well from here on, it ends: served, or given up and told so, or a person is asked."""
        if not hasattr(self, "cluster"):
            return
        self.a_person_lets_go()
        self.cluster.put_gateway(PUBLIC)
        self.cluster.put_gateway(INTERNAL)
        self.cluster.gpus = PLENTY
        for _ in range(30):
            self.autoscalers_act()
            self.cluster.end_pods()
            for name in self.revisions():
                replicas = self.cluster.objects[Ref(DEPLOYMENT, name)]["spec"]["replicas"]
                for index in range(replicas):
                    self.cluster.put_pod(name, index, ready=True, generation="healthy")
            self.take_up()
            self.cluster.settle()
            measure(self.cluster, 70, requests=700)
            snapshot = self.cluster.snapshot()
            rollouts = rollouts_of(snapshot)
            if not any(rollouts.values()):
                if self.cluster.condition("Ready") == ("True", "Served"):
                    return
            elif all(rollout is None or rollout.phase == "Failed" for rollout in rollouts.values()):
                assert self.cluster.condition("Stalled")[0] == "True"
                assert len(self.ours()) == 1
                return
            for name, rollout in rollouts.items():
                if rollout is not None and rollout.reason in {"WaitsForPromotion", "PausedOnFailure"}:
                    self.cluster.request(f"promote {snapshot.service.metadata.generation} end{self.cluster.now}", name)
        raise AssertionError(f"stuck: {self.cluster.status.rollout}, {self.cluster.condition('Ready')}")


class WithoutGateway(Rollouts):
    """The same with shares by the number of pods, and what only a gateway has left out."""

    split: ClassVar[Mapping[str, Any]] = {"split": "Replicas"}

    def take_up(self) -> None:
        """There is nobody to answer."""

    def led_to(self) -> set[str]:
        """As the status says: the root Service selects the pods of both."""
        rollout = self.cluster.status.rollout
        return {self.stable()} | ({rollout.revision} if rollout is not None and rollout.weight else set())

    def ours(self) -> list[str]:
        """Those with pods."""
        deployments = [self.cluster.objects[Ref(DEPLOYMENT, name)] for name in self.revisions()]
        return [each["metadata"]["name"] for each in deployments if each["spec"]["replicas"]]

    def a_variant_comes_changes_or_goes(self) -> None:
        """One with requests needs a gateway."""

    def traffic_is_edited(self) -> None:
        """It stays without one."""

    def the_gateway_goes_away(self) -> None:
        """There is none."""

    def the_gateway_is_back(self) -> None:
        """There is none."""

    def the_gateway_refuses(self) -> None:
        """There is none."""

    @invariant()
    def some_things_are_always_so(self) -> None:
        """The pods of both revisions together are as many as are asked for, and requests reach one that answers."""
        snapshot = self.cluster.snapshot()
        rollout = snapshot.service.status.rollout
        if rollout is None or rollout.admission != "Insufficient":
            replicas = [self.cluster.objects[Ref(DEPLOYMENT, name)]["spec"]["replicas"] for name in self.revisions()]
            assert sum(replicas) >= PODS, replicas
        self.what_is_held_has_no_pods(snapshot)
        self.what_is_not_ready_says_why(snapshot)
        answering = [name for name in self.revisions() if snapshot.ready(name)]
        if self.stable() in answering:
            selector = self.cluster.objects[Ref(SERVICE, KEY.name)]["spec"]["selector"]
            assert any(selector.items() <= self.labels(name).items() for name in answering), (selector, answering)

    def labels(self, revision: str) -> Mapping[str, str]:
        """The labels of a revision's pods."""
        template = self.cluster.objects[Ref(DEPLOYMENT, revision)]["spec"]["template"]
        labels: Mapping[str, str] = template["metadata"]["labels"]
        return labels


class DrivenByKeda(Rollouts):
    """The same, and KEDA decides on the number of pods, which may be none."""

    pods: ClassVar[Mapping[str, Any]] = {
        "minReplicas": 0,
        "maxReplicas": PODS,
        "autoscaling": {"triggers": [{"type": "kafka", "metadata": {"topic": "pictures", "lagThreshold": "50"}}]},
    }
    metrics_api: ClassVar[MetricsApi] = "keda"

    wanted = PODS  # as many as there is demand for

    @rule(wanted=st.integers(0, PODS))
    def the_demand_changes(self, wanted: int) -> None:
        self.wanted = wanted
        self.autoscalers_act()
        self.cluster.settle()

    def autoscalers_act(self) -> None:
        """As many pods as are wanted, and no fewer than the operator says."""
        for name in self.revisions():
            driven = self.cluster.objects.get(Ref(SCALED_OBJECT, name))
            if driven is not None:
                body = copy.deepcopy(self.cluster.objects[Ref(DEPLOYMENT, name)])
                body["spec"]["replicas"] = max(self.wanted, driven["spec"]["minReplicaCount"])
                self.cluster.put(body)
        self.cluster.end_pods()

    def steps_and_replicas_are_edited(self) -> None:
        """Their number is KEDA's."""

    def the_stable_revision_keeps_its_capacity(self, snapshot: Snapshot) -> None:
        """As many as KEDA says, and it may say none."""

    def who_answers_gets_the_requests(self, predictor: Track) -> None:
        """A revision that sleeps has requests too."""

    def who_answers_gets_the_share_of_a_variant_that_does_not(self, snapshot: Snapshot) -> None:
        """A variant that sleeps has requests too."""

    def teardown(self) -> None:
        """It is asked for from here on."""
        self.wanted = PODS
        super().teardown()


def rollouts_of(snapshot: Snapshot) -> dict[str, RolloutStatus | None]:
    """The rollout of the predictor, and of the variant if there is one."""
    names = ["", *(variant.name for variant in snapshot.service.spec.variants)]
    return {name: snapshot.service.of_variant(name).status.rollout for name in names}


PARTS = 4  # each is a test of its own, so that they run side by side
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
    """So many stories; where random ones are off, as in CI, those of the part's own seed."""
    machine = type(f"{stories.__name__}{part}", (stories,), {})
    own = settings(SETTINGS, max_examples=count)
    run_state_machine_as_test(seed(part)(machine) if SETTINGS.derandomize else machine, settings=own)
