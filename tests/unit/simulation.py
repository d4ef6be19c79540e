"""A cluster of values, on which the pure packages run as on a real one.

observe, decide, desire, plan and build_status are the real functions. Simulated are the API server's storage (uid,
resourceVersion, ownership by server-side apply) and the kubelet's reports.
"""

import copy
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from conch.api import InferenceService, Status
from conch.api.kinds import (
    BACKEND_TRAFFIC_POLICY,
    CONFIG_MAP,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    GATEWAY,
    GATEWAY_CLASS,
    HTTP_ROUTE,
    INFERENCE_SERVICE,
    JOB,
    POD,
    REPLICA_SET,
    SERVICE,
    Kind,
    Ref,
    ServiceKey,
    ref_of,
)
from conch.api.meta import SERVING_NAME
from conch.api.metrics import MetricsApi
from conch.api.names import ANNOTATION_ASSIGNED, LABEL_NAME, LABEL_SERVICE_NAME
from conch.api.times import format_time
from conch.decide import (
    Decision,
    Event,
    Finding,
    build_events,
    build_measurement_request,
    build_report_requests,
    build_status,
    decide,
    find_stuck_objects,
    needs_capacity,
)
from conch.decide.rollout import annotation
from conch.desire import PodDefaults, desire
from conch.observe import Gateways, Snapshot, Store, observe
from conch.observe.capacity import Capacity, Node, Owner
from conch.observe.fields import mapping
from conch.observe.gateways import GatewayKey, list_gateways
from conch.observe.measured import Measured, Totals
from conch.plan import Action, Adopt, Apply, Assign, Delete, Release, Step, find_unwritten, plan
from conch_contract import AgentReport, JobReport, ModelManifest, ModelReport, ModelState, SignaturePolicy, names
from conch_contract.revision_jobs import RevisionJob

KEY = ServiceKey("demo", "magika")
DEFAULTS = PodDefaults("conch/serving:1")
GPU = "nvidia.com/gpu"
CLASS = "envoy"  # of all Gateways
CONTROLLER = "envoy.example.com/controller"  # of that class


def build_manifest(
    uri: str = "s3://models/magika",
    rollout: dict[str, Any] | None = None,
    traffic: dict[str, Any] | None = None,
    **predictor: Any,
) -> dict[str, Any]:
    """Return an InferenceService as the API server returns it."""
    model = {"modelFormat": {"name": "onnx"}, "storageUri": uri, "storage": {"secretRef": {"name": "s3"}}}
    return {
        "apiVersion": "conch.dev/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": KEY.name, "namespace": KEY.namespace, "uid": "service-uid", "generation": 1},
        "spec": {
            "predictor": {"model": model, **predictor},
            "rollout": {"progressDeadline": "15m", **(rollout or {})},
            **({"traffic": traffic} if traffic else {}),
        },
    }


