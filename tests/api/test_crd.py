"""Every constraint of the CRD, on a real API server: one service that is taken and one that is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_asyncio.client.exceptions import ApiException

from conch.api import (
    Condition,
    InferenceService,
    ModelStatus,
    ModelWarning,
    ReplicaStatus,
    RevisionStatus,
    ServedModel,
    Status,
)
from conch.api.crd import schema
from conch.api.variants import MAX_VARIANTS
from tests.api.server import Server, service
from tests.support.examples import FILES

SERVICES = {
    path.stem: manifest
    for path in FILES
    for manifest in yaml.safe_load_all(path.read_text())
    if manifest["kind"] == "InferenceService"
}
CASES = [
    case
    for path in sorted(Path(__file__).with_name("cases").glob("*.yaml"))
    for case in yaml.safe_load(path.read_text())
]

# Those that Conch sets, and beginnings of them: Triton takes a beginning for the whole.
OWNED = [
    "--model-repository",
    "--model-store",
    "--model-repos",
    "--model-control-mode",
    "--load-model",
    "--repository-poll-secs",
    "--http-port",
    "--grpc-port",
    "--metrics-port",
    "--http-po",
    "--http-address",
    "--grpc-address",
    "--metrics-address",
    "--allow-http",
    "--allow-grpc",
    "--allow-metrics",
    "--allow-sagemaker",
    "--allow-vertex-ai",
    "--strict-readiness",
    "--http-restricted-api",
    "--grpc-restricted-protocol",
    "--grpc-use-ssl",
    "--grpc-use-ssl-mutual",
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
async def test_constraint(server: Server, case: dict[str, Any]) -> None:
    assert await server.refusal(service(at(case["at"], case["taken"]))) == ""
    refusal = await server.refusal(service(at(case["at"], case["refused"])))
    assert case["message"] in refusal, refusal


def at(path: str, value: Any) -> dict[str, Any]:
    """Return the object that holds the value at that path; the empty path is the object itself."""
    for name in reversed(path.split(".") if path else []):
        value = {name: value}
    return dict(value)


async def test_variants_of_maximum_size_are_within_the_budget_of_the_rules(server: Server) -> None:
    """A rule has a budget at run time as well, and the rule on equal matches compares every pair."""
    variants = [
        {
            "name": f"v{number}",
            "match": [
                {
                    "headers": [
                        {"name": f"h{place}{'x' * 126}", "value": f"{'v' * 1022}{match}{number}"} for place in range(8)
                    ]
                }
                for match in range(4)
            ],
            "predictor": {"maxReplicas": 2},
        }
        for number in range(MAX_VARIANTS)
    ]
    traffic = {"gateways": [{"name": "public"}], "hostnames": ["a.b"]}
    assert await server.refusal(service({"spec": {"traffic": traffic, "variants": variants}})) == ""


@pytest.mark.parametrize("flag", OWNED)
async def test_a_flag_that_conch_sets_is_refused_by_name(server: Server, flag: str) -> None:
    refusal = await server.refusal(service(at("spec.predictor.triton.args", ["--id=a", f"{flag}=1"])))
    assert (
        f'spec.predictor.triton.args[1]: Invalid value: "{flag}=1": {flag} is set by Conch to load, probe and'
        " drain the model; remove it from args"
    ) in refusal


async def test_other_flags_are_taken(server: Server) -> None:
    flags = ["--log-verbose=1", "--http-thread-count=4", "--allow-gpu-metrics=false", "--grpc-keepalive-time=1000"]
    assert await server.refusal(service(at("spec.predictor.triton.args", flags))) == ""


def test_every_rule_has_a_case() -> None:
    messages = [case["message"] for case in CASES] + ["remove it"]  # the last one is that of flags, above
    # A message with the value ends with the same remedy as the plain one.
    remedies = [rule["message"].rpartition(";")[2].strip() for rule in rules(schema())]
    assert [remedy for remedy in remedies if not any(remedy in sentence for sentence in messages)] == []


def rules(node: dict[str, Any]) -> list[dict[str, str]]:
    """Return all CEL rules of a schema."""
    found = list(node.get("x-kubernetes-validations", []))
    children = [*node.get("properties", {}).values(), node.get("items"), node.get("additionalProperties")]
    return found + [rule for child in children if isinstance(child, dict) for rule in rules(child)]


@pytest.mark.parametrize("example", SERVICES)
async def test_an_example_is_taken_and_its_defaults_are_those_of_the_types(server: Server, example: str) -> None:
    manifest = SERVICES[example]
    typed = InferenceService.parse(manifest)
    stored = InferenceService.parse(await server.create(manifest))
    assert stored.spec == typed.spec
    assert InferenceService.parse(await server.create(typed.to_wire())).spec == typed.spec


async def test_defaults_are_filled_in_by_the_server(server: Server) -> None:
    stored = await server.create(service({}))
    assert stored["spec"] == {
        "predictor": {
            "model": {"modelFormat": {"name": "onnx"}, "storageUri": "s3://models/magika"},
            "triton": {"shmSize": "64Mi"},
            "minReplicas": 1,
        },
        "rollout": {
            "strategy": "Progressive",
            "onFailure": "Rollback",
            "progressDeadline": "15m",
            "historyLimit": 10,
            "onInsufficientCapacity": "Hold",
        },
    }


PASSED = """
maxReplicas: 3
autoscaling:
  metrics:
    - {type: External, external: {metric: {name: queue}, target: {type: Value, value: 30}}}
  behavior: {scaleDown: {policies: [{type: Pods, value: 1, periodSeconds: 60}]}}
