"""What a warm-up changes in what is made: the manifest, the mounts, the Job; and what is read of its end."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from conch.api import InferenceService
from conch.api.meta import selector
from conch.decide.naming import revision_name
from conch.desire import PodDefaults, new_revision
from conch.desire.warmup import warmup_job
from conch.observe import Revision
from conch.observe.cache_fields import trim
from conch.observe.warmup import report_of, warmups
from conch_contract import ModelManifest, Warmup, WarmupReport, WarmupRequest, names
from tests.unit.simulation import manifest

GOLDEN = Path(__file__).parent / "golden" / "jobs"
POD = {"nodeSelector": {"gpu": "yes"}, "labels": {"team": "vision"}, "imagePullSecrets": [{"name": "registry"}]}
PLACES: dict[str, dict[str, Any]] = {
    "config-map": {"configMapRef": {"name": "wake"}},
    "folder": {"path": "warmup"},
    "made": {},
}


def service(warmup: dict[str, Any] | None, **predictor: Any) -> InferenceService:
    said = predictor if warmup is None else {**predictor, "warmup": warmup}
    return InferenceService.parse(manifest("s3://models/magika", **said))


def revision(asked: InferenceService) -> Revision:
    name = revision_name(asked.metadata.name, asked.spec.predictor)
    return new_revision(asked, name, 1, PodDefaults("conch/serving:1"))


def job(asked: InferenceService, pods: int = 2) -> dict[str, Any]:
    made = revision(asked)
    return warmup_job(asked, made.name, dict(made.template), made.manifest, pods)


@pytest.mark.parametrize("place", PLACES)
def test_the_job_word_for_word(place: str) -> None:
    text = yaml.dump(job(service(PLACES[place], pod=POD)), sort_keys=True, width=120)
    golden = GOLDEN / f"warmup-{place}.yaml"
    if os.environ.get("GOLDEN") == "write":
        golden.write_text(text)
    assert text == golden.read_text()


def test_nothing_that_selects_serving_pods_selects_the_jobs() -> None:
    asked = service({})
    made = job(asked)
    labels = made["spec"]["template"]["metadata"]["labels"]
    for chosen in (selector(asked), selector(asked, revision(asked).name)):
        assert not chosen.items() <= labels.items()
    assert names.LABEL_REVISION not in labels
    assert labels[names.LABEL_WARMUP] == revision(asked).name


def test_the_job_has_no_api_credentials_and_is_restricted() -> None:
    pod = job(service({}))["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_a_claim_is_mounted_only_where_requests_are_read_from_it() -> None:
    def volumes(warmup: dict[str, Any]) -> set[str]:
        spec = InferenceService.parse(manifest("pvc://claim/m", warmup=warmup))
        return {volume["name"] for volume in job(spec)["spec"]["template"]["spec"]["volumes"]}

    assert "conch-claim" not in volumes({})
    assert "conch-claim" in volumes({"path": "warmup"})


def test_the_job_goes_where_the_pods_go_but_keeps_away_from_none() -> None:
    nodes: dict[str, Any] = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}
    apart: dict[str, Any] = {"requiredDuringSchedulingIgnoredDuringExecution": []}
    asked = service({}, pod={"affinity": {"nodeAffinity": nodes, "podAntiAffinity": apart}})
    assert job(asked)["spec"]["template"]["spec"]["affinity"] == {"nodeAffinity": nodes}


def test_the_name_of_a_revision_knows_of_a_warmup_only_where_there_is_one() -> None:
    without, bare, more = service(None), service({}), service({"timeout": "1m"})
    assert len({revision(each).name for each in (without, bare, more)}) == 3
    assert '"warmup"' not in revision(without).manifest
    assert '"warmup":{}' in revision(bare).manifest


def test_the_users_words_become_the_contracts() -> None:
    asked = service(
        {
            "requests": [
                {
                    "name": "one",
                    "inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [[1.5], [2]]}],
                    "parameters": {"priority": 1},
                    "expected": [{"name": "y", "data": [3]}],
                }
            ],
            "tolerance": "0.5%",
            "stable": {"percentile": 95, "within": "10%"},
            "timeout": "90s",
        }
    )
    [model] = ModelManifest.model_validate_json(revision(asked).manifest).models
    x = {"name": "x", "datatype": "FP32", "shape": [2], "data": [[1.5], [2]]}
    assert model.warmup == Warmup(
        requests=(
            WarmupRequest(
                name="one",
                body={"inputs": [x], "parameters": {"priority": 1}},
                expected=({"name": "y", "data": [3]},),
            ),
        ),
        tolerance=0.005,
        percentile=95,
        within=0.1,
        timeout_seconds=90,
    )


def test_the_defaults_of_both_sides_are_the_same() -> None:
    [model] = ModelManifest.model_validate_json(revision(service({})).manifest).models
    assert model.warmup == Warmup()


def test_a_config_map_is_mounted_for_the_agent_and_may_be_missing() -> None:
    template = revision(service({"configMapRef": {"name": "wake"}})).template
    [agent] = template["spec"]["initContainers"]
    assert {"name": "conch-warmup", "mountPath": "/conch/warmup/wake", "readOnly": True} in agent["volumeMounts"]
    volume = {"name": "conch-warmup", "configMap": {"name": "wake", "optional": True}}
    assert volume in template["spec"]["volumes"]


def ended(message: str, code: int = 0, reason: str = "Completed") -> dict[str, Any]:
    """Return the pod of a Job that ended."""
    state = {"terminated": {"exitCode": code, "reason": reason, "message": message}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "labels": {names.LABEL_WARMUP: "m-1"}, "ownerReferences": [{"uid": "job"}]},
        "status": {"phase": "Succeeded", "containerStatuses": [{"name": names.WARMUP_CONTAINER, "state": state}]},
    }


def test_a_report_is_read_off_the_pod_trimmed_or_not() -> None:
    report = WarmupReport(requests=3, stable=True, reason="WarmedUp")
    pod = ended(report.to_json())
    assert report_of(pod) == report_of(trim(pod)) == report


def test_an_end_without_a_report_says_how_it_ended() -> None:
    report = report_of(ended("Traceback: no", 137, "OOMKilled"))
    assert report
    assert report.reason == "WarmupBroken"
    assert "OOMKilled, exit code 137" in report.message
    assert report.message.endswith("The end of its log: Traceback: no")


def test_a_pod_that_runs_or_serves_has_none() -> None:
    running = ended("")
    running["status"]["containerStatuses"][0]["state"] = {"running": {}}
    assert report_of(running) is None
    serving = ended("")
    serving["metadata"]["labels"] = {names.LABEL_REVISION: "m-1"}
    assert report_of(serving) is None


JOB: dict[str, Any] = {"kind": "Job", "metadata": {"uid": "job", "labels": {names.LABEL_REVISION: "m-1"}}}
GOING = {**JOB, "metadata": {**JOB["metadata"], "deletionTimestamp": "now"}}
FAILED = {
    **JOB,
    "status": {"conditions": [{"type": "Failed", "status": "True", "message": "Job has reached its backoff limit"}]},
}


@pytest.mark.parametrize(
    ("reasons", "jobs", "says"),
    [
        (["WarmedUp"], [JOB], "WarmedUp"),
        (["WarmupFailed"], [JOB], "WarmupFailed"),
        (["WarmupUnreachable"], [JOB], None),
        (["WarmupUnreachable", "WarmedUp"], [JOB], "WarmedUp"),
        (["WarmedUp", "WarmupUnreachable"], [JOB], "WarmedUp"),
        (["WarmupUnreachable"], [FAILED], "WarmupUnreachable"),
        ([], [FAILED], "WarmupBroken"),
        (["WarmupFailed"], [], None),
        (["WarmupFailed"], [GOING], None),
    ],
)
def test_what_a_retry_may_cure_is_final_when_the_job_is(
    reasons: list[str], jobs: list[dict[str, Any]], says: str | None
) -> None:
    told = warmups([ended(WarmupReport(reason=reason).to_json()) for reason in reasons], jobs)
    assert (told["m-1"].reason if told else None) == says