class Cluster:
    """One service's cluster. The clock stands still until a test moves it."""

    def __init__(
        self,
        service: dict[str, Any],
        defaults: PodDefaults = DEFAULTS,
        metrics_api: MetricsApi = "builtin",
        prometheus: str = "",
    ) -> None:
        self.store = Store()
        self.gateways = Gateways()
        self.controller = CONTROLLER
        self.defaults = defaults
        self.metrics_api: MetricsApi = metrics_api
        self.prometheus = prometheus
        self.policy: SignaturePolicy | None = None  # of the namespace
        self.now = 1_000_000.0
        self.objects: dict[Ref, dict[str, Any]] = {}
        self.reports: dict[str, AgentReport] = {}
        self.reports_on_request = False  # whether only the reports are known that a reconcile requests
        self.measured = Measured()
        self.measured_of: dict[str, Measured] = {}
        self.gpus: int | None = None  # that its one node has; None: nodes cannot be listed
        self.warnings: dict[str, Finding] = {}  # by uid, the latest event about an object
        self.knows_gpus = True  # whether the operator has read the nodes
        self.lists_pods = True  # whether EndpointSlices follow the ready pods
        self.unlisted: set[str] = set()  # Services whose EndpointSlices stay as they are
        self.accepted: frozenset[str] = frozenset()  # the revisions of the last accepted route
        self.story: list[Event] = []
        self.status_writes = 0
        self._versions = itertools.count(1)
        self.replica_sets: dict[str, dict[str, Any]] = {}  # by revision
        self._uids = itertools.count(1)
        self._gone: set[str] = set()  # uids that are never used again
        self.put(service)
        self.put_class()
        for key in list_gateways(service):
            self.put_gateway(key)

    def put(self, body: dict[str, Any]) -> None:
        """Write an object, also to the store."""
        body = copy.deepcopy(body)
        meta = body["metadata"]
        meta.setdefault("uid", f"uid-{next(self._uids)}")
        meta["resourceVersion"] = str(next(self._versions))
        meta.setdefault("creationTimestamp", format_time(self.now))
        before = self.objects.get(ref_of(body))
        if before is not None and before["metadata"]["uid"] != meta["uid"]:
            self._gone.add(before["metadata"]["uid"])
        if body["kind"] in {HTTP_ROUTE.name, BACKEND_TRAFFIC_POLICY.name}:
            changed = before is None or before["spec"] != body["spec"]
            meta["generation"] = (before["metadata"]["generation"] if before else 0) + changed
        self.objects[ref_of(body)] = body
        if names.LABEL_SERVICE not in meta.get("labels", {}) and body["kind"] != INFERENCE_SERVICE.name:
            # A watch by label reports an object that lost the label as deleted: as it was, in its new version. Routes
            # are watched without one, and come as they are.
            lost = copy.deepcopy(body if before is None or body["kind"] == HTTP_ROUTE.name else before)
            lost["metadata"]["resourceVersion"] = meta["resourceVersion"]
            self.store.discard(lost)
        else:
            self.store.put(body)
        if body["kind"] == DEPLOYMENT.name:
            self._put_replica_set(meta["name"], meta["uid"])
        self._list_pods(body)

    def _put_replica_set(self, revision: str, deployment: str) -> None:
        """Create or adopt the ReplicaSet of a revision's Deployment with this uid."""
        meta = {
            "name": f"{revision}-1",
            "namespace": KEY.namespace,
            "uid": f"rs-{revision}",
            "resourceVersion": str(next(self._versions)),
            "labels": {names.LABEL_SERVICE: KEY.name},
            "ownerReferences": [{"kind": DEPLOYMENT.name, "uid": deployment, "controller": True}],
        }
        body = {"apiVersion": REPLICA_SET.api_version, "kind": REPLICA_SET.name, "metadata": meta}
        self.replica_sets[revision] = body
        self.store.put(body)

    def remove(self, ref: Ref) -> None:
        """Delete an object, also from the store."""
        body = self.objects.pop(ref)
        if ref.kind == HTTP_ROUTE:
            self.accepted = frozenset()
        self._gone.add(body["metadata"]["uid"])
        self.store.discard(body)
        self._list_pods(body)

    def _list_pods(self, changed: dict[str, Any]) -> None:
        """Update EndpointSlices after a change of a pod or a Service, as their controller does."""
        if changed["kind"] == SERVICE.name:
            self._forget_slices(changed)
        if changed["kind"] not in {POD.name, SERVICE.name} or not self.lists_pods:
            return
        for ref, service in list(self.objects.items()):
            if ref.kind == SERVICE and ref.name not in self.unlisted:
                self.list_pods(service)

    def _forget_slices(self, service: dict[str, Any]) -> None:
        """Delete the slices of a deleted Service, as the garbage collector does."""
        there = self.objects.get(Ref(SERVICE, service["metadata"]["name"]))
        known = there["metadata"]["uid"] if there else None
        for ref, body in list(self.objects.items()):
            owner = (body["metadata"].get("ownerReferences") or [{}])[0]
            if (
                ref.kind == ENDPOINT_SLICE
                and owner.get("name") == service["metadata"]["name"]
                and owner["uid"] != known
            ):
                self.remove(ref)

    def list_pods(self, service: dict[str, Any], pods: Sequence[str] | None = None) -> None:
        """Write the EndpointSlice of a Service; `pods`: only these, and not those that it selects."""
        name = service["metadata"]["name"]
        ref = Ref(ENDPOINT_SLICE, f"{name}-slice")
        endpoints = [
            self._endpoint(pod)
            for of, pod in self.objects.items()
            if of.kind == POD and (selects(service, pod) if pods is None else of.name in pods)
        ]
        before = self.objects.get(ref)
        if before is not None and before["endpoints"] == endpoints:
            return
        known = {key: before["metadata"][key] for key in ("uid", "creationTimestamp")} if before is not None else {}
        owner = {"kind": SERVICE.name, "name": name, "uid": service["metadata"]["uid"], "controller": True}
        meta = {
            "name": ref.name,
            "namespace": KEY.namespace,
            "labels": {**service["metadata"].get("labels", {}), LABEL_SERVICE_NAME: name},
            "ownerReferences": [owner],
        }
        head = {"apiVersion": ENDPOINT_SLICE.api_version, "kind": ENDPOINT_SLICE.name}
        self.put({**head, "metadata": {**meta, **known}, "endpoints": endpoints})

    def _endpoint(self, pod: dict[str, Any]) -> dict[str, Any]:
        meta = pod["metadata"]
        ready = pod["status"]["conditions"][0]["status"] == "True" and "deletionTimestamp" not in meta
        return {
            "conditions": {"ready": ready},
            "targetRef": {"kind": "Pod", "name": meta["name"], "uid": meta["uid"]},
        }

    def put_class(self, features: list[Any] | None = None) -> None:
        """Write the class of all Gateways, with its supported features, or without any."""
        spec = {"controllerName": self.controller}
        self.gateways.put(self._build_foreign(GATEWAY_CLASS, CLASS, spec, {"supportedFeatures": features or []}))

    def put_gateway(self, key: GatewayKey) -> None:
        """Write a Gateway."""
        body = self._build_foreign(GATEWAY, key.name, {"gatewayClassName": CLASS}, {})
        body["metadata"]["namespace"] = key.namespace
        self.gateways.put(body)

    def remove_all(self, kind: Kind) -> None:
        """Delete all Gateways, or all classes. Their conditions stay in the status of the route."""
        self.gateways.retain(kind, frozenset(), next(self._versions))

    def _build_foreign(self, kind: Kind, name: str, spec: dict[str, Any], status: dict[str, Any]) -> dict[str, Any]:
        meta = {"name": name, "uid": f"uid-{next(self._uids)}", "resourceVersion": str(next(self._versions))}
        return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": meta, "spec": spec, "status": status}

    def edit(self, **predictor: Any) -> None:
        """Change the user's predictor."""
        body = copy.deepcopy(self.objects[Ref(INFERENCE_SERVICE, KEY.name)])
        for field, value in predictor.items():
            if value is None:
                body["spec"]["predictor"].pop(field, None)
            elif field == "uri":
                body["spec"]["predictor"]["model"]["storageUri"] = value
            else:
                body["spec"]["predictor"][field] = value
        body["metadata"]["generation"] += 1
        self.put(body)

    def edit_rollout(self, **rollout: Any) -> None:
        """Change spec.rollout."""
        body = copy.deepcopy(self.objects[Ref(INFERENCE_SERVICE, KEY.name)])
        body["spec"]["rollout"] |= rollout
        body["metadata"]["generation"] += 1
        self.put(body)

    def edit_traffic(self, traffic: dict[str, Any]) -> None:
        """Change spec.traffic."""
        body = copy.deepcopy(self.objects[Ref(INFERENCE_SERVICE, KEY.name)])
        body["spec"]["traffic"] = traffic
        body["metadata"]["generation"] += 1
        self.put(body)

    def edit_variants(self, *variants: dict[str, Any]) -> None:
        """Set the variants."""
        body = copy.deepcopy(self.objects[Ref(INFERENCE_SERVICE, KEY.name)])
        body["spec"]["variants"] = list(variants)
        body["metadata"]["generation"] += 1
        self.put(body)

    def request(self, request: str, variant: str = "") -> None:
        """Write a request to the rollout as an annotation; the generation stays."""
        body = copy.deepcopy(self.objects[Ref(INFERENCE_SERVICE, KEY.name)])
        body["metadata"].setdefault("annotations", {})[annotation(variant)] = request
        self.put(body)

    def accept_routes(self, status: str = "True", reason: str = "Accepted", message: str = "") -> None:
        """Write the conditions of the gateways for the current route."""
        body = copy.deepcopy(self.objects[Ref(HTTP_ROUTE, KEY.name)])
        conditions = [
            {
                "type": type_,
                "status": status if type_ == "Accepted" else "True",
                "reason": reason,
                "message": message,
                "observedGeneration": body["metadata"]["generation"],
            }
            for type_ in ("Accepted", "ResolvedRefs")
        ]
        others = [
            each for each in body.get("status", {}).get("parents", ()) if each["controllerName"] != self.controller
        ]
        ours = [
            {"parentRef": ref, "controllerName": self.controller, "conditions": conditions}
            for ref in body["spec"]["parentRefs"]
        ]
        body["status"] = {"parents": [*others, *ours]}
        if status == "True":
            self.accepted = frozenset(list_backends(body))
        self.put(body)

    def snapshot(self) -> Snapshot:
        """Return the snapshot of the service, with reports, measurements, warnings and capacity."""
        snapshot = observe(
            self.store,
            KEY,
            self.now,
            self.gateways,
            self.metrics_api,
            prometheus=self.prometheus,
            policy=self.policy,
        )
        assert isinstance(snapshot, Snapshot)
        snapshot = snapshot.without_future_times()
        measured = {
            name: self.measured_of.get(name, self.measured) for name in build_measurement_request(snapshot).models
        }
        reports = self.reports
        if self.reports_on_request:
            requested = {each.pod.uid for each in build_report_requests(snapshot)}
            reports = {uid: report for uid, report in reports.items() if uid in requested}
        snapshot = snapshot.with_reports(reports).with_measured(measured)
        warnings = {uid: self.warnings[uid] for uid in find_stuck_objects(snapshot) if uid in self.warnings}
        snapshot = snapshot.with_warnings(warnings)
        return snapshot.with_capacity(self.capacity() if self.knows_gpus and needs_capacity(snapshot) else None)

    def capacity(self) -> Capacity:
        """Return the GPUs of the cluster: each serving pod has one."""
        if self.gpus is None:
            return Capacity(unknown="nodes is forbidden")
        labels = [body["metadata"]["labels"] for ref, body in self.objects.items() if ref.kind == POD]
        workloads = (each.get(names.LABEL_WORKLOAD) or each.get(names.LABEL_REVISION) for each in labels)
        holders = (Owner(KEY.namespace, workload) for workload in workloads if workload)
        held = {owner: {GPU: count} for owner, count in Counter(holders).items()}
        return Capacity((Node("node", allocatable={GPU: self.gpus}, allocated=held),))

    def decision(self, variant: str = "") -> Decision:
        """Return the decision on the predictor, or on a variant."""
        names = [track.service.variant for track in self.snapshot().tracks]
        return decide(self.snapshot()).tracks[names.index(variant)]

    @property
    def status(self) -> Status:
        return InferenceService.parse(self.objects[Ref(INFERENCE_SERVICE, KEY.name)]).status

    def condition(self, kind: str) -> tuple[str, str]:
        """Return a condition's status and reason; both empty without it."""
        found = self.status.condition(kind)
        return (found.status, found.reason) if found else ("", "")

    def reconcile(self) -> list[Action]:
        """Reconcile once, as reconcile.py does, and return the writes."""
        steps, status = self.plan_writes()
        actions = [action for step in steps for action in step]
        for action in actions:
            self._act(action)
        self.write_status(status)
        return actions

    def plan_writes(self) -> tuple[list[Step], Status]:
        """Return the writes of a reconcile, in their order, and the status that it writes after them."""
        snapshot = self.snapshot()
        decision = decide(snapshot)
        steps, rejections = plan(snapshot, decision, desire(snapshot, decision, self.defaults))
        return steps, build_status(snapshot, decision, find_unwritten(snapshot.service, rejections, {}))

    def write_status(self, status: Status) -> None:
        """Write the status, if it differs, and note its events."""
        if status != (before := self.status):
            self.status_writes += 1
            self.story += build_events(before, status)
            body = copy.deepcopy(self.objects[Ref(INFERENCE_SERVICE, KEY.name)])
            body["status"] = status.to_wire()
            self.put(body)

    def settle(self, rounds: int = 20) -> int:
        """Reconcile until nothing is written. Return the number of rounds before."""
        for round_ in range(rounds):
            before = self.status_writes
            if not self.reconcile() and self.status_writes == before:
                return round_
        raise AssertionError(f"not settled after {rounds} rounds")

    def start_pods(self, revision: str, ready: bool = True, count: int | None = None) -> None:
        """Start a revision's pods; ready ones report their models."""
        deployment = self.objects[Ref(DEPLOYMENT, revision)]
        wanted = deployment["spec"].get("replicas", 1) if count is None else count
        for index in range(wanted):
            self.put_pod(revision, index, ready=ready)

    def put_pod(
        self,
        revision: str,
        index: int,
        *,
        ready: bool,
        report: AgentReport | None = None,
        generation: str = "",
        **status: Any,
    ) -> None:
        """Write one pod of a revision; of another `generation`, it is another pod in its place."""
        name = f"{revision}-{index}"
        owner = self.objects.get(Ref(DEPLOYMENT, revision), {"metadata": {"uid": "gone"}})
        uid = f"pod-{name}-{owner['metadata']['uid']}-{generation}"
        while uid in self._gone:
            uid += "-anew"
        variant = owner["metadata"].get("labels", {}).get(names.LABEL_VARIANT)
        if Ref(DEPLOYMENT, revision) not in self.objects:
            self._put_replica_set(revision, "gone")
        replica_set = {"kind": "ReplicaSet", "uid": f"rs-{revision}", "controller": True}
        self.put(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": name,
                    "namespace": KEY.namespace,
                    "uid": uid,
                    "labels": {
                        LABEL_NAME: SERVING_NAME,
                        names.LABEL_SERVICE: KEY.name,
                        **self._read_label(Ref(POD, name), uid, revision),
                        **({names.LABEL_VARIANT: variant} if variant else {}),
                    },
                    "annotations": self._read_annotations(Ref(POD, name), uid),
                    "ownerReferences": [replica_set],
                },
                "status": {
                    "phase": "Running",
                    "podIP": "198.18.0.9",
                    "conditions": [
                        {
                            "type": "Ready",
                            "status": str(ready),
                            "lastTransitionTime": self._find_transition_time(name, ready),
                        }
                    ],
                    **status,
                },
            }
        )
        self.reports[uid] = report or build_report(ModelState.READY if ready else ModelState.LOADING)

    def _read_label(self, ref: Ref, uid: str, revision: str) -> dict[str, str]:
        """Return the labels of a pod by which it serves a revision; those of a pod that is there stay."""
        template = self.objects.get(Ref(DEPLOYMENT, revision), {"spec": {}})["spec"].get("template") or {}
        own = mapping(mapping(template.get("metadata")).get("labels"))
        found = {names.LABEL_REVISION: revision}
        found |= {name: own[name] for name in (names.LABEL_WORKLOAD,) if name in own}
        there = self.objects.get(ref)
        if there is not None and there["metadata"]["uid"] == uid:
            known = {name: value for name, value in there["metadata"]["labels"].items() if name in found}
            return {**{name: value for name, value in found.items() if name != names.LABEL_REVISION}, **known}
        return found

    def _read_annotations(self, ref: Ref, uid: str) -> dict[str, str]:
        there = self.objects.get(ref)
        is_same = there is not None and there["metadata"]["uid"] == uid
        return dict(there["metadata"].get("annotations") or {}) if there is not None and is_same else {}

    def swap(self, state: ModelState = ModelState.READY, **failure: str) -> None:
        """Let every pod load the revision that its label leads to, as its agent does."""
        loaded = []
        for ref, pod in self.objects.items():
            if ref.kind == POD:
                revision, is_in_place = self._find_served(pod)
                report = build_report(state, **failure).model_copy(update={"revision": revision})
                uid, conditions = pod["metadata"]["uid"], pod["status"]["conditions"]
                if self.reports[uid].revision != revision or not self.reports[uid].has_loaded:  # it tries again
                    self.reports[uid] = report
                    was_ready = conditions[0]["status"] == "True"
                    loaded.append((pod, state is ModelState.READY or (is_in_place and was_ready)))
                elif conditions[0]["status"] == "False":
                    loaded.append((pod, True))  # it got back the revision that it serves
        for pod, ready in loaded:
            body = copy.deepcopy(pod)
            body["status"]["conditions"][0] |= {"status": str(ready), "lastTransitionTime": format_time(self.now)}
            self.put(body)

    def _find_served(self, pod: dict[str, Any]) -> tuple[str, bool]:
        """Return the revision that a pod serves by its annotation and the manifests of its workload.

        With it comes whether the pod is ready while it changes to that.
        """
        assigned = self._read_assigned(pod)
        config_map = self.objects.get(Ref(CONFIG_MAP, pod["metadata"]["labels"].get(names.LABEL_WORKLOAD, "")))
        if config_map is None:
            return assigned, False
        data = config_map["data"]
        manifest = ModelManifest.model_validate_json(data.get(f"{assigned}.json") or data[names.MANIFEST_FILE])
        return manifest.revision, manifest.in_place

    def _read_assigned(self, pod: dict[str, Any]) -> str:
        return str((pod["metadata"].get("annotations") or {}).get(ANNOTATION_ASSIGNED, ""))

    def served(self) -> Counter[str]:
        """Return how many pods have to serve each revision."""
        pods = [pod for ref, pod in self.objects.items() if ref.kind == POD]
        return Counter(self._read_assigned(pod) or pod["metadata"]["labels"][names.LABEL_REVISION] for pod in pods)

    def _find_transition_time(self, pod: str, ready: bool) -> str:
        """Return the time of the last transition of a pod's Ready condition."""
        known = self.objects.get(Ref(POD, pod))
        conditions = known["status"]["conditions"] if known else []
        before = next((c for c in conditions if c["type"] == "Ready"), {"status": ""})
        return str(before["lastTransitionTime"]) if before["status"] == str(ready) else format_time(self.now)

    def end_pods(self) -> None:
        """Delete the pods that their Deployment no longer wants."""
        for ref in [ref for ref in self.objects if ref.kind == POD]:
            revision, _, index = ref.name.rpartition("-")
            deployment = self.objects.get(Ref(DEPLOYMENT, revision))
            if deployment is not None and int(index) >= deployment["spec"]["replicas"]:
                self.remove(ref)

    def kill_pods(self, revision: str) -> None:
        for ref in [r for r in self.objects if r.kind == POD and r.name.startswith(revision)]:
            self.remove(ref)

    def _act(self, action: Action) -> None:
        match action:
            case Delete(ref, uid):
                assert self.objects[ref]["metadata"]["uid"] == uid
                self.remove(ref)
                if ref.kind == DEPLOYMENT:
                    self.kill_pods(ref.name)
            case Adopt(ref, uid, owner):
                assert self.objects[ref]["metadata"]["uid"] == uid
                self.objects[ref]["metadata"]["ownerReferences"] = [owner]
                self.put(self.objects[ref])
            case Assign(ref, uid) as assign:
                assert self.objects[ref]["metadata"]["uid"] == uid
                body = copy.deepcopy(self.objects[ref])
                for field in ("labels", "annotations"):
                    known = body["metadata"].get(field, {}) | assign.metadata.get(field, {})
                    body["metadata"][field] = {name: value for name, value in known.items() if value is not None}
                self.put(body)
            case Release(ref, wanted):
                self.objects[ref]["spec"]["replicas"] = wanted["spec"]["replicas"]
                self.put(self.objects[ref])
            case Apply(ref, wanted, new):
                assert new == (self.store.get(KEY, ref) is None)
                self.put(_merge(self.objects.get(ref), wanted))


def selects(service: Mapping[str, Any], pod: Mapping[str, Any]) -> bool:
    """Whether a Service selects a pod."""
    selector, labels = mapping(service["spec"].get("selector")), pod["metadata"]["labels"]
    return bool(selector) and all(labels.get(name) == value for name, value in selector.items())


def list_backends(route: Mapping[str, Any]) -> Iterator[str]:
    """Yield the revisions that a route has as backends, those of mirrors included."""
    for rule in route["spec"]["rules"]:
        yield from (backend["name"] for backend in rule["backendRefs"])
        yield from (each["requestMirror"]["backendRef"]["name"] for each in rule.get("filters", ()))


def read_weights(cluster: Cluster) -> dict[str, int]:
    """Return the weights of the default rules, which are the same for HTTP and gRPC."""
    rules = cluster.objects[Ref(HTTP_ROUTE, KEY.name)]["spec"]["rules"][:2]
    http, grpc = ({ref["name"]: ref["weight"] for ref in rule["backendRefs"]} for rule in rules)
    assert http == grpc
    return http


def start_revision(cluster: Cluster, revision: str) -> None:
    """Start the pods of a revision and accept the route until nothing is written."""
    for _ in range(10):
        cluster.start_pods(revision)
        cluster.accept_routes()
        if cluster.settle() == 0:
            return
    raise AssertionError("it never settles")


