"""Faults around storage.watch: odd reports, lost objects, and pods that are not there when they are needed."""

import copy
import json
from typing import Any

import pytest

from conch.api.kinds import CONTROLLER_REVISION, DEPLOYMENT, POD, Ref
from conch.observe.contents import decode_contents
from conch.signals.agents import read_report
from conch_contract import AgentReport, ModelReport, ModelState, ModelWarning, SourceReport
from tests.unit.simulation import GPU, Cluster, build_manifest
from tests.unit.test_watch_stories import UPDATED, build, list_entries, read_manifest, report, see, start


@pytest.fixture
def cluster() -> Cluster:
    """A service that serves content `a`, and requests only the reports that it needs."""
    built = build()
    start(built, report("a", since=1.0))
    built.reports_on_request = True
    return built


def take_over(cluster: Cluster, content: str) -> str:
    """Let new content be seen and served. Return its revision."""
    before = cluster.status.stable
    assert before is not None
    served = cluster.reports[cluster.objects[Ref(POD, f"{before}-0")]["metadata"]["uid"]]
    cluster.now += 60
    see(cluster, before, report(served.sources[0].fetched.removeprefix("list-"), seen=content, since=cluster.now))
    cluster.end_pods()
    cluster.settle()
    candidate = cluster.decision().wanted
    cluster.put_pod(candidate, 0, ready=True, report=report(content, since=cluster.now))
    cluster.settle()
    assert cluster.status.stable == candidate != before
    return candidate


def forget_reports(cluster: Cluster) -> None:
    """Let the operator start again: it reconciles before the first pod reports."""
    known = dict(cluster.reports)
    cluster.reports.clear()
    cluster.settle()
    cluster.reports.update(known)


@pytest.mark.parametrize("returns", [False, True])
def test_recreate_gets_to_the_new_content(returns: bool) -> None:
    """Its pods start when those of before have ended, so that no pod reports the content in between."""
    cluster = build(rollout={"strategy": "Recreate"})
    stable = start(cluster, report("a", since=1.0))
    content = "b"
    if returns:
        take_over(cluster, "b")
        content = "a"
    cluster.now += 60
    serving = cluster.status.stable
    pod = cluster.objects[Ref(POD, f"{serving}-0")]["metadata"]["uid"]
    cluster.reports[pod] = report("b" if returns else "a", seen=content, since=cluster.now)
    for _ in range(5):
        cluster.reconcile()
        cluster.end_pods()
    candidate = cluster.decision().wanted
    assert (candidate == stable) is returns
    assert candidate != serving
    assert cluster.objects[Ref(DEPLOYMENT, candidate)]["spec"]["replicas"] == 1


def test_content_that_waits_for_gpus_is_remembered() -> None:
    cluster = build(rollout={"onInsufficientCapacity": "Hold"}, resources={"limits": {GPU: 1}})
    cluster.gpus = 1
    stable = start(cluster, report("a", since=1.0))
    see(cluster, stable, report("a", seen="b", since=cluster.now))
    candidate = cluster.decision().wanted
    assert candidate != stable
    forget_reports(cluster)
    assert cluster.decision().wanted == candidate
    cluster.request("abort 1")
    cluster.settle()
    forget_reports(cluster)
    cluster.settle()
    assert cluster.decision().wanted == candidate
    assert cluster.decision().failed


def test_the_condition_is_good_once_the_new_content_serves(cluster: Cluster) -> None:
    """Its pods have not read the source twice yet."""
    stable = cluster.decision().wanted
    see(cluster, stable, report("a", seen="b", since=cluster.now))
    assert cluster.condition(UPDATED) == ("False", "NewContent")
    candidate = cluster.decision().wanted
    unread = SourceReport(model="magika", fetched="list-b")
    started = report("b").model_copy(update={"sources": (unread,)})
    cluster.put_pod(candidate, 0, ready=True, report=started)
    cluster.settle()
    cluster.end_pods()
    cluster.settle()
    assert cluster.status.stable == candidate
    assert cluster.condition(UPDATED) == ("True", "UpToDate")


