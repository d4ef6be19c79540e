"""The configuration of a pipeline: an ensemble of Triton, rendered from the configurations of its steps.

Tensors are connected by name: an input of a step is the tensor of its name that the nearest earlier step returns, or
that the client sends. The client sends the inputs of the first step, and those that a later step maps to a name that no
earlier step returns. It gets the outputs of the last step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig

from conch_agent.reasons import Failure, Reason
from conch_contract import ModelSource, PipelineStep
from conch_contract.sentences import join_words

_VARIABLE: Final = -1  # size of a dimension


@dataclass(frozen=True)
class Tensor:
    """A tensor of the pipeline.

    Attributes:
        name: Name in the ensemble.
        data_type: Type, as in Triton's ModelConfig.
        shape: Its dimensions, -1 for a variable one; the first is that of the batch, of a model that batches.
        step: Model that returns it; empty: the client sends it.
    """

    name: str
    data_type: int
    shape: tuple[int, ...]
    step: str = ""

    def __str__(self) -> str:
        """Return type and shape, such as `FP32 [-1, 8]`."""
        return f"{DataType.Name(self.data_type).removeprefix('TYPE_')} {list(self.shape)}"

    def fits(self, other: Tensor) -> bool:
        """Return True if a value of one tensor can be one of the other.

        Args:
            other: The other tensor.

        >>> Tensor("a", 11, (-1, 3)).fits(Tensor("b", 11, (8, 3))), Tensor("a", 11, (-1, 3)).fits(Tensor("b", 11, (3,)))
        (True, False)
        """
        if self.data_type != other.data_type or len(self.shape) != len(other.shape):
            return False
        return all(a == b or _VARIABLE in {a, b} for a, b in zip(self.shape, other.shape, strict=True))


@dataclass(frozen=True)
class ConnectedStep:
    """A step, and its tensors by input and by output of its model."""

    model: str
    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)


def build_ensemble(source: ModelSource, configs: Mapping[str, ModelConfig]) -> ModelConfig:
    """Return the configuration of a pipeline.

    The ensemble batches if all of its steps do, and its largest batch is the smallest of theirs.

    Args:
        source: The pipeline in the manifest.
        configs: The configurations of its steps, as Triton has completed them, by name of the model.

    Raises:
        Failure: InvalidPipeline: the tensors of the steps do not fit.
    """
    steps = _connect(source, configs)
    used = _check_use(source, steps)
    ensemble = ModelConfig(name=source.name, platform="ensemble")
    ensemble.max_batch_size = min(configs[step.model].max_batch_size for step in steps)
    ensemble.model_transaction_policy.decoupled = any(
        configs[step.model].model_transaction_policy.decoupled for step in steps
    )
    batch_dimensions = 1 if ensemble.max_batch_size else 0
    for tensor in _list_sent(steps):
        ensemble.input.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.shape[batch_dimensions:])
    for tensor in steps[-1].outputs.values():
        ensemble.output.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.shape[batch_dimensions:])
    for step in steps:
        rendered = ensemble.ensemble_scheduling.step.add(model_name=step.model, model_version=-1)
        rendered.input_map.update({name: tensor.name for name, tensor in step.inputs.items()})
        rendered.output_map.update({name: tensor.name for name, tensor in step.outputs.items() if tensor.name in used})
    return ensemble


def _connect(source: ModelSource, configs: Mapping[str, ModelConfig]) -> Sequence[ConnectedStep]:
    """Return the steps with their tensors."""
    connected: list[ConnectedStep] = []
    tensors: dict[str, Tensor] = {}  # the latest of each name
    for step in source.steps:
        config, is_last = configs[step.model], step is source.steps[-1]
        _check_names(source, step, config)
        found = ConnectedStep(step.model)
        for each in config.input:
            name = step.inputs.get(each.name, each.name)
            if name not in tensors and each.optional and each.name not in step.inputs:
                continue
            read = Tensor(name, each.data_type, _read_shape(each, config))
            is_sent = not connected or each.name in step.inputs
            if name not in tensors and not is_sent:
                raise _build_missing(source, step, read, tensors)
            tensor = found.inputs[each.name] = tensors.setdefault(name, read)
            if not tensor.fits(read):
                raise _build_mismatch(source, step, each.name, read, tensor, name)
        returned = {}
        for each in config.output:
            name = step.outputs.get(each.name, each.name)
            inner = name if is_last else f"{step.model}.{each.name}"
            tensor = Tensor(inner, each.data_type, _read_shape(each, config), step.model)
            found.outputs[each.name] = returned[name] = tensor
        tensors |= returned
        connected.append(found)
    return connected


def _list_sent(steps: Sequence[ConnectedStep]) -> Iterator[Tensor]:
    """Yield the tensors that the client sends, each once."""
    yield from dict.fromkeys(tensor for step in steps for tensor in step.inputs.values() if not tensor.step)


def _check_use(source: ModelSource, steps: Sequence[ConnectedStep]) -> set[str]:
    """Return the names of the tensors that a later step, or the client, reads.

    Raises:
        Failure: InvalidPipeline: a step is of no use, or an output has the name of an input.
    """
    used = {tensor.name: tensor for step in steps for tensor in step.inputs.values()}
    for name, tensor in steps[-1].outputs.items():
        if taken := used.get(tensor.name):
            message = f"{_describe_origin(taken)} '{tensor.name}', and so does the last step, '{tensor.step}'."
            raise _build_failure(source, f"{message} Rename one, such as with outputs: {{{name}: result}} of the step.")
        used[tensor.name] = tensor
    for step in steps:
        if not any(tensor.name in used for tensor in step.outputs.values()):
            returned = _join(map(repr, step.outputs))
            message = f"no later step reads what step '{step.model}' returns ({returned})."
            raise _build_failure(source, f"{message} Map an input of a later step to it, or remove the step.")
    return set(used)


def _check_names(source: ModelSource, step: PipelineStep, config: ModelConfig) -> None:
    """Refuse a mapping of a tensor that the model does not have, and one name for two outputs."""
    for kind, mapped, present in (("input", step.inputs, config.input), ("output", step.outputs, config.output)):
        known = [each.name for each in present]
        if unknown := next((name for name in mapped if name not in known), None):
            message = f"step '{step.model}' maps the {kind} '{unknown}', and the {kind}s of its model are"
            raise _build_failure(source, f"{message} {_join(map(repr, known))}. Correct the name.")
    names = [step.outputs.get(each.name, each.name) for each in config.output]
    if twice := next((name for name in names if names.count(name) > 1), None):
        message = f"two outputs of step '{step.model}' have the name '{twice}'."
        raise _build_failure(source, f"{message} Map one of them to another name with outputs.")


def _build_missing(source: ModelSource, step: PipelineStep, read: Tensor, tensors: Mapping[str, Tensor]) -> Failure:
    name, known = read.name, _join(f"'{each}' ({tensor})" for each, tensor in tensors.items())
    message = f"step '{step.model}' reads '{name}' ({read}), and before it there is {known}."
    remedy = f"Map the input, as with inputs: {{{name}: ...}}; inputs: {{{name}: {name}}} has clients send it."
    return _build_failure(source, f"{message} {remedy}")


def _build_mismatch(  # noqa: PLR0917  all of a sentence
    source: ModelSource, step: PipelineStep, field_name: str, read: Tensor, tensor: Tensor, name: str
) -> Failure:
    origin = f"{_describe_origin(tensor)} '{name}' as {tensor}"
    message = f"step '{step.model}' reads '{field_name}' as {read}, and {origin}."
    return _build_failure(source, f"{message} Change one of the models, or put a step between them.")


def _describe_origin(tensor: Tensor) -> str:
    return f"step '{tensor.step}' returns" if tensor.step else "the client sends"


def _build_failure(source: ModelSource, message: str) -> Failure:
    return Failure(Reason.INVALID_PIPELINE, f"Pipeline '{source.name}': {message}")


def _join(words: Iterable[str]) -> str:
    return join_words(found, "and") if (found := tuple(words)) else "none"


def _read_shape(tensor: Any, config: ModelConfig) -> tuple[int, ...]:
    """Return the shape of an input or output of a model, as its clients see it."""
    return ((_VARIABLE,) if config.max_batch_size > 0 else ()) + tuple(tensor.dims)