pod:
  nodeSelector: {disk: ssd}
  affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: []}}}
  tolerations: [{key: nvidia.com/gpu, operator: Exists}]
  topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway}]
  imagePullSecrets: [{name: registry}]
  env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]
  volumes: [{name: a, emptyDir: {sizeLimit: 1Gi}}]
  volumeMounts: [{name: a, mountPath: /a, readOnly: true}]
"""


async def test_objects_of_other_apis_pass_unchanged(server: Server) -> None:
    predictor = yaml.safe_load(PASSED)
    stored = await server.create(service(at("spec.predictor", predictor)))
    read = InferenceService.parse(stored).to_wire()
    for seen in (stored, read):
        fields = seen["spec"]["predictor"]
        assert {name: fields[name] for name in predictor} == predictor


async def test_the_status_is_stored_as_the_types_write_it(server: Server) -> None:
    status = Status(
        observed_generation=1,
        conditions=(
            Condition(
                type="Ready",
                status="Unknown",
                reason="Pending",
                message="The pods are being made.",
                last_transition_time="2026-01-01T00:00:00Z",
                observed_generation=1,
            ),
        ),
        url="http://magika-status.default.svc:8000",
        model=ServedModel(name="magika-status"),
        candidate="magika-status-a1b2c3",
        ready="0/1",
        revisions=(
            RevisionStatus(
                name="magika-status-a1b2c3",
                number=1,
                generation=1,
                phase="Loading",
                replicas=ReplicaStatus(ready=0, desired=1),
                models=(
                    ModelStatus(
                        name="magika-status",
                        versions=(1,),
                        state="Loading",
                        digest="sha256:0",
                        warnings=(ModelWarning(reason="ConfigOverridden", message="max_batch_size is 8."),),
                    ),
                ),
                since="2026-01-01T00:00:00Z",
            ),
        ),
    )
    await server.create(service(at("metadata.name", "magika-status")), dry_run=False)
    try:
        written = await server.write_status("magika-status", status.to_wire())
        assert written["status"] == status.to_wire()
        assert written["metadata"]["generation"] == 1
        assert InferenceService.parse(written).status == status
        with pytest.raises(ApiException, match="404"):
            await server.scale("magika-status")
    finally:
        await server.delete("magika-status")
