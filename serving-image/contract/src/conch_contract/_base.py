"""The one model configuration of the contract: frozen values, camelCase on the wire.

Unknown fields are ignored, not refused: an agent of an older image must read the manifest
of a newer operator, and the other way round (operator upgrades restart nothing).
"""

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Wire(BaseModel):
    """A frozen value that travels as camelCase JSON."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="ignore")

    def to_json(self) -> str:
        """Return compact JSON with the wire's names, without what is unset or default."""
        return self.model_dump_json(by_alias=True, exclude_defaults=True)
