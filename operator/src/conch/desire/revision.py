"""A new revision: rendered once from the user's words, kept in a ControllerRevision, applied from there.

So an operator of a later version, with other defaults or another image, changes no pod that serves.
"""

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from conch.api import InferenceService
from conch.api.kinds import CONFIG_MAP, CONTROLLER_REVISION
from conch.api.meta import Manifest, child
from conch.api.names import (
    ANNOTATION_AUTHOR,
    ANNOTATION_CHANGE_CAUSE,
    ANNOTATION_DIGEST,
    ANNOTATION_GENERATION,
    ANNOTATION_OBJECT_VERSIONS,
    ANNOTATION_WARMUP_DIGEST,
)
from conch.api.text import clean
from conch.desire.defaults import PodDefaults
from conch.desire.pod import pod_template
from conch.observe import Revision, Track
from conch.triton import build_model_config, build_warmup
from conch_contract import ModelManifest, ModelSource, ModelState, names
from conch_contract.object_versions import decode_versions, encode_versions

_NOTE_LENGTH: Final = 1024  # bytes of a note that are kept: it is copied with every write of the record


def new_revision(service: InferenceService, name: str, number: int, defaults: PodDefaults) -> Revision:
    """Render the revision that a service's spec asks for."""
    predictor = service.spec.predictor
    return Revision(
        name=name,
        number=number,
        generation=service.metadata.generation,
        template=pod_template(service, name, defaults),
        manifest=model_manifest(service).to_json(),
        predictor=predictor.to_wire(),
    )


def asked_for(track: Track, revision: Revision, number: int) -> Revision:
    """Return a revision as it enters the history, for the first time or again: by whom, and why."""
    note = track.service.metadata.annotations.get(ANNOTATION_CHANGE_CAUSE, "")
    return replace(revision, number=number, author=track.author, note=clean(note, _NOTE_LENGTH))


def served(track: Track, revision: Revision) -> Revision:
    """Return a revision with the content that its first ready pod reports: all its pods serve that ever after.

    The content is a digest and, where the bucket has versioning, the object versions of a pod that serves that digest.
    Beside it is the digest of the ConfigMap with which a ready pod was first warmed.
    """
    if not track.ready(revision.name):
        return revision
    status = track.service.status.revision(revision.name)
    reports = [pod.report for pod in track.pods_of(revision.name) if pod.ready and pod.report]
    models = [model for report in reports for model in report.models]
    digests = [model.digest for model in models]
    digests += [model.digest for model in status.models if model.state == ModelState.READY] if status else []
    digest = revision.digest or _first(digests)
    versions = (encode_versions(model.object_versions) for model in models if model.digest == digest)
    return replace(
        revision,
        digest=digest,
        object_versions=revision.object_versions or _first(versions),
        warmup_digest=revision.warmup_digest or _first(model.warmup_digest for model in models),
    )


def _first(texts: Iterable[str]) -> str:
    """Return the first text that is not empty."""
    return next(filter(None, texts), "")


def model_manifest(service: InferenceService) -> ModelManifest:
    """Return what the pods shall serve."""
    predictor = service.spec.predictor
    source = ModelSource(
        name=service.model_name,
        format=predictor.model.model_format.name,
        storage_uri=predictor.model.storage_uri,
        config=build_model_config(predictor.triton),
        warmup=build_warmup(predictor.warmup),
    )
    return ModelManifest(models=(source,))


def controller_revision(service: InferenceService, revision: Revision) -> Manifest:
    """Build the record of a revision. Its data never changes; its annotations and its number do."""
    said = {
        ANNOTATION_AUTHOR: revision.author,
        ANNOTATION_CHANGE_CAUSE: revision.note,
        ANNOTATION_DIGEST: revision.digest,
        ANNOTATION_OBJECT_VERSIONS: revision.object_versions,
        ANNOTATION_WARMUP_DIGEST: revision.warmup_digest,
    }
    annotations = {ANNOTATION_GENERATION: str(revision.generation)}
    annotations |= {name: value for name, value in said.items() if value}
    return {
        **child(service, CONTROLLER_REVISION, revision.name, revision.name, annotations),
        "revision": revision.number,
        "data": {
            "template": revision.template,
            "manifest": revision.manifest,
            "predictor": revision.predictor,
        },
    }


def config_map(service: InferenceService, revision: Revision) -> Manifest:
    """Build the ConfigMap that tells pods what to serve; once a pod has served, in which content."""
    return {
        **child(service, CONFIG_MAP, revision.name, revision.name),
        "data": {names.MANIFEST_FILE: _pin(revision)},
    }


def _pin(revision: Revision) -> str:
    """Return the manifest with what the revision's first ready pod served and was warmed with, where it is known."""
    if not revision.digest:
        return revision.manifest
    said = json.loads(revision.manifest)  # as it was stored, with what only another version of Conch knows
    known = {
        "digest": revision.digest,
        "objectVersions": decode_versions(revision.object_versions),
        "warmupDigest": revision.warmup_digest,
    }
    content = {field: value for field, value in known.items() if value}
    models = [{**model, **content} for model in said["models"]]
    return json.dumps({**said, "models": models}, separators=(",", ":"))
