"""CEL rules as annotations: a rule stands beside the field it guards and travels into the CRD.

The API server evaluates them, so a bad manifest is refused even while the operator is down; Python
never does. Nothing but the rule's text and the sentence of its refusal may enter.
"""

from dataclasses import dataclass
from typing import Any, Final

from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

VALIDATIONS: Final = "x-kubernetes-validations"


@dataclass(frozen=True)
class Rule:
    """One entry of x-kubernetes-validations.

    `message` is the sentence as it stands. `expression` is CEL that makes the sentence out of the
    value; where it fails, the API server falls back to `message`. `path` moves the blame to a child field.
    """

    rule: str
    message: str
    expression: str | None = None
    path: str | None = None

    def entry(self) -> dict[str, str]:
        """Return the entry under the names of the CRD."""
        entry = {"rule": self.rule, "message": self.message}
        if self.expression is not None:
            entry["messageExpression"] = self.expression
        if self.path is not None:
            entry["fieldPath"] = self.path
        return entry

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Append the rule to the schema of the value that it annotates."""
        schema = dict(handler(core))
        schema[VALIDATIONS] = [*schema.get(VALIDATIONS, []), self.entry()]
        return schema


@dataclass(frozen=True)
class Choice:
    """A rule in place of an enum, for a sentence of its own.

    The API server answers an enum with its values alone, and then evaluates no rule of the object.
    """

    message: str
    max_length: int = 64

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Replace the enum in the schema of the value that it annotates."""
        schema = dict(handler(core))
        values = ", ".join(f"'{value}'" for value in schema.pop("enum"))
        rule = Rule(f"self in [{values}]", message=self.message)
        return schema | {"maxLength": self.max_length, VALIDATIONS: [rule.entry()]}


def rules(*guards: Rule) -> dict[str, Any]:
    """Return what a model puts in `json_schema_extra` for rules that relate its fields."""
    return {VALIDATIONS: [guard.entry() for guard in guards]}
