"""The parity Job, as in its golden files, and the evaluation of its report."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from conch.api import InferenceService
from conch.api.analysis import GateStatus, named
from conch.decide.gates import JobMetric, list_job_metrics
from conch.decide.naming import revision_name
from conch.decide.state import RolloutState
from conch.desire import PodDefaults, build_revision
from conch.desire.jobs import build_revision_job
from conch.desire.parity import build_program, to_contract
from conch.observe import Revision
from conch_contract import Disagreement, Parity, ParityReport
from conch_contract.revision_jobs import PARITY
from tests.unit.simulation import build_manifest

GOLDEN = Path(__file__).parent / "golden" / "jobs"
POD = {"nodeSelector": {"gpu": "yes"}, "imagePullSecrets": [{"name": "registry"}]}
NOW = 1_000_000.0


def build_service(parity: dict[str, Any], **predictor: Any) -> InferenceService:
    return InferenceService.parse(
        build_manifest("s3://models/magika", rollout={"analysis": [{"parity": parity}]}, **{"warmup": {}, **predictor})
    )


def render_revision(isvc: InferenceService) -> Revision:
    name = revision_name(isvc.metadata.name, isvc.spec.predictor)
    return build_revision(isvc, name, 1, PodDefaults("conch/serving:1"))


def build_metric(parity: dict[str, Any]) -> JobMetric[Any, Any]:
    [found] = list_job_metrics(named(build_service(parity).spec.rollout.analysis))
    return found


def build_job(parity: dict[str, Any], **predictor: Any) -> dict[str, Any]:
    isvc, spec = build_service(parity, **predictor), build_metric(parity).spec
    revision = render_revision(isvc)
    return build_revision_job(PARITY, isvc, revision, build_program(isvc, revision, "magika-stable", "magika", spec))


@pytest.mark.parametrize("place", ["made", "config-map"])
def test_the_parity_job_is_its_golden_file(place: str) -> None:
    warmup = {"configMapRef": {"name": "wake"}} if place == "config-map" else {}
    text = yaml.dump(build_job({"compare": {"cosine": "0.999"}}, warmup=warmup, pod=POD), sort_keys=True, width=120)
    golden = GOLDEN / f"parity-{place}.yaml"
    if os.environ.get("GOLDEN") == "write":
        golden.write_text(text)
    assert text == golden.read_text()


def test_kubernetes_expands_nothing_in_an_outputs_name() -> None:
    [container] = build_job({"outputs": ["$(HOME)"]})["spec"]["template"]["spec"]["containers"]
    assert "$$(HOME)" in container["command"][-1]


@pytest.mark.parametrize(
    ("field", "contract"),
    [
        ({}, Parity()),
        ({"compare": {"tolerance": "5%"}, "requests": 50}, Parity(bound=0.05, requests=50)),
        ({"compare": {"cosine": "0.99"}, "outputs": ["y"]}, Parity(method="cosine", bound=0.99, outputs=("y",))),
        ({"compare": {"cosine": 1}}, Parity(method="cosine", bound=1)),
    ],
)
def test_the_parity_gate_becomes_the_contract_of_the_job(field: dict[str, Any], contract: Parity) -> None:
    assert to_contract(build_metric(field).spec) == contract


def test_argmax_has_no_bound() -> None:
    assert to_contract(build_metric({"compare": {"argmax": {}}}).spec).method == "argmax"


def report(compared: int, agreed: int, **more: Any) -> ParityReport:
    return ParityReport(requests=20, compared=compared, agreed=agreed, reason="Compared", **more)


WORST = Disagreement(request="requests[0]", stable="an answer", candidate="shape mismatch")


@pytest.mark.parametrize(
    ("minimum", "answer", "verdict", "value", "words"),
    [
        (
            "99%",
            report(20, 20),
            "Passed",
            "100%",
            "Agreement 100% over 20 replayed requests meets the minimum of 99%.",
        ),
        ("95%", report(20, 19), "Passed", "95%", "95% over 20"),
        ("95.1%", report(20, 19), "Failed", "95%", "95% over 20"),
        ("66.67%", report(3, 2), "Failed", "66.6666%", "17 of 20 were left out"),
        ("99%", report(20, 0, worst=WORST), "Failed", "0%", "Largest difference: requests[0]: an answer by"),
        (
            "99%",
            report(20, 0, worst=WORST.model_copy(update={"step": "post"})),
            "Failed",
            "0%",
            "shape mismatch by the candidate; the step 'post' is the first that answers the same inputs differently.",
        ),
        ("99%", report(0, 0), "Inconclusive", "", "Compared"),
        ("99%", ParityReport(reason="ParityBroken", message="Why."), "Inconclusive", "", "ParityBroken: Why."),
        ("99%", None, "Inconclusive", "", "Waits for the parity Job"),
    ],
)
def test_the_agreement_decides_on_the_verdict(
    minimum: str, answer: ParityReport | None, verdict: str, value: str, words: str
) -> None:
    status = build_metric({"minAgreement": minimum}).evaluate(answer, RolloutState.begin("m-1", 1, NOW), NOW)
    assert (status.verdict, status.value) == (verdict, value)
    assert words in status.message
    assert bool(status.evaluated_at) == (answer is not None), "a report ends the evaluation"


def test_a_verdict_is_final() -> None:
    known = GateStatus(name="parity", verdict="Failed", evaluated_at="2026-01-01T00:00:00Z", message="Once.")
    state = replace(RolloutState.begin("m-1", 1, NOW), gates=(known,))
    assert build_metric({}).evaluate(report(20, 20), state, NOW) == known
    assert build_metric({}).evaluate(None, state, NOW) == known


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (GateStatus(name="parity", message="Waits."), "ComparingAnswers"),
        (GateStatus(name="parity", evaluated_at="2026-01-01T00:00:00Z", message="Nothing."), "Inconclusive"),
        (GateStatus(name="parity", verdict="Passed"), None),
        (GateStatus(name="parity", verdict="Failed"), None),
    ],
)
def test_a_weight_waits_for_the_parity_gate(status: GateStatus, reason: str | None) -> None:
    found = build_metric({}).find_wait((status,))
    assert (found.reason if found else None) == reason


@pytest.mark.parametrize("verdict", ["Passed", "Skipped", "Failed"])
def test_a_result_of_an_earlier_version_with_its_time_in_another_field_is_final(verdict: str) -> None:
    known = GateStatus(name="parity", verdict=verdict, message="Once.")
    state = replace(RolloutState.begin("m-1", 1, NOW), gates=(known,))
    assert build_metric({}).evaluate(report(20, 0), state, NOW) == known
