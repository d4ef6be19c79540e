"""The configuration of models, from the manifest and from the reports of pods, in the plan and in the status."""

from __future__ import annotations

import json
from typing import Any

from conch.api import InferenceService
from conch.api.triton import MODEL_FIELDS
from conch.cli.plan_output import build_plan_text, build_plan_value
from conch.cli.preview import OperatorSettings, Preview, build_preview
from conch.cli.printing import format_plain
from conch.cli.status import build_status_text
from conch.triton import list_configured_values
from conch_contract import AgentReport, ConfigValue, ModelReport, ModelState
from tests.unit.simulation import DEFAULTS, KEY, Cluster, build_manifest

SPEC = ConfigValue(field="max_batch_size", value="8", origin="Spec")
FILE = ConfigValue(field="instance_group[0].count", value="2", origin="File")
TRITON = ConfigValue(field="platform", value='"onnxruntime_onnx"', origin="Triton")
REPOSITORY = {"modelFormat": {"name": "repository"}, "storageUri": "s3://models/repo"}
ALL_FIELDS: dict[str, Any] = {
    "maxBatchSize": 0,
    "instanceGroups": [
        {"kind": "GPU", "count": 2, "gpus": [0, 1]},
        {},
        {"rateLimiter": {"resources": [{"name": "r", "count": 2, "global": True}], "priority": 3}},
        {"count": 1, "rateLimiter": {}},
    ],
    "dynamicBatching": {
        "maxQueueDelay": "1ms",
        "preferredBatchSize": [4, 8],
        "preserveOrdering": False,
        "queuePolicy": {
            "maxQueueSize": 2,
            "defaultTimeout": "2s",
            "timeoutAction": "Delay",
            "allowTimeoutOverride": True,
        },
        "priorities": {"levels": 2, "defaultLevel": 1},
    },
    "sequenceBatching": {
        "maxIdle": "1m",
        "oldest": {
            "maxCandidateSequences": 8,
            "preferredBatchSize": [4],
            "maxQueueDelay": "500us",
            "preserveOrdering": True,
        },
    },
    "optimization": {
        "priority": "Max",
        "cuda": {"graphs": True},
        "graph": {"level": -1},
        "inputPinnedMemory": False,
        "outputPinnedMemory": True,
        "executionAccelerators": {"gpu": [{"name": "tensorrt", "parameters": {"precision_mode": "FP16"}}], "cpu": []},
    },
    "versionPolicy": {"latest": {"numVersions": 2}},
    "parameters": {"a.b": '"b"'},
    "config": "optimization {\n  graph { level: 1 }\n}",
}


def build_report(*values: ConfigValue, name: str = "magika", state: ModelState = ModelState.READY) -> AgentReport:
    model = ModelReport(name=name, state=state, digest="sha256:1", config=values)
    return AgentReport(ready=state is ModelState.READY, models=(model,))


def start(*reports: AgentReport, **predictor: Any) -> tuple[Cluster, str]:
    cluster = Cluster(build_manifest(minReplicas=len(reports), **predictor))
    cluster.reconcile()
    revision = cluster.decision().wanted
    for number, report in enumerate(reports):
        cluster.put_pod(revision, number, ready=report.ready, report=report)
    cluster.settle()
    return cluster, revision


def read_config(cluster: Cluster) -> list[tuple[str, str, str]]:
    [revision] = cluster.status.revisions
    [model] = revision.models
    return [(value.field, value.value, value.origin) for value in model.config]


def expect(*values: ConfigValue) -> list[tuple[str, str, str]]:
    return [(value.field, value.value, value.origin) for value in values]


def preview(cluster: Cluster) -> Preview:
    return build_preview(cluster.objects.values(), KEY, OperatorSettings(DEFAULTS), cluster.now)


