"""Swap: a candidate in the pods of the stable revision, by the steps of the spec, and back."""

from typing import Any

import pytest

from conch.api import InferenceService
from conch.api.kinds import CONFIG_MAP, CONTROLLER_REVISION, DEPLOYMENT, POD, SERVICE, Ref
from conch.api.names import ANNOTATION_WORKLOAD
from conch.decide.swap import select_pod_fields
from conch.desire.pod import build_pod_template
from conch_contract import ModelState, names
from tests.unit.simulation import DEFAULTS, KEY, Cluster, build_manifest

STEPS = [{"weight": 25}, {"pause": "Manual"}, {"weight": 50}]
SWAP = {"strategy": "Swap", "steps": STEPS}


def at(folder: str) -> dict[str, Any]:
    """Return a model with its files in another folder."""
    return {
        "modelFormat": {"name": "onnx"},
        "storageUri": f"s3://models/{folder}",
        "storage": {"secretRef": {"name": "s3"}},
    }


def begin(rollout: dict[str, Any] | None = None, **fields: Any) -> tuple[Cluster, str]:
    """Return a cluster whose first revision serves on four pods, and its name."""
    cluster = Cluster(build_manifest(rollout=rollout or SWAP, **{"minReplicas": 4, **fields}))
    cluster.reports_on_request = True
    cluster.reconcile()
    stable = cluster.decision().wanted
    cluster.start_pods(stable)
    cluster.swap()
    cluster.settle()
    if "traffic" in fields:
        cluster.accept_routes()
        cluster.settle()
    assert cluster.condition("Ready") == ("True", "Served")
    return cluster, stable


def change(cluster: Cluster, **predictor: Any) -> str:
    """Change the model's files; return the candidate."""
    model = at("other")
    cluster.edit(**{"model": model, **predictor})
    cluster.settle()
    return cluster.decision().wanted


def load_all(cluster: Cluster, rounds: int = 8) -> None:
    """Let the agents load what their pods have to serve, until no pod changes any more."""
    for _ in range(rounds):
        cluster.swap()
        cluster.settle()


def test_pods_change_one_after_another_and_none_starts() -> None:
    cluster, stable = begin()
    pods = {ref.name: pod["metadata"]["uid"] for ref, pod in cluster.objects.items() if ref.kind == POD}
    candidate = change(cluster)
    assert cluster.decision().rollout is not None
    assert cluster.served() == {stable: 3, candidate: 1}
    assert cluster.status.ready == "3/4"
    assert Ref(DEPLOYMENT, candidate) not in cluster.objects
    load_all(cluster)
    assert cluster.served() == {stable: 3, candidate: 1}, "the pause holds"
    assert cluster.status.rollout is not None
    assert (cluster.status.rollout.strategy, cluster.status.rollout.weight) == ("Swap", 25)
    cluster.request(f"promote {cluster.status.observed_generation}/2")
    load_all(cluster)
    assert cluster.served() == {candidate: 4}
    assert cluster.status.stable == candidate
    assert cluster.condition("Ready") == ("True", "Served")
    assert {ref.name: pod["metadata"]["uid"] for ref, pod in cluster.objects.items() if ref.kind == POD} == pods
    record = cluster.objects[Ref(CONTROLLER_REVISION, candidate)]
    assert record["metadata"]["annotations"][ANNOTATION_WORKLOAD] == stable
    data = cluster.objects[Ref(CONFIG_MAP, stable)]["data"]
    assert list(data) == [names.MANIFEST_FILE]
    assert candidate in data[names.MANIFEST_FILE], "new pods begin with the revision that serves"


def test_a_new_pod_of_the_deployment_gets_the_revision_that_serves() -> None:
    cluster, stable = begin()
    candidate = change(cluster)
    cluster.request(f"promote {cluster.status.observed_generation}")
    load_all(cluster)
    assert cluster.served() == {candidate: 4}
    cluster.put_pod(stable, 4, ready=True)
    load_all(cluster, rounds=1)
    assert cluster.served() == {candidate: 5}


