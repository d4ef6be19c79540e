"""What a model warns of reaches the status, an event, and kubectl conch."""

from __future__ import annotations

import copy
from typing import Any

from conch.api.kinds import BACKEND_TRAFFIC_POLICY, INFERENCE_SERVICE, Ref
from conch.cli.plan_output import build_plan_text, build_plan_value
from conch.cli.preview import OperatorSettings, build_preview
from conch.cli.printing import format_plain
from conch.cli.status import build_status_text
from conch.decide import Event
from conch_contract import AgentReport, ModelReport, ModelState, ModelWarning
from conch_contract.report import SEQUENCE_STATE_MESSAGE
from tests.unit.simulation import CONTROLLER, DEFAULTS, KEY, Cluster, build_manifest

OVERRIDE = ModelWarning(reason="ConfigOverridden", message="max_batch_size is 8 (config.pbtxt: 16).")
MISSING = ModelWarning(reason="CalleeMissing", message="Model 'magika' calls 'scaler'.")


def build_warnings_report(
    *warnings: ModelWarning, state: ModelState = ModelState.READY, digest: str = "sha256:1"
) -> AgentReport:
    model = ModelReport(name="magika", state=state, digest=digest, warnings=warnings)
    return AgentReport(ready=state is ModelState.READY, models=(model,))


def serving(*warnings: ModelWarning, **predictor: Any) -> tuple[Cluster, str]:
    cluster = Cluster(build_manifest(**predictor))
    cluster.reconcile()
    revision = cluster.decision().wanted
    cluster.put_pod(revision, 0, ready=True, report=build_warnings_report(*warnings))
    cluster.settle()
    return cluster, revision


def list_warnings(cluster: Cluster) -> list[tuple[str, str]]:
    return [
        (warning.reason, warning.message)
        for revision in cluster.status.revisions
        for model in revision.models
        for warning in model.warnings
    ]


def loading_events(cluster: Cluster) -> list[Event]:
    return [event for event in cluster.story if event.action == "Load"]


def test_a_warning_stands_in_the_status_and_is_one_event() -> None:
    cluster, revision = serving(OVERRIDE, MISSING)
    assert list_warnings(cluster) == [(one.reason, one.message) for one in (MISSING, OVERRIDE)]
    assert cluster.condition("Ready") == ("True", "Served")
    ready = cluster.status.condition("Ready")
    assert ready is not None
    assert ready.message == f"Revision {revision} serves the latest spec. Some requests fail: {MISSING.message}"
    note = f"Model magika of {revision}: "
    assert loading_events(cluster) == [
        Event("Warning", "CalleeMissing", "Load", note + MISSING.message),
        Event("Normal", "ConfigOverridden", "Load", note + OVERRIDE.message),
    ]


def test_a_warning_stays_while_the_next_pod_fetches() -> None:
    cluster, revision = serving(OVERRIDE)
    cluster.kill_pods(revision)
    cluster.settle()
    cluster.put_pod(revision, 1, ready=False, report=build_warnings_report(state=ModelState.FETCHING, digest=""))
    cluster.settle()
    assert list_warnings(cluster) == [(OVERRIDE.reason, OVERRIDE.message)]
    cluster.put_pod(revision, 1, ready=True, report=build_warnings_report(OVERRIDE))
    cluster.settle()
    assert len(loading_events(cluster)) == 1


def test_a_warning_goes_with_its_cause() -> None:
    cluster, revision = serving(OVERRIDE)
    cluster.put_pod(revision, 0, ready=True, report=build_warnings_report())
    cluster.settle()
    assert list_warnings(cluster) == []


def test_kubectl_conch_status_and_plan_show_it() -> None:
    cluster, revision = serving(OVERRIDE)
    text = format_plain(build_status_text(cluster.snapshot().service, cluster.now))
    assert f"{revision}   magika   ConfigOverridden   {OVERRIDE.message}" in text
    preview = build_preview(cluster.objects.values(), KEY, OperatorSettings(DEFAULTS), cluster.now)
    text = format_plain(build_plan_text(preview))
    assert f"ConfigOverridden: {OVERRIDE.message}\n" in text
    assert build_plan_value(preview)["warnings"] == [{"reason": OVERRIDE.reason, "message": OVERRIDE.message}]


def test_a_model_with_sequences_warns_where_it_has_more_than_one_pod() -> None:
    warning = ModelWarning(reason="SequenceState", message=SEQUENCE_STATE_MESSAGE)
    assert list_warnings(serving(warning)[0]) == []
    for replicas in ({"minReplicas": 2}, {"maxReplicas": 3}):
        cluster, _ = serving(warning, **replicas)
        assert list_warnings(cluster) == [("SequenceState", warning.message)]
        assert [event.type for event in loading_events(cluster)] == ["Warning"]


