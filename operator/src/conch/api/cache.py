"""What pods share of the files that they fetch: a cache on a claim, or among themselves."""

from typing import Annotated, Literal

from pydantic import ConfigDict

from conch.api._base import ObjectName, Part
from conch.api.cel import Rule, rules
from conch.api.quantity import Quantity, cel_is_quantity


class Cache(Part):
    """How pods share the files that they fetch: on a claim, or by sending them to each other."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "has(self.claimName) != has(self.peers)",
                message="pods share files on a claim or with each other; set either claimName or peers",
            ),
            Rule(
                "!has(self.sizeLimit) || has(self.claimName)",
                message="sizeLimit is that of a claim; set claimName, or remove it",
                path=".sizeLimit",
            ),
        )
    )

    claim_name: ObjectName | None = None
    """Name of a PersistentVolumeClaim in the namespace of the InferenceService. Pods on several nodes need the access
    mode ReadWriteMany. Services may share it."""
    size_limit: Annotated[
        Quantity | None,
        Rule(
            f"!{cel_is_quantity('self')} || !quantity(string(self)).isLessThan(quantity('1Mi'))",
            message="a cache has at least 1Mi; write the size of all models that it keeps, such as 200Gi",
        ),
    ] = None
    """Size of all files in the cache. To stay below it, those that no pod uses are deleted, the longest unused first.
    Absent: they are deleted when the claim is full."""
    peers: Literal[True] | None = None
    """The pods of the service read each file of an object store once, and send it to each other."""
