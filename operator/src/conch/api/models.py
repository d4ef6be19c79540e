"""The models of a predictor of several, each with a name, a storage and a configuration of its own."""

from typing import Annotated, Final

from pydantic import ConfigDict, Field

from conch.api._base import Part
from conch.api.cel import Rule, rules
from conch.api.model import (
    Model,
    ModelFormat,
    Storage,
    StorageUri,
    TritonName,
    cel_may_be_folder,
    mirror_rule,
    secret_rule,
    watch_rule,
)
from conch.api.triton import ModelConfig
from conch.api.warmup import ModelWarmup
from conch_contract.formats import FORMATS, PROGRAM_PARAMETERS

REPOSITORY: Final = next(row.name for row in FORMATS.values() if row.is_repository)
MAX_MODELS: Final = 16
MAX_MAPPED: Final = 32  # tensors of a step whose names are mapped
_DATA_FORMATS: Final = ", ".join(f"'{row.name}'" for row in FORMATS.values() if row.is_data)
_PROGRAM_PARAMETERS: Final = ", ".join(f"'{name}'" for name in PROGRAM_PARAMETERS)


def program_rule(model: str) -> Rule:
    """Return the rule of parameters by which a model that is data would run a program.

    Args:
        model: CEL of the model; its `triton` is that of `self`.
    """
    return Rule(
        "!has(self.triton) || !has(self.triton.parameters)"
        f" || !({model}.modelFormat.name in [{_DATA_FORMATS}])"
        f" || !self.triton.parameters.exists(name, name in [{_PROGRAM_PARAMETERS}])",
        message=f"a model of the format {_DATA_FORMATS} is data, and the parameters {_PROGRAM_PARAMETERS} run a"
        " program; remove them, or set modelFormat.name to triton",
        path=".triton.parameters",
    )


class NamedModel(Model):
    """A model of several."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            secret_rule(),
            watch_rule(),
            mirror_rule(),
            program_rule("self"),
            Rule(
                f"self.modelFormat.name != '{REPOSITORY}'",
                message=f"a model of several is one model, and the format {REPOSITORY} has several; write each of its"
                " folders as a model of the format triton, or the repository as model in place of models",
                path=".modelFormat.name",
            ),
            Rule(
                f"!has(self.warmup) || !has(self.warmup.path) || ({cel_may_be_folder('self.storageUri')})",
                message="warmup.path needs a storageUri that is a folder; use configMapRef",
                path=".warmup.path",
            ),
        )
    )

    name: TritonName
    """Name of the model in Triton."""
    triton: ModelConfig = ModelConfig()
    """Configuration of the model in Triton."""
    warmup: ModelWarmup | None = None
    """Warm-up of the model in each pod. That of the entry is predictor.warmup. {}: with a generated request. Absent:
    none."""
    required: bool = True
    """False: if the model fails, pods are ready without it, and a rollout goes on. It is tried again."""


TensorName = Annotated[str, Field(min_length=1, max_length=128)]


class PipelineStep(Part):
    """A step of a pipeline: one of models, and its place among the tensors of the pipeline."""

    model: TritonName
    """Name of the model."""
    inputs: Annotated[dict[TensorName, TensorName], Field(max_length=MAX_MAPPED)] = Field(default_factory=dict)
    """Tensors by input of the model, where their names differ: outputs of earlier steps, or what clients send. Absent:
    the tensor of the input's name."""
    outputs: Annotated[dict[TensorName, TensorName], Field(max_length=MAX_MAPPED)] = Field(default_factory=dict)
    """Names for outputs of the model, by which later steps, or clients of the last one, know them. Absent: the output's
    name."""


class VariantNamedModel(Part):
    """Differences of a variant from a model of several. triton replaces that of the model; it takes the others."""

    model_config = ConfigDict(
        json_schema_extra=rules(*(rule("has(self.storageUri)") for rule in (secret_rule, watch_rule, mirror_rule)))
    )

    name: TritonName
    """Name of the model of the predictor."""
    model_format: ModelFormat | None = None
    """Format of the model's files. Absent: that of the predictor."""
    storage_uri: StorageUri | None = None
    """URI of the model's files. Absent: that of the predictor."""
    storage: Storage | None = None
    """Access to the storage, and checks of its files. Absent: what of the predictor's fits storageUri."""
    triton: ModelConfig | None = None
    """Configuration of the model in Triton. Absent: that of the predictor."""
