"""Stories of candidates whose answers are compared with the stable revision's, before a user sees one of them."""

from typing import Any

import pytest

from conch.api import RolloutStatus
from conch.api.analysis import GateStatus
from conch.api.kinds import DEPLOYMENT, JOB, POD, Ref
from conch.decide.requeue import START_PATIENCE
from conch.observe import Finding
from conch_contract import Disagreement, ParityReport, WarmupReport
from conch_contract.revision_jobs import PARITY, WARMUP
from tests.unit.simulation import Cluster, build_manifest, end_job, read_weights, start_revision

GATEWAY = {"gateways": [{"name": "public"}], "hostnames": ["magika.example.com"]}
STEPS = [{"weight": 10}, {"analysis": "1m"}, {"weight": 50}, {"pause": "Manual"}]
WARM = WarmupReport(requests=50, stable=True, reason="WarmedUp")
SAME = ParityReport(requests=20, compared=20, agreed=20, reason="Compared")
WRONG = ParityReport(
    requests=20,
    compared=20,
    agreed=3,
    reason="Compared",
    worst=Disagreement(request="requests[1]", output="y", index=0, stable="2", candidate="5", how="1.5 apart"),
)
SILENT = ParityReport(requests=20, stable_failures=20, reason="ParityNothingCompared", message="No answer came.")


def start_comparison(**rollout: Any) -> tuple[Cluster, str, str]:
    """Start a candidate that is warm, and its parity Job."""
    spec = {"steps": STEPS, "analysis": [{"parity": {"minAgreement": "95%"}}], **rollout}
    cluster = Cluster(build_manifest(minReplicas=2, warmup={}, rollout=spec, traffic=GATEWAY))
    cluster.reconcile()
    stable = cluster.decision().wanted
    start_revision(cluster, stable)
    cluster.edit(uri="s3://models/v2")
    cluster.settle()
    new = cluster.decision().wanted
    start_revision(cluster, new)
    assert find_job(new) not in cluster.objects, "a candidate that is not warm answers late"
    end_job(cluster, WARMUP, new, WARM)
    assert find_job(new) in cluster.objects
    assert read_weights(cluster) == {stable: 100}
    paused = "pause" in spec["steps"][0]
    assert read_rollout(cluster).reason == ("WaitsForPromotion" if paused else "ComparingAnswers")
    return cluster, stable, new


def find_job(revision: str) -> Ref:
    return Ref(JOB, PARITY.format_name(revision))


def end_parity_job(cluster: Cluster, revision: str, report: ParityReport) -> None:
    """End the parity Job with a report."""
    end_job(cluster, PARITY, revision, report)


def read_rollout(cluster: Cluster) -> RolloutStatus:
    found = cluster.status.rollout
    assert found is not None
    return found


def read_gate(cluster: Cluster) -> GateStatus:
    [gate] = read_rollout(cluster).gates
    return gate


def test_answers_that_agree_pass_the_gate_and_the_verdict_outlives_the_job() -> None:
    cluster, stable, new = start_comparison()
    end_parity_job(cluster, new, SAME)
    start_revision(cluster, new)
    assert read_weights(cluster) == {stable: 90, new: 10}
    assert (read_gate(cluster).name, read_gate(cluster).verdict, read_gate(cluster).value) == (
        "parity",
        "Passed",
        "100%",
    )
    evaluated_at = read_gate(cluster).evaluated_at
    cluster.remove(find_job(new))
    cluster.remove(Ref(POD, f"left-{find_job(new).name}-x"))
    cluster.settle()
    assert find_job(new) not in cluster.objects, "the Job is not created again"
    cluster.now += 61
    start_revision(cluster, new)
    assert read_rollout(cluster).weight == 50, "the analysis passes: no gate is left"
    assert read_gate(cluster).evaluated_at == evaluated_at, "the gate is evaluated once"


def test_a_candidate_with_wrong_answers_fails_before_its_first_request_of_a_user() -> None:
    cluster, stable, new = start_comparison()
    end_parity_job(cluster, new, WRONG)
    assert read_weights(cluster) == {stable: 100}
    assert (read_rollout(cluster).phase, read_rollout(cluster).reason) == ("Failed", "AnalysisFailed")
    assert read_rollout(cluster).message == (
        "Gate parity: Agreement 15% over 20 replayed requests is below the minimum of 95%. Largest difference:"
        " requests[1], output 'y' at index 0: 2 by the stable revision, 5 by the candidate (1.5 apart)."
    )
    assert read_gate(cluster).verdict == "Failed", "the verdict stays in the status"
    assert Ref(DEPLOYMENT, new) not in cluster.objects
    assert find_job(new) not in cluster.objects
    assert [event.reason for event in cluster.story][-2:] == ["RolledBack", "AnalysisFailed"]


