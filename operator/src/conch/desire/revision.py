"""A new revision: rendered once from the user's words, kept in a ControllerRevision, applied from there.

So an operator of a later version, with other defaults or another image, changes no pod that serves.
"""

from dataclasses import dataclass

from conch.api import InferenceService
from conch.api.kinds import CONFIG_MAP, CONTROLLER_REVISION
from conch.api.names import ANNOTATION_GENERATION
from conch.desire.meta import Manifest, child
from conch.desire.pod import pod_template
from conch.observe import Revision
from conch.triton import model_config
from conch_contract import ModelManifest, ModelSource, names


@dataclass(frozen=True)
class Images:
    """What new revisions run, as the installer says."""

    serving: str
    pull_policy: str = "IfNotPresent"


def new_revision(service: InferenceService, name: str, number: int, images: Images) -> Revision:
    """Render the revision that a service's spec asks for."""
    predictor = service.spec.predictor
    return Revision(
        name=name,
        number=number,
        generation=service.metadata.generation,
        template=pod_template(service, name, images.serving, images.pull_policy),
        manifest=model_manifest(service).to_json(),
        predictor=predictor.to_wire(),
    )


def model_manifest(service: InferenceService) -> ModelManifest:
    """Return what the pods shall serve."""
    predictor = service.spec.predictor
    source = ModelSource(
        name=service.model_name,
        format=predictor.model.model_format.name,
        storage_uri=predictor.model.storage_uri,
        config=model_config(predictor.triton),
    )
    return ModelManifest(models=(source,))


def controller_revision(service: InferenceService, revision: Revision) -> Manifest:
    """Build the record of a revision. Its data never changes; its number does when it returns."""
    annotations = {ANNOTATION_GENERATION: str(revision.generation)}
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
    """Build the ConfigMap that tells pods what to serve."""
    return {
        **child(service, CONFIG_MAP, revision.name, revision.name),
        "data": {names.MANIFEST_FILE: revision.manifest},
    }
