"""The cache of models on a claim that pods share."""

from typing import Annotated

from conch.api._base import ObjectName, Part
from conch.api.cel import Rule
from conch.api.quantity import Quantity, cel_is_quantity


class Cache(Part):
    """A claim on which pods share the files that they fetch."""

    claim_name: ObjectName
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
