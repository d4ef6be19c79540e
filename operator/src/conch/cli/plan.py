"""`kubectl conch plan`: preview of a manifest before it is applied."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final, TextIO, get_args

import click

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
from conch.cli.plan_output import build_plan_text, build_plan_value
from conch.cli.preview import OperatorSettings, Preview, build_preview
from conch.cli.printing import Table, print_value
from conch.desire import PodDefaults
from conch.observe.identity import controller_uid, is_orphan, owner_words
from conch.plan.actions import reject_taken_name
from conch.write import CallError, read_capacities
from conch.write.conflicts import CONFLICT, retry_on_conflict
from conch.write.user import UserServer
from conch_contract import names

_IMAGE: Final = "conch/serving:dev"
_OFFLINE: Final = "Computed offline. --against cluster includes existing objects and server-side validation (dry run)."


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
