"""The interpretation of a model's configuration, which is that of NVIDIA's ONNX Runtime backend.

Each field follows https://github.com/triton-inference-server/onnxruntime_backend (README and src/onnxruntime.cc).
Fields that this backend does not support are refused when the model loads; docs/serving-image.md has the table. No
field that the native backend uses on a CPU is ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime

DEFAULT_MODEL = "model.onnx"
DEFAULT_BATCH = 4
TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
}
_LEVELS = {
    -1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
_TRUE, _FALSE = frozenset({"1", "true"}), frozenset({"0", "false"})
_SHRINKAGE = "memory.enable_memory_arena_shrinkage"
_ALLOCATOR = "session.use_device_allocator_for_initializers"

Config = Mapping[str, Any]


class ConfigError(ValueError):
    """A configuration that the model or this backend does not support: field, value and remedy."""


def find_model_file(config: Config, version: Path) -> Path:
    """Return the model's file: default_model_filename or model.onnx, or model.onnx in a folder of that name.

    Args:
        config: The configuration.
        version: The version's folder.

    Raises:
        ConfigError: There is no such file.
    """
    name = config.get("default_model_filename") or DEFAULT_MODEL
    path = version / name
    path = path / DEFAULT_MODEL if path.is_dir() else path
    if not path.is_file():
        field = "default_model_filename" if config.get("default_model_filename") else "the default"
        found = ", ".join(sorted(file.name for file in version.iterdir())[:8]) or "nothing"
        message = f"version {version.name} has no {name!r} ({field}); it holds {found}. Correct default_model_filename."
        raise ConfigError(message)
    return path


def find_version_folder(config: Config, model_dir: Path) -> Path:
    """Return the version's folder.

    Args:
        config: The configuration.
        model_dir: Triton's model folder, which is the folder of default_model_filename.
    """
    name = Path(config.get("default_model_filename") or DEFAULT_MODEL)
    return model_dir.joinpath(*[".."] * (len(name.parts) - 1)).resolve()


def shares_sessions(config: Config) -> bool:
    """Return True if instances share a session, which saves memory and changes no answer.

    Args:
        config: The configuration.
    """
    return _read_switch(config, "share_session_between_instances")


def refuse_unsupported(config: Config) -> None:
    """Refuse fields of the native backend that this one does not support.

    Args:
        config: The configuration.

    Raises:
        ConfigError: The configuration has such a field.
    """
    sequence = config.get("sequence_batching") or {}
    ragged = [tensor["name"] for tensor in config.get("input", ()) if tensor.get("allow_ragged_batch")]
    accelerators = ((config.get("optimization") or {}).get("execution_accelerators") or {}).get(
        "cpu_execution_accelerator", ()
    )
    names = [accelerator.get("name") for accelerator in accelerators]
    problems = {
        "sequence_batching.state (implicit state)": bool(sequence.get("state")),
        f"allow_ragged_batch of the input {', '.join(ragged)}": bool(ragged),
        "batch_input": bool(config.get("batch_input")),
        "batch_output": bool(config.get("batch_output")),
        "model_transaction_policy.decoupled": bool((config.get("model_transaction_policy") or {}).get("decoupled")),
        f"the CPU execution accelerator {', '.join(map(str, names))}": bool(names),
    }
    for field, is_set in problems.items():
        if is_set:
            message = (
                f"config.pbtxt sets {field}, which the CPU image's ONNX backend does not support. Remove it, or serve "
                "the model from NVIDIA's image."
            )
            raise ConfigError(message)


def build_session_options(config: Config, threads: int) -> onnxruntime.SessionOptions:
    """Return the session's options.

    Args:
        config: The configuration.
        threads: Number of threads if intra_op_thread_count is 0 or absent.

    Raises:
        ConfigError: A parameter has an invalid value.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    level = int((((config.get("optimization") or {}).get("graph")) or {}).get("level") or 0)
    options.graph_optimization_level = _LEVELS.get(level, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)
    mode = _read_number(config, "execution_mode")
    if mode not in {0, 1}:
        message = f"parameters.execution_mode of config.pbtxt is {mode}. Write 0 (sequential) or 1 (parallel)."
        raise ConfigError(message)
    options.execution_mode = (
        onnxruntime.ExecutionMode.ORT_PARALLEL if mode else onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    )
    options.intra_op_num_threads = max(0, _read_number(config, "intra_op_thread_count")) or threads
    options.inter_op_num_threads = max(0, _read_number(config, "inter_op_thread_count")) or (threads if mode else 1)
    options.enable_cpu_mem_arena = _read_switch(config, "enable_mem_arena", default=True)
    options.enable_mem_pattern = _read_switch(config, "enable_mem_pattern", default=True)
    if text := _read_text(config, _ALLOCATOR):
        options.add_session_config_entry(_ALLOCATOR, text)
    for library in (config.get("model_operations") or {}).get("op_library_filename", ()):
        options.register_custom_ops_library(library)
    return options


