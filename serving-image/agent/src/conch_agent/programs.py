"""Fields of config.pbtxt with which a model whose format is data would run a program.

An ONNX file is data, and its config.pbtxt must not run a program: Triton loads the shared libraries of
`model_operations` and `runtime`, and a backend in Python unpacks and runs the environment of EXECUTION_ENV_PATH. The
accelerator tensorrt of ONNX Runtime loads the shared libraries of trt_extra_plugin_lib_paths. So
only known fields are accepted, and fields of a newer Triton are refused. Formats that are programs (python, sklearn,
and triton, which may name any backend) accept all fields.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from tritonclient.grpc.model_config_pb2 import ModelConfig

from conch_agent.reasons import Failure, Reason
from conch_contract.formats import FORMATS, PROGRAM_PARAMETERS
from conch_contract.manifest import ModelSource, TritonConfig

_PROGRAMS: Final = (*PROGRAM_PARAMETERS, "trt_extra_plugin_lib_paths")
_FIELDS: Final = frozenset(
    {
        "backend",
        "batch_input",
        "batch_output",
        "cc_model_filenames",
        "default_model_filename",
        "dynamic_batching",
        "ensemble_scheduling",  # refused with a message of its own
        "input",
        "instance_group",
        "max_batch_size",
        "metric_tags",
        "model_transaction_policy",
        "model_warmup",
        "name",
        "optimization",
        "output",
        "parameters",
        "platform",
        "response_cache",
        "sequence_batching",
        "version_policy",
    }
)


def refuse_programs(file: ModelConfig, source: ModelSource) -> None:
    """Refuse fields that may run a program.

    Args:
        file: The user's config.pbtxt.
        source: The model in the manifest.

    Raises:
        Failure: InvalidConfig.
    """
    if not FORMATS[source.format].is_data:
        return
    fields = {descriptor.name for descriptor, _ in file.ListFields()}
    refused = sorted(fields - _FIELDS) + _list_programs(_list_parameters(file))
    typed = _list_programs(_list_typed_parameters(source.config))
    if refused or typed:
        found = (
            f"config.pbtxt has {', '.join(refused)}"
            if refused
            else f"triton of the InferenceService has {', '.join(typed)}"
        )
        message = (
            f"{source.storage_uri}: {found}, which may run a program, and a model of the format "
            f"{source.format} is data. Remove it, or set modelFormat.name to triton, whose models are programs."
        )
        raise Failure(Reason.INVALID_CONFIG, message)


def _list_programs(parameters: Collection[str]) -> list[str]:
    return [f"parameters.{name}" for name in _PROGRAMS if name in parameters]


def _list_parameters(file: ModelConfig) -> set[str]:
    """Return the names of the parameters of the model and of its execution accelerators."""
    accelerators = file.optimization.execution_accelerators.gpu_execution_accelerator
    return {*file.parameters, *(name for each in accelerators for name in each.parameters)}


def _list_typed_parameters(settings: TritonConfig) -> set[str]:
    accelerators = (settings.optimization and settings.optimization.gpu_accelerators) or ()
    return {*settings.parameters, *(name for each in accelerators for name in each.parameters)}
