"""The differences of a model's configuration from the user's config.pbtxt.

The result of the merge is compared, not its steps: all changed or dropped fields are found without a list of fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import text_format  # type: ignore[import-untyped]

_LONGEST: Final = 120  # characters of a value
_NO_VALUE: Final = "unset"
# The choices of this message exclude one another, so it is compared as a whole.
_WHOLE: Final = "version_policy"


@dataclass(frozen=True)
class Override:
    """An overridden field.

    Attributes:
        field: Its path in config.pbtxt.
        file: Its value in config.pbtxt.
        used: Its value in Triton.
    """

    field: str
    file: str
    used: str

    def __str__(self) -> str:
        """Return the override as text for a message.

        >>> str(Override("max_batch_size", "16", "8"))
        'max_batch_size is 8 (config.pbtxt: 16)'
        """
        return f"{self.field} is {self.used} (config.pbtxt: {self.file})"


def compare(file: Any, used: Any, path: str = "") -> Iterator[Override]:
    """Yield the fields of a message that have another value, or none, in the message for Triton.

    Args:
        file: A message of config.pbtxt.
        used: The message of the same type for Triton.
        path: The path of the messages, with a dot at its end.
    """
    for field, value in file.ListFields():
        name = path + field.name
        other = getattr(used, field.name)
        if _is_map(field):
            for key, item in sorted(value.items()):
                yield from _compare_items(f"{name}[{key!r}]", item, other.get(key))
        elif field.is_repeated and field.message_type:
            for index, item in enumerate(value):
                yield from _compare_items(f"{name}[{index}]", item, other[index] if index < len(other) else None)
        elif field.message_type and field.name != _WHOLE:
            yield from _compare_items(name, value, other if used.HasField(field.name) else None)
        elif value != other:
            yield Override(name, _format_value(field, value), _format_value(field, other))


def _compare_items(path: str, file: Any, used: Any) -> Iterator[Override]:
    if used is None:
        yield Override(path, _shorten(file), _NO_VALUE)
    elif hasattr(file, "ListFields"):
        yield from compare(file, used, f"{path}.")
    elif file != used:
        yield Override(path, _shorten(file), _shorten(used))


def _is_map(field: Any) -> bool:
    return bool(field.message_type and field.message_type.GetOptions().map_entry)


def _format_value(field: Any, value: Any) -> str:
    """Return a value in the spelling of config.pbtxt."""
    if field.enum_type:
        return str(field.enum_type.values_by_number[value].name)
    if field.is_repeated:
        return f"[{', '.join(_shorten(item) for item in value)}]"
    return _shorten(value)


def _shorten(value: Any) -> str:
    if hasattr(value, "ListFields"):
        text = text_format.MessageToString(value, as_one_line=True).strip() or "{}"
    elif isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, str):
        text = f'"{value}"'
    else:
        text = str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