def test_a_job_that_compares_nothing_promotes_no_candidate() -> None:
    cluster, stable, new = start_comparison(progressDeadline="5m")
    end_parity_job(cluster, new, SILENT)
    assert (read_rollout(cluster).reason, read_gate(cluster).verdict) == ("Inconclusive", "Inconclusive")
    assert "ParityNothingCompared: No answer came." in read_rollout(cluster).message
    assert read_weights(cluster) == {stable: 100}
    cluster.now += 301
    cluster.settle()
    assert (read_rollout(cluster).phase, read_rollout(cluster).reason) == ("Failed", "Inconclusive")


def test_a_job_that_was_given_up_is_inconclusive() -> None:
    cluster, stable, new = start_comparison()
    body = cluster.objects[find_job(new)]
    failed = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "Job was active too long"}
    body["status"] = {"conditions": [failed]}
    cluster.put(body)
    cluster.settle()
    assert read_rollout(cluster).reason == "Inconclusive"
    assert "ParityBroken: The parity Job failed: Job was active too long" in read_gate(cluster).message
    assert read_weights(cluster) == {stable: 100}


def test_the_events_of_a_job_without_a_pod_are_listed_whatever_became_of_the_warm_ups_pod() -> None:
    cluster, _, new = start_comparison()
    assert cluster.decision().wait == START_PATIENCE
    cluster.remove(Ref(POD, f"left-{WARMUP.format_name(new)}-x"))
    cluster.settle()
    assert cluster.decision().wait == START_PATIENCE


def test_a_retry_compares_again_and_ignores_the_pod_of_the_last_try() -> None:
    cluster, stable, new = start_comparison()
    end_parity_job(cluster, new, SILENT)
    left = Ref(POD, f"left-{find_job(new).name}-x")
    late = {**cluster.objects[left], "metadata": {**cluster.objects[left]["metadata"], "uid": "late"}}
    cluster.request(f"abort {cluster.snapshot().service.metadata.generation}")
    cluster.settle()
    assert find_job(new) not in cluster.objects
    cluster.put(late)  # the garbage collector takes its time
    cluster.request(f"retry {cluster.snapshot().service.metadata.generation} now")
    cluster.settle()
    start_revision(cluster, new)
    if find_job(new) not in cluster.objects:  # it is warmed anew first
        end_job(cluster, WARMUP, new, WARM)
    assert find_job(new) in cluster.objects
    assert (read_rollout(cluster).phase, read_rollout(cluster).reason) == ("Progressing", "ComparingAnswers")
    cluster.remove(left)
    end_parity_job(cluster, new, SAME)
    start_revision(cluster, new)
    assert read_weights(cluster) == {stable: 90, new: 10}


def test_a_promotion_past_the_gate_needs_no_second_promotion() -> None:
    cluster, stable, new = start_comparison(onFailure="Pause")
    end_parity_job(cluster, new, WRONG)
    assert (read_rollout(cluster).phase, read_rollout(cluster).reason) == ("Paused", "PausedOnFailure")
    assert read_weights(cluster) == {stable: 100}
    cluster.request(f"promote {cluster.snapshot().service.metadata.generation}")
    start_revision(cluster, new)
    assert read_weights(cluster) == {new: 100}
    assert cluster.status.rollout is None


def test_a_pause_of_a_failed_candidate_changes_nothing() -> None:
    cluster, stable, new = start_comparison(onFailure="Pause")
    end_parity_job(cluster, new, WRONG)
    cluster.request(f"pause {cluster.snapshot().service.metadata.generation}")
    cluster.settle()
    assert (read_rollout(cluster).phase, read_rollout(cluster).reason) == ("Paused", "PausedOnFailure")
    assert read_weights(cluster) == {stable: 100}


def test_a_promotion_by_one_step_past_the_gate_goes_on_by_the_steps() -> None:
    cluster, stable, new = start_comparison(onFailure="Pause")
    end_parity_job(cluster, new, WRONG)
    cluster.request(f"promote {cluster.snapshot().service.metadata.generation}/0")
    cluster.settle()
    cluster.now += 61
    start_revision(cluster, new)
    assert read_weights(cluster) == {stable: 50, new: 50}
    assert read_gate(cluster).verdict == "Passed"
    assert read_gate(cluster).message.startswith("A user promoted the candidate past it. Agreement 15%")


