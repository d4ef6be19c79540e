"""The InferenceService: metadata, spec and status, and the service as one of its variants."""

from collections.abc import Mapping
from typing import Any, Final, Literal, Self

from pydantic import ConfigDict, Field, PrivateAttr

from conch.api import names
from conch.api._base import Part
from conch.api.cel import Rule, rules
from conch.api.models import NamedModel
from conch.api.spec import Predictor, Spec
from conch.api.status import Status
from conch.api.variants import Variant, merge

_NAME_RULE: Final = (
    f"must begin with a letter, hold only a-z, 0-9 and -, and be at most {names.MAX_NAME_LENGTH} characters"
    " long, because the names of its objects add a suffix and some must be DNS labels; choose a shorter or simpler name"
)


class Metadata(Part):
    """The fields of ObjectMeta that the operator reads."""

    name: str
    """Name of the InferenceService."""
    namespace: str = ""
    """Namespace; empty in a manifest without one."""
    uid: str = ""
    """UID, which the ownerReferences of children have."""
    generation: int = 0
    """Generation; the API server increments it at each change of the spec."""
    resource_version: str = ""
    """Resource version; it changes at each write."""
    creation_timestamp: str | None = None
    """Time of the creation."""
    deletion_timestamp: str | None = None
    """Time of the deletion request; absent before it."""
    labels: dict[str, str] = Field(default={})
    """Labels."""
    annotations: dict[str, str] = Field(default={})
    """Annotations."""


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
                f" self.metadata.name.size() + v.name.size() <= {names.MAX_NAME_LENGTH + names.VARIANT_ALLOWANCE})",
                message="metadata.name and the name of a variant have together more than"
                f" {names.MAX_NAME_LENGTH + names.VARIANT_ALLOWANCE} characters, and the names of the variant's objects"
                " have both; shorten one",
                path=".spec.variants",
            ),
        )
    )

    api_version: Literal["conch.dev/v1alpha1"] = "conch.dev/v1alpha1"
    """API version: conch.dev/v1alpha1."""
    kind: Literal["InferenceService"] = "InferenceService"
    """Kind: InferenceService."""
    metadata: Metadata
    """Metadata of the object."""
    spec: Spec
    """Desired state of the InferenceService."""
    status: Status = Status()
    """Observed state of the InferenceService. Only the operator writes it."""

    _variant: str = PrivateAttr(default="")

    @property
    def variant(self) -> str:
        """The name of the variant that this value is of; empty: the predictor."""
        return self._variant

    @property
    def track(self) -> str:
        """The name of the track: `<service>-<variant>`, or `<service>` for the predictor."""
        return f"{self.metadata.name}-{self.variant}" if self.variant else self.metadata.name

    @property
    def variant_spec(self) -> Variant | None:
        """The variant in the spec; None for the predictor, and for a variant that was removed."""
        return next((variant for variant in self.spec.variants if variant.name == self.variant), None)

    def of_variant(self, name: str) -> Self:
        """Return the service as one of its variants: with the predictor and the status of the variant.

        All packages then treat a variant as a service of its own. Only root Service, route and owner are shared.
        """
        service = self.model_copy(update={"status": self.status.of_variant(name)})
        service._variant = name  # noqa: SLF001  our own
        if service.variant_spec is None:
            return service
        merged = merge(self.spec.predictor.to_wire(), service.variant_spec.predictor.to_wire())
        predictor = Predictor.model_validate(merged).with_entry(self.model_name)
        return service.model_copy(update={"spec": self.spec.model_copy(update={"predictor": predictor})})

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Self:
        """Return the InferenceService of an object of the API server, without parts of the status that cannot be read.

        Raises:
            pydantic.ValidationError: the object is not valid by the CRD.
        """
        status = body.get("status")
        read = {"status": Status.lenient(status)} if isinstance(status, Mapping) else {}
        return cls.model_validate({**body, **read})

    def to_wire(self) -> dict[str, Any]:
        """Return the manifest, without fields that are unset or have their default."""
        wire = super().to_wire() | {"apiVersion": self.api_version, "kind": self.kind}
        return wire | ({"status": self.status.to_wire()} if "status" in wire else {})

    @property
    def model_name(self) -> str:
        """Name in Triton of the model that clients call."""
        predictor = self.spec.predictor
        return predictor.entry or (predictor.model and predictor.model.name) or self.metadata.name

    @property
    def models(self) -> tuple[NamedModel, ...]:
        """Models of the predictor, each with its configuration; a repository is one, with the name of its entry."""
        return self.spec.predictor.list_models(self.model_name)

    def owner_reference(self) -> dict[str, Any]:
        """Return the owner reference of a child, by which Kubernetes deletes the child with the service."""
        return {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "name": self.metadata.name,
            "uid": self.metadata.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }
