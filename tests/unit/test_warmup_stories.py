"""Stories of candidates that are warmed: no share of the requests before the warm-up Job has succeeded."""

from conch.api.kinds import DEPLOYMENT, JOB, Ref
from conch_contract import WarmupReport
from conch_contract.revision_jobs import WARMUP
from tests.unit.simulation import Cluster, build_manifest, end_job, read_weights, start_revision

GATEWAY = {"gateways": [{"name": "public"}], "hostnames": ["magika.example.com"]}
GOOD = WarmupReport(requests=150, p50_milliseconds=4.2, p99_milliseconds=9.1, stable=True, reason="WarmedUp")
WRONG = WarmupReport(requests=1, failures=1, reason="WarmupAnswersWrong", message="Output y[0] is 2, 3 was expected.")


def start_warm_up() -> tuple[Cluster, str, str]:
    """Start a candidate, its pods and its warm-up Job."""
    steps = [{"weight": 50}, {"pause": "Manual"}]
    cluster = Cluster(build_manifest(minReplicas=2, warmup={}, rollout={"steps": steps}, traffic=GATEWAY))
    cluster.reconcile()
    stable = cluster.decision().wanted
    start_revision(cluster, stable)
    assert find_job(cluster, stable) not in cluster.objects, "without users there is no warm-up"
    cluster.edit(uri="s3://models/v2")
    cluster.settle()
    new = cluster.decision().wanted
    assert find_job(cluster, new) not in cluster.objects, "the candidate has no pod yet"
    start_revision(cluster, new)
    assert "--pods=1" in cluster.objects[find_job(cluster, new)]["spec"]["template"]["spec"]["containers"][0]["command"]
    assert read_weights(cluster) == {stable: 100}
    assert cluster.status.rollout is not None
    assert cluster.status.rollout.reason == "WarmingUp"
    return cluster, stable, new


def find_job(cluster: Cluster, revision: str) -> Ref:
    del cluster
    return Ref(JOB, WARMUP.format_name(revision))


def test_a_candidate_gets_requests_after_its_warm_up_and_the_result_outlives_the_job() -> None:
    cluster, stable, new = start_warm_up()
    end_job(cluster, WARMUP, new, GOOD)
    assert read_weights(cluster) == {stable: 50, new: 50}
    cluster.remove(find_job(cluster, new))
    for ref in [ref for ref in cluster.objects if ref.name.endswith("-warmup-x")]:
        cluster.remove(ref)
    cluster.settle()
    assert find_job(cluster, new) not in cluster.objects, "the Job is not created again"
    revision = cluster.status.revision(new)
    assert revision is not None
    assert revision.warmup is not None
    assert (revision.warmup.requests, revision.warmup.p99, revision.warmup.reason) == (150, "9.1ms", "WarmedUp")


def test_wrong_answers_end_the_rollout_before_a_user_sees_one() -> None:
    cluster, stable, new = start_warm_up()
    end_job(cluster, WARMUP, new, WRONG)
    assert read_weights(cluster) == {stable: 100}
    assert Ref(DEPLOYMENT, new) not in cluster.objects
    assert find_job(cluster, new) not in cluster.objects
    assert cluster.condition("Ready") == ("False", "WarmupAnswersWrong")
    ready = cluster.status.condition("Ready")
    assert ready is not None
    assert WRONG.message in ready.message


def test_a_job_that_was_given_up_ends_the_rollout() -> None:
    cluster, stable, new = start_warm_up()
    body = cluster.objects[find_job(cluster, new)]
    failed = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "Job was active too long"}
    body["status"] = {"conditions": [failed]}
    cluster.put(body)
    cluster.settle()
    assert read_weights(cluster) == {stable: 100}
    assert cluster.condition("Stalled") == ("True", "WarmupBroken")


def test_a_retry_warms_up_again() -> None:
    cluster, stable, new = start_warm_up()
    end_job(cluster, WARMUP, new, WRONG)
    assert find_job(cluster, new) not in cluster.objects
    # The garbage collector has not taken the Job's pod yet: its report is of the last try.
    cluster.request(f"retry {cluster.snapshot().service.metadata.generation} now")
    cluster.settle()
    start_revision(cluster, new)
    assert find_job(cluster, new) in cluster.objects
    assert read_weights(cluster) == {stable: 100}
