"""The parameter EXECUTION_ENV_PATH, which names the environment of a model."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final

from tritonclient.grpc.model_config_pb2 import ModelConfig

from conch_agent.model_files import MODEL_FOLDER

FOLDER: Final = ".environment"  # in the model folder; no file of a model has a hidden name
PARAMETER: Final = "EXECUTION_ENV_PATH"
_FILE: Final = "requirements.txt"


def find_requirements(config: ModelConfig) -> PurePosixPath | None:
    """Return the path of the requirements.txt that a configuration names, in the model folder; None: it names none.

    >>> config = ModelConfig()
    >>> config.parameters[PARAMETER].string_value = "$$TRITON_MODEL_DIRECTORY/requirements.txt"
    >>> find_requirements(config)
    PurePosixPath('requirements.txt')

    Args:
        config: The configuration.
    """
    if PARAMETER not in config.parameters:
        return None
    text = config.parameters[PARAMETER].string_value
    path = PurePosixPath(text.removeprefix(MODEL_FOLDER))
    return path if text.startswith(MODEL_FOLDER) and path.name == _FILE else None


def set_environment(config: ModelConfig) -> ModelConfig:
    """Return the configuration with which Triton uses the environment in the model folder.

    Args:
        config: The configuration.
    """
    changed = ModelConfig()
    changed.CopyFrom(config)
    changed.parameters[PARAMETER].string_value = f"{MODEL_FOLDER}{FOLDER}"
    return changed
