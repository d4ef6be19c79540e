"""Triton's server flags, model configuration and metrics, as pure functions of the spec."""

from conch.triton.config import build_model_config
from conch.triton.configured import ConfiguredValue, list_configured_values
from conch.triton.flags import (
    DRAIN_SECONDS,
    END_SECONDS,
    build_server_command,
    count_cache_bytes,
    has_response_cache,
    uses_rate_limiter,
)
from conch.triton.tracing import POD_NAME_VARIABLE, build_trace_flags
from conch.triton.warmup import build_warmup

__all__ = [
    "DRAIN_SECONDS",
    "END_SECONDS",
    "POD_NAME_VARIABLE",
    "ConfiguredValue",
    "build_model_config",
    "build_server_command",
    "build_trace_flags",
    "build_warmup",
    "count_cache_bytes",
    "has_response_cache",
    "list_configured_values",
    "uses_rate_limiter",
]