@pytest.mark.parametrize("lost", [["first"], ["second"], ["first", "second"]])
def test_a_lost_record_brings_no_other_content(cluster: Cluster, lost: list[str]) -> None:
    by_name = {"first": cluster.decision().wanted, "second": take_over(cluster, "b")}
    for name in lost:
        cluster.remove(Ref(CONTROLLER_REVISION, by_name[name]))
    cluster.settle()
    assert cluster.decision().wanted == cluster.status.stable == by_name["second"]
    [model] = read_manifest(cluster, by_name["second"]).models
    assert (model.digest, model.source_identity) == ("sha256:b", "list-b")
    forget_reports(cluster)
    assert cluster.decision().wanted == by_name["second"]


def test_a_lost_record_of_the_spec_is_written_again(cluster: Cluster) -> None:
    first = cluster.decision().wanted
    cluster.remove(Ref(CONTROLLER_REVISION, first))
    cluster.settle()
    assert cluster.decision().wanted == first
    assert cluster.condition(UPDATED) == ("True", "UpToDate")
    assert decode_contents(_read_contents(cluster, first))["magika"].source_identity == "list-a"


def _read_contents(cluster: Cluster, revision: str) -> str:
    body = cluster.objects[Ref(CONTROLLER_REVISION, revision)]
    return str(body["metadata"]["annotations"]["conch.dev/contents"])


def test_a_predictor_of_another_writer_is_none_of_the_spec(cluster: Cluster) -> None:
    first, second = cluster.decision().wanted, take_over(cluster, "b")
    body = copy.deepcopy(cluster.objects[Ref(CONTROLLER_REVISION, first)])
    body["data"]["predictor"] = {"model": 5, "unknown": True}
    cluster.put(body)
    cluster.settle()
    assert cluster.decision().wanted == second


def test_contents_that_another_writer_removed_match_no_listing(cluster: Cluster) -> None:
    first, second = cluster.decision().wanted, take_over(cluster, "b")
    body = copy.deepcopy(cluster.objects[Ref(CONTROLLER_REVISION, first)])
    del body["metadata"]["annotations"]["conch.dev/contents"]
    cluster.put(body)
    see(cluster, second, report("b", seen="c", since=cluster.now + 1))
    assert cluster.decision().wanted not in {first, second}


@pytest.mark.parametrize(
    "source",
    [{"since": 1e300}, {"since": -1}, {"since": 253402300800}, {"identity": "x" * 129}, {"fetched": "x" * 129}],
)
def test_a_source_that_no_agent_reports_is_refused(source: dict[str, Any]) -> None:
    """Times end up in messages, and identities in names and annotations."""
    with pytest.raises(ValueError, match=r"sources\.0"):
        read_report(json.dumps({"sources": [{"model": "magika", **source}]}))


def test_another_uri_is_no_new_content(cluster: Cluster) -> None:
    cluster.edit(uri="s3://models/other")
    cluster.settle()
    cluster.put_pod(cluster.decision().wanted, 0, ready=False, report=report("z", since=cluster.now))
    cluster.settle()
    assert cluster.condition(UPDATED) == ("True", "UpToDate")
    assert "NewContent" not in {event.reason for event in cluster.story}


def _build_optional(watch: dict[str, Any]) -> Cluster:
    """A service of a model and of one without which pods are ready."""
    models: list[dict[str, Any]] = [
        {"name": name, "modelFormat": {"name": "onnx"}, "storageUri": f"s3://models/{name}", "storage": watch}
        for name in ("pre", "net")
    ]
    models[0]["required"] = False
    body = build_manifest(models=models, entry="net")
    del body["spec"]["predictor"]["model"]
    return Cluster(body)


def _report_optional(seen: str, now: float, pre: SourceReport) -> AgentReport:
    """What a pod with content `a` of the model reports, of which the other one has failed."""
    warning = ModelWarning(reason="ModelNotServed", message="it failed")
    failed = ModelReport(name="pre", state=ModelState.FAILED, reason="LoadFailed", warnings=(warning,))
    net = report("a", seen=seen, since=now, model="net")
    return net.model_copy(update={"models": (failed, *net.models), "sources": (pre, *net.sources)})


