"""Optimizations that Triton leaves to the backend of a model.

Those of ModelOptimizationPolicy that present backends read and users set. `config` takes the others.
"""

from typing import Annotated, Literal

from pydantic import Field

from conch.api._base import Part


class Cuda(Part):
    """CUDA in the TensorRT backend."""

    graphs: bool
    """True: TensorRT captures CUDA graphs and replays them."""


class Graph(Part):
    """Optimization of the model's graph."""

    level: Annotated[int, Field(ge=-1, le=2)]
    """ONNX Runtime: -1 basic, 1 extended, 2 none, 0 all. TensorFlow: 1 and 2 with XLA."""


class Accelerator(Part):
    """An execution accelerator."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    """Name in the backend, such as tensorrt or openvino."""
    parameters: Annotated[dict[str, Annotated[str, Field(max_length=1024)]], Field(max_length=64)] = Field(
        default_factory=dict
    )
    """Parameters, as texts."""


class ExecutionAccelerators(Part):
    """Execution accelerators. A list that is set replaces that of config.pbtxt."""

    gpu: Annotated[tuple[Accelerator, ...] | None, Field(max_length=4)] = None
    """Those of instances on a GPU."""
    cpu: Annotated[tuple[Accelerator, ...] | None, Field(max_length=4)] = None
    """Those of instances on the CPU."""


class Optimization(Part):
    """Optimizations (Triton's ModelOptimizationPolicy). An unset field has the value of config.pbtxt."""

    priority: Literal["Default", "Max", "Min"] | None = None
    """Priority of the model on its GPU, for TensorRT."""
    cuda: Cuda | None = None
    """CUDA, for TensorRT."""
    graph: Graph | None = None
    """The model's graph, for ONNX Runtime and TensorFlow."""
    input_pinned_memory: bool | None = None
    """False: inputs for a GPU pass no pinned memory. Absent: as in config.pbtxt, or true."""
    output_pinned_memory: bool | None = None
    """False: outputs of a GPU pass no pinned memory. Absent: as in config.pbtxt, or true."""
    execution_accelerators: ExecutionAccelerators | None = None
    """Accelerators, for ONNX Runtime and TensorFlow."""
