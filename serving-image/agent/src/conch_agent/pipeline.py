"""The configuration of a pipeline: an ensemble of Triton, rendered from the configurations of its steps.

Tensors are connected by name. An input of a step is the tensor of its name that the nearest earlier step returns. The
client sends the inputs of the first step, and an input of a later step that is mapped to its own name. It gets the
outputs of the last step. `<model>.<output>` is a name of each output, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
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
        data_type: Type, as in Triton's ModelConfig.
        shape: Its dimensions, -1 for a variable one; the first is that of the batch, of a model that batches.
        step: Model that returns it; empty: the client sends it.
        is_optional: True if the client may leave it out.
    """

    data_type: int
    shape: tuple[int, ...]
    step: str = ""
    is_optional: bool = False

    def __str__(self) -> str:
        """Return type and shape, such as `FP32 [-1, 8]`."""
        return f"{DataType.Name(self.data_type).removeprefix('TYPE_')} {list(self.shape)}"

    @property
    def origin(self) -> str:
        """Its sender, for a sentence."""
        return f"step '{self.step}' returns" if self.step else "the client sends"

    def narrow(self, other: Tensor) -> Tensor | None:
        """Return the tensor whose values are values of another one, too; None: there are none.

        Args:
            other: The other tensor.

        >>> Tensor(11, (-1, 3)).narrow(Tensor(11, (8, -1))).shape, Tensor(11, (-1, 3)).narrow(Tensor(11, (3,)))
        ((8, 3), None)
        """
        if self.data_type != other.data_type or len(self.shape) != len(other.shape):
            return None
        sizes = tuple(zip(self.shape, other.shape, strict=True))
        if any(a != b and _VARIABLE not in {a, b} for a, b in sizes):
            return None
        shape = tuple(max(pair) for pair in sizes)
        return replace(self, shape=shape, is_optional=self.is_optional and other.is_optional)


@dataclass(frozen=True)
class ConnectedStep:
    """A step, with names of tensors of the ensemble by input and by output of its model."""

    model: str
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)


def build_ensemble(source: ModelSource, configs: Mapping[str, ModelConfig]) -> ModelConfig:
    """Return the configuration of a pipeline.

    The ensemble batches if all of its steps do, and its largest batch is the smallest of theirs.

    Args:
        source: The pipeline in the manifest.
        configs: The configurations of its steps, as Triton has completed them, by name of the model.

    Raises:
        Failure: InvalidPipeline: the tensors of the steps do not fit.
    """
    connections = _Connections(source)
    for step in source.steps:
        connections.add(step, configs[step.model])
    used, steps, tensors = connections.find_used(), connections.steps, connections.tensors
    ensemble = ModelConfig(name=source.name, platform="ensemble")
    ensemble.max_batch_size = min(configs[step.model].max_batch_size for step in steps)
    ensemble.model_transaction_policy.decoupled = any(
        configs[step.model].model_transaction_policy.decoupled for step in steps
    )
    batch_dimensions = 1 if ensemble.max_batch_size else 0
    for name, tensor in tensors.items():
        if not tensor.step:
            sent = ensemble.input.add(name=name, data_type=tensor.data_type, dims=tensor.shape[batch_dimensions:])
            sent.optional = tensor.is_optional
    for name in steps[-1].outputs.values():
        tensor = tensors[name]
        ensemble.output.add(name=name, data_type=tensor.data_type, dims=tensor.shape[batch_dimensions:])
    for connected in steps:
        rendered = ensemble.ensemble_scheduling.step.add(model_name=connected.model, model_version=-1)
        rendered.input_map.update(connected.inputs)
        rendered.output_map.update({output: name for output, name in connected.outputs.items() if name in used})
    return ensemble


