"""The report of a model, as a function of a snapshot of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from conch_agent.model_report import ModelSnapshot, build_report
from conch_agent.reasons import Failure, Reason
from conch_agent.repository_model import RepositoryModel
from conch_agent.triton import Version
from conch_contract import ModelSource, ModelState

LOAD_FAILED = Failure(Reason.LOAD_FAILED, "It has no backend.")
CRASH = Failure(Reason.LOAD_CRASHED, "It ended Triton.")
OUTAGE = Failure(Reason.TRITON_UNREACHABLE, "Waiting for Triton.")
OPEN = Failure(Reason.CONTROL_OPEN, "Control is open.")
MODEL = RepositoryModel("a", "b", "sha256:c", 1, (1,), 2.0, "boot", object_versions={"": "v1"})
READY = ModelSnapshot(
    source=ModelSource(name="m", format="onnx", storage_uri="s3://b/m"),
    state=ModelState.READY,
    failure=None,
    left_out=None,
    crash=None,
    suspicion="",
    outage=None,
    versions=(Version(1, "READY", ""),),
    model=MODEL,
    bytes_fetched=1,
    bytes_total=1,
    fetch_seconds=2.0,
    load_seconds=0.12345,
    missing=(),
    names=("m",),
    reports_unused_cache=False,
    unknown_trace_rates=(),
    has_unloaded=False,
    warmup=None,
    warmup_digest="",
    changed_warmup="",
    config=(),
    source_warning=None,
)


@pytest.mark.parametrize(
    ("snapshot", "state", "reason"),
    [
        (READY, "Ready", ""),
        (replace(READY, state=ModelState.FAILED, failure=LOAD_FAILED), "Failed", "LoadFailed"),
        (replace(READY, outage=OUTAGE), "Loading", "TritonUnreachable"),
        (replace(READY, outage=OPEN), "Failed", "ControlOpen"),
        (replace(READY, outage=OUTAGE, state=ModelState.FETCHING), "Fetching", ""),
        (
            replace(READY, outage=OUTAGE, model=None, state=ModelState.FAILED, failure=LOAD_FAILED),
            "Failed",
            "LoadFailed",
        ),
        (replace(READY, left_out=LOAD_FAILED, state=ModelState.LOADING), "Failed", "LoadFailed"),
        (replace(READY, crash=CRASH, outage=OUTAGE, left_out=LOAD_FAILED), "Failed", "LoadCrashed"),
    ],
)
def test_a_failure_of_triton_comes_before_that_of_the_model(snapshot: ModelSnapshot, state: str, reason: str) -> None:
    report = build_report(snapshot)
    assert (report.state, report.reason) == (state, reason)


@pytest.mark.parametrize(
    ("snapshot", "warnings"),
    [
        (READY, []),
        (replace(READY, left_out=LOAD_FAILED, has_unloaded=True), ["ModelNotServed"]),
        (replace(READY, model=None, has_unloaded=True), []),
        (replace(READY, has_unloaded=True), ["MemoryHoldsOne"]),
        (replace(READY, missing=("other",)), ["CalleeMissing"]),
        (replace(READY, suspicion="One of these ends Triton."), ["CrashSuspected"]),
        (replace(READY, changed_warmup="requests"), ["WarmupChanged"]),
        (replace(READY, model=replace(MODEL, response_cache=True)), ["ResponseCacheOff"]),
        (replace(READY, unknown_trace_rates=("other",)), ["TraceRateUnused"]),
        (replace(READY, reports_unused_cache=True), []),
        (
            replace(
                READY, reports_unused_cache=True, source=READY.source.model_copy(update={"has_response_cache": True})
            ),
            ["ResponseCacheOff"],
        ),
    ],
)
def test_the_warnings_of_a_model(snapshot: ModelSnapshot, warnings: list[str]) -> None:
    assert [warning.reason for warning in build_report(snapshot).warnings] == warnings


def test_the_warning_about_a_trace_rate_names_the_models() -> None:
    snapshot = replace(READY, unknown_trace_rates=("c", "b"), names=[f"m{index}" for index in range(10)])
    [warning] = build_report(snapshot).warnings
    assert warning.message == (
        "spec.predictor.triton.tracing.modelRates has b and c, and the pod no model of this name; it has m0, m1, m2,"
        " m3, m4, m5, m6 and m7 and 2 more. Correct the name, or remove it."
    )


def test_versions_without_a_state_are_not_reported_and_long_messages_are_cut() -> None:
    versions = (
        Version(1, "READY", ""),
        Version(2, "UNAVAILABLE", "x" * 3000),
        Version(3, "", ""),
        Version(0, "READY", ""),
    )
    report = build_report(replace(READY, versions=versions))
    assert [(version.version, version.state) for version in report.versions] == [(1, "Ready"), (2, "Failed")]
    assert len(report.versions[1].reason) == 2000


def test_object_versions_are_reported_until_the_manifest_has_them() -> None:
    assert build_report(READY).object_versions == {"": "v1"}
    pinned = READY.source.model_copy(update={"object_versions": {"": "v1"}})
    assert build_report(replace(READY, source=pinned)).object_versions == {}
