"""`kubectl conch` as a person types it, on a real API server with the real operator, while Git applies all the time."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from conch.api.kinds import ENDPOINT_SLICE, INFERENCE_SERVICE, Kind, Ref
from conch.api.names import ANNOTATION_CHANGE_CAUSE, ANNOTATION_REQUEST
from conch.cli import cluster as conch_cluster
from conch.cli.cluster import describe_error
from conch.cli.main import cli
from conch.cli.rollback import write_rollback
from conch.observe import Revision
from conch.observe.compare import is_subset
from conch.write import CallError
from conch.write.user import UserServer
from tests.api.operator import Audit, Operator, are_ready, children, isvc, kubeconfig_of
from tests.api.test_gateways import answer
from tests.cluster import Cluster, clients
from tests.support.git import Git
from tests.support.kube import Kube, Object
from tests.support.wait import until

ONE, TWO = "s3://models/one", "s3://models/two"
STEPS = [{"weight": 0}, {"pause": "Manual"}, {"weight": 50}, {"pause": "Manual"}, {"weight": 100}]
Conch = Callable[..., str]


def stepped(uri: str, note: str = "", **predictor: Any) -> Object:
    """A service that goes by steps; pods share its requests, since no gateway is there."""
    body = isvc(uri=uri, **{"minReplicas": 2, **predictor})
    body["spec"] |= {"rollout": {"steps": STEPS}, "traffic": {"split": "Replicas"}}
    if note:
        body["metadata"]["annotations"] = {ANNOTATION_CHANGE_CAUSE: note}
    return body


@pytest.fixture
def conch(cluster: Cluster, namespace: str) -> Conch:
    """Return a hand that types `kubectl conch ...` in the namespace, and gives back what it read."""

    def run(*words: str, code: int = 0) -> str:
        where = ("--kubeconfig", str(cluster.kubeconfig), "--namespace", namespace)
        done = CliRunner().invoke(cli, [*words, *where])
        assert done.exit_code == code, done.output
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.output

    return run


@pytest.fixture
def operator(cluster: Cluster, namespace: str, log: Path) -> Operator:
    return Operator(cluster, log, CONCH_NAMESPACES=namespace)


def service(kube: Kube, namespace: str) -> Object:
    return kube.get(INFERENCE_SERVICE, namespace, "magika") or {}


def waiting(kube: Kube, namespace: str) -> tuple[int, str]:
    """The step that the rollout is at, and what it waits for."""
    body = service(kube, namespace)
    rollout = body.get("status", {}).get("rollout", {})
    if body.get("status", {}).get("observedGeneration") != body.get("metadata", {}).get("generation"):
        return -1, ""
    return rollout.get("step", -1), rollout.get("reason", "")


def until_waiting(kube: Kube, namespace: str, step: int, reason: str) -> None:
    until(
        lambda: waiting(kube, namespace) == (step, reason),
        f"step {step} waits for {reason}",
        seen=lambda: service(kube, namespace).get("status", {}).get("rollout"),
    )


def is_idle(cluster: Cluster, namespace: str, git: Git) -> bool:
    """Whether the operator writes nothing while Git applies once: its last event follows its last status."""
    audit = Audit(cluster)
    git.rounds(1)
    return not audit.writes(namespace)


def nothing_fights(cluster: Cluster, kube: Kube, namespace: str, git: Git) -> None:
    """Assert that the spec is that of Git, and that the operator writes nothing while Git applies it again."""
    until(lambda: is_idle(cluster, namespace, git), "the operator has written the last change")
    before, audit = service(kube, namespace), Audit(cluster)
    git.rounds()
    after = service(kube, namespace)
    assert is_subset(after["spec"], git.manifest["spec"])
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"], "Git's apply changes nothing"
    assert audit.writes(namespace) == []


def test_people_steer_a_rollout_while_git_applies_the_same_every_second(
    cluster: Cluster, kube: Kube, namespace: str, operator: Operator, conch: Conch
) -> None:
    audit = Audit(cluster)
    with Git(kube, namespace, stepped(ONE, "the first")) as git, operator:
        until(are_ready(kube, namespace), "the first revision serves")
        first = service(kube, namespace)["status"]["stable"]
        assert "no rollout of magika is in progress" in conch("promote", "magika", code=1)

        git.manifest = stepped(TWO, "a better one")
        until_waiting(kube, namespace, 1, "WaitsForPromotion")
        assert "WaitsForPromotion: Step 1 is a pause that a person ends" in conch("status", "magika")
        assert "is not paused by a user" in conch("resume", "magika", code=1)
        assert "has not failed" in conch("retry", "magika", code=1)

        assert "stays at step 1" in conch("pause", "magika")
        until_waiting(kube, namespace, 1, "PausedByUser")
        assert "is paused already" in conch("pause", "magika", code=1)
        request = service(kube, namespace)["metadata"]["annotations"][ANNOTATION_REQUEST]
        nothing_fights(cluster, kube, namespace, git)
        assert service(kube, namespace)["metadata"]["annotations"][ANNOTATION_REQUEST] == request
        conch("resume", "magika")
        until_waiting(kube, namespace, 1, "WaitsForPromotion")
        assert ANNOTATION_REQUEST not in service(kube, namespace)["metadata"]["annotations"]

        conch("promote", "magika")
        until_waiting(kube, namespace, 3, "WaitsForPromotion")
        nothing_fights(cluster, kube, namespace, git)

        assert f"all requests return to {first}" in conch("abort", "magika")
        until(lambda: waiting(kube, namespace)[1] == "Aborted", "it is given up")
        assert "failed (Aborted)" in conch("promote", "magika", code=1)
        until(lambda: len(service(kube, namespace)["status"]["revisions"]) == 1, "the candidate has left")
        nothing_fights(cluster, kube, namespace, git)
        assert service(kube, namespace)["status"]["stable"] == first

        conch("retry", "magika")
        until_waiting(kube, namespace, 1, "WaitsForPromotion")
        conch("promote", "magika", "--full")
        until(are_ready(kube, namespace), "the second revision serves")
        assert service(kube, namespace)["status"]["stable"] != first
        until(lambda: len(service(kube, namespace)["status"]["revisions"]) == 1, "the first one has left")
        nothing_fights(cluster, kube, namespace, git)

        text = conch("history", "magika")
        rows = [line.split() for line in text.splitlines()]
        assert [(row[0], row[3]) for row in rows[1:]] == [("2", "gitops"), ("1", "gitops")]
        assert text.splitlines()[1].endswith("a better one")
        assert text.splitlines()[2].endswith("the first")
        status_writes = [write for write in audit.writes(namespace) if "inferenceservices/status" in write]
        assert len(status_writes) < 60, "each status write carries a visible change"


def test_a_rollback_is_the_users_own_change_and_git_has_the_last_word(
    kube: Kube, namespace: str, operator: Operator, conch: Conch
) -> None:
    one, two, more = isvc(uri=ONE), isvc(uri=TWO), isvc(uri=TWO, minReplicas=3)
    one["metadata"]["annotations"] = {ANNOTATION_CHANGE_CAUSE: "the first"}
    with operator:
        with Git(kube, namespace, one) as git:
            until(are_ready(kube, namespace), "the first revision serves")
            first = service(kube, namespace)["status"]["stable"]
            git.manifest = two
            until(lambda: service(kube, namespace)["status"]["stable"] != first, "the second revision serves")
            git.manifest = more
            git.rounds(1)
            until(are_ready(kube, namespace), "the service is settled")
            generation = service(kube, namespace)["metadata"]["generation"]
            output = conch("rollback", "magika", "--to", "1")
            assert f"has revision 1 ({first}) again, as generation {generation + 1}" in output
            assert "gitops wrote the predictor before" in output
            assert "unless Git changes too" in output
            until(
                lambda: service(kube, namespace)["spec"]["predictor"]["model"]["storageUri"] == TWO,
                "Git has put its version back",
            )

        def numbers() -> list[int]:
            return [one["number"] for one in json.loads(conch("history", "magika", "-o", "json"))["revisions"]]

        until(lambda: numbers() == [4, 3], "what comes back takes the newest number", seen=numbers)
        conch("rollback", "magika", "--to", "3")
        until(lambda: service(kube, namespace)["status"]["stable"] == first, "the first revision serves again")
        until(are_ready(kube, namespace), "the service is settled")
        body = service(kube, namespace)
        assert body["spec"]["predictor"]["minReplicas"] == 3, "how many pods there are is a matter of today"
        assert body["metadata"]["annotations"][ANNOTATION_CHANGE_CAUSE] == "the first"
        newest = json.loads(conch("history", "magika", "-o", "json"))["revisions"][0]
        assert (newest["name"], newest["author"], newest["note"]) == (first, "kubectl-conch", "the first")
        assert newest["role"] == "stable"
        assert f"has revision {newest['number']} already" in conch(
            "rollback", "magika", "--to", str(newest["number"]), code=1
        )
        assert "has no revision 99" in conch("rollback", "magika", "--to", "99", code=1)


def test_a_variant_is_steered_and_rolled_back_beside_a_predictor_that_stays(
    kube: Kube, namespace: str, operator: Operator, conch: Conch
) -> None:
    body = isvc(uri=ONE)
    body["spec"] |= {
        "rollout": {"steps": [{"weight": 0}, {"pause": "Manual"}, {"weight": 100}]},
        "variants": [{"name": "int8", "predictor": {"model": {"storageUri": TWO}}}],
    }
    options = ("--variant", "int8")

    def of(field: str) -> Any:
        status = service(kube, namespace)["status"]
        return next((variant.get(field) for variant in status.get("variants", []) if variant["name"] == "int8"), None)

    def until_held(reason: str) -> None:
        until(lambda: (of("rollout") or {}).get("reason") == reason, f"int8 waits for {reason}")

    with operator:
        kube.apply(body, namespace)
        until(are_ready(kube, namespace), "predictor and variant serve")
        stable, first = service(kube, namespace)["status"]["stable"], of("stable")
        body["spec"]["variants"][0]["predictor"]["model"]["storageUri"] = "s3://models/three"
        kube.apply(body, namespace)
        until_held("WaitsForPromotion")
        assert "its variants have: int8 (Paused); select one" in conch("promote", "magika", code=1)
        assert "has no variant 'int4' (there are: int8)" in conch("promote", "magika", "--variant", "int4", code=1)
        conch("pause", "magika", *options)
        until_held("PausedByUser")
        conch("resume", "magika", *options)
        until_held("WaitsForPromotion")
        assert "own Service only" in conch("status", "magika")
        conch("promote", "magika", *options)
        until(are_ready(kube, namespace), "the change serves")
        assert of("stable") != first

        assert f"has revision 1 ({first}) again" in conch("rollback", "magika", "--to", "1", *options)
        until_held("WaitsForPromotion")
        assert of("candidate") == first
        conch("promote", "magika", "--full", *options)
        until(are_ready(kube, namespace), "the first revision serves again")
        assert (of("stable"), service(kube, namespace)["status"]["stable"]) == (first, stable)
        newest = json.loads(conch("history", "magika", *options, "-o", "json"))["revisions"][0]
        assert (newest["name"], newest["number"], newest["author"]) == (first, 3, "kubectl-conch")
        assert [row.split()[1] for row in conch("history", "magika").splitlines()[1:]] == [stable]


def test_a_rollback_is_refused_only_if_another_writer_changed_the_spec_meanwhile(
    cluster: Cluster, kube: Kube, namespace: str
) -> None:
    first = Revision("magika-1", 1, 1, {}, "", isvc(uri=ONE)["spec"]["predictor"])

    async def roll_back_over(seen: Object) -> Object:
        async with await UserServer.as_user(str(cluster.kubeconfig)) as server:
            return await write_rollback(conch_cluster.Cluster(server, namespace), seen, first)

    kube.apply(isvc(uri=TWO), namespace)
    seen = service(kube, namespace)
    kube.run("annotate", "inferenceservice", "magika", "team=search", f"--namespace={namespace}")
    after = asyncio.run(roll_back_over(seen))
    assert after["spec"]["predictor"]["model"]["storageUri"] == ONE
    assert after["metadata"]["annotations"]["team"] == "search"
    with pytest.raises(CallError, match="the object has been modified") as caught:
        asyncio.run(roll_back_over(seen))
    assert caught.value.code == 409


def test_a_plan_against_the_cluster_is_what_then_happens(
    kube: Kube, namespace: str, operator: Operator, conch: Conch, tmp_path: Path
) -> None:
    file = tmp_path / "isvc.yaml"

    def plan(manifest: Object) -> Any:
        file.write_text(yaml.safe_dump(manifest))
        return json.loads(conch("plan", "-f", str(file), "--against", "cluster", "-o", "json"))["services"][0]

    def planned(found: Any, action: str) -> set[tuple[str, str]]:
        return {(write["kind"], write["name"]) for write in found["writes"] if write["action"] == action}

    def made() -> set[tuple[str, str]]:
        return {(ref.kind.name, ref.name) for ref in children(kube, namespace)}

    foreseen = plan(stepped(ONE))
    assert not service(kube, namespace), "a plan writes nothing"
    with operator:
        kube.apply(stepped(ONE), namespace)
        until(are_ready(kube, namespace), "the first revision serves")
        before = made()
        assert before == planned(foreseen, "create")

        version = service(kube, namespace)["metadata"]["resourceVersion"]
        same = plan(stepped(ONE))
        assert (same["writes"], same["revision"]["known"]) == ([], True)
        foreseen = plan(stepped(TWO))
        assert service(kube, namespace)["metadata"]["resourceVersion"] == version
        assert "takes over from" in foreseen["message"]
        kube.apply(stepped(TWO), namespace)
        until_waiting(kube, namespace, 1, "WaitsForPromotion")
        assert made() - before == planned(foreseen, "create")
        assert service(kube, namespace)["status"]["candidate"] == foreseen["revision"]["name"]


def test_a_plan_reports_what_would_be_refused(kube: Kube, namespace: str, conch: Conch, tmp_path: Path) -> None:
    file = tmp_path / "isvc.yaml"
    unsplit = stepped(ONE)
    del unsplit["spec"]["traffic"]
    file.write_text(yaml.safe_dump(unsplit))
    assert "a weight between 0 and 100 needs a gateway" in conch(
        "plan", "-f", str(file), "--against", "cluster", code=1
    )
    theirs = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "magika"},
        "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]},
    }
    kube.apply(theirs, namespace)
    file.write_text(yaml.safe_dump(isvc()))
    assert "NameTaken: Service/magika exists" in conch("plan", "-f", str(file), "--against", "cluster")


def test_kubectl_finds_it_and_errors_are_sentences(cluster: Cluster, kube: Kube, namespace: str, conch: Conch) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kube.apply(isvc(), namespace)
    text = kube_plugin(cluster, path, "conch", "history", "magika", "-n", namespace)
    assert text == "magika has no revisions yet.\n"
    text = kube_plugin(cluster, path, "conch", "status", "magika", "-n", namespace)
    assert "not observed by the operator yet" in text
    missing = conch("status", "yolo", code=1)
    assert missing.startswith("Error: there is no InferenceService yolo in namespace")
    assert "kubectl get inferenceservices" in missing
    nowhere = CliRunner().invoke(cli, ["status", "magika", "--kubeconfig", "/nowhere"])
    assert nowhere.exit_code == 1
    assert nowhere.output.startswith("Error: there is no kubeconfig /nowhere; name a working one with --kubeconfig")


def test_the_plugin_has_the_permissions_of_its_user(
    cluster: Cluster, kube: Kube, namespace: str, tmp_path: Path
) -> None:
    kube.apply(isvc(), namespace)
    here = f"--namespace={namespace}"
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(kubeconfig_of(cluster, kube, namespace, "reader")))
    resources = "--resource=inferenceservices.conch.dev,controllerrevisions.apps,endpointslices.discovery.k8s.io"
    kube.run("create", "role", "reader", "--verb=get,list", resources, here)
    kube.run("create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={namespace}:reader", here)

    def typed(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(cli, [*words, "--kubeconfig", str(file), "--context", "reader"])
        return done.exit_code, done.output

    assert typed("history", "magika") == (0, "magika has no revisions yet.\n"), "in the context's namespace"
    manifest = tmp_path / "isvc.yaml"
    manifest.write_text(yaml.safe_dump(isvc(uri=TWO)))
    code, output = typed("plan", "-f", str(manifest), "--against", "cluster")
    assert code == 1
    assert 'cannot update resource "inferenceservices"' in output
    assert output.strip().endswith("request that permission from the administrator of the cluster")

    load = ("load", "magika", "--rate=1", "--duration=1s", "--port-forward")
    assert "does not serve yet" in typed(*load)[1]
    serves = {"type": "Serving", "status": "True", "reason": "Answering", "message": "It answers."}
    status = {"url": "http://magika", "conditions": [{**serves, "lastTransitionTime": "2030-01-01T00:00:00Z"}]}
    answer(kube, INFERENCE_SERVICE, namespace, "magika", status)
    code, output = typed(*load)
    assert code == 1
    assert "no EndpointSlice of Service magika lists a ready pod" in output
    endpoint = {"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": "magika-0", "namespace": namespace}}
    meta = {"name": "magika", "labels": {"kubernetes.io/service-name": "magika"}}
    kind = {"apiVersion": ENDPOINT_SLICE.api_version, "kind": ENDPOINT_SLICE.name}
    kube.apply({**kind, "metadata": meta, "addressType": "IPv4", "endpoints": [endpoint], "ports": []}, namespace)
    code, output = typed(*load)
    assert code == 1
    assert "port 8001 of pod magika-0 is refused with HTTP status 403" in output
    assert "it requires get and create on pods/portforward" in output


def test_a_cluster_without_the_kind_is_not_one_without_the_object(cluster: Cluster) -> None:
    async def get(kind: Kind) -> Object | None:
        async with await UserServer.as_user(str(cluster.kubeconfig)) as server:
            return await server.get("default", Ref(kind, "nothing"))

    assert asyncio.run(get(INFERENCE_SERVICE)) is None
    with pytest.raises(CallError) as caught:
        asyncio.run(get(Kind("absent.dev", "v1", "Nothing", "nothings")))
    assert describe_error(caught.value).endswith("; is Conch's CustomResourceDefinition installed in this cluster?")


def kube_plugin(cluster: Cluster, path: str, *words: str) -> str:
    """Run kubectl, which looks for its plugins in PATH."""
    env = {**os.environ, "PATH": path, "KUBECONFIG": str(cluster.kubeconfig)}
    done = subprocess.run([clients.program("kubectl"), *words], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
