"""Stories of storage.watch: new content in a store becomes a revision, or is reported."""

import json
from typing import Any

import click
import pytest

from conch.api import InferenceService, Phase
from conch.api.kinds import CONFIG_MAP, CONTROLLER_REVISION, INFERENCE_SERVICE, POD, Ref
from conch.cli.history import Entry, find_revision
from conch.cli.options import CommandError
from conch.decide import build_report_requests, decide
from conch.observe import Revision
from conch_contract import AgentReport, ModelManifest, ModelReport, ModelState, SourceReport, names
from tests.unit.simulation import KEY, Cluster, build_manifest

URI = "s3://models/magika"
UPDATED = "SourceUpToDate"


def build(watch: str = "Rollout", rollout: dict[str, Any] | None = None, **predictor: Any) -> Cluster:
    """A service of one pod that watches its source, before its first reconcile."""
    body = build_manifest(rollout=rollout, traffic={"split": "Replicas"}, **predictor)
    body["spec"]["predictor"]["model"]["storage"] |= {"watch": watch, "refresh": "30s"}
    return Cluster(body)


def report(content: str, seen: str = "", since: float = 0.0, message: str = "", model: str = "magika") -> AgentReport:
    """What a pod reports with this content, that has seen another one (or the same) in the store since then."""
    source = SourceReport(
        model=model, fetched=f"list-{content}", identity=f"list-{seen or content}", since=since, message=message
    )
    served = ModelReport(name=model, state=ModelState.READY, digest=f"sha256:{content}")
    return AgentReport(ready=True, models=(served,), sources=(source,))


def start(cluster: Cluster, seen: AgentReport) -> str:
    """Start a pod of the wanted revision with a report, and reconcile. Return the name of the revision."""
    cluster.settle()
    wanted = cluster.decision().wanted
    cluster.put_pod(wanted, 0, ready=True, report=seen)
    cluster.settle()
    return wanted


def see(cluster: Cluster, revision: str, seen: AgentReport) -> None:
    """Let the pod of a revision report something else, and reconcile."""
    cluster.reports[cluster.objects[Ref(POD, f"{revision}-0")]["metadata"]["uid"]] = seen
    cluster.settle()


def read_manifest(cluster: Cluster, revision: str) -> ModelManifest:
    return ModelManifest.model_validate_json(cluster.objects[Ref(CONFIG_MAP, revision)]["data"][names.MANIFEST_FILE])


def list_entries(cluster: Cluster) -> list[Entry]:
    bodies = [body for ref, body in cluster.objects.items() if ref.kind == CONTROLLER_REVISION]
    found = (Revision.parse(body) for body in bodies)
    return sorted((Entry(each, "") for each in found if each), key=lambda entry: -entry.revision.number)


@pytest.fixture
def cluster() -> Cluster:
    """A service that serves content `a`, which its source has."""
    built = build()
    start(built, report("a", since=built.now))
    return built


def test_pods_learn_which_sources_to_watch(cluster: Cluster) -> None:
    stable = cluster.decision().wanted
    [watched] = read_manifest(cluster, stable).watched
    assert (watched.model, watched.storage_uri, watched.refresh_seconds) == ("magika", URI, 30)
    assert cluster.condition(UPDATED) == ("True", "UpToDate")
    assert cluster.condition("Ready") == ("True", "Served")


def test_new_content_becomes_a_revision_that_takes_over(cluster: Cluster) -> None:
    stable = cluster.decision().wanted
    cluster.now += 60
    see(cluster, stable, report("a", seen="b", since=cluster.now - 5))
    candidate = cluster.decision().wanted
    assert candidate != stable
    assert cluster.condition(UPDATED) == ("False", "NewContent")
    message = cluster.status.condition(UPDATED).message  # type: ignore[union-attr]  # asserted above
    assert all(part in message for part in (URI, stable, candidate))
    [model] = read_manifest(cluster, candidate).models
    assert (model.source_identity, model.digest) == ("list-b", "")
    cluster.put_pod(candidate, 0, ready=True, report=report("b", since=cluster.now))
    cluster.settle()
    assert cluster.status.stable == cluster.decision().wanted == candidate
    assert cluster.condition(UPDATED) == ("True", "UpToDate")
    assert [event.reason for event in cluster.story].count("Promoted") == 1
    assert {entry.revision.number: entry.revision.sources for entry in list_entries(cluster)} == {
        1: {},
        2: {"magika": "list-b"},
    }


def test_the_content_in_force_does_not_depend_on_reports(cluster: Cluster) -> None:
    stable = cluster.decision().wanted
    see(cluster, stable, report("a", seen="b", since=cluster.now))
    candidate = cluster.decision().wanted
    cluster.put_pod(candidate, 0, ready=True, report=report("b", since=cluster.now))
    cluster.settle()
    cluster.reports.clear()  # of an operator that has just started
    cluster.settle()
    assert cluster.decision().wanted == candidate
    assert cluster.condition(UPDATED) == ("True", "UpToDate")


