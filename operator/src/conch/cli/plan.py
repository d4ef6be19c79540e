"""`kubectl conch plan`: preview of a manifest before it is applied."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, TextIO, get_args

import click

from conch.api import ConfigValue
from conch.api.child_kinds import WATCHED
from conch.api.kinds import (
    BACKEND_TRAFFIC_POLICY,
    HTTP_ROUTE,
    INFERENCE_SERVICE,
    SCALED_OBJECT,
    Kind,
    Ref,
    ServiceKey,
    ref_of,
)
from conch.api.metrics import MetricsApi
from conch.cli.cluster import MANAGER, Cluster, run_with_cluster
from conch.cli.manifests import build_offline_body, read_services
from conch.cli.options import Access, CommandError, access
from conch.cli.preview import OperatorSettings, Preview, PreviewStep, TrackPreview, build_preview
from conch.cli.printing import Table, Text, print_value
from conch.desire import PodDefaults
from conch.observe.identity import controller_uid, is_orphan, owner_words
from conch.plan import ApplyRejected
from conch.plan.actions import reject_taken_name
from conch.triton import ConfiguredValue
from conch.write import CallError, read_capacities
from conch.write.conflicts import CONFLICT, retry_on_conflict
from conch.write.user import UserServer
from conch_contract import ConfigOrigin, names

_IMAGE: Final = "conch/serving:dev"
_OFFLINE: Final = "Computed offline. --against cluster includes existing objects and server-side validation (dry run)."
_CONFIGURED: Final = (
    "Triton's configuration that the manifest sets; all other values come from config.pbtxt or from Triton:"
)
_LONGEST_VALUE: Final = 80  # characters of a value of Triton's configuration


@click.command()
@click.option(
    "-f", "--filename", "file", type=click.File(), required=True, help="The manifest; - reads standard input."
)
@click.option(
    "--against",
    type=click.Choice(["nothing", "cluster"]),
    default="nothing",
    show_default=True,
    help="Existing objects: nothing (offline), or those of the cluster, with server-side validation (dry run).",
)
@click.option(
    "--serving-image",
    default=_IMAGE,
    show_default=True,
    envvar="CONCH_SERVING_IMAGE",
    help="Serving image of the operator's installation. No name depends on it.",
)
@click.option(
    "--metrics-api",
    type=click.Choice(get_args(MetricsApi)),
    default="builtin",
    show_default=True,
    envvar="CONCH_METRICS_API",
    help="Metrics API of the operator's installation (autoscaling.metricsApi).",
)
@click.option(
    "--prometheus",
    default="",
    metavar="URL",
    envvar="CONCH_PROMETHEUS",
    help="Prometheus of the operator's installation that KEDA queries (autoscaling.prometheus).",
)
@access
def plan(
    access: Access, file: TextIO, *, against: str, serving_image: str, metrics_api: MetricsApi, prometheus: str
) -> None:
    """Preview a manifest before it is applied.

    For each InferenceService in it: the revision, and that of each variant, the operator's next writes, the steps of
    a rollout, and writes that would be rejected. Nothing is written.
    """
    settings = OperatorSettings(PodDefaults(serving_image), metrics_api, prometheus)
    manifests = read_services(file)
    if against == "cluster":
        found = run_with_cluster(access, lambda cluster: _preview_in_cluster(cluster, access, manifests, settings))
        note = []
    else:
        found = [_preview_offline(access, manifest, settings) for manifest in manifests]
        note = ["", _OFFLINE]
    text: list[str | Table] = []
    for preview in found:
        text += [*([""] if text else []), *build_plan_text(preview)]
    print_value(access.output, {"services": [build_plan_value(preview) for preview in found]}, [*text, *note])


def _preview_offline(access: Access, manifest: Mapping[str, Any], settings: OperatorSettings) -> Preview:
    body = build_offline_body(manifest, access.namespace)
    meta = body["metadata"]
    return build_preview([body], ServiceKey(meta["namespace"], meta["name"]), settings, time.time())


async def _preview_in_cluster(
    cluster: Cluster, access: Access, manifests: list[dict[str, Any]], settings: OperatorSettings
) -> list[Preview]:
    """Return the previews of manifests as the API server would store them, with the existing objects."""
    found = []
    for manifest in manifests:
        namespace = access.namespace or manifest["metadata"].get("namespace") or cluster.namespace
        body = await _dry_run(cluster.server, namespace, manifest)
        key = ServiceKey(namespace, body["metadata"]["name"])
        kinds = [kind for kind in WATCHED if kind != INFERENCE_SERVICE]
        kinds += [SCALED_OBJECT] if settings.metrics_api == "keda" else []
        lists = await asyncio.gather(*(_list_children(cluster.server, kind, key, body) for kind in kinds))
        bodies = [body, *(one for many in lists for one in many)]
        preview = build_preview(bodies, key, settings, time.time())
        if preview.needs_capacity:  # the operator reads it too; here with the user's permissions
            capacities = await read_capacities(cluster.server, [namespace])
            preview = build_preview(bodies, key, settings, time.time(), capacities[namespace])
        found.append(await _add_taken_names(cluster.server, body["metadata"]["uid"], preview))
    return found


async def _list_children(
    server: UserServer, kind: Kind, key: ServiceKey, body: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return a service's objects of a kind; empty without the permission, if the spec requires none of them.

    Kubernetes' own roles (view, edit) include neither routes nor policies.
    """
    try:
        return await server.list(kind, key.namespace, f"{names.LABEL_SERVICE}={key.name}")
    except CallError as error:
        traffic = body["spec"].get("traffic") or {}
        required_by = {HTTP_ROUTE: "gateways", BACKEND_TRAFFIC_POLICY: "consistentHash"}
        if error.code == 403 and kind in required_by and not traffic.get(required_by[kind]):
            return []
        raise


