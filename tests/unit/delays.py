"""A cluster whose components act one at a time: each may be late, or end in the middle.

To the simulation it adds:

- kubelets, which refresh the two files of a pod, its annotations and its ConfigMap, one without the other;
- agents, which read these files and load; what Triton serves, what the agent reports and whether the pod is ready are
  three things;
- ReplicaSets, which end pods that are not ready first;
- watches of pods, ReplicaSets and EndpointSlices that are late, while the operator's own writes are known at once;
- an operator that ends between two writes of a reconcile.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from conch.api.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    HTTP_ROUTE,
    JOB,
    POD,
    REPLICA_SET,
    SERVICE,
    Ref,
    ServiceKey,
    ref_of,
)
from conch.api.meta import SERVING_NAME
from conch.api.metrics import MetricsApi
from conch.api.names import LABEL_NAME
from conch.api.times import format_time
from conch.observe import Store
from conch.plan import Action, Assign
from conch_contract import ModelManifest, ModelState, WarmupReport, names
from conch_contract.revision_jobs import WARMUP
from tests.unit.simulation import KEY, Cluster, build_report, put_job_pod, selects

LATE_KINDS = frozenset({POD, REPLICA_SET, ENDPOINT_SLICE})
ROUTE = Ref(HTTP_ROUTE, KEY.name)
TRAFFIC = {"gateways": [{"name": "public"}], "hostnames": ["magika.example.com"]}
WARM = WarmupReport(requests=150, p50_milliseconds=4.2, p99_milliseconds=9.1, stable=True, reason="WarmedUp")
WRONG = WarmupReport(requests=1, failures=1, reason="WarmupAnswersWrong", message="Output y[0] is 2, 3 was expected.")


class LateStore(Store):
    """A store whose watches of pods, ReplicaSets and EndpointSlices may be late.

    The responses to the operator's own writes are in it at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_late = False
        self.written: Ref | None = None  # what the operator writes at the moment
        self._events: list[tuple[Callable[[Mapping[str, Any]], ServiceKey | None], dict[str, Any]]] = []

    def put(self, body: Mapping[str, Any]) -> ServiceKey | None:
        return self._receive(super().put, body)

    def discard(self, body: Mapping[str, Any]) -> ServiceKey | None:
        return self._receive(super().discard, body)

    def catch_up(self) -> None:
        """Receive all events that are late, in their order; from now on they come at once."""
        self.is_late = False
        events, self._events = self._events, []
        for receive, body in events:
            receive(body)

    def _receive(
        self, receive: Callable[[Mapping[str, Any]], ServiceKey | None], body: Mapping[str, Any]
    ) -> ServiceKey | None:
        ref = ref_of(body)
        if not self.is_late or ref.kind not in LATE_KINDS or ref == self.written:
            return receive(body)
        self._events.append((receive, copy.deepcopy(dict(body))))
        return None


@dataclass
class Agent:
    """The agent of one pod, and its Triton."""

    assigned: str = ""  # by the file of the pod's annotations
    data: dict[str, str] = field(default_factory=dict)  # the files of its ConfigMap
    target: str = ""  # the revision that it has to load
    serves: str = ""  # the revision that Triton answers with; empty: Triton does not answer
    is_in_place: bool = False  # whether the pod is ready while it loads the target
    has_failed: bool = False  # whether the target does not load
    followed: str = ""  # the last assignment whose manifest was there

    @property
    def is_ready(self) -> bool:
        """Whether the pod's readiness probe succeeds."""
        if not self.serves or self.is_in_place:
            return bool(self.serves)
        return self.serves == self.target and self.followed in {"", self.target}

    def read_files(self) -> None:
        """Read the manifest: that of the assigned revision, or the common one until it is there."""
        manifest = ModelManifest.model_validate_json(
            self.data.get(f"{self.assigned}.json") or self.data[names.MANIFEST_FILE]
        )
        self.has_failed = self.has_failed and manifest.revision == self.target
        self.target, self.is_in_place = manifest.revision, manifest.in_place
        if self.assigned in {"", manifest.revision} or not self.serves:
            self.followed = self.assigned

    def load(self, *, fails: bool) -> None:
        """Let Triton load the target. One that fails leaves what Triton serves."""
        if self.target and not fails:
            self.serves = self.target
        self.has_failed = fails and self.serves != self.target


