"""The resource as a whole: what the API server hands out, and what the operator reads of it."""

from collections.abc import Mapping
from typing import Any, Final, Literal, Self

from pydantic import ConfigDict, Field

from conch.api import names
from conch.api._base import Part
from conch.api.cel import Rule, rules
from conch.api.spec import Spec
from conch.api.status import Status

_NAME_RULE: Final = (
    f"must begin with a letter, hold only a-z, 0-9 and -, and be at most {names.MAX_NAME_LENGTH} characters"
    " long, because the objects made for the service add a suffix to it and some must be DNS labels;"
    " choose a shorter or plainer name"
)


class Metadata(Part):
    """What the operator reads of ObjectMeta."""

    name: str
    """The service's name."""
    namespace: str = ""
    """Its namespace; empty in a manifest that leaves it to kubectl."""
    uid: str = ""
    """What its children's ownerReferences carry."""
    generation: int = 0
    """Raised by the API server at every change of the spec."""
    resource_version: str = ""
    """Raised at every write."""
    creation_timestamp: str | None = None
    """When it was created."""
    deletion_timestamp: str | None = None
    """When its deletion was asked for; absent while it lives."""
    labels: dict[str, str] = Field(default={})
    """Its labels."""
    annotations: dict[str, str] = Field(default={})
    """Its annotations."""


class InferenceService(Part):
    """A model served by NVIDIA Triton."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')"
                f" && self.metadata.name.size() <= {names.MAX_NAME_LENGTH}",
                message=f"metadata.name {_NAME_RULE}",
                expression=f"'metadata.name \"' + self.metadata.name + '\" {_NAME_RULE}'",
            ),
        )
    )

    api_version: Literal["conch.dev/v1alpha1"] = "conch.dev/v1alpha1"
    """The version of the API."""
    kind: Literal["InferenceService"] = "InferenceService"
    """The kind of the object."""
    metadata: Metadata
    """The object's metadata."""
    spec: Spec
    """What is asked for."""
    status: Status = Status()
    """What the operator last saw and did."""

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Self:
        """Read the object as the API server hands it out.

        Raises:
            pydantic.ValidationError: the object is not one that the CRD accepts.
        """
        return cls.model_validate(dict(body))

    def to_wire(self) -> dict[str, Any]:
        """Return the manifest: what the user would have typed, with apiVersion and kind."""
        wire = super().to_wire() | {"apiVersion": self.api_version, "kind": self.kind}
        return wire | ({"status": self.status.to_wire()} if "status" in wire else {})

    @property
    def model_name(self) -> str:
        """The model's name in Triton."""
        return self.spec.predictor.model.name or self.metadata.name

    def owner_reference(self) -> dict[str, Any]:
        """Return what a child's metadata.ownerReferences holds, so that it is collected with the service."""
        return {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "name": self.metadata.name,
            "uid": self.metadata.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }
