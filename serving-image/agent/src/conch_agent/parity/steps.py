"""The step of an ensemble by which two revisions differ: each step gets the same inputs in both, in turn."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conch_agent.parity.compare import Incomparable, compare
from conch_agent.triton import TritonError, TritonUnavailableError
from conch_agent.warmup.answers import RawTensor, read_outputs, read_raw_tensors
from conch_agent.warmup.infer import Answer, Endpoint
from conch_agent.warmup.requests import Request
from conch_contract import Parity

Tensors = Mapping[str, RawTensor]


@dataclass(frozen=True)
class Step:
    """A step of an ensemble (Triton's ModelEnsembling.Step).

    Attributes:
        model: Name of the model.
        version: The version; None: the newest.
        inputs: Tensors of the ensemble by input of the model.
        outputs: The same of outputs.
    """

    model: str
    version: int | None
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class Ensembles:
    """The ensembles of two revisions.

    Attributes:
        stable: Root of the stable revision's HTTP API.
        candidate: The same of the candidate.
        steps: Steps of both; empty: the models are no ensembles, or have other steps.
        deadline: Time (of `time.monotonic`) until which requests wait for a server.
    """

    stable: str
    candidate: str
    steps: Sequence[Step]
    deadline: float

    async def find_step(self, request: Request, settings: Parity) -> str:
        """Return the model of the first step whose answers to the same inputs differ; empty: none is found.

        Args:
            request: A request to which the ensembles answer differently.
            settings: Method of the comparison; it compares all outputs of a step.
        """
        try:
            async with asyncio.timeout(max(1.0, self.deadline - time.monotonic())):
                return await self._replay(request, settings.model_copy(update={"outputs": ()}))
        except (TritonError, TritonUnavailableError, TimeoutError, ValueError, KeyError, TypeError):
            return ""  # the comparison itself has a result

    async def _replay(self, request: Request, settings: Parity) -> str:
        known = dict(read_raw_tensors(request.content, request.header, "inputs"))
        waiting = list(self.steps)
        while due := next((step for step in waiting if all(name in known for name in step.inputs.values())), None):
            waiting.remove(due)
            content = build_request(due, known)
            stable = await self._infer(self.stable, due, content)
            try:
                candidate = await self._infer(self.candidate, due, content)
            except TritonError:
                return due.model
            answers = (read_outputs(each.content, each.header) for each in (stable, candidate))
            result = compare(settings, *answers)
            if result is not None and not isinstance(result, Incomparable):
                return due.model
            found = read_raw_tensors(stable.content, stable.header, "outputs")
            known |= {tensor: found[output] for output, tensor in due.outputs.items() if output in found}
        return ""

    async def _infer(self, root: str, step: Step, request: Request) -> Answer:
        async with Endpoint(root, step.model, deadline=self.deadline) as endpoint:
            return await endpoint.infer(step.version, request)


def find_common_steps(stable: Mapping[str, Any], candidate: Mapping[str, Any]) -> tuple[Step, ...]:
    """Return the steps of two ensembles; empty: the models are no ensembles, or have other steps.

    Args:
        stable: Triton's configuration of the stable revision's model.
        candidate: The same of the candidate.
    """
    steps = _read_steps(stable)
    return steps if steps == _read_steps(candidate) else ()


def build_request(step: Step, tensors: Tensors) -> Request:
    """Return the request to a step.

    Args:
        step: The step.
        tensors: Tensors of the ensemble by name.
    """
    inputs = [(name, tensors[tensor]) for name, tensor in step.inputs.items()]
    head = {
        "inputs": [{**tensor.head, "name": name} for name, tensor in inputs],
        "parameters": {"binary_data_output": True},  # texts of an image or a file are not UTF-8
    }
    content = json.dumps(head).encode()
    raw = b"".join(tensor.raw for _, tensor in inputs)
    return Request(f"the step {step.model}", content + raw, len(content) if raw else None)


def _read_steps(config: Mapping[str, Any]) -> tuple[Step, ...]:
    return tuple(
        Step(
            model=step["model_name"],
            version=version if (version := int(step.get("model_version", -1))) > 0 else None,
            inputs=step.get("input_map", {}),
            outputs=step.get("output_map", {}),
        )
        for step in config.get("ensemble_scheduling", {}).get("step", ())
    )