def test_a_promotion_that_ends_a_pause_overrides_no_gate() -> None:
    cluster, stable, new = start_comparison(steps=[{"pause": "Manual"}, {"weight": 10}, {"pause": "Manual"}])
    cluster.request(f"promote {cluster.snapshot().service.metadata.generation}/0")
    start_revision(cluster, new)
    assert (read_rollout(cluster).step, read_rollout(cluster).reason) == (1, "ComparingAnswers")
    assert read_weights(cluster) == {stable: 100}
    end_parity_job(cluster, new, WRONG)
    assert (read_rollout(cluster).phase, read_rollout(cluster).reason) == ("Failed", "AnalysisFailed")


def test_a_promotion_skips_the_wait_for_the_gate() -> None:
    cluster, stable, new = start_comparison()
    cluster.request(f"promote {cluster.snapshot().service.metadata.generation}/0")
    cluster.settle()
    cluster.now += 61
    start_revision(cluster, new)
    assert read_weights(cluster) == {stable: 50, new: 50}
    assert read_gate(cluster).message.startswith("A user promoted the candidate past it. Waits for")
    end_parity_job(cluster, new, WRONG)
    assert read_weights(cluster) == {stable: 50, new: 50}, "a user promoted it once"


def test_a_stable_revision_without_pods_is_not_compared() -> None:
    cluster, stable, new = start_comparison()
    cluster.remove(find_job(new))
    for index in range(2):
        cluster.put_pod(stable, index, ready=False)
    cluster.settle()
    assert find_job(new) not in cluster.objects
    cluster.start_pods(stable)
    cluster.settle()
    assert find_job(new) in cluster.objects


def test_parity_is_evaluated_before_the_other_gates() -> None:
    cluster, stable, new = start_comparison(analysis=[{"successRate": {"min": "99%"}}, {"parity": {}}])
    assert [gate.name for gate in read_rollout(cluster).gates] == ["parity"]
    end_parity_job(cluster, new, SAME)
    start_revision(cluster, new)
    assert [gate.name for gate in read_rollout(cluster).gates] == ["parity", "success-rate"]
    cluster.now += 61
    cluster.settle()
    assert (read_rollout(cluster).reason, read_rollout(cluster).weight) == ("Inconclusive", 10)
    assert read_weights(cluster) == {stable: 90, new: 10}


def test_the_first_revision_of_a_service_is_not_compared() -> None:
    rollout = {"steps": STEPS, "analysis": [{"parity": {}}]}
    cluster = Cluster(build_manifest(warmup={}, rollout=rollout, traffic=GATEWAY))
    cluster.reconcile()
    first = cluster.decision().wanted
    start_revision(cluster, first)
    assert read_weights(cluster) == {first: 100}
    assert find_job(first) not in cluster.objects


def test_a_job_reports_that_the_cluster_refuses_its_pod() -> None:
    cluster, stable, new = start_comparison()
    uid = cluster.objects[find_job(new)]["metadata"]["uid"]
    cluster.warnings[uid] = Finding("FailedCreate", "Error creating: pods is forbidden: exceeded quota: narrow")
    cluster.now += 11
    cluster.settle()
    assert read_rollout(cluster).reason == "JobPodsRefused"
    assert f"Job {find_job(new).name}: Error creating" in read_rollout(cluster).message
    assert read_weights(cluster) == {stable: 100}


def test_a_candidate_beside_a_stable_revision_that_never_answers_goes_on_at_the_deadline() -> None:
    """A rollback would send all requests to pods that do not answer."""
    rollout = {"steps": STEPS, "analysis": [{"parity": {"minAgreement": "95%"}}]}
    cluster = Cluster(build_manifest(minReplicas=2, rollout=rollout, traffic=GATEWAY))
    cluster.reconcile()
    stable = cluster.decision().wanted
    start_revision(cluster, stable)
    crash = {"name": "triton", "ready": False, "restartCount": 5, "lastState": {"terminated": {"exitCode": 1}}}
    for index in range(2):
        cluster.put_pod(stable, index, ready=False, containerStatuses=[crash])
    cluster.edit(uri="s3://models/v2")
    cluster.settle()
    new = cluster.decision().wanted
    for _ in range(3):
        cluster.start_pods(new)
        cluster.accept_routes()
        cluster.settle()
    assert read_rollout(cluster).reason == "ComparingAnswers"
    assert read_gate(cluster).message.startswith("Waits for a ready pod of the stable revision. To skip it, promote")
    assert find_job(new) not in cluster.objects
    cluster.now += 901
    cluster.settle()
    assert read_weights(cluster) == {new: 100}
    gate = read_gate(cluster)
    assert gate.verdict == "Skipped"
    [event] = [event for event in cluster.story if event.reason == "GateSkipped"]
    assert (event.type, event.note) == ("Warning", f"Gate parity of {new}: {gate.message}")
    assert gate.message.startswith("Not applied, since the stable revision has no ready pod. Container triton of")