def build_run_options(config: Config) -> onnxruntime.RunOptions:
    """Return the options of all runs.

    Args:
        config: The configuration.
    """
    options = onnxruntime.RunOptions()
    if text := _read_text(config, _SHRINKAGE):
        options.add_run_config_entry(_SHRINKAGE, text)
    return options


def complete(config: Any, session: onnxruntime.InferenceSession) -> None:
    """Complete the configuration like the native backend.

    With inputs and outputs it is unchanged. Otherwise it gets a batch size of 4 and dynamic batching if the first
    dimension of all tensors is free, and the missing list of inputs or outputs.

    Args:
        config: Triton's pb_utils.ModelConfig.
        session: The model's session.

    Raises:
        ConfigError: The model cannot be batched, or has a tensor of an unsupported type.
    """
    known = config.as_dict()
    if known["input"] and known["output"]:
        return
    inputs, outputs = session.get_inputs(), session.get_outputs()
    batch = known["max_batch_size"]
    batchable = all(tensor.shape and not isinstance(tensor.shape[0], int) for tensor in [*inputs, *outputs])
    if batch and not batchable:
        fixed = [tensor.name for tensor in [*inputs, *outputs] if not tensor.shape or isinstance(tensor.shape[0], int)]
        message = (
            f"max_batch_size is {batch}, but the first dimension of {', '.join(fixed)} is fixed: the model cannot be "
            "batched. Set max_batch_size to 0, or export the model with a free first dimension."
        )
        raise ConfigError(message)
    if not batch and batchable:
        batch = DEFAULT_BATCH
        config.set_max_batch_size(batch)
    if batch > 1 and "dynamic_batching" not in known and "sequence_batching" not in known:
        config.set_dynamic_batching()
    # as_dict() is the configuration itself. add_input() has no reshape, which a tensor of only the batch needs.
    if not known["input"]:
        known["input"] = [_describe_tensor(tensor, batched=batch > 0) for tensor in inputs]
    if not known["output"]:
        known["output"] = [_describe_tensor(tensor, batched=batch > 0) for tensor in outputs]


def check_tensors(config: Config, session: onnxruntime.InferenceSession) -> None:
    """Compare the configuration's inputs and outputs with the model's.

    Args:
        config: The configuration.
        session: The model's session.

    Raises:
        ConfigError: They differ.
    """
    batched = config["max_batch_size"] > 0
    required = {tensor.name: tensor for tensor in session.get_inputs()}
    inputs = required | {tensor.name: tensor for tensor in session.get_overridable_initializers()}
    outputs = {tensor.name: tensor for tensor in session.get_outputs()}
    for kind, given, offered in (("input", config["input"], inputs), ("output", config["output"], outputs)):
        for tensor in given:
            _check_tensor(kind, tensor, offered, batched=batched)
    for tensor in config["input"]:
        if bool(tensor.get("optional")) == (tensor["name"] in required):
            has, write = ("no default", "false") if tensor["name"] in required else ("a default", "true")
            message = f"the input {tensor['name']!r} has {has} in the model. Write optional: {write} in config.pbtxt."
            raise ConfigError(message)
    named = {tensor["name"] for tensor in config["input"]} | set(_list_controls(config))
    unknown = sorted(set(_list_controls(config)) - set(inputs))
    if unknown:
        message = f"config.pbtxt names the sequence controls {unknown}; the model has the inputs {sorted(inputs)}."
        raise ConfigError(message)
    if missing := sorted(set(required) - named):
        message = f"config.pbtxt lacks the inputs {missing} of the model. Add them, or remove all inputs from it."
        raise ConfigError(message)


