"""Triton's errors as users of Conch read them: the field of the InferenceService first, Triton's words behind."""

from __future__ import annotations

import pytest

from conch.cli.loadtest.driver import describe_failure
from conch_contract.remedies import explain, find_remedy

# As Triton 2.51 answers them.
GROWING = (
    "Failed to process the request(s) for model 'm_0', message: Failed to increase the shared memory pool size for key "
    "'triton_python_backend_shm_region_1' to 67108888 bytes. If you are running Triton inside docker, use '--shm-size' "
    "flag to control the shared memory region size. Error: No space left on device"
)
STARTING = (
    "Unable to initialize shared memory key 'triton_python_backend_shm_region_3' to requested size (1048576 bytes). If "
    "you are running Triton inside docker, use '--shm-size' flag to control the shared memory region size."
)
CALLING = (
    "TritonModelException: Model scaler - Error when running inference: Failed for execute the inference request. "
    "Model 'scaler' is not ready.\n\nAt:\n  /conch/models/repository/m/1/model.py(17): execute\n"
)
UNITS = (
    'Resource count for "slots" is limited to 0 which will prevent scheduling of one or more model instances, the '
    "minimum required count is 2"
)
POLLING = "failed to load 'm', failed to poll from model repository"


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (GROWING, "Raise spec.predictor.triton.shmSize"),
        (STARTING, "Raise spec.predictor.triton.shmSize"),
        (CALLING, "The model calls the model 'scaler'"),
        (POLLING, "Read the log of the container triton"),
        ("Stub process 'loaded_1' is not healthy.", "raise requests.cpu, and limits.cpu if it is set"),
        ("Internal: ModuleNotFoundError: No module named 'torch'", "The image has no Python package 'torch'"),
        (
            "unable to find backend library for backend 'tensorrt', try specifying runtime on the model configuration.",
            "no backend 'tensorrt'. Set spec.predictor.triton.image",
        ),
        (
            "instance group m_0 of model m has kind KIND_GPU but no GPUs are available",
            "Set spec.predictor.resources.limits['nvidia.com/gpu']",
        ),
        (
            UNITS,
            "Set --rate-limit-resource=slots:2, or more units, in spec.predictor.triton.args",
        ),
        (
            'Resource "slots" is present as both global and device-specific resource in the model configuration.',
            "Set global of this resource to the same value",
        ),
        (
            "Response Cache does not currently support model m with 'decoupled' transaction policy.",
            "Remove spec.predictor.triton.responseCache, or response_cache",
        ),
    ],
)
def test_a_known_error_begins_with_the_remedy_and_ends_with_tritons_words(error: str, part: str) -> None:
    assert part in find_remedy(error)
    assert explain(error).startswith(find_remedy(error))
    assert explain(error).endswith(error)


def test_kubectl_conch_load_names_the_remedy_of_a_request_that_fails() -> None:
    assert describe_failure(ValueError(GROWING)).startswith("Shared memory (/dev/shm) is full")
    assert "Triton's words: Failed to process the request(s)" in describe_failure(ValueError(GROWING))
    assert "\n" not in describe_failure(ValueError(CALLING))