def test_a_candidate_that_does_not_load_is_rolled_back_in_its_pod() -> None:
    cluster, stable = begin()
    candidate = change(cluster)
    cluster.swap(ModelState.FAILED, reason="LoadFailed", message="no such operator")
    cluster.settle()
    assert cluster.served() == {stable: 3, candidate: 1}
    assert cluster.condition("Serving")[0] == "True"
    cluster.now += 901
    cluster.settle()
    assert cluster.condition("Stalled") == ("True", "LoadFailed")
    assert cluster.served() == {stable: 4}
    load_all(cluster)
    assert cluster.status.rollout is not None
    assert cluster.status.rollout.phase == "Failed"
    assert cluster.status.stable == stable


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"resources": {"limits": {"memory": "1Gi"}}}, "resources"),
        ({"pod": {"env": [{"name": "A", "value": "b"}]}}, "pod"),
    ],
)
def test_a_change_of_the_pods_starts_pods_and_gives_the_reason(fields: dict[str, Any], words: str) -> None:
    cluster, stable = begin()
    candidate = change(cluster, **fields)
    assert Ref(DEPLOYMENT, candidate) in cluster.objects
    assert cluster.served() == {stable: 4}
    assert cluster.status.rollout is not None
    assert cluster.status.rollout.strategy == "Progressive"
    assert words in cluster.status.rollout.swap_obstacle
    assert "SwapNotPossible" in [event.reason for event in cluster.story]


def test_a_swap_goes_back_and_forth_through_the_history() -> None:
    cluster, first = begin({"strategy": "Swap"})
    second = change(cluster)
    load_all(cluster)
    assert cluster.status.stable == second
    cluster.edit(model=at("magika"))
    load_all(cluster)
    assert cluster.status.stable == first
    assert cluster.served() == {first: 4}
    assert [ref.name for ref in cluster.objects if ref.kind == DEPLOYMENT] == [first]


def test_the_record_of_a_swapped_revision_may_be_lost() -> None:
    cluster, first = begin({"strategy": "Swap"})
    second = change(cluster)
    load_all(cluster)
    cluster.remove(Ref(CONTROLLER_REVISION, second))
    cluster.settle()
    assert cluster.served() == {second: 4}
    assert [ref.name for ref in cluster.objects if ref.kind == DEPLOYMENT] == [first]
    assert cluster.condition("Ready") == ("True", "Served")
    assert Ref(SERVICE, second) in cluster.objects


def test_an_operator_that_restarts_knows_which_pods_serve_the_candidate() -> None:
    cluster, stable = begin()
    candidate = change(cluster)
    load_all(cluster)
    cluster.reports.clear()
    cluster.now += 60
    cluster.settle()
    assert cluster.status.rollout is not None
    assert cluster.status.rollout.weight == 25
    assert cluster.decision().shares == {stable: 75, candidate: 25}
    assert cluster.status.rollout.unavailable_since is None


def test_an_agent_that_never_reports_the_candidate_ends_the_rollout() -> None:
    cluster, stable = begin()
    change(cluster)
    cluster.now += 901
    cluster.settle()
    assert cluster.status.rollout is not None
    assert cluster.status.rollout.phase == "Failed"
    assert cluster.served() == {stable: 4}
    assert cluster.condition("Serving")[0] == "True"


def test_an_abort_takes_the_pods_back() -> None:
    cluster, stable = begin()
    candidate = change(cluster)
    load_all(cluster)
    cluster.request(f"abort {cluster.status.observed_generation}")
    load_all(cluster)
    assert cluster.served() == {stable: 4}
    assert cluster.condition("RolloutComplete")[0] == "False"
    cluster.request(f"retry {cluster.status.observed_generation}")
    load_all(cluster)
    assert cluster.served() == {stable: 3, candidate: 1}


def test_a_second_change_takes_the_place_of_the_first() -> None:
    cluster, stable = begin()
    first = change(cluster)
    load_all(cluster)
    model = at("third")
    cluster.edit(model=model)
    load_all(cluster)
    second = cluster.decision().wanted
    assert second not in {stable, first}
    assert cluster.served() == {stable: 3, second: 1}


