"""The base model of the contract: frozen values, camelCase on the wire.

Unknown fields are ignored, not refused: an agent of an older image must read the manifest
of a newer operator, and a newer agent that of an older operator (operator upgrades restart nothing).
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Count = Annotated[int, Field(ge=0, lt=2**63)]
"""A non-negative number that fits into the 64 bits of an integer of the API server."""


class Wire(BaseModel):
    """A frozen value that travels as camelCase JSON."""

    model_config = ConfigDict(
        frozen=True,
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        allow_inf_nan=False,  # JSON has neither, but Python reads them
    )

    def to_json(self) -> str:
        """Return compact JSON with the wire's names, without fields that have their default."""
        return self.model_dump_json(by_alias=True, exclude_defaults=True)
