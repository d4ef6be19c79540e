"""A revision: rendered once from the spec, stored in a ControllerRevision, and applied from there.

So a later version of the operator, with other defaults or another image, changes no serving pod.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from conch.api import InferenceService, ModelStatus
from conch.api.kinds import CONTROLLER_REVISION
from conch.api.meta import Manifest, child
from conch.api.models import NamedModel
from conch.api.names import (
    ANNOTATION_AUTHOR,
    ANNOTATION_CHANGE_CAUSE,
    ANNOTATION_CONTENTS,
    ANNOTATION_GENERATION,
    ANNOTATION_WORKLOAD,
)
from conch.api.text import clean
from conch.desire.defaults import PodDefaults
from conch.desire.pod import build_pod_template, has_one_place
from conch.desire.verification import build_decryption, build_verification
from conch.observe import Revision, Track
from conch.observe.contents import Content, Contents, encode_contents, limit_contents
from conch.triton import build_model_config, build_warmup, has_response_cache
from conch_contract import (
    AgentReport,
    Mirror,
    ModelManifest,
    ModelReport,
    ModelSource,
    ModelState,
    PipelineStep,
    Warmup,
    WatchedSource,
)
from conch_contract.manifest import FOLDER_FORMAT
from conch_contract.object_versions import select_recordable
from conch_contract.report import is_left_out

_NONE: Final[Mapping[str, str]] = MappingProxyType({})
_NOTE_LENGTH: Final = 1024  # bytes of a change cause that are kept, since each write of the ControllerRevision has it


def build_revision(
    service: InferenceService, name: str, number: int, defaults: PodDefaults, sources: Mapping[str, str] = _NONE
) -> Revision:
    """Render the revision of a service's spec.

    Args:
        service: The service as a track.
        name: Name of the revision.
        number: Its number in the history.
        defaults: Defaults of pods.
        sources: Identities of the listings that it is created for, by model; empty: it is created for a spec.
    """
    predictor = service.spec.predictor
    return Revision(
        name=name,
        number=number,
        generation=service.metadata.generation,
        template=build_pod_template(service, name, defaults),
        manifest=build_model_manifest(service, sources).to_json(),
        predictor=predictor.to_wire(),
    )


def enter_history(track: Track, revision: Revision, number: int) -> Revision:
    """Return a revision with a new number in the history, its author and its change cause."""
    note = track.service.metadata.annotations.get(ANNOTATION_CHANGE_CAUSE, "")
    return replace(revision, number=number, author=track.author, note=clean(note, _NOTE_LENGTH))


def record_contents(track: Track, revision: Revision) -> Revision:
    """Return a revision with the contents that its first ready pod reports, which all later pods serve.

    The contents of all models are those of one pod, so that parts of two versions never meet. Object versions and the
    digest of the warm-up's ConfigMap may follow from another pod.
    """
    if not track.ready(revision.name):
        return revision
    reports = [pod.report for pod in track.pods_of(revision.name) if pod.ready and pod.report]
    contents = revision.contents or _find_first(track, revision.name, reports)
    if contents and (optional := revision.optional_models - contents.keys()):  # they may follow
        models = [model for report in reports for model in report.models if model.name in optional]
        contents = {**contents, **_list_contents(models)}
    by_name: dict[str, list[ModelReport]] = {name: [] for name in contents}
    for model in (model for report in reports for model in report.models):
        by_name.setdefault(model.name, []).append(model)
    complete = {
        name: _complete(known, by_name[name], _find_fetched(name, known, reports)) for name, known in contents.items()
    }
    return replace(revision, contents=limit_contents(complete))


def _find_first(track: Track, revision: str, reports: Sequence[AgentReport]) -> Contents:
    """Return the contents of the first pod that reports all of them; empty: there is none."""
    for report in reports:
        if report.models and all(model.digest or is_left_out(model) for model in report.models):
            return _list_contents(report.models)
    status = track.service.status.revision(revision)
    models = status.models if status and not status.model_counts else ()
    is_known = bool(models) and all(
        (model.digest and model.state == ModelState.READY) or is_left_out(model) for model in models
    )
    return _list_contents(models) if is_known else {}


def _list_contents(models: Iterable[ModelReport | ModelStatus]) -> Contents:
    """Return the contents of the models that serve, the first of each name."""
    found: dict[str, Content] = {}
    for model in models:
        if model.digest and not is_left_out(model):
            found.setdefault(model.name, Content(model.digest))
    return found


def _find_fetched(name: str, content: Content, reports: Iterable[AgentReport]) -> str:
    """Return the identity of the listing that had the content of a model; empty: no pod reports it."""
    same = (each for each in reports if any((m.name, m.digest) == (name, content.digest) for m in each.models))
    return next((source.fetched for each in same for source in each.sources if source.model == name), "")


def _complete(content: Content, models: Sequence[ModelReport], fetched: str) -> Content:
    """Return the content of a model with what the reports of pods with the same files add to it."""
    same = (select_recordable(model.object_versions) for model in models if model.digest == content.digest)
    return replace(
        content,
        object_versions=content.object_versions or next(filter(None, same), {}),
        warmup_digest=content.warmup_digest or next(filter(None, (model.warmup_digest for model in models)), ""),
        source_identity=content.source_identity or fetched,
    )


def build_model_manifest(service: InferenceService, sources: Mapping[str, str] = _NONE) -> ModelManifest:
    """Return the model manifest of the pods.

    Args:
        service: The service as a track.
        sources: As in `build_revision`.
    """
    warmup = build_warmup(service.spec.predictor.warmup)
    is_one = has_one_place(service)
    models = [
        ModelSource(
            name=model.name,
            format=model.model_format.name,
            storage_uri=model.storage_uri,
            secret="" if is_one else model.secret or "",
            mirrors=tuple(
                Mirror(uri=mirror.uri, secret=mirror.secret_ref.name if mirror.secret_ref else "")
                for mirror in model.mirrors
            ),
            verify=build_verification(model),
            decrypt=build_decryption(model),
            config=build_model_config(model),
            has_response_cache=has_response_cache(service.spec.predictor.triton),
            warmup=warmup if model.name == service.model_name else build_warmup(model.warmup),
            required=model.required,
            source_identity=sources.get(model.name, ""),
        )
        for model in service.models
    ]
    if service.spec.predictor.pipeline:
        models.append(_build_pipeline(service, warmup))
    watched = (_build_watched(model, "" if is_one else model.secret or "") for model in service.models)
    return ModelManifest(
        models=tuple(models), entry=service.spec.predictor.entry or "", watched=tuple(filter(None, watched))
    )


def _build_watched(model: NamedModel, secret: str) -> WatchedSource | None:
    """Return the source of a model as pods watch it; None: they do not.

    Args:
        model: The model.
        secret: Name of its Secret among several; empty: the only one.
    """
    if not model.refresh_seconds:
        return None
    return WatchedSource(
        model=model.name,
        format=model.model_format.name,
        storage_uri=model.storage_uri,
        secret=secret,
        refresh_seconds=model.refresh_seconds,
    )


def _build_pipeline(service: InferenceService, warmup: Warmup | None) -> ModelSource:
    """Return the source of the pipeline."""
    steps = (
        PipelineStep(model=step.model, inputs=step.inputs, outputs=step.outputs)
        for step in service.spec.predictor.pipeline
    )
    return ModelSource(
        name=service.model_name,
        format=FOLDER_FORMAT,
        storage_uri=f"pipeline:{service.model_name}",
        has_response_cache=has_response_cache(service.spec.predictor.triton),
        warmup=warmup,
        steps=tuple(steps),
    )


def build_controller_revision(service: InferenceService, revision: Revision) -> Manifest:
    """Build the ControllerRevision of a revision. Its data is immutable; its annotations and its number are not."""
    values = {
        ANNOTATION_AUTHOR: revision.author,
        ANNOTATION_CHANGE_CAUSE: revision.note,
        ANNOTATION_CONTENTS: encode_contents(revision.contents),
        ANNOTATION_WORKLOAD: revision.workload,
    }
    annotations = {ANNOTATION_GENERATION: str(revision.generation)}
    annotations |= {name: value for name, value in values.items() if value}
    return {
        **child(service, CONTROLLER_REVISION, revision.name, revision.name, annotations),
        "revision": revision.number,
        "data": {
            "template": revision.template,
            "manifest": revision.manifest,
            "predictor": revision.predictor,
        },
    }