def test_pods_that_came_before_swap_are_replaced_once() -> None:
    """A service of an earlier version of Conch: its stored template has no label of a workload."""
    cluster, _ = begin({"strategy": "Swap"})
    for ref, body in list(cluster.objects.items()):
        labels = body["metadata"].get("labels", {})
        if ref.kind == POD:
            cluster.put({**body, "metadata": {**body["metadata"], "labels": without_workload(labels)}})
        if ref.kind == CONTROLLER_REVISION:
            template = body["data"]["template"]
            meta = {**template["metadata"], "labels": without_workload(template["metadata"]["labels"])}
            cluster.put({**body, "data": {**body["data"], "template": {**template, "metadata": meta}}})
    second = change(cluster)
    assert Ref(DEPLOYMENT, second) in cluster.objects
    assert cluster.status.rollout is not None
    assert "lack the label" in cluster.status.rollout.swap_obstacle


def without_workload(labels: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in labels.items() if name != names.LABEL_WORKLOAD}


MODEL: dict[str, Any] = {
    "name": "magika",
    "modelFormat": {"name": "onnx"},
    "storageUri": "s3://models/magika",
    "storage": {"secretRef": {"name": "s3"}},
}
CONTENT: list[dict[str, Any]] = [
    {"model": {**MODEL, "storageUri": "s3://models/other"}},
    {"model": {**MODEL, "storageUri": "hf://owner/other"}},
    {"model": {**MODEL, "modelFormat": {"name": "triton"}}},
    {"model": {**MODEL, "storage": {**MODEL["storage"], "verify": {"digest": f"sha256:{'0' * 64}"}}}},
    {"triton": {"maxBatchSize": 4}},
    {"triton": {"parameters": {"a": "b"}}},
    {"triton": {"instanceGroups": [{"kind": "CPU", "count": 2}]}},
    {"triton": {"config": "max_batch_size: 3"}},
    {"warmup": {}},
    {"warmup": {"timeout": "7s"}},
]
PODS: list[dict[str, Any]] = [
    {"model": {**MODEL, "storageUri": "pvc://claim/model"}},
    {"model": {**MODEL, "name": "another"}},
    {"model": {**MODEL, "storage": {"secretRef": {"name": "other"}}}},
    {"model": {**MODEL, "storage": {**MODEL["storage"], "mirrors": [{"uri": "hf://owner/magika"}]}}},
    {"model": {**MODEL, "storage": {**MODEL["storage"], "verify": {"signature": {"configMapRef": {"name": "team"}}}}}},
    {"model": {**MODEL, "storage": {**MODEL["storage"], "decrypt": {"secretRef": {"name": "identity"}}}}},
    {"triton": {"args": ["--log-verbose=1"]}},
    {"triton": {"image": "mine:1"}},
    {"triton": {"shmSize": "1Gi"}},
    {"triton": {"responseCache": {"size": "64Mi"}}},
    {"triton": {"tracing": {"url": "http://collector:4318/v1/traces"}}},
    {"triton": {"tracing": {"url": "http://collector:4318/v1/traces", "modelRates": {"magika": 0}}}},
    {"longestRequest": "2m"},
    {"resources": {"limits": {"cpu": "2"}}},
    {"warmup": {"configMapRef": {"name": "requests"}}},
    *(
        {"pod": {name: value}}
        for name, value in {
            "env": [{"name": "A", "value": "b"}],
            "labels": {"a": "b"},
            "annotations": {"a": "b"},
            "nodeSelector": {"a": "b"},
            "priorityClassName": "high",
            "terminationGracePeriodSeconds": 100,
            "agentResources": {"limits": {"cpu": "1"}},
            "volumes": [{"name": "a", "emptyDir": {}}],
        }.items()
    ),
]


def build_template(predictor: dict[str, Any]) -> Any:
    service = InferenceService.model_validate(build_manifest(**predictor))
    return build_pod_template(service, "magika-bcdfghjklm", DEFAULTS), service.spec.predictor.to_wire()


@pytest.mark.parametrize("fields", [*CONTENT, *PODS], ids=str)
def test_just_the_fields_that_change_pods_prevent_a_swap(fields: dict[str, Any]) -> None:
    base, before = build_template({"model": MODEL})
    changed, after = build_template({"model": MODEL, **fields})
    assert (base == changed) == (fields in CONTENT), "the lists here are right"
    assert (select_pod_fields(before) == select_pod_fields(after)) == (base == changed)


