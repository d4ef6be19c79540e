"""Models that a model calls: the steps of an ensemble, and the calls of a Python model (BLS)."""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from tritonclient.grpc.model_config_pb2 import ModelConfig

from conch_contract.sentences import join_some, join_words

_CALL: Final = "InferenceRequest"  # triton_python_backend_utils
_ARGUMENT: Final = "model_name"
_LONGEST: Final = 1024 * 1024  # bytes of a model.py


def find_steps(config: ModelConfig) -> tuple[str, ...]:
    """Return the names of the models that are steps of an ensemble, in alphabetical order; none for other models.

    Args:
        config: The model's configuration.
    """
    return tuple(sorted({step.model_name for step in config.ensemble_scheduling.step}))


def find_callees(config: ModelConfig, programs: Iterable[Path]) -> tuple[str, ...]:
    """Return the names of the other models that a model calls, in alphabetical order.

    Args:
        config: The model's configuration.
        programs: The model.py of each version, where the backend is Python.
    """
    callees = set(find_steps(config))
    for program in programs:
        if program.stat().st_size <= _LONGEST:
            callees |= find_bls_callees(program.read_bytes())
    return tuple(sorted(callees - {config.name, ""}))


def makes_calls(programs: Iterable[Path]) -> bool:
    """Return True if a program of a model may call other models (BLS), of whatever name.

    Args:
        programs: All Python files of the model, where the backend is Python.
    """
    return any(_makes_calls(program.read_bytes()) for program in programs)


def _makes_calls(program: bytes) -> bool:
    try:
        nodes = ast.walk(ast.parse(program)) if len(program) <= _LONGEST else None
    except (SyntaxError, ValueError, RecursionError):
        nodes = None
    if nodes is None:
        return _CALL.encode() in program
    return any(isinstance(node, ast.Call) and _read_name(node.func) == _CALL for node in nodes)


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


def find_path(find_callees: Callable[[str], Iterable[str]], start: str, end: str) -> tuple[str, ...]:
    """Return the models from one to another along their calls, both included; empty where there is no way.

    Args:
        find_callees: Returns the models that a model calls.
        start: The first model.
        end: The last model.

    >>> calls = {"a": ["b", "c"], "b": ["d"], "c": [], "d": ["a"]}
    >>> find_path(calls.__getitem__, "b", "a"), find_path(calls.__getitem__, "c", "a")
    (('b', 'd', 'a'), ())
    """
    paths: deque[tuple[str, ...]] = deque([(start,)])
    seen = {start}
    while paths:
        path = paths.popleft()
        if path[-1] == end:
            return path
        for name in find_callees(path[-1]):
            if name not in seen:
                seen.add(name)
                paths.append((*path, name))
    return ()


def describe_missing_models(model: str, missing: Sequence[str], others: Sequence[str]) -> str:
    """Return the message about models that a model calls and that its Triton does not have.

    Args:
        model: The name of the model.
        missing: The names of the models that it calls.
        others: The names of the other models of the InferenceService.
    """
    names = join_words((f"'{name}'" for name in missing), "and")
    if not others:
        return (
            f"Model '{model}' calls {names}, and this InferenceService serves one model. Put the folders of all of them"
            " into one model repository, and set modelFormat.name to repository and predictor.entry to the model that"
            " clients call."
        )
    return (
        f"Model '{model}' calls {names}, which this InferenceService does not serve; beside '{model}' it serves"
        f" {join_some(others)}. Add what is missing to its models, or correct the name where '{model}' calls it."
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
