"""The folder of a pipeline in Triton's model repository: a configuration without files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict

from tritonclient.grpc.model_config_pb2 import ModelConfig

from conch_agent import config, layout
from conch_agent.boot import read_boot_id
from conch_agent.dependencies import find_steps
from conch_agent.disk import translate_full_disk
from conch_agent.effective_config import find_written_values
from conch_agent.folders import find_trash
from conch_agent.pipeline import build_ensemble
from conch_agent.policy import read_policy
from conch_agent.repository_model import RepositoryModel, check_name, read_marker
from conch_agent.settings import Settings
from conch_contract.manifest import ModelSource


def find_pipeline(source: ModelSource, settings: Settings) -> RepositoryModel | None:
    """Return the pipeline that is laid out, if its steps have not changed; None: there is none.

    Args:
        source: The pipeline in the manifest.
        settings: The agent's settings.
    """
    model = read_marker(settings.repository / check_name(source))
    return model if model and model.digest == _digest_steps(source) else None


def lay_out_pipeline(source: ModelSource, configs: Mapping[str, ModelConfig], settings: Settings) -> RepositoryModel:
    """Render the configuration of a pipeline into its model folder, unless it is there already.

    Args:
        source: The pipeline in the manifest.
        configs: The configurations of its steps, as Triton has completed them, by name of the model.
        settings: The agent's settings.

    Raises:
        Failure: InvalidPipeline: the tensors of the steps do not fit. SignaturePolicyUnreadable. DiskFull.
    """
    policy = read_policy(settings)  # without files of its own, a pipeline passes any that can be read
    ensemble = build_ensemble(source, configs)
    served = source.without_pins().model_copy(update={"warmup": None})
    steps = find_steps(ensemble)
    model = RepositoryModel(
        source_hash=_hash(served.to_json(), config.to_text(ensemble)),
        identity="",
        digest=_digest_steps(source),
        size=0,
        versions=(1,),
        seconds=0.0,
        boot=read_boot_id(),
        callees=steps,
        steps=steps,
        verified=(policy.check,) if policy else (),
        policy=policy.version if policy else "",
        written=find_written_values(ensemble, {}),
    )
    config.set_content(ensemble, model.content)
    target, folder = settings.repository / check_name(source), settings.downloads / source.name
    if read_marker(target) != model:
        text, plan = config.to_text(ensemble), layout.Plan({}, model.versions, None)
        trash = find_trash(settings.downloads, target.name)
        with translate_full_disk(source.storage_uri):
            layout.build_folder(plan, folder, folder / "laid", target, trash, config=text, marker=asdict(model))
    return model


def _digest_steps(source: ModelSource) -> str:
    """Return the digest of a pipeline, whose steps have digests of their own."""
    return f"sha256:{_hash(*(step.to_json() for step in source.steps))}"


def _hash(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()
