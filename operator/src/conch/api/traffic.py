"""How requests from outside reach the service, and what enforces a split of them."""

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from conch.api._base import UNREADABLE, Duration, ObjectName, Part
from conch.api.cel import Rule, rules

Hostname = Annotated[
    str,
    Field(max_length=253),
    Rule(
        "self.matches('^([*][.])?[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
        message="not a host name; write it in lower case without scheme and port, such as magika.example.com",
    ),
]
"""A DNS name, its first part perhaps `*`."""


# RFC 9110, section 5.6.2. In lower case, as HTTP/2 sends them: names that differ in case alone are then not two.
_TOKEN: Final = r"^[a-z0-9!#$%&'*+.^_`|~-]+$"  # noqa: S105  the RFC says token
HeaderName = Annotated[
    str,
    Field(min_length=1, max_length=128),
    Rule(
        f'self.matches("{_TOKEN}")',
        message="not a header name in lower case; write letters, digits and dashes, such as x-variant",
    ),
]
"""The name of an HTTP header, or of an entry of a gRPC call's metadata, in lower case."""


class ConsistentHash(Part):
    """Which requests go to the same pod."""

    header: HeaderName
    """The header by whose value a pod is chosen, such as one with the sequence's id. Requests that lack it go to any
    pod."""


class GatewayRef(Part):
    """A Gateway that admits routes from the service's namespace."""

    name: ObjectName
    """Its name."""
    namespace: Annotated[str | None, Field(max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")] = None
    """Its namespace. Absent: the service's own."""
    section_name: Annotated[str | None, Field(min_length=1, max_length=253)] = None
    """One of its listeners. Absent: all that admit the routes."""


class Traffic(Part):
    """The way from clients to pods."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "has(self.gateways) != has(self.split)",
                message="traffic is either gateways, which split requests exactly, or split, which splits them by"
                " the number of pods; say one of the two, or remove traffic",
            ),
            Rule(
                "has(self.gateways) == has(self.hostnames)",
                message="gateways and hostnames go together: the name is what tells one service of a gateway from"
                " another; add the missing one, or remove both",
                path=".hostnames",
            ),
            Rule(
                "!has(self.timeout) || has(self.gateways)",
                message="timeout is enforced by a gateway; add gateways and hostnames, or remove timeout",
                path=".timeout",
            ),
            Rule(
                "!has(self.consistentHash) || has(self.gateways)",
                message="consistentHash is enforced by a gateway; add gateways and hostnames, or remove consistentHash",
                path=".consistentHash",
            ),
        )
    )

    gateways: Annotated[tuple[GatewayRef, ...], Field(min_length=1, max_length=8)] = ()
    """The Gateways (Gateway API) to which an HTTPRoute for HTTP and gRPC is attached."""
    hostnames: Annotated[tuple[Hostname, ...], Field(min_length=1, max_length=16)] = ()
    """The names under which clients ask for the service at the gateways."""
    timeout: Annotated[
        Duration | None,
        Rule(
            f"{UNREADABLE} || duration(self) >= duration('1ms')",
            message="timeout must be at least 1ms, such as 30s",
        ),
    ] = None
    """How long the gateway waits for the answer to an HTTP request. Absent: as the gateway is set up."""
    consistent_hash: ConsistentHash | None = None
    """Send requests with the same value of a header to the same pod of a revision, as long as its pods stay. All
    Gateways must be of Envoy Gateway, for which a BackendTrafficPolicy is written."""
    split: Literal["Replicas"] | None = None
    """Without a gateway: share requests out by the number of pods. The share that this comes to is in the status;
    one pod of three is 33 %, whatever was asked."""