def list_models(*names: str, **fields: Any) -> dict[str, Any]:
    """Return a predictor of several models; `fields` are those of the last one."""
    models = [{**at(name), "name": name} for name in names]
    models[-1] |= fields
    return {"model": None, "entry": names[0], "models": models}


WAKE = {"configMapRef": {"name": "wake"}}
REPOSITORY = {"modelFormat": {"name": "repository"}, "storageUri": "s3://models/magika", "storage": MODEL["storage"]}
SEVERAL: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (list_models("a", "b"), list_models("a", "b", storageUri="s3://models/c")),
    (list_models("a", "b"), list_models("a", "b", "c")),
    (list_models("a", "b"), list_models("a", "b", required=False)),
    (list_models("a", "b"), list_models("a", "b", triton={"maxBatchSize": 4})),
    (list_models("a", "b"), list_models("a", "b", storage=None)),
    (list_models("a", "b"), list_models("a", "b", storage={"secretRef": {"name": "other"}})),
    (list_models("a", "b"), list_models("a", "b", storage={**MODEL["storage"], "mirrors": [{"uri": "s3://copies/b"}]})),
    (
        list_models("a", "b"),
        list_models("a", "b", storage={"mirrors": [{"uri": "s3://copies/b", "secretRef": {"name": "other"}}]}),
    ),
    (list_models("a", "b"), list_models("a", "b", storage={"mirrors": [{"uri": "pvc://copies/b"}]})),
    (list_models("a", "b"), list_models("a", "b", warmup={})),
    (list_models("a", "b", warmup={}), list_models("a", "b", warmup={"path": "warmup", "timeout": "7s"})),
    (list_models("a", "b"), list_models("a", "b", warmup=WAKE)),
    (list_models("a", "b", warmup=WAKE), list_models("a", "b", warmup={**WAKE, "tolerance": "1%"})),
    (list_models("a", "b", warmup=WAKE), list_models("a", "b", warmup={"configMapRef": {"name": "other"}})),
    (list_models("a", "b", warmup=WAKE), {**list_models("a", "b", warmup=WAKE), "warmup": WAKE}),
    (list_models("a", "b", warmup=WAKE), {**list_models("a", "b"), "warmup": WAKE}),
    (list_models("a", "b"), list_models("b", "a")),
    (list_models("a", "b"), list_models("a")),
    (list_models("a", "b"), list_models("a", "b", storageUri="pvc://claim/b", storage=None)),
    (
        list_models("a", "b", storageUri="pvc://claim/b", storage=None),
        list_models("a", "b", storageUri="pvc://claim/c", storage=None),
    ),
    (
        {**list_models("a", "b"), "entry": "all", "pipeline": [{"model": "a"}, {"model": "b"}]},
        {**list_models("a", "b"), "entry": "all", "pipeline": [{"model": "b"}, {"model": "a"}]},
    ),
    ({"model": REPOSITORY, "entry": "a"}, {"model": {**REPOSITORY, "storageUri": "s3://models/b"}, "entry": "a"}),
    ({"model": REPOSITORY, "entry": "a"}, {"model": REPOSITORY, "entry": "b"}),
    ({"model": MODEL}, {"model": REPOSITORY, "entry": "magika"}),
]


@pytest.mark.parametrize(("fields", "changed"), SEVERAL, ids=str)
def test_just_the_fields_of_several_models_that_change_pods_prevent_a_swap(
    fields: dict[str, Any], changed: dict[str, Any]
) -> None:
    base, before = build_template(fields)
    other, after = build_template(changed)
    assert before != after
    assert (select_pod_fields(before) == select_pod_fields(after)) == (base == other)


def test_a_set_of_models_changes_in_the_pods_that_serve() -> None:
    cluster, stable = begin(**list_models("a", "b"))
    cluster.edit(**list_models("a", "b", storageUri="s3://models/c"))
    cluster.settle()
    candidate = cluster.decision().wanted
    load_all(cluster)
    assert cluster.served() == {stable: 3, candidate: 1}, "the pause holds"
    assert Ref(DEPLOYMENT, candidate) not in cluster.objects