class _Connections:
    """The steps that are connected so far.

    Attributes:
        steps: These steps.
        tensors: The tensors of the ensemble by name, in the order in which they are sent and returned.
    """

    def __init__(self, source: ModelSource) -> None:
        self.steps: list[ConnectedStep] = []
        self.tensors: dict[str, Tensor] = {}
        self._known: dict[str, str] = {}  # names in the ensemble by the names that the next step knows
        self._source = source

    def add(self, step: PipelineStep, config: ModelConfig) -> None:
        """Connect the next step."""
        self._check_names(step, config)
        connected = ConnectedStep(step.model)
        for each in config.input:
            if (name := self._connect_input(step, each, config)) is not None:
                connected.inputs[each.name] = name
        returned: dict[str, str] = {}
        is_last = len(self.steps) == len(self._source.steps) - 1
        for each in config.output:
            qualified, name = f"{step.model}.{each.name}", step.outputs.get(each.name, each.name)
            inner = connected.outputs[each.name] = name if is_last else qualified
            if taken := self.tensors.get(inner):
                raise self._build_taken(step, each.name, inner, taken)
            self.tensors[inner] = Tensor(each.data_type, _read_shape(each, config), step.model)
            returned |= {qualified: inner, name: inner}
        self._known |= returned
        self.steps.append(connected)

    def _connect_input(self, step: PipelineStep, each: Any, config: ModelConfig) -> str | None:
        """Return the tensor that an input of a step is; None: it stays unset."""
        name: str = step.inputs.get(each.name, each.name)
        is_mapped, is_first = each.name in step.inputs, not self.steps
        read = Tensor(each.data_type, _read_shape(each, config), is_optional=each.optional)
        may_be_unset = each.optional and not is_mapped
        inner = self._known.get(name)
        if inner is None:
            if may_be_unset and not is_first:
                return None
            if not is_first and not (is_mapped and name == each.name):
                raise self._build_missing(step, each.name, name, read)
            self.tensors[name], self._known[name] = read, name
            return name
        tensor = self.tensors[inner]
        narrowed = tensor.narrow(read)
        if narrowed is None:
            if may_be_unset:
                return None
            raise self._build_mismatch(step, each.name, name, read, tensor)
        if not tensor.step:
            self.tensors[inner] = narrowed
        return inner

    def find_used(self) -> set[str]:
        """Return the names of the tensors that a step or the client reads.

        Raises:
            Failure: InvalidPipeline: no step reads what one returns.
        """
        used = {name for step in self.steps for name in step.inputs.values()} | set(self.steps[-1].outputs.values())
        for number, step in enumerate(self.steps):
            if not used & set(step.outputs.values()):
                raise self._build_unused(step, self.steps[number + 1])
        return used

    def _check_names(self, step: PipelineStep, config: ModelConfig) -> None:
        """Refuse a mapping of a tensor that the model does not have, and one name for two outputs."""
        for kind, mapped, present in (("input", step.inputs, config.input), ("output", step.outputs, config.output)):
            known = [each.name for each in present]
            if unknown := next((name for name in mapped if name not in known), None):
                message = f"step '{step.model}' maps the {kind} '{unknown}', and the {kind}s of its model are"
                raise self._build_failure(f"{message} {_join(map(repr, known))}. Correct the name.")
        names = [step.outputs.get(each.name, each.name) for each in config.output]
        if twice := next((name for name in names if names.count(name) > 1), None):
            message = f"two outputs of step '{step.model}' have the name '{twice}'."
            raise self._build_failure(f"{message} Map one of them to another name with outputs.")

    def _build_missing(self, step: PipelineStep, name: str, wanted: str, read: Tensor) -> Failure:
        tensors = ((each, self.tensors[inner]) for each, inner in self._known.items())
        known = _join(f"'{each}' ({tensor})" for each, tensor in tensors if not each.startswith(f"{tensor.step}."))
        mapped = f"'{name}', mapped to '{wanted}'," if wanted != name else f"'{name}'"
        message = f"step '{step.model}' reads {mapped} as {read}, and before it there is {known}."
        remedy = f"Map the input to one of these with inputs: {{{name}: ...}}; to have clients send it, write"
        return self._build_failure(f"{message} {remedy} inputs: {{{name}: {name}}}.")

    def _build_mismatch(self, step: PipelineStep, name: str, wanted: str, read: Tensor, tensor: Tensor) -> Failure:
        message = f"step '{step.model}' reads '{name}' as {read}, and {tensor.origin} '{wanted}' as {tensor}."
        batch = (_VARIABLE,)
        if batch + read.shape == tensor.shape or batch + tensor.shape == read.shape:
            message += (
                " One of the two models batches (max_batch_size above 0), so that its tensors have the dimension of the"
                " batch, and the other one does not. Set max_batch_size of both alike."
            )
            return self._build_failure(message)
        return self._build_failure(f"{message} Correct one of the models, or put a step between them.")

    def _build_taken(self, step: PipelineStep, output: str, name: str, tensor: Tensor) -> Failure:
        message = f"{tensor.origin} '{name}', and step '{step.model}' returns a tensor of that name, too."
        return self._build_failure(
            f"{message} Rename one, such as with outputs: {{{output}: result}} of the last step."
        )

    def _build_unused(self, step: ConnectedStep, following: ConnectedStep) -> Failure:
        message = f"no later step reads what step '{step.model}' returns ({_join(map(repr, step.outputs))})."
        sent = next(((each, name) for each, name in following.inputs.items() if not self.tensors[name].step), None)
        if sent is None or not step.outputs:
            return self._build_failure(f"{message} Map an input of a later step to it, or remove the step.")
        output = next(iter(step.outputs))
        message += f" Step '{following.model}' reads '{sent[1]}', which the client sends."
        return self._build_failure(f"{message} Map it, such as with inputs: {{{sent[0]}: {output}}} of that step.")

    def _build_failure(self, message: str) -> Failure:
        return Failure(Reason.INVALID_PIPELINE, f"Pipeline '{self._source.name}': {message}")


def _join(words: Iterable[str]) -> str:
    return join_words(found, "and") if (found := tuple(words)) else "none"


def _read_shape(tensor: Any, config: ModelConfig) -> tuple[int, ...]:
    """Return the shape of an input or output of a model, as its clients see it."""
    return ((_VARIABLE,) if config.max_batch_size > 0 else ()) + tuple(tensor.dims)
