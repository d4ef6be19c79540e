"""What each component may do next in a random story of Swap: late, in any order, in the middle of others' changes.

Requests find a pod that answers, with the model of the Service that they reach, after each single write.
"""

from random import Random
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from conch.api.kinds import INFERENCE_SERVICE, POD, SERVICE, Ref
from conch.api.names import ANNOTATION_SERVES
from conch.plan import Action
from conch_contract import names
from tests.unit.delays import WARM, WRONG, DelayedCluster
from tests.unit.simulation import KEY

STEPS: list[list[dict[str, Any]]] = [
    [],
    [{"weight": 25}, {"pause": "Manual"}, {"weight": 50}],
    [{"weight": 50}, {"pause": "1m"}],
]
MODELS = ["s3://models/magika", "s3://models/v1", "s3://models/v2"]
VARIANT = {"name": "b", "predictor": {"model": {"storageUri": "s3://models/variant"}}, "weight": 10}
NEW_PODS = frozenset({"Recreate", "Replace"})  # strategies that end pods before others start


class Delays(RuleBasedStateMachine):
    """One service, and what each component may do next; a subclass begins the story."""

    cluster: DelayedCluster
    is_whole = False  # whether no pod was lost, and no child, since all pods answered
    is_edited = False  # whether another writer changed pods since then

    def build(self, manifest: dict[str, Any], **settings: Any) -> DelayedCluster:
        """Return the cluster of a service."""
        return DelayedCluster(manifest, **settings)

    def start(self, cluster: DelayedCluster, *, is_behind: bool) -> None:
        """Let a service begin, and change its model if the story begins behind that."""
        self.cluster = cluster
        for _ in range(3):
            cluster.settle()
            self.scale(1)
            cluster.advance()
        assert cluster.condition("Ready") == ("True", "Served"), cluster.condition("Ready")
        cluster.after_write = self.check_requests
        self.is_whole = True
        if is_behind:
            cluster.edit(uri=MODELS[1])
            cluster.advance(4)

    def scale(self, pods: int) -> None:
        """Let an autoscaler set replicas, if there is one."""

    @rule(uri=st.sampled_from(MODELS), settles=st.booleans())
    def change_model(self, uri: str, settles: bool) -> None:
        self.cluster.edit(uri=uri)
        if settles:
            self.cluster.settle()

    @rule(steps=st.sampled_from(STEPS))
    def change_steps(self, steps: list[dict[str, Any]]) -> None:
        if self.read_strategy() != "Recreate":
            self.cluster.edit_rollout(steps=steps)

    @rule(value=st.sampled_from(["a", "b", *[""] * 3]))
    def change_pods(self, value: str) -> None:
        """Change an environment variable; rarely, since pods start then."""
        if value:
            self.cluster.edit(pod={"env": [{"name": "A", "value": value}]})

    @rule(warmup=st.sampled_from([None, {}]))
    def change_warmup(self, warmup: dict[str, Any] | None) -> None:
        self.cluster.edit(warmup=warmup)

    @rule(weight=st.sampled_from([0, 10, 50]))
    def change_variant(self, weight: int) -> None:
        if "traffic" in self.read_spec():
            self.cluster.edit_variants(*([{**VARIANT, "weight": weight}] if weight else []))

    @rule(verb=st.sampled_from(["promote", "pause", "abort", "retry"]), word=st.sampled_from(["", " a", " b"]))
    def request(self, verb: str, word: str) -> None:
        generation = self.cluster.objects[Ref(INFERENCE_SERVICE, KEY.name)]["metadata"]["generation"]
        self.cluster.request(f"{verb} {generation}{word}")

    @rule(rounds=st.integers(1, 4))
    def advance(self, rounds: int) -> None:
        self.cluster.advance(rounds)
        pods = self.cluster.list_serving_pods()
        if rounds > 1 and pods and all(self.cluster.is_ready(name) for name in pods):
            rollout = self.cluster.status.rollout
            self.is_whole = not NEW_PODS & {self.read_strategy(), rollout.strategy if rollout else ""}
            self.is_edited = False

    @rule()
    def reconcile(self) -> None:
        self.cluster.reconcile()

    @rule(count=st.integers(0, 6), random=st.randoms())
    def end_operator(self, count: int, random: Random) -> None:
        """Let the operator end after some writes of a reconcile."""
        self.cluster.reconcile_partly(count, random.shuffle)

    @rule(index=st.integers(0, 7), is_config_map=st.booleans())
    def refresh_file(self, index: int, is_config_map: bool) -> None:
        for name in self.pick(index):
            self.cluster.refresh_files(name, annotations=not is_config_map, config_map=is_config_map)

    @rule(index=st.integers(0, 7), fails=st.booleans())
    def load(self, index: int, fails: bool) -> None:
        for name in self.pick(index):
            self.cluster.load(name, fails=fails)

    @rule(report=st.sampled_from([WARM, WARM, WRONG]))
    def end_warmups(self, report: Any) -> None:
        self.cluster.end_warmups(report)

    @rule()
    def accept_routes(self) -> None:
        self.cluster.accept_routes()

    @rule()
    def run_replica_sets(self) -> None:
        self.cluster.run_replica_sets()

    @rule(index=st.integers(0, 7))
    def evict(self, index: int) -> None:
        for name in self.pick(index):
            self.is_whole = False
            self.cluster.remove(Ref(POD, name))

    @rule(is_late=st.booleans())
    def delay_watches(self, is_late: bool) -> None:
        if is_late:
            self.cluster.store.is_late = True
        else:
            self.cluster.store.catch_up()

    @rule(is_late=st.booleans())
    def delay_slices(self, is_late: bool) -> None:
        """Let the EndpointSlice controller fall behind, or catch up."""
        self.cluster.lists_pods = not is_late
        for service in [body for ref, body in self.cluster.objects.items() if ref.kind == SERVICE and not is_late]:
            self.cluster.list_pods(service)

    @rule(seconds=st.sampled_from([1, 60, 200]))
    def advance_clock(self, seconds: int) -> None:
        self.cluster.now += seconds

    @invariant()
    def check(self) -> None:
        if hasattr(self, "cluster"):
            self.check_requests()

    def check_requests(self, action: Action | None = None) -> None:
        """While no pod was lost, each Service with requests has a pod that answers, and with its own model."""
        cause = f"after {type(action).__name__} {action.ref}" if action else "after this"
        for target in self.cluster.list_targets() if self.is_whole else ():
            assert self.cluster.list_answering(target), f"{cause}: no pod answers for {target}: {self.describe()}"
            wrong = [] if target == KEY.name or self.is_edited else self.list_wrong(target)
            assert not wrong, f"{cause}: {wrong} answer for {target} with other models: {self.describe()}"

    def list_wrong(self, target: str) -> list[str]:
        """Return the pods that answer for a revision's Service with another one.

        A Service that selects a workload has pods that change in place, and new ones until a revision is assigned. And
        it has those that have gone back in place, while the gateway has not taken up the route, which has left it.
        """
        found = self.cluster.list_answering(target)
        if names.LABEL_WORKLOAD in self.cluster.objects[Ref(SERVICE, target)]["spec"]["selector"]:
            annotations = [self.cluster.read_pod(name)["metadata"].get("annotations", {}) for name in found]
            if any(ANNOTATION_SERVES in each for each in annotations):
                return []
            if any(self.cluster.agent_of(name).is_in_place for name in found):
                return []
            served = {self.cluster.agent_of(name).serves for name in self.cluster.list_serving_pods()}
            if target not in served | self.cluster.list_written_targets():
                return []
            found = [name for name in found if self.cluster.read_assigned(name)]
        return [name for name in found if self.cluster.agent_of(name).serves != target]

    def pick(self, index: int) -> list[str]:
        """Return one pod that serves, if there is any."""
        pods = self.cluster.list_serving_pods()
        return [pods[index % len(pods)]] if pods else []

    def read_spec(self) -> dict[str, Any]:
        return dict(self.cluster.objects[Ref(INFERENCE_SERVICE, KEY.name)]["spec"])

    def read_strategy(self) -> str:
        return str(self.read_spec()["rollout"]["strategy"])

    def describe(self) -> str:
        """Return what a failure is understood by: each pod, what each Service selects, and the rollout."""
        pods = {
            name: (self.cluster.read_pod(name)["metadata"], self.cluster.agent_of(name), self.cluster.is_ready(name))
            for name in self.cluster.list_serving_pods()
        }
        selectors = {
            ref.name: body["spec"]["selector"] for ref, body in self.cluster.objects.items() if ref.kind == SERVICE
        }
        return f"{pods=}\n{selectors=}\n{self.cluster.status.rollout=}\n{self.cluster.accepted=}"

    def teardown(self) -> None:
        """Without further failures the rollout ends: served by all pods, or failed with a condition and answers."""
        if not hasattr(self, "cluster"):
            return
        self.delay_slices(is_late=False)
        self.cluster.request("")
        self.cluster.edit_rollout(onFailure="Rollback", steps=[])
        for round_ in range(20):
            self.cluster.advance()
            self.scale(2)
            self.cluster.now += 61
            rollout = self.cluster.status.rollout
            is_ready = rollout is None and self.cluster.condition("Ready") == ("True", "Served")
            if round_ > 3 and is_ready and self.is_served():
                assert self.cluster.list_answering(KEY.name), self.describe()
                return
            if round_ > 8 and rollout is not None and rollout.phase == "Failed":
                assert self.cluster.condition("Stalled")[0] == "True"
                assert self.cluster.list_answering(KEY.name), self.describe()
                return
            if rollout is not None and rollout.reason == "InsufficientGPU":
                return
            if rollout is not None and rollout.reason == "WaitsForPromotion":
                self.cluster.request(f"promote {self.cluster.status.observed_generation} end{round_}")
        raise AssertionError(f"stuck: {self.cluster.condition('Ready')} {self.describe()}")

    def is_served(self) -> bool:
        """Whether each pod of the predictor has the stable revision; the last ones may have left their Services."""
        pods = map(self.cluster.read_pod, self.cluster.list_serving_pods())
        own = [pod["metadata"]["name"] for pod in pods if names.LABEL_VARIANT not in pod["metadata"]["labels"]]
        return {self.cluster.agent_of(name).serves for name in own} == {self.cluster.status.stable}


SETTINGS = settings(
    max_examples=6,
    stateful_step_count=25,
    phases=[Phase.generate],
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