def test_files_of_the_users_volumes_are_mounted_into_pods_of_their_own() -> None:
    pod = {
        "volumes": [{"name": "a", "emptyDir": {}}],
        "volumeMounts": [{"name": "a", "mountPath": "/models"}],
    }
    base, before = build_template({"model": MODEL, "pod": pod})
    changed, after = build_template({"model": {**MODEL, "storageUri": "file:///models/m"}, "pod": pod})
    assert base != changed
    assert select_pod_fields(before) != select_pod_fields(after)


def begin_behind_gateway() -> tuple[Cluster, str]:
    """Return a cluster whose first revision serves on four pods behind a gateway, and its name."""
    return begin(traffic={"gateways": [{"name": "public"}], "hostnames": ["magika.example.com"]})


def proceed(cluster: Cluster, rounds: int = 40) -> None:
    """Go on step by step behind a slow gateway; each revision to which it sends requests has a ready pod."""
    for each in range(rounds):
        cluster.reconcile()
        snapshot = cluster.snapshot()
        for revision in cluster.accepted:
            listed = snapshot.endpoints.get(revision, frozenset())
            assert listed, f"requests go to {revision}, which has no pod: {cluster.served()}"
        if each % 2:
            cluster.swap()
        if not each % 5:
            cluster.accept_routes()


def test_a_gateway_never_sends_requests_to_a_revision_without_pods() -> None:
    cluster, stable = begin_behind_gateway()
    candidate = change(cluster)
    proceed(cluster)
    assert cluster.served() == {stable: 3, candidate: 1}
    assert cluster.accepted == {stable, candidate}
    cluster.request(f"promote {cluster.status.observed_generation}/2")
    proceed(cluster)
    assert cluster.status.stable == candidate
    assert cluster.served() == {candidate: 4}
    assert cluster.condition("Ready") == ("True", "Served")


def test_a_gateway_leaves_a_failed_candidate_before_its_pods_change_back() -> None:
    cluster, stable = begin_behind_gateway()
    change(cluster)
    proceed(cluster)
    cluster.request(f"abort {cluster.status.observed_generation}")
    proceed(cluster)
    assert cluster.served() == {stable: 4}
    assert cluster.accepted == {stable}


def test_the_record_of_a_workload_outlives_the_history() -> None:
    cluster, first = begin({"strategy": "Swap", "historyLimit": 0})
    for folder in ("b", "c"):
        cluster.edit(model=at(folder))
        load_all(cluster)
    last = cluster.status.stable
    assert cluster.served() == {last: 4}
    records = {ref.name for ref in cluster.objects if ref.kind == CONTROLLER_REVISION}
    assert records == {first, last}


def test_a_pod_whose_label_was_edited_gets_its_revision_back() -> None:
    cluster, stable = begin()
    [ref, *_] = [ref for ref in cluster.objects if ref.kind == POD]
    body = cluster.objects[ref]
    cluster.put(
        {
            **body,
            "metadata": {**body["metadata"], "labels": {**body["metadata"]["labels"], names.LABEL_REVISION: "mine"}},
        }
    )
    load_all(cluster)
    assert cluster.served() == {stable: 4}
    assert cluster.condition("Ready") == ("True", "Served")


def test_a_failed_swap_stays_one_whatever_the_spec_becomes() -> None:
    cluster, stable = begin({"strategy": "Swap"})
    change(cluster)
    cluster.swap(ModelState.FAILED, reason="LoadFailed", message="out of memory")
    cluster.now += 901
    cluster.settle()
    load_all(cluster)
    cluster.edit_rollout(strategy="Recreate")
    load_all(cluster)
    assert cluster.objects[Ref(DEPLOYMENT, stable)]["spec"]["replicas"] == 4
    assert cluster.served() == {stable: 4}


