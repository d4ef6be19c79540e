"""Traffic of a service: its Gateways, or a split by replicas."""

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from conch.api._base import DurationText, ObjectName, Part, duration_rule
from conch.api.cel import Rule, rules

Hostname = Annotated[
    str,
    Field(max_length=253),
    Rule(
        "self.matches('^([*][.])?[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
        message="not a hostname; write it in lower case without scheme and port, such as magika.example.com",
    ),
]
"""A DNS name, whose first label may be `*`."""


# RFC 9110, section 5.6.2. In lower case, as HTTP/2 sends them: names that differ in case only are then the same.
_TOKEN: Final = r"^[a-z0-9!#$%&'*+.^_`|~-]+$"  # noqa: S105  token is the term of the RFC
HeaderName = Annotated[
    str,
    Field(min_length=1, max_length=128),
    Rule(
        f'self.matches("{_TOKEN}")',
        message="not a header name in lower case; write letters, digits and dashes, such as x-variant",
    ),
]
"""Name of an HTTP header, or of an entry of gRPC metadata, in lower case."""


class ConsistentHash(Part):
    """Session affinity by a header."""

    header: HeaderName
    """Name of the header whose value selects the pod, such as the header with the id of a sequence. Requests without it
    go to any pod."""


class GatewayRef(Part):
    """Reference to a Gateway that accepts routes from the namespace of the InferenceService."""

    name: ObjectName
    """Name of the Gateway."""
    namespace: Annotated[str | None, Field(max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")] = None
    """Namespace of the Gateway. Absent: that of the InferenceService."""
    section_name: Annotated[str | None, Field(min_length=1, max_length=253)] = None
    """Name of a listener of the Gateway. Absent: all listeners that accept the route."""


class Traffic(Part):
    """Routes of requests from clients to pods: by Gateways, or by the number of pods."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "has(self.gateways) != has(self.split)",
                message="traffic has exactly one of gateways (exact weights) and split (weights by the number of pods);"
                " set one, or remove traffic",
            ),
            Rule(
                "has(self.gateways) == has(self.hostnames)",
                message="gateways and hostnames need each other, since a gateway distinguishes services by hostname;"
                " add the missing one, or remove both",
                path=".hostnames",
            ),
            Rule(
                "!has(self.timeout) || has(self.gateways)",
                message="timeout needs a gateway; add gateways and hostnames, or remove timeout",
                path=".timeout",
            ),
            Rule(
                "!has(self.consistentHash) || has(self.gateways)",
                message="consistentHash needs a gateway; add gateways and hostnames, or remove consistentHash",
                path=".consistentHash",
            ),
        )
    )

    gateways: Annotated[tuple[GatewayRef, ...], Field(min_length=1, max_length=8)] = ()
    """Gateways (Gateway API) to which the HTTPRoute for HTTP and gRPC is attached."""
    hostnames: Annotated[tuple[Hostname, ...], Field(min_length=1, max_length=16)] = ()
    """Hostnames of the service at the Gateways, such as magika.example.com."""
    timeout: Annotated[DurationText | None, duration_rule(low="1ms", example="30s")] = None
    """Timeout of HTTP requests at the gateway, such as 30s. Absent: the default of the gateway."""
    consistent_hash: ConsistentHash | None = None
    """Session affinity: requests with the same value of a header go to the same pod of a revision, while its pods do
    not change. It needs Gateways of Envoy Gateway, for which Conch writes a BackendTrafficPolicy."""
    split: Literal["Replicas"] | None = None
    """Replicas: without a gateway, weights follow the numbers of pods. The observed weight is in the status: with one
    pod of three it is 33 %, whatever the desired weight."""
