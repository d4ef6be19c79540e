"""The fields of a model's configuration, and its differences from the user's config.pbtxt.

The result of the merge is compared, not its steps: all changed or dropped fields are found without a list of fields.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import text_format  # type: ignore[import-untyped]

_LONGEST: Final = 120  # characters of a value
_NO_VALUE: Final = "unset"
_EMPTY: Final = "{}"
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


@dataclass(frozen=True)
class Pair:
    """A field that is set in a message, beside the same field of another message.

    Attributes:
        field: Its path in config.pbtxt.
        value: Its value in the message, in the spelling of config.pbtxt.
        other: Its value in the other message; None: that has no such message or item.
        item: Path of the outermost item of a list or map that contains it; empty: none does.
    """

    field: str
    value: str
    other: str | None
    item: str = ""


def compare(file: Any, used: Any) -> Iterator[Override]:
    """Yield the fields of a message that have another value, or none, in the message for Triton.

    Args:
        file: A message of config.pbtxt.
        used: The message of the same type for Triton.
    """
    for pair in _walk(file, used):
        if pair.value != pair.other:
            other = _NO_VALUE if pair.other is None else shorten(pair.other, _LONGEST)
            yield Override(pair.field, shorten(pair.value, _LONGEST), other)


def list_fields(message: Any) -> list[Pair]:
    """Return the set fields of a message, each beside itself.

    Args:
        message: A message of config.pbtxt.
    """
    return list(_walk(message, message))


def shorten(text: str, longest: int) -> str:
    """Return a text of at most so many characters.

    Args:
        text: The text.
        longest: Its maximum length, at least 1.
    """
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _walk(message: Any, other: Any, path: str = "", item: str = "") -> Iterator[Pair]:
    """Yield the set fields of a message, in the order of their numbers.

    Args:
        message: The message.
        other: A message of the same type.
        path: The path of the messages, with a dot at its end.
        item: The path of the outermost item of a list or map that contains them.
    """
    for field, value in message.ListFields():
        name, beside = path + field.name, getattr(other, field.name)
        if _is_map(field):
            for key, each in sorted(value.items()):
                yield from _walk_item(f"{name}[{key!r}]", each, beside.get(key), item or f"{name}[{key!r}]")
        elif field.is_repeated and field.message_type:
            for index, each in enumerate(value):
                second = beside[index] if index < len(beside) else None
                yield from _walk_item(f"{name}[{index}]", each, second, item or f"{name}[{index}]")
        elif field.message_type and field.name != _WHOLE:
            second = beside if other.HasField(field.name) else None
            if second is not None and field.containing_oneof and not value.ListFields():
                yield Pair(name, _EMPTY, _EMPTY, item)  # an empty choice is one, such as dynamic_batching {}
            yield from _walk_item(name, value, second, item)
        else:
            yield Pair(name, _format_value(field, value), _format_value(field, beside), item)


def _walk_item(path: str, first: Any, second: Any, item: str) -> Iterator[Pair]:
    if second is None:
        yield Pair(path, _format(first), None, item)
    elif hasattr(first, "ListFields"):
        yield from _walk(first, second, f"{path}.", item)
    else:
        yield Pair(path, _format(first), _format(second), item)


def _is_map(field: Any) -> bool:
    return bool(field.message_type and field.message_type.GetOptions().map_entry)


def _format_value(field: Any, value: Any) -> str:
    """Return a value in the spelling of config.pbtxt."""
    if field.is_repeated:
        return f"[{', '.join(map(_format, value))}]"
    if field.enum_type and (known := field.enum_type.values_by_number.get(value)):  # a newer Triton may have others
        return str(known.name)
    return _format(value)


def _format(value: Any) -> str:
    if hasattr(value, "ListFields"):
        return text_format.MessageToString(value, as_one_line=True).strip() or _EMPTY
    if isinstance(value, (bool, str)):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, float):
        return f"{value:g}"  # of 32 bits, which have no more digits
    return str(value)
