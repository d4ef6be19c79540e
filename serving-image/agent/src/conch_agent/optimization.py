"""Optimizations: the fields of the manifest, merged into those of config.pbtxt, and the backends that use them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from tritonclient.grpc.model_config_pb2 import ModelOptimizationPolicy

from conch_contract import Accelerator, Optimization
from conch_contract.sentences import join_words

_TENSORRT: Final = ("tensorrt",)
_GRAPH_BACKENDS: Final = ("onnxruntime", "tensorflow")
# Backends that read a field, by the field of the contract and its name in the manifest. All C++ backends use pinned
# memory.
_BACKENDS: Final = {
    "priority": ("priority", _TENSORRT),
    "cuda_graphs": ("cuda", _TENSORRT),
    "graph_level": ("graph", _GRAPH_BACKENDS),
    "gpu_accelerators": ("executionAccelerators.gpu", _GRAPH_BACKENDS),
    "cpu_accelerators": ("executionAccelerators.cpu", _GRAPH_BACKENDS),
}


def merge_optimization(policy: ModelOptimizationPolicy, settings: Optimization) -> None:
    """Merge the fields that are set into a message.

    Args:
        policy: The message, which is changed.
        settings: The fields of the manifest.
    """
    if settings.priority is not None:
        policy.priority = ModelOptimizationPolicy.ModelPriority.Value(settings.priority)
    if settings.cuda_graphs is not None:
        policy.cuda.graphs = settings.cuda_graphs
    if settings.graph_level is not None:
        policy.graph.level = settings.graph_level
    if settings.input_pinned_memory is not None:
        policy.input_pinned_memory.enable = settings.input_pinned_memory
    if settings.output_pinned_memory is not None:
        policy.output_pinned_memory.enable = settings.output_pinned_memory
    if settings.gpu_accelerators is not None:
        _replace(policy.execution_accelerators.gpu_execution_accelerator, settings.gpu_accelerators)
    if settings.cpu_accelerators is not None:
        _replace(policy.execution_accelerators.cpu_execution_accelerator, settings.cpu_accelerators)


def find_unused(settings: Optimization, backend: str) -> str:
    """Return a field that the backend ignores, with the backends that read it; empty: there is none.

    Args:
        settings: The fields of the manifest.
        backend: The backend of the model.

    >>> find_unused(Optimization(cuda_graphs=True), "onnxruntime")
    'cuda (of tensorrt)'
    >>> find_unused(Optimization(graph_level=1), "onnxruntime")
    ''
    """
    return next(
        (
            f"{name} (of {join_words(backends, 'and')})"
            for field, (name, backends) in _BACKENDS.items()
            if getattr(settings, field) is not None and backend not in backends
        ),
        "",
    )


def _replace(target: Any, accelerators: Iterable[Accelerator]) -> None:
    del target[:]
    for each in accelerators:
        target.add(name=each.name, parameters=each.parameters)
