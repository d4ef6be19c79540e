"""What `kubectl conch promote | pause | resume | abort | retry` request, and when they refuse."""

from collections.abc import Callable
from typing import Any

import pytest

from conch.api import InferenceService
from conch.cli.actions import RequestUpdate, abort, pause, promote, resume, retry
from conch.cli.options import CommandError
from conch.cli.printing import format_plain
from conch.cli.status import build_status_text, build_status_value
from conch.decide.rollout import Request
from tests.unit.simulation import GPU, Cluster, build_manifest

STEPS = [{"weight": 0}, {"pause": "Manual"}, {"weight": 50}, {"pause": "5m"}, {"weight": 100}]
NOW = 1_000_000.25


def start_rollout() -> Cluster:
    """Start a rollout that waits for a user at step 1."""
    cluster = Cluster(build_manifest(rollout={"steps": STEPS}, traffic={"split": "Replicas"}))
    cluster.reconcile()
    cluster.start_pods(cluster.decision().wanted)
    cluster.settle()
    cluster.edit(uri="s3://models/v2")
    cluster.settle()
    cluster.start_pods(cluster.decision().wanted)
    cluster.settle()
    return cluster


def read_service(cluster: Cluster) -> InferenceService:
    return cluster.snapshot().service


def act(cluster: Cluster, update: RequestUpdate) -> str:
    """Write the annotation as the command does, and reconcile. Return the reason of the rollout."""
    cluster.request(update.request or "")
    cluster.settle()
    rollout = cluster.status.rollout
    return rollout.reason if rollout else ""


def test_promote_names_the_step_that_the_person_saw() -> None:
    cluster = start_rollout()
    update = promote(read_service(cluster), NOW, full=False)
    assert update.request == "promote 2/1 1970-01-12T13:46:40.250000Z"
    assert "continues from step 1 (pause: Manual)" in update.message
    assert act(cluster, update) == "Paused"
    assert promote(read_service(cluster), NOW, full=True).request == "promote 2 1970-01-12T13:46:40.250000Z"


def test_the_operator_parses_every_request_of_the_cli() -> None:
    cluster = start_rollout()
    for update in (
        promote(read_service(cluster), NOW, full=True),
        pause(read_service(cluster), NOW),
        abort(read_service(cluster), NOW),
    ):
        cluster.request(update.request or "")
        request = Request.of(read_service(cluster))
        assert request is not None
        assert request.text == update.request


def test_pause_and_resume_leave_the_rollout_where_it_was() -> None:
    cluster = start_rollout()
    assert act(cluster, pause(read_service(cluster), NOW)) == "PausedByUser"
    with pytest.raises(CommandError, match="is paused already; continue with: kubectl conch resume magika -n demo"):
        pause(read_service(cluster), NOW)
    update = resume(read_service(cluster))
    assert update.request is None
    assert act(cluster, update) == "WaitsForPromotion"


def test_retry_requires_an_aborted_rollout() -> None:
    cluster = start_rollout()
    assert act(cluster, abort(read_service(cluster), NOW)) == "Aborted"
    for refused in (abort, pause):
        with pytest.raises(
            CommandError, match=r"failed \(Aborted\), and .* keeps serving; retry it with: kubectl conch retry"
        ):
            refused(read_service(cluster), NOW)
    assert act(cluster, retry(read_service(cluster), NOW)) == "MinimumReplicasUnavailable", "its pods were deleted"
    with pytest.raises(CommandError, match="has not failed"):
        retry(read_service(cluster), NOW)


COMMANDS: list[Callable[[InferenceService], RequestUpdate]] = [
    lambda service: promote(service, NOW, full=False),
    lambda service: pause(service, NOW),
    resume,
    lambda service: abort(service, NOW),
    lambda service: retry(service, NOW),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_request_requires_a_rollout(command: Callable[[InferenceService], RequestUpdate]) -> None:
    cluster = Cluster(build_manifest())
    cluster.reconcile()
    cluster.start_pods(cluster.decision().wanted)
    cluster.settle()
    with pytest.raises(
        CommandError, match=r"no rollout of magika is in progress: magika-\w+ serves; see: kubectl conch status"
    ):
        command(read_service(cluster))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_status_of_an_earlier_generation_is_no_ground_for_a_request(
    command: Callable[[InferenceService], RequestUpdate],
) -> None:
    cluster = start_rollout()
    cluster.edit(minReplicas=2)
    with pytest.raises(CommandError, match=r"has not observed the latest change of magika \(generation 3\) yet"):
        command(read_service(cluster))


def test_resume_of_a_rollout_that_is_not_paused_by_a_user_names_the_command_to_use() -> None:
    with pytest.raises(
        CommandError, match=r"is not paused by a user: it waits for WaitsForPromotion; .* kubectl conch promote"
    ):
        resume(read_service(start_rollout()))


def test_a_request_can_be_repeated() -> None:
    cluster = start_rollout()
    first, second = abort(read_service(cluster), NOW), abort(read_service(cluster), NOW + 0.001)
    assert first.request != second.request


def test_the_status_shows_the_step_the_wait_and_the_next_command() -> None:
    cluster = start_rollout()
    text = format_plain(build_status_text(read_service(cluster), cluster.now + 125))
    stable, candidate = cluster.status.stable, cluster.status.candidate
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == "demo/magika, generation 2: Paused"
    assert f"Rollout of {candidate}: Paused, step 1 of 5 (pause: Manual) since 2m, 0 % of the requests" in lines
    assert any(line.startswith("WaitsForPromotion: Step 1 is a pause that a person ends") for line in lines)
    assert "Actions: promote it, or abort it: kubectl conch promote magika -n demo" in lines
    assert f"1 {stable} stable Ready 100 % 1/1 magika 1" in lines
    assert f"2 {candidate} candidate Ready 0 % 1/1 magika 1" in lines


def test_the_status_as_json_is_the_status_with_name_namespace_and_generation() -> None:
    cluster = start_rollout()
    value: dict[str, Any] = build_status_value(read_service(cluster))
    assert value["status"] == cluster.status.to_wire()
    assert value["steps"] == STEPS
    assert (value["generation"], value["request"]) == (2, None)


def test_the_status_of_a_service_without_conditions_names_the_operator() -> None:
    text = format_plain(build_status_text(InferenceService.parse(build_manifest()), NOW))
    assert text == "demo/magika, generation 1: not observed by the operator yet\n"


def test_promote_overrides_the_capacity_check_and_then_advances_by_steps() -> None:
    cluster = Cluster(build_manifest(rollout={"steps": [{"pause": "Manual"}]}, resources={"limits": {GPU: 1}}))
    cluster.gpus = 1
    cluster.reconcile()
    cluster.start_pods(cluster.decision().wanted)
    cluster.settle()
    cluster.edit(uri="s3://models/v2")
    cluster.settle()
    text = format_plain(build_status_text(read_service(cluster), cluster.now))
    assert "InsufficientGPU: Revision magika-" in text
    assert "promote it, which starts its pods anyway, or abort it: kubectl conch promote magika" in text
    request = promote(read_service(cluster), NOW, full=False)
    assert "starts its pods although the GPUs do not suffice" in request.message
    assert act(cluster, request) == "WaitsForPromotion"
    assert "continues from step 0 (pause: Manual)" in promote(read_service(cluster), NOW, full=False).message
