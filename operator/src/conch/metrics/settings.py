"""Settings of the metrics API: environment variables, set by the chart and read once at start."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

from conch.api._base import duration_seconds
from conch.metrics.window import WINDOW
from conch.settings import SettingsError, read_choice, read_list, read_number


@dataclass(frozen=True)
class MetricsSettings:
    """The settings; each comment ends with the default."""

    service: str  # CONCH_SERVICE, the Service that the APIService names: conch-metrics
    namespace: str  # CONCH_NAMESPACE, of that Service: conch-system
    namespaces: tuple[str, ...]  # CONCH_NAMESPACES, whose pods are watched, separated by commas: all
    port: int  # CONCH_API_PORT, the API: 6443
    probe_port: int  # CONCH_PROBE_PORT, /healthz and /readyz: 8080
    metrics_port: int  # CONCH_METRICS_PORT, this process' own /metrics: 9090
    window: float  # CONCH_WINDOW, over which rates are taken, in seconds: 15s
    life: timedelta  # CONCH_CERTIFICATE_LIFE, of a serving certificate; renewed after two thirds: 24h
    log_format: str  # CONCH_LOG_FORMAT: json, or console
    log_level: str  # CONCH_LOG_LEVEL: info
    identity: str  # POD_NAME: the host

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read the environment.

        Raises:
            SettingsError: a variable is invalid. The message has its name, its value and what was expected.
        """
        return cls(
            service=environ.get("CONCH_SERVICE") or "conch-metrics",
            namespace=environ.get("CONCH_NAMESPACE") or "conch-system",
            namespaces=read_list(environ, "CONCH_NAMESPACES"),
            port=read_number(environ, "CONCH_API_PORT", 6443),
            probe_port=read_number(environ, "CONCH_PROBE_PORT", 8080),
            metrics_port=read_number(environ, "CONCH_METRICS_PORT", 9090),
            window=_read_duration(environ, "CONCH_WINDOW", f"{WINDOW:g}s"),
            life=timedelta(seconds=_read_duration(environ, "CONCH_CERTIFICATE_LIFE", "24h")),
            log_format=read_choice(environ, "CONCH_LOG_FORMAT", ("json", "console")),
            log_level=read_choice(environ, "CONCH_LOG_LEVEL", ("info", "debug", "warning", "error")),
            identity=environ.get("POD_NAME") or socket.gethostname(),
        )


def _read_duration(environ: Mapping[str, str], name: str, default: str) -> float:
    text = environ.get(name) or default
    try:
        seconds = duration_seconds(text)
    except ValueError as error:
        raise SettingsError(f"{name}: {error}") from error
    if seconds < 1:
        raise SettingsError(f"{name} is {text}; set it to at least 1s")
    return seconds
