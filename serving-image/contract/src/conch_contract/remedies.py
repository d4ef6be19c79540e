"""Remedies of Triton's errors for a user of Conch, such as a field of the InferenceService.

Triton's messages are for people who start Triton themselves (docker's --shm-size). Triton's message always follows the
remedy.
"""

import re
from typing import Final

SHARED_MEMORY: Final = (
    "Shared memory (/dev/shm) is full: Python models exchange their tensors through it. Raise"
    " spec.predictor.triton.shmSize, and the memory limit in spec.predictor.resources with it."
)
_MODEL_NOT_SERVED: Final = (
    "The model calls the model '{model}', which this InferenceService does not serve. Put the folders of both into one"
    " model repository, and set modelFormat.name to repository and predictor.entry to the model that clients call."
)
_REASON_IN_LOG: Final = (
    "Triton refuses the model's configuration or files, and writes the reason to its log only. Read the log of the"
    " container triton."
)
_NO_PACKAGE: Final = (
    "The image has no Python package '{module}'. Put the package beside model.py, name an environment in"
    " EXECUTION_ENV_PATH of config.pbtxt, or set spec.predictor.triton.image to an image that has it."
)
_NO_BACKEND: Final = (
    "The image has no backend '{backend}'. Set spec.predictor.triton.image to an image that has it, or convert the"
    " model to a format that this image serves."
)
_NO_GPU: Final = (
    "The container has no GPU. Set spec.predictor.resources.limits['nvidia.com/gpu'], or the kind of the instance group"
    " to CPU."
)
_NOT_CACHEABLE: Final = (
    "Triton caches no answers of decoupled models and of models with sequence_batching. Remove"
    " spec.predictor.triton.responseCache, or response_cache from the model's configuration."
)
_TOO_FEW_UNITS: Final = (
    "Triton has too few units of the resource '{resource}', which an instance group takes. Set"
    " --rate-limit-resource={resource}:{count}, or more units, in spec.predictor.triton.args, or remove all flags"
    " --rate-limit-resource."
)
_TWO_SCOPES: Final = (
    "Instance groups have the resource '{resource}' with global and without. Set global of this resource to the same"
    " value in rateLimiter of all models of the InferenceService."
)
_STUB_SILENT: Final = (
    "The process of a Python model ended, or did not answer Triton in time: Triton starts it again, and may crash while"
    " requests wait. If the log of the container triton names no error of the model, it lacks processor time: raise"
    " requests.cpu, and limits.cpu if it is set, in spec.predictor.resources."
)
_OUT_OF_MEMORY: Final = (
    "The model does not fit into the memory of the GPU or of the container, beside what is there. Raise"
    " spec.predictor.resources, or lower the count of triton.instanceGroups or what the backend reserves."
)
# Of CUDA, PyTorch, TensorRT, ONNX Runtime, C++, Python and vLLM.
_MEMORY_PATTERN: Final = re.compile(
    r"out of memory|OutOfMemory|cudaErrorMemoryAllocation|failed to allocate memory|bad_alloc|MemoryError"
    r"|no available memory",
    re.IGNORECASE,
)
_REMEDIES: Final = (
    # python_backend: "Failed to increase the shared memory pool size for key ... use '--shm-size' flag ...", and
    # "Unable to initialize shared memory key ...".
    (re.compile(r"--shm-size|shared memory pool|initialize shared memory key"), SHARED_MEMORY),
    # python_backend, of a call from one model to another (BLS).
    (
        re.compile(r"Failed for execute the inference request\. Model '(?P<model>[^']*)' is not ready"),
        _MODEL_NOT_SERVED,
    ),
    (re.compile(r"ModuleNotFoundError: No module named '(?P<module>[^']*)'"), _NO_PACKAGE),
    # python_backend: the stub has not renewed its sign of life.
    (re.compile(r"Stub process '[^']*' is not healthy"), _STUB_SILENT),
    # Triton's core.
    (re.compile(r"failed to poll from model repository"), _REASON_IN_LOG),
    (re.compile(r"unable to find backend library for backend '(?P<backend>[^']*)'"), _NO_BACKEND),
    (re.compile(r"kind KIND_GPU but no GPUs are available"), _NO_GPU),
    (_MEMORY_PATTERN, _OUT_OF_MEMORY),
    (
        re.compile(r'Resource count for "(?P<resource>[^"]*)" is limited to .* required count is (?P<count>\d+)'),
        _TOO_FEW_UNITS,
    ),
    (re.compile(r'Resource "(?P<resource>[^"]*)" is present as both global and device-specific'), _TWO_SCOPES),
    (re.compile(r"Response Cache does not currently support model"), _NOT_CACHEABLE),
)


def is_out_of_memory(words: str) -> bool:
    """Return True if a load has failed for want of memory.

    Args:
        words: Triton's error message.

    >>> is_out_of_memory("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB.")
    True
    """
    return bool(_MEMORY_PATTERN.search(words))


def find_remedy(words: str) -> str:
    """Return the remedy of an error of Triton; empty where there is none.

    Args:
        words: Triton's error message.

    >>> find_remedy("Model m_0: use '--shm-size' flag")[:36]
    'Shared memory (/dev/shm) is full: Py'
    >>> find_remedy("unexpected shape for input 'x'")
    ''
    """
    for pattern, sentence in _REMEDIES:
        if found := pattern.search(words):
            return sentence.format(**found.groupdict())
    return ""


def explain(words: str) -> str:
    """Return an error of Triton for a user: the remedy, if there is one, and Triton's message.

    Args:
        words: Triton's error message.

    >>> explain("unexpected shape for input 'x'")
    "unexpected shape for input 'x'"
    """
    found = find_remedy(words)
    return f"{found} Triton's words: {words}" if found else words
