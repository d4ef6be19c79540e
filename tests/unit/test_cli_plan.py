"""`kubectl conch plan`: its exact text, and that the operator then makes the writes of the plan.

`GOLDEN=write pytest tests/unit/test_cli_plan.py` writes the texts anew; read the diff before you commit it.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from conch.api.kinds import INFERENCE_SERVICE, Ref
from conch.api.times import format_time
from conch.cli.main import cli
from conch.cli.plan_output import build_plan_text, build_plan_value
from conch.cli.preview import OperatorSettings, Preview, build_preview
from conch.cli.printing import format_age, format_plain, shorten_digest
from conch.observe.capacity import Capacity
from conch.plain_yaml import dump_yaml
from conch.plan import Apply
from tests.unit.simulation import DEFAULTS, GPU, KEY, Cluster, build_manifest

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden" / "plan"
STEPS = [{"weight": 5}, {"pause": "5m"}, {"weight": 50}, {"analysis": "5m"}, {"pause": "Manual"}, {"weight": 100}]
GATES = [{"successRate": {"min": "99%"}}]
GATEWAY = {"gateways": [{"name": "public", "namespace": "infra"}], "hostnames": ["magika.example.com"]}


def invoke(*words: str, text: str | None = None) -> Result:
    return CliRunner().invoke(cli, words, input=text)


def is_golden(name: str, text: str) -> None:
    golden = GOLDEN / name
    if os.environ.get("GOLDEN") == "write":
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize("example", ["quickstart", "autoscaling", "dynamic-batching", "rate-limiter"])
def test_the_plan_of_an_example(example: str) -> None:
    done = invoke("plan", "-f", str(ROOT / "examples" / f"{example}.yaml"), "-n", "demo")
    assert done.exit_code == 0, done.output
    is_golden(f"{example}.txt", done.output)


def start_serving() -> Cluster:
    """Start a service behind a gateway, with steps for its next change."""
    rollout = {"steps": STEPS, "analysis": GATES}
    cluster = Cluster(build_manifest(minReplicas=4, rollout=rollout, traffic=GATEWAY, warmup={}))
    cluster.reconcile()
    cluster.start_pods(cluster.decision().wanted)
    cluster.settle()
    cluster.accept_routes()
    cluster.settle()
    return cluster


def build_cluster_preview(cluster: Cluster) -> Preview:
    """Return the preview of a cluster in its current state."""
    return build_preview(list_objects(cluster), KEY, OperatorSettings(DEFAULTS), cluster.now)


def test_the_plan_of_a_change_names_the_steps_and_is_what_the_operator_writes_next() -> None:
    cluster = start_serving()
    cluster.edit(uri="s3://models/v2")
    preview = build_cluster_preview(cluster)
    is_golden("change.txt", format_plain(build_plan_text(preview)))
    actions = cluster.reconcile()
    writes = [(write.kind, write.name, write.manifest) for write in preview.writes]
    assert writes == [(a.ref.kind.name, a.ref.name, a.manifest if isinstance(a, Apply) else None) for a in actions]


def test_the_plan_names_the_models_that_pods_warm() -> None:
    """A model that is not required does not hold a pod, so no step waits for it."""
    own: dict[str, dict[str, Any]] = {
        "all": {},
        "a": {"warmup": {}},
        "b": {"warmup": {}},
        "c": {"warmup": {}, "required": False},
    }
    models = [
        {"name": name, "modelFormat": {"name": "onnx"}, "storageUri": f"s3://models/{name}", **fields}
        for name, fields in own.items()
    ]
    cluster = Cluster(build_manifest(model=None, models=models, entry="all", rollout={"steps": STEPS}, traffic=GATEWAY))
    step = build_cluster_preview(cluster).main.steps[0]
    assert step.waits == "until 1 pod is ready, a and b are warm, and the traffic is updated"


def test_the_plan_of_an_unchanged_manifest_writes_nothing() -> None:
    cluster = start_serving()
    preview = build_cluster_preview(cluster)
    assert (preview.writes, preview.rejections) == ((), ())
    assert "stays the stable revision: no pod is restarted" in preview.main.message
    assert "The operator would write nothing." in build_plan_text(preview)


def test_the_plan_of_a_rollout_under_way_shows_its_step() -> None:
    cluster = start_serving()
    cluster.edit(uri="s3://models/v2", warmup=None)
    for _ in range(3):
        cluster.settle()
        cluster.start_pods(cluster.decision().wanted)
        cluster.accept_routes()
    cluster.settle()
    states = [stage.state for stage in build_cluster_preview(cluster).main.steps]
    assert states == ["passed", "now", "", "", "", ""]


def test_the_plan_lists_a_taken_name_as_rejected() -> None:
    cluster = Cluster(build_manifest())
    meta = {"name": "magika", "namespace": "demo", "labels": {"conch.dev/service": "magika"}}
    cluster.put({"apiVersion": "v1", "kind": "Service", "metadata": meta})
    preview = build_cluster_preview(cluster)
    assert [rejection.reason for rejection in preview.rejections] == ["NameTaken"]
    text = format_plain(build_plan_text(preview))
    assert "Rejected:\n  NameTaken: Service/magika exists and belongs to no controller" in text
    value = build_plan_value(preview)
    assert value["rejections"][0]["object"] == "Service/magika"
    assert yaml.safe_load(dump_yaml(value))["rejections"][0]["reason"] == "NameTaken"


def test_the_plan_as_json_has_the_manifests() -> None:
    done = invoke("plan", "-f", str(ROOT / "examples" / "quickstart.yaml"), "-o", "yaml", "--serving-image", "mine:1")
    [service] = yaml.safe_load(done.output)["services"]
    deployments = [write["manifest"] for write in service["writes"] if write["kind"] == "Deployment"]
    assert [d["spec"]["template"]["spec"]["containers"][0]["image"] for d in deployments] == ["mine:1"]
    assert json.loads(invoke("plan", "-f", str(ROOT / "examples" / "quickstart.yaml"), "-o", "json").output)


def test_the_plan_contains_the_autoscaler_of_the_installation() -> None:
    def scalers(*options: str) -> set[str]:
        done = invoke("plan", "-f", str(ROOT / "examples" / "keda.yaml"), "-o", "yaml", *options)
        [service] = yaml.safe_load(done.output)["services"]
        return {write["kind"] for write in service["writes"]} & {"HorizontalPodAutoscaler", "ScaledObject"}

    assert scalers() == {"HorizontalPodAutoscaler"}
    assert scalers("--metrics-api", "keda", "--prometheus", "http://prometheus:9090") == {"ScaledObject"}


def test_plan_reads_standard_input_and_several_documents() -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3"}}
    text = yaml.safe_dump_all([secret, _build_service("a"), _build_service("b")])
    done = invoke("plan", "-f", "-", text=text)
    assert done.exit_code == 0, done.output
    assert [line.split(":")[0] for line in done.output.splitlines() if "is the first" in line] == ["demo/a", "demo/b"]


def _build_service(name: str) -> dict[str, Any]:
    body = build_manifest()
    body["metadata"] = {"name": name, "namespace": "demo"}
    return body


def _build_with(change: dict[str, Any]) -> str:
    body = _build_service("magika")
    body["spec"]["predictor"] |= change
    return yaml.safe_dump(body)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "is not YAML"),
        ("kind: Secret", "has no InferenceService"),
        ("kind: InferenceService", "has no metadata.name"),
        (_build_with({"minReplica": 2}), "magika: unknown field spec.predictor.minReplica; see: kubectl explain"),
        (_build_with({"minReplicas": "many"}), "magika: spec.predictor.minReplicas is 'many'"),
        (_build_with({"model": {}}), "magika: spec.predictor.model.modelFormat"),
    ],
)
def test_plan_refuses_an_invalid_manifest_in_a_sentence(text: str, words: str) -> None:
    done = invoke("plan", "-f", "-", text=text)
    assert done.exit_code == 1
    assert done.output.startswith("Error: ")
    assert words in done.output
    assert len(done.output.splitlines()) == 1


@pytest.mark.parametrize(
    "words",
    [["rollback", "magika"], ["rollback", "magika", "--to", "0"], ["promote"], ["status", "a", "-o", "xml"], ["plan"]],
)
def test_wrong_arguments_print_the_usage(words: list[str]) -> None:
    done = invoke(*words)
    assert done.exit_code == 2
    assert "Usage: cli" in done.output


def test_every_command_has_help() -> None:
    for name, command in cli.commands.items():
        done = invoke(name, "--help")
        assert done.exit_code == 0
        assert "--namespace" in done.output or name == "model"  # whose commands need no cluster
        assert not command.get_short_help_str(limit=45).endswith("..."), name


def test_spans_and_digests_are_short() -> None:
    assert [format_age(seconds) for seconds in (-1, 0, 59, 60, 7_200, 200_000)] == ["0s", "0s", "59s", "1m", "2h", "2d"]
    assert shorten_digest("sha256:0123456789abcdef") == "0123456789ab"
    assert shorten_digest("") == ""


def test_a_service_under_deletion_has_no_plan() -> None:
    cluster = Cluster(build_manifest())
    body = cluster.objects[Ref(INFERENCE_SERVICE, KEY.name)]
    body["metadata"]["deletionTimestamp"] = format_time(cluster.now)
    with pytest.raises(Exception, match="demo/magika is being deleted"):
        build_cluster_preview(cluster)


def list_objects(cluster: Cluster) -> list[dict[str, Any]]:
    """Return the objects that kubectl conch lists."""
    return [*cluster.objects.values(), *cluster.replica_sets.values()]


def start_on_gpus(gpus: int, on_insufficient_capacity: str) -> Cluster:
    """Start a service on two GPUs in a cluster with `gpus` GPUs, and change its model."""
    rollout = {"onInsufficientCapacity": on_insufficient_capacity, "steps": [{"weight": 0}, {"pause": "5m"}]}
    cluster = Cluster(build_manifest(minReplicas=2, rollout=rollout, resources={"limits": {GPU: 1}}))
    cluster.gpus = gpus
    cluster.reconcile()
    cluster.start_pods(cluster.decision().wanted)
    cluster.settle()
    cluster.edit(uri="s3://models/v2")
    return cluster


@pytest.mark.parametrize(
    ("gpus", "on_insufficient_capacity", "golden"),
    [(3, "Hold", "held"), (3, "Recreate", "short"), (4, "Recreate", "fits")],
)
def test_the_plan_shows_whether_the_gpus_suffice_and_the_admission_of_the_rollout(
    gpus: int, on_insufficient_capacity: str, golden: str
) -> None:
    cluster = start_on_gpus(gpus, on_insufficient_capacity)
    assert build_cluster_preview(cluster).needs_capacity
    preview = build_preview(list_objects(cluster), KEY, OperatorSettings(DEFAULTS), cluster.now, cluster.capacity())
    is_golden(f"gpus-{golden}.txt", format_plain(build_plan_text(preview)))
    assert build_plan_value(preview)["budget"] == preview.main.budget != ""
    writes = [(write.kind, write.name) for write in preview.writes]
    assert writes == [(action.ref.kind.name, action.ref.name) for action in cluster.reconcile()]


def test_a_plan_without_permission_to_list_nodes_reports_this_and_goes_on() -> None:
    cluster = start_on_gpus(3, "Hold")
    preview = build_preview(
        list_objects(cluster), KEY, OperatorSettings(DEFAULTS), cluster.now, Capacity(unknown="nodes is forbidden")
    )
    assert preview.main.budget.endswith("; whether they fit is not known: nodes is forbidden.")
    assert "Deployment" in {write.kind for write in preview.writes if write.action == "create"}