def test_a_report_makes_no_revision() -> None:
    cluster = build("Report")
    stable = start(cluster, report("a", since=1.0))
    see(cluster, stable, report("a", seen="b", since=cluster.now))
    assert cluster.decision().wanted == stable
    assert cluster.condition(UPDATED) == ("False", "NewContent")
    assert cluster.condition("Ready") == ("True", "Served")
    assert "set storage.watch to Rollout" in cluster.status.condition(UPDATED).message  # type: ignore[union-attr]
    assert [event.reason for event in cluster.story].count("NewContent") == 1
    see(cluster, stable, report("a", since=cluster.now))
    assert cluster.condition(UPDATED) == ("True", "UpToDate")


def test_content_that_failed_is_not_tried_again_and_later_content_is(cluster: Cluster) -> None:
    stable = cluster.decision().wanted
    see(cluster, stable, report("a", seen="b", since=cluster.now))
    failing = cluster.decision().wanted
    cluster.now += 3600  # beyond the progress deadline
    cluster.settle()
    assert cluster.decision().failed
    assert "was rolled back" in cluster.status.condition(UPDATED).message  # type: ignore[union-attr]
    cluster.now += 3600
    cluster.settle()
    assert cluster.decision().wanted == failing
    see(cluster, stable, report("a", seen="c", since=cluster.now))
    assert cluster.decision().wanted not in {stable, failing}
    assert not cluster.decision().failed


def test_content_that_returns_is_its_revision_again(cluster: Cluster) -> None:
    first = cluster.decision().wanted
    see(cluster, first, report("a", seen="b", since=cluster.now))
    second = cluster.decision().wanted
    cluster.put_pod(second, 0, ready=True, report=report("b", since=cluster.now))
    cluster.settle()
    assert cluster.status.stable == second
    cluster.now += 60
    see(cluster, second, report("b", seen="a", since=cluster.now))
    assert cluster.decision().wanted == first
    [model] = read_manifest(cluster, first).models
    assert model.digest == "sha256:a"  # the content that it served, and no other


def test_a_pod_that_has_not_read_the_source_lately_changes_nothing(cluster: Cluster) -> None:
    stable = cluster.decision().wanted
    cluster.now += 60
    see(cluster, stable, report("a", seen="b", since=cluster.now))
    candidate = cluster.decision().wanted
    cluster.put_pod(stable, 1, ready=True, report=report("a", since=cluster.now - 60))
    cluster.settle()
    assert cluster.decision().wanted == candidate


def test_a_pod_that_cannot_start_with_changed_content_shows_it(cluster: Cluster) -> None:
    """Its files are gone, so it never serves: the revision of the new content replaces it."""
    stable = cluster.decision().wanted
    cluster.kill_pods(stable)
    failed = ModelReport(name="magika", state=ModelState.FAILED, reason="ContentChanged", message="it has changed")
    sources = report("a", seen="b", since=cluster.now).sources
    cluster.put_pod(stable, 0, ready=False, report=AgentReport(models=(failed,), sources=sources))
    cluster.settle()
    assert cluster.decision().wanted != stable


def test_a_request_for_one_rollout_is_not_for_the_next_content(cluster: Cluster) -> None:
    stable = cluster.decision().wanted
    see(cluster, stable, report("a", seen="b", since=cluster.now))
    cluster.request("abort 1")
    cluster.settle()
    assert cluster.decision().failed
    see(cluster, stable, report("a", seen="c", since=cluster.now))
    assert not cluster.decision().failed
    cluster.settle()
    assert not cluster.decision().failed
    cluster.request("abort 1 once-more")
    cluster.settle()
    assert cluster.decision().failed


def test_a_promotion_is_not_for_the_next_content() -> None:
    cluster = build(rollout={"steps": [{"weight": 50}, {"pause": "Manual"}]}, minReplicas=2)
    cluster.settle()
    first = cluster.decision().wanted
    for index in range(2):
        cluster.put_pod(first, index, ready=True, report=report("a", since=1.0))
    cluster.settle()
    see(cluster, first, report("a", seen="b", since=cluster.now))
    second = cluster.decision().wanted
    for index in range(2):
        cluster.put_pod(second, index, ready=True, report=report("b", since=cluster.now))
    cluster.settle()
    assert cluster.decision().rollout.reason == "WaitsForPromotion"  # type: ignore[union-attr]
    cluster.request("promote 1")
    cluster.settle()
    cluster.end_pods()
    cluster.settle()
    assert cluster.status.stable == second
    cluster.now += 60
    see(cluster, second, report("b", seen="c", since=cluster.now))
    third = cluster.decision().wanted
    for index in range(2):
        cluster.put_pod(third, index, ready=True, report=report("c", since=cluster.now))
    cluster.settle()
    assert third not in {first, second}
    assert cluster.decision().rollout.reason == "WaitsForPromotion"  # type: ignore[union-attr]


