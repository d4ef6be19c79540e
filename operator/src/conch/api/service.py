"""The resource as a whole: what the API server hands out, and what the operator reads of it."""

from collections.abc import Mapping
from typing import Any, Final, Literal, Self

from pydantic import ConfigDict, Field, PrivateAttr

from conch.api import names
from conch.api._base import Part
from conch.api.cel import Rule, rules
from conch.api.spec import Predictor, Spec
from conch.api.status import Status
from conch.api.variants import Variant, merge

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
            Rule(
                "!has(self.spec.variants) || self.spec.variants.all(v,"
                f" self.metadata.name.size() + v.name.size() <= {names.MAX_NAME_LENGTH + names.VARIANT_ROOM})",
                message="metadata.name and the name of a variant are together longer than"
                f" {names.MAX_NAME_LENGTH + names.VARIANT_ROOM} characters, and the names of the variant's objects hold"
                " both; shorten one",
                path=".spec.variants",
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

    _variant: str = PrivateAttr(default="")

    @property
    def variant(self) -> str:
        """The variant as which the service is looked at; empty: the predictor."""
        return self._variant

    @property
    def track(self) -> str:
        """What the objects of this variant are called: `<service>-<variant>`, and the predictor's `<service>`."""
        return f"{self.metadata.name}-{self.variant}" if self.variant else self.metadata.name

    @property
    def variant_spec(self) -> Variant | None:
        """What the spec says of the variant; None of the predictor, and of a variant that is asked for no more."""
        return next((variant for variant in self.spec.variants if variant.name == self.variant), None)

    def of_variant(self, name: str) -> Self:
        """Return the service as one of its variants: the same in all but predictor and status.

        Every room then treats a variant as a service of its own; only what clients and garbage collector see is shared.
        """
        service = self.model_copy(update={"status": self.status.of_variant(name)})
        service._variant = name  # noqa: SLF001  our own
        if service.variant_spec is None:
            return service
        main = self.spec.predictor.to_wire()
        main["model"]["name"] = self.model_name
        predictor = Predictor.model_validate(merge(main, service.variant_spec.predictor.to_wire()))
        return service.model_copy(update={"spec": self.spec.model_copy(update={"predictor": predictor})})

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Self:
        """Read the object as the API server hands it out. Of its status, which others may write, what can be read.

        Raises:
            pydantic.ValidationError: the object is not one that the CRD accepts.
        """
        status = body.get("status")
        read = {"status": Status.lenient(status)} if isinstance(status, Mapping) else {}
        return cls.model_validate({**body, **read})

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