class DelayedCluster(Cluster):
    """One service's cluster, whose components act when a test lets them."""

    store: LateStore

    def __init__(self, service: dict[str, Any], metrics_api: MetricsApi = "builtin", prometheus: str = "") -> None:
        self.agents: dict[str, Agent] = {}  # by the pod's uid
        self.reaches_agents = True  # whether the operator gets reports
        self.after_write: Callable[[Action], object] = lambda _: None
        super().__init__(service, metrics_api=metrics_api, prometheus=prometheus)
        self.store = LateStore()
        for body in self.objects.values():
            self.store.put(body)
        self.reports_on_request = True

    def _act(self, action: Action) -> None:
        known = self.objects.get(action.ref, {"metadata": {"uid": ""}})
        if isinstance(action, Assign) and known["metadata"]["uid"] != action.uid:
            return  # the API server has it no more, which a late watch does not know
        self.store.written = action.ref
        super()._act(action)
        self.store.written = None
        self.after_write(action)

    def settle(self, rounds: int = 25) -> int:
        """Reconcile until nothing is written, or for these rounds while watches are late."""
        if self.store.is_late:
            for _ in range(rounds):
                self.reconcile()
            return rounds
        return super().settle(rounds)

    def reconcile_partly(self, count: int, reorder: Callable[[list[Action]], object]) -> None:
        """Do the first writes of a reconcile; the operator ends before the others.

        Args:
            count: The number of writes.
            reorder: Orders the writes of a step in place, which have no order of their own.
        """
        steps, status = self.plan_writes()
        actions: list[Action] = []
        for step in steps:
            group = list(step)
            reorder(group)
            actions += group
        for action in actions[:count]:
            self._act(action)
        if count > len(actions):
            self.write_status(status)

    def list_serving_pods(self) -> list[str]:
        """Return the names of the pods that serve, of every Deployment."""
        return [
            ref.name
            for ref, body in self.objects.items()
            if ref.kind == POD and body["metadata"]["labels"].get(LABEL_NAME) == SERVING_NAME
        ]

    def read_pod(self, name: str) -> dict[str, Any]:
        return self.objects[Ref(POD, name)]

    def read_assigned(self, name: str) -> str:
        """Return the revision that is assigned to a pod; empty if none ever was."""
        return self._read_assigned(self.read_pod(name))

    def is_ready(self, name: str) -> bool:
        return bool(self.read_pod(name)["status"]["conditions"][0]["status"] == "True")

    def agent_of(self, name: str) -> Agent:
        return self.agents.setdefault(self.read_pod(name)["metadata"]["uid"], Agent())

    def refresh_files(self, name: str, *, annotations: bool = True, config_map: bool = True) -> None:
        """Let the kubelet refresh a pod's files, or one of the two, and its agent read them."""
        agent = self.agent_of(name)
        if annotations:
            agent.assigned = self.read_assigned(name)
        workload = self.read_pod(name)["metadata"]["labels"].get(names.LABEL_WORKLOAD, "")
        body = self.objects.get(Ref(CONFIG_MAP, workload))
        if config_map and body is not None:
            agent.data = dict(body["data"])
        if agent.data:
            agent.read_files()
            self.report(name)

    def report(self, name: str) -> None:
        """Let the agent of a pod report, and the kubelet probe it."""
        agent, body = self.agent_of(name), copy.deepcopy(self.read_pod(name))
        state, failure = ModelState.READY if agent.serves == agent.target else ModelState.LOADING, {}
        if agent.has_failed:
            state, failure = ModelState.FAILED, {"reason": "LoadFailed", "message": "no such operator"}
        if self.reaches_agents:
            report = build_report(state, **failure).model_copy(update={"revision": agent.target})
            self.reports[body["metadata"]["uid"]] = report
        if self.is_ready(name) != agent.is_ready:
            changed = {"status": str(agent.is_ready), "lastTransitionTime": format_time(self.now)}
            body["status"]["conditions"][0] |= changed
            self.put(body)

    def load(self, name: str, *, fails: bool = False) -> None:
        """Let the agent of a pod load what it has to."""
        if self.agent_of(name).target:
            self.agent_of(name).load(fails=fails)
            self.report(name)

    def run_agents(self, *, fails: bool = False) -> None:
        """Refresh the files of all pods, then let each load what it has to."""
        for name in self.list_serving_pods():
            self.refresh_files(name)
        for name in self.list_serving_pods():
            self.load(name, fails=fails)

    def run_replica_sets(self) -> None:
        """Start the pods that a Deployment lacks, and end those that it no longer wants: the unready ones first."""
        for ref in [ref for ref in self.objects if ref.kind == DEPLOYMENT]:
            wanted = self.objects[ref]["spec"].get("replicas", 1)
            own = [name for name in self.list_serving_pods() if name.rpartition("-")[0] == ref.name]
            own.sort(key=lambda name: (not self.is_ready(name), name))
            for name in own[wanted:]:
                self.remove(Ref(POD, name))
            free = (index for index in range(wanted + len(own)) if f"{ref.name}-{index}" not in own)
            for index, _ in zip(free, range(wanted - len(own)), strict=False):
                self.put_pod(ref.name, index, ready=False)

    def end_warmups(self, report: WarmupReport = WARM) -> None:
        """End the pods of all warm-up Jobs that run."""
        for ref in [ref for ref in self.objects if ref.kind == JOB]:
            revision = ref.name.removesuffix("-warmup")
            if WARMUP.format_name(revision) == ref.name and Ref(POD, f"left-{ref.name}-x") not in self.objects:
                put_job_pod(self, WARMUP, revision, report)

    def accept_routes(self, status: str = "True", reason: str = "Accepted", message: str = "") -> None:
        """Write the conditions of the gateways for the current route, if there is one."""
        if ROUTE in self.objects:
            super().accept_routes(status, reason, message)

    def advance(self, rounds: int = 1, *, fails: bool = False) -> None:
        """Let each component act in time, as often as `rounds`; models load, or do not."""
        for _ in range(rounds):
            self.store.catch_up()
            self.settle()
            self.run_replica_sets()
            self.settle()
            self.run_agents(fails=fails)
            self.end_warmups()
            self.settle()
            self.accept_routes()
            self.settle()

    def list_answering(self, service: str) -> list[str]:
        """Return the names of the ready pods that a Service selects, whatever its EndpointSlices list."""
        body = self.objects.get(Ref(SERVICE, service))
        if body is None:
            return []
        return [name for name in self.list_serving_pods() if selects(body, self.read_pod(name)) and self.is_ready(name)]

    def list_answers(self, service: str) -> list[str]:
        """Return the revisions that requests to a Service are answered with, one for each pod."""
        return sorted(self.agent_of(name).serves for name in self.list_answering(service))

    def list_written_targets(self) -> set[str]:
        """Return the Services with weight in the route as it is written."""
        rules = self.objects[ROUTE]["spec"]["rules"] if ROUTE in self.objects else []
        return {ref["name"] for rule in rules for ref in rule["backendRefs"] if ref.get("weight", 1)}

    def list_targets(self) -> set[str]:
        """Return the Services that get requests: the root's, and those with weight in the route or the last one.

        The gateway may follow either of the two: the route that it accepted last, or the one written since.
        """
        is_routed = ROUTE in self.objects and self.objects[ROUTE]["spec"]["rules"]
        return {KEY.name, *self.list_written_targets(), *self.accepted} if is_routed else {KEY.name}