def test_pods_that_read_another_uri_do_not_count(cluster: Cluster) -> None:
    before = cluster.decision().wanted
    cluster.edit(uri="s3://models/other")
    see(cluster, before, report("a", seen="b", since=cluster.now))
    wanted = cluster.decision().wanted
    assert read_manifest(cluster, wanted).models[0].source_identity == ""
    cluster.put_pod(wanted, 0, ready=True, report=report("z", since=cluster.now))
    cluster.settle()
    assert cluster.status.stable == wanted == cluster.decision().wanted


def test_a_source_that_cannot_be_read_is_reported(cluster: Cluster) -> None:
    stable = cluster.decision().wanted
    see(cluster, stable, report("a", message="s3://models/magika: access is denied."))
    assert cluster.condition(UPDATED) == ("Unknown", "SourceUnreadable")
    assert "access is denied" in cluster.status.condition(UPDATED).message  # type: ignore[union-attr]
    assert cluster.condition("Ready") == ("True", "Served")
    see(cluster, stable, report("a", since=cluster.now))
    assert cluster.condition(UPDATED) == ("True", "UpToDate")


def test_a_settled_service_requests_the_report_of_one_pod(cluster: Cluster) -> None:
    stable = cluster.decision().wanted
    for index in range(1, 4):
        cluster.put_pod(stable, index, ready=True, report=report("a", since=1.0))
    cluster.settle()
    assert [each.period for each in build_report_requests(cluster.snapshot())] == [30]
    assert decide(cluster.snapshot()).wait is None


def test_a_service_without_a_watch_requests_none() -> None:
    cluster = build("Off")
    del cluster.objects[Ref(INFERENCE_SERVICE, KEY.name)]["spec"]["predictor"]["model"]["storage"]["refresh"]
    stable = start(cluster, report("a"))
    assert cluster.status.revision(stable).phase == Phase.READY  # type: ignore[union-attr]
    assert build_report_requests(cluster.snapshot()) == ()
    assert decide(cluster.snapshot()).wait is None
    assert cluster.condition(UPDATED) == ("", "")


def test_new_content_of_one_of_several_models_is_a_revision_of_all() -> None:
    models = [
        {"name": name, "modelFormat": {"name": "onnx"}, "storageUri": f"s3://models/{name}"} for name in ("pre", "net")
    ]
    models[1]["storage"] = {"watch": "Rollout"}
    body = build_manifest(models=models, entry="net")
    del body["spec"]["predictor"]["model"]
    cluster = Cluster(body)

    def both(net: str, seen: str) -> AgentReport:
        pre = ModelReport(name="pre", state=ModelState.READY, digest="sha256:pre")
        one = report(net, seen=seen, since=cluster.now, model="net")
        return one.model_copy(update={"models": (pre, *one.models)})

    stable = start(cluster, both("a", "a"))
    see(cluster, stable, both("a", "b"))
    candidate = cluster.decision().wanted
    assert candidate != stable
    found = {model.name: model.source_identity for model in read_manifest(cluster, candidate).models}
    assert found == {"pre": "", "net": "list-b"}


def test_a_variant_follows_its_own_source(cluster: Cluster) -> None:
    cluster.edit_variants({"name": "b", "weight": 10, "predictor": {"model": {"storageUri": "s3://models/b"}}})
    cluster.settle()
    variant, main = cluster.decision("b").wanted, cluster.decision().wanted
    cluster.put_pod(variant, 0, ready=True, report=report("x", since=cluster.now))
    cluster.settle()
    see(cluster, variant, report("x", seen="y", since=cluster.now))
    assert cluster.decision("b").wanted != variant
    assert cluster.decision().wanted == main


def test_a_rollback_to_earlier_content_is_refused_with_what_to_do(cluster: Cluster) -> None:
    first = cluster.decision().wanted
    see(cluster, first, report("a", seen="b", since=cluster.now))
    second = cluster.decision().wanted
    cluster.put_pod(second, 0, ready=True, report=report("b", since=cluster.now))
    cluster.settle()
    service = InferenceService.parse(cluster.objects[Ref(INFERENCE_SERVICE, KEY.name)])
    entries = list_entries(cluster)
    with pytest.raises(CommandError, match="restore that content in the store"):
        find_revision(service, entries, 1)
    with pytest.raises(click.ClickException, match="has revision 2 already"):
        find_revision(service, entries, 2)


def test_the_identity_of_a_source_is_kept_beside_the_digest(cluster: Cluster) -> None:
    [entry] = list_entries(cluster)
    body = cluster.objects[Ref(CONTROLLER_REVISION, entry.revision.name)]
    contents = json.loads(body["metadata"]["annotations"]["conch.dev/contents"])
    assert contents == {"magika": {"digest": "sha256:a", "sourceIdentity": "list-a"}}
    [model] = read_manifest(cluster, entry.revision.name).models
    assert (model.digest, model.source_identity) == ("sha256:a", "")