def test_the_status_has_the_configuration_of_one_pod_and_stays_as_it_is() -> None:
    cluster, revision = start(build_report(), build_report(SPEC, FILE), build_report(SPEC, TRITON))
    assert read_config(cluster) == expect(SPEC, FILE), "of the first pod by name that reports one"
    writes = cluster.status_writes
    cluster.settle()
    cluster.reports.clear()  # a settled service polls no pod
    cluster.settle()
    assert cluster.status_writes == writes
    cluster.kill_pods(revision)
    cluster.put_pod(revision, 7, ready=False, report=build_report(state=ModelState.FETCHING))
    cluster.settle()
    assert read_config(cluster) == expect(SPEC, FILE), "until a pod reports another one"
    cluster.put_pod(revision, 7, ready=True, report=build_report(SPEC))
    cluster.settle()
    assert read_config(cluster) == expect(SPEC)


def test_a_model_without_an_answer_of_triton_is_ready_without_a_configuration() -> None:
    cluster, _ = start(build_report())
    assert read_config(cluster) == []
    assert cluster.condition("Ready") == ("True", "Served")


def test_a_hostile_report_does_not_fill_the_status() -> None:
    value = ConfigValue(field="f" * 3000, value="v" * 3000, origin="o" * 3000)
    cluster, _ = start(build_report(*[value] * 1000))
    found = read_config(cluster)
    assert len(found) == 16
    assert all(len(text) <= 256 for each in found for text in each)


def build_many(count: int, failed: str) -> AgentReport:
    models = tuple(
        ModelReport(
            name=f"m{number:03}",
            state=ModelState.FAILED if f"m{number:03}" == failed else ModelState.READY,
            digest=f"sha256:{number}",
            config=tuple(ConfigValue(field=f"field_{each}", value="1", origin="Spec") for each in range(16)),
        )
        for number in range(count)
    )
    return AgentReport(ready=False, models=models)


def test_the_configurations_of_many_models_are_bounded_with_the_entry_first() -> None:
    cluster, revision = start(build_many(20, failed="m009"), model=REPOSITORY, entry="m017")
    [status] = cluster.status.revisions
    assert [model.name for model in status.models[:2]] == ["m017", "m009"]
    configured = {model.name for model in status.models if model.config}
    assert configured == {"m000", "m001", "m002", "m017"}
    cluster.put_pod(revision, 0, ready=False, report=build_many(20, failed="m012"))
    cluster.settle()
    [status] = cluster.status.revisions
    assert {model.name for model in status.models if model.config} == configured, "whichever model fails"
    cluster.reports.clear()
    cluster.settle()
    assert cluster.status.revisions[0].models == status.models


def test_the_entry_is_one_of_the_models_that_the_status_lists() -> None:
    cluster, _ = start(build_many(50, failed="m009"), model=REPOSITORY, entry="m040")
    [status] = cluster.status.revisions
    assert len(status.models) == 32
    assert status.models[0].name == "m040"
    assert status.models[0].config


def test_kubectl_conch_status_shows_each_value_once_with_its_revisions() -> None:
    cluster, stable = start(build_report(SPEC, TRITON), rollout={"steps": [{"weight": 50}, {"pause": "Manual"}]})
    cluster.edit(triton={"maxBatchSize": 4})
    cluster.settle()
    candidate = cluster.decision().wanted
    cluster.put_pod(candidate, 0, ready=True, report=build_report(SPEC.model_copy(update={"value": "4"}), TRITON))
    cluster.settle()
    text = format_plain(build_status_text(cluster.snapshot().service, cluster.now))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    at = lines.index("MODEL FIELD VALUE ORIGIN REVISION")
    assert sorted(lines[at + 1 :]) == sorted(
        [
            f"magika max_batch_size 8 Spec {stable}",
            f"magika max_batch_size 4 Spec {candidate}",
            f'magika platform "onnxruntime_onnx" Triton {candidate}, {stable}',
        ]
    )
    assert {line.split()[1] for line in lines[at + 1 : at + 3]} == {"max_batch_size"}, "differences are side by side"


