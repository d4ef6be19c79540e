"""Triton's own language: server flags and model configuration, as pure functions of what the user typed."""

from conch.triton.config import list_configured_fields, model_config
from conch.triton.flags import DRAIN_SECONDS, END_SECONDS, server_command
from conch.triton.warmup import warmup

__all__ = ["DRAIN_SECONDS", "END_SECONDS", "list_configured_fields", "model_config", "server_command", "warmup"]
