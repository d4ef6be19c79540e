"""`kubectl conch plan`: what a manifest would do, before anybody applies it."""

import asyncio
import time
from collections.abc import Mapping, Sequence
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
from conch.cli.cluster import MANAGER, Cluster, ask
from conch.cli.manifests import offline_body, services
from conch.cli.offline import Course, Foresight, Installed, Stage, foresee
from conch.cli.options import Access, Refused, access
from conch.cli.printing import Table, Text, show
from conch.desire import PodDefaults
from conch.observe.identity import controller_uid, is_orphan, owner_words
from conch.plan import ApplyRejected
from conch.plan.actions import reject_taken_name
from conch.write import CallError, read_capacities
from conch.write.conflicts import CONFLICT, retry_on_conflict
from conch.write.user import UserServer
from conch_contract import names

_IMAGE: Final = "conch/serving:dev"
_UNJUDGED: Final = (
    "Nobody asked the cluster what it has and what its rules say; --against cluster does, and writes nothing either."
)


@click.command()
@click.option("-f", "--filename", "file", type=click.File(), required=True, help="The manifest; - reads the input.")
@click.option(
    "--against",
    type=click.Choice(["nothing", "cluster"]),
    default="nothing",
    show_default=True,
    help="What there is already: nothing, so that no cluster is asked; or what the cluster has, with its verdict.",
)
@click.option(
    "--serving-image",
    default=_IMAGE,
    show_default=True,
    envvar="CONCH_SERVING_IMAGE",
    help="What new revisions run, as the operator is installed. No name depends on it.",
)
@click.option(
    "--metrics-api",
    type=click.Choice(get_args(MetricsApi)),
    default="builtin",
    show_default=True,
    envvar="CONCH_METRICS_API",
    help="Who tells autoscalers of Triton, as the operator is installed (autoscaling.metricsApi).",
)
@click.option(
    "--prometheus",
    default="",
    metavar="URL",
    envvar="CONCH_PROMETHEUS",
    help="Where KEDA asks about Triton, as the operator is installed (autoscaling.prometheus).",
)
@access
def plan(
    access: Access, file: TextIO, *, against: str, serving_image: str, metrics_api: MetricsApi, prometheus: str
) -> None:
    """Show what a manifest would do.

    For each InferenceService in it: the revision, and that of each variant, the operator's next writes, the steps of
    a rollout, and what would be refused. Nothing is written.
    """
    installed = Installed(PodDefaults(serving_image), metrics_api, prometheus)
    manifests = services(file)
    if against == "cluster":
        found = ask(access, lambda cluster: _against(cluster, access, manifests, installed))
        remark = []
    else:
        found = [_offline(access, manifest, installed) for manifest in manifests]
        remark = ["", _UNJUDGED]
    text: list[str | Table] = []
    for foresight in found:
        text += [*([""] if text else []), *plan_text(foresight)]
    show(access.output, {"services": [plan_value(foresight) for foresight in found]}, [*text, *remark])


def _offline(access: Access, manifest: Mapping[str, Any], installed: Installed) -> Foresight:
    body = offline_body(manifest, access.namespace)
    meta = body["metadata"]
    return foresee([body], ServiceKey(meta["namespace"], meta["name"]), installed, time.time())


async def _against(
    cluster: Cluster, access: Access, manifests: list[dict[str, Any]], installed: Installed
) -> list[Foresight]:
    """Ask the API server for its verdict, and run the packages over what it would store."""
    found = []
    for manifest in manifests:
        namespace = access.namespace or manifest["metadata"].get("namespace") or cluster.namespace
        body = await _tried(cluster.server, namespace, manifest)
        key = ServiceKey(namespace, body["metadata"]["name"])
        kinds = [kind for kind in WATCHED if kind != INFERENCE_SERVICE]
        kinds += [SCALED_OBJECT] if installed.metrics_api == "keda" else []
        lists = await asyncio.gather(*(_children(cluster.server, kind, key, body) for kind in kinds))
        bodies = [body, *(one for many in lists for one in many)]
        foresight = foresee(bodies, key, installed, time.time())
        if foresight.asks:  # what the operator would ask too; with the rights of whoever types
            there = await read_capacities(cluster.server, [namespace])
            foresight = foresee(bodies, key, installed, time.time(), there[namespace])
        found.append(await _with_strangers(cluster.server, body["metadata"]["uid"], foresight))
    return found


async def _children(server: UserServer, kind: Kind, key: ServiceKey, body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List a service's objects of a kind; empty without the right to it, if the spec requires none.

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


async def _tried(server: UserServer, namespace: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the service as the API server would store it: its defaults, its rules, its admission. A dry run."""
    name = manifest["metadata"]["name"]
    meta = {**manifest["metadata"], "namespace": namespace}

    async def read(_: CallError | None = None) -> dict[str, Any] | None:
        return await server.get(namespace, Ref(INFERENCE_SERVICE, name))

    async def write(seen: dict[str, Any] | None) -> dict[str, Any]:
        if seen is None:
            return await server.dry_run_create(INFERENCE_SERVICE, {**manifest, "metadata": meta}, MANAGER)
        body = {**seen, "metadata": _over(seen["metadata"], meta), "spec": manifest.get("spec")}
        return await server.replace(INFERENCE_SERVICE, body, MANAGER, dry_run=True)

    try:
        return await retry_on_conflict(write, read, await read())
    except CallError as error:
        if error.code != CONFLICT:
            raise
        raise Refused(f"{name} changes all the time; wait until its rollout rests, and ask again") from error


def _over(seen: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of an object when a manifest is applied over it."""
    words = ("labels", "annotations")
    return {**seen, **{word: {**(seen.get(word) or {}), **(said.get(word) or {})} for word in words}}


async def _with_strangers(server: UserServer, uid: str, foresight: Foresight) -> Foresight:
    """Add the rejections for names that somebody else's objects have: the operator asks before it takes a name."""
    rejections = list(foresight.rejections)
    for write in foresight.writes:
        if write.action != "create" or write.manifest is None:
            continue
        ref = ref_of(write.manifest)
        there = await server.metadata(foresight.service.namespace, ref)
        if there is not None and controller_uid(there) != uid and not is_orphan(there, foresight.service.name):
            rejections.append(reject_taken_name(ref, owner_words(there)))
    return Foresight(**{**vars(foresight), "rejections": tuple(rejections)})


def plan_value(foresight: Foresight) -> dict[str, Any]:
    """Return all of it, the manifests included."""
    return {
        "name": foresight.service.name,
        "namespace": foresight.service.namespace,
        **_course(foresight.main),
        "variants": [
            {"name": course.variant, "requests": course.requests, **_course(course)} for course in foresight.variants
        ],
        "left": list(foresight.left),
        "rejections": [_refusal(rejection) for rejection in foresight.rejections],
        "writes": [
            {
                "row": write.row,
                "action": write.action,
                "kind": write.kind,
                "name": write.name,
                "manifest": write.manifest,
            }
            for write in foresight.writes
        ],
        "conditions": [
            dict(zip(("type", "status", "reason", "message"), condition, strict=True))
            for condition in foresight.conditions
        ],
    }


def _course(course: Course) -> dict[str, Any]:
    return {
        "revision": {"name": course.revision, "number": course.number, "known": course.known},
        "serving": course.serving,
        "message": course.message,
        "budget": course.budget,
        "configured": list(course.configured),
        "warnings": [{"reason": reason, "message": message} for reason, message in course.warnings],
        "steps": [
            {"step": stage.number, "says": stage.said, "pods": stage.pods, "waits": stage.waits, "state": stage.state}
            for stage in course.stages
        ],
    }


def plan_text(foresight: Foresight) -> Text:
    """Return what a person reads."""
    text: list[str | Table] = [f"{foresight.service}: {foresight.main.message}"]
    text += [f"Variant {course.variant} ({course.requests}): {course.message}" for course in foresight.variants]
    budgets = [course.budget for course in (foresight.main, *foresight.variants) if course.budget]
    text += ["", "GPUs:", *(f"  {told}" for told in budgets)] if budgets else []
    text += _configuration((foresight.main, *foresight.variants))
    text += [
        f"Variant {variant} is asked for no more: its pods go when no request can reach them."
        for variant in foresight.left
    ]
    if foresight.rejections:
        text += ["", "Refused:", *(f"  {rejection.reason}: {rejection.message}" for rejection in foresight.rejections)]
    if foresight.writes:
        rows = tuple((str(write.row), write.action, write.kind, write.name) for write in foresight.writes)
        text += ["", "The operator's next writes, row after row:", Table(("ROW", "ACTION", "KIND", "NAME"), rows)]
    else:
        text += ["", "The operator would write nothing."]
    courses = (foresight.main, *foresight.variants)
    # Predictor and variants go by the same steps, and mostly with as many pods: said once.
    for stages in dict.fromkeys(course.stages for course in courses):
        whose = [_whose(course) for course in courses if course.stages == stages]
        text += ["", *_steps(stages, f" ({', '.join(whose)})" if foresight.variants else "")]
    return text


def _configuration(courses: Sequence[Course]) -> list[str]:
    """Return the lines about config.pbtxt: the fields that win over it, and what pods reported of it."""
    lines = []
    for course in courses:
        whose = f"Variant {course.variant}: " if course.variant else ""
        if course.configured:
            verb = "wins" if len(course.configured) == 1 else "win"
            fields = ", ".join(course.configured)
            lines.append(f"{whose}{fields} {verb} over the same field of config.pbtxt, where the model has one.")
        lines += [f"{whose}{reason}: {message}" for reason, message in course.warnings]
    return lines


def _whose(course: Course) -> str:
    return f"variant {course.variant}" if course.variant else "predictor"


def _steps(stages: Sequence[Stage], whose: str) -> Text:
    rows = tuple(
        (str(stage.number), stage.said, "" if stage.pods is None else str(stage.pods), stage.waits) for stage in stages
    )
    if not any(stage.state for stage in stages):
        return [f"The steps of later changes{whose}:", Table(("STEP", "SAYS", "PODS", "WAITS"), rows)]
    told = tuple((*row, stage.state) for row, stage in zip(rows, stages, strict=True))
    return [f"The steps of this rollout{whose}:", Table(("STEP", "SAYS", "PODS", "WAITS", "STATE"), told)]


def _refusal(rejection: ApplyRejected) -> dict[str, str]:
    return {"object": str(rejection.ref), "reason": rejection.reason, "message": rejection.message}