def test_a_stable_revision_that_answers_before_the_deadline_is_compared() -> None:
    rollout = {"steps": STEPS, "analysis": [{"parity": {"minAgreement": "95%"}}]}
    cluster = Cluster(build_manifest(minReplicas=2, rollout=rollout, traffic=GATEWAY))
    cluster.reconcile()
    stable = cluster.decision().wanted
    start_revision(cluster, stable)
    for index in range(2):
        cluster.put_pod(stable, index, ready=False)
    cluster.edit(uri="s3://models/v2")
    cluster.settle()
    new = cluster.decision().wanted
    for _ in range(3):
        cluster.start_pods(new)
        cluster.settle()
    cluster.now += 600
    cluster.start_pods(stable)
    cluster.settle()
    assert find_job(new) in cluster.objects
    end_parity_job(cluster, new, WRONG)
    assert (read_rollout(cluster).phase, read_rollout(cluster).reason) == ("Failed", "AnalysisFailed")


def test_the_time_that_a_person_holds_a_candidate_does_not_make_the_gate_late() -> None:
    """A short silence of the stable revision after a long pause does not skip the comparison."""
    for by_hand in (True, False):
        cluster, stable, new = start_comparison(steps=STEPS if by_hand else [{"pause": "Manual"}, {"weight": 50}])
        if by_hand:
            cluster.request("pause 2")
        cluster.now += 5000
        cluster.settle()
        for index in range(2):
            cluster.put_pod(stable, index, ready=False)
        cluster.settle()
        assert read_gate(cluster).verdict == "Inconclusive"
        assert read_gate(cluster).message.startswith("Waits for a ready pod of the stable revision")
        assert not read_gate(cluster).evaluated_at
        cluster.start_pods(stable)
        cluster.settle()
        end_parity_job(cluster, new, WRONG)
        assert (read_rollout(cluster).phase, read_rollout(cluster).reason) == ("Failed", "AnalysisFailed")


def test_a_person_who_lets_a_candidate_go_on_gives_the_gate_its_deadline() -> None:
    cluster, stable, new = start_comparison()
    cluster.request("pause 2")
    cluster.settle()
    cluster.now += 5000
    for index in range(2):
        cluster.put_pod(stable, index, ready=False)
    cluster.settle()
    cluster.request("")
    cluster.settle()
    assert read_rollout(cluster).reason == "ComparingAnswers"
    assert not read_gate(cluster).evaluated_at
    cluster.now += 901
    cluster.settle()
    assert read_gate(cluster).verdict == "Skipped"
    assert read_weights(cluster)[new] > 0


@pytest.mark.parametrize("before", [895, 899, 900, 901])
def test_a_stable_revision_that_is_silent_at_the_deadline_is_waited_for(before: int) -> None:
    """The duration of the silence counts, not its time: the stable revision has served until now."""
    cluster, stable, new = start_comparison()
    cluster.now += before
    for index in range(2):
        cluster.put_pod(stable, index, ready=False)
    cluster.settle()
    wait = cluster.decision().wait
    assert wait is not None
    assert 0 < wait <= 900
    cluster.now += 899
    cluster.settle()
    assert (read_rollout(cluster).phase, read_rollout(cluster).reason) == ("Progressing", "ComparingAnswers")
    assert read_gate(cluster).message.startswith("Waits for a ready pod of the stable revision")
    assert not read_gate(cluster).evaluated_at
    assert read_weights(cluster) == {stable: 100}
    if before <= 900:
        cluster.start_pods(stable)
        cluster.settle()
        assert read_rollout(cluster).stable_unavailable_since is None
        assert find_job(new) in cluster.objects
        end_parity_job(cluster, new, WRONG)
        assert (read_rollout(cluster).phase, read_rollout(cluster).reason) == ("Failed", "AnalysisFailed")
    else:
        cluster.now += 2
        cluster.settle()
        assert read_gate(cluster).verdict == "Skipped"
        assert read_weights(cluster)[new] > 0


def test_the_time_that_the_stable_revision_is_silent_does_not_count() -> None:
    cluster, stable, _ = start_comparison()
    cluster.now += 600
    for index in range(2):
        cluster.put_pod(stable, index, ready=False)
    cluster.settle()
    cluster.now += 600
    cluster.start_pods(stable)
    cluster.settle()
    cluster.now += 299
    cluster.settle()
    assert (read_rollout(cluster).phase, read_rollout(cluster).reason) == ("Progressing", "ComparingAnswers")
    cluster.now += 2
    cluster.settle()
    assert (read_rollout(cluster).phase, read_rollout(cluster).reason) == ("Failed", "ProgressDeadlineExceeded")
    assert read_weights(cluster) == {stable: 100}
