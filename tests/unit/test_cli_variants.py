"""`kubectl conch` with rollouts of variants: requests, status and plan."""

import re
from typing import Any

import pytest

from conch.api import InferenceService
from conch.api.kinds import INFERENCE_SERVICE, Ref
from conch.cli.actions import abort, pause, promote, resume, retry
from conch.cli.options import CommandError
from conch.cli.plan_output import build_plan_text, build_plan_value
from conch.cli.preview import OperatorSettings, build_preview
from conch.cli.printing import format_plain
from conch.cli.status import build_status_text, build_status_value
from conch.cli.track import describe_requests, select_track
from conch.plan import Apply
from tests.unit.simulation import DEFAULTS, KEY, Cluster
from tests.unit.test_cli_plan import is_golden
from tests.unit.test_variant_stories import (
    MATCHED,
    MIRRORED,
    WEIGHTED,
    edit_variant,
    start_service_with_variants,
    start_variant,
)

STEPS = [{"weight": 5}, {"pause": "Manual"}]
NEXT = {"model": {"storageUri": "s3://models/int8-v2"}}
NOW = 1_000_000.25


def start_rollout(*others: dict[str, Any]) -> Cluster:
    """Start a rollout of variant int8 that waits for a user at step 1; the predictor has none."""
    cluster = start_service_with_variants(WEIGHTED, *others, steps=STEPS)
    for variant in (WEIGHTED, *others):
        start_variant(cluster, variant["name"])
    edit_variant(cluster, predictor=NEXT)
    start_variant(cluster, "int8")
    return cluster


def read_track(cluster: Cluster, variant: str | None = None) -> InferenceService:
    return select_track(cluster.snapshot().service, variant)


def read_reason(cluster: Cluster, variant: str | None = None) -> str:
    rollout = read_track(cluster, variant).status.rollout
    return rollout.reason if rollout else ""


def test_a_request_names_the_variant_and_changes_only_its_rollout() -> None:
    cluster = start_rollout()
    cluster.edit(uri="s3://models/v2")
    start_variant(cluster)
    update = pause(read_track(cluster, "int8"), NOW)
    assert update.request == "pause 3 1970-01-12T13:46:40.250000Z"
    assert update.message.endswith("Continue with: kubectl conch resume magika -n demo --variant int8")
    cluster.request(update.request or "", "int8")
    start_variant(cluster, "int8")
    assert (read_reason(cluster, "int8"), read_reason(cluster)) == ("PausedByUser", "WaitsForPromotion")
    assert resume(read_track(cluster, "int8")).message.startswith("variant int8 of magika is resumed")
    with pytest.raises(CommandError, match="is not paused by a user"):
        resume(read_track(cluster))
    update = promote(read_track(cluster, "int8"), NOW, full=False)
    assert update.request == "promote 3/1 1970-01-12T13:46:40.250000Z"
    cluster.request(update.request or "", "int8")
    start_variant(cluster, "int8")
    assert (read_reason(cluster, "int8"), cluster.status.candidate) == ("", cluster.decision().wanted)


def test_an_aborted_rollout_of_a_variant_can_be_retried() -> None:
    cluster = start_rollout()
    stable = read_track(cluster, "int8").status.stable
    assert "gets all requests of variant int8 once" in promote(read_track(cluster, "int8"), NOW, full=True).message
    update = abort(read_track(cluster, "int8"), NOW)
    assert f"all requests of variant int8 return to {stable}." in update.message
    assert "kubectl conch retry magika -n demo --variant int8" in update.message
    cluster.request(update.request or "", "int8")
    cluster.settle()
    with pytest.raises(CommandError, match=r"retry magika -n demo --variant int8, or change variant int8"):
        promote(read_track(cluster, "int8"), NOW, full=False)
    cluster.request(retry(read_track(cluster, "int8"), NOW).request or "", "int8")
    start_variant(cluster, "int8")
    assert read_reason(cluster, "int8") == "WaitsForPromotion"


def test_an_unknown_variant_is_refused_with_the_names_of_the_variants() -> None:
    with pytest.raises(
        CommandError, match=r"magika has no variant 'int4' \(there are: int8, beta\); see: kubectl conch st"
    ):
        read_track(start_rollout(MATCHED), "int4")
    with pytest.raises(CommandError, match=r"magika has no variant 'int8' \(it has none; leave out --variant\)"):
        read_track(start_service_with_variants(), "int8")


def test_a_request_without_a_variant_names_the_variants_with_a_rollout() -> None:
    cluster = start_rollout(MATCHED)
    message = (
        "the predictor of magika has no rollout, but its variants have: int8 (Paused); select one, such as"
        " --variant int8"
    )
    with pytest.raises(CommandError, match=re.escape(message)):
        promote(read_track(cluster), NOW, full=False)
    with pytest.raises(
        CommandError, match=r"no rollout of variant beta of magika is in progress: magika-beta-\w+ serves"
    ):
        promote(read_track(cluster, "beta"), NOW, full=False)