def measure(cluster: Cluster, seconds: int, requests: int = 0, failures: int = 0, latency_ms: float = 10) -> None:
    """Advance the clock; every revision has these requests, evenly spread."""
    history = cluster.measured.history
    if not history.points:
        history = history.with_totals(Totals(cluster.now))
    for _ in range(seconds // 10):
        cluster.now += 10
        last, share = history.points[-1], 10 / seconds
        answered = (requests - failures) * share
        history = history.with_totals(
            Totals(
                time=cluster.now,
                requests=last.requests + round(requests * share),
                failures=last.failures + round(failures * share),
                duration_us=last.duration_us + answered * latency_ms * 1000,
            )
        )
        cluster.measured = Measured(history, cluster.measured.answers)
        cluster.settle()


def build_report(state: ModelState, reason: str = "", message: str = "") -> AgentReport:
    """Return an agent's report on the model magika."""
    model = ModelReport(name="magika", state=state, reason=reason, message=message, digest="sha256:1")
    return AgentReport(ready=state is ModelState.READY, models=(model,))


def end_job(cluster: Cluster, job: RevisionJob[JobReport], revision: str, report: JobReport) -> None:
    """End the pod of a Job with a report, and reconcile."""
    put_job_pod(cluster, job, revision, report)
    cluster.settle()


def put_job_pod(cluster: Cluster, job: RevisionJob[JobReport], revision: str, report: JobReport) -> None:
    """Write the pod of a Job, which has ended with a report."""
    name = job.format_name(revision)
    owner = {"kind": "Job", "name": name, "uid": cluster.objects[Ref(JOB, name)]["metadata"]["uid"], "controller": True}
    ended = {"terminated": {"exitCode": 0, "reason": "Completed", "message": report.to_json()}}
    cluster.put(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"left-{name}-x",  # not deleted with the Deployment
                "namespace": KEY.namespace,
                "labels": {names.LABEL_SERVICE: KEY.name, job.label: revision},
                "ownerReferences": [owner],
            },
            "status": {"phase": "Succeeded", "containerStatuses": [{"name": job.name, "state": ended}]},
        }
    )


def _merge(seen: dict[str, Any] | None, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Server-side apply, as far as Conch uses it: fields of other managers stay."""
    body = copy.deepcopy(dict(wanted))
    if seen is not None:
        kept = {k: v for k, v in seen["metadata"].items() if k in {"uid", "creationTimestamp"}}
        body["metadata"].update(kept)
        if "status" in seen:
            body["status"] = seen["status"]
        if wanted["kind"] == DEPLOYMENT.name and "replicas" not in wanted["spec"]:
            body["spec"]["replicas"] = seen["spec"]["replicas"]
    elif wanted["kind"] == DEPLOYMENT.name:
        body["spec"].setdefault("replicas", 1)
    return body