def test_a_status_without_configurations_has_no_table_of_them() -> None:
    cluster, _ = start(build_report())
    assert "ORIGIN" not in format_plain(build_status_text(cluster.snapshot().service, cluster.now))


def test_a_plan_has_the_values_of_the_manifest_with_their_fields() -> None:
    cluster, _ = start(build_report(), triton={"maxBatchSize": 8, "config": f"model_warmup [{'x' * 200}]"})
    text = format_plain(build_plan_text(preview(cluster)))
    assert (
        "\nTriton's configuration that the manifest sets; all other values come from config.pbtxt or from Triton:\n"
        f"  magika:\n    max_batch_size 8 (triton.maxBatchSize)\n    model_warmup [{'x' * 65}… (triton.config)\n"
        in text
    )
    assert build_plan_value(preview(cluster))["configured"] == [
        {"model": "magika", "field": "max_batch_size", "value": "8", "setBy": "triton.maxBatchSize"},
        {"model": "magika", "field": "", "value": f"model_warmup [{'x' * 200}]", "setBy": "triton.config"},
    ]


def test_a_plan_has_the_values_that_change_and_those_that_are_not_set_any_more() -> None:
    delay = "dynamic_batching.max_queue_delay_microseconds"
    report = build_report(SPEC, FILE, ConfigValue(field=delay, value="100", origin="Spec"))
    cluster, _ = start(report, triton={"maxBatchSize": 8, "dynamicBatching": {"maxQueueDelay": "100us"}})
    assert ", now " not in format_plain(build_plan_text(preview(cluster))), "what runs is what the manifest sets"
    cluster.edit(triton={"maxBatchSize": 4, "instanceGroups": [{"count": 2}]})
    text = format_plain(build_plan_text(preview(cluster)))
    assert (
        "    max_batch_size 4 (triton.maxBatchSize), now 8 (Spec)\n"
        "    instance_group[0] count: 2 (triton.instanceGroups[0])\n"
        f"    {delay} not set any more, now 100\n"
    ) in text
    value = build_plan_value(preview(cluster))
    assert value["configured"][0]["inUse"] == {"field": "max_batch_size", "value": "8", "origin": "Spec"}
    assert [each["inUse"]["field"] for each in value["notSetAnyMore"]] == [delay]


def test_a_plan_does_not_claim_what_a_text_of_config_pbtxt_leaves_out() -> None:
    cluster, _ = start(build_report(SPEC), triton={"maxBatchSize": 8})
    cluster.edit(triton={"config": "max_batch_size: 8"})
    assert "not set any more" not in format_plain(build_plan_text(preview(cluster)))


def test_a_plan_without_settings_of_triton_has_no_line_about_them() -> None:
    cluster, _ = start(build_report(), triton={"shmSize": "1Gi"})
    assert "config.pbtxt" not in format_plain(build_plan_text(preview(cluster)))


