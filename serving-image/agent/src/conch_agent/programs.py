"""Fields of config.pbtxt with which a model whose format is data would run a program.

An ONNX file is data, and its config.pbtxt must not run a program: Triton loads the shared libraries of
`model_operations` and `runtime`, and a backend in Python unpacks and runs the environment of EXECUTION_ENV_PATH. So
only known fields are accepted, and fields of a newer Triton are refused. Formats that are programs (python, sklearn,
and triton, which may name any backend) accept all fields.
"""

from __future__ import annotations

from typing import Final

from tritonclient.grpc.model_config_pb2 import ModelConfig

from conch_agent.reasons import Failure, Reason
from conch_contract.formats import FORMATS, FormatName

_PROGRAMS: Final = frozenset({"EXECUTION_ENV_PATH"})  # parameters
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


def refuse_programs(file: ModelConfig, format_name: FormatName, uri: str) -> None:
    """Refuse fields that may run a program.

    Args:
        file: The user's config.pbtxt.
        format_name: The format of the model.
        uri: The storageUri, with which messages begin.

    Raises:
        Failure: InvalidConfig.
    """
    if not FORMATS[format_name].is_data:
        return
    fields = {descriptor.name for descriptor, _ in file.ListFields()}
    refused = sorted(fields - _FIELDS) + [f"parameters.{name}" for name in sorted(file.parameters) if name in _PROGRAMS]
    if refused:
        message = (
            f"{uri}: config.pbtxt has {', '.join(refused)}, which may run a program, and a model of the format "
            f"{format_name} is data. Remove it, or set modelFormat.name to triton, whose models are programs."
        )
        raise Failure(Reason.INVALID_CONFIG, message)
