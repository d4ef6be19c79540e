"""A revision: rendered once from the spec, stored in a ControllerRevision, and applied from there.

So a later version of the operator, with other defaults or another image, changes no serving pod.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from conch.api import InferenceService
from conch.api.kinds import CONTROLLER_REVISION
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
from conch.desire.pod import build_pod_template
from conch.observe import Revision, Track
from conch.triton import build_model_config, build_warmup
from conch_contract import ModelManifest, ModelSource, ModelState
from conch_contract.object_versions import encode_versions

_NOTE_LENGTH: Final = 1024  # bytes of a change cause that are kept, since each write of the ControllerRevision has it


def build_revision(service: InferenceService, name: str, number: int, defaults: PodDefaults) -> Revision:
    """Render the revision of a service's spec."""
    predictor = service.spec.predictor
    return Revision(
        name=name,
        number=number,
        generation=service.metadata.generation,
        template=build_pod_template(service, name, defaults),
        manifest=build_model_manifest(service).to_json(),
        predictor=predictor.to_wire(),
    )


def enter_history(track: Track, revision: Revision, number: int) -> Revision:
    """Return a revision with a new number in the history, its author and its change cause."""
    note = track.service.metadata.annotations.get(ANNOTATION_CHANGE_CAUSE, "")
    return replace(revision, number=number, author=track.author, note=clean(note, _NOTE_LENGTH))


def record_content(track: Track, revision: Revision) -> Revision:
    """Return a revision with the content that its first ready pod reports, which all later pods serve.

    The content is a digest and, if the bucket has versioning, the object versions of a pod with that digest. With it
    comes the digest of the ConfigMap of the first ready pod's warm-up.
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


def build_model_manifest(service: InferenceService) -> ModelManifest:
    """Return the model manifest of the pods."""
    predictor = service.spec.predictor
    source = ModelSource(
        name=service.model_name,
        format=predictor.model.model_format.name,
        storage_uri=predictor.model.storage_uri,
        config=build_model_config(predictor.triton),
        warmup=build_warmup(predictor.warmup),
    )
    return ModelManifest(models=(source,))


def build_controller_revision(service: InferenceService, revision: Revision) -> Manifest:
    """Build the ControllerRevision of a revision. Its data is immutable; its annotations and its number are not."""
    values = {
        ANNOTATION_AUTHOR: revision.author,
        ANNOTATION_CHANGE_CAUSE: revision.note,
        ANNOTATION_DIGEST: revision.digest,
        ANNOTATION_OBJECT_VERSIONS: revision.object_versions,
        ANNOTATION_WARMUP_DIGEST: revision.warmup_digest,
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