def _check_tensor(kind: str, tensor: Mapping[str, Any], offered: Mapping[str, Any], *, batched: bool) -> None:
    name = tensor["name"]
    if name not in offered:
        message = f"config.pbtxt names the {kind} {name!r}; the model has {sorted(offered)}. Correct the name."
        raise ConfigError(message)
    model = offered[name]
    expected = TYPES.get(model.type, model.type)
    if tensor["data_type"] != expected:
        given = tensor["data_type"]
        message = f"the {kind} {name!r} is {given} in config.pbtxt and {expected} in the model. Write {expected}."
        raise ConfigError(message)
    if kind == "input" and batched and tensor.get("optional"):
        message = f"the input {name!r} is optional, which a model with a max_batch_size cannot have. Set it to 0."
        raise ConfigError(message)
    dims = [int(size) for size in (tensor["reshape"]["shape"] if tensor.get("reshape") else tensor["dims"])]
    shape = _read_shape(model)
    if not shape and not batched:
        fits = all(size == 1 for size in dims)
    else:
        whole = [-1, *dims] if batched else dims
        first = not batched or (bool(shape) and shape[0] == -1)
        pairs = zip(whole, shape, strict=False)
        fits = first and len(whole) == len(shape) and all(-1 in pair or pair[0] == pair[1] for pair in pairs)
    if not fits:
        batch = " after the batch's" if batched else ""
        message = f"the {kind} {name!r} has dims {dims}{batch} in config.pbtxt and {shape} in the model. Correct them."
        raise ConfigError(message)


def _list_controls(config: Config) -> list[str]:
    return [control["name"] for control in (config.get("sequence_batching") or {}).get("control_input", ())]


def _describe_tensor(tensor: Any, *, batched: bool) -> dict[str, Any]:
    kind = TYPES.get(tensor.type)
    if kind is None:
        message = f"{tensor.name!r} is of type {tensor.type}, for which the CPU image has no tensor. Convert the model."
        raise ConfigError(message)
    dims = _read_shape(tensor)[1:] if batched else _read_shape(tensor)
    if dims:
        return {"name": tensor.name, "data_type": kind, "dims": dims}
    reshape = {"reshape": {"shape": []}} if batched else {}
    return {"name": tensor.name, "data_type": kind, "dims": [1], **reshape}


def _read_shape(tensor: Any) -> list[int]:
    return [size if isinstance(size, int) else -1 for size in tensor.shape]


def _read_text(config: Config, name: str) -> str:
    return str(((config.get("parameters") or {}).get(name) or {}).get("string_value", "")).strip()


def _read_number(config: Config, name: str) -> int:
    text = _read_text(config, name) or "0"
    try:
        return int(text)
    except ValueError:
        message = f"parameters.{name} of config.pbtxt is {text!r}. Write a whole number."
        raise ConfigError(message) from None


def _read_switch(config: Config, name: str, *, default: bool = False) -> bool:
    text = _read_text(config, name).lower()
    if text and text not in _TRUE | _FALSE:
        message = f"parameters.{name} of config.pbtxt is {text!r}. Write 1 or 0."
        raise ConfigError(message)
    return text in _TRUE if text else default