@pytest.mark.parametrize("pre", [SourceReport(model="pre"), SourceReport(model="pre", identity="list-x")])
def test_a_model_that_is_not_required_holds_no_other(pre: SourceReport) -> None:
    cluster = _build_optional({"watch": "Rollout"})
    stable = start(cluster, _report_optional("a", cluster.now, pre))
    assert cluster.condition(UPDATED) == ("True", "UpToDate")
    see(cluster, stable, _report_optional("b", cluster.now, pre))
    candidate = cluster.decision().wanted
    assert candidate != stable
    see(cluster, stable, _report_optional("b", cluster.now, SourceReport(model="pre")))  # it cannot be read now
    assert cluster.decision().wanted == candidate


def test_a_watch_hides_no_warning_of_another_pod() -> None:
    """Of a settled service one pod reports; the status keeps what the others have reported."""
    cluster = build(minReplicas=3)
    cluster.reports_on_request = True
    cluster.settle()
    stable = cluster.decision().wanted
    warned = report("a", since=1.0)
    warning = ModelWarning(reason="WarmupChanged", message="it has changed")
    warned = warned.model_copy(update={"models": (warned.models[0].model_copy(update={"warnings": (warning,)}),)})
    for index in range(3):
        cluster.put_pod(stable, index, ready=True, report=warned if index == 1 else report("a", since=1.0))
    cluster.settle()
    cluster.now += 300
    cluster.settle()
    found = cluster.status.revision(stable)
    assert found is not None
    assert [each.reason for model in found.models for each in model.warnings] == ["WarmupChanged"]


def test_a_pod_that_cannot_read_its_source_holds_no_other(cluster: Cluster) -> None:
    """Its clock is ahead, so that what it has read last seems to be the newest."""
    stable = cluster.decision().wanted
    cluster.put_pod(
        stable, 1, ready=False, report=report("a", since=cluster.now + 3600, message="s3://models/magika: no answer.")
    )
    see(cluster, stable, report("a", seen="b", since=cluster.now))
    assert cluster.decision().wanted != stable


def test_a_settled_service_with_a_watch_is_not_written() -> None:
    cluster = build(minReplicas=3)
    cluster.reports_on_request = True
    cluster.settle()
    stable = cluster.decision().wanted
    for index in range(3):
        cluster.put_pod(stable, index, ready=True, report=report("a", since=1.0 + index))
    cluster.settle()
    cluster.now += 120
    cluster.settle()
    before = cluster.status_writes
    for _ in range(10):
        cluster.now += 30
        assert not cluster.reconcile()
    assert cluster.status_writes == before


@pytest.mark.parametrize("watch", [None, "Report"])
def test_the_condition_of_a_variant_is_that_of_the_service(watch: str | None) -> None:
    """Also when it is good. A predictor whose pods do not report keeps its own."""
    cluster = Cluster(build_manifest()) if watch is None else build(watch)
    first = start(cluster, report("a", since=1.0))
    storage = {"secretRef": {"name": "s3"}, "watch": "Report"}
    cluster.edit_variants({"name": "b", "predictor": {"model": {"storageUri": "s3://models/b", "storage": storage}}})
    cluster.settle()
    variant = cluster.decision("b").wanted
    cluster.put_pod(variant, 0, ready=True, report=report("x", since=cluster.now))
    cluster.settle()
    assert cluster.condition(UPDATED) == ("True", "UpToDate")
    cluster.reports.pop(cluster.objects[Ref(POD, f"{first}-0")]["metadata"]["uid"])
    see(cluster, variant, report("x", seen="y", since=cluster.now))
    assert cluster.condition(UPDATED) == ("False", "NewContent")
    see(cluster, variant, report("x", message="s3://models/b: access is denied."))
    assert cluster.condition(UPDATED) == ("Unknown", "SourceUnreadable")
    see(cluster, variant, report("x", since=cluster.now))
    assert cluster.condition(UPDATED) == ("True", "UpToDate")
    assert [event.reason for event in cluster.story].count("NewContent") == 1


def test_the_content_that_serves_outlives_a_history_of_none() -> None:
    cluster = build(rollout={"historyLimit": 0})
    cluster.reports_on_request = True
    start(cluster, report("0", since=1.0))
    for number in range(1, 4):
        serving = take_over(cluster, str(number))
        cluster.end_pods()
        forget_reports(cluster)
        assert cluster.decision().wanted == serving
        [entry] = list_entries(cluster)
        assert entry.revision.contents["magika"].digest == f"sha256:{number}"