def test_a_swap_under_way_stays_one_whatever_the_spec_becomes() -> None:
    cluster, stable = begin()
    candidate = change(cluster)
    load_all(cluster)
    for strategy in ("Progressive", "Recreate"):
        cluster.edit_rollout(strategy=strategy)
        load_all(cluster)
        assert cluster.served() == {stable: 3, candidate: 1}
        assert [ref.name for ref in cluster.objects if ref.kind == DEPLOYMENT] == [stable]


def test_a_rollout_with_pods_of_its_own_stays_one_whatever_the_spec_becomes() -> None:
    cluster, stable = begin({"strategy": "Progressive", "steps": []})
    candidate = change(cluster)
    cluster.edit_rollout(strategy="Swap")
    load_all(cluster)
    assert {ref.name for ref in cluster.objects if ref.kind == DEPLOYMENT} == {stable, candidate}
    assert cluster.served() == {stable: 4}


@pytest.mark.parametrize("strategy", ["Progressive", "Recreate", "Swap"])
def test_the_way_back_to_the_revision_with_which_the_pods_began_is_a_swap(strategy: str) -> None:
    cluster, first = begin({"strategy": "Swap"})
    second = change(cluster)
    load_all(cluster)
    assert cluster.served() == {second: 4}
    cluster.edit_rollout(strategy=strategy)
    cluster.edit(model=at("magika"))
    for _ in range(12):
        cluster.swap()
        cluster.reconcile()
        assert cluster.snapshot().endpoints["magika"], "requests find a pod"
    load_all(cluster)
    assert cluster.served() == {first: 4}
    assert cluster.status.stable == first


def test_the_last_ready_pod_of_the_stable_revision_stays() -> None:
    cluster, stable = begin({"strategy": "Swap"}, minReplicas=2)
    cluster.put_pod(stable, 0, ready=False)
    cluster.settle()
    candidate = change(cluster)
    assert cluster.served() == {stable: 1, candidate: 1}, "the one that was down changes"
    for _ in range(4):
        assert cluster.snapshot().endpoints["magika"]
        cluster.settle()


def test_requests_follow_the_pods() -> None:
    """Of eight pods, those of the candidate get requests as they load, so that at most two have none."""
    cluster, _ = begin({"strategy": "Swap"}, minReplicas=8)
    candidate = change(cluster)
    for _ in range(12):
        assert len(cluster.snapshot().endpoints["magika"]) >= 6, cluster.served()
        cluster.swap()
        cluster.settle()
    assert cluster.status.stable == candidate


def test_each_pod_has_the_deadline_to_load() -> None:
    cluster, _ = begin({"strategy": "Swap"}, minReplicas=4)
    candidate = change(cluster)
    for _ in range(5):
        cluster.now += 600
        cluster.settle()
        cluster.swap()
        cluster.settle()
    assert cluster.status.stable == candidate


def test_a_pod_that_starts_after_a_swap_gets_requests_without_an_operator() -> None:
    cluster, stable = begin({"strategy": "Swap"})
    candidate = change(cluster)
    load_all(cluster)
    assert cluster.status.stable == candidate
    for index in range(4):
        cluster.remove(Ref(POD, f"{stable}-{index}"))
        cluster.put_pod(stable, index, ready=False)
    cluster.swap()
    assert {report.revision for report in cluster.reports.values()} == {candidate}
    assert len(cluster.snapshot().endpoints[KEY.name]) == 4, "no operator has seen them yet"
    cluster.settle()
    assert cluster.served() == {candidate: 4}
    load_all(cluster, rounds=1)
    assert cluster.condition("Ready") == ("True", "Served")


def test_pods_that_start_before_the_next_swap_serve_until_they_change() -> None:
    cluster, stable = begin({"strategy": "Swap"})
    second = change(cluster)
    load_all(cluster)
    cluster.remove(Ref(POD, f"{stable}-3"))
    cluster.put_pod(stable, 3, ready=False)
    cluster.swap()
    cluster.edit(model=at("third"))
    for _ in range(20):
        if not cluster.reconcile():
            break
        assert len(cluster.snapshot().endpoints[KEY.name]) >= 3
    third = cluster.decision().wanted
    assert cluster.served() == {second: 3, third: 1}
    load_all(cluster)
    assert cluster.served() == {third: 4}
    assert cluster.condition("Ready") == ("True", "Served")