async def _dry_run(server: UserServer, namespace: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the service as the API server would store it, with defaults, rules and admission: a dry run."""
    name = manifest["metadata"]["name"]
    meta = {**manifest["metadata"], "namespace": namespace}

    async def read(_: CallError | None = None) -> dict[str, Any] | None:
        return await server.get(namespace, Ref(INFERENCE_SERVICE, name))

    async def write(seen: dict[str, Any] | None) -> dict[str, Any]:
        if seen is None:
            return await server.dry_run_create(INFERENCE_SERVICE, {**manifest, "metadata": meta}, MANAGER)
        body = {**seen, "metadata": _merge_metadata(seen["metadata"], meta), "spec": manifest.get("spec")}
        return await server.replace(INFERENCE_SERVICE, body, MANAGER, dry_run=True)

    try:
        return await retry_on_conflict(write, read, await read())
    except CallError as error:
        if error.code != CONFLICT:
            raise
        raise CommandError(
            f"{name} is written all the time; wait until its rollout pauses, and repeat the command"
        ) from error


def _merge_metadata(seen: Mapping[str, Any], applied: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of an object when a manifest is applied over it."""
    fields = ("labels", "annotations")
    return {**seen, **{field: {**(seen.get(field) or {}), **(applied.get(field) or {})} for field in fields}}


async def _add_taken_names(server: UserServer, uid: str, preview: Preview) -> Preview:
    """Add the rejections of names that foreign objects have: the operator checks a name before it creates an object."""
    rejections = list(preview.rejections)
    for write in preview.writes:
        if write.action != "create" or write.manifest is None:
            continue
        ref = ref_of(write.manifest)
        there = await server.metadata(preview.service.namespace, ref)
        if there is not None and controller_uid(there) != uid and not is_orphan(there, preview.service.name):
            rejections.append(reject_taken_name(ref, owner_words(there)))
    return Preview(**{**vars(preview), "rejections": tuple(rejections)})


def build_plan_value(preview: Preview) -> dict[str, Any]:
    """Return the value for -o json and yaml, with the manifests."""
    return {
        "name": preview.service.name,
        "namespace": preview.service.namespace,
        **_build_track_value(preview.main),
        "variants": [
            {"name": track.variant, "requests": track.requests, **_build_track_value(track)}
            for track in preview.variants
        ],
        "removedVariants": list(preview.removed_variants),
        "rejections": [_build_rejection_value(rejection) for rejection in preview.rejections],
        "writes": [
            {
                "row": write.row,
                "action": write.action,
                "kind": write.kind,
                "name": write.name,
                "manifest": write.manifest,
            }
            for write in preview.writes
        ],
        "conditions": [
            dict(zip(("type", "status", "reason", "message"), condition, strict=True))
            for condition in preview.conditions
        ],
    }


def _build_track_value(track: TrackPreview) -> dict[str, Any]:
    return {
        "revision": {"name": track.revision, "number": track.number, "known": track.known},
        "serving": track.serving,
        "message": track.message,
        "budget": track.budget,
        "configured": [
            {
                "model": each.model,
                "field": each.field,
                "value": each.value,
                "setBy": each.set_by,
                **({"inUse": in_use.to_wire()} if (in_use := track.in_use.get((each.model, each.field))) else {}),
            }
            for each in track.configured
        ],
        "notSetAnyMore": [{"model": model, "inUse": value.to_wire()} for model, value in _list_not_set_any_more(track)],
        "warnings": [{"reason": reason, "message": message} for reason, message in track.warnings],
        "steps": [
            {"number": step.number, "step": step.step, "pods": step.pods, "waits": step.waits, "state": step.state}
            for step in track.steps
        ],
    }


def build_plan_text(preview: Preview) -> Text:
    """Return the text."""
    text: list[str | Table] = [f"{preview.service}: {preview.main.message}"]
    text += [f"Variant {track.variant} ({track.requests}): {track.message}" for track in preview.variants]
    budgets = [track.budget for track in (preview.main, *preview.variants) if track.budget]
    text += ["", "GPUs:", *(f"  {budget}" for budget in budgets)] if budgets else []
    text += _build_configuration_text((preview.main, *preview.variants))
    text += [
        f"Variant {variant} is not in the spec any more: its pods are deleted once no request can reach them."
        for variant in preview.removed_variants
    ]
    if preview.rejections:
        text += ["", "Rejected:", *(f"  {rejection.reason}: {rejection.message}" for rejection in preview.rejections)]
    if preview.writes:
        rows = tuple((str(write.row), write.action, write.kind, write.name) for write in preview.writes)
        text += ["", "The operator's next writes, row after row:", Table(("ROW", "ACTION", "KIND", "NAME"), rows)]
    else:
        text += ["", "The operator would write nothing."]
    tracks = (preview.main, *preview.variants)
    # Predictor and variants follow the same steps, mostly with as many pods: equal steps are printed once.
    for steps in dict.fromkeys(track.steps for track in tracks):
        owners = [_describe_track(track) for track in tracks if track.steps == steps]
        text += ["", *_build_steps_text(steps, f" ({', '.join(owners)})" if preview.variants else "")]
    return text


def _build_configuration_text(tracks: Sequence[TrackPreview]) -> list[str]:
    """Return the lines about Triton's configuration: the values that the manifest sets, and the warnings of pods."""
    lines, warnings = [], []
    for track in tracks:
        prefix = f"Variant {track.variant}: " if track.variant else ""
        by_model: dict[str, list[str]] = {}
        for each in track.configured:
            value = _format_configured(each, track.in_use.get((each.model, each.field)))
            by_model.setdefault(each.model, []).append(value)
        for model, in_use in _list_not_set_any_more(track):
            by_model.setdefault(model, []).append(f"{in_use.field} not set any more, now {_shorten(in_use.value)}")
        for model, values in by_model.items():
            lines += [f"  {prefix}{model}:", *(f"    {value}" for value in values)]
        warnings += [f"{prefix}{reason}: {message}" for reason, message in track.warnings]
    return [*(["", _CONFIGURED, *lines] if lines else []), *warnings]


def _list_not_set_any_more(track: TrackPreview) -> list[tuple[str, ConfigValue]]:
    """Return the values that the manifest of the revision that serves has set, by model, and this one does not.

    What `triton.config` of this one sets is not known before the agent has read it, so that of its model none is
    returned.
    """
    configured = {(each.model, each.field) for each in track.configured}
    return [
        (model, value)
        for (model, field), value in track.in_use.items()
        if value.origin == ConfigOrigin.SPEC and configured.isdisjoint({(model, field), (model, "")})
    ]


def _format_configured(value: ConfiguredValue, in_use: ConfigValue | None) -> str:
    """Return a value with the field that sets it, and what Triton uses now where that is another one.

    >>> value = ConfiguredValue("max_batch_size", "8", "triton.maxBatchSize")
    >>> _format_configured(value, None)
    'max_batch_size 8 (triton.maxBatchSize)'
    >>> _format_configured(value, ConfigValue(field="max_batch_size", value="4", origin="File"))
    'max_batch_size 8 (triton.maxBatchSize), now 4 (File)'
    """
    new = _shorten(value.value)  # as agents shorten what they report
    text = " ".join(filter(None, (value.field, new, f"({value.set_by})")))
    return f"{text}, now {_shorten(in_use.value)} ({in_use.origin})" if in_use and in_use.value != new else text


def _shorten(value: str) -> str:
    return value if len(value) <= _LONGEST_VALUE else f"{value[: _LONGEST_VALUE - 1]}…"


def _describe_track(track: TrackPreview) -> str:
    return f"variant {track.variant}" if track.variant else "predictor"


def _build_steps_text(steps: Sequence[PreviewStep], suffix: str) -> Text:
    rows = tuple(
        (str(step.number), step.step, "" if step.pods is None else str(step.pods), step.waits) for step in steps
    )
    if not any(step.state for step in steps):
        return [f"The steps of later changes{suffix}:", Table(("NUMBER", "STEP", "PODS", "WAITS"), rows)]
    with_states = tuple((*row, step.state) for row, step in zip(rows, steps, strict=True))
    return [f"The steps of this rollout{suffix}:", Table(("NUMBER", "STEP", "PODS", "WAITS", "STATE"), with_states)]


def _build_rejection_value(rejection: ApplyRejected) -> dict[str, str]:
    return {"object": str(rejection.ref), "reason": rejection.reason, "message": rejection.message}