def test_all_fields_of_a_model_are_in_the_plan() -> None:
    service = InferenceService.parse(build_manifest(triton=ALL_FIELDS))
    assert set(ALL_FIELDS) == set(MODEL_FIELDS)
    found = [
        (each.field, each.value, each.set_by.removeprefix("triton.")) for each in list_configured_values(service.models)
    ]
    batching, queue = "dynamic_batching", "dynamic_batching.default_queue_policy"
    oldest, accelerators = "sequence_batching.oldest", "optimization.execution_accelerators"
    assert found == [
        ("max_batch_size", "0", "maxBatchSize"),
        ("instance_group[0]", "count: 2 gpus: [0, 1] kind: KIND_GPU", "instanceGroups[0]"),
        ("instance_group[1]", "{}", "instanceGroups[1]"),
        (
            "instance_group[2]",
            'rate_limiter { resources { name: "r" global: true count: 2 } priority: 3 }',
            "instanceGroups[2]",
        ),
        ("instance_group[3]", "count: 1 rate_limiter {}", "instanceGroups[3]"),
        (f"{batching}.max_queue_delay_microseconds", "1000", "dynamicBatching.maxQueueDelay"),
        (f"{batching}.preferred_batch_size", "[4, 8]", "dynamicBatching.preferredBatchSize"),
        (f"{batching}.preserve_ordering", "false", "dynamicBatching.preserveOrdering"),
        (f"{queue}.max_queue_size", "2", "dynamicBatching.queuePolicy.maxQueueSize"),
        (f"{queue}.default_timeout_microseconds", "2000000", "dynamicBatching.queuePolicy.defaultTimeout"),
        (f"{queue}.timeout_action", "DELAY", "dynamicBatching.queuePolicy.timeoutAction"),
        (f"{queue}.allow_timeout_override", "true", "dynamicBatching.queuePolicy.allowTimeoutOverride"),
        (f"{batching}.priority_levels", "2", "dynamicBatching.priorities.levels"),
        (f"{batching}.default_priority_level", "1", "dynamicBatching.priorities.defaultLevel"),
        ("sequence_batching.max_sequence_idle_microseconds", "60000000", "sequenceBatching.maxIdle"),
        (f"{oldest}.max_candidate_sequences", "8", "sequenceBatching.oldest.maxCandidateSequences"),
        (f"{oldest}.max_queue_delay_microseconds", "500", "sequenceBatching.oldest.maxQueueDelay"),
        (f"{oldest}.preferred_batch_size", "[4]", "sequenceBatching.oldest.preferredBatchSize"),
        (f"{oldest}.preserve_ordering", "true", "sequenceBatching.oldest.preserveOrdering"),
        ("optimization.priority", "PRIORITY_MAX", "optimization.priority"),
        ("optimization.cuda.graphs", "true", "optimization.cuda.graphs"),
        ("optimization.graph.level", "-1", "optimization.graph.level"),
        ("optimization.input_pinned_memory.enable", "false", "optimization.inputPinnedMemory"),
        ("optimization.output_pinned_memory.enable", "true", "optimization.outputPinnedMemory"),
        (
            f"{accelerators}.gpu_execution_accelerator",
            '[{ name: "tensorrt" parameters { key: "precision_mode" value: "FP16" } }]',
            "optimization.executionAccelerators.gpu",
        ),
        (f"{accelerators}.cpu_execution_accelerator", "[]", "optimization.executionAccelerators.cpu"),
        ("version_policy", "latest { num_versions: 2 }", "versionPolicy"),
        ("parameters['a.b']", f"string_value: {json.dumps(ALL_FIELDS['parameters']['a.b'])}", "parameters.a.b"),
        ("", "optimization { graph { level: 1 } }", "config"),
    ]


def test_messages_without_fields_are_in_the_plan_too() -> None:
    messages: list[tuple[dict[str, Any], tuple[str, str]]] = [
        ({"dynamicBatching": {}}, ("dynamic_batching", "triton.dynamicBatching")),
        (
            {"dynamicBatching": {"queuePolicy": {}}},
            ("dynamic_batching.default_queue_policy", "triton.dynamicBatching.queuePolicy"),
        ),
        ({"sequenceBatching": {}}, ("sequence_batching", "triton.sequenceBatching")),
        ({"sequenceBatching": {"direct": {}}}, ("sequence_batching.direct", "triton.sequenceBatching.direct")),
    ]
    for triton, expected in messages:
        service = InferenceService.parse(build_manifest(triton=triton))
        assert [(each.field, each.set_by) for each in list_configured_values(service.models)] == [expected]


def test_the_fields_of_several_models_have_the_place_of_their_model() -> None:
    model = {"modelFormat": {"name": "onnx"}, "storageUri": "s3://models/a"}
    models = [{**model, "name": "a"}, {**model, "name": "b", "triton": {"maxBatchSize": 8}}]
    body = build_manifest(entry="a", models=models)
    body["spec"]["predictor"].pop("model")
    [value] = list_configured_values(InferenceService.parse(body).models)
    assert (value.model, value.field, value.set_by) == ("b", "max_batch_size", "models[b].triton.maxBatchSize")
