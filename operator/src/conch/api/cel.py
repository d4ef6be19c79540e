"""CEL rules as annotations of fields, from which the CRD is generated.

The API server evaluates the rules, so it refuses a bad manifest even while the operator is down. The operator does not
evaluate them.
"""

from dataclasses import dataclass, replace
from typing import Any, Final, Self

from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

VALIDATIONS: Final = "x-kubernetes-validations"


@dataclass(frozen=True)
class Rule:
    """One entry of x-kubernetes-validations.

    Attributes:
        rule: CEL that is true if the value is valid.
        message: The error message.
        expression: CEL that returns an error message with the value. If it fails or is empty, the API server returns
            `message`.
        path: The child field that the error names; None: the field that has the rule.
    """

    rule: str
    message: str
    expression: str | None = None
    path: str | None = None

    def only_if(self, condition: str) -> Self:
        """Return the rule for values of which some CEL is true.

        Args:
            condition: The CEL.
        """
        return replace(self, rule=f"!({condition}) || {self.rule}")

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
    """A rule in place of an enum, with a message of its own.

    For an enum the API server returns the allowed values only, and then evaluates no rule of the object.
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
    """Return the `json_schema_extra` of a model with rules that relate its fields."""
    return {VALIDATIONS: [guard.entry() for guard in guards]}