def test_a_model_with_sequences_warns_while_two_revisions_of_one_pod_share_its_requests() -> None:
    warning = ModelWarning(reason="SequenceState", message=SEQUENCE_STATE_MESSAGE)
    steps = {"steps": [{"weight": 50}, {"pause": "Manual"}]}
    cluster = Cluster(build_manifest(rollout=steps, traffic={"split": "Replicas"}))
    cluster.reconcile()
    stable = cluster.decision().wanted
    cluster.put_pod(stable, 0, ready=True, report=build_warnings_report(warning))
    cluster.settle()
    assert list_warnings(cluster) == []
    cluster.edit(uri="s3://models/v2")
    cluster.settle()
    cluster.put_pod(cluster.decision().wanted, 0, ready=True, report=build_warnings_report(warning))
    cluster.settle()
    assert cluster.status.weight == 50
    assert list_warnings(cluster) == [("SequenceState", warning.message)] * 2
    serves = cluster.status.condition("Serving")
    assert serves is not None
    assert serves.message.endswith(f"Some requests fail: {warning.message}")


def test_a_model_with_sequences_does_not_warn_where_the_gateway_keeps_them_together() -> None:
    warning = ModelWarning(reason="SequenceState", message=SEQUENCE_STATE_MESSAGE)
    traffic = {"gateways": [{"name": "public"}], "hostnames": ["m.example.com"], "consistentHash": {"header": "x-id"}}
    steps = {"steps": [{"weight": 50}, {"pause": "Manual"}]}
    cluster = Cluster(build_manifest(minReplicas=2, rollout=steps, traffic=traffic))
    for controller, warnings in (
        ("gateway.envoyproxy.io/gatewayclass-controller", []),
        (CONTROLLER, [("SequenceState", warning.message)]),
        ("gateway.envoyproxy.io/gatewayclass-controller", []),
    ):
        cluster.controller = controller
        cluster.put_class()
        cluster.reconcile()
        stable = cluster.decision().wanted
        for number in range(2):
            cluster.put_pod(stable, number, ready=True, report=build_warnings_report(warning))
        cluster.accept_routes()
        cluster.settle()
        accept_policy(cluster)
        assert list_warnings(cluster) == warnings
    cluster.edit(uri="s3://models/v2")
    cluster.settle()
    for number in range(2):
        cluster.put_pod(cluster.decision().wanted, number, ready=True, report=build_warnings_report(warning))
    cluster.accept_routes()
    cluster.settle()
    assert cluster.status.weight == 50
    assert list_warnings(cluster) == [("SequenceState", warning.message)] * 2, "each request may go to either revision"


def test_a_model_with_sequences_warns_when_more_pods_are_allowed_though_no_pod_is_polled_again() -> None:
    cluster, _ = serving(ModelWarning(reason="SequenceState", message=SEQUENCE_STATE_MESSAGE))
    assert list_warnings(cluster) == []
    cluster.reports.clear()  # a settled service polls no pod
    cluster.edit(maxReplicas=3)
    cluster.settle()
    assert list_warnings(cluster) == [("SequenceState", SEQUENCE_STATE_MESSAGE)]
    cluster.edit(maxReplicas=1)
    cluster.settle()
    assert list_warnings(cluster) == []


def test_a_warning_of_an_operator_that_kept_only_that_stays() -> None:
    cluster, _ = serving(ModelWarning(reason="SequenceState", message=SEQUENCE_STATE_MESSAGE), minReplicas=2)
    body = copy.deepcopy(cluster.objects[Ref(INFERENCE_SERVICE, KEY.name)])
    for revision in body["status"]["revisions"]:
        for model in revision["models"]:
            model.pop("sequences")
    cluster.put(body)
    cluster.reports.clear()
    cluster.settle()
    assert list_warnings(cluster) == [("SequenceState", SEQUENCE_STATE_MESSAGE)]


def accept_policy(cluster: Cluster) -> None:
    """Let Envoy Gateway take the policy, if there is one."""
    ref = Ref(BACKEND_TRAFFIC_POLICY, f"{KEY.name}-traffic")
    if ref in cluster.objects:
        body = copy.deepcopy(cluster.objects[ref])
        condition = {"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""}
        condition["observedGeneration"] = body["metadata"]["generation"]
        body["status"] = {"ancestors": [{"controllerName": cluster.controller, "conditions": [condition]}]}
        cluster.put(body)
        cluster.settle()
