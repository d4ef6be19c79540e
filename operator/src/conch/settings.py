"""Settings of the operator: environment variables, set by the chart and read once at start."""

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self, TypeVar, get_args

from conch.api.label_selector import parse_selector
from conch.api.metrics import MetricsApi
from conch.api.quantity import parse_quantity
from conch.observe.installation import Scope

Choice = TypeVar("Choice", bound=str)


_SIZE: Final = re.compile("[1-9][0-9]*[MGT]i")  # as in the chart's values.schema.json


class SettingsError(Exception):
    """An environment variable has an invalid value."""


@dataclass(frozen=True)
class Settings:
    """The operator's settings; each comment ends with the default."""

    serving_image: str  # CONCH_SERVING_IMAGE: what new revisions run; required
    pull_policy: str  # CONCH_IMAGE_PULL_POLICY of serving pods: IfNotPresent
    metrics_api: MetricsApi  # CONCH_METRICS_API, the source of Triton's metrics for autoscalers: builtin
    prometheus: str  # CONCH_PROMETHEUS, the URL of the Prometheus that KEDA queries: none
    prometheus_servers: tuple[str, ...]  # CONCH_PROMETHEUS_SERVERS, hosts that gates may name, separated by commas: any
    max_model_bytes: Mapping[str, int]  # CONCH_MAX_MODEL_BYTES, such as 50Gi,team-a=200Gi: any size
    tmp_size_limit: str  # CONCH_TMP_SIZE_LIMIT, of /tmp in each container of a serving pod, such as 10Gi: none
    namespaces: tuple[str, ...]  # CONCH_NAMESPACES, separated by commas: all
    label_selector: str  # CONCH_LABEL_SELECTOR of services, such as !example.com/shard: all
    log_format: str  # CONCH_LOG_FORMAT: json, or console
    log_level: str  # CONCH_LOG_LEVEL: info
    probe_port: int  # CONCH_PROBE_PORT, /healthz and /readyz: 8080
    metrics_port: int  # CONCH_METRICS_PORT, /metrics: 9090
    lease_namespace: str  # CONCH_LEASE_NAMESPACE, that of signature policies too: none, without leader election
    lease_name: str  # CONCH_LEASE_NAME: conch-operator
    identity: str  # POD_NAME: host and process
    workers: int  # CONCH_WORKERS, services that are reconciled at a time: 16

    @property
    def installation(self) -> str:
        """The name of this installation in the status of the services that it serves; empty without a Lease."""
        return f"{self.lease_namespace}/{self.lease_name}" if self.lease_namespace else ""

    @property
    def scope(self) -> Scope:
        """The services that this installation serves."""
        return Scope(frozenset(self.namespaces), self.label_selector)

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read the environment.

        Raises:
            SettingsError: a variable is invalid. The message has its name, its value and what was expected.
        """
        image = environ.get("CONCH_SERVING_IMAGE", "")
        if not image:
            raise SettingsError("CONCH_SERVING_IMAGE is empty; set it to the serving image, such as conch/serving:1.0")
        return cls(
            serving_image=image,
            pull_policy=read_choice(environ, "CONCH_IMAGE_PULL_POLICY", ("IfNotPresent", "Always", "Never")),
            metrics_api=read_choice(environ, "CONCH_METRICS_API", get_args(MetricsApi)),
            prometheus=_read_url(environ, "CONCH_PROMETHEUS"),
            prometheus_servers=read_list(environ, "CONCH_PROMETHEUS_SERVERS"),
            max_model_bytes=_read_sizes(environ, "CONCH_MAX_MODEL_BYTES"),
            tmp_size_limit=_read_size(environ, "CONCH_TMP_SIZE_LIMIT"),
            namespaces=read_list(environ, "CONCH_NAMESPACES"),
            label_selector=_read_label_selector(environ, "CONCH_LABEL_SELECTOR"),
            log_format=read_choice(environ, "CONCH_LOG_FORMAT", ("json", "console")),
            log_level=read_choice(environ, "CONCH_LOG_LEVEL", ("info", "debug", "warning", "error")),
            probe_port=read_number(environ, "CONCH_PROBE_PORT", 8080),
            metrics_port=read_number(environ, "CONCH_METRICS_PORT", 9090),
            lease_namespace=environ.get("CONCH_LEASE_NAMESPACE", ""),
            lease_name=environ.get("CONCH_LEASE_NAME") or "conch-operator",
            identity=environ.get("POD_NAME") or f"{socket.gethostname()}-{os.getpid()}",
            workers=read_number(environ, "CONCH_WORKERS", 16),
        )


def read_choice(environ: Mapping[str, str], name: str, choices: tuple[Choice, ...]) -> Choice:
    """Return one of the choices; the first one where the variable is not set.

    Raises:
        SettingsError: it is another value.
    """
    value = environ.get(name) or choices[0]
    if value not in choices:
        raise SettingsError(f"{name} is {value!r}; set it to one of {', '.join(choices)}")
    return value


def _read_url(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "").rstrip("/")
    if value and not value.startswith(("http://", "https://")):
        raise SettingsError(f"{name} is {value!r}; set it to a URL such as http://prometheus.monitoring.svc:9090")
    return value


def _read_label_selector(environ: Mapping[str, str], name: str) -> str:
    selector = environ.get(name, "").strip()
    try:
        parse_selector(selector)
    except ValueError as error:
        raise SettingsError(f"{name}: {error}") from None
    return selector


def read_number(environ: Mapping[str, str], name: str, default: int) -> int:
    """Return a port, or another number up to 65535.

    Raises:
        SettingsError: it is no such number.
    """
    value = environ.get(name) or str(default)
    if not value.isdecimal() or not 0 < int(value) < 65536:
        raise SettingsError(f"{name} is {value!r}; set it to a number from 1 to 65535")
    return int(value)


def _read_size(environ: Mapping[str, str], name: str) -> str:
    """Return a quantity of bytes; empty where none is set."""
    value = environ.get(name, "")
    if value and not _SIZE.fullmatch(value):
        raise SettingsError(f"{name} is {value!r}; set it to a whole number of Mi, Gi or Ti, such as 10Gi")
    return value


def _read_sizes(environ: Mapping[str, str], name: str) -> dict[str, int]:
    """Return sizes in bytes by namespace; "": of the namespaces that are not named.

    >>> _read_sizes({"A": "1Ki,team-a=2Mi"}, "A")
    {'': 1024, 'team-a': 2097152}
    """
    sizes = {}
    for part in read_list(environ, name):
        namespace, _, text = part.rpartition("=")
        amount = parse_quantity(text)
        if amount is None or amount < 1:
            raise SettingsError(f"{name} has {part!r}; set it to sizes such as 50Gi, or team-a=200Gi for a namespace")
        sizes[namespace] = int(amount)
    return sizes


def read_list(environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    """Return the parts between commas."""
    return tuple(part for part in environ.get(name, "").replace(" ", "").split(",") if part)