def test_the_requests_of_a_variant_are_described_in_a_sentence() -> None:
    two = {"headers": [{"name": "x-variant", "value": "b"}, {"name": "x-team", "value": "search"}]}
    body = read_track(
        start_service_with_variants(WEIGHTED, {**MATCHED, "match": [*MATCHED["match"], two]}, MIRRORED, {"name": "own"})
    )
    assert [describe_requests(variant) for variant in body.spec.variants] == [
        "weight 20 %",
        "match x-variant: beta, or x-variant: b and x-team: search",
        "mirror 25 %",
        "own Service only",
    ]


def test_the_status_shows_each_variant_and_its_rollout() -> None:
    cluster = start_rollout(MATCHED)
    edit_variant(cluster, weight=30)
    start_variant(cluster, "int8")
    text = format_plain(build_status_text(cluster.snapshot().service, cluster.now + 60))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    int8, beta = (read_track(cluster, name).status for name in ("int8", "beta"))
    assert "VARIANT REQUESTS STABLE CANDIDATE STEP READY WAITS FOR" in lines
    assert f"int8 weight 30 % {int8.stable} {int8.candidate} 1 of 3 3/3 WaitsForPromotion" in lines
    assert f"beta match x-variant: beta {beta.stable} - - 2/2 -" in lines
    assert any(
        line.startswith(f"Rollout of {int8.candidate}: Paused, step 1 of 3 (pause: Manual)")
        and line.endswith("5 % of the requests of variant int8")
        for line in lines
    )
    assert "Actions: promote it, or abort it: kubectl conch promote magika -n demo --variant int8" in lines
    assert "VARIANT NUMBER REVISION ROLE PHASE WEIGHT READY MODEL" in lines
    assert f"- 1 {cluster.status.stable} stable Ready 100 % 2/2 magika 1" in lines
    assert f"int8 2 {int8.candidate} candidate Ready 5 % 1/1 magika 1" in lines
    value = build_status_value(cluster.snapshot().service)
    assert value["variants"] == [{"name": "int8", "weight": 30}, {"name": "beta", "match": MATCHED["match"]}]
    assert [variant["name"] for variant in value["status"]["variants"]] == ["int8", "beta"]


def test_the_status_shows_the_wait_of_a_variant_that_is_not_ready() -> None:
    cluster = start_service_with_variants({"name": "own"})
    wanted = cluster.decision("own").wanted
    text = format_plain(build_status_text(cluster.snapshot().service, cluster.now))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert f"own own Service only - - - 0/2 Revision {wanted} is coming up: Pending." in lines


def edit_variants(cluster: Cluster, variants: list[dict[str, Any]]) -> Cluster:
    """Set the variants, without a reconcile; return the cluster."""
    body = cluster.objects[Ref(INFERENCE_SERVICE, KEY.name)]
    body["spec"]["variants"] = variants
    body["metadata"]["generation"] += 1
    cluster.put(body)
    return cluster


def test_the_plan_shows_each_variant_and_is_what_the_operator_writes_next() -> None:
    cluster = start_service_with_variants(WEIGHTED, MATCHED, MIRRORED, steps=STEPS)
    for name in ("int8", "beta", "shadow"):
        start_variant(cluster, name)
    own = {"name": "own", "predictor": {"warmup": {}, "minReplicas": 1}}
    edit_variants(cluster, [{**WEIGHTED, "predictor": NEXT}, MIRRORED, own])
    preview = build_preview(cluster.objects.values(), KEY, OperatorSettings(DEFAULTS), cluster.now)
    is_golden("variants.txt", format_plain(build_plan_text(preview)))
    value = build_plan_value(preview)
    assert [(each["name"], each["requests"]) for each in value["variants"]] == [
        ("int8", "weight 20 %"),
        ("shadow", "mirror 25 %"),
        ("own", "own Service only"),
    ]
    int8 = value["variants"][0]
    assert int8["revision"] == {"name": cluster.decision("int8").wanted, "number": 2, "known": False}
    assert int8["serving"] == read_track(cluster, "int8").status.stable
    assert [step["state"] for step in int8["steps"]] == ["now", "", ""]
    assert value["removedVariants"] == ["beta"]
    writes = [(write.kind, write.name, write.manifest) for write in preview.writes]
    actions = cluster.reconcile()
    assert writes == [(a.ref.kind.name, a.ref.name, a.manifest if isinstance(a, Apply) else None) for a in actions]
