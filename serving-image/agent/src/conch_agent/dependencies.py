"""Models that a model calls: the steps of an ensemble, and the calls of a Python model (BLS)."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from tritonclient.grpc.model_config_pb2 import ModelConfig

_CALL: Final = "InferenceRequest"  # triton_python_backend_utils
_ARGUMENT: Final = "model_name"
_LONGEST: Final = 1024 * 1024  # bytes of a model.py


def find_callees(config: ModelConfig, programs: Iterable[Path]) -> tuple[str, ...]:
    """Return the names of the other models that a model calls, in alphabetical order.

    Args:
        config: The model's configuration.
        programs: The model.py of each version, where the backend is Python.
    """
    callees = {step.model_name for step in config.ensemble_scheduling.step}
    for program in programs:
        if program.stat().st_size <= _LONGEST:
            callees |= find_bls_callees(program.read_bytes())
    return tuple(sorted(callees - {config.name, ""}))


def find_bls_callees(program: bytes) -> set[str]:
    r"""Return the models that a program calls by a name in its own text.

    Args:
        program: The text of a model.py.

    >>> sorted(find_bls_callees(b"A = 'a'\npb.InferenceRequest(model_name=A)\nInferenceRequest(model_name='b')"))
    ['a', 'b']
    """
    try:
        nodes = tuple(ast.walk(ast.parse(program)))
    except (SyntaxError, ValueError, RecursionError):
        return set()
    constants = _find_constants(nodes)
    arguments = [
        keyword.value
        for node in nodes
        if isinstance(node, ast.Call) and _read_name(node.func) == _CALL
        for keyword in node.keywords
        if keyword.arg == _ARGUMENT
    ]
    callees = (_read_text(argument) or constants.get(_read_name(argument)) for argument in arguments)
    return {name for name in callees if name}


def describe_missing_models(model: str, missing: Sequence[str]) -> str:
    """Return the message about models that a model calls and that its Triton does not have.

    Args:
        model: The name of the model.
        missing: The names of the models that it calls.
    """
    names = ", ".join(f"'{name}'" for name in missing)
    return (
        f"Model '{model}' calls {names}, and an InferenceService serves one model. Put all steps into one model, such "
        "as a Python model (modelFormat.name: python), or serve each as an InferenceService of its own and call them "
        "over HTTP or gRPC."
    )


def _find_constants(nodes: Iterable[ast.AST]) -> dict[str, str | None]:
    """Return the text of each name (`A`, `self.a`) that is assigned only one text; None for names with more values."""
    constants: dict[str, str | None] = {}
    for node in nodes:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                name, text = _read_name(target), _read_text(node.value)
                constants[name] = text if constants.get(name, text) == text else None
    return constants


def _read_name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _read_text(node: ast.AST) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
