"""The plan of a model folder: Triton's configuration, and which file of the model is where."""

from __future__ import annotations

from dataclasses import dataclass

from conch_agent import config, layout
from conch_agent.config_file import read_config_file
from conch_agent.model_files import read_names
from conch_agent.sources import Source
from conch_agent.sources.base import Listing
from conch_contract.formats import FORMATS
from conch_contract.manifest import ModelSource


@dataclass(frozen=True)
class ModelPlan:
    """Configuration and layout of a model.

    Attributes:
        text: The text of config.pbtxt; None: the model has none.
        merged: The configuration, with the fields of the InferenceService.
        layout: The places of the files in the model folder.
    """

    text: str | None
    merged: config.MergedConfig
    layout: layout.Plan


async def read_plan(source: Source, listing: Listing, model: ModelSource, uri: str) -> ModelPlan:
    """Return the plan of files that can be read as they are laid out.

    Args:
        source: The source of the files.
        listing: The files.
        model: The model in the manifest.
        uri: The storageUri of the place, with which messages begin.

    Raises:
        Failure: InvalidConfig, ConfigConflict, NotAModel, SeveralModels, or as the source.
    """
    text = await read_config_file(source, listing, model.format)
    merged = config.merge_config(text, model, FORMATS[model.format].backend)
    paths, names = [item.path for item in listing.items], read_names(merged.config, uri)
    return ModelPlan(text, merged, layout.plan_layout(model.format, paths, uri, names))
